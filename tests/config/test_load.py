"""A configuration file is read whole, or every mistake in it is told at once."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.load import digest_of, load_config, parse_config
from cpa.config.schema import (
    Config,
    ErrorAction,
    ImageGeneration,
    Isolation,
    ModelEntry,
    PathValue,
    StateBackend,
    Strategy,
    ThinkingSpec,
    thaw,
)
from cpa.errors import ConfigError

SMALL_EXAMPLE = """\
host: 127.0.0.1
port: 8317
api-keys: ["sk-local-3f7c…"]
remote-management: {allow-remote: false, secret-key: "change-me"}
auth-dir: ~/.cli-proxy-api
request-retry: 3
max-retry-interval: 30
routing: {strategy: fill-first, session-affinity: true, session-affinity-ttl: 30m}
streaming: {keepalive-seconds: 15, bootstrap-retries: 1}
gemini-api-key:
  - api-key: AIza-one
    priority: 10
    excluded-models: ["*-preview"]
  - api-key: AIza-two
    prefix: backup
claude-api-key:
  - api-key: sk-ant-one
    models:
      - {name: claude-sonnet-4-6, alias: sonnet, force-mapping: true}
openai-compatibility:
  - name: openrouter
    base-url: https://openrouter.example/api/v1
    headers: {X-Title: my-proxy}
    api-key-entries:
      - {api-key: sk-or-1, weight: 3}
      - {api-key: sk-or-2, weight: 1, proxy-url: "socks5://127.0.0.1:1080"}
    models:
      - {name: "moonshotai/kimi-k3", alias: kimi, thinking: {levels: [low, high, max]}}
payload:
  override:
    - models: [{name: "kimi", protocol: openai}]
      params: {temperature: 0.6}
"""


def read(text: str | bytes) -> Config:
    """What *text* says; the only warnings are of keys that wait for their part, see test_inactive."""
    loaded = parse_config(text, file="c.yaml")
    assert [line for line in loaded.warnings if "accepted, but has no effect" not in line] == []
    return loaded.config


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, file="c.yaml")
    return list(caught.value.problems)


def only_problem(text: str | bytes) -> str:
    (problem,) = problems(text)
    return problem


def outcome(text: str | bytes) -> tuple[str, ...]:
    """Problems or warnings; anything but these two results is an error of the test that asks."""
    try:
        return parse_config(text, file="c.yaml").warnings
    except ConfigError as exc:
        return exc.problems


def warnings(text: str) -> list[str]:
    return list(parse_config(text, file="c.yaml").warnings)


def test_the_specification_s_example_is_read() -> None:
    config = read(SMALL_EXAMPLE)
    assert config.api_keys == ("sk-local-3f7c…",)
    assert config.remote_management.secret_key == "change-me"
    assert config.routing.strategy is Strategy.FILL_FIRST
    assert config.routing.session_affinity_ttl_s == 1800.0
    assert [(key.api_key, key.priority, key.prefix) for key in config.gemini_api_key] == [
        ("AIza-one", 10, ""),
        ("AIza-two", 0, "backup"),
    ]
    assert config.gemini_api_key[0].excluded_models == ("*-preview",)
    assert config.claude_api_key[0].models == (
        ModelEntry(name="claude-sonnet-4-6", alias="sonnet", force_mapping=True),
    )
    (compatible,) = config.openai_compatibility
    assert [(key.api_key, key.weight, key.proxy_url) for key in compatible.api_key_entries] == [
        ("sk-or-1", 3, ""),
        ("sk-or-2", 1, "socks5://127.0.0.1:1080"),
    ]
    assert compatible.models[0].thinking == ThinkingSpec(levels=("low", "high", "max"))
    assert dict(config.payload.override[0].params) == {"temperature": 0.6}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n", "\ufeff", b"\xef\xbb\xbf"])
def test_an_empty_document_is_all_defaults(text: str | bytes) -> None:
    assert read(text) == Config()


def test_null_is_the_same_as_absent() -> None:
    keys = ["host", "port", "api-keys", "tls", "routing", "claude-api-key", "plugins", "auth-dir", "payload"]
    assert read("".join(f"{key}:\n" for key in keys)) == Config()


def test_ten_mistakes_are_ten_lines_in_file_order() -> None:
    text = """\
host: http://localhost
port: "8317"
debug: 1
prot: 8317
api-keys: [one, {two: 2}]
claude-api-key:
  - base-url: ftp://example.com
codex-api-key:
  - api-key: k
