import { Badge, ClientLink, EmptyList, SelectField, ServiceLink, ServiceSelectField } from "../components";
import { useApp, useRows, useTopic } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { count, duration, NO_VALUE, plural } from "../format";
import { BucketLink } from "../links";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { type Column, Pager, TableView, usePagePosition } from "../table";
import type { BucketRow, Filter, FirstRows } from "../wire";

const BUCKETS_PER_PAGE = 100;
const BUCKET_STATES = ["ready", "claimed", "dead"];

export function BucketsPage() {
  const { query } = useObservable(useApp().router.route);
  const firstBuckets = useTopic<FirstRows<BucketRow>>("buckets");
  const filter: Filter = {};
  if (query.service) filter.service = query.service;
  if (query.state) filter.state = query.state;

  return (
    <>
      <PageHead title="Buckets" lead={firstBuckets === null ? " " : `${plural(firstBuckets.data.total, "open bucket")} in all.`} />
      <div class="filters" role="search">
        <SelectField
          name="state"
          label="State"
          options={[["", "all states"], ...BUCKET_STATES.map((state) => [state, state] as const)]}
        />
        <ServiceSelectField />
      </div>
      <section class="card" aria-label="Buckets">
        <BucketTable filter={filter} filterNames={["state", "service"]} />
      </section>
    </>
  );
}

interface BucketTableProps {
  filter: Filter;
  /** The names in the address of the filters that the reader can set. */
  filterNames?: readonly string[];
}

/** A table of the open buckets that match a filter. */
export function BucketTable({ filter, filterNames = [] }: BucketTableProps) {
  const position = usePagePosition();
  const mayRelease = useHasRole("operator");
  const loaded = useRows<BucketRow>({
    table: "buckets",
    filter,
    after: position.after,
    limit: BUCKETS_PER_PAGE,
    refreshSeconds: 2,
  });

  return (
    <>
      <TableView
        caption="Open buckets"
        columns={bucketColumns(mayRelease, loaded.reload)}
        loaded={loaded}
        rowKey={(row) => row.bucket_id}
        empty={
          <EmptyList
            filters={filterNames}
            title="No bucket is open here."
            filteredTitle="No open bucket is like that."
          />
        }
      />
      <Pager position={position} loaded={loaded} rowsPerPage={BUCKETS_PER_PAGE} />
    </>
  );
}

function bucketColumns(mayRelease: boolean, reload: () => void): Column<BucketRow>[] {
  return [
    { title: "Bucket", cell: (row) => <BucketLink id={row.bucket_id} /> },
    { title: "Service", cell: (row) => <ServiceLink service={row.service} /> },
    { title: "State", cell: (row) => <Badge word={row.state} /> },
    { title: "Client", cell: (row) => (row.client_id === null ? NO_VALUE : <ClientLink id={row.client_id} />) },
    { title: "Items left", numeric: true, cell: (row) => count(row.remaining) },
    { title: "Age", numeric: true, cell: (row) => (row.age === null ? NO_VALUE : duration(row.age)) },
    { title: "Attempts", numeric: true, wideOnly: true, cell: (row) => count(row.attempts) },
    ...(mayRelease
      ? [{ title: "Operation", cell: (row: BucketRow) => <ReleaseButton row={row} onDone={reload} /> }]
      : []),
  ];
}

/** Takes a bucket from its holder; nothing where nobody holds it. */
export function ReleaseButton({ row, onDone }: { row: BucketRow; onDone(): void }) {
  if (row.state === "ready" || row.client_id === null) return null;

  return (
    <OperationButton
      onDone={onDone}
      action={{
        label: "Release",
        operation: { type: "bucket.release", fields: { bucket_id: row.bucket_id } },
        effect: `${row.client_id} loses this bucket of ${row.service}; the ${plural(row.remaining, "item")} left in it go to others.`,
        doneText: (answer) => (answer.released === 0 ? "Nobody held it any more." : "The bucket is released."),
        requiredRole: "operator",
        shownState: `${row.state} ${row.claim}`,
        danger: true,
      }}
    />
  );
}
