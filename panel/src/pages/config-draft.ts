/** The configuration file and what somebody has made of it. Outlives the page: edits survive a look elsewhere. */
import { signal } from "@preact/signals";

import { ApiError, request } from "../api/client";
import type { ConfigCheck, ConfigProblem } from "../api/types";

const YAML = { "content-type": "application/yaml" };

export interface Draft {
  /** Content of the file as it was read last; null before. */
  saved: string | null;
  /** Names that content, where the proxy says so. */
  etag: string | null;
  text: string;
  dirty: boolean;
}

export const configDraft = signal<Draft>({ saved: null, etag: null, text: "", dirty: false });

window.addEventListener("beforeunload", (event) => {
  if (configDraft.value.dirty) event.preventDefault();
});

/** Somebody else changed the file since it was read. */
export class Conflict extends Error {}

/** The proxy does not take the configuration. */
export class Invalid extends Error {
  constructor(
    message: string,
    readonly problems: ConfigProblem[],
  ) {
    super(message);
  }
}

export function edit(text: string): void {
  const draft = configDraft.value;
  configDraft.value = { ...draft, text, dirty: text !== draft.saved };
}

/** Read the file; edits stay. */
export async function read(): Promise<void> {
  const response = await request("/config.yaml");
  const saved = (await response.text()).replace(/\r\n/g, "\n");
  const { text, dirty } = configDraft.value;
  const kept = dirty ? text : saved;
  configDraft.value = { saved, etag: response.headers.get("etag"), text: kept, dirty: kept !== saved };
}

/** Drop all edits. */
export function revert(): void {
  edit(configDraft.value.saved ?? "");
}

/** Write the edited text. Throws: Conflict (the newer file is read then), Invalid, ApiError. */
export async function save(): Promise<void> {
  const { text, etag } = configDraft.value;
  try {
    const headers = etag === null ? YAML : { ...YAML, "if-match": etag };
    await request("/config.yaml", { method: "PUT", body: text, headers });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 412) {
      await read();
      throw new Conflict("Somebody changed the file meanwhile.");
    }
    if (error.status === 422 || error.status === 400) throw new Invalid(error.message, problemsIn(error.body));
    throw error;
  }
  configDraft.value = { ...configDraft.value, saved: text, dirty: configDraft.value.text !== text };
  await read(); // for the tag of what is there now
}

export async function check(text: string, signal: AbortSignal): Promise<ConfigCheck> {
  const response = await request("/config.yaml/check", { method: "POST", body: text, headers: YAML, signal });
  return (await response.json()) as ConfigCheck;
}

function problemsIn(body: string): ConfigProblem[] {
  try {
    return (JSON.parse(body) as { problems?: ConfigProblem[] }).problems ?? [];
  } catch {
    return [];
  }
}
