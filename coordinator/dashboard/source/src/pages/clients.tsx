import { Badge, ClientLink, Empty, HealthBadge, SelectField, ServiceSelectField, TimeAgo } from "../components";
import { useApp, useNow, useRows, useTopic } from "../context";
import { count, plural } from "../format";
import { useObservable } from "../observable";
import { type Column, Pager, SearchField, TableView, usePagePosition } from "../table";
import type { ClientRow, Filter, Health, FirstRows } from "../wire";

const CLIENTS_PER_PAGE = 100;
const CLIENT_STATES = ["active", "inactive", "deactivated", "unregistered"];
const SORT_KEYS = ["settled", "held", "dead", "given_back", "last_access", "client_id"] as const;

export function ClientsPage() {
  const { query } = useObservable(useApp().router.route);
  const position = usePagePosition();
  const now = useNow();
  const firstClients = useTopic<FirstRows<ClientRow>>("clients");
  const loaded = useRows<ClientRow>({
    table: "clients",
    filter: filterOf(query),
    after: position.after,
    limit: CLIENTS_PER_PAGE,
    refreshSeconds: 3,
  });

  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Clients</h1>
        <p class="lead">{firstClients === null ? " " : `${plural(firstClients.data.total, "client")} in all.`}</p>
      </div>
      <div class="filters" role="search">
        <SearchField name="search" label="Search id or name" />
        <SelectField
          name="state"
          label="State"
          options={[["", "all states"], ...CLIENT_STATES.map((state) => [state, state] as const)]}
        />
        <SelectField
          name="health"
          label="Health"
          options={[
            ["", "any health"],
            ["ok", "ok"],
            ["watched", "watched"],
            ["flagged", "flagged"],
          ]}
        />
        <ServiceSelectField />
      </div>
      <section class="card" aria-label="Clients">
        <TableView
          caption="Clients"
          columns={clientColumns(now)}
          loaded={loaded}
          rowKey={(row) => row.client_id}
          defaultSort="settled"
          empty={<Empty title="No client is like that.">Take a filter away to see more.</Empty>}
        />
        <Pager position={position} loaded={loaded} rowsPerPage={CLIENTS_PER_PAGE} />
      </section>
    </>
  );
}

function filterOf(query: Record<string, string | undefined>): Filter {
  const filter: Filter = { sort: SORT_KEYS.find((key) => key === query.sort) ?? "settled" };
  if (query.search) filter.search = query.search.slice(0, 64); // the longest that the server accepts
  if (query.state) filter.state = query.state;
  if (query.health) filter.health = query.health as Health;
  if (query.service) filter.service = query.service;
  return filter;
}

function clientColumns(now: number): Column<ClientRow>[] {
  return [
    {
      title: "Client",
      sortKey: "client_id",
      cell: (row) => (
        <span class="two-lines">
          <ClientLink id={row.client_id} name={row.screen_name} />
          {row.screen_name !== row.client_id && <span class="muted name">{row.client_id}</span>}
        </span>
      ),
    },
    { title: "State", cell: (row) => <Badge word={row.state} /> },
    { title: "Health", cell: (row) => <HealthBadge health={row.health} reason={row.reason} /> },
    { title: "Settled", numeric: true, sortKey: "settled", cell: (row) => count(row.settled) },
    { title: "Held", numeric: true, sortKey: "held", cell: (row) => count(row.held) },
    { title: "Dead", numeric: true, sortKey: "dead", cell: (row) => count(row.dead) },
    { title: "Given back", numeric: true, sortKey: "given_back", cell: (row) => count(row.given_back) },
    { title: "Sessions", numeric: true, wideOnly: true, cell: (row) => count(row.connected) },
    {
      title: "Last access",
      sortKey: "last_access",
      numeric: true,
      cell: (row) => <TimeAgo time={row.last_access} now={now} />,
    },
  ];
}
