// Throughput over five minutes, an hour, a day or a month; the address says which of them is shown.
import { useMemo } from "preact/hooks";
import { Chart, type ChartLine, type ChartMark } from "./chart";
import { Card, Tabs } from "./components";
import { useApp } from "./context";
import { dayAndTime, timeOfDay } from "./format";
import { useHistory } from "./history";
import { useObservable } from "./observable";
import type { EventRow, Overview, Step } from "./wire";

interface PastSpan {
  step: Step;
  stepSeconds: number;
  spanSeconds: number;
}

const LAST_DAY: PastSpan = { step: "minute", stepSeconds: 60, spanSeconds: 86_400 };
const PAST_SPANS: Record<string, PastSpan> = {
  minutes: { step: "second", stepSeconds: 1, spanSeconds: 300 },
  hour: { step: "minute", stepSeconds: 60, spanSeconds: 3_600 },
  day: LAST_DAY,
  month: { step: "hour", stepSeconds: 3_600, spanSeconds: 30 * 86_400 },
};

const PAST_SPAN_OPTIONS = [
  ["hour", "1 hour"],
  ["day", "24 hours"],
  ["month", "30 days"],
] as const;
const SPAN_OPTIONS = [["now", "5 minutes"], ...PAST_SPAN_OPTIONS] as const;
/** The times that may be shown of one service. */
export const SERVICE_SPAN_OPTIONS = [["minutes", "5 minutes"], ...PAST_SPAN_OPTIONS] as const;

/** Seconds over which the lines of the last minutes are averaged. */
const AVERAGED_SECONDS = 10;

/** Services that are told apart in one chart; the others are one line. */
const SERVICES_APART = 8;

interface ThroughputProps {
  overview: { data: Overview; at: string } | null;
  /** Events to mark, the newest first. */
  events: readonly EventRow[];
}

export function ThroughputCard({ overview, events }: ThroughputProps) {
  const { query } = useObservable(useApp().router.route);
  const span = PAST_SPANS[query.span ?? ""] === undefined ? "now" : (query.span ?? "");
  const marks = useMemo(() => events.map(markOf), [events]);
  return (
    <Card title="Throughput" aside={<Tabs name="span" label="Time shown" options={SPAN_OPTIONS} />}>
      {span === "now" ? (
        <RecentThroughput overview={overview} marks={marks} />
      ) : (
        <PastThroughput key={span} span={span} service={null} marks={marks} />
      )}
    </Card>
  );
}

function markOf({ at, kind, text, severity }: EventRow): ChartMark {
  return { at: Date.parse(at) / 1000, text: `${kind}: ${text}`, colour: severity === "error" ? "--bad" : "--warn" };
}

/** The marks within the times that a chart shows. */
function shownMarks(marks: readonly ChartMark[], times: readonly number[]): ChartMark[] {
  const [first = Infinity, last = 0] = [times[0], times[times.length - 1]];
  return marks.filter(({ at }) => at >= first && at <= last + (last - first) / times.length);
}

interface RecentThroughputProps {
  overview: { data: Overview; at: string } | null;
  marks: readonly ChartMark[];
}

function RecentThroughput({ overview, marks }: RecentThroughputProps) {
  const [times, lines] = useMemo((): [number[], ChartLine[]] => {
    const recent = overview?.data.recent ?? [];
    const end = overview === null ? 0 : Math.floor(Date.parse(overview.at) / 1000) - 1; // the last complete second
    return [
      recent.map((_, index) => end - recent.length + 1 + index),
      serviceLines(recent, new Map(Object.entries(overview?.data.recent_by_service ?? {}))).map((line) => ({
        ...line,
        values: movingAverage(line.values),
      })),
    ];
  }, [overview]);

  return (
    <Chart
      label={`Items settled a second, average of ${AVERAGED_SECONDS} s, last five minutes`}
      unit="items/s"
      times={times}
      lines={lines}
      stacked
      marks={useMemo(() => shownMarks(marks, times), [marks, times])}
      formatTime={(seconds) => timeOfDay(seconds * 1000)}
    />
  );
}

interface ServiceLine {
  name: string;
  colour: string;
  values: number[];
}

/** A line for each of the services with most, by name so that their colours stay, and one for all others together. */
function serviceLines(total: readonly number[], byService: ReadonlyMap<string, readonly number[]>): ServiceLine[] {
  const most = [...byService]
    .map(([name, values]) => ({ name, values: [...values], sum: sumOf(values) }))
    .sort((left, right) => right.sum - left.sum)
    .slice(0, SERVICES_APART)
    .sort((left, right) => (left.name < right.name ? -1 : 1));
  const lines = most.map(({ name, values }, index) => ({ name, values, colour: `--series-${index + 1}` }));

  const others = total.map((value, index) => most.reduce((rest, { values }) => rest - (values[index] ?? 0), value));
  if (lines.length === 0 || others.some((value) => value > 0)) {
    lines.push({ name: lines.length === 0 ? "all services" : "others", values: others, colour: "--series-others" });
  }
  return lines;
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function movingAverage(values: readonly number[]): number[] {
  let sum = 0;
  return values.map((value, index) => {
    sum += value - (values[index - AVERAGED_SECONDS] ?? 0);
    return sum / Math.min(index + 1, AVERAGED_SECONDS);
  });
}

interface PastThroughputProps {
  span: string;
  service: string | null;
  marks?: readonly ChartMark[];
}

const NO_MARKS: readonly ChartMark[] = [];

/** The throughput of one service or, with null, of all of them on each other, as the server has recorded it. */
export function PastThroughput({ span, service, marks = NO_MARKS }: PastThroughputProps) {
  const { connection } = useApp();
  const { step, stepSeconds, spanSeconds } = PAST_SPANS[span] ?? LAST_DAY;
  const now = (Date.now() + connection.clockOffset) / 1000;
  // It begins at a full minute or hour, so that the query stays the same for a while.
  const grid = spanSeconds > 3_600 ? 3_600 : 60;
  const since = Math.floor((now - spanSeconds) / grid) * grid;
  // The last second may still grow: nodes write what they counted once a second.
  const end = Math.floor((step === "second" ? now - 2 : now) / stepSeconds) * stepSeconds;
  const { settled, completeFrom, error } = useHistory(step, since, service);

  const [times, lines] = useMemo((): [number[], ChartLine[]] => {
    const first = Math.ceil(completeFrom / stepSeconds) * stepSeconds;
    const steps = settled === null ? 0 : Math.max(0, (end - first) / stepSeconds);
    const begins = Array.from({ length: steps }, (_, index) => first + index * stepSeconds);
    const ofService = (counts: ReadonlyMap<number, number>): number[] => {
      const values = begins.map((begin) => (counts.get(begin) ?? 0) / stepSeconds);
      return step === "second" ? movingAverage(values) : values;
    };

    const byService = new Map([...(settled ?? [])].map(([name, counts]) => [name, ofService(counts)]));
    const total = begins.map((_, index) => sumOf([...byService.values()].map((values) => values[index] ?? 0)));
    return [begins, serviceLines(total, byService)];
  }, [settled, completeFrom, end, step, stepSeconds]);

  return (
    <>
      {error !== null && <p class="refusal">{error}</p>}
      <Chart
        label={`Items settled a second, ${step === "second" ? `average of ${AVERAGED_SECONDS} s` : `by the ${step}`}`}
        unit="items/s"
        times={times}
        lines={lines}
        stacked
        marks={useMemo(() => shownMarks(marks, times), [marks, times])}
        formatTime={(seconds) => (step === "second" ? timeOfDay : dayAndTime)(seconds * 1000)}
      />
    </>
  );
}
