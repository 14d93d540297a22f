import { useMemo } from "preact/hooks";
import {
  Card,
  Empty,
  etaText,
  Failure,
  Figure,
  ItemsBar,
  ItemsLegend,
  Loading,
  Meter,
  ServiceLink,
} from "../components";
import { type LoadedRows, useNow, useRows, useTopic } from "../context";
import { compactCount, count, percent, plural, rate } from "../format";
import { href } from "../route";
import { ThroughputCard } from "../throughput";
import type { EventRow, LeaderRow, Overview, FirstRows, ServiceRow } from "../wire";
import { EventList } from "./events";
import { LeaderList } from "./leaderboard";
import { sumItems } from "./services";

/** Rows of each list on this page. */
const SHORT_LIST_ROWS = 8;

export function OverviewPage() {
  const overview = useTopic<Overview>("overview");
  const services = useTopic<FirstRows<ServiceRow>>("services");
  const events = useTopic<FirstRows<EventRow>>("events");
  const leaders = useRows<LeaderRow>({
    table: "leaderboard",
    filter: { span: "day" },
    limit: SHORT_LIST_ROWS,
    refreshSeconds: 10,
  });
  const now = useNow();

  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Overview</h1>
        <p class="lead">{overview === null ? " " : workSummary(overview.data)}</p>
      </div>
      {overview === null ? <Loading rows={2} /> : <OverviewFigures overview={overview.data} />}
      <div class="columns">
        <div class="column">
          <ThroughputCard overview={overview} />
          <ServiceProgress services={services?.data ?? null} />
        </div>
        <div class="column aside">
          {overview !== null && <DemandAndSupply overview={overview.data} />}
          <TopVolunteers leaders={leaders} />
          <Card title="Latest events" aside={<a href={href(["events"])}>All events</a>}>
            {events === null ? (
              <Loading rows={4} />
            ) : (
              <EventList rows={events.data.rows.slice(0, SHORT_LIST_ROWS)} now={now} />
            )}
          </Card>
        </div>
      </div>
    </>
  );
}

/** The state of all work in one sentence. */
function workSummary({ clients, items, items_per_second }: Overview): string {
  const left = items.total - items.settled - items.quarantined;
  if (items.total === 0) return "There is nothing to do yet: no items have been added.";
  if (left === 0) return `All ${count(items.settled)} checks are done. Thank you!`;
  if (items_per_second > 0) {
    return `${plural(clients.connected, "volunteer")} connected, ${rate(items_per_second)} items settled a second, ${count(left)} to go.`;
  }
  return `${plural(left, "item")} to go; ${clients.connected === 0 ? "nobody is connected" : "nothing was settled in the last seconds"}.`;
}

function OverviewFigures({ overview }: { overview: Overview }) {
  const { items, clients } = overview;

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
      <Figure
        name="Done in"
        value={etaText(items, overview.eta)}
        note={overview.eta && "of time in which work goes on"}
      />
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

/** The buckets that clients ask for, compared with those that are ready. */
function DemandAndSupply({ overview }: { overview: Overview }) {
  const { demand, buckets, items } = overview;
  const larger = Math.max(1, demand.pending, buckets.ready);
  const text = demand.pending === 0 ? noDemandText(overview) : demandText(overview);

  return (
    <Card title="Demand and supply">
      <dl class="balance">
        <div>
          <dt>Asked for, not there</dt>
          <dd>{plural(demand.pending, "bucket")}</dd>
          <Meter share={demand.pending / larger} tone="warn" />
        </div>
        <div>
          <dt>Ready to hand out</dt>
          <dd>{plural(buckets.ready, "bucket")}</dd>
          <Meter share={buckets.ready / larger} tone="good" />
        </div>
      </dl>
      <p class="muted">
        {text} {plural(items.waiting, "item")} not in a bucket yet.
      </p>
    </Card>
  );
}

function noDemandText({ buckets, items }: Overview): string {
  return buckets.ready + items.waiting === 0
    ? "Nothing lies ready, and nobody asks."
    : "Everyone has what was asked for.";
}

function demandText({ buckets, items }: Overview): string {
  if (buckets.ready > 0) return "What is asked for is of services that have nothing ready.";
  return items.waiting > 0 ? "Clients wait while buckets are made." : "Clients wait for new items.";
}

/** The services with the most unsettled items, active ones first. */
function ServiceProgress({ services }: { services: FirstRows<ServiceRow> | null }) {
  const rows = useMemo(
    () =>
      [...(services?.rows ?? [])]
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
                  ? `${rate(row.items_per_second)}/s · ${etaText(row.items, row.eta)}`
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
