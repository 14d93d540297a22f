import { Badge, EmptyList, ItemsBar, ItemsLegend, SelectField, ServiceLink } from "../components";
import { useApp, useRows } from "../context";
import { useHasRole } from "../dialog";
import { serviceEta } from "../eta";
import { compactCount, count, percent, rate } from "../format";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { href } from "../route";
import { type Column, SearchField, TableView } from "../table";
import type { Items, ServiceRow } from "../wire";

const MAX_SERVICES = 1000;

const SERVICE_STATES = ["active", "paused", "revoked"];

const SERVICE_COLUMNS: Column<ServiceRow>[] = [
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
          {percent(row.items.settled, row.items.total)} of {compactCount(row.items.total)}
        </span>
      </span>
    ),
  },
  { title: "Items/s", numeric: true, cell: (row) => rate(row.items_per_second) },
  { title: "Done in", numeric: true, cell: (row) => serviceEta(row).text },
  { title: "Waiting", numeric: true, wideOnly: true, cell: (row) => count(row.items.waiting) },
  { title: "Ready", numeric: true, wideOnly: true, cell: (row) => count(row.buckets.ready) },
  { title: "Claimed", numeric: true, wideOnly: true, cell: (row) => count(row.buckets.claimed) },
  { title: "Dead", numeric: true, wideOnly: true, cell: (row) => count(row.buckets.dead) },
  { title: "Asked for", numeric: true, wideOnly: true, cell: (row) => count(row.demand.pending) },
];

export function ServicesPage() {
  const { query } = useObservable(useApp().router.route);
  const loaded = useRows<ServiceRow>({ table: "services", limit: MAX_SERVICES, refreshSeconds: 2 });
  const searched = (query.search ?? "").toLowerCase();
  const rows = loaded.rows?.filter(
    (row) =>
      (!query.state || row.state === query.state) &&
      (!searched || `${row.service} ${row.title} ${row.plugin}`.toLowerCase().includes(searched)),
  );

  return (
    <>
      <PageHead title="Services" lead="The kinds of checks. Waiting counts items; ready, claimed, dead and asked for count buckets." />
      <div class="filters" role="search">
        <SearchField name="search" label="Search" />
        <SelectField
          name="state"
          label="State"
          options={[["", "all states"], ...SERVICE_STATES.map((state) => [state, state] as const)]}
        />
        {useHasRole("admin") && (
          <a class="button beside-fields" href={href(["add-service"])}>
            Add a service
          </a>
        )}
      </div>
      <section class="card" aria-label="Services">
        <TableView
          caption="Services"
          columns={SERVICE_COLUMNS}
          loaded={{ ...loaded, rows: rows ?? null }}
          rowKey={(row) => row.service}
          empty={
            <EmptyList
              filters={["search", "state"]}
              title="There are no services."
              filteredTitle="No service is like that."
            />
          }
        />
        {rows?.[0] !== undefined && <ItemsLegend items={sumItems(rows)} />}
      </section>
    </>
  );
}

/** Sum the items of several services, state by state. */
export function sumItems(rows: readonly ServiceRow[]): Items {
  const sum: Items = { waiting: 0, ready: 0, claimed: 0, dead: 0, settled: 0, quarantined: 0, total: 0 };
  for (const { items } of rows) {
    for (const state of Object.keys(sum) as (keyof Items)[]) sum[state] += items[state];
  }
  return sum;
}
