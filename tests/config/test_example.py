"""conf/config.example.yaml is complete, correct, and says what the defaults are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cpa.config.changes import yaml_key
from cpa.config.load import parse_config
from cpa.config.schema import (
    ApiKeyEntry,
    ChainConfig,
    ChainMatch,
    ClientLimits,
    Config,
    ModelEntry,
    OAuthModelAlias,
    OpenAICompatibility,
    PayloadFilterRule,
    PayloadMatch,
    PayloadRawRule,
    PayloadRule,
    PluginEntry,
    ProviderKeyEntry,
    RequestScopedError,
    ThinkingSpec,
)

EXAMPLE = Path(__file__).parents[2] / "conf" / "config.example.yaml"

ENTRIES = (
    *(
        ApiKeyEntry,
        ChainConfig,
        ChainMatch,
        ClientLimits,
        ModelEntry,
        OAuthModelAlias,
        OpenAICompatibility,
        PayloadFilterRule,
    ),
    *(PayloadMatch, PayloadRawRule, PayloadRule, PluginEntry, ProviderKeyEntry, RequestScopedError, ThinkingSpec),
)
NOT_KEYS = {"raw", "config-yaml"}


def uncommented() -> str:
    """The file with its examples active: lines whose "#" stands directly before a key or its indentation."""
    return re.sub(r"(?m)^#(?=[a-z]|  )", "", EXAMPLE.read_text(encoding="utf-8"))


def keys_of(kind: Any) -> Iterator[str]:
    for field in attrs.fields(kind):
        yield yaml_key(field.name)
        if attrs.has(type(field.default)):
            yield from keys_of(type(field.default))


ALL_KEYS = sorted({key for kind in (Config, *ENTRIES) for key in keys_of(kind)} - NOT_KEYS)


def test_the_file_as_it_is_equals_an_empty_one() -> None:
    loaded = parse_config(EXAMPLE.read_bytes(), file="example")
    assert loaded.warnings == ()
    assert loaded.config == Config()


def test_every_example_in_it_is_valid() -> None:
    loaded = parse_config(uncommented(), file="example")
    assert [line for line in loaded.warnings if "accepted, but has no effect" not in line] == []
    config = loaded.config
    for field in attrs.fields(Config):
        value = getattr(config, field.name)
        # What is empty by default must have an example.
        assert value or not isinstance(field.default, tuple) or field.name == "trusted_proxies", field.name
    assert config.plugins.configs["redact"].timeout == 30.0
    assert config.pipeline.chains[0].match.source == "claude"


@pytest.mark.parametrize("key", ALL_KEYS)
def test_every_key_is_there_with_a_comment(key: str) -> None:
    lines = uncommented().splitlines()
    at = re.compile(rf"^(\s*(- )?|.*[{{,] ?){re.escape(key)}:(\s|$)")
    places = [index for index, line in enumerate(lines) if at.match(line)]
    assert places, f"{key} is not in the file"
    assert any(" # " in lines[index] or lines[index - 1].lstrip().startswith("# ") for index in places)
