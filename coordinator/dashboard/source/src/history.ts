import { useEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell";
import { useApp } from "./context";
import type { HistoryRow, Step } from "./wire";

const PAGE = 1000;
/** Pages that are read at most: with many services, the past is shown as far back as that goes. */
const MOST = 10;
/** Seconds between two readings; each reads only from the newest known step on. */
const EVERY = 20;

export interface History {
  /** Items settled in each step, by its begin in seconds since 1970; null before the first answer. */
  settled: Map<number, number> | null;
  /** From when on that is whole, in seconds since 1970. */
  from: number;
  error: string | null;
}

/** What was kept since then, of one service or of all together. */
export function useHistory(step: Step, since: number, service: string | null): History {
  const { live } = useApp();
  const phase = useCell(live.link).phase;
  const frozen = useCell(live.frozen) !== null;
  const question = `${step} ${since} ${service ?? ""}`;
  const known = useRef({ question: "", rows: new Map<string, HistoryRow>(), from: since });
  const [history, setHistory] = useState<History>({ settled: null, from: since, error: null });
  useEffect(() => {
    if (known.current.question !== question) known.current = { question, rows: new Map(), from: since };
    const memory = known.current;
    const { rows } = memory;
    if (phase !== "live" || (frozen && rows.size > 0)) return;
    let gone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = async (): Promise<void> => {
      try {
        const newest = [...rows.values()].reduce((one, row) => Math.max(one, Date.parse(row.at) / 1000), since);
        const filter = {
          step,
          since: new Date(newest * 1000).toISOString(),
          ...(service === null ? {} : { service }),
        };
        let after: string | null = null;
        let pages = 0;
        do {
          const page = await live.page("history", filter, after, PAGE);
          for (const row of page.rows as HistoryRow[]) {
            rows.set(`${row.at} ${row.service}`, row);
          }
          after = page.next;
          pages += 1;
        } while (after !== null && pages < MOST && !gone);
        if (gone) return;
        if (after !== null) memory.from = earliest(rows) + 1; // newest first: the last step may not be whole
        setHistory({ settled: sums(rows), from: memory.from, error: null });
      } catch (failure) {
        if (gone || !live.flowing) return; // a cut: it is read again when the connection is back
        setHistory({ settled: sums(rows), from: memory.from, error: failure instanceof Error ? failure.message : String(failure) });
      }
      if (live.flowing) timer = setTimeout(() => void read(), EVERY * 1000);
    };
    void read();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [live, question, phase, frozen]);
  return history;
}

function earliest(rows: ReadonlyMap<string, HistoryRow>): number {
  return [...rows.values()].reduce((one, row) => Math.min(one, Date.parse(row.at) / 1000), Infinity);
}

function sums(rows: ReadonlyMap<string, HistoryRow>): Map<number, number> {
  const settled = new Map<number, number>();
  for (const row of rows.values()) {
    const at = Date.parse(row.at) / 1000;
    settled.set(at, (settled.get(at) ?? 0) + row.settled);
  }
  return settled;
}
