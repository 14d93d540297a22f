// Lines over time, drawn by uPlot; the same figures in words and as a table for those who do not see them.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { useCell } from "./cell";
import { useApp } from "./context";
import { rate, tick } from "./words";

const HEIGHT = 240;
const ROWS = 12;

export interface Line {
  name: string;
  /** A custom property of the style sheet. */
  colour: string;
  values: (number | null)[];
  filled?: boolean;
}

interface ChartProps {
  label: string;
  /** What a value is: "items/s". */
  unit: string;
  /** Seconds since 1970. */
  times: number[];
  lines: Line[];
  when(seconds: number): string;
}

export function Chart({ label, unit, times, lines, when }: ChartProps) {
  const { preferences } = useApp();
  const theme = useCell(preferences.theme);
  const dark = useDarkness();
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [at, setAt] = useState<number | null>(null);
  const shape = lines.map((line) => line.name).join();

  useEffect(() => {
    const box = host.current;
    if (box === null) return;
    const made = new uPlot(options(box, lines, unit, setAt), [[], ...lines.map(() => [])], box);
    plot.current = made;
    const sizes = new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: HEIGHT }));
    sizes.observe(box);
    return () => {
      sizes.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, unit, theme, dark]);

  useEffect(() => {
    plot.current?.setData([times, ...lines.map((line) => line.values)]);
  }, [times, lines, shape, unit, theme, dark]);

  const main = lines[lines.length - 1];
  const index = at !== null && at < times.length ? at : times.length - 1;
  const value = main?.values[index] ?? null;
  const moment = times[index];
  return (
    <figure class="chart">
      <div ref={host} class="chart-host" role="img" aria-label={`${label}. ${summary(main, unit)}`} />
      <figcaption>
        <span class="chart-at">
          {moment === undefined || value === null ? "No figures yet" : `${when(moment)} · ${rate(value)} ${unit}`}
        </span>
        <ul class="legend">
          {lines.map((line) => (
            <li key={line.name}>
              <span class={`swatch line${line.colour}`} aria-hidden="true" />
              {line.name}
            </li>
          ))}
        </ul>
      </figcaption>
      {main !== undefined && <Figures label={label} times={times} line={main} unit={unit} when={when} />}
    </figure>
  );
}

function summary(line: Line | undefined, unit: string): string {
  const values = (line?.values ?? []).filter((value) => value !== null);
  const last = values[values.length - 1];
  if (last === undefined) return "No figures yet.";
  const most = values.reduce((one, other) => Math.max(one, other));
  const least = values.reduce((one, other) => Math.min(one, other));
  return `Now ${rate(last)} ${unit}, at least ${rate(least)}, at most ${rate(most)}.`;
}

/** The chart's figures, a dozen of them. */
function Figures({ label, times, line, unit, when }: Omit<ChartProps, "lines"> & { line: Line }) {
  const [open, setOpen] = useState(false);
  const step = Math.max(1, Math.ceil(times.length / ROWS));
  const rows: [number, number | null][] = [];
  for (let index = times.length - 1; open && index >= 0; index -= step) {
    rows.push([times[index] ?? 0, line.values[index] ?? null]);
  }
  return (
    <details class="figures" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Figures as a table</summary>
      {open && (
        <table>
          <caption class="unseen">{label}</caption>
          <thead>
            <tr>
              <th scope="col">Time</th>
              <th scope="col" class="figure-cell">
                {unit}
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map(([time, value]) => (
              <tr key={time}>
                <th scope="row">{when(time)}</th>
                <td class="figure-cell">{value === null ? "–" : rate(value)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </details>
  );
}

/** True while the reader's system is dark; the canvas has to be told, unlike the rest. */
function useDarkness(): boolean {
  const [query] = useState(() => matchMedia("(prefers-color-scheme: dark)"));
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const tell = (): void => setDark(query.matches);
    query.addEventListener("change", tell);
    return () => query.removeEventListener("change", tell);
  }, [query]);
  return dark;
}

/** A custom property as the colour that it is in this theme. */
function colour(box: HTMLElement, name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  box.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function options(box: HTMLElement, lines: Line[], unit: string, tell: (at: number | null) => void): uPlot.Options {
  const quiet = colour(box, "--muted");
  const grid = { stroke: colour(box, "--hairline"), width: 1 };
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: quiet, grid, ticks: { show: false }, font };
  const width = Math.max(box.clientWidth, 100);
  return {
    width,
    height: HEIGHT,
    padding: [12, 28, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, Math.max(1, (high ?? 1) * 1.1)] } },
    axes: [
      { ...axis, size: 28, space: 90, values: (_plot, marks, _axis, _space, step) => marks.map((mark) => tick(mark, step)) },
      { ...axis, size: 52, values: (_plot, marks) => marks.map((mark) => rate(mark).replace(/[.,]0$/, "")) },
    ],
    series: [
      {},
      ...lines.map((line): uPlot.Series => {
        const stroke = colour(box, line.colour);
        return {
          label: `${line.name} (${unit})`,
          stroke,
          width: line.filled ? 1 : 2,
          points: { show: false },
          spanGaps: false,
          ...(line.filled ? { fill: colour(box, `${line.colour}-soft`) } : {}),
        };
      }),
    ],
    hooks: { setCursor: [(made) => tell(made.cursor.idx ?? null)] },
  };
}
