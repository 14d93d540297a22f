// Throughput over five minutes, a day or a month; which of them stands in the address.
import { useMemo } from "preact/hooks";
import { useCell } from "./cell";
import { Chart, type Line } from "./chart";
import { useApp } from "./context";
import { useHistory } from "./history";
import { Card, Tabs } from "./parts";
import type { Overview, Step } from "./wire";
import { dayAndTime, timeOfDay } from "./words";


interface Long {
  step: Step;
  seconds: number;
  length: number;
}

const DAY: Long = { step: "minute", seconds: 60, length: 86_400 };
const LONG: Record<string, Long> = {
  day: DAY,
  month: { step: "hour", seconds: 3_600, length: 30 * 86_400 },
};

export const PAST_SPANS = [
  ["day", "24 hours"],
  ["month", "30 days"],
] as const;
const SPANS = [["now", "5 minutes"], ...PAST_SPANS] as const;

/** Seconds over which the thick line is averaged. */
const SMOOTH = 10;

export function Throughput({ live }: { live: { data: Overview; at: string } | null }) {
  const { query } = useCell(useApp().router.route);
  const chosen = LONG[query.span ?? ""] === undefined ? "now" : query.span;
  return (
    <Card title="Throughput" aside={<Tabs name="span" label="Time shown" options={SPANS} />}>
      {chosen === "now" ? <Recent live={live} /> : <Past key={chosen} span={chosen ?? ""} service={null} />}
    </Card>
  );
}

function Recent({ live }: { live: { data: Overview; at: string } | null }) {
  const [times, lines] = useMemo((): [number[], Line[]] => {
    const recent = live?.data.recent ?? [];
    const end = live === null ? 0 : Math.floor(Date.parse(live.at) / 1000) - 1; // the last second that is whole
    return [
      recent.map((_, index) => end - recent.length + 1 + index),
      [
        { name: "each second", colour: "--chart-second", values: recent, filled: true },
        { name: `average of ${SMOOTH} s`, colour: "--chart", values: smooth(recent) },
      ],
    ];
  }, [live]);
  return <Chart label="Items settled a second, last five minutes" unit="items/s" times={times} lines={lines} when={clock} />;
}

function clock(seconds: number): string {
  return timeOfDay(seconds * 1000);
}

function calendar(seconds: number): string {
  return dayAndTime(seconds * 1000);
}

function smooth(values: readonly number[]): number[] {
  let sum = 0;
  return values.map((value, index) => {
    sum += value - (values[index - SMOOTH] ?? 0);
    return sum / Math.min(index + 1, SMOOTH);
  });
}

/** What was kept of one service, or of all. */
export function Past({ span, service }: { span: string; service: string | null }) {
  const { live } = useApp();
  const { step, seconds, length } = LONG[span] ?? DAY;
  const now = (Date.now() + live.ahead) / 1000;
  // From a full hour on, so that the question stays the same for a while.
  const since = Math.floor((now - length) / 3_600) * 3_600;
  const end = Math.floor(now / seconds) * seconds;
  const { settled, from, error } = useHistory(step, since, service);
  const [times, lines] = useMemo((): [number[], Line[]] => {
    const first = Math.ceil(from / seconds) * seconds;
    const steps = settled === null ? 0 : Math.max(0, (end - first) / seconds);
    const grid = Array.from({ length: steps }, (_, at) => first + at * seconds);
    const values = grid.map((at) => (settled?.get(at) ?? 0) / seconds);
    return [grid, [{ name: `average of each ${step}`, colour: "--chart", values, filled: true }]];
  }, [settled, from, end, seconds, step]);
  return (
    <>
      {error !== null && <p class="refusal">{error}</p>}
      <Chart label={`Items settled a second, by the ${step}`} unit="items/s" times={times} lines={lines} when={calendar} />
    </>
  );
}
