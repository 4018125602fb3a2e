/** Asks for the management key whenever there is no good one, above whatever is being done. */
import { useState } from "preact/hooks";

import { enter, gate } from "../api/session";
import { Dialog } from "./dialog";
import { Field } from "./field";

export function KeyDialog() {
  const [key, setKey] = useState("");
  const [keep, setKeep] = useState(false);
  const [busy, setBusy] = useState(false);
  const { message } = gate.value;
  return (
    <Dialog title="CPA control panel">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setBusy(true);
          void enter(key.trim(), keep).finally(() => setBusy(false));
        }}
      >
        <div class="body">
          <Field
            label="Management key"
            help="The remote-management.secret-key of the configuration, or MANAGEMENT_PASSWORD."
            error={message === "" ? null : message}
          >
            {(attributes) => (
              <input
                {...attributes}
                type="password"
                autocomplete="current-password"
                required
                autofocus
                value={key}
                onInput={(event) => setKey(event.currentTarget.value)}
              />
            )}
          </Field>
          <label class="check">
            <input type="checkbox" checked={keep} onChange={(event) => setKeep(event.currentTarget.checked)} />
            Keep for this tab, until it is closed
          </label>
        </div>
        <footer>
          <button type="submit" class="primary" disabled={busy || key.trim() === ""}>
            {busy ? "Checking…" : "Open"}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
