// The kinds of results that came, as shares of the bars of a chart.
import type { KindRow } from "./wire";

/** Kinds that have a colour of their own; all others are shown together. */
export const MAX_KINDS = 5;
export const OTHERS = "all others";

export interface Shares {
  /** The most frequent kinds by name, so that each keeps its colour; behind them all others together. */
  kinds: { label: string; results: number }[];
  /** Begins of the bars in seconds since 1970, and of each the results by kind, in the order of `kinds`. */
  bars: { begin: number; results: number[] }[];
  total: number;
}

/** Count results by kind for each bar of `barSeconds` between two times. */
export function sharesOf(rows: readonly KindRow[], since: number, end: number, barSeconds: number): Shares {
  const sums = new Map<string, number>();
  for (const { label, results } of rows) sums.set(label, (sums.get(label) ?? 0) + results);
  const ranked = [...sums].sort(([a, more], [b, less]) => less - more || a.localeCompare(b));
  const own = ranked
    .slice(0, MAX_KINDS)
    .map(([label]) => label)
    .sort();
  const labels = ranked.length > own.length ? [...own, OTHERS] : own;

  const first = Math.floor(since / barSeconds) * barSeconds;
  const bars = Array.from({ length: Math.max(0, Math.ceil((end - first) / barSeconds)) }, (_, index) => ({
    begin: first + index * barSeconds,
    results: labels.map(() => 0),
  }));
  for (const { at, label, results } of rows) {
    const bar = bars[Math.floor((Date.parse(at) / 1000 - first) / barSeconds)];
    const place = own.includes(label) ? own.indexOf(label) : labels.length - 1;
    if (bar !== undefined) bar.results[place] = (bar.results[place] ?? 0) + results;
  }

  const kinds = labels.map((label, place) => ({
    label,
    results: bars.reduce((sum, bar) => sum + (bar.results[place] ?? 0), 0),
  }));
  return { kinds, bars, total: kinds.reduce((sum, kind) => sum + kind.results, 0) };
}
