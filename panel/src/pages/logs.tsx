/** The log's last lines, and those that come. */
import { useEffect, useRef, useState } from "preact/hooks";

import { get, inWords, wasAborted } from "../api/client";
import type { LogLine, RecentLog } from "../api/types";
import { sleep, visible } from "../lib/sleep";
import { time } from "../lib/format";
import { Empty, PageHead, Problem, Search } from "../ui/bits";

const POLL_MS = 1_500;
const RETRY_MS = 5_000;
const MOST_LINES = 2_000;
const LEVELS = ["debug", "info", "warn", "error"];

interface Tail {
  lines: LogLine[] | null;
  error: string | null;
}

export function LogsPage() {
  const [level, setLevel] = useState("info");
  const [search, setSearch] = useState("");
  const [follow, setFollow] = useState(true);
  const [cleared, setCleared] = useState(0);
  const { lines, error } = useTail(level);
  const box = useRef<HTMLDivElement>(null);
  const wanted = search.trim().toLowerCase();
  const shown = (lines ?? []).filter((line) => line.time > cleared && line.text.toLowerCase().includes(wanted));

  useEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown.length, shown.at(-1), follow]);

  return (
    <>
      <PageHead title="Log">
        <Search label="Search the log" value={search} onInput={setSearch} />
        <select aria-label="Least level" value={level} onChange={(event) => setLevel(event.currentTarget.value)}>
          {LEVELS.map((name) => (
            <option key={name} value={name}>
              {name}
              {name === "error" ? "" : " and above"}
            </option>
          ))}
        </select>
        <button type="button" aria-pressed={follow} onClick={() => setFollow(!follow)}>
          Follow
        </button>
        <button type="button" disabled={shown.length === 0} onClick={() => setCleared(lines?.at(-1)?.time ?? 0)}>
          Clear the view
        </button>
      </PageHead>
      {error !== null && <Problem title="No new lines at the moment.">{error} It is tried again by itself.</Problem>}
      {lines === null ? (
        error === null && <p class="loading">Loading…</p>
      ) : shown.length === 0 ? (
        <Empty title="No lines.">
          {lines.length > 0 ? "Clear the search, or wait for new ones." : "They appear as they come."}
        </Empty>
      ) : (
        <div
          class="log"
          ref={box}
          tabIndex={0}
          role="log"
          aria-label="Log lines"
          aria-live="off"
          onWheel={(event) => event.deltaY < 0 && setFollow(false)}
        >
          {shown.map((line, i) => (
            <div key={i} class={line.level}>
              <span class="secondary number">{time(line.time)}</span> <span class="level">{line.level}</span>{" "}
              <span class="text">{withoutHead(line.text)}</span>
            </div>
          ))}
        </div>
      )}
    </>
  );
}

/** The text format begins with time and level, which stand in columns of their own. */
function withoutHead(text: string): string {
  return text.replace(/^\[[^\]]*\] \[-*([^\]]*)\] \[[^\]]*\] \[[^\]]*\] /, (_, request: string) =>
    request ? `[${request}] ` : "",
  );
}

/** Lines of *level* and above, oldest first, kept while the page is open. */
function useTail(level: string): Tail {
  const [tail, setTail] = useState<Tail>({ lines: null, error: null });
  useEffect(() => {
    const life = new AbortController();
    setTail({ lines: null, error: null });
    async function run(): Promise<void> {
      let cursor = "";
      while (!life.signal.aborted) {
        let wait = POLL_MS;
        try {
          const query = new URLSearchParams({ level, limit: "500", ...(cursor === "" ? {} : { cursor }) });
          const news = await get<RecentLog>(`/logs/recent?${query}`, life.signal);
          const anew = cursor === "" || news["cursor-reset"] === true;
          cursor = news["next-cursor"];
          setTail(({ lines }) => ({
            lines: [...(anew ? [] : (lines ?? [])), ...news.lines].slice(-MOST_LINES),
            error: null,
          }));
        } catch (error) {
          if (wasAborted(error)) return;
          setTail((last) => ({ ...last, error: inWords(error) }));
          wait = RETRY_MS;
        }
        await sleep(wait, life.signal);
        await visible(life.signal);
      }
    }
    void run();
    return () => life.abort();
  }, [level]);
  return tail;
}
