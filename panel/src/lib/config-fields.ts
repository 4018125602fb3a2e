/** Values of plugin settings as texts of a form and back, by the types of plugin-abi 3.3. */
import type { ConfigField, Json } from "../api/types";

/** Either what to send (null = the setting is not there), or what is wrong. */
export type Read = { value: Json; error: null } | { value: null; error: string };

/** *value* as its control shows it; undefined = not set. */
export function toText(type: ConfigField["type"], value: Json | undefined): string {
  if (value === undefined || value === null) return "";
  if (type === "array" || type === "object") return JSON.stringify(value, null, 2);
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function fromText(field: ConfigField, text: string): Read {
  const trimmed = text.trim();
  if (field.type === "string") return good(text === "" ? null : text);
  if (trimmed === "") return good(null);
  switch (field.type) {
    case "boolean":
      return trimmed === "true" || trimmed === "false"
        ? good(trimmed === "true")
        : bad(`true or false, not ${trimmed}`);
    case "enum":
      return field.enum_values.length === 0 || field.enum_values.includes(text)
        ? good(text)
        : bad(`one of ${field.enum_values.join(", ")}, not ${text}`);
    case "integer":
      if (!/^[+-]?\d+$/.test(trimmed)) return bad("a whole number, like 3");
      return Number.isSafeInteger(Number(trimmed)) ? good(Number(trimmed)) : bad("a whole number below 2^53");
    case "number":
      return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed) && Number.isFinite(Number(trimmed))
        ? good(Number(trimmed))
        : bad("a number, like 0.5");
    case "array":
    case "object":
      return structured(field.type, trimmed);
    default: // A type of a future contract: what reads as JSON is that, all else is text.
      return structured(null, trimmed).error === null ? structured(null, trimmed) : good(text);
  }
}

function structured(type: "array" | "object" | null, text: string): Read {
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
  } catch (error) {
    return bad(`JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const found = Array.isArray(value)
    ? "array"
    : value !== null && typeof value === "object"
      ? "object"
      : "something else";
  if (type !== null && found !== type) {
    return bad(type === "array" ? 'a JSON array, like ["a", "b"]' : 'a JSON object, like {"name": "value"}');
  }
  return good(value);
}

const good = (value: Json): Read => ({ value, error: null });
const bad = (expected: string): Read => ({ value: null, error: `Expected ${expected}.` });
