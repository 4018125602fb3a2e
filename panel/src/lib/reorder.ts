/** Moving the items of a list by pointer and by keyboard; nothing is saved before somebody says so. */
import type { ButtonHTMLAttributes } from "preact";
import { useRef, useState } from "preact/hooks";

export interface Reorder {
  /** Ids as they stand now. */
  order: string[];
  /** It differs from what was given. */
  changed: boolean;
  /** The item that is being moved. */
  moving: string | null;
  /** Says where the last moved item went, for screen readers. */
  announcement: string;
  reset: () => void;
  /** Attributes of the handle of *id*. */
  handle: (id: string) => ButtonHTMLAttributes<HTMLButtonElement>;
}

/** *given*: ids in their order. *rows*: the element whose children are the items, in the order shown. */
export function useReorder(given: string[], rows: { current: HTMLElement | null }): Reorder {
  const [draft, setDraft] = useState<string[] | null>(null);
  const [moving, setMoving] = useState<string | null>(null);
  const [announcement, setAnnouncement] = useState("");
  const before = useRef<string[]>([]);
  // Items that came or went meanwhile: the draft holds for those that are still there.
  const kept = draft?.filter((id) => given.includes(id)) ?? given;
  const order = [...kept, ...given.filter((id) => !kept.includes(id))];

  function move(id: string, index: number): void {
    const target = Math.max(0, Math.min(order.length - 1, index));
    if (order.indexOf(id) === target) return;
    const rest = order.filter((other) => other !== id);
    rest.splice(target, 0, id);
    setDraft(rest);
    setAnnouncement(`${id} is number ${target + 1} of ${order.length}`);
  }

  function handle(id: string): ButtonHTMLAttributes<HTMLButtonElement> {
    return {
      onKeyDown: (event) => {
        const step = { ArrowUp: -1, ArrowDown: 1, Home: -order.length, End: order.length }[event.key];
        if (step !== undefined) {
          event.preventDefault();
          move(id, order.indexOf(id) + step);
        }
      },
      onPointerDown: (event) => {
        if (event.button !== 0) return;
        before.current = order;
        event.currentTarget.setPointerCapture(event.pointerId);
        setMoving(id);
      },
      onPointerMove: (event) => {
        if (moving !== id) return;
        const boxes = [...(rows.current?.children ?? [])].map((row) => row.getBoundingClientRect());
        const own = order.indexOf(id);
        // Past the middle of a neighbour the two change places.
        const index = boxes.filter((box, i) => i !== own && event.clientY > box.top + box.height / 2).length;
        move(id, index);
      },
      onPointerUp: () => setMoving(null),
      onPointerCancel: () => {
        setMoving(null);
        setDraft(before.current);
      },
    };
  }

  return {
    order,
    changed: order.some((id, i) => id !== given[i]),
    moving,
    announcement,
    reset: () => setDraft(null),
    handle,
  };
}
