/**
 * The management key and who waits for it.
 *
 * The key lives in memory; with "keep for this tab" also in sessionStorage. While there is none, or the proxy has
 * refused it, the gate is closed: requests wait in `openKey` and go on with the next good key, so that a key that
 * changed costs nobody their edits. One key is tried at a time, because five wrong ones ban the address.
 */
import { signal } from "@preact/signals";

export const BASE = "/v0/management";
const STORED = "cpa-management-key";

export interface Gate {
  open: boolean;
  /** Why it is closed, in words; empty before the first key. */
  message: string;
}

export const gate = signal<Gate>({ open: false, message: "" });

let key = "";
let waiting: (() => void)[] = [];

/** Try the key of this tab, if one was kept. */
export async function start(): Promise<void> {
  const kept = sessionStorage.getItem(STORED);
  if (kept !== null) await enter(kept, true);
}

/** Try *candidate*: the gate opens, or says why not. */
export async function enter(candidate: string, keep: boolean): Promise<void> {
  let refused: string | null;
  try {
    refused = await refusal(await fetch(`${BASE}/cooldowns`, { headers: bearer(candidate), cache: "no-store" }));
  } catch {
    refused = "The proxy cannot be reached. Is it running?";
  }
  if (refused !== null) {
    gate.value = { open: false, message: refused };
    return;
  }
  key = candidate;
  if (keep) sessionStorage.setItem(STORED, candidate);
  else sessionStorage.removeItem(STORED);
  gate.value = { open: true, message: "" };
  const released = waiting;
  waiting = [];
  for (const release of released) release();
}

/** Forget the key, here and in the tab's storage. */
export function leave(): void {
  sessionStorage.removeItem(STORED);
  window.location.reload();
}

/** The key, once there is a good one. */
export async function openKey(): Promise<string> {
  while (!gate.value.open) await new Promise<void>((release) => waiting.push(release));
  return key;
}

/** The proxy refused *used*; whoever comes later than the next key's entry has no say. */
export function close(used: string, message: string): void {
  if (used !== key || !gate.value.open) return;
  sessionStorage.removeItem(STORED);
  gate.value = { open: false, message };
}

export function bearer(used: string): Record<string, string> {
  // Header values are bytes: a key outside of Latin-1 is sent as its UTF-8.
  const bytes = new TextEncoder().encode(used);
  return { authorization: `Bearer ${String.fromCharCode(...bytes)}` };
}

/** Why *response* lets nobody in, in words; null = it does not concern the key. */
export async function refusal(response: Response): Promise<string | null> {
  if (response.status === 404 && !response.headers.has("x-cpa-version")) {
    return "Management is switched off: neither remote-management.secret-key nor MANAGEMENT_PASSWORD is set.";
  }
  if (response.status !== 401 && response.status !== 403 && response.status !== 503) return null;
  const said = await errorText(response);
  if (response.status === 401) {
    return said.startsWith("missing")
      ? "A management key is needed."
      : "This key is not right. Five wrong keys in a row close management to this address for 30 minutes.";
  }
  const ban = /^IP banned.*?(?:Try again in (.*))?$/.exec(said);
  if (ban) return `This address is banned after too many wrong keys. Try again in ${ban[1] ?? "30 minutes"}.`;
  if (said === "remote management disabled") {
    return (
      "Management is closed to other machines. Open this page on the proxy's own machine, " +
      "or set remote-management.allow-remote: true there."
    );
  }
  if (said === "remote management key not set") return "No management key is set: see remote-management.secret-key.";
  if (said.startsWith("too many keys")) return "Too many keys are being checked at the moment. Try again.";
  return response.status === 403 ? `The proxy refuses: ${said}` : null;
}

/** The text of an error answer, its body left readable. */
export async function errorText(response: Response): Promise<string> {
  const body = await response.clone().text();
  try {
    const told: unknown = JSON.parse(body);
    if (told !== null && typeof told === "object") {
      const { error, message } = told as { error?: unknown; message?: unknown };
      if (typeof message === "string" && message !== "") return message;
      if (typeof error === "string") return error;
    }
  } catch {
    // Not JSON: what it says is the text.
  }
  return body.trim().slice(0, 500) || `status ${response.status}`;
}
