import { useCell } from "../cell";
import { useApp, useNow, useRows, useTopic } from "../context";
import { Ago, Badge, Choice, ClientLink, Empty, HealthBadge } from "../parts";
import { type Column, Pager, Search, Table, usePaging } from "../table";
import type { ClientRow, Filter, Health, Rows, ServiceRow } from "../wire";
import { count, plural } from "../words";

const LIMIT = 100;
const STATES = ["active", "inactive", "deactivated", "unregistered"];
const SORTS = ["settled", "held", "dead", "given_back", "last_access", "client_id"] as const;

export function ClientsPage() {
  const { query } = useCell(useApp().router.route);
  const paging = usePaging();
  const now = useNow();
  const all = useTopic<Rows<ClientRow>>("clients");
  const services = useTopic<Rows<ServiceRow>>("services");
  const loaded = useRows<ClientRow>({
    table: "clients",
    filter: filterOf(query),
    after: paging.after,
    limit: LIMIT,
    every: 3,
  });
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Clients</h1>
        <p class="lead">{all === null ? " " : `${plural(all.data.total, "client")} in all.`}</p>
      </div>
      <div class="filters" role="search">
        <Search name="search" label="Search id or name" />
        <Choice name="state" label="State" options={[["", "all states"], ...STATES.map((one) => [one, one] as const)]} />
        <Choice
          name="health"
          label="Health"
          options={[
            ["", "any health"],
            ["ok", "ok"],
            ["watched", "watched"],
            ["flagged", "flagged"],
          ]}
        />
        <Choice
          name="service"
          label="Service"
          options={[["", "all services"], ...(services?.data.rows ?? []).map((row) => [row.service, row.service] as const)]}
        />
      </div>
      <section class="card" aria-label="Clients">
        <Table
          caption="Clients"
          columns={columns(now)}
          loaded={loaded}
          keyOf={(row) => row.client_id}
          sorted="settled"
          empty={<Empty title="No client is like that.">Take a filter away to see more.</Empty>}
        />
        <Pager paging={paging} loaded={loaded} limit={LIMIT} />
      </section>
    </>
  );
}

function filterOf(query: Record<string, string | undefined>): Filter {
  const filter: Filter = { sort: SORTS.find((sort) => sort === query.sort) ?? "settled" };
  if (query.search) filter.search = query.search.slice(0, 64); // as much as the server takes
  if (query.state) filter.state = query.state;
  if (query.health) filter.health = query.health as Health;
  if (query.service) filter.service = query.service;
  return filter;
}

function columns(now: number): Column<ClientRow>[] {
  return [
    {
      title: "Client",
      sort: "client_id",
      cell: (row) => (
        <span class="two-lines">
          <ClientLink id={row.client_id} name={row.screen_name} />
          {row.screen_name !== row.client_id && <span class="muted name">{row.client_id}</span>}
        </span>
      ),
    },
    { title: "State", cell: (row) => <Badge word={row.state} /> },
    { title: "Health", cell: (row) => <HealthBadge health={row.health} reason={row.reason} /> },
    { title: "Settled", figure: true, sort: "settled", cell: (row) => count(row.settled) },
    { title: "Held", figure: true, sort: "held", cell: (row) => count(row.held) },
    { title: "Dead", figure: true, sort: "dead", cell: (row) => count(row.dead) },
    { title: "Given back", figure: true, sort: "given_back", cell: (row) => count(row.given_back) },
    { title: "Sessions", figure: true, wide: true, cell: (row) => count(row.connected) },
    { title: "Last access", sort: "last_access", figure: true, cell: (row) => <Ago time={row.last_access} now={now} /> },
  ];
}
