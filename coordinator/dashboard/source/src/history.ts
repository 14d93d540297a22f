import { useEffect, useRef, useState } from "preact/hooks";
import type { StatsConnection } from "./connection";
import { useApp } from "./context";
import { useObservable } from "./observable";
import type { HistoryRow, Step } from "./wire";

const ROWS_PER_PAGE = 1000;
/** Pages of one reading; with many services the chart reaches only as far back as these do. */
const MAX_PAGES = 10;
/** Seconds between two readings; each reads only from the newest known step on. */
const REFRESH_SECONDS: Record<Step, number> = { second: 2, minute: 20, hour: 20 };

export interface History {
  /** Items settled by each service in each step, by its begin in seconds since 1970; null before the first answer. */
  settled: Map<string, Map<number, number>> | null;
  /** Begin of the part without gaps, in seconds since 1970. */
  completeFrom: number;
  error: string | null;
}

/** The rows that were read so far for one query, by their time and service. */
interface HistoryCache {
  queryKey: string;
  rows: Map<string, HistoryRow>;
  completeFrom: number;
}

/** Read the items settled since a time (seconds since 1970), of one service or, with null, of all together. */
export function useHistory(step: Step, since: number, service: string | null): History {
  const { connection } = useApp();
  const phase = useObservable(connection.state).phase;
  const frozen = useObservable(connection.frozenAt) !== null;
  const queryKey = `${step} ${since} ${service ?? ""}`;

  const cacheRef = useRef<HistoryCache>({ queryKey: "", rows: new Map(), completeFrom: since });
  const [history, setHistory] = useState<History>({ settled: null, completeFrom: since, error: null });

  useEffect(() => {
    if (cacheRef.current.queryKey !== queryKey) cacheRef.current = { queryKey, rows: new Map(), completeFrom: since };
    const cache = cacheRef.current;
    if (phase !== "live" || (frozen && cache.rows.size > 0)) return;
    let cancelled = false;
    let timer: ReturnType<typeof setTimeout> | undefined;

    const read = async (): Promise<void> => {
      let error: string | null = null;
      try {
        await readNewRows(connection, cache, { step, since, service }, () => cancelled);
        if (cancelled) return;
      } catch (failure) {
        if (cancelled || !connection.refreshing) return; // after a lost connection it is read again
        error = failure instanceof Error ? failure.message : String(failure);
      }
      setHistory({ settled: settledByService(cache.rows), completeFrom: cache.completeFrom, error });
      if (connection.refreshing) timer = setTimeout(() => void read(), REFRESH_SECONDS[step] * 1000);
    };

    void read();
    return () => {
      cancelled = true;
      clearTimeout(timer);
    };
  }, [connection, queryKey, phase, frozen]);

  return history;
}

/** Add the rows from the newest known step on to the cache.  Rejects with `RequestRefused` or `ConnectionLost`. */
async function readNewRows(
  connection: StatsConnection,
  cache: HistoryCache,
  { step, since, service }: { step: Step; since: number; service: string | null },
  isCancelled: () => boolean,
): Promise<void> {
  const newest = beginsOf(cache.rows).reduce((newer, begin) => Math.max(newer, begin), since);
  const filter = {
    step,
    since: new Date(newest * 1000).toISOString(),
    ...(service === null ? {} : { service }),
  };

  let after: string | null = null;
  let pages = 0;
  do {
    const page = await connection.readPage("history", filter, after, ROWS_PER_PAGE);
    for (const row of page.rows as HistoryRow[]) cache.rows.set(`${row.at} ${row.service}`, row);
    after = page.next;
    pages += 1;
  } while (after !== null && pages < MAX_PAGES && !isCancelled());

  // The newest rows come first: of the earliest step that was read, a part may be missing.
  if (after !== null && !isCancelled()) {
    cache.completeFrom = beginsOf(cache.rows).reduce((earlier, begin) => Math.min(earlier, begin), Infinity) + 1;
  }
}

/** Return the begins of all steps, in seconds since 1970. */
function beginsOf(rows: ReadonlyMap<string, HistoryRow>): number[] {
  return [...rows.values()].map((row) => Date.parse(row.at) / 1000);
}

/** The settled items of each service in each step. */
function settledByService(rows: ReadonlyMap<string, HistoryRow>): Map<string, Map<number, number>> {
  const settled = new Map<string, Map<number, number>>();
  for (const row of rows.values()) {
    const ofService = settled.get(row.service) ?? new Map<number, number>();
    settled.set(row.service, ofService.set(Date.parse(row.at) / 1000, row.settled));
  }
  return settled;
}
