import {
  Badge,
  ClientLink,
  EmptyList,
  Failure,
  Loading,
  Name,
  SelectField,
  ServiceLink,
  ServiceSelectField,
  TimeAgo,
  TimeField,
} from "../components";
import { useApp, useNow, useRows } from "../context";
import { type EventGroup, groupEvents } from "../event-groups";
import { localInput, plural, timeOfDay } from "../format";
import { BucketLink } from "../links";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { href, type Query } from "../route";
import { Pager, usePagePosition } from "../table";
import { eventTone } from "../tones";
import type { EventRow, Filter } from "../wire";

const EVENT_KINDS = [
  "fault",
  "quarantine",
  "refused",
  "node",
  "health",
  "limited",
  "dead",
  "lost",
  "disconnect",
  "release",
  "admin",
  "register",
  "connect",
];

const SPANS: readonly (readonly [hours: number, title: string])[] = [
  [1, "last hour"],
  [24, "24 hours"],
  [168, "7 days"],
];

const FILTER_NAMES = ["severity", "kind", "service", "since", "until"];

const EVENTS_PER_PAGE = 100;

export function EventsPage() {
  const { query } = useObservable(useApp().router.route);

  return (
    <>
      <PageHead title="Events" lead="What has happened, the newest first." />
      <div class="filters" role="search">
        <SelectField
          name="severity"
          label="Severity"
          options={[
            ["", "all"],
            ["warning", "warning, error"],
            ["error", "error"],
          ]}
        />
        <ServiceSelectField />
        <TimeField name="since" label="From" />
        <TimeField name="until" label="Until" />
        <SpanLinks />
        <KindChoice />
      </div>
      <section class="card" aria-label="Events">
        <EventPages filter={filterOf(query)} filterNames={FILTER_NAMES} />
      </section>
    </>
  );
}

/** The filter that an address means; what is no time, kind or severity is left out. */
function filterOf(query: Query): Filter {
  const filter: Filter = {};
  const kinds = kindsOf(query);
  if (kinds.length > 0) filter.kind = kinds;
  if (query.severity === "warning" || query.severity === "error") filter.severity = query.severity;
  if (query.service) filter.service = query.service;
  for (const name of ["since", "until"] as const) {
    const time = Date.parse(query[name] ?? "");
    if (!Number.isNaN(time)) filter[name] = new Date(time).toISOString();
  }
  return filter;
}

function kindsOf(query: Query): string[] {
  const chosen = (query.kind ?? "").split(",");
  return EVENT_KINDS.filter((kind) => chosen.includes(kind));
}

function SpanLinks() {
  const { path, query } = useObservable(useApp().router.route);
  const now = useNow(60);
  return (
    <nav class="spans" aria-label="Time shown">
      {SPANS.map(([hours, title]) => {
        const since = localInput(now - hours * 3_600_000);
        return (
          <a key={title} href={href(path, { ...query, since, until: undefined, after: undefined, page: undefined })}>
            {title}
          </a>
        );
      })}
    </nav>
  );
}

/** Kinds to choose, several at once; none chosen means all. */
function KindChoice() {
  const { router } = useApp();
  const { query } = useObservable(router.route);
  const chosen = kindsOf(query);

  const choose = (kind: string, on: boolean): void => {
    const kinds = EVENT_KINDS.filter((known) => (known === kind ? on : chosen.includes(known)));
    router.changeQuery({ kind: kinds.join(","), after: undefined, page: undefined }, true);
  };

  return (
    <fieldset class="kinds">
      <legend>Kinds</legend>
      {EVENT_KINDS.map((kind) => (
        <label key={kind}>
          <input
            type="checkbox"
            checked={chosen.includes(kind)}
            onChange={(event) => choose(kind, event.currentTarget.checked)}
          />
          {kind}
        </label>
      ))}
    </fieldset>
  );
}

interface EventPagesProps {
  filter: Filter;
  /** The names in the address of the filters that the reader can set. */
  filterNames?: readonly string[];
}

/** The events that match a filter, page by page. */
export function EventPages({ filter, filterNames = [] }: EventPagesProps) {
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
        <EventList rows={loaded.rows} now={now} filterNames={filterNames} />
      )}
      <Pager position={position} loaded={loaded} rowsPerPage={EVENTS_PER_PAGE} />
    </>
  );
}

interface EventListProps {
  rows: readonly EventRow[];
  now: number;
  filterNames?: readonly string[];
  /** Groups that are shown at most. */
  most?: number;
}

/** Events, with those that repeat as one line. */
export function EventList({ rows, now, filterNames = [], most = Infinity }: EventListProps) {
  if (rows.length === 0) {
    const [title, filteredTitle] = ["Nothing has happened here lately.", "No event is like that."];
    return <EmptyList filters={filterNames} title={title} filteredTitle={filteredTitle} />;
  }

  return (
    <ol class="events">
      {groupEvents(rows)
        .slice(0, most)
        .map((group) => (
          <EventLine key={group.rows[group.rows.length - 1]?.event_id} group={group} now={now} />
        ))}
    </ol>
  );
}

function EventLine({ group: { newest, rows }, now }: { group: EventGroup; now: number }) {
  const { kind, severity, text, client_id, service, bucket_id, node, at } = newest;
  const first = rows[rows.length - 1] ?? newest;

  return (
    <li>
      <Badge word={kind} tone={eventTone(kind, severity)} />
      <span class="event-text">{text}</span>
      <span class="event-where muted">
        {client_id !== null && <ClientLink id={client_id} />}
        {service !== null && <ServiceLink service={service} />}
        {rows.length === 1 && bucket_id !== null && <BucketOf id={bucket_id} />}
        {node !== null && severity !== "info" && (
          <a href={href(["nodes"])}>
            <Name text={node} title={`told by node ${node}`} />
          </a>
        )}
        <TimeAgo time={at} now={now} />
      </span>
      {rows.length > 1 && (
        <details class="repeats">
          <summary>
            {plural(rows.length, "time")} since {timeOfDay(first.at)}
          </summary>
          <ul>
            {rows.map((row) => (
              <li key={row.event_id}>
                {timeOfDay(row.at)} {row.text} {row.bucket_id !== null && <BucketOf id={row.bucket_id} />}
              </li>
            ))}
          </ul>
        </details>
      )}
    </li>
  );
}

function BucketOf({ id }: { id: string }) {
  return (
    <span>
      bucket <BucketLink id={id} />
    </span>
  );
}
