/** What is logic: no browser needed. Everything else is tested in one, by tests/panel/. */
import { describe, expect, test } from "vitest";

import type { ConfigField, OverviewPoint } from "../api/types";
import { EventParser } from "../api/events";
import { fromText, toText } from "./config-fields";
import { type DiffLine, diffLines, hunks } from "./diff";
import { count, duration, span, unescaped } from "./format";
import { evenly, latest } from "./series";

const field = (type: string, enum_values: string[] = []) =>
  ({ name: "x", type, enum_values, description: "" }) as ConfigField;

describe("events", () => {
  const stream =
    ': ping\r\nevent: request\r\ndata: {"a":\r\ndata: 1}\r\n\r\ndata: second\n\nevent: none\n\n\rdata:third\r\r';
  const all = [
    { event: "request", data: '{"a":\n1}' },
    { event: "message", data: "second" },
    { event: "message", data: "third" },
  ];

  test("come out the same however the text is cut", () => {
    for (let size = 1; size <= stream.length; size++) {
      const parser = new EventParser();
      const found = [];
      for (let at = 0; at < stream.length; at += size) found.push(...parser.feed(stream.slice(at, at + size)));
      found.push(...parser.feed("\n"));
      expect(found, `pieces of ${size}`).toEqual(all);
    }
  });
});

describe("differences", () => {
  const rebuilt = (lines: DiffLine[], without: DiffLine["kind"]) =>
    lines
      .filter((line) => line.kind !== without)
      .map((line) => line.text)
      .join("\n");

  test.each([
    ["a\nb\nc", "a\nx\nc"],
    ["", "a\nb"],
    ["a\nb", ""],
    ["a\nb\nc\nd", "b\nd\ne"],
    ["x\nx\nx", "x\nx"],
    ["same", "same"],
  ])("of %j and %j tell both apart", (before, after) => {
    const lines = diffLines(before, after);
    expect(rebuilt(lines, "added")).toBe(before);
    expect(rebuilt(lines, "removed")).toBe(after);
  });

  test("of huge texts are found in time, if roughly", () => {
    const before = Array.from({ length: 5000 }, (_, i) => `a${i}`).join("\n");
    const after = Array.from({ length: 5000 }, (_, i) => `b${i}`).join("\n");
    const lines = diffLines(`top\n${before}`, `top\n${after}`);
    expect(rebuilt(lines, "removed")).toBe(`top\n${after}`);
    expect(lines[0]).toEqual({ kind: "same", text: "top", line: 1 });
  });

  test("are shown with their neighbours and gaps", () => {
    const before = Array.from({ length: 20 }, (_, i) => `${i}`).join("\n");
    const shown = hunks(diffLines(before, before.replace("\n10\n", "\nten\n")), 1);
    expect(shown.map((line) => line && `${line.kind} ${line.text}`)).toEqual([
      null,
      ...["same 9", "removed 10", "added ten", "same 11"],
      null,
    ]);
    expect(hunks(diffLines("a", "a"))).toEqual([]);
  });
});

describe("settings", () => {
  test.each([
    ["integer", " 3 ", 3],
    ["integer", "-0", -0],
    ["number", ".5", 0.5],
    ["number", "1e3", 1000],
    ["boolean", "false", false],
    ["string", "  kept  ", "  kept  "],
    ["string", "", null],
    ["integer", "", null],
    ["array", '["a"]', ["a"]],
    ["object", '{"a": 1}', { a: 1 }],
    ["of the future", "[1]", [1]],
    ["of the future", "text", "text"],
  ])("of type %s read %j", (type, text, value) => {
    expect(fromText(field(type), text)).toEqual({ value, error: null });
  });

  test.each([
    ["integer", "3.5"],
    ["integer", "0x10"],
    ["integer", "9007199254740993"],
    ["number", "1e999"],
    ["number", "NaN"],
    ["boolean", "yes"],
    ["array", "{}"],
    ["object", "[]"],
    ["object", "null"],
    ["array", "[1,"],
  ])("of type %s refuse %j", (type, text) => {
    expect(fromText(field(type), text).error).toMatch(/^Expected /);
  });

  test("with choices take these only", () => {
    expect(fromText(field("enum", ["a", "b"]), "b").value).toBe("b");
    expect(fromText(field("enum", ["a", "b"]), "c").error).toContain("one of a, b");
  });

  test("are shown as they are read", () => {
    for (const [type, value] of [
      ["integer", 3],
      ["string", "a"],
      ["boolean", true],
      ["object", { a: [1] }],
    ] as const) {
      expect(fromText(field(type), toText(type, value as never)).value).toEqual(value);
    }
    expect(toText("string", undefined)).toBe("");
  });
});

test("numbers are short", () => {
  expect([0, 0.25, 99.96, 1234, 123_456, 1_250_000, 3e9].map(count)).toEqual([
    "0",
    "0.3",
    "100",
    "1,234",
    "123 k",
    "1.3 M",
    "3 G",
  ]);
  expect([0, 0.25, 5.25, 420, 2500, 12_340, 90_000].map(duration)).toEqual([
    "0",
    "250 µs",
    "5.3 ms",
    "420 ms",
    "2.5 s",
    "12.3 s",
    "1 min 30 s",
  ]);
  expect([0, 59, 3600, 3660, 90_061].map(span)).toEqual(["0 s", "59 s", "1 h", "1 h 1 min", "1 d 1 h"]);
  expect(count(null)).toBe("–");
});

test("texts are unescaped once", () => {
  expect(unescaped("&lt;b&gt; &amp;lt; &#34;&#39; &copy;")).toBe("<b> &lt; \"' &copy;");
});

test("idle times have points, and larger steps add up", () => {
  const point = (time: number, requests: number, p50: number | null): OverviewPoint => ({
    time,
    requests,
    errors: 0,
    "input-tokens": 0,
    "output-tokens": 0,
    "latency-p50-ms": p50,
    "latency-p95-ms": p50,
    "first-byte-p50-ms": null,
  });
  const points = [point(940, 1, 10), point(960, 3, 30), point(990, 99, 1)];
  const series = evenly(points, 10, 1, 995);
  expect(series.times).toEqual([940, 950, 960, 970, 980]);
  expect(series.requests).toEqual([6, 0, 18, 0, 0]);
  expect(series.p50).toEqual([10, null, 30, null, null]);
  expect(latest(series.p50)).toBe(30);
  expect(latest(series.firstByte)).toBeNull();
  const day = evenly([point(360, 1, 10), point(370, 3, 30)], 10, 1440, 86_400);
  expect(day.times.length).toBeLessThanOrEqual(240);
  expect(day.p50[0]).toBe(25);
});
