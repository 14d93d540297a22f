// What becomes of a service's results, and how long what waits has waited.
import { useEffect, useState } from "preact/hooks";
import { Empty, Failure, Loading, Meter } from "../components";
import { useApp, useRows } from "../context";
import { compactCount, count, dayAndTime, duration, percent } from "../format";
import { useObservable } from "../observable";
import { sharesOf, type Shares } from "../kinds";
import { Scroller } from "../scroller";
import type { AgeRow, KindRow } from "../wire";

const ROWS_PER_PAGE = 1000;
/** Pages of one reading: a month of hours with the most kinds that a plugin may have. */
const MAX_PAGES = 12;
const REFRESH_SECONDS = 20;
/** Rows of the table under the bars, at most. */
const MAX_TABLE_ROWS = 12;

interface KindSpan {
  step: "minute" | "hour";
  barSeconds: number;
  spanSeconds: number;
}

const LAST_MINUTES: KindSpan = { step: "minute", barSeconds: 60, spanSeconds: 300 };
const KIND_SPANS: Record<string, KindSpan> = {
  hour: { step: "minute", barSeconds: 60, spanSeconds: 3_600 },
  day: { step: "hour", barSeconds: 3_600, spanSeconds: 86_400 },
  month: { step: "hour", barSeconds: 86_400, spanSeconds: 30 * 86_400 },
};

export function KindShares({ service, span }: { service: string; span: string }) {
  const { connection } = useApp();
  const { step, barSeconds, spanSeconds } = KIND_SPANS[span] ?? LAST_MINUTES;
  const now = (Date.now() + connection.clockOffset) / 1000;
  // It begins with a whole bar, so that the query stays the same for a while.
  const since = Math.floor((now - spanSeconds) / barSeconds) * barSeconds;
  const { rows, error } = useKinds(service, step, since);

  if (rows === null) return error === null ? <Loading rows={3} /> : <p class="refusal">{error}</p>;
  const shares = sharesOf(rows, since, now, barSeconds);
  if (shares.total === 0) return <Empty title="No results of a kind came in this time." />;
  return <ShareBars shares={shares} />;
}

/** Read how many results of each kind came since a time (seconds since 1970), again and again. */
function useKinds(service: string, step: "minute" | "hour", since: number) {
  const { connection } = useApp();
  const phase = useObservable(connection.state).phase;
  const frozen = useObservable(connection.frozenAt) !== null;
  const [rows, setRows] = useState<KindRow[] | null>(null);
  const [error, setError] = useState<string | null>(null);

  useEffect(() => {
    if (phase !== "live" || (frozen && rows !== null)) return;
    let cancelled = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const filter = { service, step, since: new Date(since * 1000).toISOString() };

    const read = async (): Promise<void> => {
      try {
        const found: KindRow[] = [];
        let after: string | null = null;
        for (let pages = 0; pages < MAX_PAGES && (pages === 0 || after !== null); pages += 1) {
          const page = await connection.readPage("kinds", filter, after, ROWS_PER_PAGE);
          found.push(...(page.rows as KindRow[]));
          after = page.next;
        }
        if (cancelled) return;
        setRows(found);
        setError(null);
      } catch (failure) {
        if (cancelled || !connection.refreshing) return; // after a lost connection it is read again
        setError(failure instanceof Error ? failure.message : String(failure));
      }
      if (connection.refreshing) timer = setTimeout(() => void read(), REFRESH_SECONDS * 1000);
    };

    void read();
    return () => {
      cancelled = true;
      clearTimeout(timer);
    };
  }, [connection, service, step, since, phase, frozen]);

  return { rows, error };
}

/** A bar for each step of time, divided by the shares of the kinds that came in it. */
function ShareBars({ shares: { kinds, bars, total } }: { shares: Shares }) {
  const words = kinds.map(({ label, results }) => `${label} ${percent(results, total)}`).join(", ");
  const gap = bars.length > 1 ? 0.12 : 0;

  return (
    <figure class="chart">
      <svg class="share-bars" viewBox={`0 0 ${bars.length} 100`} preserveAspectRatio="none" role="img" aria-label={words}>
        {bars.map(({ begin, results }, place) => {
          const sum = results.reduce((more, less) => more + less, 0);
          let top = 100;
          return results.map((part, kind) => {
            const height = sum === 0 ? 0 : (100 * part) / sum;
            top -= height;
            return (
              height > 0 && (
                <rect key={`${begin} ${kind}`} class={`series-${kind + 1}`} x={place} y={top} width={1 - gap} height={height}>
                  <title>{`${dayAndTime(begin * 1000)}: ${kinds[kind]?.label} ${percent(part, sum)} of ${count(sum)}`}</title>
                </rect>
              )
            );
          });
        })}
      </svg>
      <figcaption>
        <span class="muted">
          {dayAndTime((bars[0]?.begin ?? 0) * 1000)} until now · {count(total)} results
        </span>
        <ul class="legend">
          {kinds.map(({ label, results }, kind) => (
            <li key={label} title={count(results)}>
              <span class={`swatch series-${kind + 1}`} aria-hidden="true" />
              {label} <b>{percent(results, total)}</b>
            </li>
          ))}
        </ul>
      </figcaption>
      <ShareTable kinds={kinds} bars={bars} />
    </figure>
  );
}

function ShareTable({ kinds, bars }: Pick<Shares, "kinds" | "bars">) {
  const shown = bars.filter(({ results }) => results.some((part) => part > 0)).slice(-MAX_TABLE_ROWS);
  return (
    <details class="figures">
      <summary>Figures as a table</summary>
      <Scroller label="Results by kind">
        <table>
          <thead>
            <tr>
              <th scope="col">From</th>
              {kinds.map(({ label }) => (
                <th key={label} scope="col" class="numeric-cell">
                  {label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.reverse().map(({ begin, results }) => (
              <tr key={begin}>
                <th scope="row">{dayAndTime(begin * 1000)}</th>
                {results.map((part, kind) => (
                  <td key={kind} class="numeric-cell">
                    {count(part)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroller>
    </details>
  );
}

/** How many items have waited for how long. */
export function AgeHistogram({ service }: { service: string }) {
  const loaded = useRows<AgeRow>({ table: "ages", filter: { service }, limit: 100, refreshSeconds: 5 });
  if (loaded.rows === null) {
    return loaded.error === null ? <Loading rows={4} /> : <Failure text={loaded.error} reload={loaded.reload} />;
  }

  const most = loaded.rows.reduce((more, { items }) => Math.max(more, items), 0);
  if (most === 0) return <Empty title="Nothing waits." />;
  return (
    <dl class="balance ages">
      {loaded.rows.map(({ since, until, items }) => (
        <div key={since}>
          <dt>{ageText(since, until)}</dt>
          <dd title={count(items)}>{compactCount(items)}</dd>
          <Meter share={items / most} />
        </div>
      ))}
    </dl>
  );
}

function ageText(since: number, until: number | null): string {
  if (until === null) return `${duration(since)} or more`;
  return since === 0 ? `less than ${duration(until)}` : `${duration(since)} to ${duration(until)}`;
}
