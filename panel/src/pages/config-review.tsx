/** Before the configuration is saved: which lines differ, what that means, and what needs a restart. */
import { useState } from "preact/hooks";

import { inWords } from "../api/client";
import type { ConfigCheck } from "../api/types";
import { diffLines, hunks } from "../lib/diff";
import { say } from "../lib/notices";
import { Dialog } from "../ui/dialog";
import { configDraft, Conflict, Invalid, revert, save } from "./config-draft";

export function ReviewDialog({ checked, onClose }: { checked: ConfigCheck | null; onClose: () => void }) {
  const [busy, setBusy] = useState(false);
  const [conflict, setConflict] = useState(false);
  const [failure, setFailure] = useState<string | null>(null);
  const { saved, text } = configDraft.value;
  const write = async () => {
    setBusy(true);
    setFailure(null);
    try {
      await save();
      say("done", "The configuration is saved and in use.");
      onClose();
    } catch (error) {
      setConflict(error instanceof Conflict);
      if (error instanceof Invalid) {
        const [first] = error.problems;
        setFailure(first ? `${error.message}: ${first.path} ${first.message}` : error.message);
      } else if (!(error instanceof Conflict)) {
        setFailure(inWords(error));
      }
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title="Save the configuration?" wide onClose={onClose}>
      <div class="body">
        {conflict && (
          <div class="problem" role="alert">
            <strong>Somebody changed the file meanwhile.</strong>
            <div>
              Nothing was saved. Below your text is compared with theirs: lines marked as removed are theirs and would
              be lost.
            </div>
          </div>
        )}
        {failure !== null && (
          <div class="problem" role="alert">
            <strong>It was not saved.</strong>
            <div>{failure}</div>
          </div>
        )}
        {checked !== null && checked.changes.length > 0 && (
          <>
            <h3>What changes</h3>
            <ul class="changes">
              {checked.changes.map((change) => (
                <li key={change}>
                  <code>{change}</code>
                </li>
              ))}
            </ul>
          </>
        )}
        {checked !== null && checked.restart.length > 0 && (
          <p class="problem mild">
            <strong>Only after a restart of the proxy:</strong> {checked.restart.join(", ")}
          </p>
        )}
        <h3>Lines that differ</h3>
        <Diff before={saved ?? ""} after={text} />
      </div>
      <footer>
        <button type="button" onClick={onClose}>
          Go on editing
        </button>
        {conflict && (
          <button
            type="button"
            onClick={() => {
              revert();
              onClose();
            }}
          >
            Take theirs
          </button>
        )}
        <button type="button" class="primary" autofocus disabled={busy} aria-busy={busy} onClick={() => void write()}>
          {conflict ? "Save mine" : "Save"}
        </button>
      </footer>
    </Dialog>
  );
}

function Diff({ before, after }: { before: string; after: string }) {
  const shown = hunks(diffLines(before, after));
  if (shown.length === 0) return <p class="secondary">None.</p>;
  return (
    <div class="diff" tabIndex={0} role="group" aria-label="Lines that differ">
      {shown.map((line, i) =>
        line === null ? (
          <div key={i} class="gap">
            ⋯
          </div>
        ) : (
          <div key={i} class={line.kind}>
            <span class="line-number">{line.line}</span>
            <span class="sign">{{ same: " ", added: "+", removed: "−" }[line.kind]}</span>
            <span class="hidden">{line.kind === "same" ? "" : line.kind}</span>
            <span class="text">{line.text}</span>
          </div>
        ),
      )}
    </div>
  );
}
