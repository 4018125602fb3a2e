/** Models that clients may ask for, who serves them, and the chains that change what passes. */
import { useState } from "preact/hooks";

import type { Chain, Json, RoutedModel, Routes } from "../api/types";
import { plural } from "../lib/format";
import { usePoll } from "../lib/poll";
import { to } from "../lib/router";
import { Badge, Countdown, Empty, Loaded, PageHead, Search } from "../ui/bits";
import { READINESS_TONES } from "./readiness";

const POLL_MS = 10_000;

export function ModelsPage() {
  const routes = usePoll<Routes>("/routes", POLL_MS);
  const [search, setSearch] = useState("");
  return (
    <>
      <PageHead title="Models and routes">
        <Search label="Search models" value={search} onInput={setSearch} />
      </PageHead>
      <Loaded polled={routes}>
        {({ models, chains }) => (
          <>
            <Models models={models} search={search.trim().toLowerCase()} />
            <Chains chains={chains} />
          </>
        )}
      </Loaded>
    </>
  );
}

function Models({ models, search }: { models: RoutedModel[]; search: string }) {
  if (models.length === 0) {
    return (
      <Empty title="No models.">
        Models come with credentials: <a href={to("credentials")}>add one</a>.
      </Empty>
    );
  }
  const shown = models.filter((model) =>
    [
      model.id,
      model["display-name"],
      model["owned-by"],
      ...model.aliases,
      ...model.providers.map((route) => route.provider),
    ].some((text) => text.toLowerCase().includes(search)),
  );
  if (shown.length === 0) return <Empty title="No model matches.">Clear the search.</Empty>;
  return (
    <table class="rows stacking models">
      <thead>
        <tr>
          <th scope="col">Model</th>
          <th scope="col">Served by</th>
          <th scope="col">With</th>
        </tr>
      </thead>
      {shown.map((model) => (
        <tbody key={model.id}>
          {(model.providers.length > 0 ? model.providers : [null]).map((route, i, all) => (
            <tr key={i}>
              {i === 0 && (
                <th scope="rowgroup" rowSpan={all.length}>
                  {model.id}
                  <span class="secondary">
                    {[model["display-name"] !== model.id && model["display-name"], model["owned-by"], model.kind]
                      .filter(Boolean)
                      .join(" · ")}
                  </span>
                  {model.aliases.map((alias) => (
                    <span key={alias} class="tag">
                      {alias}
                    </span>
                  ))}
                </th>
              )}
              <td data-label="Served by">
                {route === null ? (
                  <span class="secondary">nobody</span>
                ) : (
                  <>
                    {route.provider} <span class="tag">{route.format}</span>
                    {route.model !== model.id && <span class="secondary"> as {route.model}</span>}
                  </>
                )}
              </td>
              <td data-label="With">
                <span class="chips">
                  {route?.credentials.map((credential) => (
                    <Badge key={credential.id} tone={READINESS_TONES[credential.state]}>
                      {credential.label || credential.id}
                      {credential.state !== "ready" && ` ${credential.state}`}
                      {credential.until !== null && (
                        <>
                          {" "}
                          <Countdown until={credential.until} />
                        </>
                      )}
                    </Badge>
                  ))}
                  {route !== null && route.more > 0 && (
                    <span class="secondary">and {plural(route.more, "more", "more")}</span>
                  )}
                </span>
              </td>
            </tr>
          ))}
        </tbody>
      ))}
    </table>
  );
}

function Chains({ chains }: { chains: Chain[] }) {
  return (
    <section aria-labelledby="chains" class="chains">
      <h2 id="chains">Chains</h2>
      {chains.length === 0 ? (
        <Empty title="No chains of your own: everything takes the standard order.">
          <code>pipeline.chains</code> under <a href={to("config")}>Configuration</a> defines them; docs/chains.md has
          examples.
        </Empty>
      ) : (
        chains.map((chain) => (
          <div key={chain.name} class="card chain">
            <h3>{chain.name}</h3>
            <p class="secondary">
              {chain.from || "any"} → {chain.to || "any"}
              {chain.models.length > 0 && `, models ${chain.models.join(", ")}`}
              {chain.keys.length > 0 && `, keys ${chain.keys.join(", ")}`}
            </p>
            <Steps title="Request" steps={chain.request} />
            <Steps title="Response" steps={chain.response} />
          </div>
        ))
      )}
    </section>
  );
}

function Steps({ title, steps }: { title: string; steps: Json[] }) {
  return (
    <div class="chain-steps">
      <span>{title}</span>
      <ol>
        {steps.map((step, i) => (
          <li key={i}>{inWords(step)}</li>
        ))}
      </ol>
    </div>
  );
}

/** `strip-cache-control`, `plugin: redact`. */
function inWords(step: Json): string {
  if (typeof step === "string") return step;
  if (step === null || typeof step !== "object" || Array.isArray(step)) return JSON.stringify(step);
  return Object.entries(step)
    .map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
}
