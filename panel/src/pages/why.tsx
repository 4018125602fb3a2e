/** Why a credential is used for a model, or not. */
import { path } from "../api/client";
import type { Credential, Why } from "../api/types";
import { usePoll } from "../lib/poll";
import { Badge, Countdown, Loaded } from "../ui/bits";
import { Dialog } from "../ui/dialog";

const POLL_MS = 5_000;

interface WhyProps {
  credential: Credential;
  model: string;
  onClose: () => void;
}

export function WhyDialog({ credential, model, onClose }: WhyProps) {
  const why = usePoll<Why>(`/credentials${path(credential.id)}/why?model=${encodeURIComponent(model)}`, POLL_MS);
  return (
    <Dialog title={`${credential.label || credential.name} for ${model}`} onClose={onClose}>
      <div class="body">
        <Loaded polled={why}>
          {({ used, state, reason, next, until }) => (
            <dl class="facts">
              <dt>State</dt>
              <dd>
                <Badge tone={used ? "ok" : "warn"}>{used ? "used" : "not used"}</Badge> {state}
              </dd>
              {reason && (
                <>
                  <dt>Reason</dt>
                  <dd>{reason}</dd>
                </>
              )}
              {until !== null && (
                <>
                  <dt>Ends in</dt>
                  <dd>
                    <Countdown until={Date.parse(until) / 1000} />
                  </dd>
                </>
              )}
              {next && (
                <>
                  <dt>What then</dt>
                  <dd>{next}</dd>
                </>
              )}
            </dl>
          )}
        </Loaded>
      </div>
      <footer>
        <button type="button" onClick={onClose}>
          Close
        </button>
      </footer>
    </Dialog>
  );
}
