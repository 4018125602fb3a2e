/** The page is the fragment: `#/plugins/redact`. */
import { signal } from "@preact/signals";

/** Decoded segments, at least one. */
export const route = signal<string[]>(read());

window.addEventListener("hashchange", () => (route.value = read()));

/** The address of a page, for links. */
export function to(...segments: string[]): string {
  return `#/${segments.map(encodeURIComponent).join("/")}`;
}

export function go(...segments: string[]): void {
  window.location.hash = to(...segments);
}

function read(): string[] {
  const segments = window.location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  try {
    return segments.length > 0 ? segments.map(decodeURIComponent) : ["overview"];
  } catch {
    return ["overview"];
  }
}
