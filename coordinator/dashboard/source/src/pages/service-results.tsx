import { ClientLink, Empty, EmptyList, SelectField, TimeAgo, TimeField } from "../components";
import { useApp, useNow, useRows } from "../context";
import { DownloadButtons } from "../download";
import { jsonText } from "../exact_json";
import { JsonValue, PlainValue } from "../json";
import { BucketLink, ItemLink } from "../links";
import { useObservable } from "../observable";
import { fieldsOf, type ResultField, typedValue } from "../result-fields";
import type { Query } from "../route";
import { type Column, Pager, SearchField, TableView, usePagePosition } from "../table";
import type { Filter, ListedResult, ServiceSchemas } from "../wire";

const RESULTS_PER_PAGE = 50;
/** Fields of a result that have a column of their own. */
const MAX_COLUMNS = 6;
const FILTERS = ["field", "value", "client", "since", "until"];

/** The results of a service, those of the newest claims first. */
export function ServiceResults({ service }: { service: string }) {
  const { query } = useObservable(useApp().router.route);
  const schemas = useRows<ServiceSchemas>({ table: "schemas", filter: { service }, limit: 1, refreshSeconds: 60 });
  const fields = fieldsOf(schemas.rows?.[0]?.result_schema);
  const { filter, refusal } = resultFilter(service, query, fields);
  const waits = schemas.rows === null && schemas.error === null;

  return (
    <>
      <div class="filters" role="search">
        <FieldFilter fields={fields} query={query} />
        <SearchField name="client" label="Client's id" />
        <TimeField name="since" label="From" />
        <TimeField name="until" label="Before" />
      </div>
      <section class="card" aria-label="Results">
        <div class="card-head">
          <h2>Results</h2>
          {filter !== null && <DownloadButtons name={`${service}-results`} filter={filter} fields={fields} />}
        </div>
        {filter === null ? (
          <Empty title={refusal ?? ""} />
        ) : (
          !waits && <ResultTable key={jsonText(filter)} filter={filter} fields={fields} />
        )}
      </section>
    </>
  );
}

interface ReadFilter {
  /** Null while what was typed cannot be read. */
  filter: Filter | null;
  refusal: string | null;
}

function resultFilter(service: string, query: Query, fields: readonly ResultField[]): ReadFilter {
  const filter: Filter = { service, sort: "newest" };
  if (query.client) {
    if (!/^[A-Za-z0-9_.-]{1,64}$/.test(query.client)) return { filter: null, refusal: "No client has such an id." };
    filter.client_id = query.client;
  }
  for (const name of ["since", "until"] as const) {
    const time = query[name] ? new Date(query[name]) : null;
    if (time === null) continue;
    if (Number.isNaN(time.getTime())) return { filter: null, refusal: "That is no time." };
    filter[name] = time.toISOString();
  }

  const field = fields.find(({ name }) => name === query.field);
  if (field !== undefined && query.value) {
    const value = typedValue(field, query.value);
    if (value === undefined) return { filter: null, refusal: `${field.name} has no such value.` };
    filter.value = { [field.name]: value };
  }
  return { filter, refusal: null };
}

/** A field of the results, and the value that it is to have. */
function FieldFilter({ fields, query }: { fields: readonly ResultField[]; query: Query }) {
  const simple = fields.filter(({ type }) => type !== "other");
  const field = simple.find(({ name }) => name === query.field);
  if (simple.length === 0) return null;

  return (
    <>
      <SelectField
        name="field"
        label="Field"
        options={[["", "any"], ...simple.map(({ name }) => [name, name] as const)]}
      />
      {field !== undefined && field.choices !== null && (
        <SelectField
          name="value"
          label={`Value of ${field.name}`}
          options={[["", "any"], ...field.choices.map((choice) => [String(choice), String(choice)] as const)]}
        />
      )}
      {field !== undefined && field.choices === null && (
        <SearchField key={field.name} name="value" label={`Value of ${field.name}`} />
      )}
    </>
  );
}

function ResultTable({ filter, fields }: { filter: Filter; fields: readonly ResultField[] }) {
  const position = usePagePosition();
  const now = useNow();
  const loaded = useRows<ListedResult>({
    table: "results",
    filter,
    after: position.after,
    limit: RESULTS_PER_PAGE,
    refreshSeconds: 5,
  });
  const few = loaded.next !== null && loaded.rows !== null && loaded.rows.length < RESULTS_PER_PAGE;

  return (
    <>
      <TableView
        caption={`Results of ${filter.service}, the newest claims first`}
        columns={resultColumns(fields, now)}
        loaded={loaded}
        rowKey={(row) => `${row.claim} ${row.item}`}
        empty={
          few ? (
            <Empty title="None among those looked at.">The next page looks further back.</Empty>
          ) : (
            <EmptyList filters={FILTERS} title="No results yet." filteredTitle="No result is like that." />
          )
        }
      />
      <Pager position={position} loaded={loaded} rowsPerPage={RESULTS_PER_PAGE} sparse={few || position.page > 1} />
    </>
  );
}

function resultColumns(fields: readonly ResultField[], now: number): Column<ListedResult>[] {
  const shown = fields.slice(0, MAX_COLUMNS);
  const values: Column<ListedResult>[] =
    shown.length === 0
      ? [{ title: "Result", cell: (row) => <JsonValue value={row.value} /> }]
      : shown.map(({ name }) => ({ title: name, cell: (row) => <FieldValue row={row} name={name} /> }));

  return [
    { title: "Item", cell: (row) => <ItemLink item={row.item} name={row.key} /> },
    ...values,
    ...(fields.length > MAX_COLUMNS
      ? [{ title: "Whole", cell: (row: ListedResult) => <JsonValue value={row.value} /> }]
      : []),
    { title: "Counts", cell: (row) => (row.valid ? "yes" : "taken back") },
    { title: "Client", cell: (row) => <ClientLink id={row.client_id} /> },
    { title: "Bucket", wideOnly: true, cell: (row) => <BucketLink id={row.bucket_id} /> },
    { title: "Stored", numeric: true, cell: (row) => <TimeAgo time={row.at} now={now} /> },
  ];
}

function FieldValue({ row, name }: { row: ListedResult; name: string }) {
  const value = (row.value as Record<string, unknown> | null)?.[name];
  return value === undefined || value === null ? <span class="muted">–</span> : <PlainValue value={value} />;
}
