// What clients ask for and do not get, by its cause, compared with what lies ready.
import { Card, Meter } from "./components";
import { plural } from "./format";
import type { Overview } from "./wire";

/** The causes for which buckets do not come, each with the server's reasons and the words for them. */
const CAUSES: readonly { cause: string; reasons: Readonly<Record<string, string>> }[] = [
  {
    cause: "nothing is ready",
    reasons: {
      making: "buckets are being made",
      no_items: "others have what is left, or all is done",
      returned_all: "the client gave back what is ready",
    },
  },
  { cause: "paused", reasons: { paused: "the service is paused", draining: "the node is about to end" } },
  {
    cause: "held back",
    reasons: {
      at_limit: "the client holds as many as it may",
      newcomer: "newcomers hold as many as they may",
      backing_off: "the client gave back too much",
      reported: "the client reported that it cannot work",
      outdated: "the client's program is too old",
      deactivated: "the client is inactive there",
    },
  },
  { cause: "budget", reasons: { budget: "the service's budget is spent" } },
];

export interface DemandCause {
  cause: string;
  buckets: number;
  /** The reasons in words, the one of most buckets first. */
  why: string[];
}

/** The buckets that are asked for and not there, by cause; those without a cause yet are just being served. */
export function demandByCause({ pending, reasons }: Pick<Overview["demand"], "pending" | "reasons">): DemandCause[] {
  const found: DemandCause[] = [];
  let left = pending;
  for (const { cause, reasons: words } of CAUSES) {
    const counted = Object.entries(words)
      .map(([reason, text]) => ({ text, buckets: reasons[reason] ?? 0 }))
      .filter(({ buckets }) => buckets > 0)
      .sort((one, other) => other.buckets - one.buckets);
    const buckets = counted.reduce((sum, one) => sum + one.buckets, 0);
    if (buckets > 0) found.push({ cause, buckets, why: counted.map(({ text }) => text) });
    left -= buckets;
  }
  if (left > 0) found.push({ cause: "just asked", buckets: left, why: ["they are being looked for"] });
  return found;
}

export function DemandAndSupply({ overview: { demand, buckets, items } }: { overview: Overview }) {
  const larger = Math.max(1, demand.pending, buckets.ready);

  return (
    <Card title="Demand and supply">
      <dl class="balance">
        <div>
          <dt>Asked for, not there</dt>
          <dd>{plural(demand.pending, "bucket")}</dd>
          <Meter share={demand.pending / larger} tone="warn" />
        </div>
        {demandByCause(demand).map(({ cause, buckets: count, why }) => (
          <div key={cause} class="cause">
            <dt>
              {cause}: {why.join("; ")}
            </dt>
            <dd>{count}</dd>
          </div>
        ))}
        <div>
          <dt>Ready to hand out</dt>
          <dd>{plural(buckets.ready, "bucket")}</dd>
          <Meter share={buckets.ready / larger} tone="good" />
        </div>
      </dl>
      <p class="muted">{plural(items.waiting, "item")} not in a bucket yet.</p>
    </Card>
  );
}
