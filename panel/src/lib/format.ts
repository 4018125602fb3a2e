/** Numbers and times as people read them. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

const NOTHING = "–";

/** 0.5, 950, 12,300, 1.2 M, 3.4 G. */
export function count(value: number | null | undefined): string {
  if (value === null || value === undefined) return NOTHING;
  if (Math.abs(value) < 1e5) return (Math.abs(value) < 100 ? exact : whole).format(value);
  for (const [unit, size] of [
    ["G", 1e9],
    ["M", 1e6],
  ] as const) {
    if (Math.abs(value) >= size) return `${rounded(value / size, 1)} ${unit}`;
  }
  return `${Math.round(value / 1e3)} k`;
}

/** Microseconds up to minutes. */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return NOTHING;
  if (ms === 0) return "0";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${rounded(ms, 1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${rounded(ms / 1000, ms < 10_000 ? 2 : 1)} s`;
  return span(ms / 1000);
}

/** 45 s, 4 min 10 s, 3 h 5 min, 2 d 4 h: two units at most. */
export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  const parts = [
    [Math.floor(s / 86_400), "d"],
    [Math.floor((s % 86_400) / 3600), "h"],
    [Math.floor((s % 3600) / 60), "min"],
    [s % 60, "s"],
  ] as const;
  const first = parts.findIndex(([n]) => n > 0);
  if (first === -1) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(" ");
}

/** Without zeros at the end. */
function rounded(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)));
}

export function time(unix: number): string {
  return clock.format(unix * 1000);
}

export function dateTime(unix: number): string {
  return full.format(unix * 1000);
}

export function percent(part: number, of: number): string {
  return of === 0 ? "0 %" : `${((100 * part) / of).toFixed(part === 0 || part === of ? 0 : 1)} %`;
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** The plugin list comes HTML-escaped, once; we show text as text and want it as it was. */
export function unescaped(text: string): string {
  return text.replace(/&(lt|gt|amp|#34|#39);/g, (_, name: string) => ENTITIES[name] ?? "");
}

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", amp: "&", "#34": '"', "#39": "'" };
