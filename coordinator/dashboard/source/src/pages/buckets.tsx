import { useCell } from "../cell";
import { useApp, useRows, useTopic } from "../context";
import { ActButton, useMay } from "../dialog";
import { Badge, Choice, ClientLink, Empty, ServiceLink } from "../parts";
import { type Column, Pager, Table, usePaging } from "../table";
import type { BucketRow, Filter, Rows, ServiceRow } from "../wire";
import { count, NONE, plural, span } from "../words";

const LIMIT = 100;
const STATES = ["ready", "claimed", "dead"];

export function BucketsPage() {
  const { query } = useCell(useApp().router.route);
  const all = useTopic<Rows<BucketRow>>("buckets");
  const services = useTopic<Rows<ServiceRow>>("services");
  const filter: Filter = {};
  if (query.service) filter.service = query.service;
  if (query.state) filter.state = query.state;
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Buckets</h1>
        <p class="lead">{all === null ? " " : `${plural(all.data.total, "open bucket")} in all.`}</p>
      </div>
      <div class="filters" role="search">
        <Choice name="state" label="State" options={[["", "all states"], ...STATES.map((one) => [one, one] as const)]} />
        <Choice
          name="service"
          label="Service"
          options={[["", "all services"], ...(services?.data.rows ?? []).map((row) => [row.service, row.service] as const)]}
        />
      </div>
      <section class="card" aria-label="Buckets">
        <BucketTable filter={filter} />
      </section>
    </>
  );
}

/** Open buckets; those of one client, say. */
export function BucketTable({ filter }: { filter: Filter }) {
  const paging = usePaging();
  const mayRelease = useMay("operator");
  const loaded = useRows<BucketRow>({ table: "buckets", filter, after: paging.after, limit: LIMIT, every: 2 });
  return (
    <>
      <Table
        caption="Open buckets"
        columns={columns(mayRelease, loaded.again)}
        loaded={loaded}
        keyOf={(row) => row.bucket_id}
        empty={<Empty title="No open bucket is like that." />}
      />
      <Pager paging={paging} loaded={loaded} limit={LIMIT} />
    </>
  );
}

function columns(mayRelease: boolean, again: () => void): Column<BucketRow>[] {
  return [
    { title: "Bucket", cell: (row) => <code title={row.bucket_id}>{row.bucket_id.slice(0, 8)}</code> },
    { title: "Service", cell: (row) => <ServiceLink service={row.service} /> },
    { title: "State", cell: (row) => <Badge word={row.state} /> },
    { title: "Client", cell: (row) => (row.client_id === null ? NONE : <ClientLink id={row.client_id} />) },
    { title: "Items left", figure: true, cell: (row) => count(row.remaining) },
    { title: "Age", figure: true, cell: (row) => (row.age === null ? NONE : span(row.age)) },
    { title: "Claims", figure: true, wide: true, cell: (row) => count(row.claim) },
    { title: "Attempts", figure: true, wide: true, cell: (row) => count(row.attempts) },
    ...(mayRelease
      ? [{ title: "Operation", cell: (row: BucketRow) => <ReleaseButton row={row} onDone={again} /> }]
      : []),
  ];
}

function ReleaseButton({ row, onDone }: { row: BucketRow; onDone(): void }) {
  if (row.state === "ready" || row.client_id === null) return null;
  return (
    <ActButton
      onDone={onDone}
      act={{
        name: "Release",
        operation: { type: "bucket.release", fields: { bucket_id: row.bucket_id } },
        effect: `${row.client_id} loses this bucket of ${row.service}; the ${plural(row.remaining, "item")} left in it go to others.`,
        done: (answer) => (answer.released === 0 ? "Nobody held it any more." : "The bucket is released."),
        needs: "operator",
        danger: true,
      }}
    />
  );
}
