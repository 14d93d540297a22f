import { TimeAgo, Empty, SelectField } from "../components";
import { useApp, useNow, useRows } from "../context";
import { JsonValue } from "../json";
import { BucketLink, ItemLink } from "../links";
import { useObservable } from "../observable";
import { type Column, Pager, TableView, usePagePosition } from "../table";
import type { ListedResult } from "../wire";

const RESULTS_PER_PAGE = 50;

/** The results of a client in one of its services, which the address names. */
export function ClientResults({ client, services }: { client: string; services: readonly string[] }) {
  const { query } = useObservable(useApp().router.route);
  const service = query.service ?? services[0];
  if (service === undefined) return <Empty title="It has joined no service." />;

  return (
    <>
      <div class="filters">
        <SelectField
          name="service"
          label="Service"
          options={services.map((name, index) => [index === 0 ? "" : name, name] as const)}
        />
      </div>
      <ServiceResults key={service} client={client} service={service} />
    </>
  );
}

function ServiceResults({ client, service }: { client: string; service: string }) {
  const position = usePagePosition();
  const now = useNow();
  const loaded = useRows<ListedResult>({
    table: "results",
    filter: { service, client_id: client },
    after: position.after,
    limit: RESULTS_PER_PAGE,
    refreshSeconds: 5,
  });

  return (
    <>
      <TableView
        caption={`Results of ${client} in ${service}`}
        columns={resultColumns(now)}
        loaded={loaded}
        rowKey={(row) => `${row.bucket_id} ${row.claim} ${row.item} ${row.at}`}
        empty={<Empty title="No results yet." />}
      />
      <Pager position={position} loaded={loaded} rowsPerPage={RESULTS_PER_PAGE} />
    </>
  );
}

function resultColumns(now: number): Column<ListedResult>[] {
  return [
    { title: "Item", cell: (row) => <ItemLink item={row.item} name={row.key} /> },
    { title: "Result", cell: (row) => <JsonValue value={row.value} /> },
    { title: "Counts", cell: (row) => (row.valid ? "yes" : "taken back") },
    { title: "Bucket", wideOnly: true, cell: (row) => <BucketLink id={row.bucket_id} /> },
    { title: "Stored", numeric: true, cell: (row) => <TimeAgo time={row.at} now={now} /> },
  ];
}
