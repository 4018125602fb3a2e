/** A form for a plugin's settings, made from the fields that it declares. Only what was changed is sent. */
import { useState } from "preact/hooks";

import { change, path } from "../api/client";
import type { ConfigField, JsonObject } from "../api/types";
import { fromText, type Read, toText } from "../lib/config-fields";
import { attempt } from "../lib/notices";
import type { Polled } from "../lib/poll";
import { Loaded } from "../ui/bits";
import { Field, TextInput } from "../ui/field";

/** What the proxy itself reads of a plugin's settings. */
const OF_THE_HOST: ConfigField[] = [
  {
    name: "priority",
    type: "integer",
    enum_values: [],
    description: "Plugins with a higher one come first; equal ones by id.",
  },
  {
    name: "isolation",
    type: "enum",
    enum_values: ["process", "inline"],
    description: "A process of its own (the default), or inside the proxy for plugins that are trusted.",
  },
  { name: "timeout", type: "number", enum_values: [], description: "Seconds that a call may take; 0 = no limit." },
  {
    name: "on-error",
    type: "enum",
    enum_values: ["skip", "fail"],
    description: "While the plugin is away, requests pass without it (skip), or are refused (fail).",
  },
];
const SHOWN_ELSEWHERE = new Set(["enabled", "store"]);
const SECRET = /key|token|secret|passw/i;

interface PluginFormProps {
  id: string;
  fields: ConfigField[];
  settings: Polled<JsonObject>;
  onSaved: () => void;
}

export function PluginForm({ id, fields, settings, onSaved }: PluginFormProps) {
  return (
    <Loaded polled={settings}>{(saved) => <Form id={id} fields={fields} saved={saved} onSaved={onSaved} />}</Loaded>
  );
}

function Form({
  id,
  fields,
  saved,
  onSaved,
}: {
  id: string;
  fields: ConfigField[];
  saved: JsonObject;
  onSaved: () => void;
}) {
  const [edits, setEdits] = useState<Record<string, string>>({});
  const own = unique(fields);
  const all = [...own, ...OF_THE_HOST.filter((host) => !own.some((field) => field.name === host.name))];
  const textOf = (field: ConfigField) => edits[field.name] ?? toText(field.type, saved[field.name]);
  const changed = all.filter((field) => textOf(field) !== toText(field.type, saved[field.name]));
  const reads = new Map(changed.map((field) => [field.name, fromText(field, textOf(field))]));
  const wrong = [...reads.values()].some((read) => read.error !== null);
  const others = Object.keys(saved).filter(
    (name) => !all.some((field) => field.name === name) && !SHOWN_ELSEWHERE.has(name),
  );

  const draw = (field: ConfigField) => (
    <SettingField
      key={field.name}
      field={field}
      text={textOf(field)}
      read={reads.get(field.name) ?? null}
      onInput={(text) => setEdits({ ...edits, [field.name]: text })}
    />
  );
  return (
    <form
      class="settings"
      onSubmit={(event) => {
        event.preventDefault();
        if (wrong || changed.length === 0) return;
        const members = Object.fromEntries([...reads].map(([name, read]) => [name, read.value]));
        void attempt("Settings saved.", () => change("PATCH", `/plugins${path(id)}/config`, members)).then((saved) => {
          if (!saved) return;
          setEdits({});
          onSaved();
        });
      }}
    >
      {own.length === 0 && <p class="secondary">This plugin declares no settings of its own.</p>}
      {own.map(draw)}
      <fieldset>
        <legend>How it is run</legend>
        {all.slice(own.length).map(draw)}
      </fieldset>
      {others.length > 0 && (
        <p class="secondary">
          Also set, but not declared by the plugin:{" "}
          {others.map((name) => (
            <code key={name}>{name} </code>
          ))}
          – they stay as they are; edit them under <a href="#/config">Configuration</a>.
        </p>
      )}
      <footer>
        <button type="submit" class="primary" disabled={wrong || changed.length === 0}>
          Save {changed.length > 0 && `${changed.length} changed`}
        </button>
        <button type="button" disabled={changed.length === 0} onClick={() => setEdits({})}>
          Undo
        </button>
      </footer>
    </form>
  );
}

interface SettingProps {
  field: ConfigField;
  text: string;
  /** Of the edited text. */
  read: Read | null;
  onInput: (text: string) => void;
}

function SettingField({ field, text, read, onInput }: SettingProps) {
  const choices = field.type === "boolean" ? ["true", "false"] : field.type === "enum" ? field.enum_values : null;
  return (
    <Field
      label={
        <>
          <code>{field.name}</code> <span class="secondary">{field.type}</span>
        </>
      }
      help={field.description}
      error={read?.error ?? null}
    >
      {(attributes) => {
        const input = (event: { currentTarget: { value: string } }) => onInput(event.currentTarget.value);
        if (choices !== null) {
          return (
            <select {...attributes} value={text} onChange={input}>
              <option value="">not set</option>
              {(text === "" || choices.includes(text) ? choices : [text, ...choices]).map((choice) => (
                <option key={choice}>{choice}</option>
              ))}
            </select>
          );
        }
        if (field.type === "array" || field.type === "object") {
          return (
            <textarea
              {...attributes}
              rows={Math.min(10, text.split("\n").length + 1)}
              spellcheck={false}
              value={text}
              onInput={input}
            />
          );
        }
        return (
          <TextInput
            {...attributes}
            secret={field.type === "string" && SECRET.test(field.name)}
            inputMode={field.type === "integer" ? "numeric" : field.type === "number" ? "decimal" : "text"}
            placeholder="not set"
            value={text}
            onInput={onInput}
          />
        );
      }}
    </Field>
  );
}

/** The first of each name: plugins may declare anything. */
function unique(fields: ConfigField[]): ConfigField[] {
  return fields.filter((field, i) => fields.findIndex((other) => other.name === field.name) === i);
}
