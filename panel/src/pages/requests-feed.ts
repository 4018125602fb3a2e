/** The live list of requests: what there was, then the stream, in batches that a browser can draw. */
import { useEffect, useRef, useState } from "preact/hooks";

import { get, inWords } from "../api/client";
import { listen } from "../api/events";
import type { RequestSummary } from "../api/types";

const MOST_SHOWN = 300;
/** Hundreds of events a second are drawn four times a second. */
const BATCH_MS = 250;

export interface Feed {
  /** Newest first; null before the first answer. */
  requests: RequestSummary[] | null;
  state: "live" | "waiting" | "connecting";
  error: string | null;
  /** Events that the proxy could not deliver: the list has been asked for again. */
  lost: number;
}

/** Follows requests until the page is left; *paused* keeps what is shown. */
export function useFeed(paused: boolean): Feed {
  const [feed, setFeed] = useState<Feed>({ requests: null, state: "connecting", error: null, lost: 0 });
  const known = useRef(new Map<string, RequestSummary>());
  const dirty = useRef(false);

  useEffect(() => {
    const life = new AbortController();
    const reload = async () => {
      try {
        const { requests } = await get<{ requests: RequestSummary[] }>(`/requests?limit=${MOST_SHOWN}`, life.signal);
        for (const request of requests) note(known.current, request);
        dirty.current = true;
      } catch (error) {
        if (!life.signal.aborted) setFeed((last) => ({ ...last, error: inWords(error) }));
      }
    };
    void listen(
      "/requests/stream",
      {
        connected: () => {
          setFeed((last) => ({ ...last, state: "live", error: null }));
          void reload();
        },
        event: ({ event, data }) => {
          if (event === "request") {
            note(known.current, JSON.parse(data) as RequestSummary);
            dirty.current = true;
          } else if (event === "lost") {
            const { count } = JSON.parse(data) as { count: number };
            setFeed((last) => ({ ...last, lost: last.lost + count }));
            void reload();
          }
        },
        lost: (error) => setFeed((last) => ({ ...last, state: "waiting", error: inWords(error) })),
      },
      life.signal,
    );
    return () => life.abort();
  }, []);

  useEffect(() => {
    if (paused) return;
    const timer = window.setInterval(() => {
      if (!dirty.current) return;
      dirty.current = false;
      setFeed((last) => ({ ...last, requests: newestFirst(known.current) }));
    }, BATCH_MS);
    return () => window.clearInterval(timer);
  }, [paused]);

  return feed;
}

const FINISHED = new Set(["done", "failed", "aborted"]);

/** An answer to `reload` may be older than an event that came meanwhile: what has ended stays ended. */
function note(known: Map<string, RequestSummary>, request: RequestSummary): void {
  const last = known.get(request.id);
  if (last && FINISHED.has(last.state) && !FINISHED.has(request.state)) return;
  known.set(request.id, request);
}

/** Forgets the oldest on the way. */
function newestFirst(known: Map<string, RequestSummary>): RequestSummary[] {
  const all = [...known.values()].sort((a, b) => b.time - a.time);
  for (const old of all.splice(MOST_SHOWN)) known.delete(old.id);
  return all;
}
