"""What the members of a credential file ask of the proxy (proxy 3.4): JSON to values, and what is wrong with it.

The readers are the configuration file's, so that a setting means the same and is judged the same in both places; this
module only gives a JSON object the shape that they read. Nothing in here raises: an item or a member that cannot be
used is left out and named, because one credential must never keep the others from being used. Whether the rest of the
file may then be used is said by `FileSettings.unusable`.
"""

import math
from collections.abc import Mapping
from typing import Final, TypeVar

import attrs

from cpa.config import kinds
from cpa.config.document import Document
from cpa.config.fields import At, Kind, Section, UnusableValue, boolean, integer, text
from cpa.config.nodes import Entry, Findings, MappingNode, Node, ScalarNode, SequenceNode
from cpa.config.providers import ALIAS, ERROR_RULE, MAX_RETRIES, MODEL, PRIORITY
from cpa.config.schema import ModelEntry, OAuthModelAlias, RequestScopedError
from cpa.types import JsonObject, JsonValue

T = TypeVar("T")

MAX_ITEMS: Final = 1000
"""Of one list. Plugins write files, too."""
MAX_DEPTH: Final = 16
"""Of nested values that are looked at; a model's ``thinking`` is the deepest that means something."""
LEGACY_NAMES: Final = (
    *("api-key", "base-url", "disable-cooling", "excluded-models", "model-aliases", "proxy-url", "request-retry"),
    *("request-scoped-errors", "tool-prefix-disabled"),
)
"""Old spellings, renamed on load (contract)."""
_LISTS: Final = frozenset({"models", "model_aliases", "request_scoped_errors"})
"""Members whose items have names of their own, which both spellings are taken for."""
_LIMITS: Final = frozenset({"api_key", "base_url", "proxy_url", "disabled", "excluded_models"})
"""What keeps a credential from being used wrongly. Without them a key might go to another host, by another way, or be
used although somebody said not to: a file where one of them cannot be understood is not used."""
_ROOT: Final = "@"
"""Stands for the file in paths, so that they cannot be mistaken for those of the configuration."""


@attrs.frozen
class Problem:
    """``member: expected …, got …``. *member* is a path as the file writes it; never shows a secret's value."""

    member: str
    text: str

    def __str__(self) -> str:
        return f"{self.member}: {self.text}" if self.member else self.text