routing: {session-affinity-ttl: 3 hours}
port: 1
state: {backend: redis}
"""
    found = problems(text)
    assert [int(line.split(":")[1]) for line in found] == [1, 2, 3, 4, 5, 7, 9, 10, 11, 12]
    places = [line.split(": ")[1] for line in found]
    assert places[:3] == ["host", "port", "debug"]
    assert places[4:8] == [
        "api-keys[1]",
        "claude-api-key[0].base-url",
        "codex-api-key[0].base-url",
        "routing.session-affinity-ttl",
    ]
    assert found[1] == "c.yaml:2: port: expected an integer from 0 to 65535, got '8317' (str)"
    assert found[3].startswith("c.yaml:4: unknown key 'prot'; did you mean 'port'? known keys: host, port, tls, ")
    assert found[8] == "c.yaml:11: key 'port' is given twice, first in line 2"
    assert all(re.match(r"c\.yaml:\d+: .*(expected .+, got .+|unknown key|given twice)", line) for line in found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port: true", "port: expected an integer from 0 to 65535, got true (bool)"),
        ("port: 65536", "port: expected an integer from 0 to 65535, got 65536 (int)"),
        ("port: 1.5", "port: expected an integer from 0 to 65535, got 1.5 (float)"),
        ("port: [1]", "port: expected an integer from 0 to 65535, got a list of 1"),
        ("request-retry: -1", "request-retry: expected an integer from 0 to 1000, got -1 (int)"),
        ('debug: "true"', "debug: expected true or false, got 'true' (str)"),
        ("debug: 0", "debug: expected true or false, got 0 (int)"),
        ("tls: yes", "tls: expected a mapping, got a string"),
        ("workers: 0", "workers: expected an integer from 1 to 256, got 0 (int)"),
        ("limits: {body-bytes: 0}", "limits.body-bytes: expected an integer from 1 to 1099511627776, got 0 (int)"),
        (
            "limits: {header-seconds: -1}",
            "limits.header-seconds: expected a number of seconds from 0 to 1e+09, got -1 (int)",
        ),
        (
            "limits: {header-seconds: .nan}",
            "limits.header-seconds: expected a number of seconds from 0 to 1e+09, got .nan (float)",
        ),
        (
            "request-timeout-seconds: 10s",
            "request-timeout-seconds: expected a number of seconds, 0 = off, got '10s' (str)",
        ),
        ("logging: {format: xml}", "logging.format: expected one of console, json, got 'xml' (str)"),
        (
            "disable-image-generation: maybe",
            "disable-image-generation: expected one of false, true, chat, passthrough, got 'maybe' (str)",
        ),
        (
            "host: 0.0.0.0:80",
            "host: expected an address or host name without scheme, port or brackets, got '0.0.0.0:80' (str)",
        ),
        (
            "trusted-proxies: [10.0.0.0/33]",
            "trusted-proxies[0]: expected an IP address or a network such as 10.0.0.0/8, got '10.0.0.0/33' (str)",
        ),
        ("api-keys: {a: b}", "api-keys: expected a list of keys, got a mapping"),
        ("- a", "expected a mapping of keys to values, got a list of 1"),
        ("just text", "expected a mapping of keys to values, got a string"),
    ],
)
def test_wrong_types_and_ranges(text: str, problem: str) -> None:
    assert only_problem(text) == f"c.yaml:1: {problem}"


def test_nested_unknown_keys_name_their_section() -> None:
    assert only_problem("tls:\n  enabel: false\n") == (
        "c.yaml:2: tls: unknown key 'enabel'; did you mean 'enable'? known keys: enable, cert, key"
    )


def test_keys_of_cliproxyapi_that_are_out_of_scope_are_warnings() -> None:
    text = """\
codex: {header-defaults: {}}
antigravity-signature-cache-enabled: true
credential-concurrency: 4
quota-exceeded: {antigravity-credits: true}
claude-api-key:
  - api-key: k
    cloak: {mode: auto}
    fingerprint-profile: x
