/** What an operator should look at, worst first. */
import type { Credential, PluginList } from "../api/types";
import { plural, unescaped } from "../lib/format";
import { to } from "../lib/router";

export interface Trouble {
  tone: "bad" | "warn";
  text: string;
  href: string;
}

export function problemsOf(plugins: PluginList | null, credentials: Credential[] | null): Trouble[] {
  const found: Trouble[] = [];
  for (const plugin of plugins?.plugins ?? []) {
    if (plugin.state !== "failed" && plugin.state !== "fused" && plugin.state !== "restarting") continue;
    found.push({
      tone: plugin.state === "restarting" ? "warn" : "bad",
      text: `Plugin ${unescaped(plugin.id)} is ${plugin.state}: ${unescaped(plugin.reason) || "see the log"}`,
      href: to("plugins", unescaped(plugin.id)),
    });
  }
  if (plugins !== null && !plugins.plugins_enabled && plugins.plugins.some((plugin) => plugin.enabled)) {
    found.push({ tone: "warn", text: "Plugins are switched off as a whole (plugins.enabled).", href: to("plugins") });
  }
  if (credentials !== null) {
    if (!credentials.some((credential) => !credential.disabled)) {
      found.push({ tone: "bad", text: "No credential is in use: no model can be served.", href: to("credentials") });
    }
    for (const credential of credentials) {
      const cooling = credential.models.filter((model) => model.state === "cooling");
      if (credential.disabled || cooling.length === 0) continue;
      const [first] = cooling;
      found.push({
        tone: "warn",
        text:
          `${credential.label || credential.name} cools down for ` +
          `${cooling.length === 1 ? first?.id : plural(cooling.length, "model")}: ` +
          (first?.reason ?? first?.kind ?? ""),
        href: to("credentials"),
      });
    }
  }
  return found.sort((a, b) => Number(a.tone === "warn") - Number(b.tone === "warn"));
}
