import { useMemo } from "preact/hooks";
import {
  Card,
  Empty,
  Failure,
  Figure,
  ItemsBar,
  ItemsLegend,
  Loading,
  ServiceLink,
} from "../components";
import { type Concern, concerns } from "../concerns";
import { type LoadedRows, useNow, useRows, useTopic } from "../context";
import { DemandAndSupply } from "../demand";
import { overviewEta, serviceEta } from "../eta";
import { compactCount, count, percent, plural, rate } from "../format";
import { PageHead } from "../page_head";
import { href } from "../route";
import { ThroughputCard } from "../throughput";
import type { EventRow, LeaderRow, Overview, FirstRows, ServiceRow } from "../wire";
import { EventList } from "./events";
import { LeaderList } from "./leaderboard";
import { sumItems } from "./services";

/** Rows of each list on this page. */
const SHORT_LIST_ROWS = 8;
/** Serious events that are marked in the chart, the newest ones. */
const SERIOUS_EVENTS = 50;

const NO_EVENTS: readonly EventRow[] = [];

export function OverviewPage() {
  const overview = useTopic<Overview>("overview");
  const services = useTopic<FirstRows<ServiceRow>>("services");
  const serious = useRows<EventRow>({
    table: "events",
    filter: { severity: "warning" },
    limit: SERIOUS_EVENTS,
    refreshSeconds: 5,
  });
  const leaders = useRows<LeaderRow>({
    table: "leaderboard",
    filter: { span: "day" },
    limit: SHORT_LIST_ROWS,
    refreshSeconds: 10,
  });
  const now = useNow();

  return (
    <>
      <PageHead title="Overview" lead={overview === null ? " " : workSummary(overview.data)} />
      {overview !== null && (
        <ConcernLine found={concerns(overview.data, services?.data.rows ?? [], serious.rows ?? [], now)} />
      )}
      {overview === null ? (
        <Loading rows={2} />
      ) : (
        <OverviewFigures overview={overview.data} services={services?.data.rows ?? []} />
      )}
      <div class="columns">
        <div class="column">
          <ThroughputCard overview={overview} events={serious.rows ?? NO_EVENTS} />
          <ServiceProgress services={services?.data ?? null} />
        </div>
        <div class="column aside">
          {overview !== null && <DemandAndSupply overview={overview.data} />}
          <TopVolunteers leaders={leaders} />
          <SeriousEvents events={serious} now={now} />
        </div>
      </div>
    </>
  );
}

/** The latest events that are warnings or errors: what goes as it should is on the page of all events. */
function SeriousEvents({ events, now }: { events: LoadedRows<EventRow>; now: number }) {
  return (
    <Card title="Latest trouble" aside={<a href={href(["events"])}>All events</a>}>
      {events.error !== null && <Failure text={events.error} reload={events.reload} />}
      {events.rows === null && events.error === null && <Loading rows={4} />}
      {events.rows?.length === 0 && <Empty title="Nothing has gone wrong lately." />}
      {events.rows !== null && events.rows.length > 0 && (
        <EventList rows={events.rows} now={now} most={SHORT_LIST_ROWS} />
      )}
    </Card>
  );
}

function ConcernLine({ found }: { found: readonly Concern[] }) {
  if (found.length === 0) return null;
  return (
    <ul class="concerns" aria-label="Needs attention">
      <li>
        <b>{found.length === 1 ? "1 thing needs you:" : `${found.length} things need you:`}</b>
      </li>
      {found.map(({ text, path, query }) => (
        <li key={text}>
          <a href={href(path, query)}>{text}</a>
        </li>
      ))}
    </ul>
  );
}

/** The state of all work in one sentence. */
function workSummary({ clients, items, items_per_second }: Overview): string {
  const left = items.total - items.settled - items.quarantined;
  if (items.total === 0) return "There is nothing to do yet: no items have been added.";
  if (left === 0 && items.quarantined > 0) {
    return `${plural(items.settled, "check")} done, and ${plural(items.quarantined, "item")} set aside: nothing else is left.`;
  }
  if (left === 0) return `All ${count(items.settled)} checks are done. Thank you!`;
  if (items_per_second > 0) {
    return `${plural(clients.connected, "volunteer")} connected, ${rate(items_per_second)} items settled a second, ${count(left)} to go.`;
  }
  return `${plural(left, "item")} to go; ${clients.connected === 0 ? "nobody is connected" : "nothing was settled in the last seconds"}.`;
}

function OverviewFigures({ overview, services }: { overview: Overview; services: readonly ServiceRow[] }) {
  const { items, clients } = overview;
  const eta = overviewEta(overview, services);

  return (
    <dl class="figures-row">
      <Figure
        name="Throughput"
        value={`${rate(overview.items_per_second)}/s`}
        note={`${rate(overview.buckets_per_second)} buckets/s`}
      />
      <Figure
        name="Settled"
        value={percent(items.settled, items.total)}
        title={count(items.settled)}
        note={`${compactCount(items.settled)} of ${compactCount(items.total)} items`}
      />
      <Figure name="Done in" value={eta.text} note={eta.note} />
      <Figure
        name="Clients connected"
        value={count(clients.connected)}
        note={`${count(clients.active)} worked lately, ${count(clients.registered)} registered`}
      />
      <Figure
        name="Trouble"
        value={count(clients.flagged)}
        note={
          <>
            <a href={href(["clients"], { health: "flagged" })}>flagged</a>, {count(clients.watched)} watched,{" "}
            {plural(overview.faults, "fault")}
          </>
        }
      />
    </dl>
  );
}

/** The services with the most unsettled items, active ones first. */
function ServiceProgress({ services }: { services: FirstRows<ServiceRow> | null }) {
  const rows = useMemo(
    () =>
      (services?.rows ?? [])
        .filter(({ items }, _, all) => items.total > 0 || all.length <= SHORT_LIST_ROWS)
        .sort((left, right) => unsettledItems(right) - unsettledItems(left))
        .slice(0, SHORT_LIST_ROWS),
    [services],
  );
  const others = (services?.total ?? 0) - rows.length;

  return (
    <Card
      title="Progress"
      aside={<a href={href(["services"])}>{others > 0 ? `${others} more services` : "All services"}</a>}
    >
      {services === null && <Loading />}
      {services?.total === 0 && <Empty title="There are no services." />}
      <ul class="progress-list">
        {rows.map((row) => (
          <li key={row.service}>
            <div class="progress-head">
              <span>
                <ServiceLink service={row.service} /> <span class="muted wide-only">{row.title}</span>
              </span>
              <span class="muted">
                {row.state === "active"
                  ? `${rate(row.items_per_second)}/s · ${serviceEta(row).text}`
                  : row.state}
              </span>
              <b>{percent(row.items.settled, row.items.total)}</b>
            </div>
            <ItemsBar items={row.items} label={row.service} />
          </li>
        ))}
      </ul>
      {rows[0] !== undefined && <ItemsLegend items={sumItems(services?.rows ?? [])} />}
    </Card>
  );
}

/** Count the unsettled items of an active service; services in other states sort behind. */
function unsettledItems({ items, state }: ServiceRow): number {
  return state === "active" ? items.total - items.settled : -1;
}

function TopVolunteers({ leaders }: { leaders: LoadedRows<LeaderRow> }) {
  return (
    <Card title="Top volunteers today" aside={<a href={href(["leaderboard"])}>Leaderboard</a>}>
      {leaders.error !== null && <Failure text={leaders.error} reload={leaders.reload} />}
      {leaders.rows === null ? leaders.error === null && <Loading rows={4} /> : <LeaderList rows={leaders.rows} />}
    </Card>
  );
}
