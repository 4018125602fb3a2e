import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChild } from "preact";

import { gate, leave } from "./api/session";
import { dismiss, notices } from "./lib/notices";
import { route, to } from "./lib/router";
import { ConfigPage } from "./pages/config";
import { configDraft } from "./pages/config-draft";
import { CredentialsPage } from "./pages/credentials";
import { LogsPage } from "./pages/logs";
import { ModelsPage } from "./pages/models";
import { OverviewPage } from "./pages/overview";
import { PluginsPage } from "./pages/plugins";
import { RequestsPage } from "./pages/requests";
import { Icon, type IconName } from "./ui/icons";
import { KeyDialog } from "./ui/key-dialog";
import { Empty } from "./ui/bits";

interface Page {
  title: string;
  /** *rest*: the segments of the address after the page's own. */
  view: (rest: string[]) => ComponentChild;
}

const PAGES: Record<IconName, Page> = {
  overview: { title: "Overview", view: () => <OverviewPage /> },
  requests: { title: "Requests", view: ([id]) => <RequestsPage id={id ?? null} /> },
  plugins: { title: "Plugins", view: ([id, menu]) => <PluginsPage id={id ?? null} menu={menu ?? null} /> },
  credentials: { title: "Credentials", view: () => <CredentialsPage /> },
  models: { title: "Models and routes", view: () => <ModelsPage /> },
  config: { title: "Configuration", view: () => <ConfigPage /> },
  logs: { title: "Log", view: () => <LogsPage /> },
};

function isPage(name: string | undefined): name is IconName {
  return name !== undefined && Object.hasOwn(PAGES, name);
}

export function App() {
  const [name, ...rest] = route.value;
  const page = isPage(name) ? PAGES[name] : null;
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    document.title = `${page?.title ?? "Not found"} · CPA`;
    // Whoever follows a link by keyboard goes on reading at the new page's heading.
    if (!first.current) main.current?.querySelector<HTMLElement>("h1")?.focus();
    first.current = false;
  }, [name]);
  return (
    <>
      <a class="skip" href="#main" onClick={skipTo(main)}>
        Skip to the page
      </a>
      <Navigation current={name} />
      <main id="main" ref={main}>
        {page === null ? (
          <Empty title="There is no such page.">
            <a href={to("overview")}>Go to the overview</a>
          </Empty>
        ) : (
          page.view(rest)
        )}
      </main>
      <Notices />
      {!gate.value.open && <KeyDialog />}
    </>
  );
}

function skipTo(main: { current: HTMLElement | null }) {
  return (event: Event) => {
    event.preventDefault();
    main.current?.querySelector<HTMLElement>("h1")?.focus();
  };
}

function Navigation({ current }: { current: string | undefined }) {
  const [unfolded, setUnfolded] = useState(false);
  return (
    <header class="side">
      <div class="brand">
        <span class="mark" aria-hidden="true" />
        <strong>CPA</strong>
        <button
          type="button"
          class="menu"
          aria-expanded={unfolded}
          aria-controls="navigation"
          onClick={() => setUnfolded(!unfolded)}
        >
          Menu
        </button>
      </div>
      <nav id="navigation" aria-label="Pages" class={unfolded ? "unfolded" : ""}>
        <ul>
          {Object.entries(PAGES).map(([name, page]) => (
            <li key={name}>
              <a
                href={to(name)}
                aria-current={name === current ? "page" : undefined}
                onClick={() => setUnfolded(false)}
              >
                <Icon name={name as IconName} />
                {page.title}
                {name === "config" && configDraft.value.dirty && <span class="unsaved">unsaved</span>}
              </a>
            </li>
          ))}
        </ul>
        <button type="button" class="quiet" onClick={leave}>
          Forget the key
        </button>
      </nav>
    </header>
  );
}

function Notices() {
  return (
    <div class="notices" role="status" aria-live="polite">
      {notices.value.map(({ id, kind, text }) => (
        <div key={id} class={`notice ${kind}`}>
          <span>{text}</span>
          <button type="button" class="quiet icon" aria-label="Dismiss" onClick={() => dismiss(id)}>
            ✕
          </button>
        </div>
      ))}
    </div>
  );
}