"""
    found = warnings(text)
    assert [int(line.split(":")[1]) for line in found] == [1, 2, 3, 4, 7, 8]
    assert found[4] == (
        "c.yaml:7: claude-api-key[0]: 'cloak' belongs to a part of CLIProxyAPI that CPA does not have; ignored"
    )


class TestProviders:
    """The rules of specification 3.2."""

    @pytest.mark.parametrize("name", ["gemini", "interactions", "claude"])
    def test_key_or_url_is_enough(self, name: str) -> None:
        assert problems(f"{name}-api-key: [{{priority: 1}}]") == [
            f"c.yaml:1: {name}-api-key[0]: expected api-key or base-url, got neither"
        ]
        config = read(f"{name}-api-key: [{{base-url: 'https://g.example/'}}, {{api-key: k}}]")
        entries = getattr(config, f"{name}_api_key")
        assert [(entry.api_key, entry.base_url) for entry in entries] == [("", "https://g.example"), ("k", "")]

    @pytest.mark.parametrize("name", ["codex", "xai"])
    def test_responses_keys_need_a_base_url(self, name: str) -> None:
        assert only_problem(f"{name}-api-key: [{{api-key: k}}]") == (
            f"c.yaml:1: {name}-api-key[0].base-url: expected an http or https URL with a host, got nothing"
        )

    def test_vertex_needs_a_key_and_both_model_names(self) -> None:
        assert problems("vertex-api-key:\n  - base-url: https://v.example\n    models:\n      - name: m\n") == [
            "c.yaml:2: vertex-api-key[0].api-key: expected a key, got nothing",
            "c.yaml:4: vertex-api-key[0].models[0].alias: expected a model name, got nothing",
        ]

    def test_a_disabled_gateway_needs_nothing(self) -> None:
        assert read("openai-compatibility: [{name: x, disabled: true}]").openai_compatibility[0].disabled is True
        assert "base-url" in only_problem("openai-compatibility: [{name: x}]")

    @pytest.mark.parametrize(
        ("url", "got"),
        [
            ("ftp://h/x", "a URL with the scheme 'ftp'"),
            ("example.com/v1", "a string without scheme"),
            ("user:hunter2@example.com", "a string without scheme"),
            ("https://", "a URL without a host"),
            ("https://u:hunter2@h", "a URL with a user name; use api-key or headers"),
            ("https://h/?key=hunter2", "a URL with a query or fragment, to which no path can be added"),
            ("https://h:99999", "a string that is not a URL"),
            ("https://[::1", "a string that is not a URL"),
            ("https://a b", "a string that is not a URL"),
        ],
    )
    def test_bad_base_urls(self, url: str, got: str) -> None:
        assert only_problem(f"claude-api-key:\n  - base-url: '{url}'") == (
            f"c.yaml:2: claude-api-key[0].base-url: expected an http or https URL with a host, got {got}"
        )

    @pytest.mark.parametrize(
        ("written", "kept"),
        [("1000000", 1000000), ("0", 0), ("-3", 0), ("1", 1)],
    )
    def test_weights(self, written: str, kept: int) -> None:
        assert read(f"claude-api-key: [{{api-key: k, weight: {written}}}]").claude_api_key[0].weight == kept

    @pytest.mark.parametrize("written", ["1000001", "2.5", '"3"', "true", "[]"])
    def test_bad_weights_fail_the_file(self, written: str) -> None:
        assert only_problem(f"claude-api-key: [{{api-key: k, weight: {written}}}]").startswith(
            "c.yaml:1: claude-api-key[0].weight: expected an integer of at most 1000000, got "
        )

    def test_tri_states(self) -> None:
        config = read("claude-api-key: [{api-key: a}, {api-key: b, disable-cooling: false, request-retry: 0}, "
                      "{api-key: c, disable-cooling: true, request-retry: -1}]")  # fmt: skip
        seen = [(entry.disable_cooling, entry.request_retry) for entry in config.claude_api_key]
        assert seen == [(None, None), (False, 0), (True, None)]

    def test_excluded_models_are_lower_case_and_unique(self) -> None:
        config = read('gemini-api-key: [{api-key: k, excluded-models: [" A-* ", a-*, "", B]}]')
        assert config.gemini_api_key[0].excluded_models == ("a-*", "b")

    def test_prefixes(self) -> None:
        assert read("claude-api-key: [{api-key: k, prefix: ' /team/ '}]").claude_api_key[0].prefix == "team"
        loaded = parse_config("claude-api-key: [{api-key: k, prefix: a/b}]", file="c.yaml")
        assert loaded.config.claude_api_key[0].prefix == ""
        assert loaded.warnings == ("c.yaml:1: claude-api-key[0].prefix: a prefix cannot contain '/'; ignored",)

    def test_models(self) -> None:
        config = read("claude-api-key: [{api-key: k, models: [{alias: a}, {name: 4.1, thinking: {min: 1, max: 9, "
                      "levels: [None, auto, LOW]}}]}]")  # fmt: skip
        first, second = config.claude_api_key[0].models
        assert (first.name, first.alias) == ("a", "a")
        assert second.name == "4.1"
        assert second.thinking == ThinkingSpec(min=1, max=9, zero_allowed=True, dynamic_allowed=True, levels=("low",))

    def test_bad_models(self) -> None:
        text = """\
