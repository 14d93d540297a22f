import { Badge, ClientLink, Empty, Figure, OneThing, ServiceLink, TimeAgo } from "../components";
import { ClaimTable } from "../claims";
import { useNow, useRows } from "../context";
import { useHasRole } from "../dialog";
import { count, duration, NO_VALUE } from "../format";
import { JsonValue } from "../json";
import { ItemLink } from "../links";
import { PageHead } from "../page_head";
import { type Column, Pager, TableView, usePagePosition } from "../table";
import { type Tab, TabbedPanels } from "../tabs";
import type { BucketRow, ItemRow, ListedResult } from "../wire";
import { ReleaseButton } from "./buckets";
import { PlaceState } from "./item";

const ROWS_PER_PAGE = 100;

/** One bucket, open or done: the history of its claims, its items and their results. */
export function BucketPage({ bucket }: { bucket: string }) {
  const loaded = useRows<BucketRow>({ table: "buckets", filter: { bucket_id: bucket }, limit: 1, refreshSeconds: 2 });
  const row = loaded.rows?.[0];

  return (
    <>
      <PageHead back={["buckets", "Buckets"]} title={`Bucket ${bucket}`}>
        {row !== undefined && (
          <>
            <Badge word={row.state} />
            <span>
              of <ServiceLink service={row.service} />
            </span>
            <ReleaseButton row={row} onDone={loaded.reload} />
          </>
        )}
      </PageHead>
      <OneThing loaded={loaded} thing={row} missing="There is no such bucket.">
        {(row) => <BucketDetails row={row} />}
      </OneThing>
    </>
  );
}

function BucketDetails({ row }: { row: BucketRow }) {
  const now = useNow();
  const operator = useHasRole("operator");
  const { bucket_id } = row;

  const tabs: Tab[] = [
    {
      name: "claims",
      label: "Claims",
      content: () => (
        <section class="card" aria-label="Claims">
          <ClaimTable
            filter={{ bucket_id }}
            caption="Who had it, the newest first"
            empty="Nobody has had it yet."
            of="bucket"
            now={now}
          />
        </section>
      ),
    },
    {
      name: "items",
      label: "Items",
      content: () => (
        <section class="card" aria-label="Items">
          <BucketItems row={row} now={now} operator={operator} />
        </section>
      ),
    },
    {
      name: "results",
      label: "Results",
      content: () => (
        <section class="card" aria-label="Results">
          <BucketResults row={row} now={now} />
        </section>
      ),
    },
  ];

  return (
    <>
      <dl class="figures-row">
        <Figure name="Items left" value={count(row.remaining)} note={row.state === "done" ? "it is done" : "to be settled"} />
        <Figure
          name="Held for"
          value={row.age === null ? NO_VALUE : duration(row.age)}
          note={row.client_id === null ? "nobody has it" : <ClientLink id={row.client_id} />}
        />
        <Figure name="Failed attempts" value={count(row.attempts)} note="of its items together" />
      </dl>
      <TabbedPanels label="Of this bucket" tabs={tabs} />
    </>
  );
}

function BucketItems({ row, now, operator }: { row: BucketRow; now: number; operator: boolean }) {
  if (!operator) {
    return (
      <Empty title="For operators only.">
        Which items are handed out together is shown with an operator's token; what was found is among the results.
      </Empty>
    );
  }
  return <BucketItemTable row={row} now={now} />;
}

function BucketItemTable({ row: { bucket_id, service }, now }: { row: BucketRow; now: number }) {
  const position = usePagePosition();
  const loaded = useRows<ItemRow>({
    table: "items",
    filter: { bucket_id },
    after: position.after,
    limit: ROWS_PER_PAGE,
    refreshSeconds: 5,
  });
  const columns: Column<ItemRow>[] = [
    { title: "Item", cell: (row) => <ItemLink item={row.item} name={row.key} /> },
    {
      title: "State",
      cell: (row) => {
        const place = row.services.find((candidate) => candidate.service === service);
        return place === undefined ? NO_VALUE : <PlaceState place={place} now={now} />;
      },
    },
  ];

  return (
    <>
      <TableView
        caption={`Its items, and where they are in ${service} now`}
        columns={columns}
        loaded={loaded}
        rowKey={(row) => String(row.item)}
        empty={<Empty title="Its items are not known any more." />}
      />
      <Pager position={position} loaded={loaded} rowsPerPage={ROWS_PER_PAGE} />
    </>
  );
}

function BucketResults({ row: { bucket_id, service }, now }: { row: BucketRow; now: number }) {
  const position = usePagePosition();
  const loaded = useRows<ListedResult>({
    table: "results",
    filter: { service, bucket_id },
    after: position.after,
    limit: ROWS_PER_PAGE,
    refreshSeconds: 5,
  });
  const columns: Column<ListedResult>[] = [
    { title: "Item", cell: (row) => <ItemLink item={row.item} name={row.key} /> },
    { title: "Result", cell: (row) => <JsonValue value={row.value} /> },
    { title: "Counts", cell: (row) => (row.valid ? "yes" : "taken back") },
    { title: "Client", cell: (row) => <ClientLink id={row.client_id} /> },
    { title: "Stored", numeric: true, cell: (row) => <TimeAgo time={row.at} now={now} /> },
  ];

  return (
    <>
      <TableView
        caption="Results that came through it, the newest claims first"
        columns={columns}
        loaded={loaded}
        rowKey={(row) => `${row.claim} ${row.item}`}
        empty={<Empty title="No results yet." />}
      />
      <Pager position={position} loaded={loaded} rowsPerPage={ROWS_PER_PAGE} />
    </>
  );
}
