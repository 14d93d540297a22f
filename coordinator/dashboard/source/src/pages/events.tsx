import { useState } from "preact/hooks";
import { useCell } from "../cell";
import { useApp, useNow, useRows } from "../context";
import { Ago, Badge, Choice, ClientLink, Empty, Failure, Loading, ServiceLink } from "../parts";
import { Search } from "../table";
import type { EventRow } from "../wire";
import { plural } from "../words";

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

/** As many as the server remembers. */
const MOST = 1000;
/** As many as are drawn at first. */
const FIRST = 200;

export function EventsPage() {
  const { query } = useCell(useApp().router.route);
  const [all, setAll] = useState(false);
  const now = useNow();
  const loaded = useRows<EventRow>({ table: "events", limit: MOST, every: 2 });
  const words = (query.search ?? "").toLowerCase();
  const found = (loaded.rows ?? []).filter(
    (row) => (!query.kind || row.kind === query.kind) && (!words || spoken(row).includes(words)),
  );
  const shown = all ? found : found.slice(0, FIRST);
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Events</h1>
        <p class="lead">What has just happened, the newest first. The activity log keeps what operators did.</p>
      </div>
      <div class="filters" role="search">
        <Search name="search" label="Search" />
        <Choice name="kind" label="Kind" options={[["", "all kinds"], ...KINDS.map((kind) => [kind, kind] as const)]} />
      </div>
      <section class="card" aria-label="Events">
        {loaded.error !== null && <Failure text={loaded.error} again={loaded.again} />}
        {loaded.rows === null ? loaded.error === null && <Loading rows={8} /> : <EventList rows={shown} now={now} />}
        {shown.length < found.length && (
          <p class="more">
            <button type="button" onClick={() => setAll(true)}>
              Show all {plural(found.length, "event")}
            </button>
          </p>
        )}
      </section>
    </>
  );
}

function spoken(row: EventRow): string {
  return [row.kind, row.text, row.client_id, row.service, row.bucket_id].join(" ").toLowerCase();
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
