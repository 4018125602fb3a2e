/** Credentials: how each one fares, model by model, and why. */
import { useState } from "preact/hooks";

import { change } from "../api/client";
import type { Credential, CredentialModel } from "../api/types";
import { count, plural } from "../lib/format";
import { attempt } from "../lib/notices";
import { usePoll } from "../lib/poll";
import { removeKey } from "../lib/provider-lists";
import { ActionButton, Badge, Countdown, Empty, Loaded, PageHead, Search, Sparkline, Switch } from "../ui/bits";
import { Confirm } from "../ui/dialog";
import { AddCredential } from "./add-credential";
import { READINESS_TONES } from "./readiness";
import { WhyDialog } from "./why";

const POLL_MS = 4_000;
const MODELS_SHOWN = 6;

export function CredentialsPage() {
  const polled = usePoll<{ credentials: Credential[] }>("/credentials", POLL_MS);
  const [search, setSearch] = useState("");
  const [adding, setAdding] = useState(false);
  return (
    <>
      <PageHead title="Credentials">
        <Search label="Search credentials" value={search} onInput={setSearch} />
        <button type="button" class="primary" onClick={() => setAdding(true)}>
          Add…
        </button>
      </PageHead>
      <Loaded polled={polled}>
        {({ credentials }) => <Groups credentials={credentials} search={search} refresh={polled.refresh} />}
      </Loaded>
      {adding && <AddCredential onClose={() => setAdding(false)} onAdded={polled.refresh} />}
    </>
  );
}

function Groups({ credentials, search, refresh }: { credentials: Credential[]; search: string; refresh: () => void }) {
  if (credentials.length === 0) {
    return (
      <Empty title="No credentials yet.">Add a provider's key: without one there is nobody to send requests to.</Empty>
    );
  }
  const wanted = search.trim().toLowerCase();
  const shown = credentials.filter(({ label, name, provider, models }) =>
    [label, name, provider, ...models.map((model) => model.id)].some((text) => text.toLowerCase().includes(wanted)),
  );
  if (shown.length === 0) return <Empty title="No credential matches.">Clear the search.</Empty>;
  const providers = [...new Set(shown.map((credential) => credential.provider))].sort();
  return (
    <>
      {providers.map((provider) => (
        <section key={provider} class="provider" aria-label={provider}>
          <h2>{provider}</h2>
          <ul class="credentials">
            {shown
              .filter((credential) => credential.provider === provider)
              .map((credential) => (
                <CredentialCard key={credential.id} credential={credential} refresh={refresh} />
              ))}
          </ul>
        </section>
      ))}
    </>
  );
}

/** Names that several credentials share say little: where it comes from tells them apart. */
function origin(credential: Credential): string {
  return credential.source === "file" ? credential.name : (credential["config-path"] ?? "configuration");
}

function CredentialCard({ credential, refresh }: { credential: Credential; refresh: () => void }) {
  const [all, setAll] = useState(false);
  const [asking, setAsking] = useState<string | null>(null);
  const cooling = credential.models.filter((model) => model.state === "cooling");
  const models = [...credential.models].sort((a, b) => rank(a) - rank(b));
  const shown = all ? models : models.slice(0, Math.max(MODELS_SHOWN, cooling.length));
  return (
    <li class={`card credential ${credential.disabled ? "disabled" : ""}`}>
      <div class="credential-head">
        <div class="what">
          <strong>{credential.label || credential.name}</strong>
          <span class="secondary">{origin(credential)}</span>
        </div>
        <Badge tone={credential.disabled ? "off" : cooling.length > 0 || credential.status === "error" ? "warn" : "ok"}>
          {credential.disabled ? "disabled" : cooling.length > 0 ? "cooling" : credential.status || "ready"}
        </Badge>
        <Switch
          on={!credential.disabled}
          label={`${credential.label || credential.name} (${origin(credential)}) enabled`}
          disabled={credential.virtual}
          onChange={async (on) => {
            await attempt(`${credential.label || credential.name} is ${on ? "enabled" : "disabled"}.`, () =>
              change("PATCH", "/auth-files/status", {
                name: credential.source === "file" ? credential.name : credential.id,
                auth_index: credential["auth-index"],
                disabled: !on,
              }),
            );
            refresh();
          }}
        />
      </div>
      {credential["status-message"] && cooling.length === 0 && <p class="reason">{credential["status-message"]}</p>}
      <p class="credential-numbers">
        <Sparkline steps={credential["recent-requests"]} />
        <span>
          {count(credential.success)} succeeded, {count(credential.failed)} failed
          {credential.priority !== 0 && `, priority ${credential.priority}`}
          {credential.weight !== 1 && `, weight ${credential.weight}`}
        </span>
      </p>
      <ul class="model-states" aria-label="Models">
        {shown.map((model) => (
          <li key={model.id}>
            <button type="button" class="model-state" title="Why?" onClick={() => setAsking(model.id)}>
              <span class="model-name">{model.id}</span>
              <Badge tone={READINESS_TONES[model.state]}>
                {model.state}
                {model.until !== null && (
                  <>
                    {" "}
                    <Countdown until={model.until} />
                  </>
                )}
              </Badge>
              {model.reason && <span class="reason">{model.reason}</span>}
            </button>
          </li>
        ))}
        {models.length > shown.length && (
          <li>
            <button type="button" class="quiet" onClick={() => setAll(true)}>
              {plural(models.length - shown.length, "more model")}
            </button>
          </li>
        )}
        {models.length === 0 && <li class="secondary">It serves no models.</li>}
      </ul>
      <CardActions credential={credential} cooling={cooling} refresh={refresh} />
      {asking !== null && <WhyDialog credential={credential} model={asking} onClose={() => setAsking(null)} />}
    </li>
  );
}

interface ActionsProps {
  credential: Credential;
  cooling: CredentialModel[];
  refresh: () => void;
}

function CardActions({ credential, cooling, refresh }: ActionsProps) {
  const [deleting, setDeleting] = useState(false);
  const name = credential.label || credential.name;
  return (
    <div class="actions">
      {cooling.length > 0 && (
        <ActionButton
          onClick={async () => {
            await attempt(`${name} is used again.`, () =>
              change("POST", "/reset-quota", { auth_index: credential["auth-index"] }),
            );
            refresh();
          }}
        >
          End the cooldown
        </ActionButton>
      )}
      {!credential.virtual && (
        <button type="button" class="danger quiet" onClick={() => setDeleting(true)}>
          Delete…
        </button>
      )}
      {deleting && (
        <Confirm
          title={`Delete ${name}?`}
          action="Delete the credential"
          onClose={() => setDeleting(false)}
          onConfirm={async () => {
            await attempt(`${name} is deleted.`, () =>
              credential.source === "file"
                ? change("DELETE", `/auth-files?name=${encodeURIComponent(credential.name)}`)
                : removeKey(credential),
            );
            refresh();
          }}
        >
          <p>
            {credential.source === "file" ? (
              <>
                The file <code>{credential.name}</code> is removed from the auth-dir.
              </>
            ) : (
              <>
                Its key is removed from <code>{origin(credential)}</code> of the configuration.
              </>
            )}{" "}
            This cannot be undone here. To stop using it for a while, switch it off instead.
          </p>
        </Confirm>
      )}
    </div>
  );
}

/** What needs attention first; all else as it is listed. */
function rank(model: CredentialModel): number {
  return { cooling: 0, ready: 1, disabled: 2, excluded: 3 }[model.state];
}
