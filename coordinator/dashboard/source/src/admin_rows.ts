// Lists of the admin channel, read when they are shown: each look is noted in the activity log.
import { useEffect, useState } from "preact/hooks";
import { type LoadedRows, useApp } from "./context";
import { jsonText } from "./exact_json";
import { inAdminSession } from "./operation";

/** Read one page of a list; `fields` are those of the request. */
export function useAdminRows<T>(type: string, fields: object): LoadedRows<T> {
  const { preferences } = useApp();
  const queryKey = jsonText([type, fields]);
  const [page, setPage] = useState<{ queryKey: string; rows: T[]; next: string | null } | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [reloads, setReloads] = useState(0);

  useEffect(() => {
    let cancelled = false;
    inAdminSession(preferences.token.value ?? "", (session) => session.request(type, fields)).then(
      (answer) => {
        if (cancelled) return;
        setPage({ queryKey, rows: answer.rows as T[], next: answer.next as string | null });
        setError(null);
      },
      (failure: unknown) => {
        if (!cancelled) setError(failure instanceof Error ? failure.message : String(failure));
      },
    );
    return () => {
      cancelled = true;
    };
  }, [queryKey, reloads]);

  return {
    rows: page?.rows ?? null,
    next: page?.next ?? null,
    total: null,
    stale: page !== null && page.queryKey !== queryKey,
    error,
    missing: false,
    reload: () => setReloads((before) => before + 1),
  };
}
