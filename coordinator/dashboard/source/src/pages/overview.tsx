import { useMemo } from "preact/hooks";
import { type Loaded, useNow, useRows, useTopic } from "../context";
import { Card, Empty, etaWords, Failure, Figure, ItemsBar, ItemsLegend, Loading, Meter, ServiceLink } from "../parts";
import { href } from "../route";
import { EventList } from "./events";
import { LeaderList } from "./leaderboard";
import { total } from "./services";
import { Throughput } from "../throughput";
import type { EventRow, LeaderRow, Overview as Data, Rows, ServiceRow } from "../wire";
import { compact, count, percent, plural, rate } from "../words";

/** Rows of each short list. */
const FEW = 8;

export function Overview() {
  const overview = useTopic<Data>("overview");
  const services = useTopic<Rows<ServiceRow>>("services");
  const events = useTopic<Rows<EventRow>>("events");
  const leaders = useRows<LeaderRow>({ table: "leaderboard", filter: { span: "day" }, limit: FEW, every: 10 });
  const now = useNow();
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Overview</h1>
        <p class="lead">{overview === null ? " " : sentence(overview.data)}</p>
      </div>
      {overview === null ? <Loading rows={2} /> : <Figures data={overview.data} />}
      <div class="columns">
        <div class="column">
          <Throughput live={overview} />
          <Progress services={services?.data ?? null} />
        </div>
        <div class="column aside">
          {overview !== null && <Balance data={overview.data} />}
          <TopVolunteers leaders={leaders} />
          <Card title="Latest events" aside={<a href={href(["events"])}>All events</a>}>
            {events === null ? <Loading rows={4} /> : <EventList rows={events.data.rows.slice(0, FEW)} now={now} />}
          </Card>
        </div>
      </div>
    </>
  );
}

/** What goes on, in words. */
function sentence({ clients, items, items_per_second: speed }: Data): string {
  const left = items.total - items.settled - items.quarantined;
  if (items.total === 0) return "There is nothing to do yet: no items have been added.";
  if (left === 0) return `All ${count(items.settled)} checks are done. Thank you!`;
  if (speed > 0) {
    return `${plural(clients.connected, "volunteer")} connected, ${rate(speed)} items settled a second, ${count(left)} to go.`;
  }
  return `${plural(left, "item")} to go; ${clients.connected === 0 ? "nobody is connected" : "nothing was settled in the last seconds"}.`;
}

function Figures({ data }: { data: Data }) {
  const { items, clients } = data;
  return (
    <dl class="figures-row">
      <Figure
        name="Throughput"
        value={`${rate(data.items_per_second)}/s`}
        note={`${rate(data.buckets_per_second)} buckets/s`}
      />
      <Figure
        name="Settled"
        value={percent(items.settled, items.total)}
        title={count(items.settled)}
        note={`${compact(items.settled)} of ${compact(items.total)} items`}
      />
      <Figure name="Done in" value={etaWords(items, data.eta)} note={data.eta && "of time in which work goes on"} />
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
            {plural(data.faults, "fault")}
          </>
        }
      />
    </dl>
  );
}

/** What clients ask for against what lies ready. */
function Balance({ data }: { data: Data }) {
  const { demand, buckets, items } = data;
  const most = Math.max(1, demand.pending, buckets.ready);
  const words = demand.pending === 0 ? enough(data) : short(data);
  return (
    <Card title="Demand and supply">
      <dl class="balance">
        <div>
          <dt>Asked for, not there</dt>
          <dd>{plural(demand.pending, "bucket")}</dd>
          <Meter share={demand.pending / most} tone="warn" />
        </div>
        <div>
          <dt>Ready to hand out</dt>
          <dd>{plural(buckets.ready, "bucket")}</dd>
          <Meter share={buckets.ready / most} tone="good" />
        </div>
      </dl>
      <p class="muted">
        {words} {plural(items.waiting, "item")} not in a bucket yet.
      </p>
    </Card>
  );
}

function enough({ buckets, items }: Data): string {
  return buckets.ready + items.waiting === 0 ? "Nothing lies ready, and nobody asks." : "Everyone has what was asked for.";
}

function short({ buckets, items }: Data): string {
  if (buckets.ready > 0) return "What is asked for is of services that have nothing ready.";
  return items.waiting > 0 ? "Clients wait while buckets are made." : "Clients wait for new items.";
}

/** The services in which there is most to do; active ones first. */
function Progress({ services }: { services: Rows<ServiceRow> | null }) {
  const rows = useMemo(
    () => [...(services?.rows ?? [])].sort((one, other) => toDo(other) - toDo(one)).slice(0, FEW),
    [services],
  );
  const more = (services?.total ?? 0) - rows.length;
  return (
    <Card title="Progress" aside={<a href={href(["services"])}>{more > 0 ? `${more} more services` : "All services"}</a>}>
      {services === null && <Loading />}
      {services?.total === 0 && <Empty title="There are no services." />}
      <ul class="progress-list">
        {rows.map((row) => (
          <li key={row.service}>
            <div class="progress-head">
              <span>
                <ServiceLink service={row.service} /> <span class="muted wide">{row.title}</span>
              </span>
              <span class="muted">
                {row.state === "active" ? `${rate(row.items_per_second)}/s · ${etaWords(row.items, row.eta)}` : row.state}
              </span>
              <b>{percent(row.items.settled, row.items.total)}</b>
            </div>
            <ItemsBar items={row.items} label={row.service} />
          </li>
        ))}
      </ul>
      {rows[0] !== undefined && <ItemsLegend items={total(services?.rows ?? [])} />}
    </Card>
  );
}

function toDo({ items, state }: ServiceRow): number {
  return state === "active" ? items.total - items.settled : -1;
}

function TopVolunteers({ leaders }: { leaders: Loaded<LeaderRow> }) {
  return (
    <Card title="Top volunteers today" aside={<a href={href(["leaderboard"])}>Leaderboard</a>}>
      {leaders.error !== null && <Failure text={leaders.error} again={leaders.again} />}
      {leaders.rows === null ? leaders.error === null && <Loading rows={4} /> : <LeaderList rows={leaders.rows} />}
    </Card>
  );
}
