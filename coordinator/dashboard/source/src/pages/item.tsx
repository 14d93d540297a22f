import { Badge, Card, ClientLink, Empty, OneThing, ServiceLink, TimeAgo } from "../components";
import { ClaimTable } from "../claims";
import { knownRows, useNow, useRows } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { count, duration, NO_VALUE, plural } from "../format";
import { JsonValue, PlainValue } from "../json";
import { BucketLink, ItemLink } from "../links";
import { type ItemNumber, itemNumber } from "../item_number";
import { NeighboursCard } from "../neighbours";
import { PageHead } from "../page_head";
import { type Column, TableView } from "../table";
import type { BucketRow, ItemPlace, ItemRow, ListedResult } from "../wire";

/** Results that are listed, the newest. */
const MAX_RESULTS = 100;
const ALL_ITEMS = ["services", "Services"] as const;

/** One item: its attributes, where it is in each service, its results, and for operators the claims that failed. */
export function ItemPage({ item }: { item: string }) {
  const number = itemNumber(item);
  if (number !== null) return <NumberedItem item={number} />;
  return (
    <>
      <PageHead back={ALL_ITEMS} title={item} />
      <Empty title="There is no such item." />
    </>
  );
}

function NumberedItem({ item }: { item: ItemNumber }) {
  const now = useNow();
  const loaded = useRows<ItemRow>({ table: "items", filter: { item }, limit: 1, refreshSeconds: 2 });
  const row = loaded.rows?.[0];

  return (
    <>
      <PageHead back={ALL_ITEMS} title={row?.key ?? `Item ${item}`}>
        {row !== undefined && <span class="muted">number {String(row.item)}</span>}
        {row?.found && (
          <span class="muted">
            shown by <ItemLink item={row.found.item} name="the result of another item" /> in {row.found.service}, from{" "}
            <ClientLink id={row.found.client_id} />
          </span>
        )}
      </PageHead>
      <OneThing loaded={loaded} thing={row} missing="There is no such item.">
        {(row) => <ItemCards row={row} now={now} reload={loaded.reload} />}
      </OneThing>
    </>
  );
}

function ItemCards({ row, now, reload }: { row: ItemRow; now: number; reload(): void }) {
  const operator = useHasRole("operator");
  return (
    <>
      <div class="columns">
        <div class="column">
          <Card title="In each service">
            <PlaceTable row={row} now={now} reload={reload} />
          </Card>
          {operator && (
            <Card title="In open buckets">
              <OpenBuckets item={row.item} />
            </Card>
          )}
        </div>
        <div class="column aside">
          <Card title="Attributes">
            <Attributes attributes={row.attributes} />
          </Card>
        </div>
      </div>
      <NeighboursCard item={row.item} name={row.key} />
      <Card title="Results" class="below">
        <ItemResults item={row.item} now={now} />
      </Card>
      {operator && (
        <Card title="Claims without a result of it" class="below">
          <ClaimTable
            filter={{ item: row.item }}
            caption="Claims that had this item and ended without a result of it"
            empty="No claim that had it failed."
            of="item"
            now={now}
          />
        </Card>
      )}
    </>
  );
}

function Attributes({ attributes }: { attributes: Record<string, unknown> }) {
  const entries = Object.entries(attributes);
  if (entries.length === 0) return <Empty title="It has no attributes." />;
  return (
    <dl class="attributes">
      {entries.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>
            <PlainValue value={value} />
          </dd>
        </div>
      ))}
    </dl>
  );
}

function PlaceTable({ row, now, reload }: { row: ItemRow; now: number; reload(): void }) {
  const columns: Column<ItemPlace>[] = [
    { title: "Service", cell: (place) => <ServiceLink service={place.service} /> },
    { title: "State", cell: (place) => <PlaceState place={place} now={now} /> },
    { title: "Priority", numeric: true, cell: ({ priority }) => (priority === null ? NO_VALUE : count(priority)) },
  ];
  if (useHasRole("operator")) {
    columns.push({ title: "Operation", cell: (place) => <PlaceButton row={row} place={place} onDone={reload} /> });
  }

  return (
    <TableView
      caption="Where it is in each service"
      columns={columns}
      loaded={knownRows(row.services, reload)}
      rowKey={(place) => place.service}
      empty={<Empty title="No service has it." />}
    />
  );
}

