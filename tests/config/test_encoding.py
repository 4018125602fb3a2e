"""A configuration as JSON is the file again."""

from pathlib import Path

import attrs
import msgspec

from cpa.config.changes import describe_changes
from cpa.config.encoding import PRIVATE, REDACTED, config_json, value_json
from cpa.config.load import parse_config
from cpa.config.schema import Config
from cpa.formats.json import encode
from tests.docs.configuration import read_sections

EXAMPLE = Path("conf/config.example.yaml")


def everything() -> Config:
    """Every key of the example file, the commented ones active."""
    text = "".join(section.example for section in read_sections())
    return parse_config(text, file="example.yaml").config


def test_what_is_told_reads_as_what_is_in_force() -> None:
    """JSON is YAML: fed to the loader, it makes the same configuration."""
    config = everything()
    told = encode(config_json(config))
    again = parse_config(told, file="told.json").config
    kept = {name: getattr(config, name) for name in ("host", "port", "auth_dir", "remote_management")}
    differences = [line for line in describe_changes(config, attrs.evolve(again, **kept)) if "plugins" not in line]
    assert differences == []


def test_private_keys_are_left_out() -> None:
    """As the contract says."""
    assert not set(PRIVATE) & set(config_json(everything()))


def test_redaction_hides_what_is_secret_and_nothing_else() -> None:
    """By the same mark that keeps secrets out of logs."""
    text = (
        "api-keys: [secret-1]\nproxy-url: http://u:secret-2@h\nrouting: {strategy: fill-first}\n"
        "claude-api-key: [{api-key: secret-3, headers: {X-A: secret-4}, prefix: team}]\n"
        "limits: {clients: [{keys: [secret-5], requests-per-day: 1}]}\n"
        "plugins: {configs: {p: {enabled: true, nested: [{token: secret-6, size: 3}]}}}\n"
    )
    told = config_json(parse_config(text, file="a").config, redact=True)
    shown = encode(told).decode()
    assert "secret-" not in shown
    assert told["api-keys"] == [REDACTED]
    entry = told["claude-api-key"]
    assert isinstance(entry, list)
    assert isinstance(entry[0], dict)
    assert entry[0]["headers"] == {"X-A": REDACTED}
    assert entry[0]["prefix"] == "team"
    plugins = told["plugins"]
    assert isinstance(plugins, dict)
    assert plugins["configs"] == {"p": {"enabled": True, "nested": [{"token": REDACTED, "size": 3}]}}


def test_values_alone() -> None:
    """Of any part of the schema."""
    config = parse_config("oauth-excluded-models: {a: [B]}\n", file="a").config
    assert value_json(config.oauth_excluded_models) == {"a": ["b"]}
    assert msgspec.json.decode(encode(value_json(config.routing)))["strategy"] == "round-robin"
