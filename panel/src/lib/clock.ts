/** The proxy's time, second by second. Countdowns follow it, not this machine's clock. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

const TOLERATED_S = 2;
let ahead = 0;
let watchers = 0;
let timer = 0;

/** Unix seconds. Moves only while somebody uses `useNow`. */
const now = signal(read());

export function useNow(): number {
  useEffect(() => {
    now.value = read();
    if (watchers++ === 0) timer = window.setInterval(() => (now.value = read()), 1000);
    return () => {
      if (--watchers === 0) window.clearInterval(timer);
    };
  }, []);
  return now.value;
}

/** Learn from the Date header of an answer how far the proxy's clock is from ours. */
export function noteServerTime(date: string | null): void {
  const told = date === null ? NaN : Date.parse(date) / 1000;
  if (Number.isNaN(told)) return;
  const difference = told - Date.now() / 1000;
  ahead = Math.abs(difference) > TOLERATED_S ? difference : 0;
}

function read(): number {
  return Date.now() / 1000 + ahead;
}
