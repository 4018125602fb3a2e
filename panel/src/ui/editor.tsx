/**
 * A plain text area with line numbers and what is wrong beside the lines.
 *
 * What the browser knows of editing stays: undo, search, spell of keys, screen readers. Numbers and messages lie in
 * layers of the same metrics that move with it. Tab leaves it, as everywhere.
 */
import type { RefObject } from "preact";
import { useImperativeHandle, useRef, useState } from "preact/hooks";

import type { ConfigProblem } from "../api/types";

/** Pixels, as in the style sheet. */
const LINE_HEIGHT = 20;
const LINES_ABOVE = 4;

export interface EditorHandle {
  /** Puts the cursor at *line* and *column*, from 1. */
  goTo(line: number, column: number | null): void;
}

interface EditorProps {
  handle: RefObject<EditorHandle | null>;
  label: string;
  text: string;
  problems: ConfigProblem[];
  onInput: (text: string) => void;
  /** Ctrl+S or ⌘S. */
  onSave: () => void;
}

export function Editor({ handle, label, text, problems, onInput, onSave }: EditorProps) {
  const area = useRef<HTMLTextAreaElement>(null);
  const [scroll, setScroll] = useState({ top: 0, left: 0 });
  const lines = text.split("\n");
  const placed = problems.filter((problem) => problem.line !== null && problem.line <= lines.length);

  useImperativeHandle(handle, () => ({
    goTo(line, column) {
      const start = lines.slice(0, line - 1).reduce((sum, before) => sum + before.length + 1, 0);
      const element = area.current;
      if (element === null) return;
      element.focus();
      const at = start + (column ?? 1) - 1;
      element.setSelectionRange(at, column === null ? start + (lines[line - 1]?.length ?? 0) : at);
      element.scrollTop = Math.max(0, line - LINES_ABOVE) * LINE_HEIGHT;
      element.scrollLeft = 0;
    },
  }));

  const top = (line: number) => `${(line - 1) * LINE_HEIGHT}px`;
  return (
    <div class="editor">
      <div class="gutter" aria-hidden="true">
        <div style={{ transform: `translateY(${-scroll.top}px)` }}>
          {lines.map((_, i) => i + 1).join("\n")}
          {placed.map((problem, i) => (
            <span key={i} class="mark" style={{ top: top(problem.line!) }} />
          ))}
        </div>
      </div>
      <div class="paper">
        <div class="lens" aria-hidden="true">
          <div style={{ transform: `translate(${-scroll.left}px, ${-scroll.top}px)` }}>
            {placed.map((problem, i) => (
              <div key={i} class="wrong-line" style={{ top: top(problem.line!) }}>
                <span style={{ paddingLeft: `${(lines[problem.line! - 1]?.length ?? 0) + 3}ch` }}>
                  {problem.message}
                </span>
              </div>
            ))}
          </div>
        </div>
        <textarea
          ref={area}
          aria-label={label}
          aria-invalid={problems.length > 0}
          wrap="off"
          spellcheck={false}
          autocapitalize="off"
          autocomplete="off"
          value={text}
          onInput={(event) => onInput(event.currentTarget.value)}
          onScroll={({ currentTarget: { scrollTop, scrollLeft } }) => setScroll({ top: scrollTop, left: scrollLeft })}
          onKeyDown={(event) => {
            if ((event.ctrlKey || event.metaKey) && event.key === "s") {
              event.preventDefault();
              onSave();
            }
          }}
        />
      </div>
    </div>
  );
}