claude-api-key:
  - api-key: k
    models:
      - {}
      - text
      - name: m
        thinking: {min: 5}
"""
        assert problems(text) == [
            "c.yaml:4: claude-api-key[0].models[0].name: expected a model name, got nothing",
            "c.yaml:5: claude-api-key[0].models[1]: expected a mapping, got a string",
            "c.yaml:7: claude-api-key[0].models[2].thinking.max: expected a budget of at least min (5), got nothing",
        ]

    def test_keys_of_other_families_are_unknown(self) -> None:
        assert "unknown key 'websockets'" in only_problem("claude-api-key: [{api-key: k, websockets: true}]")
        assert (
            read("claude-api-key: [{api-key: k, rebuild-mid-system-message: true}]")
            .claude_api_key[0]
            .rebuild_mid_system_message
        )

    def test_headers(self) -> None:
        config = read("claude-api-key: [{api-key: k, headers: {X-A: 1, Host: h, X-B: $User-Agent}}]")
        assert dict(config.claude_api_key[0].headers) == {"X-A": "1", "Host": "h", "X-B": "$User-Agent"}
        assert problems('claude-api-key:\n  - api-key: k\n    headers:\n      "X A": v\n      X-B: "a\\r\\nb"\n') == [
            "c.yaml:4: claude-api-key[0].headers: expected a header name, got 'X A'",
            "c.yaml:5: claude-api-key[0].headers.X-B: expected a header value, got a string with control characters",
        ]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("", ""), ("direct", "direct"), ("None", "direct"), ("http://p:3128", "http://p:3128"),
        ("https://u:p@p", "https://u:p@p"), ("socks5://[::1]:1080", "socks5://[::1]:1080"), ("socks5h://p", "socks5h://p"),
    ],
)  # fmt: skip
def test_proxy_urls(written: str, kept: str) -> None:
    assert read(f"proxy-url: '{written}'").proxy_url == kept


@pytest.mark.parametrize(
    "written", ["socks4://p", "p:3128", "http://", "http://u:hunter2@:8", "u:hunter2@p", "http://p:x"]
)
def test_bad_proxy_urls_never_show_the_password(written: str) -> None:
    problem = only_problem(f"proxy-url: '{written}'")
    assert problem.startswith("c.yaml:1: proxy-url: expected direct, none or a URL with one of http, https, socks5, ")
    assert "hunter2" not in problem


class TestErrorRules:
    def test_a_rule(self) -> None:
        (rule,) = read(
            "claude-api-key: [{api-key: k, request-scoped-errors: [{status: 400, match: [' low'], "
            "match-regexr: ['(?i)overloaded_.*\\z'], action: continue-and-cooldown}]}]"
        ).claude_api_key[0].request_scoped_errors  # fmt: skip
        assert (rule.status, rule.match, rule.action) == (400, (" low",), ErrorAction.CONTINUE_AND_COOLDOWN)
        assert rule.match_regexr[0].search("x OVERLOADED_now")
        assert not rule.match_regexr[0].search("overloaded_now\nmore\n")

    def test_broken_rules(self) -> None:
        text = """\
oauth-request-scoped-errors:
  vertex:
    - {status: 400, action: stop}
    - {match: [a], action: stop}
    - {status: 400, match: [a], action: retry}
    - {status: 400, match-regexr: ["("], action: stop}
    - {status: 400, match-regexr: ["a(?i)b"], action: stop}
    - {status: 400, match-regexr: ["[[:alpha:]]"], action: stop}
"""
        found = problems(text)
        assert [line.split(": ", 1)[0] for line in found] == [f"c.yaml:{line}" for line in range(3, 9)]
        assert [re.sub(r"^.*\[\d\]\.", "", line.split(": ")[1]) for line in found[:3]] == ["match", "status", "action"]
        assert all("expected a regular expression, got" in line for line in found[3:])


class TestOAuth:
    def test_tables(self) -> None:
        config = read("""\
oauth-model-alias: {Vertex: [{name: a, alias: x, fork: true}, {name: a, alias: y}]}
oauth-excluded-models: {vertex: [A*]}
""")
        assert [(item.name, item.alias, item.fork) for item in config.oauth_model_alias["vertex"]] == [
            ("a", "x", True),
            ("a", "y", False),
        ]
        assert dict(config.oauth_excluded_models) == {"vertex": ("a*",)}

    def test_an_alias_is_unique_in_its_channel(self) -> None:
        assert only_problem("oauth-model-alias: {v: [{name: a, alias: x}, {name: b, alias: X}]}") == (
            "c.yaml:1: oauth-model-alias.v: expected every alias once in a channel, got 'X' twice"
        )


class TestPayload:
    def test_all_conditions(self) -> None:
        config = read("""\
