// What was found: for every service the shares of the kinds of its results.
import { Card, Empty, Failure, Loading, ServiceLink, Tabs } from "../components";
import { useApp, useRows } from "../context";
import { count, percent, plural } from "../format";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { type ServiceShares, sharesByService } from "../shares";
import type { Filter, ShareRow } from "../wire";

/** Rows that are read: sixteen kinds of each of more services than are looked at one by one. */
const MAX_ROWS = 1000;
const HOUR_MS = 3_600_000;

const SPANS = [
  ["all", "All time"],
  ["month", "30 days"],
  ["day", "24 hours"],
] as const;
const SPAN_HOURS: Record<string, number> = { day: 24, month: 30 * 24 };

export function AllResultsPage() {
  const { connection, router } = useApp();
  const { query } = useObservable(router.route);
  const loaded = useRows<ShareRow>({
    table: "shares",
    filter: filterOf(query.span, Date.now() + connection.clockOffset),
    limit: MAX_ROWS,
    refreshSeconds: 20,
  });

  return (
    <>
      <PageHead title="Results" lead="What the checks of each service found, by kind.">
        <Tabs name="span" label="Time counted" options={SPANS} />
      </PageHead>
      {loaded.error !== null && <Failure text={loaded.error} reload={loaded.reload} />}
      {loaded.rows === null ? loaded.error === null && <Loading rows={5} /> : <ShareCard rows={loaded.rows} />}
      {loaded.next !== null && <p class="more muted">These are the first {count(MAX_ROWS)} kinds.</p>}
    </>
  );
}

/** From a full hour on, so that all who look ask for the same. */
function filterOf(span: string | undefined, now: number): Filter {
  const hours = SPAN_HOURS[span ?? ""];
  if (hours === undefined) return {};
  return { since: new Date((Math.floor(now / HOUR_MS) - hours) * HOUR_MS).toISOString() };
}

function ShareCard({ rows }: { rows: readonly ShareRow[] }) {
  const services = sharesByService(rows);
  if (services.length === 0) {
    return (
      <section class="card">
        <Empty title="No results of a kind came in this time.">
          A service tells kinds if its plugin does, or its setting label_field.
        </Empty>
      </section>
    );
  }
  return (
    <Card title={plural(services.length, "service")}>
      <ul class="progress-list">
        {services.map((shares) => (
          <ServiceBar key={shares.service} shares={shares} />
        ))}
      </ul>
    </Card>
  );
}

function ServiceBar({ shares: { service, kinds, total } }: { shares: ServiceShares }) {
  const words = kinds.map(({ label, results }) => `${label} ${percent(results, total)}`).join(", ");
  let next = 0;
  return (
    <li>
      <div class="progress-head">
        <ServiceLink service={service} />
        <span class="muted">{plural(total, "result")}</span>
      </div>
      <svg class="items-bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label={`${service}: ${words}`}>
        {kinds.map(({ label, results }, kind) => {
          const x = next;
          next += (1000 * results) / total;
          return <rect key={label} class={`series-${kind + 1}`} x={x} y="0" width={next - x} height="10" />;
        })}
      </svg>
      <ul class="legend">
        {kinds.map(({ label, results }, kind) => (
          <li key={label} title={count(results)}>
            <span class={`swatch series-${kind + 1}`} aria-hidden="true" />
            <span class="name">{label}</span> <b>{percent(results, total)}</b>
          </li>
        ))}
      </ul>
    </li>
  );
}
