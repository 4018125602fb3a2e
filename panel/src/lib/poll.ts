/** Data that is asked for again and again while somebody looks at it. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { get, inWords, wasAborted } from "../api/client";
import { sleep, visible } from "./sleep";

const LONGEST_WAIT_MS = 30_000;

let turn: Promise<unknown> = Promise.resolve();

/** One question at a time: when the key is no longer good, one is refused, not all; five refusals ban the address. */
function inTurn<T>(ask: () => Promise<T>): Promise<T> {
  const mine = turn.then(ask);
  turn = mine.catch(() => {});
  return mine;
}

export interface Polled<T> {
  /** The last answer; null before the first. */
  data: T | null;
  /** Why there is no newer one. */
  error: string | null;
  /** Ask now. */
  refresh: () => void;
}

/** Ask at *path* every *everyMs*; failures are tried again with back-off. Another *path* starts anew. */
export function usePoll<T>(path: string, everyMs: number): Polled<T> {
  const [state, setState] = useState<{ path: string; data: T | null; error: string | null }>({
    path,
    data: null,
    error: null,
  });
  const wake = useRef<() => void>(() => {});
  useEffect(() => {
    const life = new AbortController();
    async function run(): Promise<void> {
      let wait = everyMs;
      while (!life.signal.aborted) {
        // Somebody may ask for newer data while an answer is on its way.
        const pause = new AbortController();
        wake.current = () => pause.abort();
        try {
          const data = await inTurn(() => get<T>(path, life.signal));
          setState({ path, data, error: null });
          wait = everyMs;
        } catch (error) {
          if (wasAborted(error)) return;
          setState((last) => ({ path, data: last.path === path ? last.data : null, error: inWords(error) }));
          wait = Math.min(wait * 2, LONGEST_WAIT_MS);
        }
        await sleep(wait, AbortSignal.any([life.signal, pause.signal]));
        await visible(life.signal);
      }
    }
    void run();
    return () => life.abort();
  }, [path, everyMs]);
  const refresh = useCallback(() => wake.current(), []);
  return state.path === path ? { ...state, refresh } : { data: null, error: null, refresh };
}
