/** A dialog that adds a provider's key to the configuration, or uploads credential files. */
import { useState } from "preact/hooks";

import { change, inWords } from "../api/client";
import { say } from "../lib/notices";
import { addKey, COMPATIBLE, type NewKey, PROVIDER_LISTS } from "../lib/provider-lists";
import { Dialog } from "../ui/dialog";
import { Field, TextField } from "../ui/field";

const EMPTY: NewKey = { list: "claude-api-key", name: "", apiKey: "", baseUrl: "", prefix: "", models: "" };

interface AddProps {
  onClose: () => void;
  onAdded: () => void;
}

export function AddCredential({ onClose, onAdded }: AddProps) {
  const [way, setWay] = useState<"key" | "file">("key");
  const Form = way === "key" ? KeyForm : FileForm;
  return (
    <Dialog title="Add a credential" onClose={onClose}>
      <div class="body choices" role="radiogroup" aria-label="What to add">
        <label class="check">
          <input type="radio" name="way" checked={way === "key"} onChange={() => setWay("key")} /> A provider's API key
        </label>
        <label class="check">
          <input type="radio" name="way" checked={way === "file"} onChange={() => setWay("file")} /> A credential file
        </label>
      </div>
      <Form onClose={onClose} onAdded={onAdded} />
    </Dialog>
  );
}

function KeyForm({ onClose, onAdded }: AddProps) {
  const [key, setKey] = useState(EMPTY);
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const set = (name: keyof NewKey) => (value: string) => setKey({ ...key, [name]: value });
  const list = PROVIDER_LISTS.find((found) => found.name === key.list)!;
  const compatible = key.list === COMPATIBLE;
  const save = async () => {
    setBusy(true);
    setFailure(null);
    try {
      await addKey(key);
      say("done", `The ${list.title} key is added.`);
      onAdded();
      onClose();
    } catch (error) {
      setFailure(inWords(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => (event.preventDefault(), void save())}>
      <div class="body">
        <Field label="Provider">
          {(attributes) => (
            <select {...attributes} value={key.list} onChange={(event) => set("list")(event.currentTarget.value)}>
              {PROVIDER_LISTS.map(({ name, title }) => (
                <option key={name} value={name}>
                  {title}
                </option>
              ))}
            </select>
          )}
        </Field>
        {compatible && (
          <TextField
            label="Name"
            required
            value={key.name}
            onInput={set("name")}
            help="Of the provider, as you like. That of one that is there already gives it one more key."
          />
        )}
        <TextField
          label="API key"
          secret
          required={!compatible}
          value={key.apiKey}
          onInput={set("apiKey")}
          help={compatible ? "Empty for a provider that wants none." : undefined}
        />
        <TextField
          label="Base URL"
          required={list.home === "" && !compatible}
          value={key.baseUrl}
          onInput={set("baseUrl")}
          placeholder={compatible ? "https://provider.example/v1" : ""}
          help={list.home === "" ? "Where the provider is." : `Empty for ${list.home} itself.`}
        />
        <Field
          label="Models"
          help="One a line: name, or name = alias. Empty for all that the provider is known to have."
        >
          {(attributes) => (
            <textarea
              {...attributes}
              rows={3}
              spellcheck={false}
              value={key.models}
              onInput={(event) => set("models")(event.currentTarget.value)}
            />
          )}
        </Field>
        <TextField
          label="Prefix"
          value={key.prefix}
          onInput={set("prefix")}
          help="Clients that ask for prefix/model get this credential."
        />
        <Failure text={failure} />
      </div>
      <Footer onClose={onClose} busy={busy} action="Add the key" />
    </form>
  );
}

function FileForm({ onClose, onAdded }: AddProps) {
  const [files, setFiles] = useState<File[]>([]);
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const save = async () => {
    setBusy(true);
    setFailure(null);
    const form = new FormData();
    for (const file of files) form.append("file", file, file.name);
    try {
      const { failed = [] } = await change<{ failed?: { name: string; error: string }[] }>("POST", "/auth-files", form);
      onAdded();
      if (failed.length > 0) {
        setFailure(
          `Not taken: ${failed.map(({ name, error }) => `${name} (${error})`).join(", ")}. The others are in use.`,
        );
        return;
      }
      say("done", files.length === 1 ? "The file is uploaded." : `${files.length} files are uploaded.`);
      onClose();
    } catch (error) {
      setFailure(inWords(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => (event.preventDefault(), void save())}>
      <div class="body">
        <Field label="Files" help="JSON, as plugins and providers write them. They are stored in the auth-dir.">
          {(attributes) => (
            <input
              {...attributes}
              type="file"
              accept=".json,application/json"
              multiple
              required
              onChange={(event) => setFiles([...(event.currentTarget.files ?? [])])}
            />
          )}
        </Field>
        <Failure text={failure} />
      </div>
      <Footer onClose={onClose} busy={busy} action="Upload" />
    </form>
  );
}

function Failure({ text }: { text: string | null }) {
  if (text === null) return null;
  return (
    <div class="problem" role="alert">
      {text}
    </div>
  );
}

function Footer({ onClose, busy, action }: { onClose: () => void; busy: boolean; action: string }) {
  return (
    <footer>
      <button type="button" onClick={onClose}>
        Cancel
      </button>
      <button type="submit" class="primary" disabled={busy} aria-busy={busy}>
        {action}
      </button>
    </footer>
  );
}
