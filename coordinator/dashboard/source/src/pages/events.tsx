import { useCell } from "../cell";
import { useApp, useNow, useRows, useTopic } from "../context";
import { Ago, Badge, Choice, ClientLink, Empty, Failure, Loading, ServiceLink } from "../parts";
import { Pager, usePaging } from "../table";
import type { EventRow, Filter, Rows, ServiceRow } from "../wire";

const KINDS = [
  "connect",
  "disconnect",
  "register",
  "release",
  "dead",
  "lost",
  "fault",
  "quarantine",
  "health",
  "admin",
  "node",
];

const LIMIT = 100;

export function EventsPage() {
  const { query } = useCell(useApp().router.route);
  const services = useTopic<Rows<ServiceRow>>("services");
  const filter: Filter = {};
  if (query.kind) filter.kind = query.kind;
  if (query.service) filter.service = query.service;
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Events</h1>
        <p class="lead">What has happened, the newest first.</p>
      </div>
      <div class="filters" role="search">
        <Choice name="kind" label="Kind" options={[["", "all kinds"], ...KINDS.map((kind) => [kind, kind] as const)]} />
        <Choice
          name="service"
          label="Service"
          options={[["", "all services"], ...(services?.data.rows ?? []).map((row) => [row.service, row.service] as const)]}
        />
      </div>
      <section class="card" aria-label="Events">
        <EventPages filter={filter} />
      </section>
    </>
  );
}

/** Events page by page; those of one client, say. */
export function EventPages({ filter }: { filter: Filter }) {
  const paging = usePaging();
  const now = useNow();
  const loaded = useRows<EventRow>({ table: "events", filter, after: paging.after, limit: LIMIT, every: 2 });
  return (
    <>
      {loaded.error !== null && <Failure text={loaded.error} again={loaded.again} />}
      {loaded.rows === null ? loaded.error === null && <Loading rows={8} /> : <EventList rows={loaded.rows} now={now} />}
      <Pager paging={paging} loaded={loaded} limit={LIMIT} />
    </>
  );
}

export function EventList({ rows, now }: { rows: readonly EventRow[]; now: number }) {
  if (rows.length === 0) return <Empty title="Nothing has happened here lately." />;
  return (
    <ol class="events">
      {rows.map((row) => (
        <li key={row.event_id}>
          <Badge word={row.kind} />
          <span class="event-text">{row.text}</span>
          <span class="event-where muted">
            {row.client_id !== null && <ClientLink id={row.client_id} />}
            {row.service !== null && <ServiceLink service={row.service} />}
            {row.bucket_id !== null && (
              <code title={row.bucket_id}>bucket {row.bucket_id.slice(0, 8)}</code>
            )}
            <Ago time={row.at} now={now} />
          </span>
        </li>
      ))}
    </ol>
  );
}
