import { Empty, EmptyList, SelectField } from "../components";
import { useApp, useNow, useRows } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { count, NO_VALUE, plural } from "../format";
import { ItemLink } from "../links";
import { useObservable } from "../observable";
import { type Column, Pager, SearchField, TableView, usePagePosition } from "../table";
import type { Filter, ItemPlace, ItemRow } from "../wire";
import { PlaceButton, PlaceState } from "./item";

const ITEMS_PER_PAGE = 50;
const ITEM_STATES = ["waiting", "ready", "claimed", "settled", "quarantined"];
const FILTERS = ["state", "prefix"];

/** The items of a service by state and key. */
export function ServiceItems({ service }: { service: string }) {
  const { query } = useObservable(useApp().router.route);
  const filter: Filter = { service };
  if (query.state) filter.state = query.state;
  if (query.prefix) filter.prefix = query.prefix;

  return (
    <>
      <div class="filters" role="search">
        <SelectField
          name="state"
          label="State"
          options={[["", "all states"], ...ITEM_STATES.map((state) => [state, state] as const)]}
        />
        <SearchField name="prefix" label="Key begins with" />
      </div>
      <section class="card" aria-label="Items">
        <ItemTable service={service} filter={filter} />
      </section>
    </>
  );
}

function ItemTable({ service, filter }: { service: string; filter: Filter }) {
  const position = usePagePosition();
  const now = useNow();
  const operator = useHasRole("operator");
  const loaded = useRows<ItemRow>({
    table: "items",
    filter,
    after: position.after,
    limit: ITEMS_PER_PAGE,
    refreshSeconds: 5,
  });
  const few = loaded.next !== null && loaded.rows !== null && loaded.rows.length < ITEMS_PER_PAGE;

  return (
    <>
      {operator && filter.state === "quarantined" && !loaded.stale && (
        <RetryAllButton service={service} rows={loaded.rows ?? []} onDone={loaded.reload} />
      )}
      <TableView
        caption={`Items of ${service}`}
        columns={itemColumns(service, now, operator, loaded.reload)}
        loaded={loaded}
        rowKey={(row) => String(row.item)}
        empty={
          few ? (
            <Empty title="None among those looked at.">The next page looks further.</Empty>
          ) : (
            <EmptyList filters={FILTERS} title="It has no items yet." filteredTitle="No item is like that." />
          )
        }
      />
      <Pager position={position} loaded={loaded} rowsPerPage={ITEMS_PER_PAGE} sparse={few || position.page > 1} />
    </>
  );
}

function itemColumns(service: string, now: number, operator: boolean, reload: () => void): Column<ItemRow>[] {
  const placeOf = (row: ItemRow): ItemPlace | undefined => row.services.find((place) => place.service === service);
  const columns: Column<ItemRow>[] = [
    { title: "Item", cell: (row) => <ItemLink item={row.item} name={row.key} /> },
    {
      title: "State",
      cell: (row) => {
        const place = placeOf(row);
        return place === undefined ? NO_VALUE : <PlaceState place={place} now={now} />;
      },
    },
    {
      title: "Priority",
      numeric: true,
      cell: (row) => {
        const priority = placeOf(row)?.priority ?? null;
        return priority === null ? NO_VALUE : count(priority);
      },
    },
  ];
  if (operator) {
    columns.push({
      title: "Operation",
      cell: (row) => {
        const place = placeOf(row);
        return place !== undefined && <PlaceButton row={row} place={place} onDone={reload} />;
      },
    });
  }
  return columns;
}

/** Lets all items of the page wait again. */
function RetryAllButton({ service, rows, onDone }: { service: string; rows: readonly ItemRow[]; onDone(): void }) {
  if (rows.length < 2) return null;
  return (
    <div class="above">
      <OperationButton
        onDone={onDone}
        action={{
          label: `Retry these ${rows.length}`,
          operation: { type: "item.retry", fields: { keys: rows.map(({ key }) => key), service } },
          effect: `The ${rows.length} items of this page wait in ${service} again, as if they were new there.`,
          doneText: (answer) => `${plural(Number(answer.retried ?? 0), "item")} ${answer.retried === 1 ? "waits" : "wait"} again.`,
          requiredRole: "operator",
          shownState: rows.map(({ item }) => item).join(),
        }}
      />
    </div>
  );
}
