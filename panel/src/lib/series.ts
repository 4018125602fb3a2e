/** The points of the overview, which leave out idle times, as evenly spaced series for charts. */
import type { OverviewPoint } from "../api/types";

const MOST_POINTS = 240;

export interface Series {
  times: number[];
  /** Per minute. */
  requests: number[];
  errors: number[];
  inputTokens: number[];
  outputTokens: number[];
  /** Milliseconds; null where nothing was measured. */
  p50: (number | null)[];
  p95: (number | null)[];
  firstByte: (number | null)[];
}

/** *minutes* up to *now* (Unix seconds), in steps of *stepS* seconds or a multiple of it. */
export function evenly(points: OverviewPoint[], stepS: number, minutes: number, now: number): Series {
  const step = stepS * Math.max(1, Math.ceil((minutes * 60) / stepS / MOST_POINTS));
  const size = Math.ceil((minutes * 60) / step) - 1;
  // Without the step that has only begun: its numbers would look like a fall.
  const start = (Math.floor(now / step) - size) * step;
  const groups: OverviewPoint[][] = Array.from({ length: size }, () => []);
  for (const point of points) groups[Math.floor((point.time - start) / step)]?.push(point);
  const rate = (name: "requests" | "errors" | "input-tokens" | "output-tokens") =>
    groups.map((group) => (sum(group.map((point) => point[name])) * 60) / step);
  const weighted = (name: "latency-p50-ms" | "first-byte-p50-ms") =>
    groups.map((group) => {
      const known = group.filter((point) => point[name] !== null);
      const weight = sum(known.map((point) => point.requests || 1));
      return weight === 0 ? null : sum(known.map((point) => (point[name] ?? 0) * (point.requests || 1))) / weight;
    });
  return {
    times: groups.map((_, i) => start + i * step),
    requests: rate("requests"),
    errors: rate("errors"),
    inputTokens: rate("input-tokens"),
    outputTokens: rate("output-tokens"),
    p50: weighted("latency-p50-ms"),
    p95: groups.map((group) => {
      const known = group.map((point) => point["latency-p95-ms"]).filter((value) => value !== null);
      return known.length === 0 ? null : Math.max(...known);
    }),
    firstByte: weighted("first-byte-p50-ms"),
  };
}

/** The last value that there is. */
export function latest(values: (number | null)[]): number | null {
  return values.findLast((value) => value !== null) ?? null;
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
