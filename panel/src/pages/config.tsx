/** The configuration file: edit, see what is wrong while typing, see what would change, save. */
import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError, inWords, wasAborted } from "../api/client";
import type { ConfigCheck } from "../api/types";
import { plural } from "../lib/format";
import { sleep } from "../lib/sleep";
import { Badge, Empty, PageHead, Problem } from "../ui/bits";
import { Editor, type EditorHandle } from "../ui/editor";
import { check, configDraft, edit, read, revert } from "./config-draft";
import { ReviewDialog } from "./config-review";

/** After the last key, before the proxy is asked. */
const PAUSE_MS = 350;

export function ConfigPage() {
  const { saved, text, dirty } = configDraft.value;
  const [failure, setFailure] = useState<ApiError | null>(null);
  const [reviewing, setReviewing] = useState(false);
  const editor = useRef<EditorHandle>(null);
  const { checked, checkFailure } = useCheck(text, saved !== null);

  const load = () => {
    setFailure(null);
    read().catch((error: unknown) => setFailure(error instanceof ApiError ? error : new ApiError(inWords(error), 0)));
  };
  useEffect(load, []);

  if (saved === null) {
    return (
      <>
        <PageHead title="Configuration" />
        {failure === null ? (
          <p class="loading">Loading…</p>
        ) : failure.status === 404 ? (
          <Empty title="This proxy runs without a configuration file.">
            The demo has none. Start it with <code>cpa serve --config PATH</code> to edit that file here.
          </Empty>
        ) : (
          <Problem title="The configuration cannot be read.">
            {failure.message}{" "}
            <button type="button" onClick={load}>
              Try again
            </button>
          </Problem>
        )}
      </>
    );
  }
  const problems = checked?.problems ?? [];
  return (
    <>
      <PageHead title="Configuration">
        <CheckState checked={checked} failure={checkFailure} />
        <button type="button" disabled={!dirty} onClick={revert}>
          Undo all
        </button>
        <button
          type="button"
          class="primary"
          disabled={!dirty || problems.length > 0}
          onClick={() => setReviewing(true)}
        >
          Review and save…
        </button>
      </PageHead>
      {failure !== null && <Problem title="The file cannot be read anew.">{failure.message}</Problem>}
      <Editor
        handle={editor}
        label="Configuration file"
        text={text}
        problems={problems}
        onInput={edit}
        onSave={() => dirty && problems.length === 0 && setReviewing(true)}
      />
      {problems.length > 0 && (
        <section class="card" aria-labelledby="config-problems">
          <h2 id="config-problems">{plural(problems.length, "problem")}</h2>
          <ol class="config-problems">
            {problems.map((problem, i) => (
              <li key={i}>
                <button
                  type="button"
                  class="quiet"
                  onClick={() => editor.current?.goTo(problem.line ?? 1, problem.column)}
                >
                  <span class="number">{problem.line === null ? "file" : `line ${problem.line}`}</span>
                  {problem.path && <code>{problem.path}</code>} {problem.message}
                </button>
              </li>
            ))}
          </ol>
        </section>
      )}
      {reviewing && <ReviewDialog checked={checked} onClose={() => setReviewing(false)} />}
    </>
  );
}

function CheckState({ checked, failure }: { checked: ConfigCheck | null; failure: string | null }) {
  return (
    <span role="status">
      {failure !== null ? (
        <Badge tone="warn">not checked: {failure}</Badge>
      ) : checked === null ? (
        <Badge tone="busy">checking</Badge>
      ) : checked.problems.length > 0 ? (
        <Badge tone="bad">{plural(checked.problems.length, "problem")}</Badge>
      ) : (
        <Badge tone="ok">no problems</Badge>
      )}
    </span>
  );
}

/** What the proxy thinks of *text*, some time after it last changed. */
function useCheck(text: string, ready: boolean) {
  const [result, setResult] = useState<{ text: string; checked: ConfigCheck | null; failure: string | null } | null>(
    null,
  );
  useEffect(() => {
    if (!ready) return;
    const life = new AbortController();
    async function run(): Promise<void> {
      await sleep(PAUSE_MS, life.signal);
      if (life.signal.aborted) return;
      try {
        setResult({ text, checked: await check(text, life.signal), failure: null });
      } catch (error) {
        if (!wasAborted(error)) setResult({ text, checked: null, failure: inWords(error) });
      }
    }
    void run();
    return () => life.abort();
  }, [text, ready]);
  // Problems of the text before stay until those of this one are known: lines that flicker help nobody.
  return { checked: result?.checked ?? null, checkFailure: result?.failure ?? null };
}
