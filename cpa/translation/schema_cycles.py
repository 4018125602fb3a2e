"""Which references of a schema lead back to where they stand (2.5a: Gemini takes them under optional properties only)."""

from collections.abc import Iterator, Mapping

from cpa.translation.schema_walk import Schema, children, resolve
from cpa.types import JsonValue


def cycle_ids(root: Schema) -> dict[str, int]:
    """For each reference of *root* that can be followed: the number of its strongly connected component.

    A reference at a place is cyclic if its component is that of a referenced schema around the place: that schema
    contains it, and it leads there.
    """
    targets = {ref: found for ref in _refs(root) if (found := resolve(root, ref)) is not None}
    edges = {ref: [inner for inner in _refs(target, skip_defs=True) if inner in targets] for ref, target in targets.items()}
    return _components(edges)


def _refs(node: JsonValue, *, skip_defs: bool = False) -> Iterator[str]:
    stack = [node]
    while stack:
        found = stack.pop()
        if not isinstance(found, dict):
            continue
        ref = found.get("$ref")
        if isinstance(ref, str):
            yield ref
        # Definitions are part of whoever refers to them, not of the schema that they happen to stand in.
        stack.extend(child for path, child in children(found) if not skip_defs or path[0] not in ("$defs", "definitions"))


def _components(edges: Mapping[str, list[str]]) -> dict[str, int]:
    """Strongly connected components (Tarjan), without recursion."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    component: dict[str, int] = {}
    path: list[str] = []
    for start in edges:
        if start in index:
            continue
        index[start] = low[start] = len(index)
        path.append(start)
        work = [(start, iter(edges[start]))]
        while work:
            node, following = work[-1]
            step = next(following, None)
            if step is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    while True:
                        member = path.pop()
                        component[member] = index[node]
                        if member == node:
                            break
            elif step not in index:
                index[step] = low[step] = len(index)
                path.append(step)
                work.append((step, iter(edges[step])))
            elif step not in component:
                low[node] = min(low[node], index[step])
    return component
