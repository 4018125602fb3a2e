/** A labelled field with its help and what is wrong with its value, tied together for screen readers. */
import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";

export interface FieldProps {
  label: ComponentChildren;
  help?: ComponentChildren;
  error?: string | null;
  /** Draws the control with these attributes. */
  children: (attributes: { id: string; "aria-describedby": string; "aria-invalid": boolean }) => JSX.Element;
}

export function Field({ label, help, error = null, children }: FieldProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, "aria-describedby": `${id}-about`, "aria-invalid": error !== null })}
      <div id={`${id}-about`} class="about">
        {error !== null && <span class="wrong">{error} </span>}
        {help}
      </div>
    </div>
  );
}

interface InputProps {
  id: string;
  "aria-describedby": string;
  "aria-invalid": boolean;
  /** Shown as dots. */
  secret?: boolean;
  required?: boolean;
  placeholder?: string;
  inputMode?: "text" | "numeric" | "decimal";
  value: string;
  onInput: (value: string) => void;
}

/** One line of text that the browser neither completes nor corrects. */
export function TextInput({ secret = false, onInput, ...rest }: InputProps) {
  const common = {
    ...rest,
    autocomplete: "off",
    spellcheck: false,
    onInput: (event: { currentTarget: HTMLInputElement }) => onInput(event.currentTarget.value),
  } as const;
  return secret ? <input type="password" {...common} /> : <input type="text" {...common} />;
}

interface TextProps {
  label: string;
  value: string;
  onInput: (value: string) => void;
  help?: ComponentChildren;
  error?: string | null;
  secret?: boolean;
  required?: boolean;
  placeholder?: string;
}

export function TextField({ label, value, onInput, help, error, secret, required, placeholder }: TextProps) {
  return (
    <Field label={label} help={help} error={error ?? null}>
      {(attributes) => (
        <TextInput
          {...attributes}
          secret={secret ?? false}
          required={required ?? false}
          placeholder={placeholder ?? ""}
          value={value}
          onInput={onInput}
        />
      )}
    </Field>
  );
}
