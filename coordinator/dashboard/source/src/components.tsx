// Components that several pages use.
import type { ComponentChildren } from "preact";
import { type LoadedRows, useApp, useTopic } from "./context";
import { compactCount, count, doingText, fullTime, relativeTime, splitName } from "./format";
import { useObservable } from "./observable";
import { href, withoutFilters } from "./route";
import { type Tone, toneOf } from "./tones";
import type { Doing, Health, Items, FirstRows, Role, ServiceRow } from "./wire";

export function Card(props: { title: string; aside?: ComponentChildren; class?: string; children: ComponentChildren }) {
  const id = `card-${props.title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return (
    <section class={`card ${props.class ?? ""}`} aria-labelledby={id}>
      <header class="card-head">
        <h2 id={id}>{props.title}</h2>
        {props.aside}
      </header>
      {props.children}
    </section>
  );
}

export function Figure(props: { name: string; value: string; note?: ComponentChildren; title?: string }) {
  return (
    <div class="figure">
      <dt>{props.name}</dt>
      <dd>
        <span class="value" title={props.title}>
          {props.value}
        </span>
        <span class="note">{props.note}</span>
      </dd>
    </div>
  );
}

/** A state in one word; the shape of its dot says the same as its colour. */
export function Badge({ word, tone = toneOf(word) }: { word: string; tone?: Tone }) {
  return <span class={`badge ${tone}`}>{word}</span>;
}

export function HealthBadge({ health, reason }: { health: Health; reason: string | null }) {
  return (
    <span class="health">
      <Badge word={health} />
      {reason !== null && <span class="reason">{reason}</span>}
    </span>
  );
}

/** What a client does now, and until when, with the reason on a line of its own. */
export function DoingBadge({ doing, now }: { doing: Doing; now: number }) {
  const text = doingText(doing, now);
  return (
    <span class="health" title={doing.text}>
      <Badge word={doing.what.replace("_", " ")} />
      {text !== "" && <span class="reason">{text}</span>}
    </span>
  );
}

/** A state in one word, with an admin's words for it on a line of its own. */
export function StateBadge({ word, reason }: { word: string; reason: string | null }) {
  return (
    <span class="health">
      <Badge word={word} />
      {reason !== null && <span class="reason">{reason}</span>}
    </span>
  );
}

export function TimeAgo({ time, now }: { time: string | null; now: number }) {
  if (time === null) return <span class="muted">never</span>;
  return (
    <time dateTime={time} title={fullTime(time)}>
      {relativeTime(time, now)}
    </time>
  );
}

/** A name or an id.  A long one is cut in its middle, by the style sheet: whole it is in the title and when copied. */
export function Name({ text, title = text }: { text: string; title?: string }) {
  const parts = splitName(text);
  if (parts === null) {
    return (
      <span class="name" title={title}>
        {text}
      </span>
    );
  }
  const [start, end] = parts;
  return (
    <span class="name cut" title={title}>
      <span class="cut-start">{start}</span>
      {end}
    </span>
  );
}

export function ClientLink({ id, name = id }: { id: string; name?: string }) {
  return (
    <a href={href(["clients", id])}>
      <Name text={name} title={name === id ? id : `${name} (${id})`} />
    </a>
  );
}

export function ServiceLink({ service }: { service: string }) {
  return (
    <a href={href(["services", service])}>
      <Name text={service} />
    </a>
  );
}

/** The states of items, in the order in which the bar shows them. */
const ITEM_STATES = ["settled", "claimed", "ready", "waiting", "dead", "quarantined"] as const;

/** The progress of a service as a bar with one part for each state of items. */
export function ItemsBar({ items, label }: { items: Items; label: string }) {
  const total = Math.max(1, items.total);
  const description = ITEM_STATES.filter((state) => items[state] > 0).map((state) => `${count(items[state])} ${state}`);
  let nextX = 0;

  return (
    <svg
      class="items-bar"
      viewBox="0 0 1000 10"
      preserveAspectRatio="none"
      role="img"
      aria-label={`${label}: ${description.join(", ") || "no items"}`}
    >
      <rect class="bar-empty" x="0" y="0" width="1000" height="10" />
      {ITEM_STATES.map((state) => {
        const width = (1000 * items[state]) / total;
        const x = nextX;
        nextX += width;
        return width > 0 && <rect key={state} class={`bar-${state}`} x={x} y="0" width={width} height="10" />;
      })}
    </svg>
  );
}

/** The colours of the bar's parts, with their figures. */
export function ItemsLegend({ items }: { items: Items }) {
  return (
    <ul class="legend">
      {ITEM_STATES.map((state) => (
        <li key={state} title={count(items[state])}>
          <span class={`swatch bar-${state}`} aria-hidden="true" />
          {state} <b>{compactCount(items[state])}</b>
        </li>
      ))}
    </ul>
  );
}

/** A share between 0 and 1 as a thin bar; screen readers get the figure that stands beside it. */
export function Meter({ share, tone = "good" }: { share: number; tone?: Exclude<Tone, "neutral"> }) {
  const width = 100 * Math.min(1, Math.max(0, share));
  return (
    <svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
      <rect class="bar-empty" x="0" y="0" width="100" height="4" />
      <rect class={`tone-${tone}`} x="0" y="0" width={width} height="4" />
    </svg>
  );
}

export function Loading({ rows = 3 }: { rows?: number }) {
  return (
    <div class="loading">
      <span class="visually-hidden">Loading</span>
      {Array.from({ length: rows }, (_, row) => (
        <span key={row} class="skeleton" aria-hidden="true" />
      ))}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children !== undefined && <p>{children}</p>}
    </div>
  );
}

/** Stands where only readers with the token of a role may go on. */
export function NeedsRole({ role }: { role: Exclude<Role, "viewer"> }) {
  return (
    <section class="card">
      <Empty title={`This needs the token of an ${role}.`}>Give it with the button that tells your role.</Empty>
    </section>
  );
}

interface EmptyListProps {
  /** The names in the address of the filters that the list has. */
  filters: readonly string[];
  /** Why nothing is listed where no filter is set. */
  title: string;
  /** Why nothing is listed where one is. */
  filteredTitle: string;
}

/** Stands where nothing is listed; it offers to take filters away only where there are any. */
export function EmptyList({ filters, title, filteredTitle }: EmptyListProps) {
  const { path, query } = useObservable(useApp().router.route);
  const unfiltered = withoutFilters(query, filters);

  if (query.after) {
    return (
      <Empty title="Nothing is left on this page.">
        <a href={href(path, { ...query, after: undefined, page: undefined })}>To the first page</a>
      </Empty>
    );
  }
  if (unfiltered === null) return <Empty title={title} />;
  return (
    <Empty title={filteredTitle}>
      <a href={href(path, unfiltered)}>Take the filters away</a>
    </Empty>
  );
}

export function Failure({ text, reload }: { text: string; reload(): void }) {
  return (
    <div class="empty failure" role="alert">
      <p class="empty-title">This could not be read.</p>
      <p>{text}</p>
      <button type="button" onClick={reload}>
        Try again
      </button>
    </div>
  );
}

interface OneThingProps<T> {
  loaded: LoadedRows<T>;
  /** The one row that was looked for, once it is known. */
  thing: T | undefined;
  /** Says that there is none. */
  missing: string;
  children(thing: T): ComponentChildren;
}

/** What the page of one thing shows of it, or why it cannot. */
export function OneThing<T>({ loaded, thing, missing, children }: OneThingProps<T>) {
  return (
    <>
      {loaded.error !== null && !loaded.missing && <Failure text={loaded.error} reload={loaded.reload} />}
      {loaded.rows === null && loaded.error === null && <Loading rows={5} />}
      {(loaded.missing || loaded.rows !== null) && thing === undefined && <Empty title={missing} />}
      {thing !== undefined && children(thing)}
    </>
  );
}

/** A selection whose value is kept in the address. */
export function SelectField(props: { name: string; label: string; options: readonly (readonly [string, string])[] }) {
  const { router } = useApp();
  const { query } = useObservable(router.route);

  return (
    <label class="field">
      <span>{props.label}</span>
      <select
        value={query[props.name] ?? ""}
        onChange={(event) =>
          router.changeQuery({ [props.name]: event.currentTarget.value, after: undefined, page: undefined }, true)
        }
      >
        {props.options.map(([value, label]) => (
          <option key={value} value={value}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A time by the reader's clock, kept in the address. */
export function TimeField({ name, label }: { name: string; label: string }) {
  const { router } = useApp();
  const { query } = useObservable(router.route);
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="datetime-local"
        value={query[name] ?? ""}
        onChange={(event) =>
          router.changeQuery({ [name]: event.currentTarget.value, after: undefined, page: undefined }, true)
        }
      />
    </label>
  );
}

/** A selection of one service or of all. */
export function ServiceSelectField() {
  const services = useTopic<FirstRows<ServiceRow>>("services")?.data.rows ?? [];
  return (
    <SelectField
      name="service"
      label="Service"
      options={[["", "all services"], ...services.map(({ service }) => [service, service] as const)]}
    />
  );
}

/** A selection as a row of links, kept in the address; an address without it means the first option. */
export function Tabs(props: { name: string; label: string; options: readonly (readonly [string, string])[] }) {
  const { router } = useApp();
  const { path, query } = useObservable(router.route);
  const selected = query[props.name] ?? props.options[0]?.[0];

  return (
    <nav class="tabs" aria-label={props.label}>
      {props.options.map(([value, label], index) => (
        <a
          key={value}
          href={href(path, {
            ...query,
            after: undefined,
            page: undefined,
            [props.name]: index === 0 ? undefined : value,
          })}
          aria-current={selected === value ? "true" : undefined}
        >
          {label}
        </a>
      ))}
    </nav>
  );
}
