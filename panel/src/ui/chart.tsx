/** Lines over time by uPlot, in the colours of the page. */
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";

export interface Line {
  label: string;
  /** Name of a colour of the style sheet: `--series-1` and so on. */
  color: string;
  values: (number | null)[];
  filled?: boolean;
}

interface ChartProps {
  title: string;
  /** One sentence of what it shows now, for whom the picture is none. */
  summary: string;
  /** Unix seconds. */
  times: number[];
  lines: Line[];
  format: (value: number) => string;
}

const HEIGHT = 170;
const dark = window.matchMedia("(prefers-color-scheme: dark)");

export function Chart({ title, summary, times, lines, format }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [scheme, setScheme] = useState(dark.matches);
  const data: uPlot.AlignedData = [times, ...lines.map((line) => line.values)];

  useEffect(() => {
    const look = () => setScheme(dark.matches);
    dark.addEventListener("change", look);
    return () => dark.removeEventListener("change", look);
  }, []);

  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const made = new uPlot(options(element, lines, format), data, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [scheme]);

  useEffect(() => plot.current?.setData(data), [times]);

  return (
    <figure class="chart card">
      <figcaption>
        <h2>{title}</h2>
        <p>{summary}</p>
      </figcaption>
      <div ref={box} aria-hidden="true" />
    </figure>
  );
}

function options(element: HTMLElement, lines: Line[], format: (value: number) => string): uPlot.Options {
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const axis: uPlot.Axis = {
    stroke: color("--muted"),
    font: `11px ${style.fontFamily}`,
    grid: { stroke: color("--line"), width: 1 },
    ticks: { show: false },
  };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    padding: [8, 8, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    legend: { live: true },
    scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [
      { ...axis, size: 24, space: 60, values: (_, ticks) => ticks.map(hourAndMinute) },
      { ...axis, size: 56, space: 34, values: (_, ticks) => ticks.map(format) },
    ],
    series: [
      { label: "Time", value: (_, time) => (time === null ? "" : hourAndMinute(time)) },
      ...lines.map((line) => ({
        label: line.label,
        stroke: color(line.color),
        width: 1.5,
        points: { show: false },
        ...(line.filled ? { fill: `${color(line.color)}22` } : {}),
        value: (_: uPlot, value: number | null) => (value === null ? "" : format(value)),
      })),
    ],
  };
}

function hourAndMinute(unix: number): string {
  const date = new Date(unix * 1000);
  return `${String(date.getHours()).padStart(2, "0")}:${String(date.getMinutes()).padStart(2, "0")}`;
}
