import type { PluginState } from "../api/types";
import type { Tone } from "../ui/bits";

export const PLUGIN_TONES: Record<PluginState, Tone> = {
  registered: "ok",
  disabled: "off",
  failed: "bad",
  restarting: "busy",
  fused: "bad",
};