@attrs.frozen(kw_only=True)
class FileSettings:
    """Attributes:
    label, prefix, note: trimmed, may be empty; `label` has fallen back on ``email``.
    models, aliases, error_rules: usable items only.
    disable_cooling, request_retry: None = not said.
    problems: everything that was left out.
    """

    api_key: str = attrs.field(default="", repr=False)
    base_url: str = ""
    label: str = ""
    prefix: str = ""
    note: str = ""
    proxy_url: str = attrs.field(default="", repr=False)
    disabled: bool = False
    priority: int = 0
    weight: int = 1
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    models: tuple[ModelEntry, ...] = ()
    aliases: tuple[OAuthModelAlias, ...] = ()
    excluded_models: tuple[str, ...] = ()
    disable_cooling: bool | None = None
    request_retry: int | None = None
    error_rules: tuple[RequestScopedError, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def unusable(self) -> bool:
        """Something that limits the credential's use could not be understood."""
        return any(problem.member.partition("[")[0].partition(".")[0] in _LIMITS for problem in self.problems)


def renamed(members: Mapping[str, JsonValue]) -> JsonObject:
    """*members* with the names of today; where both spellings are given, today's counts."""
    found = dict(members)
    for old in LEGACY_NAMES:
        if old in found:
            value = found.pop(old)
            found.setdefault(old.replace("-", "_"), value)
    return found


def settings_of(members: Mapping[str, JsonValue]) -> FileSettings:
    """What *members*, already `renamed`, ask for. Unknown members are none of ours."""
    findings = _Findings(file="")
    entries = tuple(
        Entry(line=1, key=name.replace("_", "-"), node=_node(members[name], items=name in _LISTS))
        for name in _KNOWN
        if members.get(name) is not None
    )
    root = MappingNode(line=1, entries=entries)
    place = At(document=_NO_DOCUMENT, findings=findings, path=_ROOT, node=root)
    keys = Section(at=place, node=root)
    label = keys.get("label", text("a label"), "") or keys.get("email", text("an address"), "")
    settings = FileSettings(
        api_key=keys.get("api-key", text("a key", secret=True), ""),
        base_url=keys.get("base-url", kinds.base_url, ""),
        label=label,
        prefix=keys.get("prefix", kinds.prefix, ""),
        note=keys.get("note", text("a note"), ""),
        proxy_url=keys.get("proxy-url", kinds.proxy_url, ""),
        disabled=keys.get("disabled", boolean, False),
        priority=keys.get("priority", _numeric(PRIORITY), 0),
        weight=keys.get("weight", _numeric(kinds.weight), 1),
        headers=keys.get("headers", kinds.headers, {}),
        models=keys.get("models", _usable(MODEL, "models"), ()),
        aliases=_each_once(keys.get("model-aliases", _usable(ALIAS, "mappings"), ()), findings),
        excluded_models=keys.get("excluded-models", kinds.excluded_models, ()),
        disable_cooling=keys.get("disable-cooling", boolean, None),
        request_retry=keys.get("request-retry", _numeric(_retries), None),
        error_rules=keys.get("request-scoped-errors", _usable(ERROR_RULE, "error rules"), ()),
    )
    return attrs.evolve(settings, problems=tuple(findings.found))


_KNOWN: Final = (
    *("api_key", "base_url", "label", "email", "prefix", "note", "proxy_url", "disabled", "priority", "weight"),
    *("headers", "models", "model_aliases", "excluded_models", "disable_cooling", "request_retry"),
    "request_scoped_errors",
)
_NO_DOCUMENT: Final = Document(root=None, text="")


@attrs.define(eq=False)
class _Findings(Findings):
    """Collects by member; a JSON text from which somebody made one line has no lines worth naming."""

    found: list[Problem] = attrs.field(factory=list)

    def problem(self, line: int, path: str, text: str, *, column: int | None = None) -> None:
        """See `Findings`."""
        member = path.removeprefix(_ROOT).removeprefix(".")
        top, dot, rest = member.partition(".")
        self.found.append(Problem(top.replace("-", "_") + dot + rest, text))

    def warning(self, line: int, path: str, text: str) -> None:
        """A prefix that is ignored, for instance; the same in a file."""
        self.problem(line, path, text)


def _node(value: JsonValue, *, items: bool = False, depth: int = 0) -> Node:
    """*value* as the configuration's readers take it. *items*: names inside are written with underscores, too."""
    if depth > MAX_DEPTH:
        return ScalarNode(line=1, value=None, text="")
    if isinstance(value, dict):
        entries = tuple(
            Entry(
                line=1,
                key=name.replace("_", "-") if items else name,
                node=_node(item, items=items, depth=depth + 1),
            )
            for name, item in value.items()
        )
        return MappingNode(line=1, entries=entries, flow=True)
    if isinstance(value, list):
        inner = tuple(_node(item, items=items, depth=depth + 1) for item in value[:MAX_ITEMS])
        return SequenceNode(line=1, items=inner, flow=True)
    if isinstance(value, str):
        return ScalarNode(line=1, value=value, text=value, style='"')
    return ScalarNode(line=1, value=value, text="" if value is None else str(value).lower())


def _numeric(kind: Kind[T]) -> Kind[T]:
    """A number, also written as a string, or with a fraction of nothing."""

    def read(at: At) -> T:
        value = at.node.value if isinstance(at.node, ScalarNode) else None
        number: int | None = None
        if isinstance(value, str) and len(value) <= 20:
            try:
                number = int(value.strip())
            except ValueError:
                number = None
        elif isinstance(value, float) and math.isfinite(value) and value.is_integer():
            number = int(value)
        if number is None:
            return kind(at)
        return kind(attrs.evolve(at, node=ScalarNode(line=1, value=number, text=str(number))))

    return read


def _retries(at: At) -> int | None:
    retries = integer(-MAX_RETRIES, MAX_RETRIES)(at)
    return retries if retries >= 0 else None  # as in the configuration: negative inherits


def _usable(kind: Kind[T], what: str) -> Kind[tuple[T, ...]]:
    """A list of those items with which nothing at all is wrong: half a rule is another rule."""

    def read(at: At) -> tuple[T, ...]:
        if not isinstance(at.node, SequenceNode):
            raise at.reject(f"a list of {what}", secret=True)
        assert isinstance(at.findings, _Findings)
        kept: list[T] = []
        for index, node in enumerate(at.node.items):
            before = len(at.findings.found)
            try:
                value = kind(at.item(index, node))
            except UnusableValue:
                continue
            if len(at.findings.found) == before:
                kept.append(value)
        return tuple(kept)

    return read


def _each_once(entries: tuple[OAuthModelAlias, ...], findings: _Findings) -> tuple[OAuthModelAlias, ...]:
    """Of an alias that is given twice, the first."""
    found: dict[str, OAuthModelAlias] = {}
    for entry in entries:
        if found.setdefault(entry.alias.casefold(), entry) is not entry:
            findings.problem(1, "model_aliases", "expected every alias once, got one twice; the first counts")
    return tuple(found.values())
