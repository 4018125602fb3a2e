/** Requests as they come, and the way of one through the pipeline. */
import { useMemo, useState } from "preact/hooks";

import type { RequestState, RequestSummary } from "../api/types";
import { count, duration, plural, time } from "../lib/format";
import { go, to } from "../lib/router";
import { Badge, Empty, PageHead, Problem, Search } from "../ui/bits";
import { Pipeline } from "./pipeline";
import { RequestBadge } from "./request-badge";
import { type Feed, useFeed } from "./requests-feed";

const STATES: RequestState[] = ["running", "done", "failed", "aborted"];

export function RequestsPage({ id }: { id: string | null }) {
  const [paused, setPaused] = useState(false);
  const [search, setSearch] = useState("");
  const [only, setOnly] = useState<"" | RequestState>("");
  const feed = useFeed(paused);
  const shown = useMemo(
    () =>
      (feed.requests ?? []).filter(
        (request) => (only === "" || request.state === only) && matches(request, search.trim().toLowerCase()),
      ),
    [feed.requests, search, only],
  );
  return (
    <div class={id === null ? "" : "split"}>
      <section aria-label="Requests" class="list-side">
        <PageHead title="Requests">
          <Search label="Search model, client, provider" value={search} onInput={setSearch} />
          <select
            aria-label="State"
            value={only}
            onChange={(event) => setOnly(event.currentTarget.value as "" | RequestState)}
          >
            <option value="">all states</option>
            {STATES.map((state) => (
              <option key={state}>{state}</option>
            ))}
          </select>
          <button type="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>
            {paused ? "Go on" : "Pause"}
          </button>
        </PageHead>
        <FeedState feed={feed} paused={paused} />
        {feed.requests === null ? (
          feed.error === null && <p class="loading">Loading…</p>
        ) : shown.length === 0 ? (
          <NoRequests any={feed.requests.length > 0} />
        ) : (
          <RequestTable requests={shown} current={id} />
        )}
      </section>
      {id !== null && (
        <Pipeline key={id} id={id} summary={feed.requests?.find((request) => request.id === id) ?? null} />
      )}
    </div>
  );
}

function FeedState({ feed, paused }: { feed: Feed; paused: boolean }) {
  if (feed.state === "waiting") {
    return <Problem title="Not live at the moment.">{feed.error} It is tried again by itself.</Problem>;
  }
  return (
    <p class="feed-state">
      {paused ? (
        <Badge tone="off">paused</Badge>
      ) : feed.state === "live" ? (
        <Badge tone="ok">live</Badge>
      ) : (
        <Badge tone="busy">connecting</Badge>
      )}
      {feed.lost > 0 && <span> {plural(feed.lost, "event")} came too fast to be shown one by one.</span>}
    </p>
  );
}

function NoRequests({ any }: { any: boolean }) {
  if (any) return <Empty title="No request matches.">Clear the search, or choose another state.</Empty>;
  return (
    <Empty title="No requests yet.">
      They appear here while they run. Try one:{" "}
      <code>
        curl {window.location.origin}/v1/chat/completions -H 'Authorization: Bearer KEY' -d '
        {'{"model": "MODEL", "messages": [{"role": "user", "content": "hi"}]}'}'
      </code>
    </Empty>
  );
}

function RequestTable({ requests, current }: { requests: RequestSummary[]; current: string | null }) {
  return (
    <table class="rows stacking requests">
      <thead>
        <tr>
          <th scope="col">Time</th>
          <th scope="col">Model</th>
          <th scope="col">Client</th>
          <th scope="col">Provider</th>
          <th scope="col">State</th>
          <th scope="col" class="number">
            Took
          </th>
          <th scope="col" class="number">
            Tokens
          </th>
        </tr>
      </thead>
      <tbody>
        {requests.map((request) => (
          <tr
            key={request.id}
            class={request.id === current ? "current" : ""}
            onClick={() => go("requests", request.id)}
          >
            <td data-label="Time" class="number">
              {time(request.time)}
            </td>
            <th scope="row">
              <a
                href={to("requests", request.id)}
                aria-current={request.id === current ? "true" : undefined}
                onClick={(event) => event.stopPropagation()}
              >
                {request.model || "(no model)"}
              </a>
              {request.stream && <span class="tag">stream</span>}
              {request.nested && <span class="tag">by a plugin</span>}
              {request.losses > 0 && <span class="tag warn">{plural(request.losses, "loss", "losses")}</span>}
            </th>
            <td data-label="Client" class="secondary">
              {request.client}
            </td>
            <td data-label="Provider" class="secondary">
              {request.protocol}
              {request.provider !== null && ` → ${request.provider}`}
            </td>
            <td data-label="State">
              <RequestBadge request={request} />
            </td>
            <td data-label="Took" class="number">
              {duration(request["duration-ms"])}
            </td>
            <td data-label="Tokens" class="number secondary">
              {count(request["input-tokens"])} / {count(request["output-tokens"])}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function matches(request: RequestSummary, search: string): boolean {
  if (search === "") return true;
  const { model, client, provider, credential, protocol, id } = request;
  const told = [model, request["provider-model"], client, provider, credential, protocol, id, request.error];
  return told.some((text) => text?.toLowerCase().includes(search));
}
