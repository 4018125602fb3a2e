/** Server-sent events over fetch (EventSource cannot send a key), with reconnection and back-off. */
import { sleep } from "../lib/sleep";
import { request, wasAborted } from "./client";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

export interface ServerEvent {
  event: string;
  data: string;
}

/** Events out of pieces of text, however they are cut. */
export class EventParser {
  private rest = "";
  private event = "";
  private data: string[] = [];

  *feed(text: string): Generator<ServerEvent> {
    this.rest += text;
    // A carriage return at the end may be half of a line end.
    const lines = this.rest.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (this.data.length > 0) yield { event: this.event || "message", data: this.data.join("\n") };
        this.event = "";
        this.data = [];
      } else if (!line.startsWith(":")) {
        const [, name, value] = /^([^:]*):? ?([^]*)$/.exec(line) ?? [];
        if (name === "event") this.event = value ?? "";
        else if (name === "data") this.data.push(value ?? "");
      }
    }
  }
}

export interface Listener {
  /** The stream is up, for the first time or again: what was missed has to be asked for. */
  connected(): void;
  event(event: ServerEvent): void;
  /** It is down, and tried again in *waitMs*. */
  lost(error: unknown, waitMs: number): void;
}

/** Listen at *path* until *signal* aborts. */
export async function listen(path: string, listener: Listener, signal: AbortSignal): Promise<void> {
  let waitMs = FIRST_WAIT_MS;
  while (!signal.aborted) {
    let failure: unknown = new Error("The stream ended.");
    try {
      const response = await request(path, { signal, headers: { accept: "text/event-stream" } });
      listener.connected();
      waitMs = FIRST_WAIT_MS;
      const parser = new EventParser();
      const text = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece = await text?.read(); piece && !piece.done; piece = await text?.read()) {
        for (const event of parser.feed(piece.value)) listener.event(event);
      }
    } catch (error) {
      if (signal.aborted || wasAborted(error)) return;
      failure = error;
    }
    const jittered = waitMs * (0.75 + Math.random() / 2);
    listener.lost(failure, jittered);
    await sleep(jittered, signal);
    waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
  }
}
