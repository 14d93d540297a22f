// Numbers and times as people read them; the reader's own language decides the separators.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const NONE = "–";

export function count(value: number): string {
  return whole.format(value);
}

/** 1,234,567 → 1.23M, for places where the exact figure has no room. */
export function compact(value: number): string {
  return Math.abs(value) < 10_000 ? whole.format(value) : short.format(value);
}

export function rate(value: number): string {
  return value > 0 && value < 100 ? tenths.format(value) : whole.format(value);
}

/** A share of a whole; 100 % only when nothing is missing. */
export function percent(part: number, total: number): string {
  if (total === 0) return NONE;
  const share = (100 * part) / total;
  return `${part === total ? "100" : tenths.format(Math.min(share, 99.9))} %`;
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

const UNITS: [string, number][] = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1],
];

/** Seconds in the one or two largest units: `2 h 5 min`. */
export function span(seconds: number): string {
  let rest = Math.max(0, Math.round(seconds));
  const at = UNITS.findIndex(([, size]) => rest >= size);
  if (at < 0) return "0 s";
  const parts: string[] = [];
  for (const [name, size] of UNITS.slice(at, at + 2)) {
    const times = Math.floor(rest / size);
    rest -= times * size;
    if (times > 0) parts.push(`${times} ${name}`);
  }
  return parts.join(" ");
}

/** A range of seconds: `12 – 20 min`, or one figure if both say the same. */
export function range(low: number, high: number): string {
  const size = UNITS.find(([, seconds]) => low >= seconds) ?? ["s", 1];
  const from = Math.round(low / size[1]);
  const to = Math.round(high / size[1]);
  if (from === to) return `about ${from} ${size[0]}`;
  return to < 100 ? `${from} – ${to} ${size[0]}` : `${span(low)} – ${span(high)}`;
}

/** `3 min ago`; the future reads `in 3 min`. */
export function ago(time: string | null, now: number): string {
  if (time === null) return "never";
  const seconds = (now - Date.parse(time)) / 1000;
  if (Math.abs(seconds) < 2) return "now";
  return seconds > 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
}

export function timeOfDay(time: string | number | Date): string {
  return clock.format(new Date(time));
}

export function dayAndTime(time: string | number): string {
  return day.format(new Date(time));
}

/** A mark of a time axis whose marks are so many seconds apart. */
export function tick(seconds: number, step: number): string {
  return (step < 60 ? clock : step < 86_400 ? minute : date).format(seconds * 1000);
}

export function fullTime(time: string): string {
  return full.format(new Date(time));
}

export function bytes(value: number): string {
  const mebibytes = value / 2 ** 20;
  return mebibytes < 1024 ? `${whole.format(mebibytes)} MiB` : `${tenths.format(mebibytes / 1024)} GiB`;
}

export function milliseconds(value: number): string {
  return `${value < 10 ? value.toFixed(2) : whole.format(value)} ms`;
}