payload:
  default:
    - models:
        - name: "gpt-*"
          protocol: OpenAI
          from-protocol: openai-responses
          headers: {User-Agent: "*codex*"}
          match: [{"tools.0.type": function, n: 1}, {b: [true, null]}]
          not-match: [{"metadata.tier": free}]
          exist: [messages]
          not-exist: [service_tier]
      params: {service_tier: priority, gone: null}
  default-raw:
    - models: [{name: "*"}]
      params: {a: '{"type":"json_object"}', b: {c: [1, "é"]}, d: 2}
  filter:
    - models: [{name: x}]
      params: ['tools.#(type=="web_search")#.user_location', metadata]
""")
        rule = config.payload.default[0]
        (item,) = rule.models
        assert (item.name, item.protocol, item.from_protocol) == ("gpt-*", "openai", "openai-response")
        assert dict(item.headers) == {"user-agent": "*codex*"}
        assert item.match == (
            PathValue(path="tools.0.type", value="function"),
            PathValue(path="n", value=1),
            PathValue(path="b", value=(True, None)),
        )
        assert item.not_match == (PathValue(path="metadata.tier", value="free"),)
        assert (item.exist, item.not_exist) == (("messages",), ("service_tier",))
        assert dict(rule.params) == {"service_tier": "priority", "gone": None}
        assert dict(config.payload.default_raw[0].params) == {
            "a": '{"type":"json_object"}',
            "b": '{"c": [1, "é"]}',
            "d": "2",
        }
        assert config.payload.filter[0].params == ('tools.#(type=="web_search")#.user_location', "metadata")

    @pytest.mark.parametrize("raw", ["{", "NaN", ""])
    def test_invalid_json_costs_the_rule_only(self, raw: str) -> None:
        loaded = parse_config(
            f"payload:\n  override-raw:\n    - models: [{{name: a}}]\n      params: {{x: '1', y: '{raw}'}}\n"
            "    - {models: [{name: b}], params: {x: '1'}}\n",
            file="c.yaml",
        )
        assert [rule.models[0].name for rule in loaded.config.payload.override_raw] == ["b"]
        assert loaded.warnings == (
            "c.yaml:4: payload.override-raw[0].params.y: not valid JSON; the whole rule is left out",
        )

    def test_an_item_without_name_is_a_warning(self) -> None:
        found = warnings("payload: {filter: [{models: [{protocol: openai}], params: [a]}]}")
        assert found == [
            "c.yaml:1: payload.filter[0].models[0]: an item without name never matches",
        ]


class TestPlugins:
    TEXT = """\
plugins:
  enabled: true
  dir: ~/plugins
  configs:
    # comment of nobody
    redact:
      priority: 7     # why
      # inside: é
      words: ["a", 'b']
      number: "1"
      answer: yes
      block: |
        one
          two

    # comment of the next
    other: {enabled: on, x: "1", isolation: Inline, timeout: 1m}
    bare: text
    empty: {}
"""

    def test_settings(self) -> None:
        plugins = read(self.TEXT).plugins
        assert (plugins.enabled, plugins.isolation) == (True, Isolation.PROCESS)
        assert plugins.dir == Path("~/plugins").expanduser()
        seen = {
            name: (entry.enabled, entry.priority, entry.isolation, entry.timeout)
            for name, entry in plugins.configs.items()
        }
        assert seen == {
            "redact": (False, 7, None, None),
            "other": (True, 0, Isolation.INLINE, 60.0),
            "bare": (False, 0, None, None),
            "empty": (False, 0, None, None),
        }
        assert thaw(plugins.configs["redact"].raw) == {
            "priority": 7, "words": ["a", "b"], "number": "1", "answer": "yes", "block": "one\n  two\n",
        }  # fmt: skip

    def test_the_plugin_gets_its_source_text(self) -> None:
        configs = read(self.TEXT).plugins.configs
        assert configs["redact"].config_yaml == (
            'priority: 7     # why\n# inside: é\nwords: ["a", \'b\']\nnumber: "1"\nanswer: yes\n'
            "block: |\n  one\n    two\nenabled: false\n"
        )
        assert configs["other"].config_yaml == ('enabled: on\nx: "1"\nisolation: Inline\ntimeout: 1m\npriority: 0\n')
        assert configs["bare"].config_yaml == "text\n"
        assert configs["empty"].config_yaml == "enabled: false\npriority: 0\n"

    def test_aliases_are_written_out_for_the_plugin(self) -> None:
        text = """\
