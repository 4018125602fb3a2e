/** One request to the management API: with the key, waiting for it if need be, errors as `ApiError`. */
import { noteServerTime } from "../lib/clock";
import { BASE, bearer, close, errorText, openKey, refusal } from "./session";

export class ApiError extends Error {
  constructor(
    message: string,
    /** Of the answer; 0 = the proxy could not be reached. */
    readonly status: number,
    readonly body: string = "",
  ) {
    super(message);
  }
}

export interface Call {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Sent as JSON, unless it is text or a form. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** From sending to the last byte of the answer; without it there is no limit. */
  timeoutMs?: number;
}

const READ_MS = 20_000;

/** The answer to a request that the proxy took. Waits while there is no key. Throws: ApiError, or AbortError. */
export async function request(path: string, call: Call = {}): Promise<Response> {
  for (;;) {
    const key = await openKey();
    call.signal?.throwIfAborted();
    const response = await send(path, call, key);
    noteServerTime(response.headers.get("date"));
    if (response.ok) return response;
    const refused = await refusal(response);
    if (refused === null) {
      throw new ApiError(await errorText(response), response.status, await response.text());
    }
    close(key, refused);
  }
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const call = { timeoutMs: READ_MS, ...(signal ? { signal } : {}) };
  return (await (await request(path, call)).json()) as T;
}

export async function change<T>(method: "POST" | "PUT" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<T> {
  const text = await (await request(path, { method, body })).text();
  return (text === "" ? {} : JSON.parse(text)) as T;
}

/** *parts* as a path below the API, each one segment. */
export function path(...parts: string[]): string {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

export function wasAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** What to show of *error*. */
export function inWords(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function send(path: string, call: Call, key: string): Promise<Response> {
  const { body } = call;
  const signals = [
    ...(call.signal ? [call.signal] : []),
    ...(call.timeoutMs ? [AbortSignal.timeout(call.timeoutMs)] : []),
  ];
  const plain = typeof body === "string" || body instanceof FormData;
  const headers = { ...bearer(key), ...(plain || body === undefined ? {} : { "content-type": "application/json" }) };
  try {
    return await fetch(BASE + path, {
      method: call.method ?? "GET",
      headers: { ...headers, ...call.headers },
      body: body === undefined ? null : plain ? body : JSON.stringify(body),
      signal: AbortSignal.any(signals),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (wasAborted(error)) throw error;
    throw new ApiError("The proxy cannot be reached. Is it running?", 0);
  }
}
