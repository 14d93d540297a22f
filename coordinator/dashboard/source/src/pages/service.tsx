import {
  TimeAgo,
  Badge,
  Card,
  Empty,
  Figure,
  ItemsBar,
  ItemsLegend,
  OneThing,
  Tabs,
} from "../components";
import { useApp, useNow, useRows } from "../context";
import { OperationButton } from "../dialog";
import { serviceEta } from "../eta";
import { count, duration, percent, plural, rate } from "../format";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { href } from "../route";
import { TabbedPanels, type Tab } from "../tabs";
import { PastThroughput, SERVICE_SPAN_OPTIONS } from "../throughput";
import type { Oldest, ServiceRow } from "../wire";
import { ServiceClients } from "./service-clients";
import { ServiceItems } from "./service-items";
import { AgeHistogram, KindShares } from "./service-now";
import { ServiceResults } from "./service-results";
import { ServiceSettings } from "./service-settings";

export function ServicePage({ service }: { service: string }) {
  const loaded = useRows<ServiceRow>({ table: "services", filter: { service }, limit: 1, refreshSeconds: 1 });
  const now = useNow();
  const row = loaded.rows?.find((candidate) => candidate.service === service);

  return (
    <>
      <PageHead back={["services", "Services"]} title={service}>
        {row !== undefined && (
          <>
            <Badge word={row.state} />
            <span class="muted">
              {row.title} · plugin {row.plugin}
            </span>
            <PauseButton row={row} onDone={loaded.reload} />
          </>
        )}
      </PageHead>
      <OneThing loaded={loaded} thing={row} missing="There is no such service.">
        {(row) => <TabbedPanels label={`Of ${service}`} tabs={serviceTabs(row, now)} />}
      </OneThing>
    </>
  );
}

function serviceTabs(row: ServiceRow, now: number): Tab[] {
  const { service } = row;
  return [
    {
      name: "now",
      label: "Now",
      content: () => (
        <>
          <ServiceFigures row={row} />
          <ServiceCards row={row} now={now} />
        </>
      ),
    },
    { name: "items", label: "Items", content: () => <ServiceItems service={service} /> },
    { name: "results", label: "Results", content: () => <ServiceResults service={service} /> },
    { name: "clients", label: "Clients", content: () => <ServiceClients service={service} /> },
    { name: "settings", label: "Settings", content: () => <ServiceSettings service={service} /> },
  ];
}

function ServiceCards({ row, now }: { row: ServiceRow; now: number }) {
  const { service } = row;
  const { query } = useObservable(useApp().router.route);
  const span = SERVICE_SPAN_OPTIONS.find(([name]) => name === query.span)?.[0] ?? "minutes";

  return (
    <div class="columns">
      <div class="column">
        <Card title="Items" aside={<a href={href(["buckets"], { service })}>Buckets</a>}>
          <ItemsBar items={row.items} label={service} />
          <ItemsLegend items={row.items} />
        </Card>
        <Card title="Throughput" aside={<Tabs name="span" label="Time shown" options={SERVICE_SPAN_OPTIONS} />}>
          <PastThroughput key={span} span={span} service={service} />
        </Card>
        <Card title="Kinds of results">
          <KindShares key={span} service={service} span={span} />
        </Card>
      </div>
      <div class="column aside">
        <Card title="Oldest waiting">
          <OldestList oldest={row.oldest} now={now} />
        </Card>
        <Card title="Age of what waits">
          <AgeHistogram service={service} />
        </Card>
      </div>
    </div>
  );
}

function PauseButton({ row, onDone }: { row: ServiceRow; onDone(): void }) {
  const { service } = row;

  if (row.state === "active") {
    return (
      <OperationButton
        onDone={onDone}
        action={{
          label: "Pause service",
          operation: { type: "service.pause", fields: { service } },
          effect: `Nothing more of ${service} is handed out. Asks wait, submits still count.`,
          doneText: () => `${service} is paused.`,
          requiredRole: "operator",
          shownState: row.state,
        }}
      />
    );
  }

  if (row.state !== "paused") return null;
  return (
    <OperationButton
      onDone={onDone}
      action={{
        label: "Resume service",
        operation: { type: "service.resume", fields: { service } },
        effect: `Work of ${service} is handed out again.`,
        doneText: () => `${service} is active again.`,
        requiredRole: "operator",
        shownState: row.state,
      }}
    />
  );
}

function ServiceFigures({ row }: { row: ServiceRow }) {
  const eta = serviceEta(row);
  return (
    <dl class="figures-row">
      <Figure name="Throughput" value={`${rate(row.items_per_second)}/s`} note="items settled" />
      <Figure
        name="Settled"
        value={percent(row.items.settled, row.items.total)}
        note={`${count(row.items.settled)} of ${count(row.items.total)} items`}
      />
      <Figure name="Done in" value={eta.text} note={eta.note} />
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

/** The oldest waiting item of each priority, and the time until which newer items can still come before it. */
function OldestList({ oldest, now }: { oldest: readonly Oldest[]; now: number }) {
  if (oldest.length === 0) return <Empty title="Nothing waits." />;
  return (
    <ul class="plain">
      {oldest.map(({ priority, since, overtaken_until }) => (
        <li key={priority}>
          <b>Priority {priority}</b>: since <TimeAgo time={since} now={now} />.{" "}
          <span class="muted">{overtakingText((Date.parse(overtaken_until) - now) / 1000)}</span>
        </li>
      ))}
    </ul>
  );
}

function overtakingText(secondsLeft: number): string {
  return secondsLeft > 0
    ? `What arrives in the next ${duration(secondsLeft)} can still come before it.`
    : "Nothing that arrives from now on can come before it.";
}
