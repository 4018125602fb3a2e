/** Shapes of the management API as docs/management.md has them. Times are Unix seconds unless a name says otherwise. */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type JsonObject = { [name: string]: Json };

export interface OverviewPoint {
  time: number;
  requests: number;
  errors: number;
  "input-tokens": number;
  "output-tokens": number;
  "latency-p50-ms": number | null;
  "latency-p95-ms": number | null;
  "first-byte-p50-ms": number | null;
}

export interface Overview {
  version: string;
  "uptime-s": number;
  "started-at": number;
  running: number;
  "step-s": number;
  points: OverviewPoint[];
  totals: { requests: number; errors: number; "input-tokens": number; "output-tokens": number };
  plugins: { registered: number; failed: number };
  credentials: { ready: number; cooling: number; disabled: number };
}

export type RequestState = "running" | "done" | "failed" | "aborted";

export interface RequestSummary {
  id: string;
  time: number;
  client: string;
  protocol: string;
  model: string;
  provider: string | null;
  "provider-format": string | null;
  "provider-model": string | null;
  credential: string | null;
  stream: boolean;
  state: RequestState;
  status: number | null;
  error: string | null;
  "duration-ms": number | null;
  "first-byte-ms": number | null;
  "input-tokens": number | null;
  "output-tokens": number | null;
  stages: number;
  losses: number;
  nested: boolean;
}

export interface Stage {
  stage: string;
  plugin: string | null;
  step: string | null;
  chain: string | null;
  side: "request" | "response" | "stream";
  calls: number;
  "duration-us": number;
  outcome: "complete" | "failed" | "skipped";
  reason: string | null;
  changed: number;
  changes: string[];
}

export interface Attempt {
  credential: string | null;
  provider: string;
  model: string;
  status: number | null;
  error: string | null;
  "duration-ms": number | null;
  why: string | null;
}

export type RequestDetail = Omit<RequestSummary, "stages" | "losses"> & {
  stages: Stage[];
  losses: { path: string; reason: string }[];
  attempts: Attempt[];
};

export type Readiness = "ready" | "cooling" | "disabled" | "excluded";

export interface RoutedModel {
  id: string;
  "display-name": string;
  "owned-by": string;
  kind: string;
  aliases: string[];
  providers: {
    provider: string;
    format: string;
    model: string;
    credentials: { id: string; label: string; state: Readiness; until: number | null }[];
    /** Credentials that are not listed. */
    more: number;
  }[];
}

export interface Chain {
  name: string;
  from: string;
  to: string;
  models: string[];
  keys: string[];
  request: Json[];
  response: Json[];
}

export interface Routes {
  models: RoutedModel[];
  chains: Chain[];
}

export interface Limits {
  clients: {
    client: string;
    /** Of its key, with most of it left out. */
    label: string;
    limits: { limit: string; used: number; allowed: number; "resets-at": number | null }[];
  }[];
}

export interface CredentialModel {
  id: string;
  state: Readiness;
  until: number | null;
  reason: string | null;
  kind: string | null;
}

export interface Credential {
  id: string;
  "auth-index": string;
  label: string;
  provider: string;
  source: "config" | "file";
  name: string;
  "config-path": string | null;
  /** One of several out of one file, which alone can be changed. */
  virtual: boolean;
  disabled: boolean;
  status: string;
  "status-message": string;
  priority: number;
  weight: number;
  models: CredentialModel[];
  success: number;
  failed: number;
  "recent-requests": { time: string; success: number; failed: number }[];
}

export interface Why {
  used: boolean;
  state: string;
  reason: string;
  next: string;
  until: string | null;
}

export type FieldType = "string" | "number" | "integer" | "boolean" | "enum" | "array" | "object";

export interface ConfigField {
  name: string;
  type: FieldType;
  enum_values: string[];
  description: string;
}

export type PluginState = "registered" | "disabled" | "failed" | "restarting" | "fused";

export interface Plugin {
  id: string;
  path: string;
  configured: boolean;
  registered: boolean;
  enabled: boolean;
  effective_enabled: boolean;
  supports_oauth: boolean;
  oauth_provider: string;
  config_fields: ConfigField[];
  menus: { path: string; menu: string; description: string }[];
  metadata: { name: string; version: string; author: string; github_repository: string } | null;
  state: PluginState;
  reason: string;
  generation: number;
  isolation: string;
  /** 0 = none. */
  pid: number;
  priority: number;
  schema_version: number;
  capabilities: string[];
}

export interface PluginList {
  plugins_enabled: boolean;
  plugins_dir: string;
  plugins: Plugin[];
}

export interface ConfigProblem {
  line: number | null;
  column: number | null;
  path: string;
  message: string;
}

export interface ConfigCheck {
  ok: boolean;
  problems: ConfigProblem[];
  changes: string[];
  restart: string[];
}

export interface LogLine {
  time: number;
  level: string;
  event: string;
  text: string;
}

export interface RecentLog {
  lines: LogLine[];
  "next-cursor": string;
  "cursor-reset"?: boolean;
}
