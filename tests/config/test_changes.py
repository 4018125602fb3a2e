"""Changes of the configuration are told in words, without secrets."""

import pytest

from cpa.config.changes import RESTART_KEYS, describe_changes, restart_keys_changed
from cpa.config.load import parse_config
from cpa.config.schema import Config


def config(text: str) -> Config:
    return parse_config(text, file="c.yaml").config


FARM = "openai-compatibility: [{name: farm, base-url: 'https://f', models: [%s]%s}]"


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("", "", []),
        ("", "request-log: true", ["request-log: false -> true"]),
        ("", "host: ''", ['host: 127.0.0.1 -> ""']),
        ("", "streaming: {keepalive-seconds: 15}", ["streaming.keepalive-seconds: 0 -> 15"]),
        ("", "routing: {session-affinity-ttl: 90m}", ["routing.session-affinity-ttl: 3600 -> 5400"]),
        ("api-keys: [a, b, c]", "api-keys: [c, d]", ["api-keys: 1 added, 2 removed"]),
        ("api-keys: [a, b]", "api-keys: [b, a]", ["api-keys: order changed"]),
        ("", "proxy-url: 'http://u:p@h'", ["proxy-url: set"]),
        ("proxy-url: 'http://u:p@h'", "proxy-url: 'http://u:q@h'", ["proxy-url: changed"]),
        ("proxy-url: 'http://u:p@h'", "", ["proxy-url: removed"]),
        (
            FARM % ("{name: a}, {name: b}, {name: c}", ""),
            FARM % ("{name: a}, {name: b}, {name: c}, {name: d}", ""),
            ["openai-compatibility: farm: models 3 -> 4"],
        ),
        (
            FARM % ("{name: a}, {name: b}", ", priority: 1"),
            FARM % ("{name: a}, {name: c}", ", headers: {A: b}, disable-cooling: true"),
            [
                "openai-compatibility: farm: priority 1 -> 0, headers set, models 1 added, 1 removed, "
                "disable-cooling unset -> true"
            ],
        ),
        ("", FARM % ("{name: a}", ""), ["openai-compatibility: farm: added"]),
        (FARM % ("{name: a}", ""), "", ["openai-compatibility: farm: removed"]),
        (
            "claude-api-key: [{api-key: k}, {api-key: l, prefix: p}]",
            "claude-api-key: [{api-key: l, prefix: p, weight: 2}, {api-key: m, base-url: 'https://x'}]",
            [
                "claude-api-key: key of the vendor (prefix p): weight 1 -> 2",
                "claude-api-key: https://x: added",
                "claude-api-key: key of the vendor: removed",
            ],
        ),
        (
            "claude-api-key: [{api-key: k}, {api-key: l}]",
            "claude-api-key: [{api-key: l}, {api-key: k}]",
            ["claude-api-key: order changed"],
        ),
        (
            "plugins: {configs: {a: {enabled: true, word: x}, b: {}, d: {priority: 1}}}",
            "plugins: {configs: {a: {enabled: true, word: y}, c: {}, d: {priority: 2}}}",
            [
                "plugins.configs: a: own settings changed",
                "plugins.configs: b: removed",
                "plugins.configs: d: priority 1 -> 2",
                "plugins.configs: c: added",
            ],
        ),
        (
            "oauth-excluded-models: {v: [a]}",
            "oauth-excluded-models: {v: [a, b]}",
            ["oauth-excluded-models: v: 1 added"],
        ),
        ("", "payload: {filter: [{models: [{name: a}], params: [x]}]}", ["payload.filter: 1 added"]),
        ("tls: {cert: /a}", "tls: {cert: /b}", ["tls.cert: /a -> /b"]),
    ],
)
def test_lines(old: str, new: str, lines: list[str]) -> None:
    assert describe_changes(config(old), config(new)) == lines


def test_no_secret_is_told() -> None:
    def text(secret: str) -> str:
        return f"""\
api-keys: [{secret}]
remote-management: {{secret-key: {secret}}}
proxy-url: http://u:{secret}@h
state: {{backend: redis, url: "redis://:{secret}@h"}}
claude-api-key: [{{api-key: {secret}, headers: {{A: {secret}}}, proxy-url: "http://u:{secret}@h"}}]
openai-compatibility:
  - {{name: a, base-url: "https://h", api-key-entries: [{{api-key: {secret}}}], headers: {{A: {secret}}}}}
plugins: {{store-auth: [{secret}], configs: {{a: {{token: {secret}}}}}}}
pipeline: {{chains: [{{name: a, match: {{keys: [{secret}]}}}}]}}
payload: {{override: [{{models: [{{name: a, headers: {{A: {secret}}}}}], params: {{a: 1}}}}]}}
"""

    lines = describe_changes(config(text("canary-one")), config(text("canary-two")))
    assert len(lines) == 11
    assert "canary" not in "".join(lines)


def test_what_needs_a_restart() -> None:
    assert RESTART_KEYS == ("host", "port", "tls", "commercial-mode", "workers")
    new = config("host: ''\ncommercial-mode: true\ntls: {enable: true, cert: /c, key: /k}\ndebug: true")
    assert restart_keys_changed(Config(), new) == ("host", "tls", "commercial-mode")
    assert restart_keys_changed(new, new) == ()
