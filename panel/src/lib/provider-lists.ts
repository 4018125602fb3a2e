/** The lists of provider keys in the configuration, and how keys come into them and out again (proxy 6.5). */
import { change, get } from "../api/client";
import type { Credential, JsonObject } from "../api/types";

export interface ProviderList {
  /** Its key in the configuration, and its path in the management API. */
  name: string;
  title: string;
  /** Where its providers are; empty = a base URL has to be given. */
  home: string;
}

export const COMPATIBLE = "openai-compatibility";

export const PROVIDER_LISTS: ProviderList[] = [
  { name: "claude-api-key", title: "Claude", home: "Anthropic" },
  { name: "gemini-api-key", title: "Gemini", home: "Google" },
  { name: COMPATIBLE, title: "OpenAI-compatible", home: "" },
  { name: "codex-api-key", title: "OpenAI Responses (Codex)", home: "" },
  { name: "xai-api-key", title: "xAI", home: "" },
  { name: "vertex-api-key", title: "Vertex AI", home: "Google" },
  { name: "interactions-api-key", title: "Gemini Interactions", home: "Google" },
];

export interface NewKey {
  list: string;
  /** Of an openai-compatibility entry. */
  name: string;
  apiKey: string;
  baseUrl: string;
  prefix: string;
  /** `name` or `name = alias`, one a line. */
  models: string;
}

/** Add a key to the end of its list; one more key for an openai-compatibility entry that is there already. */
export async function addKey(key: NewKey): Promise<void> {
  const entries = await entriesOf(key.list);
  const common = { ...optional("base-url", key.baseUrl), ...optional("prefix", key.prefix), ...models(key.models) };
  if (key.list !== COMPATIBLE) return append(key.list, entries, { "api-key": key.apiKey, ...common });
  const added = key.apiKey === "" ? [] : [{ "api-key": key.apiKey }];
  const known = entries.find((entry) => entry.name === key.name);
  if (known === undefined) {
    await append(key.list, entries, { name: key.name, ...common, "api-key-entries": added });
  } else {
    const keys = keysOf(known);
    await change("PATCH", `/${key.list}`, {
      name: key.name,
      value: { ...common, "api-key-entries": [...keys, ...added] },
    });
  }
}

/** The proxy leaves out entries that lack what they need, and does not say so. */
async function append(list: string, entries: JsonObject[], entry: JsonObject): Promise<void> {
  if (!("base-url" in entry) && PROVIDER_LISTS.some(({ name, home }) => name === list && home === "")) {
    throw new Error("A base URL is needed: where is the provider?");
  }
  await change("PUT", `/${list}`, [...entries, entry]);
  if ((await entriesOf(list)).length <= entries.length) {
    throw new Error("The proxy did not take it: the same credential may be there already, or something is missing.");
  }
}

/** Remove what *credential* comes from. Throws when the configuration has changed meanwhile. */
export async function removeKey(credential: Credential): Promise<void> {
  const place = /^([a-z-]+)\[(\d+)\](?:\.api-key-entries\[(\d+)\])?$/.exec(credential["config-path"] ?? "");
  const [, list, at, inner] = place ?? [];
  if (list === undefined || at === undefined) {
    throw new Error(`Nobody says where ${credential.label} is configured: remove it under Configuration.`);
  }
  const index = Number(at);
  const entry = (await entriesOf(list, true))[index];
  const keys = entry === undefined || inner === undefined ? [] : keysOf(entry, true);
  const indexed = inner === undefined ? entry : keys[Number(inner)];
  if (entry === undefined || indexed?.["auth-index"] !== credential["auth-index"]) {
    throw new Error("The configuration has changed meanwhile: look at the list again.");
  }
  if (keys.length > 1 && typeof entry.name === "string") {
    const others = keys.filter((_, i) => i !== Number(inner)).map(withoutIndex);
    await change("PATCH", `/${list}`, { name: entry.name, value: { "api-key-entries": others } });
  } else {
    await change("DELETE", `/${list}?index=${index}`);
  }
}

/** *indexed*: with `auth-index`, which is no part of the configuration. */
async function entriesOf(list: string, indexed = false): Promise<JsonObject[]> {
  const entries = (await get<Record<string, JsonObject[] | null>>(`/${list}`))[list] ?? [];
  return indexed ? entries : entries.map((entry) => ({ ...withoutIndex(entry), ...keyEntries(entry) }));
}

function keyEntries(entry: JsonObject): JsonObject {
  return Array.isArray(entry["api-key-entries"]) ? { "api-key-entries": keysOf(entry) } : {};
}

function keysOf(entry: JsonObject, indexed = false): JsonObject[] {
  const keys = Array.isArray(entry["api-key-entries"]) ? (entry["api-key-entries"] as JsonObject[]) : [];
  return indexed ? keys : keys.map(withoutIndex);
}

function withoutIndex({ "auth-index": _, ...entry }: JsonObject): JsonObject {
  return entry;
}

function optional(name: string, value: string): JsonObject {
  return value.trim() === "" ? {} : { [name]: value.trim() };
}

function models(text: string): JsonObject {
  const lines = text.split("\n").map((line) => line.split("=").map((part) => part.trim()));
  const named = lines.filter(([name]) => name);
  if (named.length === 0) return {};
  return { models: named.map(([name, alias]) => ({ name: name!, ...(alias ? { alias } : {}) })) };
}
