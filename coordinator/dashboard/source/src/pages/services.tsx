import { useCell } from "../cell";
import { useApp, useRows } from "../context";
import { Badge, Choice, Empty, etaWords, ItemsBar, ItemsLegend, ServiceLink } from "../parts";
import { type Column, Search, Table } from "../table";
import type { ServiceRow } from "../wire";
import { compact, count, percent, rate } from "../words";

const MOST = 1000;

export const SERVICE_STATES = ["active", "paused", "revoked"];

const COLUMNS: Column<ServiceRow>[] = [
  {
    title: "Service",
    cell: (row) => (
      <span class="two-lines">
        <ServiceLink service={row.service} />
        <span class="muted">{row.title}</span>
      </span>
    ),
  },
  { title: "State", cell: (row) => <Badge word={row.state} /> },
  {
    title: "Progress",
    cell: (row) => (
      <span class="bar-cell">
        <ItemsBar items={row.items} label={row.service} />
        <span class="muted">
          {percent(row.items.settled, row.items.total)} of {compact(row.items.total)}
        </span>
      </span>
    ),
  },
  { title: "Items/s", figure: true, cell: (row) => rate(row.items_per_second) },
  { title: "Done in", figure: true, cell: (row) => etaWords(row.items, row.eta) },
  { title: "Waiting", figure: true, wide: true, cell: (row) => count(row.items.waiting) },
  { title: "Ready", figure: true, wide: true, cell: (row) => count(row.buckets.ready) },
  { title: "Claimed", figure: true, wide: true, cell: (row) => count(row.buckets.claimed) },
  { title: "Dead", figure: true, wide: true, cell: (row) => count(row.buckets.dead) },
  { title: "Asked for", figure: true, wide: true, cell: (row) => count(row.demand.pending) },
];

export function ServicesPage() {
  const { query } = useCell(useApp().router.route);
  const loaded = useRows<ServiceRow>({ table: "services", limit: MOST, every: 2 });
  const words = (query.search ?? "").toLowerCase();
  const rows = loaded.rows?.filter(
    (row) =>
      (!query.state || row.state === query.state) &&
      (!words || `${row.service} ${row.title} ${row.plugin}`.toLowerCase().includes(words)),
  );
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Services</h1>
        <p class="lead">The kinds of checks. Waiting counts items; ready, claimed, dead and asked for count buckets.</p>
      </div>
      <div class="filters" role="search">
        <Search name="search" label="Search" />
        <Choice
          name="state"
          label="State"
          options={[["", "all states"], ...SERVICE_STATES.map((state) => [state, state] as const)]}
        />
      </div>
      <section class="card" aria-label="Services">
        <Table
          caption="Services"
          columns={COLUMNS}
          loaded={{ ...loaded, rows: rows ?? null }}
          keyOf={(row) => row.service}
          empty={<Empty title="No service is like that." />}
        />
        {rows?.[0] !== undefined && <ItemsLegend items={total(rows)} />}
      </section>
    </>
  );
}

/** The items of several services together. */
export function total(rows: readonly ServiceRow[]): ServiceRow["items"] {
  const all = { waiting: 0, ready: 0, claimed: 0, dead: 0, settled: 0, quarantined: 0, total: 0 };
  for (const { items } of rows) for (const place of Object.keys(all) as (keyof typeof all)[]) all[place] += items[place];
  return all;
}
