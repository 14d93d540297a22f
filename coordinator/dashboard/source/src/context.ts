import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import type { StatsConnection } from "./connection";
import type { SeenPages } from "./cursors";
import { jsonText } from "./exact_json";
import { type Observable, useObservable } from "./observable";
import type { Preferences } from "./preferences";
import type { Router } from "./route";
import { RequestRefused } from "./session";
import type { Toasts } from "./toasts";
import type { Filter, Table, Topic } from "./wire";

/** The objects that all components share. */
export interface App {
  connection: StatsConnection;
  router: Router;
  preferences: Preferences;
  toasts: Toasts;
  seenPages: SeenPages;
  /** The heading of the page that is shown; null where its `PageHead` is not drawn. */
  heading: Observable<string | null>;
}

export const AppContext = createContext<App | null>(null);

export function useApp(): App {
  const app = useContext(AppContext);
  if (app === null) throw new Error("drawn outside the app");
  return app;
}

/** Tell whether the server has been there and is away now, so that what is shown is of the past. */
export function useServerAway(): boolean {
  const { connection } = useApp();
  const { phase } = useObservable(connection.state);
  const server = useObservable(connection.server);
  return server !== null && (phase === "waiting" || phase === "connecting");
}

/** Subscribe to a topic while the component is shown; return its newest snapshot, null before the first. */
export function useTopic<T>(topic: Topic): { data: T; at: string } | null {
  const { connection } = useApp();
  useEffect(() => connection.subscribe(topic), [connection, topic]);
  const snapshot = useObservable(connection.snapshotOf(topic));
  return snapshot === null ? null : { data: snapshot.data as T, at: snapshot.at };
}

/** Rows of a table as they were last read. */
export interface LoadedRows<T> {
  /** Null before the first answer. */
  rows: T[] | null;
  /** The server's cursor of the next page; null on the last one. */
  next: string | null;
  /** All rows that match, on whatever page; null where they are not counted. */
  total: number | null;
  /** The rows answer an earlier query, not the present one. */
  stale: boolean;
  error: string | null;
  /** The error says that the thing asked for does not exist. */
  missing: boolean;
  /** Read now, and again as soon as the server has new rows. */
  reload(): void;
}

/** Rows that are known already, in the shape of rows that were read. */
export function knownRows<T>(rows: T[] | null, reload: () => void = () => undefined): LoadedRows<T> {
  return { rows, next: null, total: null, stale: false, error: null, missing: false, reload };
}

interface LoadedPage<T> {
  queryKey: string;
  rows: T[];
  next: string | null;
  total: number | null;
}

/** Error codes with which the server answers for a name that does not exist, or that is not a valid name. */
const NOT_FOUND_CODES = new Set(["not_found", "bad_message"]);

/** Seconds after which a page that the server had kept for other readers is found anew. */
const KEPT_PAGE_SECONDS = 1;

export interface TableQuery {
  table: Table;
  filter?: Filter;
  after?: string | null;
  limit?: number;
  /** Seconds between two readings; a frozen view is not read again. */
  refreshSeconds: number;
  /** Tell also how many rows match. */
  count?: boolean;
}

/** Read one page of a table, and read it again every `refreshSeconds`. */
export function useRows<T>({
  table,
  filter = {},
  after = null,
  limit = 100,
  refreshSeconds,
  count = false,
}: TableQuery): LoadedRows<T> {
  const { connection } = useApp();
  const phase = useObservable(connection.state).phase;
  const frozen = useObservable(connection.frozenAt) !== null;
  const queryKey = jsonText([table, filter, after, limit, count]);

  const [page, setPage] = useState<LoadedPage<T> | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const [reloads, setReloads] = useState(0);
  const loadedKey = useRef("");
  const readSoonAgain = useRef(false);

  useEffect(() => {
    if (phase !== "live" || (frozen && loadedKey.current === queryKey)) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let cancelled = false;

    const read = async (): Promise<void> => {
      try {
        const { rows, next, total = null } = await connection.readPage(table, filter, after, limit, { count });
        if (cancelled) return;
        loadedKey.current = queryKey;
        setPage({ queryKey, rows: rows as T[], next, total });
        setError(null);
      } catch (failure) {
        if (cancelled || !connection.refreshing) return; // after a lost connection it is read again
        setError(failure as Error);
      }
      const pause = readSoonAgain.current ? Math.min(KEPT_PAGE_SECONDS, refreshSeconds) : refreshSeconds;
      readSoonAgain.current = false;
      if (connection.refreshing) timer = setTimeout(() => void read(), pause * 1000);
    };

    void read();
    return () => {
      cancelled = true;
      clearTimeout(timer);
    };
  }, [connection, queryKey, phase, frozen, reloads, refreshSeconds]);

  return {
    rows: page?.rows ?? null,
    next: page?.next ?? null,
    total: page?.total ?? null,
    stale: page !== null && page.queryKey !== queryKey,
    error: error?.message ?? null,
    missing: error instanceof RequestRefused && NOT_FOUND_CODES.has(error.code),
    reload: () => {
      readSoonAgain.current = true;
      setReloads((before) => before + 1);
    },
  };
}

/** Return the server's time in milliseconds, updated every `refreshSeconds`; it stands still in a frozen view. */
export function useNow(refreshSeconds = 1): number {
  const { connection } = useApp();
  const frozenAt = useObservable(connection.frozenAt);
  const [now, setNow] = useState(Date.now());

  useEffect(() => {
    if (frozenAt !== null) return;
    const timer = setInterval(() => setNow(Date.now()), refreshSeconds * 1000);
    return () => clearInterval(timer);
  }, [frozenAt, refreshSeconds]);

  return now + connection.clockOffset;
}
