import type { RequestState, RequestSummary } from "../api/types";
import { Badge, type Tone } from "../ui/bits";

const TONES: Record<RequestState, Tone> = { running: "busy", done: "ok", failed: "bad", aborted: "warn" };

/** How a request stands, with its status where that says more. */
export function RequestBadge({ request }: { request: Pick<RequestSummary, "state" | "status"> }) {
  const { state, status } = request;
  return (
    <Badge tone={TONES[state]}>
      {state}
      {status !== null && state !== "running" && status !== 200 && ` ${status}`}
    </Badge>
  );
}
