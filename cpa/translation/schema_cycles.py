"""References that lead back to where they stand: Gemini takes them under optional properties only (2.5a)."""

from collections.abc import Iterator, Mapping

from cpa.translation.schema_walk import Schema, canonical, children, inner, resolve
from cpa.types import JsonValue


def has_refs(root: Schema) -> bool:
    """Whether anything in *root* refers to anything, so that its schemas have to be looked at together."""
    level: list[JsonValue] = [root]
    while level:
        nodes = [node for node in level if isinstance(node, dict)]
        if any("$ref" in node for node in nodes):
            return True
        level = [child for node in nodes for child in inner(node)]
    return False


def cycle_ids(root: Schema) -> dict[str, int]:
    """For each pointer of *root* that can be followed: the number of its strongly connected component.

    A reference at a place is cyclic if its component is that of a referenced schema around the place: that schema
    contains it, and it leads there.
    """
    targets = {place: found for ref, place in _refs(root) if (found := resolve(root, ref)) is not None}
    edges = {
        place: [inner for _, inner in _refs(target, skip_defs=True) if inner in targets]
        for place, target in targets.items()
    }
    return _components(edges)


def _refs(node: JsonValue, *, skip_defs: bool = False) -> Iterator[tuple[str, str]]:
    """(spelling, canonical pointer) of the local references in *node*."""
    stack = [node]
    while stack:
        found = stack.pop()
        if not isinstance(found, dict):
            continue
        ref = found.get("$ref")
        if isinstance(ref, str) and (place := canonical(ref)) is not None:
            yield ref, place
        # Definitions are part of whoever refers to them, not of the schema that they happen to stand in.
        inside = children(found)
        stack.extend(child for path, child in inside if not skip_defs or path[0] not in ("$defs", "definitions"))


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
