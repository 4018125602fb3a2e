/** What runs, how fast, and what is wrong. */
import { useMemo, useState } from "preact/hooks";

import type { Credential, Limits, Overview, PluginList } from "../api/types";
import { count, duration, percent, plural, span } from "../lib/format";
import { usePoll } from "../lib/poll";
import { evenly, latest } from "../lib/series";
import { Chart } from "../ui/chart";
import { Empty, Loaded, PageHead } from "../ui/bits";
import { ClientLimits } from "./limits";
import { problemsOf } from "./problems";

const RANGES = [
  { minutes: 15, label: "15 minutes" },
  { minutes: 60, label: "1 hour" },
  { minutes: 360, label: "6 hours" },
];
const POLL_MS = 5_000;
const SLOW_POLL_MS = 15_000;

export function OverviewPage() {
  const [minutes, setMinutes] = useState(15);
  const overview = usePoll<Overview>(`/overview?minutes=${minutes}`, POLL_MS);
  const plugins = usePoll<PluginList>("/plugins", SLOW_POLL_MS);
  const credentials = usePoll<{ credentials: Credential[] }>("/credentials", SLOW_POLL_MS);
  const limits = usePoll<Limits>("/limits", SLOW_POLL_MS);
  return (
    <>
      <PageHead title="Overview">
        <select
          aria-label="Time shown"
          value={minutes}
          onChange={(event) => setMinutes(Number(event.currentTarget.value))}
        >
          {RANGES.map((range) => (
            <option key={range.minutes} value={range.minutes}>
              last {range.label}
            </option>
          ))}
        </select>
      </PageHead>
      <Problems plugins={plugins.data} credentials={credentials.data?.credentials ?? null} />
      <Loaded polled={overview}>
        {(data) => (
          <>
            <Numbers data={data} minutes={minutes} />
            <Charts data={data} minutes={minutes} />
          </>
        )}
      </Loaded>
      {limits.data !== null && <ClientLimits clients={limits.data.clients} />}
    </>
  );
}

function Problems({ plugins, credentials }: { plugins: PluginList | null; credentials: Credential[] | null }) {
  const problems = problemsOf(plugins, credentials);
  if (problems.length === 0) return null;
  return (
    <section class="card problems" aria-labelledby="problems">
      <h2 id="problems">{plural(problems.length, "thing")} to look at</h2>
      <ul>
        {problems.map((problem) => (
          <li key={problem.text} class={problem.tone}>
            <a href={problem.href}>{problem.text}</a>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Numbers({ data, minutes }: { data: Overview; minutes: number }) {
  const { totals, credentials, plugins } = data;
  return (
    <dl class="numbers">
      <Figure name="Running now" value={count(data.running)} />
      <Figure name="Requests" value={count(totals.requests)} note={`last ${span(minutes * 60)}`} />
      <Figure
        name="Errors"
        value={count(totals.errors)}
        note={percent(totals.errors, totals.requests)}
        bad={totals.errors > 0}
      />
      <Figure
        name="Tokens"
        value={count(totals["input-tokens"] + totals["output-tokens"])}
        note={`${count(totals["input-tokens"])} in, ${count(totals["output-tokens"])} out`}
      />
      <Figure
        name="Credentials"
        value={count(credentials.ready)}
        note={["ready", ...some(credentials.cooling, "cooling"), ...some(credentials.disabled, "off")].join(", ")}
        bad={credentials.ready === 0}
      />
      <Figure
        name="Plugins"
        value={count(plugins.registered)}
        note={plugins.failed > 0 ? `${plugins.failed} failed` : "none failed"}
        bad={plugins.failed > 0}
      />
      <Figure name="Up for" value={span(coarse(data["uptime-s"]))} note={`version ${data.version}`} />
    </dl>
  );
}

/** Whole minutes after the first one: nobody needs to see the seconds run. */
function coarse(seconds: number): number {
  return seconds < 60 ? seconds : Math.floor(seconds / 60) * 60;
}

function some(n: number, what: string): string[] {
  return n > 0 ? [`${n} ${what}`] : [];
}

function Figure({ name, value, note, bad = false }: { name: string; value: string; note?: string; bad?: boolean }) {
  return (
    <div class={bad ? "bad" : ""}>
      <dt>{name}</dt>
      <dd>
        <span class="value">{value}</span>
        {note && <span class="note">{note}</span>}
      </dd>
    </div>
  );
}

function Charts({ data, minutes }: { data: Overview; minutes: number }) {
  const series = useMemo(
    () => evenly(data.points, data["step-s"], minutes, data["started-at"] + data["uptime-s"]),
    [data, minutes],
  );
  if (data.totals.requests === 0) {
    return (
      <Empty title="No requests yet in this time.">
        Point a client at <code>{window.location.origin}</code> with one of the api-keys; what it does appears here and
        under Requests.
      </Empty>
    );
  }
  const { times } = series;
  return (
    <div class="charts" key={minutes}>
      <Chart
        title="Requests per minute"
        summary={`Last: ${count(latest(series.requests))} a minute, ${count(latest(series.errors))} of them errors.`}
        times={times}
        format={count}
        lines={[
          { label: "Requests", color: "--series-1", values: series.requests, filled: true },
          { label: "Errors", color: "--series-bad", values: series.errors, filled: true },
        ]}
      />
      <Chart
        title="Latency"
        summary={`Last: half within ${duration(latest(series.p50))}, 95 % within ${duration(latest(series.p95))}.`}
        times={times}
        format={duration}
        lines={[
          { label: "95 % within", color: "--series-3", values: series.p95 },
          { label: "Half within", color: "--series-1", values: series.p50 },
          { label: "First byte", color: "--series-2", values: series.firstByte },
        ]}
      />
      <Chart
        title="Tokens per minute"
        summary={`Last: ${count(latest(series.inputTokens))} in, ${count(latest(series.outputTokens))} out.`}
        times={times}
        format={count}
        lines={[
          { label: "Input", color: "--series-1", values: series.inputTokens, filled: true },
          { label: "Output", color: "--series-2", values: series.outputTokens, filled: true },
        ]}
      />
    </div>
  );
}
