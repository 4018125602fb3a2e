"""YAML text to nodes with lines.

The tree is built from PyYAML's event stream, not by its composer: events come without recursion, so depth, size and
aliases are bounded before any structure exists, and the explicit tag of a scalar is known. Scalars are read by the
YAML 1.2 core schema as Go's yaml.v3 does (``yes``, ``1:30`` and dates are text), because the files come from there.
"""

import math
import re
from collections.abc import Iterator

import attrs
import yaml

from cpa.config.nodes import Entry, Findings, MappingNode, Node, ScalarNode, SequenceNode, shown_key, to_json

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Larger than any real configuration; PyYAML needs about 1 s of CPU per MiB of dense YAML."""
MAX_DEPTH = 64
"""Levels of nesting. Real files have about ten; Python's own stack ends near a thousand."""
MAX_NODES = 200_000
"""Nodes after all aliases are written out. Ends documents whose aliases multiply (billion laughs)."""

MAX_ALIAS_SHOWN_CHARS = 24
"""What a message shows of an alias; usually it is an unquoted pattern such as ``*-preview``."""

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_INT = re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_MAX_INT_DIGITS = 100
"""Longer digit strings stay text: Python refuses to convert very long ones, and no key takes them."""


@attrs.frozen(kw_only=True)
class Document:
    """A document that was read: its root (None = empty) and its text, for quoting parts of it."""

    root: Node | None
    text: str = attrs.field(repr=False)

    def yaml_of(self, node: Node) -> str:
        """*node* as a YAML document of its own, ending in one newline.

        Block mappings keep their source text with comments, whatever else is written anew with each scalar's quoting.
        """
        if isinstance(node, MappingNode) and node.span is not None:
            source = _dedent(self.text, *node.span)
            # Never trust the cut: text that reads differently on its own is worse than lost comments.
            findings = Findings(file="")
            again = parse_document(source, findings)
            if again is not None and again.root is not None and to_json(again.root) == to_json(node):
                return source
        return to_yaml(node)


def parse_document(text: bytes | str, findings: Findings) -> Document | None:
    """Read one YAML document.

    Returns: None when a problem was found (it is among *findings*) that leaves nothing to look at.
    """
    decoded = _decode(text, findings)
    if decoded is None:
        return None
    builder = _Builder(findings=findings)
    try:
        for event in new_events(decoded):
            if not builder.feed(event):
                return None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, None)
        findings.problem(line, "", f"expected valid YAML, got a syntax error: {_readable(exc)}", column=column)
        return None
    except yaml.reader.ReaderError as exc:
        # The position counts characters or bytes depending on the loader; the first forbidden character is what it is.
        line = _line_of_control_character(decoded)
        findings.problem(line, "", f"expected printable text, got a character that YAML forbids: {exc.reason}")
        return None
    return Document(root=builder.root, text=decoded)


def to_yaml(node: Node) -> str:
    """Write *node* as YAML text: block style, aliases written out, each scalar quoted as it was. Ends in a newline."""
    text: str = yaml.serialize(_to_yaml_node(node), Dumper=_DUMPER, indent=4, allow_unicode=True, width=1_000_000)
    return text.removesuffix("...\n")


def _dedent(text: str, start: int, end: int) -> str:
    margin = start - (text.rfind("\n", 0, start) + 1)
    lines = (" " * margin + text[start:end]).splitlines()
    # The end mark of a block lies at the next token: comments in between belong to what follows unless indented.
    while lines and (not lines[-1].strip() or (len(lines[-1]) - len(lines[-1].lstrip()) < margin)):
        lines.pop()
    return "".join((line[margin:] if not line[:margin].strip() else line.lstrip()) + "\n" for line in lines)


def _decode(text: bytes | str, findings: Findings) -> str | None:
    if len(text) > MAX_DOCUMENT_BYTES:
        findings.problem(1, "", f"expected a file of at most {MAX_DOCUMENT_BYTES} bytes, got more")
        return None
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = text.count(b"\n", 0, exc.start) + 1
        findings.problem(line, "", f"expected UTF-8 text, got byte 0x{text[exc.start]:02x} at offset {exc.start}")
        return None


def new_events(text: str) -> Iterator[yaml.Event]:
    """The events of *text*, which was decoded. Raises: yaml.YAMLError on the way."""
    events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
    return events


def _readable(exc: yaml.MarkedYAMLError) -> str:
    # Never str(exc): it quotes the source line, which may hold a key.
    problem = str(exc.problem or "unreadable")
    if not exc.context:
        return problem
    start = f" that began in line {exc.context_mark.line + 1}" if exc.context_mark is not None else ""
    return f"{problem} ({exc.context}{start})"


