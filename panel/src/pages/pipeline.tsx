/** The way of one request: stage after stage with plugin, time, what changed; then attempts and losses. */
import { useEffect } from "preact/hooks";

import { path } from "../api/client";
import type { Attempt, RequestDetail, RequestSummary, Stage } from "../api/types";
import { count, dateTime, duration, plural } from "../lib/format";
import { usePoll } from "../lib/poll";
import { go, to } from "../lib/router";
import { Badge, Empty, Loaded, type Tone } from "../ui/bits";
import { RequestBadge } from "./request-badge";

const WHILE_RUNNING_MS = 1_000;
const AFTERWARDS_MS = 60_000;
const OUTCOME_TONES: Record<Stage["outcome"], Tone> = { complete: "ok", failed: "bad", skipped: "off" };
const SIDES: { side: Stage["side"]; title: string }[] = [
  { side: "request", title: "Request: from the client to the provider" },
  { side: "response", title: "Response: from the provider to the client" },
  { side: "stream", title: "Stream: every chunk on its way to the client" },
];

/** *summary*: what the live list knows of it; when that changes, the whole is asked for again. */
export function Pipeline({ id, summary }: { id: string; summary: RequestSummary | null }) {
  const detail = usePoll<RequestDetail>(
    `/requests${path(id)}`,
    summary?.state === "running" ? WHILE_RUNNING_MS : AFTERWARDS_MS,
  );
  useEffect(() => detail.refresh(), [summary?.state, summary?.["first-byte-ms"]]);
  return (
    <section class="card" aria-labelledby="pipeline">
      <div class="detail-head">
        <h2 id="pipeline">{detail.data?.model ?? summary?.model ?? "Request"}</h2>
        <button type="button" class="quiet icon" aria-label="Close" onClick={() => go("requests")}>
          ✕
        </button>
      </div>
      <Loaded polled={detail}>{(data) => <Whole data={data} />}</Loaded>
    </section>
  );
}

function Whole({ data }: { data: RequestDetail }) {
  return (
    <>
      <Facts data={data} />
      {data.error !== null && (
        <div class="problem">
          <strong>It failed{data.status === null ? "" : ` with status ${data.status}`}.</strong>
          <div>{data.error}</div>
        </div>
      )}
      {data.stages.length === 0 ? (
        <Empty title="No stages ran.">
          The body passed as it came: client and provider speak the same protocol, and no plugin or chain concerns it.
        </Empty>
      ) : (
        SIDES.map(({ side, title }) => (
          <Stages
            key={side}
            title={title}
            stages={data.stages.filter((stage) => stage.side === side)}
            all={data.stages}
          />
        ))
      )}
      <Attempts attempts={data.attempts} />
      {data.losses.length > 0 && (
        <>
          <h3>Lost in translation</h3>
          <ul class="changes">
            {data.losses.map((loss) => (
              <li key={loss.path + loss.reason}>
                <code>{loss.path}</code> {loss.reason}
              </li>
            ))}
          </ul>
        </>
      )}
    </>
  );
}

function Facts({ data }: { data: RequestDetail }) {
  const formats = [data.protocol, data["provider-format"]].filter((format) => format !== null);
  const models = [data.model, data["provider-model"]].filter(
    (model, i, all) => model !== null && all.indexOf(model) === i,
  );
  return (
    <dl class="facts">
      <dt>State</dt>
      <dd>
        <RequestBadge request={data} /> {data.stream && <span class="tag">stream</span>}
      </dd>
      <dt>Began</dt>
      <dd>{dateTime(data.time)}</dd>
      <dt>Client</dt>
      <dd>{data.client}</dd>
      <dt>Protocols</dt>
      <dd>{formats.join(" → ")}</dd>
      <dt>Models</dt>
      <dd>{models.join(" → ")}</dd>
      <dt>Provider</dt>
      <dd>
        {data.provider ?? "none yet"}
        {data.credential !== null && ` with ${data.credential}`}
      </dd>
      <dt>Took</dt>
      <dd>
        {duration(data["duration-ms"])}, first byte after {duration(data["first-byte-ms"])}
      </dd>
      <dt>Tokens</dt>
      <dd>
        {count(data["input-tokens"])} in, {count(data["output-tokens"])} out
      </dd>
      <dt>Id</dt>
      <dd>
        <code>{data.id}</code>
      </dd>
    </dl>
  );
}

/** *all*: the longest of them is a whole bar. */
function Stages({ title, stages, all }: { title: string; stages: Stage[]; all: Stage[] }) {
  if (stages.length === 0) return null;
  const noted = all.some((stage) => stage.changes.length > 0);
  const longest = Math.max(1, ...all.map((stage) => stage["duration-us"]));
  return (
    <>
      <h3>{title}</h3>
      <ol class="stages">
        {stages.map((stage, i) => (
          <li key={i} class={stage.outcome}>
            <div class="stage-line">
              <span class="stage-name">
                <strong>{stage.step ?? stage.stage}</strong>
                {stage.plugin ? (
                  <a class="tag plugin" href={to("plugins", stage.plugin)}>
                    {stage.plugin}
                  </a>
                ) : (
                  <span class="tag">built in</span>
                )}
                {stage.chain && <span class="tag">chain {stage.chain}</span>}
                {stage.outcome !== "complete" && (
                  <>
                    {" "}
                    <Badge tone={OUTCOME_TONES[stage.outcome]}>{stage.outcome}</Badge>
                  </>
                )}
              </span>
              <span class="stage-time number">
                {duration(stage["duration-us"] / 1000)}
                {stage.calls > 1 && ` in ${plural(stage.calls, "call")}`}
              </span>
            </div>
            <div class="bar" aria-hidden="true">
              <span style={{ width: `${Math.max(0.5, (100 * stage["duration-us"]) / longest)}%` }} />
            </div>
            {stage.reason && <p class="reason">{stage.reason}</p>}
            {stage.outcome !== "skipped" && <Changes stage={stage} noted={noted} />}
          </li>
        ))}
      </ol>
    </>
  );
}

/** *noted*: somebody watched while the request ran, so that no changes means that there were none. */
function Changes({ stage, noted }: { stage: Stage; noted: boolean }) {
  if (stage.changes.length > 0) {
    return (
      <ul class="changes">
        {stage.changes.map((change, i) => (
          <li key={i}>
            <code>{change}</code>
          </li>
        ))}
      </ul>
    );
  }
  if (stage.changed > 0) {
    const what = noted ? "" : "; what is noted only while this page is open";
    return <p class="unchanged">{`changed something in ${plural(stage.changed, "call")}${what}`}</p>;
  }
  return noted ? <p class="unchanged">changed nothing</p> : null;
}

function Attempts({ attempts }: { attempts: Attempt[] }) {
  if (attempts.length === 0) return null;
  return (
    <>
      <h3>{plural(attempts.length, "attempt")} at providers</h3>
      <ol class="attempts">
        {attempts.map((attempt, i) => (
          <li key={i}>
            <Badge tone={attempt.error !== null ? "bad" : attempt.status === null ? "busy" : "ok"}>
              {attempt.status ?? (attempt.error === null ? "running" : "failed")}
            </Badge>{" "}
            <strong>{attempt.provider}</strong> {attempt.model}
            {attempt.credential !== null && <span class="secondary"> with {attempt.credential}</span>}
            <span class="number secondary"> {duration(attempt["duration-ms"])}</span>
            {attempt.why && <p class="reason">{attempt.why}</p>}
            {attempt.error && <p class="reason">{attempt.error}</p>}
          </li>
        ))}
      </ol>
    </>
  );
}
