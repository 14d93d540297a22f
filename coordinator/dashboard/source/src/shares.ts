// The shares of the kinds of results in each service.
import { MAX_KINDS, OTHERS } from "./kinds";
import type { ShareRow } from "./wire";

export interface ServiceShares {
  service: string;
  /** The most frequent kinds by name, so that each keeps its colour; behind them all others together. */
  kinds: { label: string; results: number }[];
  total: number;
}

/** Group rows by their service, the one with most results first. */
export function sharesByService(rows: readonly ShareRow[]): ServiceShares[] {
  const byService = new Map<string, ShareRow[]>();
  for (const row of rows) byService.set(row.service, [...(byService.get(row.service) ?? []), row]);

  return [...byService]
    .map(([service, ofService]) => ({ service, kinds: kindsOf(ofService), total: sumOf(ofService) }))
    .filter(({ total }) => total > 0)
    .sort((one, other) => other.total - one.total || one.service.localeCompare(other.service));
}

function kindsOf(rows: readonly ShareRow[]): ServiceShares["kinds"] {
  const ranked = rows.toSorted((one, other) => other.results - one.results || one.label.localeCompare(other.label));
  const own = ranked.slice(0, MAX_KINDS).map(({ label, results }) => ({ label, results }));
  own.sort((one, other) => one.label.localeCompare(other.label));
  const others = sumOf(ranked.slice(MAX_KINDS));
  return others > 0 ? [...own, { label: OTHERS, results: others }] : own;
}

function sumOf(rows: readonly ShareRow[]): number {
  return rows.reduce((sum, { results }) => sum + results, 0);
}
