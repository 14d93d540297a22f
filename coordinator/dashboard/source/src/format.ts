// Numbers and times as people read them; the reader's language decides the separators.
import type { Doing, Waiting } from "./wire";

const wholeNumber = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const oneDecimal = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const shortNumber = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 3 });
const hourMinuteSecond = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const hourMinute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayMonth = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const dayMonthTime = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});
const fullDateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Stands where there is no figure. */
export const NO_VALUE = "–";

export function count(value: number): string {
  return wholeNumber.format(value);
}

/** 1,234,567 → 1.23M, for places where the exact figure has no room. */
export function compactCount(value: number): string {
  return Math.abs(value) < 10_000 ? wholeNumber.format(value) : shortNumber.format(value);
}

export function rate(value: number): string {
  return value > 0 && value < 100 ? oneDecimal.format(value) : wholeNumber.format(value);
}

/** A part in percent; it reads 100 % only when the part is the whole. */
export function percent(part: number, total: number): string {
  if (total === 0) return NO_VALUE;
  const share = (100 * part) / total;
  return `${part === total ? "100" : oneDecimal.format(Math.min(share, 99.9))} %`;
}

export function plural(value: number, singular: string, pluralForm = `${singular}s`): string {
  return `${count(value)} ${value === 1 ? singular : pluralForm}`;
}

/** Characters up to which a name is shown whole. */
const WHOLE_NAME_CHARACTERS = 24;
/** Characters at the end of a long name that are always shown: long ids often differ only there. */
const NAME_END_CHARACTERS = 6;

/** A long name in two parts, of which the first may be cut at its end; null for one that is shown whole. */
export function splitName(name: string): [start: string, end: string] | null {
  const characters = Array.from(name);
  if (characters.length <= WHOLE_NAME_CHARACTERS) return null;
  return [characters.slice(0, -NAME_END_CHARACTERS).join(""), characters.slice(-NAME_END_CHARACTERS).join("")];
}

/** Units of time and their seconds, the largest first. */
const UNITS: [string, number][] = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1],
];

/** Seconds in the one or two largest units: `2 h 5 min`. */
export function duration(seconds: number): string {
  let rest = Math.max(0, Math.round(seconds));
  const largest = UNITS.findIndex(([, size]) => rest >= size);
  if (largest < 0) return "0 s";

  const parts: string[] = [];
  for (const [name, size] of UNITS.slice(largest, largest + 2)) {
    const units = Math.floor(rest / size);
    rest -= units * size;
    if (units > 0) parts.push(`${units} ${name}`);
  }
  return parts.join(" ");
}

/** A range of seconds: `12 – 20 min`, or one figure if both ends round to it. */
export function durationRange(low: number, high: number): string {
  const [unit, size] = UNITS.find(([, seconds]) => low >= seconds) ?? ["s", 1];
  const from = Math.round(low / size);
  const to = Math.round(high / size);
  if (from === to) return `about ${from} ${unit}`;
  return to < 100 ? `${from} – ${to} ${unit}` : `${duration(low)} – ${duration(high)}`;
}

/** `3 min ago`; a time to come reads `in 3 min`. */
export function relativeTime(time: string | null, now: number): string {
  if (time === null) return "never";
  const seconds = (now - Date.parse(time)) / 1000;
  if (Math.abs(seconds) < 2) return "now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

export function timeOfDay(time: string | number | Date): string {
  return hourMinuteSecond.format(new Date(time));
}

export function dayAndTime(time: string | number): string {
  return dayMonthTime.format(new Date(time));
}

/** A label of a time axis, as precise as the `step` in seconds between two labels asks. */
export function axisTime(seconds: number, step: number): string {
  return (step < 60 ? hourMinuteSecond : step < 86_400 ? hourMinute : dayMonth).format(seconds * 1000);
}

/** A time as a field of type datetime-local has it: by the reader's clock, to the minute. */
export function localInput(time: number): string {
  return new Date(time - new Date(time).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

export function fullTime(time: string): string {
  return fullDateTime.format(new Date(time));
}

/** Why a client waits, and until when if that is known and still to come. */
export function waitingText({ text, until }: Waiting, now: number): string {
  return `waits: ${text}${until !== null && Date.parse(until) > now ? `, until ${timeOfDay(until)}` : ""}`;
}

/** What a client does, beside the word for it; empty where the word says all. */
export function doingText({ what, text, since, until }: Doing, now: number): string {
  if (what === "offline") return since === null ? "" : `for ${duration((now - Date.parse(since)) / 1000)}`;
  const end = until !== null && Date.parse(until) > now ? `until ${timeOfDay(until)}` : "";
  if (what === "working" || what === "idle") return end;
  return end ? `${end}: ${text}` : text;
}

export function bytes(value: number): string {
  const mebibytes = value / 2 ** 20;
  return mebibytes < 1024 ? `${wholeNumber.format(mebibytes)} MiB` : `${oneDecimal.format(mebibytes / 1024)} GiB`;
}

export function milliseconds(value: number): string {
  return `${value < 10 ? value.toFixed(2) : wholeNumber.format(value)} ms`;
}
