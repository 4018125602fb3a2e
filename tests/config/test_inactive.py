"""Keys that do nothing yet are told to whoever sets them, and nobody else is bothered."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import pytest

import cpa
from cpa.config.changes import yaml_key
from cpa.config.document import parse_document
from cpa.config.inactive import EXAMPLE_MARK, INACTIVE, inactive
from cpa.config.load import parse_config
from cpa.config.nodes import Findings, MappingNode, Node, SequenceNode
from cpa.config.schema import Config
from cpa.errors import ConfigError

from .test_example import uncommented

PACKAGE = Path(cpa.__file__).parent
NOT_WIRED = ("config", "testing")
"""Packages whose reading of a key makes it work for nobody: the configuration itself, plugins (which `App` does not
start yet), the mock provider."""

ACCEPTED_AND_IGNORED = {
    *("ws-auth", "pprof", "quota-exceeded", "remote-management.disable-auto-update-panel"),
    *("remote-management.panel-github-repository", "codex-api-key[].websockets"),
}
"""Keys that the contract says to read and never to obey."""

SHARED_NAMES = {
    *("weight", "image", "enabled", "url", "auth_dir", "strategy", "backend"),
}
"""Names of listed keys that other things bear too, or that are read without an effect on what they stand for."""


def warnings(text: str) -> list[str]:
    return list(parse_config(text, file="c.yaml").warnings)


def keys_set(text: str) -> list[tuple[int, str]]:
    """(line, key path) of each warning of *text*; there are no others."""
    found = []
    for line in warnings(text):
        match = re.fullmatch(
            r"c\.yaml:(\d+): (\S+): accepted, but has no effect in this version.* \(comes with .+\)", line
        )
        assert match, line
        found.append((int(match[1]), match[2]))
    return found


def test_the_warning_names_line_key_and_part() -> None:
    """All that an operator needs to find it and to know when to look again."""
    assert warnings("port: 1\ninteractions-api-key: [{api-key: a}]\n") == [
        "c.yaml:2: interactions-api-key: accepted, but has no effect in this version (comes with translation)"
    ]


def test_every_set_key_is_warned_of_at_its_own_line() -> None:
    """In sections, lists and lists in lists; a whole section or list once."""
    text = """\
trusted-proxies: [10.0.0.1]
plugins:
  enabled: true
  configs: {a: {enabled: true}}
remote-management:
  disable-control-panel: true
claude-api-key:
  - api-key: a
    rebuild-mid-system-message: true
  - api-key: b
    models:
      - {name: m}
      - name: n
        thinking:
          levels: [low]
openai-compatibility:
  - base-url: http://h
    support-prompt-cache-key: true
    api-key-entries:
      - {api-key: k, weight: 0}
interactions-api-key:
  - {api-key: a, weight: 4}
oauth-model-alias: {vertex: [{name: x, alias: y}]}
payload:
  filter: [{models: [{name: a}], params: [x]}]
  override: [{models: [{name: a}], params: {x: 1}}]
