// Lines over time, drawn by uPlot; the same figures in words and as a table for readers who do not see them.
import type { RefObject } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { Name } from "./components";
import { useApp } from "./context";
import { axisTime, plural, rate } from "./format";
import { useObservable } from "./observable";

const CHART_HEIGHT = 240;
/** Rows of the table under a chart, at most. */
const MAX_TABLE_ROWS = 12;

/** Something that happened at a time, marked by a line across the chart. */
export interface ChartMark {
  /** Seconds since 1970. */
  at: number;
  text: string;
  /** A custom property of the style sheet. */
  colour: string;
}

export interface ChartLine {
  name: string;
  /** A custom property of the style sheet. */
  colour: string;
  values: (number | null)[];
  filled?: boolean;
  /** It hides what is drawn behind it. */
  solid?: boolean;
}

interface ChartProps {
  label: string;
  /** The unit of the values: "items/s". */
  unit: string;
  /** Seconds since 1970. */
  times: number[];
  lines: ChartLine[];
  /** The lines are parts of a whole, and stand on each other, the first one at the bottom. */
  stacked?: boolean;
  marks?: readonly ChartMark[];
  formatTime(seconds: number): string;
}

const NO_MARKS: readonly ChartMark[] = [];

export function Chart({ label, unit, times, lines, stacked = false, marks = NO_MARKS, formatTime }: ChartProps) {
  const [cursorIndex, setCursorIndex] = useState<number | null>(null);
  const drawnLines = useMemo(() => (stacked ? stackedLines(lines) : lines), [lines, stacked]);
  const container = usePlot(times, drawnLines, unit, marks, setCursorIndex);

  const mainLine = stacked ? drawnLines[0] : lines[lines.length - 1];
  const index = cursorIndex !== null && cursorIndex < times.length ? cursorIndex : times.length - 1;
  const value = mainLine?.values[index] ?? null;
  const time = times[index];
  const markText = cursorIndex === null ? null : nearestMark(marks, times, index);

  return (
    <figure class="chart">
      <div ref={container} class="chart-container" role="img" aria-label={`${label}. ${lineSummary(mainLine, unit)}`} />
      <figcaption>
        <span class="chart-at">
          {time === undefined || value === null ? "No figures yet" : `${formatTime(time)} · ${rate(value)} ${unit}`}
          {markText !== null && <span class="chart-mark"> · {markText}</span>}
        </span>
        <ul class="legend">
          {lines.map((line) => (
            <li key={line.name}>
              <span class={`swatch line${line.colour}`} aria-hidden="true" />
              <Name text={line.name} />
              {stacked && <b>{rate(line.values[index] ?? 0)}</b>}
            </li>
          ))}
          {marks.length > 0 && (
            <li>
              <span class="swatch mark" aria-hidden="true" />
              {plural(marks.length, "event")}
            </li>
          )}
        </ul>
      </figcaption>
      {mainLine !== undefined && (
        <ChartTable label={label} times={times} line={mainLine} unit={unit} formatTime={formatTime} />
      )}
    </figure>
  );
}

/** The lines as they are drawn where they stand on each other: each with those below it added, the highest first. */
function stackedLines(lines: readonly ChartLine[]): ChartLine[] {
  const sums: number[] = [];
  const summed = lines.map((line) => ({
    ...line,
    filled: true,
    solid: true,
    values: line.values.map((value, index) => (sums[index] = (sums[index] ?? 0) + (value ?? 0))),
  }));
  return summed.reverse();
}

/** The text of the mark that is nearest to a time of the chart; null where none is within two steps. */
function nearestMark(marks: readonly ChartMark[], times: readonly number[], index: number): string | null {
  const time = times[index];
  if (time === undefined) return null;
  const reach = 2 * ((times[1] ?? 0) - (times[0] ?? 0));
  const near = marks.filter(({ at }) => Math.abs(at - time) <= reach);
  near.sort((left, right) => Math.abs(left.at - time) - Math.abs(right.at - time));
  return near[0]?.text ?? null;
}

/** Draw the lines into the element that the returned ref is given to. */
function usePlot(
  times: number[],
  lines: ChartLine[],
  unit: string,
  marks: readonly ChartMark[],
  onCursor: (index: number | null) => void,
): RefObject<HTMLDivElement | null> {
  const theme = useObservable(useApp().preferences.theme);
  const prefersDark = usePrefersDark();
  const containerRef = useRef<HTMLDivElement>(null);
  const plotRef = useRef<uPlot | null>(null);
  const marksRef = useRef(marks);
  marksRef.current = marks;
  const lineNames = lines.map((line) => line.name).join();

  useEffect(() => {
    const container = containerRef.current;
    if (container === null) return;

    const plot = new uPlot(plotOptions(container, lines, unit, marksRef, onCursor), [[], ...lines.map(() => [])], container);
    plotRef.current = plot;
    const resizing = new ResizeObserver(() => plot.setSize({ width: container.clientWidth, height: CHART_HEIGHT }));
    resizing.observe(container);

    return () => {
      resizing.disconnect();
      plot.destroy();
      plotRef.current = null;
    };
  }, [lineNames, unit, theme, prefersDark]);

  useEffect(() => {
    plotRef.current?.setData([times, ...lines.map((line) => line.values)]);
  }, [times, lines, marks, lineNames, unit, theme, prefersDark]);

  return containerRef;
}

