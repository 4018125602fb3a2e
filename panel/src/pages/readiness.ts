import type { Readiness } from "../api/types";
import type { Tone } from "../ui/bits";

export const READINESS_TONES: Record<Readiness, Tone> = {
  ready: "ok",
  cooling: "warn",
  disabled: "off",
  excluded: "off",
};
