import {
  Badge,
  ClientLink,
  Empty,
  Failure,
  Loading,
  SelectField,
  ServiceLink,
  ServiceSelectField,
  TimeAgo,
} from "../components";
import { useApp, useNow, useRows } from "../context";
import { useObservable } from "../observable";
import { Pager, usePagePosition } from "../table";
import type { EventRow, Filter } from "../wire";

const EVENT_KINDS = [
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

const EVENTS_PER_PAGE = 100;

export function EventsPage() {
  const { query } = useObservable(useApp().router.route);
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
        <SelectField
          name="kind"
          label="Kind"
          options={[["", "all kinds"], ...EVENT_KINDS.map((kind) => [kind, kind] as const)]}
        />
        <ServiceSelectField />
      </div>
      <section class="card" aria-label="Events">
        <EventPages filter={filter} />
      </section>
    </>
  );
}

/** The events that match a filter, page by page. */
export function EventPages({ filter }: { filter: Filter }) {
  const position = usePagePosition();
  const now = useNow();
  const loaded = useRows<EventRow>({
    table: "events",
    filter,
    after: position.after,
    limit: EVENTS_PER_PAGE,
    refreshSeconds: 2,
  });

  return (
    <>
      {loaded.error !== null && <Failure text={loaded.error} reload={loaded.reload} />}
      {loaded.rows === null ? (
        loaded.error === null && <Loading rows={8} />
      ) : (
        <EventList rows={loaded.rows} now={now} />
      )}
      <Pager position={position} loaded={loaded} rowsPerPage={EVENTS_PER_PAGE} />
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
            {row.bucket_id !== null && <code title={row.bucket_id}>bucket {row.bucket_id.slice(0, 8)}</code>}
            <TimeAgo time={row.at} now={now} />
          </span>
        </li>
      ))}
    </ol>
  );
}