/** The newest, least and greatest value of a line, for screen readers. */
function lineSummary(line: ChartLine | undefined, unit: string): string {
  const values = (line?.values ?? []).filter((value) => value !== null);
  const newest = values[values.length - 1];
  if (newest === undefined) return "No figures yet.";

  const greatest = values.reduce((greater, value) => Math.max(greater, value));
  const least = values.reduce((less, value) => Math.min(less, value));
  return `Now ${rate(newest)} ${unit}, at least ${rate(least)}, at most ${rate(greatest)}.`;
}

/** A table of at most `MAX_TABLE_ROWS` values of a line, evenly spaced in time, the newest first. */
function ChartTable({ label, times, line, unit, formatTime }: Omit<ChartProps, "lines"> & { line: ChartLine }) {
  const [open, setOpen] = useState(false);
  const step = Math.max(1, Math.ceil(times.length / MAX_TABLE_ROWS));
  const rows: [number, number | null][] = [];
  for (let index = times.length - 1; open && index >= 0; index -= step) {
    rows.push([times[index] ?? 0, line.values[index] ?? null]);
  }

  return (
    <details class="figures" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Figures as a table</summary>
      {open && (
        <table>
          <caption class="visually-hidden">{label}</caption>
          <thead>
            <tr>
              <th scope="col">Time</th>
              <th scope="col" class="numeric-cell">
                {unit}
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map(([time, value]) => (
              <tr key={time}>
                <th scope="row">{formatTime(time)}</th>
                <td class="numeric-cell">{value === null ? "–" : rate(value)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </details>
  );
}

/** Tell whether the system's theme is dark.  Style sheets know it by themselves; the canvas has to be redrawn. */
function usePrefersDark(): boolean {
  const [query] = useState(() => matchMedia("(prefers-color-scheme: dark)"));
  const [dark, setDark] = useState(query.matches);

  useEffect(() => {
    const update = (): void => setDark(query.matches);
    query.addEventListener("change", update);
    return () => query.removeEventListener("change", update);
  }, [query]);

  return dark;
}

/** Return the colour that a custom property has in the present theme. */
function resolveColour(container: HTMLElement, property: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${property})`;
  container.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function plotOptions(
  container: HTMLElement,
  lines: ChartLine[],
  unit: string,
  marks: { readonly current: readonly ChartMark[] },
  onCursor: (index: number | null) => void,
): uPlot.Options {
  const axis = {
    stroke: resolveColour(container, "--muted"),
    grid: { stroke: resolveColour(container, "--hairline"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
  };
  const timeLabels: uPlot.Axis.DynamicValues = (_plot, times, _axis, _space, step) =>
    times.map((time) => axisTime(time, step));
  const valueLabels: uPlot.Axis.DynamicValues = (_plot, values) =>
    values.map((value) => rate(value).replace(/[.,]0$/, ""));

  return {
    width: Math.max(container.clientWidth, 100),
    height: CHART_HEIGHT,
    padding: [12, 28, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, Math.max(1, (high ?? 1) * 1.1)] } },
    axes: [
      { ...axis, size: 28, space: 90, values: timeLabels },
      { ...axis, size: 52, values: valueLabels },
    ],
    series: [{}, ...lines.map((line) => plotSeries(container, line, unit))],
    hooks: {
      setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)],
      draw: [(plot) => marks.current.forEach((mark) => drawMark(plot, mark, resolveColour(container, mark.colour)))],
    },
  };
}

/** Draw a dashed line across the plot, with a small triangle at its top. */
function drawMark(plot: uPlot, { at }: ChartMark, colour: string): void {
  const { min, max } = plot.scales.x ?? {};
  if (min == null || max == null || at < min || at > max) return;

  const { ctx, bbox } = plot;
  const x = Math.round(plot.valToPos(at, "x", true));
  const size = 5 * devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.beginPath();
  ctx.moveTo(x - size, bbox.top);
  ctx.lineTo(x + size, bbox.top);
  ctx.lineTo(x, bbox.top + size);
  ctx.fill();
  ctx.restore();
}

function plotSeries(container: HTMLElement, line: ChartLine, unit: string): uPlot.Series {
  return {
    label: `${line.name} (${unit})`,
    stroke: resolveColour(container, line.colour),
    width: line.filled ? 1 : 2,
    points: { show: false },
    spanGaps: false,
    ...(line.filled ? { fill: resolveColour(container, line.solid ? line.colour : `${line.colour}-soft`) } : {}),
  };
}
