import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell";
import type { Live } from "./live";
import type { Preferences } from "./preferences";
import type { Router } from "./route";
import { Refused } from "./socket";
import type { Toasts } from "./toasts";
import type { Filter, Table, Topic } from "./wire";

/** What every part of the page can reach. */
export interface App {
  live: Live;
  router: Router;
  preferences: Preferences;
  toasts: Toasts;
}

export const AppContext = createContext<App | null>(null);

export function useApp(): App {
  const app = useContext(AppContext);
  if (app === null) throw new Error("drawn outside the app");
  return app;
}

/** The newest snapshot of a topic, subscribed to while the component is shown; null before the first. */
export function useTopic<T>(topic: Topic): { data: T; at: string } | null {
  const { live } = useApp();
  useEffect(() => live.want(topic), [live, topic]);
  const snapshot = useCell(live.snapshot(topic));
  return snapshot === null ? null : { data: snapshot.data as T, at: snapshot.at };
}

export interface Loaded<T> {
  rows: T[] | null;
  next: string | null;
  /** The rows are those of an earlier question. */
  stale: boolean;
  error: string | null;
  /** The error is that there is no such thing. */
  missing: boolean;
  again(): void;
}

interface Answer<T> {
  question: string;
  rows: T[];
  next: string | null;
}

/** What the server says of a name that nothing has, or can have. */
const NOWHERE = new Set(["not_found", "bad_message"]);

export interface Question {
  table: Table;
  filter?: Filter;
  after?: string | null;
  limit?: number;
  /** Seconds between two readings; not read again while the view is frozen. */
  every: number;
}

/** One page of a table, read again and again. */
export function useRows<T>({ table, filter = {}, after = null, limit = 100, every }: Question): Loaded<T> {
  const { live } = useApp();
  const phase = useCell(live.link).phase;
  const frozen = useCell(live.frozen) !== null;
  const question = JSON.stringify([table, filter, after, limit]);
  const [answer, setAnswer] = useState<Answer<T> | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const [round, setRound] = useState(0);
  const known = useRef("");
  useEffect(() => {
    if (phase !== "live" || (frozen && known.current === question)) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let gone = false;
    const read = async (): Promise<void> => {
      try {
        const page = await live.page(table, filter, after, limit);
        if (gone) return;
        known.current = question;
        setAnswer({ question, rows: page.rows as T[], next: page.next });
        setError(null);
      } catch (failure) {
        if (gone || !live.flowing) return; // a cut: it is read again when the connection is back
        setError(failure as Error);
      }
      if (live.flowing) timer = setTimeout(() => void read(), every * 1000);
    };
    void read();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [live, question, phase, frozen, round, every]);
  return {
    rows: answer?.rows ?? null,
    next: answer?.next ?? null,
    stale: answer !== null && answer.question !== question,
    error: error?.message ?? null,
    missing: error instanceof Refused && NOWHERE.has(error.code),
    again: () => setRound((one) => one + 1),
  };
}

/** The server's time now, in milliseconds, anew each so many seconds; it stands still while the view is frozen. */
export function useNow(every = 1): number {
  const { live } = useApp();
  const frozen = useCell(live.frozen);
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (frozen !== null) return;
    const timer = setInterval(() => setNow(Date.now()), every * 1000);
    return () => clearInterval(timer);
  }, [frozen, every]);
  return now + live.ahead;
}
