/** Lines that differ, by the longest common subsequence of what lies between equal starts and ends. */

export interface DiffLine {
  kind: "same" | "added" | "removed";
  text: string;
  /** Line number, from 1: in the new text, for removed lines in the old one. */
  line: number;
}

/** Beyond this many pairs of lines the middle is shown as replaced: the table would take too long. */
const MAX_CELLS = 4_000_000;

export function diffLines(before: string, after: string): DiffLine[] {
  const a = before.split("\n");
  const b = after.split("\n");
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const same = (from: number, to: number): DiffLine[] =>
    b.slice(from, to).map((text, i) => ({ kind: "same", text, line: from + i + 1 }));
  return [
    ...same(0, start),
    ...middle(a.slice(start, a.length - end), b.slice(start, b.length - end), start),
    ...same(b.length - end, b.length),
  ];
}

function middle(a: string[], b: string[], offset: number): DiffLine[] {
  const width = b.length + 1;
  const small = a.length * b.length <= MAX_CELLS;
  // common[i * width + j]: length of the longest common subsequence of a[i..] and b[j..].
  const common = new Uint32Array(small ? (a.length + 1) * width : 0);
  for (let i = a.length - 1; small && i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const at = i * width + j;
      common[at] = a[i] === b[j] ? common[at + width + 1]! + 1 : Math.max(common[at + width]!, common[at + 1]!);
    }
  }
  const lines: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const at = i * width + j;
    if (small && i < a.length && j < b.length && a[i] === b[j]) {
      lines.push({ kind: "same", text: b[j]!, line: offset + ++j });
      i++;
    } else if (i < a.length && (j === b.length || !small || common[at + width]! >= common[at + 1]!)) {
      lines.push({ kind: "removed", text: a[i]!, line: offset + ++i });
    } else {
      lines.push({ kind: "added", text: b[j]!, line: offset + ++j });
    }
  }
  return lines;
}

/** *lines* without unchanged ones farther than *around* from a change; null stands for a gap. */
export function hunks(lines: DiffLine[], around = 2): (DiffLine | null)[] {
  const keep = lines.map(() => false);
  lines.forEach((line, i) => {
    if (line.kind === "same") return;
    for (let k = Math.max(0, i - around); k <= Math.min(lines.length - 1, i + around); k++) keep[k] = true;
  });
  const shown: (DiffLine | null)[] = [];
  lines.forEach((line, i) => {
    if (keep[i]) shown.push(line);
    else if (i === 0 || keep[i - 1]) shown.push(null);
  });
  return shown.every((line) => line === null) ? [] : shown;
}