plugins:
  configs:
    a: &a
      enabled: true
      priority: 1
    b:
      <<: *a
      x: *a
"""
        entry = read(text).plugins.configs["b"]
        assert (entry.enabled, entry.priority) == (True, 1)
        indented = "".join(f"      {line}\n" for line in entry.config_yaml.splitlines())
        assert read(f"plugins:\n  configs:\n    c:\n{indented}").plugins.configs["c"].raw == entry.raw

    @pytest.mark.parametrize("name", ["../x", "a/b", "-a", "'a\\n'", "a" * 129, "''"])
    def test_bad_ids(self, name: str) -> None:
        assert "plugins.configs: expected a plugin id" in only_problem(f"plugins: {{configs: {{? {name} : {{}}}}}}")

    def test_bad_settings(self) -> None:
        text = """\
plugins:
  isolation: thread
  configs:
    a:
      isolation: none
      timeout: -1
      priority: high
      enabled: 1
"""
        assert [line.split(": ")[1] for line in problems(text)] == [
            "plugins.isolation",
            *(f"plugins.configs.a.{key}" for key in ("isolation", "timeout", "priority", "enabled")),
        ]


class TestPipeline:
    def test_a_chain(self) -> None:
        (chain,) = read("""\
pipeline:
  chains:
    - name: c
      match: {from: claude, to: gemini, models: ["gemini-*"]}
      request:  [strip-cache-control, {plugin: redact}, {translate: native}, {cap-output-tokens: 32000}, plugins]
      response: [{translate: native}, plugins]
""").pipeline.chains
        assert (chain.match.source, chain.match.target, chain.match.models) == ("claude", "gemini", ("gemini-*",))
        assert thaw(chain.request) == [
            "strip-cache-control",
            {"plugin": "redact"},
            {"translate": "native"},
            {"cap-output-tokens": 32000},
            "plugins",
        ]
        assert thaw(chain.response) == [{"translate": "native"}, "plugins"]

    def test_bad_chains(self) -> None:
        text = """\
pipeline:
  chains:
    - request: [3]
    - name: a
      response: [{a: 1, b: 2}]
    - name: a
      request: [{a: }]
