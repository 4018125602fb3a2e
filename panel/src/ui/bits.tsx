/** Small parts that all pages share. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import type { Polled } from "../lib/poll";
import { span } from "../lib/format";
import { useNow } from "../lib/clock";

export type Tone = "ok" | "warn" | "bad" | "busy" | "off";

/** A state in a word; the colour only repeats it. */
export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

export function PageHead({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="page-head">
      <h1 tabIndex={-1}>{title}</h1>
      <div class="actions">{children}</div>
    </div>
  );
}

/** Nothing there, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <strong>{title}</strong>
      {children && <p>{children}</p>}
    </div>
  );
}

export function Problem({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="problem" role="alert">
      <strong>{title}</strong>
      {children && <div>{children}</div>}
    </div>
  );
}

/** *polled* as *children* show it; old data stay on the page while newer ones cannot be had. */
export function Loaded<T>({ polled, children }: { polled: Polled<T>; children: (data: T) => ComponentChildren }) {
  const { data, error, refresh } = polled;
  return (
    <>
      {error !== null && (
        <Problem title={data === null ? "This cannot be shown." : "What you see is not up to date."}>
          {error} It is tried again by itself.{" "}
          <button type="button" onClick={refresh}>
            Try now
          </button>
        </Problem>
      )}
      {data !== null ? children(data) : error === null && <p class="loading">Loading…</p>}
    </>
  );
}

/** Time left until *until* (Unix seconds). */
export function Countdown({ until }: { until: number }) {
  const left = until - useNow();
  return <span class="number">{left > 0 ? span(left) : "now"}</span>;
}

interface SwitchProps {
  on: boolean;
  label: string;
  disabled?: boolean;
  onChange: (on: boolean) => Promise<unknown>;
}

/** Shows where it is going while the proxy works. */
export function Switch({ on, label, disabled = false, onChange }: SwitchProps) {
  const [going, setGoing] = useState<boolean | null>(null);
  const shown = going ?? on;
  return (
    <button
      type="button"
      role="switch"
      class="switch"
      aria-checked={shown}
      aria-label={label}
      disabled={disabled}
      aria-busy={going !== null}
      onClick={() => {
        if (going !== null) return;
        setGoing(!on);
        void onChange(!on).finally(() => setGoing(null));
      }}
    />
  );
}

/** A button that is busy while its work runs. */
export function ActionButton({
  onClick,
  children,
  ...rest
}: {
  onClick: () => Promise<unknown>;
  children: ComponentChildren;
  class?: string;
  disabled?: boolean;
  title?: string;
}) {
  const [busy, setBusy] = useState(false);
  return (
    <button
      type="button"
      {...rest}
      disabled={busy || rest.disabled === true}
      aria-busy={busy}
      onClick={() => {
        setBusy(true);
        void onClick().finally(() => setBusy(false));
      }}
    >
      {children}
    </button>
  );
}

export function Search({ label, value, onInput }: { label: string; value: string; onInput: (value: string) => void }) {
  return (
    <input
      type="search"
      aria-label={label}
      placeholder={label}
      value={value}
      onInput={(event) => onInput(event.currentTarget.value)}
    />
  );
}

/** Successes and failures of the last steps, oldest first, as bars. */
export function Sparkline({ steps }: { steps: { time: string; success: number; failed: number }[] }) {
  const most = Math.max(1, ...steps.map((step) => step.success + step.failed));
  const width = 4;
  const height = 20;
  const failures = steps.reduce((sum, step) => sum + step.failed, 0);
  const total = steps.reduce((sum, step) => sum + step.success, failures);
  return (
    <svg
      class="sparkline"
      role="img"
      aria-label={`${total} requests lately, ${failures} failed`}
      viewBox={`0 0 ${steps.length * width} ${height}`}
    >
      {steps.map((step, i) => {
        const bad = (height * step.failed) / most;
        const good = (height * step.success) / most;
        return (
          <g key={step.time}>
            <title>{`${step.time}: ${step.success} succeeded, ${step.failed} failed`}</title>
            <rect class="base" x={i * width} y={height - 1} width={width - 1} height={1} />
            <rect class="good" x={i * width} y={height - good} width={width - 1} height={good} />
            <rect class="failed" x={i * width} y={height - good - bad} width={width - 1} height={bad} />
          </g>
        );
      })}
    </svg>
  );
}
