/** Plugins: who there is, in which order they are asked, and one of them in detail. */
import { useMemo, useRef } from "preact/hooks";

import { change, path } from "../api/client";
import type { Plugin, PluginList } from "../api/types";
import { unescaped } from "../lib/format";
import { attempt } from "../lib/notices";
import { usePoll } from "../lib/poll";
import { useReorder } from "../lib/reorder";
import { to } from "../lib/router";
import { ActionButton, Badge, Empty, Loaded, PageHead, Problem, Switch } from "../ui/bits";
import { PluginDetail } from "./plugin-detail";
import { PLUGIN_TONES } from "./plugin-state";

const POLL_MS = 4_000;

/** *id*: the plugin shown; *menu*: path of the page of it that is open. */
export function PluginsPage({ id, menu }: { id: string | null; menu: string | null }) {
  const listed = usePoll<PluginList>("/plugins", POLL_MS);
  const polled = useMemo(() => ({ ...listed, data: listed.data && plain(listed.data) }), [listed.data, listed.error]);
  return (
    <div class={id === null ? "" : "split"}>
      <section aria-label="Plugins" class="list-side">
        <PageHead title="Plugins" />
        <Loaded polled={polled}>{(data) => <List list={data} current={id} refresh={listed.refresh} />}</Loaded>
      </section>
      {id !== null && polled.data !== null && (
        <PluginDetail
          key={id}
          id={id}
          plugin={polled.data.plugins.find((plugin) => plugin.id === id) ?? null}
          menu={menu}
          refresh={listed.refresh}
        />
      )}
    </div>
  );
}

async function enable(id: string, enabled: boolean): Promise<void> {
  await attempt(`${id} is ${enabled ? "enabled" : "disabled"}.`, () =>
    change("PATCH", `/plugins${path(id)}/enabled`, { enabled }),
  );
}

function List({ list, current, refresh }: { list: PluginList; current: string | null; refresh: () => void }) {
  const rows = useRef<HTMLOListElement>(null);
  const byOrder = list.plugins
    .filter((plugin) => plugin.configured)
    .sort((a, b) => b.priority - a.priority || (a.id < b.id ? -1 : 1));
  const found = list.plugins.filter((plugin) => !plugin.configured);
  const reorder = useReorder(
    byOrder.map((plugin) => plugin.id),
    rows,
  );
  const plugins = reorder.order.map((id) => byOrder.find((plugin) => plugin.id === id)!);
  if (list.plugins.length === 0) {
    return (
      <Empty title="No plugins.">
        Put libraries into <code>{list.plugins_dir}</code> and set <code>plugins.enabled: true</code> under{" "}
        <a href={to("config")}>Configuration</a>; docs/plugins.md has more.
      </Empty>
    );
  }
  return (
    <>
      {!list.plugins_enabled && (
        <Problem title="Plugins are switched off as a whole.">
          Set <code>plugins.enabled: true</code> under <a href={to("config")}>Configuration</a>.
        </Problem>
      )}
      {plugins.length > 1 && (
        <p class="secondary">
          Asked from top to bottom. Drag a handle, or focus it and use the arrow keys; then save the order.
        </p>
      )}
      {reorder.changed && (
        <div class="save-bar">
          <span>The order is changed, but not saved.</span>
          <button type="button" onClick={reorder.reset}>
            Undo
          </button>
          <ActionButton
            class="primary"
            onClick={async () => {
              const saved = await attempt("Order saved.", () =>
                change("POST", "/plugins/order", { ids: reorder.order }),
              );
              refresh();
              if (saved) reorder.reset();
            }}
          >
            Save order
          </ActionButton>
        </div>
      )}
      <p class="hidden" role="status">
        {reorder.announcement}
      </p>
      <ol class="plugins" ref={rows}>
        {plugins.map((plugin) => (
          <li
            key={plugin.id}
            class={`${plugin.id === current ? "current" : ""} ${plugin.id === reorder.moving ? "moving" : ""}`}
          >
            <button
              type="button"
              class="handle"
              aria-label={`Move ${plugin.id}: number ${reorder.order.indexOf(plugin.id) + 1} of ${plugins.length}`}
              {...reorder.handle(plugin.id)}
            >
              ⠿
            </button>
            <Row plugin={plugin} current={plugin.id === current} refresh={refresh} />
          </li>
        ))}
      </ol>
      {found.length > 0 && (
        <>
          <h2 class="found">Found, but not configured</h2>
          <ul class="plugins">
            {found.map((plugin) => (
              <li key={plugin.id} class={plugin.id === current ? "current" : ""}>
                <span class="handle" />
                <Row plugin={plugin} current={plugin.id === current} refresh={refresh} />
              </li>
            ))}
          </ul>
        </>
      )}
    </>
  );
}

function Row({ plugin, current, refresh }: { plugin: Plugin; current: boolean; refresh: () => void }) {
  const { metadata } = plugin;
  return (
    <>
      <div class="what">
        <a href={to("plugins", plugin.id)} aria-current={current ? "true" : undefined}>
          {plugin.id}
        </a>
        <span class="secondary">
          {metadata ? `${metadata.name} ${metadata.version}` : plugin.path.split("/").at(-1) || "no library found"}
        </span>
        {plugin.state !== "disabled" && plugin.reason && <span class="reason">{plugin.reason}</span>}
      </div>
      <span class="secondary number priority" title="Priority">
        {plugin.configured ? plugin.priority : ""}
      </span>
      <Badge tone={PLUGIN_TONES[plugin.state]}>{plugin.state}</Badge>
      <Switch
        on={plugin.enabled}
        label={`${plugin.id} enabled`}
        onChange={async (on) => {
          await enable(plugin.id, on);
          refresh();
        }}
      />
    </>
  );
}

/** The list comes HTML-escaped for panels of another make; ours shows text as text. */
function plain(list: PluginList): PluginList {
  return JSON.parse(JSON.stringify(list), (_, value: unknown) =>
    typeof value === "string" ? unescaped(value) : value,
  ) as PluginList;
}