"""
        places = [line.split(": ")[1] for line in problems(text)]
        assert places == [
            "pipeline.chains[0].name",
            "pipeline.chains[0].request[0]",
            "pipeline.chains",
            "pipeline.chains[1].response[0]",
            "pipeline.chains[2].request[0]",
        ]

    def test_foreign_protocols_are_a_warning(self) -> None:
        (foreign,) = warnings("pipeline: {chains: [{name: a, match: {from: cluade}}]}")
        assert "pipeline.chains[0].match.from: not a protocol that CPA knows" in foreign


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("error-logs-max-files: -1", "error_logs_max_files", 10),
        ("error-logs-max-files: 0", "error_logs_max_files", 0),
        ("redis-usage-queue-retention-seconds: 0", "redis_usage_queue_retention_seconds", 60),
        ("redis-usage-queue-retention-seconds: 9999", "redis_usage_queue_retention_seconds", 3600),
        ("max-retry-credentials: -2", "max_retry_credentials", 0),
        ("auth-auto-refresh-workers: 0", "auth_auto_refresh_workers", 16),
        ("logs-max-total-size-mb: -5", "logs_max_total_size_mb", 0),
        ("transient-error-cooldown-seconds: -1", "transient_error_cooldown_seconds", -1),
        ("nonstream-keepalive-interval: -1", "nonstream_keepalive_interval", 0),
        ("host: ''", "host", ""),
        ("host: '::1'", "host", "::1"),
        ("debug: yes", "debug", True),
        ("debug: Off", "debug", False),
        ("ws-auth: FALSE", "ws_auth", False),
        ("port: 0x10", "port", 16),
        ("port: 0800", "port", 800),
        ("request-timeout-seconds: 1.5", "request_timeout_seconds", 1.5),
        ("disable-image-generation: true", "disable_image_generation", ImageGeneration.DISABLE),
        ("disable-image-generation: Chat", "disable_image_generation", ImageGeneration.CHAT),
        ("trusted-proxies: [10.1.2.3/8, '::1']", "trusted_proxies", ("10.0.0.0/8", "::1/128")),
        ("api-keys: [' a ', a, '', b, null, 123]", "api_keys", ("a", "b", "123")),
        ("auth-dir: ''", "auth_dir", Path("~/.cli-proxy-api").expanduser()),
        ("api-keys: ['${HOME}']", "api_keys", ("${HOME}",)),
        ("quota-exceeded: {switch-project: false}", "ws_auth", True),
    ],
)
def test_values_as_the_contract_reads_them(text: str, attribute: str, value: object) -> None:
    assert getattr(read(text), attribute) == value


@pytest.mark.parametrize("written", ["rr", "RoundRobin", "round-robin"])
def test_strategy_synonyms(written: str) -> None:
    assert read(f"routing: {{strategy: {written}}}").routing.strategy is Strategy.ROUND_ROBIN
    assert read("routing: {strategy: WRR}").routing.strategy is Strategy.WEIGHTED_ROUND_ROBIN


def test_an_unknown_strategy_is_round_robin_with_a_warning() -> None:
    loaded = parse_config("routing: {strategy: fastest}", file="c.yaml")
    assert loaded.config.routing.strategy is Strategy.ROUND_ROBIN
    assert "routing.strategy: expected one of" in loaded.warnings[0]


def test_redis_state() -> None:
    state = read("state: {backend: redis, url: 'redis://:pw@h/0'}").state
    assert (state.backend, state.url) == (StateBackend.REDIS, "redis://:pw@h/0")
    assert "expected a URL with one of" in only_problem("state: {url: 'http://h'}")


def test_tls_needs_both_files() -> None:
    assert problems("tls:\n  enable: true\n  key: /k\n  cert: ''\n") == [
        "c.yaml:4: tls.cert: expected the path of a PEM file, since tls.enable is true, got '' (str)"
    ]
    tls = read("tls: {enable: true, key: /k, cert: /c}").tls
    assert (tls.cert, tls.key) == (Path("/c"), Path("/k"))


class TestDocuments:
    """What can be wrong with a file before any key is looked at."""

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("a: [1,\nb: 2\n", "3: expected valid YAML, got a syntax error: "),
            ("a: b: c", "1: expected valid YAML, got a syntax error: mapping values are not allowed"),
            ("a:\n\t- b", "2: expected valid YAML, got a syntax error: found character that cannot start"),
            ("port: 1\n---\nport: 2", "2: expected one YAML document, got a second one"),
            (b"port: 1\n# \xe9", "2: expected UTF-8 text, got byte 0xe9 at offset 10"),
            ("port: 1\n# \x01", "2: expected printable text, got a character that YAML forbids"),
            ("port: *p", "1: expected an anchor defined above, got the alias '*p'"),
            ("port: &a [*a]", "1: expected an anchor defined above, got the alias '*a'"),
            ("? [a]\n: b", "1: expected a key that is text, got a collection"),
            ("<<: 1", "1: expected a mapping after the merge key"),
            ("[" * 100_000, "1: expected at most 64 levels of nesting, got more"),
            (
                "x: &x [" + "a," * 999 + "]\ny: [" + "*x," * 200 + "]",
                "2: expected at most 200000 values with all aliases written out, got more",
            ),
            ("# " + "x" * (4 * 1024 * 1024), "1: expected a file of at most 4194304 bytes, got more"),
        ],
    )
    def test_unreadable(self, text: str | bytes, problem: str) -> None:
        assert only_problem(text).startswith(f"c.yaml:{problem}")

    def test_multiplying_aliases_end_early(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 40)]
        assert "with all aliases written out" in only_problem("\n".join(lines))

    def test_a_syntax_error_does_not_quote_the_line(self) -> None:
        assert "hunter2" not in only_problem('api-keys: ["hunter2-hunter2-hunter2"\nport: "x')

    def test_aliases_and_merges(self) -> None:
        config = read(
            "openai-compatibility:\n  - &a {name: a, base-url: 'https://a', priority: 3}\n  - {<<: *a, name: b}\n"
        )
        assert [(item.name, item.priority) for item in config.openai_compatibility] == [("a", 3), ("b", 3)]

    def test_a_mistake_under_an_anchor_has_the_line_where_it_stands(self) -> None:
        text = "claude-api-key:\n  - {api-key: k, models: &m [{name: x, alias: [1]}]}\n  - {api-key: l, models: *m}\n"
        assert [line.split(":")[1] for line in problems(text)] == ["2", "2"]

    def test_windows_line_ends(self) -> None:
        assert problems("port: 1\r\nhost: [a]\r\n")[0].startswith("c.yaml:2: host")

    @given(st.binary(max_size=200))
    @settings(max_examples=150)
    def test_any_bytes_give_a_configuration_or_problems(self, data: bytes) -> None:
        assert all(line.startswith("c.yaml:") for line in outcome(data))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["port", "tls", "api-keys", "claude-api-key", "payload", "plugins", "routing", "<<", "x"]
                ),
                st.sampled_from(
                    ["1", "[", "]", "{a: ", "}", "- a", "\n  ", "&a", "*a", "'", "!!int z", "null", ": ", "|", "%"]
                ),
            ),
            max_size=8,
        )
    )
    @settings(max_examples=150)
    def test_any_yaml_like_text_gives_a_configuration_or_problems(self, parts: list[tuple[str, str]]) -> None:
        text = "\n".join(f"{key}: {value}" for key, value in parts)
        assert all(line.startswith("c.yaml:") for line in outcome(text))


CANARY = "hunter2hunter"


@pytest.mark.parametrize(
    "text",
    [
        f"api-keys: {CANARY}",
        f"api-keys: [[{CANARY}]]",
        f"api-keys: [{{{CANARY}: 1}}]",
        f"claude-api-key: {CANARY}",
        f"claude-api-key: [{CANARY}]",
        f"claude-api-key: [{{{CANARY}: x}}]",
        f"claude-api-key: [{{api-key: [{CANARY}]}}]",
        f"openai-compatibility: [{{base-url: 'https://h', api-key-entries: [{CANARY}]}}]",
        f"openai-compatibility: [{{base-url: 'https://h', api-key-entries: {CANARY}}}]",
        f"claude-api-key: [{{api-key: k, headers: {CANARY}}}]",
        f"claude-api-key: [{{api-key: k, headers: [{CANARY}]}}]",
        f"claude-api-key: [{{api-key: k, headers: {{A: [{CANARY}]}}}}]",
        f"proxy-url: 'http://u:{CANARY}@'",
        f"proxy-url: [{CANARY}]",
        f"host: u:{CANARY}@h",
        f"state: {{url: 'http://:{CANARY}@h'}}",
        f"state: {CANARY}",
        f"remote-management: {{secret-key: [{CANARY}]}}",
        f"remote-management: {CANARY}",
        f'"{CANARY}',
        f"claude-api-key: [{{base-url: '{CANARY}:x@h'}}]",
        f"pipeline: {{chains: [{{name: a, match: {{keys: {CANARY}}}}}]}}",
        f"port: {CANARY}{CANARY}",
        f"api-keys: ['{CANARY}\\0\x01']",
        f'api-keys: ["{CANARY}\\r\\n"]\nport: x',
        f"{CANARY}",
        f"plugins: {{configs: {CANARY}}}",
        f"payload: {{override: [{{params: {CANARY}}}]}}",
    ],
)
def test_no_message_shows_a_secret(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, file="c.yaml")
    assert CANARY not in str(caught.value)


def test_no_repr_shows_a_secret() -> None:
    config = read(f"""\
