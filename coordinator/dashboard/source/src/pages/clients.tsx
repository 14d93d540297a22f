import { useEffect, useState } from "preact/hooks";
import {
  ClientLink,
  DoingBadge,
  EmptyList,
  HealthBadge,
  Name,
  SelectField,
  ServiceSelectField,
  StateBadge,
  TimeAgo,
} from "../components";
import { useApp, useNow, useRows } from "../context";
import { useHasRole } from "../dialog";
import { jsonText } from "../exact_json";
import { count, plural } from "../format";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { type Column, Pager, SearchField, TableView, usePagePosition } from "../table";
import type { ClientRow, ClientSort, Filter, Health } from "../wire";
import { BulkBar, isChosen, NO_SELECTION, type Selection, toggled } from "./client_bulk";

const CLIENTS_PER_PAGE = 100;
const CLIENT_STATES = ["active", "inactive", "deactivated", "unregistered"];
const SORT_KEYS: readonly ClientSort[] = [
  "client_id",
  "state",
  "health",
  "settled",
  "held",
  "dead",
  "given_back",
  "connected",
  "last_access",
];

export function ClientsPage() {
  const { query } = useObservable(useApp().router.route);
  const position = usePagePosition();
  const now = useNow();
  const filter = filterOf(query);
  const loaded = useRows<ClientRow>({
    table: "clients",
    filter: { ...filter, ...sortOf(query) },
    after: position.after,
    limit: CLIENTS_PER_PAGE,
    refreshSeconds: 3,
    count: true,
  });
  const everybody = useRows<ClientRow>({ table: "clients", limit: 1, refreshSeconds: 10, count: true });

  const [selection, setSelection] = useState(NO_SELECTION);
  const choiceKey = jsonText(filter);
  useEffect(() => setSelection(NO_SELECTION), [choiceKey]);
  const columns = clientColumns(now);
  if (useHasRole("operator")) columns.unshift(selectionColumn(selection, setSelection));

  return (
    <>
      <PageHead title="Clients" lead={leadText(loaded.stale ? null : loaded.total, everybody.total)} />
      <div class="filters" role="search">
        <SearchField name="search" label="Search id or name" />
        <SelectField
          name="connected"
          label="Connected"
          options={[
            ["", "or not"],
            ["yes", "now"],
            ["no", "not now"],
          ]}
        />
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
      <BulkBar
        selection={selection}
        onSelect={setSelection}
        filter={filter}
        total={loaded.stale ? null : loaded.total}
        onDone={loaded.reload}
      />
      <section class="card" aria-label="Clients">
        <TableView
          caption="Clients"
          columns={columns}
          loaded={loaded}
          rowKey={(row) => row.client_id}
          defaultSort="settled"
          empty={
            <EmptyList
              filters={["search", "connected", "state", "health", "service"]}
              title="No client has come yet."
              filteredTitle="No client is like that."
            />
          }
        />
        <Pager position={position} loaded={loaded} rowsPerPage={CLIENTS_PER_PAGE} />
      </section>
    </>
  );
}

/** How many clients match, of how many; null where that is not known yet. */
function leadText(matching: number | null, all: number | null): string {
  if (matching === null || all === null) return "\u00a0";
  return matching === all ? `${plural(all, "client")}.` : `${count(matching)} of ${plural(all, "client")}.`;
}

function sortOf(query: Record<string, string | undefined>): Filter {
  const filter: Filter = { sort: SORT_KEYS.find((key) => key === query.sort) ?? "settled" };
  if (query.order === "asc" || query.order === "desc") filter.order = query.order;
  return filter;
}

function filterOf(query: Record<string, string | undefined>): Filter {
  const filter: Filter = {};
  if (query.search) filter.search = query.search.slice(0, 64); // the longest that the server accepts
  if (query.connected) filter.connected = query.connected === "yes";
  if (query.state) filter.state = query.state;
  if (query.health) filter.health = query.health as Health;
  if (query.service) filter.service = query.service;
  return filter;
}

function selectionColumn(selection: Selection, onSelect: (selection: Selection) => void): Column<ClientRow> {
  return {
    title: "Chosen",
    titleHidden: true,
    cell: ({ client_id }) => (
      <input
        type="checkbox"
        class="choose"
        aria-label={`Choose ${client_id}`}
        checked={isChosen(selection, client_id)}
        onChange={() => onSelect(toggled(selection, client_id))}
      />
    ),
  };
}

function clientColumns(now: number): Column<ClientRow>[] {
  return [
    {
      title: "Client",
      sortKey: "client_id",
      smallestFirst: true,
      rowHeader: true,
      cell: (row) => (
        <span class="two-lines">
          <ClientLink id={row.client_id} name={row.screen_name} />
          {row.screen_name !== row.client_id && (
            <span class="muted">
              <Name text={row.client_id} />
            </span>
          )}
        </span>
      ),
    },
    { title: "Does", cell: (row) => <DoingBadge doing={row.doing} now={now} /> },
    { title: "State", sortKey: "state", cell: (row) => <StateBadge word={row.state} reason={row.deactivated} /> },
    { title: "Health", sortKey: "health", cell: (row) => <HealthBadge health={row.health} reason={row.reason} /> },
    { title: "Settled", numeric: true, sortKey: "settled", cell: (row) => count(row.settled) },
    { title: "Held", numeric: true, sortKey: "held", cell: (row) => count(row.held) },
    { title: "Dead", numeric: true, sortKey: "dead", cell: (row) => count(row.dead) },
    { title: "Given back", numeric: true, sortKey: "given_back", cell: (row) => count(row.given_back) },
    { title: "Sessions", numeric: true, sortKey: "connected", wideOnly: true, cell: (row) => count(row.connected) },
    {
      title: "Last access",
      sortKey: "last_access",
      numeric: true,
      cell: (row) => <TimeAgo time={row.last_access} now={now} />,
    },
  ];
}