_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _line_of_control_character(text: str) -> int:
    found = _FORBIDDEN.search(text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


@attrs.define(eq=False)
class _Open:
    """A collection whose end has not come."""

    line: int
    start: int
    flow: bool
    anchor: str | None
    mapping: bool
    children: list[Node] = attrs.field(factory=list)
    plain_source: bool = True
    """Nothing inside depends on the rest of the document."""


@attrs.define(eq=False)
class _Builder:
    """Puts nodes together from events, bottom up; an alias can only name a finished node, so there are no cycles."""

    findings: Findings
    root: Node | None = None
    stack: list[_Open] = attrs.field(factory=list)
    anchors: dict[str, Node] = attrs.field(factory=dict)
    size: int = 0
    documents: int = 0

    def feed(self, event: yaml.Event) -> bool:
        """Take one event. Returns: False when reading must stop; the reason is noted."""
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        match event:
            case yaml.DocumentStartEvent():
                return self._document(line)
            case yaml.ScalarEvent():
                self._mark_source(event.anchor is not None or event.tag is not None)
                return self._add(read_scalar(event, line), anchor=event.anchor)
            case yaml.AliasEvent():
                self._mark_source(True)
                return self._alias(event.anchor, line)
            case yaml.CollectionStartEvent():
                return self._open(event, line)
            case yaml.CollectionEndEvent():
                return self._close(event)
        return True

    def _document(self, line: int) -> bool:
        self.documents += 1
        if self.documents > 1:
            self.findings.problem(line, "", "expected one YAML document, got a second one")
        return self.documents == 1

    def _mark_source(self, dependent: bool) -> None:
        if dependent and self.stack:
            self.stack[-1].plain_source = False

    def _alias(self, anchor: str | None, line: int) -> bool:
        node = self.anchors.get(anchor or "")
        if node is None:
            name = (anchor or "")[:MAX_ALIAS_SHOWN_CHARS]
            text = f"expected an anchor defined above, got the alias '*{name}' (text that begins with * needs quotes)"
            self.findings.problem(line, "", text)
            return False
        return self._add(node, anchor=None, line=line)

    def _open(self, event: yaml.CollectionStartEvent, line: int) -> bool:
        if len(self.stack) >= MAX_DEPTH:
            self.findings.problem(line, "", f"expected at most {MAX_DEPTH} levels of nesting, got more")
            return False
        self._mark_source(event.anchor is not None or event.tag is not None)
        self.stack.append(
            _Open(
                line=line,
                start=event.start_mark.index if event.start_mark is not None else 0,
                flow=bool(event.flow_style),
                anchor=event.anchor,
                mapping=isinstance(event, yaml.MappingStartEvent),
            )
        )
        return True

    def _close(self, event: yaml.CollectionEndEvent) -> bool:
        top = self.stack.pop()
        if not top.plain_source:
            self._mark_source(True)
        if not top.mapping:
            node: Node = SequenceNode(
                line=top.line, items=tuple(top.children), flow=top.flow, size=1 + _size(top.children)
            )
            return self._add(node, anchor=top.anchor)
        entries = _entries(top.children, self.findings)
        end = event.end_mark.index if event.end_mark is not None else top.start
        return self._add(
            MappingNode(
                line=top.line,
                entries=entries,
                flow=top.flow,
                size=1 + _size(top.children),
                span=(top.start, end) if top.plain_source and not top.flow else None,
            ),
            anchor=top.anchor,
        )

    def _add(self, node: Node, *, anchor: str | None, line: int | None = None) -> bool:
        if anchor is not None:
            self.anchors[anchor] = node
        # Collections were counted through their members, except for themselves.
        self.size += node.size if line is not None or isinstance(node, ScalarNode) else 1
        if self.size > MAX_NODES:
            self.findings.problem(
                line or node.line, "", f"expected at most {MAX_NODES} values with all aliases written out, got more"
            )
            return False
        if self.stack:
            self.stack[-1].children.append(node)
        else:
            self.root = node
        return True


def _size(nodes: list[Node]) -> int:
    return sum(node.size for node in nodes)


def read_scalar(event: yaml.ScalarEvent, line: int) -> ScalarNode:
    """The scalar of *event* as the core schema reads it."""
    style = event.style or ""
    text: str = event.value
    plain = style == "" and event.implicit[0] and event.tag is None
    if event.tag is not None and event.tag.rpartition(":")[2] in {"int", "float", "bool", "null"}:
        plain = True
    return ScalarNode(line=line, value=plain_value(text) if plain else text, text=text, style=style)


def plain_value(text: str) -> bool | int | float | str | None:
    """What *text* is without quotes."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= _MAX_INT_DIGITS:
        if _INT.fullmatch(text):
            digits = text.replace("_", "")
            # A leading 0 is octal to Go's reader, decimal to YAML 1.2; base 10 is what people mean.
            return int(digits, 10) if digits.lstrip("+-").isdecimal() else int(digits, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _entries(children: list[Node], findings: Findings) -> tuple[Entry, ...]:
    own: dict[str, Entry] = {}
    merged: list[Node] = []
    for key, value in zip(children[::2], children[1::2], strict=True):
        if not isinstance(key, ScalarNode):
            findings.problem(key.line, "", "expected a key that is text, got a collection")
        elif key.style == "" and key.text == "<<":
            merged.extend(value.items if isinstance(value, SequenceNode) else (value,))
        elif key.text in own:
            first = own[key.text].line
            findings.problem(key.line, "", f"key {shown_key(key.text)} is given twice, first in line {first}")
        else:
            own[key.text] = Entry(line=key.line, key=key.text, node=value)
    for node in merged:
        if not isinstance(node, MappingNode):
            findings.problem(node.line, "", "expected a mapping after the merge key '<<', got something else")
            continue
        for entry in node.entries:
            own.setdefault(entry.key, entry)
    return tuple(own.values())


def _to_yaml_node(node: Node) -> yaml.Node:
    match node:
        case ScalarNode():
            plain = node.style == ""
            # The tag that PyYAML itself would give is the one that it writes without quotes and without a tag.
            tag: str = yaml.resolver.Resolver().resolve(  # type: ignore[no-untyped-call]
                yaml.ScalarNode, node.text, (plain, not plain)
            )
            return yaml.ScalarNode(tag, node.text, style=node.style or None)
        case SequenceNode():
            items = [_to_yaml_node(item) for item in node.items]
            return yaml.SequenceNode("tag:yaml.org,2002:seq", items, flow_style=node.flow)
        case MappingNode():
            pairs = [
                (yaml.ScalarNode("tag:yaml.org,2002:str", entry.key), _to_yaml_node(entry.node))
                for entry in node.entries
            ]
            return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=node.flow)
