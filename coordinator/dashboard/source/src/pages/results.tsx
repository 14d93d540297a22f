import { useCell } from "../cell";
import { useApp, useNow, useRows } from "../context";
import { Ago, Choice, Empty } from "../parts";
import { type Column, Pager, Table, usePaging } from "../table";
import type { ResultRow } from "../wire";

const LIMIT = 50;
/** Characters of a result that are shown; some hold thousands of accounts. */
const LONGEST = 160;

/** What a client has found in one of its services. */
export function ResultTable({ client, services }: { client: string; services: readonly string[] }) {
  const { query } = useCell(useApp().router.route);
  const service = query.service ?? services[0];
  if (service === undefined) return <Empty title="It has joined no service." />;
  return (
    <>
      <div class="filters">
        <Choice name="service" label="Service" options={services.map((one, at) => [at === 0 ? "" : one, one] as const)} />
      </div>
      <Results key={service} client={client} service={service} />
    </>
  );
}

function Results({ client, service }: { client: string; service: string }) {
  const paging = usePaging();
  const now = useNow();
  const loaded = useRows<ResultRow>({
    table: "results",
    filter: { service, client_id: client },
    after: paging.after,
    limit: LIMIT,
    every: 5,
  });
  return (
    <>
      <Table
        caption={`Results of ${client} in ${service}`}
        columns={columns(now)}
        loaded={loaded}
        keyOf={(row) => `${row.bucket_id} ${row.claim} ${row.item} ${row.at}`}
        empty={<Empty title="No results yet." />}
      />
      <Pager paging={paging} loaded={loaded} limit={LIMIT} />
    </>
  );
}

function columns(now: number): Column<ResultRow>[] {
  return [
    { title: "Item", cell: (row) => <span class="name">{row.key}</span> },
    { title: "Result", cell: (row) => <code class="value">{shortened(row.value)}</code> },
    { title: "Counts", cell: (row) => (row.valid ? "yes" : "taken back") },
    { title: "Bucket", wide: true, cell: (row) => <code title={row.bucket_id}>{row.bucket_id.slice(0, 8)}</code> },
    { title: "Stored", figure: true, cell: (row) => <Ago time={row.at} now={now} /> },
  ];
}

function shortened(value: unknown): string {
  const text = JSON.stringify(value) ?? "";
  return text.length > LONGEST ? `${text.slice(0, LONGEST)} …` : text;
}
