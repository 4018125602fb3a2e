/** What happened to what somebody did, said once, for eyes and screen readers. */
import { signal } from "@preact/signals";

import { inWords } from "../api/client";

export interface Notice {
  id: number;
  kind: "done" | "failed";
  text: string;
}

const SHOWN_MS = 6000;
const MAX_NOTICES = 4;
let last = 0;

export const notices = signal<Notice[]>([]);

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

export function say(kind: Notice["kind"], text: string): void {
  const id = ++last;
  notices.value = [...notices.value.slice(1 - MAX_NOTICES), { id, kind, text }];
  // Failures stay until they are read.
  if (kind === "done") window.setTimeout(() => dismiss(id), SHOWN_MS);
}

/** Do *work* and say how it went. Returns whether it went well. */
export async function attempt(done: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    say("done", done);
    return true;
  } catch (error) {
    say("failed", inWords(error));
    return false;
  }
}