api-keys: [{CANARY}]
proxy-url: http://u:{CANARY}@p
remote-management: {{secret-key: {CANARY}}}
state: {{url: "redis://:{CANARY}@h"}}
claude-api-key: [{{api-key: {CANARY}, proxy-url: "http://u:{CANARY}@p", headers: {{Authorization: {CANARY}}}}}]
openai-compatibility:
  - {{base-url: "https://h", headers: {{A: {CANARY}}}, api-key-entries: [{{api-key: {CANARY}, proxy-url: "http://u:{CANARY}@p"}}]}}
plugins: {{configs: {{a: {{token: {CANARY}}}}}, store-auth: [{{token: {CANARY}}}]}}
pipeline: {{chains: [{{name: a, match: {{keys: [{CANARY}]}}}}]}}
payload: {{override: [{{models: [{{name: a, headers: {{Authorization: {CANARY}}}}}], params: {{a: 1}}}}]}}
""")
    assert CANARY not in repr(config)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.problems == (f"{path}:1: expected a readable file, got No such file or directory",)
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)
    path.write_bytes(b"port: 9000\n")
    loaded = load_config(path)
    assert (loaded.config.port, loaded.digest) == (9000, digest_of(b"port: 9000\n"))


def test_the_result_cannot_be_changed() -> None:
    config = read(SMALL_EXAMPLE)
    with pytest.raises(AttributeError):
        config.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.openai_compatibility[0].headers["a"] = "b"  # type: ignore[index]
