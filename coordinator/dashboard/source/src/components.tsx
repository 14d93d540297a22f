// Components that several pages use.
import type { ComponentChildren } from "preact";
import { useApp, useTopic } from "./context";
import { compactCount, count, durationRange, fullTime, relativeTime } from "./format";
import { useObservable } from "./observable";
import { href } from "./route";
import type { Eta, Health, Items, FirstRows, ServiceRow } from "./wire";

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

type Tone = "good" | "warn" | "bad" | "neutral";

/** The tone of each state and kind of event; all others are neutral. */
const TONES: Record<string, Tone> = {
  active: "good",
  live: "good",
  ok: "good",
  claimed: "good",
  ready: "neutral",
  paused: "warn",
  watched: "warn",
  draining: "warn",
  inactive: "neutral",
  unregistered: "neutral",
  gone: "neutral",
  done: "neutral",
  dead: "bad",
  flagged: "bad",
  deactivated: "bad",
  revoked: "bad",
  fault: "bad",
  lost: "bad",
  quarantine: "bad",
  health: "warn",
  release: "warn",
};

/** A state in one word; the shape of its dot says the same as its colour. */
export function Badge({ word }: { word: string }) {
  return <span class={`badge ${TONES[word] ?? "neutral"}`}>{word}</span>;
}

export function HealthBadge({ health, reason }: { health: Health; reason: string | null }) {
  return (
    <span class="health">
      <Badge word={health} />
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

export function ClientLink({ id, name }: { id: string; name?: string }) {
  return (
    <a href={href(["clients", id])} class="name" title={id}>
      {name ?? id}
    </a>
  );
}

export function ServiceLink({ service }: { service: string }) {
  return (
    <a href={href(["services", service])} class="name">
      {service}
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

/** The estimated time until all items are settled, or the reason why there is no estimate. */
export function etaText(items: Items, eta: Eta | null): string {
  if (items.total > 0 && items.settled + items.quarantined >= items.total) return "all done";
  if (items.total === 0) return "no items";
  return eta === null ? "no estimate yet" : durationRange(eta.low, eta.high);
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
