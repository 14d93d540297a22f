import { useCell } from "../cell";
import { useApp, useNow, useRows } from "../context";
import { ActButton } from "../dialog";
import { Ago, Badge, Card, Empty, etaWords, Failure, Figure, ItemsBar, ItemsLegend, Loading, Tabs } from "../parts";
import { href } from "../route";
import { PAST_SPANS, Past } from "../throughput";
import type { Oldest, ServiceRow } from "../wire";
import { count, percent, plural, rate, span } from "../words";

export function ServicePage({ service }: { service: string }) {
  const loaded = useRows<ServiceRow>({ table: "services", filter: { service }, limit: 1, every: 1 });
  const { query } = useCell(useApp().router.route);
  const now = useNow();
  const row = loaded.rows?.find((one) => one.service === service);
  return (
    <>
      <div class="page-head">
        <p class="crumbs">
          <a href={href(["services"])}>Services</a>
        </p>
        <h1 tabIndex={-1}>{service}</h1>
        {row !== undefined && (
          <div class="head-row">
            <Badge word={row.state} />
            <span class="muted">
              {row.title} · plugin {row.plugin}
            </span>
            <PauseButton row={row} onDone={loaded.again} />
          </div>
        )}
      </div>
      {loaded.error !== null && !loaded.missing && <Failure text={loaded.error} again={loaded.again} />}
      {loaded.rows === null && loaded.error === null && <Loading rows={5} />}
      {(loaded.missing || loaded.rows !== null) && row === undefined && <Empty title="There is no such service." />}
      {row !== undefined && <Figures row={row} />}
      {row !== undefined && (
        <div class="columns">
          <div class="column">
            <Card title="Items" aside={<a href={href(["buckets"], { service })}>Buckets</a>}>
              <ItemsBar items={row.items} label={service} />
              <ItemsLegend items={row.items} />
            </Card>
            <Card title="Throughput" aside={<Tabs name="span" label="Time shown" options={PAST_SPANS} />}>
              <Past key={query.span} span={query.span === "month" ? "month" : "day"} service={service} />
            </Card>
          </div>
          <div class="column aside">
            <Card title="Oldest waiting">
              <OldestList oldest={row.oldest} now={now} />
            </Card>
          </div>
        </div>
      )}
    </>
  );
}

function PauseButton({ row, onDone }: { row: ServiceRow; onDone(): void }) {
  const { service } = row;
  if (row.state === "active") {
    return (
      <ActButton
        onDone={onDone}
        act={{
          name: "Pause service",
          operation: { type: "service.pause", fields: { service } },
          effect: `Nothing more of ${service} is handed out. Asks wait, submits still count.`,
          done: () => `${service} is paused.`,
          needs: "operator",
        }}
      />
    );
  }
  if (row.state !== "paused") return null;
  return (
    <ActButton
      onDone={onDone}
      act={{
        name: "Resume service",
        operation: { type: "service.resume", fields: { service } },
        effect: `Work of ${service} is handed out again.`,
        done: () => `${service} is active again.`,
        needs: "operator",
      }}
    />
  );
}

function Figures({ row }: { row: ServiceRow }) {
  return (
    <dl class="figures-row">
      <Figure name="Throughput" value={`${rate(row.items_per_second)}/s`} note="items settled" />
      <Figure
        name="Settled"
        value={percent(row.items.settled, row.items.total)}
        note={`${count(row.items.settled)} of ${count(row.items.total)} items`}
      />
      <Figure name="Done in" value={etaWords(row.items, row.eta)} note={row.eta && "of time in which work goes on"} />
      <Figure
        name="Supply"
        value={count(row.buckets.ready)}
        note={`ready buckets; ${count(row.buckets.claimed)} claimed, ${count(row.buckets.dead)} dead`}
      />
      <Figure
        name="Demand"
        value={count(row.demand.pending)}
        note={`buckets asked for and not there, by ${plural(row.demand.clients, "client")}; ${count(row.demand.active)} active`}
      />
    </dl>
  );
}

/** What waits longest, and until when something new can still come before it. */
function OldestList({ oldest, now }: { oldest: readonly Oldest[]; now: number }) {
  if (oldest.length === 0) return <Empty title="Nothing waits." />;
  return (
    <ul class="plain">
      {oldest.map((one) => (
        <li key={one.priority}>
          <b>Priority {one.priority}</b>: since <Ago time={one.since} now={now} />.{" "}
          <span class="muted">
            {Date.parse(one.overtaken_until) > now
              ? `What arrives in the next ${span((Date.parse(one.overtaken_until) - now) / 1000)} can still come before it.`
              : "Nothing that arrives from now on can come before it."}
          </span>
        </li>
      ))}
    </ul>
  );
}