/** The state of an item in one service, since when, and why it was set aside. */
export function PlaceState({ place, now }: { place: ItemPlace; now: number }) {
  return (
    <span class="health">
      <Badge word={place.state} />
      {place.since !== null && (
        <span class="reason">
          <TimeAgo time={place.since} now={now} />
          {place.attempts !== null && `, after ${plural(place.attempts, "failed attempt")}`}
          {place.reason !== null && `: ${place.reason}`}
        </span>
      )}
    </span>
  );
}

/** The operation that an item needs in its state: to be tried again, checked again, or put first. */
export function PlaceButton({ row, place, onDone }: { row: ItemRow; place: ItemPlace; onDone(): void }) {
  const { service, state } = place;
  const fields = { keys: [row.key], service };
  const shownState = `${service} ${state} ${place.priority}`;

  if (state === "quarantined") {
    return (
      <OperationButton
        onDone={onDone}
        action={{
          label: "Retry",
          operation: { type: "item.retry", fields },
          effect: `${row.key} waits in ${service} again, as if it were new there.`,
          doneText: (answer) => (answer.retried === 0 ? "It was not set aside any more." : `${row.key} waits again.`),
          requiredRole: "operator",
          shownState,
        }}
      />
    );
  }

  const settled = state === "settled";
  return (
    <OperationButton
      onDone={onDone}
      action={{
        label: settled ? "Check again" : "Prioritise",
        operation: { type: "item.prioritize", fields },
        effect: settled
          ? `${row.key} is handed out in ${service} once more, before all others. Its results stay; the newest counts.`
          : `${row.key} is handed out in ${service} before all others.`,
        doneText: () => `${row.key} goes first in ${service}.`,
        requiredRole: "operator",
        shownState,
      }}
    />
  );
}

function OpenBuckets({ item }: { item: ItemNumber }) {
  const loaded = useRows<BucketRow>({ table: "buckets", filter: { item }, limit: 100, refreshSeconds: 2 });
  const columns: Column<BucketRow>[] = [
    { title: "Bucket", cell: (row) => <BucketLink id={row.bucket_id} /> },
    { title: "Service", cell: (row) => <ServiceLink service={row.service} /> },
    { title: "State", cell: (row) => <Badge word={row.state} /> },
    { title: "Client", cell: (row) => (row.client_id === null ? NO_VALUE : <ClientLink id={row.client_id} />) },
    { title: "Age", numeric: true, cell: (row) => (row.age === null ? NO_VALUE : duration(row.age)) },
  ];
  return (
    <TableView
      caption="Open buckets in which it is still to be settled"
      columns={columns}
      loaded={loaded}
      rowKey={(row) => row.bucket_id}
      empty={<Empty title="It is in no open bucket." />}
    />
  );
}

function ItemResults({ item, now }: { item: ItemNumber; now: number }) {
  const loaded = useRows<ListedResult>({ table: "results", filter: { item }, limit: MAX_RESULTS, refreshSeconds: 5 });
  const columns: Column<ListedResult>[] = [
    { title: "Service", cell: (row) => <ServiceLink service={row.service} /> },
    { title: "Result", cell: (row) => <JsonValue value={row.value} /> },
    { title: "Counts", cell: (row) => (row.valid ? "yes" : "taken back") },
    { title: "Client", cell: (row) => <ClientLink id={row.client_id} /> },
    { title: "Bucket", cell: (row) => <BucketLink id={row.bucket_id} /> },
    { title: "Stored", numeric: true, cell: (row) => <TimeAgo time={row.at} now={now} /> },
  ];
  return (
    <>
      <TableView
        caption="Its results, the newest first"
        columns={columns}
        loaded={loaded}
        rowKey={(row) => `${row.service} ${row.claim}`}
        empty={<Empty title="It has no results yet." />}
      />
      {loaded.next !== null && <p class="more muted">These are the newest {MAX_RESULTS}.</p>}
    </>
  );
}
