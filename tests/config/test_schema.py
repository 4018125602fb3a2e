"""Values of the schema are read-only and have the documented defaults."""

from pathlib import Path
from types import MappingProxyType

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.schema import Config, PluginsConfig, ProviderKeyEntry, TlsConfig, freeze, thaw

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
@settings(max_examples=50)
def test_thaw_reverses_freeze(value: object) -> None:
    assert thaw(freeze(value)) == value


def test_frozen_values_cannot_be_changed() -> None:
    value = freeze({"a": [{"b": 1}]})
    assert isinstance(value, MappingProxyType)
    with pytest.raises(TypeError):
        value["a"] = 1  # type: ignore[index]
    inner = value["a"]
    assert isinstance(inner, tuple)
    with pytest.raises(TypeError, match="not a JSON-like value: set"):
        freeze({"a": {1, 2}})


def test_paths_are_expanded_and_empty_ones_are_none() -> None:
    assert Config().auth_dir == Path.home() / ".cli-proxy-api"
    assert PluginsConfig(dir="~/x").dir == Path.home() / "x"
    assert TlsConfig(cert="", key="~/k") == TlsConfig(key=Path.home() / "k")


def test_a_missing_home_directory_is_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert PluginsConfig(dir="~/x").dir == Path("~/x")


def test_mappings_are_copied() -> None:
    headers = {"a": "b"}
    entry = ProviderKeyEntry(api_key="k", headers=headers)
    headers["c"] = "d"
    assert dict(entry.headers) == {"a": "b"}


def test_documented_defaults() -> None:
    config = Config()
    assert (config.host, config.port, config.workers) == ("127.0.0.1", 8317, 1)
    assert (config.request_retry, config.max_retry_interval, config.error_logs_max_files) == (3, 30, 10)
    assert (config.quota_exceeded.switch_project, config.ws_auth) == (True, True)
    assert attrs.asdict(config.limits) == {
        "clients": (),
        "body_bytes": 268435456,
        "decompression_ratio": 200,
        "header_seconds": 10.0,
        "body_seconds": 60.0,
        "send_idle_seconds": 60.0,
        "keepalive_idle_seconds": 75.0,
        "websocket_idle_seconds": 600.0,
        "connections": 0,
        "connect_seconds": 30.0,
        "response_bytes": 268435456,
        "error_body_bytes": 1048576,
        "sse_event_bytes": 52428800,
        "shutdown_grace_seconds": 30.0,
        "nested_depth": 8,
    }
