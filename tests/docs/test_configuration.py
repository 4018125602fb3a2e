"""docs/configuration.md has every key of the example file, which tests/config holds against the schema."""

import re
from collections.abc import Iterator

import pytest
import yaml

from cpa.config.inactive import EXAMPLE_MARK, INACTIVE
from tests.config.test_example import uncommented
from tests.docs.configuration import COMMAND, PAGE, make_page, read_rows, read_sections, without_default

FREE = re.compile(r"\.headers\.|^payload\..*\.(?:params|match|not-match)(?:\[\])?\.|\.(?:request|response)\[\]\.")
"""Below these are names of users, not keys."""


def paths(value: object, path: str = "") -> Iterator[str]:
    """Of every key of a YAML value; ``[]`` for items of lists."""
    if isinstance(value, dict):
        for key, inner in value.items():
            below = f"{path}.{key}" if path else str(key)
            yield below
            yield from paths(inner, below)
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{path}[]")


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == make_page(), f"write it anew: {COMMAND}"


def test_every_key_has_a_row() -> None:
    """Those that the example writes in one line with their neighbours have theirs in another list."""
    rows = {row.path for section in read_sections() for row in section.rows}
    keys = {path for path in paths(yaml.safe_load(uncommented())) if not FREE.search(path)}
    last = {path.rsplit(".", 1)[-1] for path in rows}
    assert {key for key in keys if key.split(".")[-1] not in last} == {"plugins.configs.redact.words"} - rows
    assert {key for key in keys if "[" not in key and key.count(".") < 2} <= rows
    assert rows - keys == set()


def test_every_row_says_something() -> None:
    rows = [row for section in read_sections() for row in section.rows]
    assert [row.path for row in rows if len(row.effect) < 5 and "." not in row.path] == []
    assert len(rows) > 150
    marked = {row.path for row in rows if EXAMPLE_MARK in row.effect.lower()}
    assert {path for path in INACTIVE if path.count(".") < 2 and "[]" not in path} <= marked


@pytest.mark.parametrize(
    ("effect", "default", "left"),
    [
        ("Log level debug, default false.", "false", "Log level debug."),
        ("default false", "false", ""),
        ("default false; true = 404", "false", "true = 404"),
        ("Ceiling, default 3600, at most 7200.", "3600", "Ceiling, default 3600, at most 7200."),
        ("PEM file", "", "PEM file"),
    ],
    ids=["sentence", "nothing else", "first", "within", "none"],
)
def test_defaults_are_not_said_twice(effect: str, default: str, left: str) -> None:
    assert without_default(effect, default) == left


def test_rows_of_lists_and_comments() -> None:
    listed = "#some-list:\n#  - key: one    # first, default two\n#    # behind\n#    other: 2\n"
    text = f"# Two lines\n# of text.\n{listed}plain: 3\n"
    found = [(row.path, row.default, row.effect) for row in read_rows(text)]
    assert found == [
        ("some-list", "", "Two lines of text."),
        ("some-list[].key", "two", "first, default two"),
        ("some-list[].other", "", "behind"),
        ("plain", "3", ""),
    ]
