// The small things that all pages are made of.
import type { ComponentChildren } from "preact";
import { useCell } from "./cell";
import { useApp } from "./context";
import { href } from "./route";
import type { Eta, Health, Items } from "./wire";
import { ago, compact, count, fullTime, range } from "./words";

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

const TONES: Record<string, "good" | "warn" | "bad" | "quiet"> = {
  active: "good",
  live: "good",
  ok: "good",
  claimed: "good",
  ready: "quiet",
  paused: "warn",
  watched: "warn",
  draining: "warn",
  inactive: "quiet",
  unregistered: "quiet",
  gone: "quiet",
  done: "quiet",
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

/** A state in one word; its shape says the same as its colour. */
export function Badge({ word }: { word: string }) {
  return <span class={`badge ${TONES[word] ?? "quiet"}`}>{word}</span>;
}

export function HealthBadge({ health, reason }: { health: Health; reason: string | null }) {
  return (
    <span class="health">
      <Badge word={health} />
      {reason !== null && <span class="reason">{reason}</span>}
    </span>
  );
}

export function Ago({ time, now }: { time: string | null; now: number }) {
  if (time === null) return <span class="muted">never</span>;
  return (
    <time dateTime={time} title={fullTime(time)}>
      {ago(time, now)}
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

/** The place of items, in the order in which they get there. */
export const PLACES = ["settled", "claimed", "ready", "waiting", "dead", "quarantined"] as const;

/** How far a service is: one bar, one part for each place that items can be in. */
export function ItemsBar({ items, label }: { items: Items; label: string }) {
  const total = Math.max(1, items.total);
  let left = 0;
  const words = PLACES.filter((place) => items[place] > 0).map((place) => `${count(items[place])} ${place}`);
  return (
    <svg
      class="items-bar"
      viewBox="0 0 1000 10"
      preserveAspectRatio="none"
      role="img"
      aria-label={`${label}: ${words.join(", ") || "no items"}`}
    >
      <rect class="bar-empty" x="0" y="0" width="1000" height="10" />
      {PLACES.map((place) => {
        const width = (1000 * items[place]) / total;
        const x = left;
        left += width;
        return width > 0 && <rect key={place} class={`bar-${place}`} x={x} y="0" width={width} height="10" />;
      })}
    </svg>
  );
}

/** What the parts of the bar are, with their figures. */
export function ItemsLegend({ items }: { items: Items }) {
  return (
    <ul class="legend">
      {PLACES.map((place) => (
        <li key={place} title={count(items[place])}>
          <span class={`swatch bar-${place}`} aria-hidden="true" />
          {place} <b>{compact(items[place])}</b>
        </li>
      ))}
    </ul>
  );
}

/** Nothing to do, a range, or no guess: in a few words. */
export function etaWords(items: Items, eta: Eta | null): string {
  if (items.total > 0 && items.settled + items.quarantined >= items.total) return "all done";
  if (items.total === 0) return "no items";
  return eta === null ? "no estimate yet" : range(eta.low, eta.high);
}

/** A part of a whole as a thin bar; the figure stands beside it. */
export function Meter({ share, tone = "good" }: { share: number; tone?: "good" | "warn" | "bad" }) {
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
      <span class="unseen">Loading</span>
      {Array.from({ length: rows }, (_, row) => (
        <span key={row} class="bone" aria-hidden="true" />
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

export function Failure({ text, again }: { text: string; again(): void }) {
  return (
    <div class="empty failure" role="alert">
      <p class="empty-title">This could not be read.</p>
      <p>{text}</p>
      <button type="button" onClick={again}>
        Try again
      </button>
    </div>
  );
}

/** A choice that stands in the address. */
export function Choice(props: { name: string; label: string; options: readonly (readonly [string, string])[] }) {
  const { router } = useApp();
  const { query } = useCell(router.route);
  return (
    <label class="field">
      <span>{props.label}</span>
      <select
        value={query[props.name] ?? ""}
        onChange={(event) =>
          router.refine({ [props.name]: event.currentTarget.value, after: undefined, page: undefined }, true)
        }
      >
        {props.options.map(([value, words]) => (
          <option key={value} value={value}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}

/** One of a few, as a row of links; the first is what an address without it means. */
export function Tabs(props: { name: string; label: string; options: readonly (readonly [string, string])[] }) {
  const { router } = useApp();
  const { path, query } = useCell(router.route);
  const chosen = query[props.name] ?? props.options[0]?.[0];
  return (
    <nav class="tabs" aria-label={props.label}>
      {props.options.map(([value, words], place) => (
        <a
          key={value}
          href={href(path, { ...query, after: undefined, page: undefined, [props.name]: place === 0 ? undefined : value })}
          aria-current={chosen === value ? "true" : undefined}
        >
          {words}
        </a>
      ))}
    </nav>
  );
}