state: {backend: redis, url: "redis://h"}
"""
    assert keys_set(text) == [
        (9, "claude-api-key[0].rebuild-mid-system-message"),
        (18, "openai-compatibility[0].support-prompt-cache-key"),
        (21, "interactions-api-key"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "workers: 1",
        "routing: {strategy: RR, session-affinity-ttl: 60m}",
        "redis-usage-queue-retention-seconds: 0",
        "max-retry-credentials: -1",
        "disable-image-generation: 'FALSE'",
        "claude-api-key: [{api-key: k, weight: 1, request-retry: -1}]",
        "plugins: {enabled: false, dir: x, configs: {a: {enabled: true}}}",
        "payload: {override: []}\npipeline: {chains: []}\noauth-model-alias: {}\ninteractions-api-key:\n",
    ],
)
def test_a_default_is_no_reason_to_warn(text: str) -> None:
    """However it is written: what was asked for is what happens."""
    assert warnings(text) == []


def test_an_unusable_value_is_a_problem_only() -> None:
    """The mistake is the news."""
    with pytest.raises(ConfigError) as caught:
        parse_config("workers: many\n", file="c.yaml")
    assert len(caught.value.problems) == 1
    assert "no effect" not in str(caught.value)


def test_keys_that_work_are_not_in_the_table() -> None:
    """Nor is one below a listed key: the list is warned of once."""
    assert inactive("port") is None
    assert inactive("claude-api-key[0].api-key") is None
    assert inactive("interactions-api-key[0].weight") is None


# --- the example file ----------------------------------------------------------------------------------------------


def keys_of(node: Node | None, path: str = "") -> Iterator[tuple[str, int]]:
    """(key path with [] for items, line) of every key below *node*."""
    if isinstance(node, MappingNode):
        for entry in node.entries:
            inner = f"{path}.{entry.key}" if path else entry.key
            yield inner, entry.line
            yield from keys_of(entry.node, inner)
    elif isinstance(node, SequenceNode):
        for item in node.items:
            yield from keys_of(item, f"{path}[]")


def comment_of(lines: list[str], line: int) -> str:
    """What the file says about the key in *line* (from 1): behind it, or else in the comment lines above it."""
    _, behind, comment = lines[line - 1].partition(" # ")
    if behind:
        return comment
    above: list[str] = []
    for text in reversed(lines[: line - 1]):
        if not text.lstrip().startswith("# "):
            break
        above.insert(0, text)
    return " ".join(above)


def example() -> dict[str, str]:
    """Key path to comment, of every key that the example shows."""
    text = uncommented()
    document = parse_document(text, Findings(file="example"))
    assert document is not None
    lines = text.splitlines()
    return {path: comment_of(lines, line) for path, line in keys_of(document.root)}


def test_the_example_marks_these_keys_and_no_others() -> None:
    """It is the documentation of every key."""
    marked = {path for path, comment in example().items() if EXAMPLE_MARK in comment.casefold()}
    assert marked == {path for path in INACTIVE if path in example()}


def test_the_example_shows_every_key_of_the_table() -> None:
    """What the provider lists have in common is shown once, at the first of them."""
    shown = example()
    for path in INACTIVE:
        common = re.sub(r"^[a-z-]+\[\]", "gemini-api-key[]", path)
        elsewhere = re.sub(r"^[a-z-]+\[\]", "openai-compatibility[]", path)
        assert {path, common, elsewhere} & set(shown), path


# --- the code ------------------------------------------------------------------------------------------------------


def wired_nodes() -> Iterator[ast.AST]:
    """All syntax of the code that serves requests."""
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in NOT_WIRED:
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def attributes_read() -> set[str]:
    """Names of the attributes that the code reads, of whatever object."""
    return {node.attr for node in wired_nodes() if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def texts() -> set[str]:
    """Texts in the code; ``getattr`` may be given one."""
    return {node.value for node in wired_nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def schema(kind: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(key path, attribute) of every key; those in mappings with free keys belong to the mapping."""
    for field in attrs.fields(kind):
        inner = f"{path}.{yaml_key(field.name)}" if path else yaml_key(field.name)
        yield inner, field.name
        item = field.type
        if get_origin(item) is tuple:
            item, inner = get_args(item)[0], f"{inner}[]"
        optional = [option for option in get_args(item) if attrs.has(option)] if get_origin(item) is not Mapping else []
        for section in optional or [item]:
            if isinstance(section, type) and attrs.has(section):
                yield from schema(section, inner)


SCHEMA = dict(schema(Config))


def listed(path: str) -> bool:
    """*path* or what it is in is in the table, or is never to have an effect."""
    return any(
        path == other or path.startswith((f"{other}.", f"{other}[]")) for other in (*INACTIVE, *ACCEPTED_AND_IGNORED)
    )


def test_every_row_is_a_key() -> None:
    """A misspelled row would never warn."""
    assert set(INACTIVE) <= set(SCHEMA)
    assert set(SCHEMA) >= ACCEPTED_AND_IGNORED


def test_a_key_that_is_read_leaves_the_table() -> None:
    """Whoever makes a key work removes its row, its mark in the example, and its line in the README."""
    names = {SCHEMA[path] for path in INACTIVE} - SHARED_NAMES
    assert names & attributes_read() == set()


def test_a_key_that_nothing_reads_is_in_the_table() -> None:
    """Otherwise somebody sets it and believes in it. Below plugins only `enabled` counts."""
    read = attributes_read() | texts()
    for path, name in SCHEMA.items():
        section = any(other.startswith((f"{path}.", f"{path}[]")) for other in SCHEMA)
        # These two belong to one list each, but all lists share one class.
        elsewhere = path.endswith((".websockets", ".rebuild-mid-system-message"))
        if not section and not elsewhere and not path.startswith("plugins."):
            assert name in read or listed(path), path


def test_the_readme_names_every_key_of_the_table() -> None:
    """Itself or the section that it is in, under what does not work yet."""
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    text = text.partition("## What does not work yet\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z.-]+)`", text))
    for path in INACTIVE:
        assert {path, path.split(".")[0], path.split(".")[-1]} & named, path
