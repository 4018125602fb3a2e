/** One plugin: how it is, what it can do, its settings and its pages. */
import { useState } from "preact/hooks";

import { change, path } from "../api/client";
import type { JsonObject, Plugin } from "../api/types";
import { attempt } from "../lib/notices";
import { usePoll } from "../lib/poll";
import { go, to } from "../lib/router";
import { ActionButton, Badge, Empty } from "../ui/bits";
import { Confirm } from "../ui/dialog";
import { PluginForm } from "./plugin-form";
import { PLUGIN_TONES } from "./plugin-state";

const SETTINGS_POLL_MS = 30_000;

/** Pages of plugins are below this path and nowhere else. */
const RESOURCES = "/v0/resource/plugins/";

interface DetailProps {
  id: string;
  /** null: it is not in the list (any more). */
  plugin: Plugin | null;
  menu: string | null;
  refresh: () => void;
}

export function PluginDetail({ id, plugin, menu, refresh }: DetailProps) {
  return (
    <section class="card detail" aria-labelledby="plugin">
      <div class="detail-head">
        <h2 id="plugin">{id}</h2>
        <button type="button" class="quiet icon" aria-label="Close" onClick={() => go("plugins")}>
          ✕
        </button>
      </div>
      {plugin === null ? (
        <Empty title="There is no such plugin.">Its library was removed, or it was never configured.</Empty>
      ) : menu !== null ? (
        <PluginPage plugin={plugin} menu={menu} />
      ) : (
        <About plugin={plugin} refresh={refresh} />
      )}
    </section>
  );
}

function About({ plugin, refresh }: { plugin: Plugin; refresh: () => void }) {
  const { metadata } = plugin;
  const settings = usePoll<JsonObject>(`/plugins${path(plugin.id)}/config`, SETTINGS_POLL_MS);
  return (
    <>
      <dl class="facts">
        <dt>State</dt>
        <dd>
          <Badge tone={PLUGIN_TONES[plugin.state]}>{plugin.state}</Badge>
          {plugin.reason && <p class="reason">{plugin.reason}</p>}
        </dd>
        {metadata !== null && (
          <>
            <dt>Name</dt>
            <dd>
              {metadata.name} {metadata.version} by {metadata.author}
            </dd>
            <dt>Source</dt>
            <dd>{metadata.github_repository}</dd>
          </>
        )}
        <dt>Library</dt>
        <dd>
          <code>{plugin.path || "none found"}</code>
        </dd>
        <dt>Runs</dt>
        <dd>
          {plugin.isolation === "inline" ? "inside the proxy" : "in a process of its own"}
          {plugin.pid > 0 && `, process ${plugin.pid}`}, generation {plugin.generation}
        </dd>
        <dt>Does</dt>
        <dd>
          {plugin.capabilities.length === 0
            ? "nothing at the moment"
            : plugin.capabilities.map((name) => (
                <span key={name} class="tag">
                  {name.replaceAll("_", " ")}
                </span>
              ))}
        </dd>
      </dl>
      <Actions plugin={plugin} refresh={refresh} />
      {plugin.menus.length > 0 && (
        <>
          <h3>Pages</h3>
          <ul class="menus">
            {plugin.menus.map((page) => (
              <li key={page.path}>
                <a href={to("plugins", plugin.id, page.path)}>{page.menu}</a>{" "}
                <span class="secondary">{page.description}</span>
              </li>
            ))}
          </ul>
        </>
      )}
      <h3>Settings</h3>
      <PluginForm
        id={plugin.id}
        fields={plugin.config_fields}
        settings={settings}
        onSaved={() => {
          settings.refresh();
          refresh();
        }}
      />
    </>
  );
}

function Actions({ plugin, refresh }: { plugin: Plugin; refresh: () => void }) {
  const [deleting, setDeleting] = useState(false);
  const order = (done: string, action: "rearm" | "reload") => async () => {
    await attempt(done, () => change("POST", `/plugins${path(plugin.id)}/${action}`));
    refresh();
  };
  return (
    <div class="actions">
      {(plugin.state === "fused" || plugin.state === "failed" || plugin.state === "restarting") && (
        <ActionButton onClick={order(`${plugin.id} is started again.`, "rearm")}>Re-arm</ActionButton>
      )}
      <ActionButton
        disabled={!plugin.enabled}
        title="Load the library again, as a new generation"
        onClick={order(`${plugin.id} is loaded anew.`, "reload")}
      >
        Reload
      </ActionButton>
      <button type="button" class="danger quiet" onClick={() => setDeleting(true)}>
        Delete…
      </button>
      {deleting && (
        <Confirm
          title={`Delete ${plugin.id}?`}
          action="Delete the plugin"
          onClose={() => setDeleting(false)}
          onConfirm={async () => {
            const gone = await attempt(`${plugin.id} is deleted.`, () =>
              change("DELETE", `/plugins${path(plugin.id)}`),
            );
            refresh();
            if (gone) go("plugins");
          }}
        >
          <p>
            Its settings are removed from the configuration, and its library <code>{plugin.path}</code> from the disk.
            This cannot be undone here.
          </p>
        </Confirm>
      )}
    </div>
  );
}

/**
 * A page of the plugin's own, in a frame that has neither our origin nor our storage: the key stays out of its reach.
 * Only addresses that the list names are opened.
 */
function PluginPage({ plugin, menu }: { plugin: Plugin; menu: string }) {
  const page = plugin.menus.find((found) => found.path === menu && found.path.startsWith(RESOURCES));
  if (page === undefined) {
    return (
      <Empty title="The plugin has no such page.">
        <a href={to("plugins", plugin.id)}>Back to {plugin.id}</a>
      </Empty>
    );
  }
  return (
    <>
      <p>
        <a href={to("plugins", plugin.id)}>← {plugin.id}</a> <strong>{page.menu}</strong>{" "}
        <span class="secondary">{page.description}</span>
      </p>
      <iframe
        class="plugin-page"
        title={`${page.menu}, a page of ${plugin.id}`}
        src={page.path}
        sandbox="allow-scripts allow-forms"
      />
    </>
  );
}
