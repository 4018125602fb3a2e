"""What the conformance kit found: values, a table for people, JSON for machines.

The JSON report is one object with these members, whose names are stable::

    file         path of the library, as it was given
    plugin       what it registered: {id, name, version, author, schema_version, capabilities: [names]};
                 null when it never registered
    ok           no check failed
    seconds      duration of the whole run
    counts       {pass, warn, fail, skip}
    checks       in the order in which they ran, each with
        isolation    "process" or "inline"
        name         what was checked, for example "good request", "shutdown"
        capability   the switch that brings the method, for example "executor"; "lifecycle" for what every plugin has
        method       wire name of the method that was driven; empty where there is none
        verdict      "pass", "warn" (works, but unusual), "fail", "skip" (could not be checked)
        expected     what the contract asks, in words
        got          what came; at most 500 characters, control characters replaced
        seconds      duration of the check
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import attrs

from cpa.config.schema import Isolation
from cpa.types import JsonObject

MAX_GOT_CHARS: Final = 500
"""Plugins put whole bodies into their errors; a table is for reading."""
LIFECYCLE: Final = "lifecycle"
"""In place of a capability for what every plugin has."""


class Verdict(StrEnum):
    """Of one check."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


def clean(text: str) -> str:
    """*text* for a terminal: bounded, on one line, without control characters. A plugin may have written it."""
    text = text if len(text) <= MAX_GOT_CHARS else text[: MAX_GOT_CHARS - 1] + "…"
    return "".join(char if char.isprintable() else "·" if char not in "\r\n\t" else " " for char in text)


@attrs.frozen(kw_only=True)
class Check:
    """One result; see the module. *seconds* is a duration."""

    isolation: Isolation
    name: str
    capability: str
    method: str
    verdict: Verdict
    expected: str
    got: str = attrs.field(converter=clean)
    seconds: float

    def as_json(self) -> JsonObject:
        """As in the report."""
        return {
            "isolation": self.isolation.value,
            "name": self.name,
            "capability": self.capability,
            "method": self.method,
            "verdict": self.verdict.value,
            "expected": self.expected,
            "got": self.got,
            "seconds": round(self.seconds, 4),
        }

    @classmethod
    def from_json(cls, members: Mapping[str, object]) -> "Check":
        """The way back, of what another process of ours reported. Raises: KeyError, ValueError."""
        return cls(
            isolation=Isolation(str(members["isolation"])),
            name=str(members["name"]),
            capability=str(members["capability"]),
            method=str(members["method"]),
            verdict=Verdict(str(members["verdict"])),
            expected=str(members["expected"]),
            got=str(members["got"]),
            seconds=float(str(members["seconds"])),
        )


@attrs.frozen(kw_only=True)
class PluginSummary:
    """What a plugin registered."""

    id: str
    name: str
    version: str
    author: str
    schema_version: int
    capabilities: tuple[str, ...]

    def as_json(self) -> JsonObject:
        """As in the report."""
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "author": self.author,
            "schema_version": self.schema_version,
            "capabilities": list(self.capabilities),
        }

    @classmethod
    def from_json(cls, members: Mapping[str, object]) -> "PluginSummary":
        """The way back, of what another process of ours reported. Raises: KeyError, ValueError."""
        capabilities = members["capabilities"]
        return cls(
            id=str(members["id"]),
            name=str(members["name"]),
            version=str(members["version"]),
            author=str(members["author"]),
            schema_version=int(str(members["schema_version"])),
            capabilities=tuple(str(name) for name in capabilities) if isinstance(capabilities, list) else (),
        )


@attrs.frozen(kw_only=True)
class Report:
    """A whole run over one library."""

    file: str
    plugin: PluginSummary | None
    checks: tuple[Check, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not any(check.verdict is Verdict.FAIL for check in self.checks)

    def counts(self) -> dict[Verdict, int]:
        """How many checks came to each verdict."""
        found = Counter(check.verdict for check in self.checks)
        return {verdict: found[verdict] for verdict in Verdict}

    def as_json(self) -> JsonObject:
        """See the module."""
        return {
            "file": self.file,
            "plugin": self.plugin.as_json() if self.plugin else None,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "counts": {verdict.value: count for verdict, count in self.counts().items()},
            "checks": [check.as_json() for check in self.checks],
        }

    def as_text(self) -> str:
        """A table, one line per check; what was expected stands below those that are not passed or skipped."""
        lines = [clean(f"file:    {self.file}")]
        if self.plugin is not None:
            plugin = self.plugin
            lines += [
                clean(f"plugin:  {plugin.id}: {plugin.name} {plugin.version} by {plugin.author}"),
                clean(f"declares schema {plugin.schema_version}: {', '.join(plugin.capabilities)}"),
            ]
        for isolation in dict.fromkeys(check.isolation for check in self.checks):
            lines += ["", f"isolation: {isolation.value}"]
            lines += _rows([check for check in self.checks if check.isolation is isolation])
        counts = ", ".join(f"{count} {verdict.value}" for verdict, count in self.counts().items())
        lines += ["", f"{'OK' if self.ok else 'FAILED'}: {counts} in {self.seconds:.1f} s"]
        return "\n".join(lines) + "\n"


def _rows(checks: Iterable[Check]) -> Iterable[str]:
    cells = [(check, check.method or check.capability) for check in checks]
    method_width = max((len(method) for _, method in cells), default=0)
    name_width = max((len(check.name) for check, _ in cells), default=0)
    for check, method in cells:
        row = f"  {check.verdict.value:<4}  {method:<{method_width}}  {check.name:<{name_width}}"
        yield f"{row}  {check.seconds:7.3f} s  {check.got}"
        if check.verdict in (Verdict.WARN, Verdict.FAIL):
            yield f"        expected: {check.expected}"
