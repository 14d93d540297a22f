// Throughput over five minutes, a day or a month; the address says which of them is shown.
import { useMemo } from "preact/hooks";
import { Chart, type ChartLine } from "./chart";
import { Card, Tabs } from "./components";
import { useApp } from "./context";
import { dayAndTime, timeOfDay } from "./format";
import { useHistory } from "./history";
import { useObservable } from "./observable";
import type { Overview, Step } from "./wire";

interface PastSpan {
  step: Step;
  stepSeconds: number;
  spanSeconds: number;
}

const LAST_DAY: PastSpan = { step: "minute", stepSeconds: 60, spanSeconds: 86_400 };
const PAST_SPANS: Record<string, PastSpan> = {
  day: LAST_DAY,
  month: { step: "hour", stepSeconds: 3_600, spanSeconds: 30 * 86_400 },
};

export const PAST_SPAN_OPTIONS = [
  ["day", "24 hours"],
  ["month", "30 days"],
] as const;
const SPAN_OPTIONS = [["now", "5 minutes"], ...PAST_SPAN_OPTIONS] as const;

/** Seconds over which the thick line is averaged. */
const AVERAGED_SECONDS = 10;

export function ThroughputCard({ overview }: { overview: { data: Overview; at: string } | null }) {
  const { query } = useObservable(useApp().router.route);
  const span = PAST_SPANS[query.span ?? ""] === undefined ? "now" : (query.span ?? "");
  return (
    <Card title="Throughput" aside={<Tabs name="span" label="Time shown" options={SPAN_OPTIONS} />}>
      {span === "now" ? (
        <RecentThroughput overview={overview} />
      ) : (
        <PastThroughput key={span} span={span} service={null} />
      )}
    </Card>
  );
}

function RecentThroughput({ overview }: { overview: { data: Overview; at: string } | null }) {
  const [times, lines] = useMemo((): [number[], ChartLine[]] => {
    const recent = overview?.data.recent ?? [];
    const end = overview === null ? 0 : Math.floor(Date.parse(overview.at) / 1000) - 1; // the last complete second
    return [
      recent.map((_, index) => end - recent.length + 1 + index),
      [
        { name: "each second", colour: "--chart-second", values: recent, filled: true },
        { name: `average of ${AVERAGED_SECONDS} s`, colour: "--chart", values: movingAverage(recent) },
      ],
    ];
  }, [overview]);

  return (
    <Chart
      label="Items settled a second, last five minutes"
      unit="items/s"
      times={times}
      lines={lines}
      formatTime={(seconds) => timeOfDay(seconds * 1000)}
    />
  );
}

function movingAverage(values: readonly number[]): number[] {
  let sum = 0;
  return values.map((value, index) => {
    sum += value - (values[index - AVERAGED_SECONDS] ?? 0);
    return sum / Math.min(index + 1, AVERAGED_SECONDS);
  });
}

/** The throughput of one service or, with null, of all together, as the server has recorded it. */
export function PastThroughput({ span, service }: { span: string; service: string | null }) {
  const { connection } = useApp();
  const { step, stepSeconds, spanSeconds } = PAST_SPANS[span] ?? LAST_DAY;
  const now = (Date.now() + connection.clockOffset) / 1000;
  // It begins at a full hour, so that the query stays the same for a while.
  const since = Math.floor((now - spanSeconds) / 3_600) * 3_600;
  const end = Math.floor(now / stepSeconds) * stepSeconds;
  const { settled, completeFrom, error } = useHistory(step, since, service);

  const [times, lines] = useMemo((): [number[], ChartLine[]] => {
    const first = Math.ceil(completeFrom / stepSeconds) * stepSeconds;
    const steps = settled === null ? 0 : Math.max(0, (end - first) / stepSeconds);
    const begins = Array.from({ length: steps }, (_, index) => first + index * stepSeconds);
    const values = begins.map((begin) => (settled?.get(begin) ?? 0) / stepSeconds);
    return [begins, [{ name: `average of each ${step}`, colour: "--chart", values, filled: true }]];
  }, [settled, completeFrom, end, stepSeconds, step]);

  return (
    <>
      {error !== null && <p class="refusal">{error}</p>}
      <Chart
        label={`Items settled a second, by the ${step}`}
        unit="items/s"
        times={times}
        lines={lines}
        formatTime={(seconds) => dayAndTime(seconds * 1000)}
      />
    </>
  );
}
