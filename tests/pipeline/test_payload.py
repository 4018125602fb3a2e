"""Payload rules: when they fire, what they do in which order, and what they leave alone."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cpa.config.load import parse_config
from cpa.config.schema import PathValue, PayloadMatch, PayloadRule, PayloadRules
from cpa.errors import MalformedRequest, RawHeaders
from cpa.pipeline.payload import Facts, Payload, compile_rules, force_model, force_model_events, payload_of

BODY: dict[str, Any] = {"model": "up", "messages": [{"role": "user"}], "temperature": 1, "metadata": {"tier": "paid"}}


def payload(text: str) -> Payload:
    """The rules of the section *text*, in YAML."""
    return payload_of(parse_config(f"payload: {text}", file="test.yaml").config)


def rules(section: str, params: str, *, models: str = "{name: '*'}") -> Payload:
    """One rule."""
    return payload(f"{{{section}: [{{models: [{models}], params: {params}}}]}}")


def applied(rules: Payload, body: Any = BODY, *, original: Any = None, **facts: Any) -> Any:
    """*body* after *rules*."""
    given: dict[str, Any] = {
        "upstream_model": "up-1",
        "requested_model": "asked",
        "requested_full": "asked(high)",
        "protocol": "openai",
        "client_protocol": "claude",
        "headers": ((b"user-agent", b"codex/1.2"), (b"x-team", b"red"), (b"x-team", b"blue")),
    }
    data = json.dumps(body).encode()
    before = data if original is None else json.dumps(original).encode()
    return json.loads(rules.apply(data, original=before, **(given | facts)))


NAMES: dict[str, Any] = {
    **{"upstream_model": "m", "requested_model": "m", "requested_full": "m"},
    **{"protocol": "", "client_protocol": ""},
}


def run(rules: Payload, body: bytes) -> bytes:
    """*body* after *rules*, byte for byte."""
    return rules.apply(body, original=body, **NAMES)


def fires(models: str, body: Any = BODY, **facts: Any) -> bool:
    """A rule with that item, or these items, does something."""
    return bool(applied(rules("override", "{fired: 1}", models=models), body, **facts).get("fired"))


# -- when they fire --


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("up-1", True),
        ("up-*", True),
        ("UP-1", False),
        ("asked", True),
        ("asked(high)", True),
        ("ask*", True),
        ("*", True),
        ("up", False),
        ("other-*", False),
    ],
)
def test_name_is_compared_with_all_names_of_the_model(name: str, expected: bool) -> None:
    """The provider's, the client's, and the client's with its suffix."""
    assert fires(f"{{name: '{name}'}}") is expected


def test_an_item_without_name_never_matches() -> None:
    """Proxy 2.8."""
    assert not fires("{protocol: openai}")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("protocol: openai", True),
        ("protocol: OpenAI", True),
        ("protocol: ''", True),
        ("protocol: claude", False),
        ("from-protocol: claude", True),
        ("from-protocol: anthropic", True),
        ("from-protocol: openai", False),
        ("from-protocol: responses", False),
        ("protocol: openai, from-protocol: gemini", False),
    ],
)
def test_protocols_of_both_sides(conditions: str, expected: bool) -> None:
    """Sent upstream, and spoken by the client; nothing said means any."""
    assert fires(f"{{name: '*', {conditions}}}") is expected


@pytest.mark.parametrize("name", ["openai-response", "openai-responses", "response", "responses", "Responses"])
def test_responses_has_many_names(name: str) -> None:
    """For clients they are all one. The dialect of codex keys is a protocol of its own upstream."""
    assert fires(f"{{name: '*', from-protocol: {name}}}", client_protocol="openai-response")
    assert not fires(f"{{name: '*', protocol: {name}}}", protocol="codex")
    assert fires("{name: '*', protocol: codex}", protocol="codex")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("User-Agent: '*codex*'", True),
        ("user-agent: 'codex/1.2'", True),
        ("User-Agent: codex", False),
        ("User-Agent: '*Codex*'", False),
        ("X-Team: blue", True),
        ("X-Team: red, User-Agent: '*'", True),
        ("X-Team: blue, X-Other: '*'", False),
    ],
)
def test_every_listed_header_must_be_there(headers: str, expected: bool) -> None:
    """Names in any case, values by pattern, one of several values will do."""
    assert fires(f"{{name: '*', headers: {{{headers}}}}}") is expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("match: [{temperature: 1}]", True),
        ("match: [{temperature: 1.0}]", True),
        ("match: [{temperature: true}]", False),
        ("match: [{temperature: '1'}]", False),
        ("match: [{messages.0.role: user}]", True),
        ("match: [{messages.0: {role: user}}]", True),
        ("match: [{messages: [{role: user}]}]", True),
        ("match: [{messages: [{role: user, x: 1}]}]", False),
        ("match: [{messages: [{role: user}, {role: user}]}]", False),
        ("match: [{messages: user}]", False),
        ("match: [{model: [up]}]", False),
        ("match: [{model: up}, {temperature: 2}]", False),
        ("match: {model: up, temperature: 1}", True),
        ("match: [{'messages.#(role==user).role': user}]", True),
        ("match: [{'messages.#(role==user)#.role': [user]}]", True),
        ("not-match: [{metadata.tier: free}]", True),
        ("not-match: [{metadata.tier: paid}]", False),
        ("not-match: [{nope: 1}]", True),
        ("not-match: [{nope: 1}, {model: up}]", False),
        ("exist: [messages]", True),
        ("exist: [messages, nope]", False),
        ("exist: [nothing]", False),
        ("not-exist: [nope, nothing]", True),
        ("not-exist: [messages]", False),
        ("exist: [messages], not-exist: [metadata.tier]", False),
    ],
)
def test_conditions_on_the_body(conditions: str, expected: bool) -> None:
    """All of an item must hold; null does not exist but can be matched."""
    assert fires(f"{{name: '*', {conditions}}}", BODY | {"nothing": None}) is expected


def test_any_item_will_do() -> None:
    """A rule with several is an or."""
    assert fires("{name: nobody}, {name: '*', exist: [messages]}")
    assert not fires("{name: nobody}, {name: '*', exist: [nope]}")


# -- what they do --


@pytest.mark.parametrize(
    ("section", "params", "changes"),
    [
        ("default", "{top_p: 0.4}", {"top_p": 0.4}),
        ("default", "{temperature: 0.4}", {}),
        ("default", "{a.b.-1: {c: [1, null]}}", {"a": {"b": [{"c": [1, None]}]}}),
        ("default-raw", '{response_format: \'{"type": "json_object"}\'}', {"response_format": {"type": "json_object"}}),
        ("default-raw", "{temperature: '0'}", {}),
        ("override", "{temperature: 0.4, n: 2}", {"temperature": 0.4, "n": 2}),
        ("override", "{metadata.tier: null}", {"metadata": {"tier": None}}),
        ("override", "{'messages.#(role==user)#.x': 1}", {"messages": [{"role": "user", "x": 1}]}),
        ("override-raw", "{stop: '[\"END\"]', n: 3}", {"stop": ["END"], "n": 3}),
        ("override", "{temperature.x: 1}", {}),
    ],
)
def test_rules_set_paths(section: str, params: str, changes: dict[str, Any]) -> None:
    """Defaults only what is missing."""
    assert applied(rules(section, params)) == BODY | changes


def test_filters_delete() -> None:
    """Paths that lead nowhere are no matter."""
    tools = [{"type": "web_search", "user_location": 1}, {"type": "f", "user_location": 2}, {"type": "web_search"}]
    filtered = applied(
        rules("filter", '["tools.#(type==\\"web_search\\")#.user_location", metadata, nope.x]'), BODY | {"tools": tools}
    )
    assert "metadata" not in filtered
    assert filtered["tools"] == [{"type": "web_search"}, {"type": "f", "user_location": 2}, {"type": "web_search"}]


def test_sections_run_in_the_order_of_the_contract() -> None:
    """default, default-raw, override, override-raw, filter; conditions see what came before."""
    text = """
  filter:
    - {models: [{name: '*', match: [{a: 4}]}], params: [b]}
  override-raw:
    - {models: [{name: '*', match: [{a: 3}]}], params: {a: '4'}}
  override:
    - {models: [{name: '*', match: [{a: 2}]}], params: {a: 3}}
  default-raw:
    - {models: [{name: '*', match: [{c: 1}]}], params: {a: '2', b: '1'}}
  default:
    - {models: [{name: '*'}], params: {c: 1}}
"""
    assert applied(payload(text), {}) == {"c": 1, "a": 4}


def test_first_default_and_last_override_win() -> None:
    """Across the plain and the raw sections."""
    every = "models: [{name: '*'}]"
    text = (
        f"{{default: [{{{every}, params: {{a: 1}}}}, {{{every}, params: {{a: 2, b: 2}}}}],"
        f" default-raw: [{{{every}, params: {{a: '3', b: '3', c: '3'}}}}],"
        f" override: [{{{every}, params: {{x: 1}}}}, {{{every}, params: {{x: 2, y: 2}}}}],"
        f" override-raw: [{{{every}, params: {{y: '3'}}}}]}}"
    )
    assert applied(payload(text), {}) == {"a": 1, "b": 2, "c": 3, "x": 2, "y": 3}


def test_a_default_that_does_not_fire_leaves_the_path_to_the_next() -> None:
    """The first rule that fires counts, not the first that is written."""
    text = "{default: [{models: [{name: no}], params: {a: 1}}, {models: [{name: '*'}], params: {a: 2}}]}"
    assert applied(payload(text), {}) == {"a": 2}


@pytest.mark.parametrize(
    ("original", "body", "expected"),
    [
        ({}, {"effort": "high"}, "mine"),
        ({"effort": "low"}, {"effort": "high"}, "high"),
        ({"effort": "low"}, {}, None),
        ({"effort": None}, {"effort": None}, None),
        ({}, {}, "mine"),
    ],
)
def test_defaults_fill_in_what_the_translated_request_lacked(original: Any, body: Any, expected: Any) -> None:
    """Before thinking settings came into it. A null is a value that the client gave."""
    assert applied(rules("default", "{effort: mine}"), body, original=original).get("effort") == expected


def test_defaults_of_several_elements_go_to_those_that_lack_them() -> None:
    """Each for itself."""
    body = {"tools": [{"t": 1}, {"t": 1, "x": 5}, {"t": 2}]}
    assert applied(rules("default", "{'tools.#(t==1)#.x': 0}"), body) == {
        "tools": [{"t": 1, "x": 0}, {"t": 1, "x": 5}, {"t": 2}]
    }


def test_values_of_yaml_become_json() -> None:
    """Raw values that are no text, too."""
    params = "{a: [1, 2.5, {b: true}], b: 12345678901234567890123, 'c': 'text', d: '1'}"
    expected = {"a": [1, 2.5, {"b": True}], "b": 12345678901234567890123, "c": "text", "d": "1"}
    assert applied(rules("override", params), {}) == expected
    assert applied(rules("override-raw", "{a: {b: 1}, c: 2, d: ' [ 1 ] '}"), {}) == {"a": {"b": 1}, "c": 2, "d": [1]}


# -- what they leave alone --


class Unreadable(bytes):
    """A body that nobody may look at."""

    def __contains__(self, item: object) -> bool:
        raise AssertionError("looked at")

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("looked at")


SILENT = [
    "{}",
    "{override: [{models: [{name: other}], params: {a: 1}}]}",
    "{default: [{models: [{name: '*', protocol: gemini}], params: {a: 1}}]}",
    "{filter: [{models: [{name: '*', headers: {X: y}}], params: [a]}]}",
    "{filter: [{models: [], params: [a]}]}",
]


@pytest.mark.parametrize("text", SILENT)
def test_rules_of_other_models_cost_nothing(text: str) -> None:
    """The body is not even read."""
    body = Unreadable(b"not json")
    chosen = payload(text)
    assert run(chosen, body) is body
    assert chosen.select(**NAMES) is None


def test_no_rules_are_falsy() -> None:
    """So that callers need not even ask."""
    assert not payload("{}")
    assert not payload_of(parse_config("disable-image-generation: passthrough", file="t").config)
    assert payload(SILENT[1])
    assert payload_of(parse_config("disable-image-generation: chat", file="t").config)


@pytest.mark.parametrize(
    "text",
    [
        "{override: [{models: [{name: '*', exist: [nope]}], params: {a: 1}}]}",
        "{default: [{models: [{name: '*'}], params: {temperature: 0}}]}",
        "{override: [{models: [{name: '*'}], params: {temperature.x: 0}}]}",
        "{filter: [{models: [{name: '*'}], params: [nope]}]}",
    ],
)
def test_a_body_that_does_not_change_is_the_same_object(text: str) -> None:
    """Byte for byte."""
    body = b' { "temperature" : 1.0 } '
    result = run(payload(text), body)
    assert result is body


def test_values_that_no_rule_concerns_keep_their_bytes() -> None:
    """Also beside those that change."""
    body = b'{"messages":[ {"content" : "\\u00e9"} ],"seed":12345678901234567890123,"t":1.50,"a":{"b":1e2}}'
    result = run(rules("override", "{a.c: 1}"), body)
    assert result == body.replace(b'"a":{"b":1e2}', b'"a":{"b":1e2,"c":1}')


# -- bodies and rules that make no sense --


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"a":' * 100_000])
@pytest.mark.parametrize("section", ["override", "default"])
def test_a_body_that_rules_cannot_read_is_refused(body: bytes, section: str) -> None:
    """Nobody gets round a rule by sending odd JSON."""
    with pytest.raises(MalformedRequest):
        run(rules(section, "{a: 1}"), body)


@given(
    st.binary(max_size=40) | st.text(max_size=20).map(lambda text: json.dumps({"tools": text, "a": [text]}).encode())
)
def test_any_body_gives_a_body_or_the_documented_error(body: bytes) -> None:
    """Never anything else."""
    made = rules("filter", "[a.0, 'tools.#(type==1)#']", models="{name: '*', not-match: [{a.0: 1}]}")
    try:
        result = run(made, body)
    except MalformedRequest:
        return
    assert isinstance(json.loads(result), dict)


def test_paths_that_are_none_are_left_out_loudly() -> None:
    """The rest of the rule holds; an item that cannot be judged never matches."""
    with capture_logs() as logs:
        made = rules("override", "{'a.#': 1, b: 2}", models="{name: x, exist: ['*']}, {name: '*'}")
    assert applied(made, {}) == {"b": 2}
    assert [(entry["event"], entry.get("path"), entry.get("name")) for entry in logs] == [
        ("payload.item_ignored", None, "x"),
        ("payload.path_ignored", "a.#", None),
    ]
    assert all(entry["section"] == "payload.override" and entry["log_level"] == "warning" for entry in logs)


def test_rules_can_be_made_in_code() -> None:
    """Embedders have no YAML."""
    null = PayloadMatch(name="*", match=(PathValue(path="b", value=None),))
    made = compile_rules(PayloadRules(override=(PayloadRule(models=(null,), params={"a": 1}),)))
    assert run(made, b'{"b":null}') == b'{"b":null,"a":1}'
    assert run(made, b"{}") == b"{}"


# -- image generation --

IMAGE = {"type": "image_generation", "size": "auto"}
SEARCH = {"type": "web_search"}


def stripped(body: Any, mode: str = "true", rules: str = "{}", **route: Any) -> Any:
    """*body* under ``disable-image-generation``."""
    made = payload_of(parse_config(f"disable-image-generation: {mode}\npayload: {rules}", file="t").config)
    chosen = made.select(
        upstream_model="m", requested_model="m", requested_full="m", protocol="codex", client_protocol="", **route
    )
    data = json.dumps(body).encode()
    return body if chosen is None else json.loads(chosen.apply(data, original=data))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"tools": [IMAGE, SEARCH, IMAGE]}, {"tools": [SEARCH]}),
        ({"tools": [IMAGE], "tool_choice": "auto", "parallel_tool_calls": True, "x": 1}, {"x": 1}),
        ({"tools": [IMAGE, SEARCH], "tool_choice": {"type": "image_generation"}}, {"tools": [SEARCH]}),
        ({"tools": [IMAGE, SEARCH], "tool_choice": "auto"}, {"tools": [SEARCH], "tool_choice": "auto"}),
        (
            {"tools": [IMAGE, SEARCH], "tool_choice": {"type": "allowed_tools", "tools": [IMAGE, SEARCH]}},
            {"tools": [SEARCH], "tool_choice": {"type": "allowed_tools", "tools": [SEARCH]}},
        ),
        ({"tools": [IMAGE, SEARCH], "tool_choice": {"type": "allowed_tools", "tools": [IMAGE]}}, {"tools": [SEARCH]}),
        ({"tools": [SEARCH], "tool_choice": "auto"}, {"tools": [SEARCH], "tool_choice": "auto"}),
        ({"tools": [], "tool_choice": {"tools": []}}, {"tools": [], "tool_choice": {"tools": []}}),
        ({"tools": "image_generation"}, {"tools": "image_generation"}),
        ({"input": "image_generation"}, {"input": "image_generation"}),
    ],
)
def test_image_tools_are_stripped_with_what_depends_on_them(body: Any, expected: Any) -> None:
    """A choice among no tools is an error at every provider."""
    assert stripped(body) == expected


def test_the_spelling_does_not_help() -> None:
    """JSON has many for one name."""
    body = b'{"tools":[{"type":"image\\u005fgeneration"}],"tool_choice":{"type":"\\u0069mage_generation"}}'
    made = payload_of(parse_config("disable-image-generation: true", file="t").config)
    assert run(made, body) == b"{}"


def test_bodies_without_a_trace_of_it_are_not_opened() -> None:
    """Most."""
    body = b"no json, no images"
    made = payload_of(parse_config("disable-image-generation: true", file="t").config)
    assert run(made, body) is body


@pytest.mark.parametrize(
    ("mode", "image_route", "strips"),
    [
        ("false", False, False),
        ("true", False, True),
        ("true", True, True),
        ("chat", False, True),
        ("chat", True, False),
        ("passthrough", False, False),
    ],
)
def test_modes(mode: str, image_route: bool, strips: bool) -> None:
    """Everywhere, outside the image routes, or nowhere."""
    body = {"tools": [IMAGE]}
    assert stripped(body, mode, image_route=image_route) == ({} if strips else body)


def test_an_override_can_put_the_tool_back() -> None:
    """Stripping comes before the rules (proxy 2.8)."""
    rules = "{override: [{models: [{name: '*'}], params: {tools.-1: {type: image_generation}}}]}"
    assert stripped({"tools": [IMAGE]}, rules=rules) == {"tools": [{"type": "image_generation"}]}


# -- names in answers --


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"id":1,"model":"up","x": 1.0}', b'{"id":1,"model":"mine","x":1.0}'),
        (b'{"modelVersion":"up"}', b'{"modelVersion":"mine"}'),
        (b'{"response":{"model":"up","id":"r"}}', b'{"response":{"model":"mine","id":"r"}}'),
        (b'{"response":{"modelVersion":"up"}}', b'{"response":{"modelVersion":"mine"}}'),
        (b'{"message":{"model":"up"},"type":"message_start"}', b'{"message":{"model":"mine"},"type":"message_start"}'),
    ],
)
def test_answers_carry_the_forced_name(body: bytes, expected: bytes) -> None:
    """Wherever a protocol names its model (proxy 2.4)."""
    assert force_model(body, "mine") == expected


@pytest.mark.parametrize(
    "body", [b"", b'{"a":1}', b'{"choices":[{"model":"x"}]}', b'["model"]', b'{"model"', b'{"message":"\\"model\\""}']
)
def test_what_names_no_model_is_the_same_object(body: bytes) -> None:
    """Members that are not there are not made, and what cannot be read is for others to judge."""
    assert force_model(body, "mine") is body


def test_names_are_forced_in_every_event_of_a_stream() -> None:
    """Also when several come in one piece; all else stays as it is."""
    block = (
        b': hello\n\nevent: message_start\ndata: {"message":{"model":"up"}}\n\n'
        b'data: {"model":"up","choices":[]}\r\n\r\ndata: {"no":"model"}\n\ndata: [DONE]\n\n'
    )
    assert force_model_events(block, 'm"1') == (
        b': hello\n\nevent: message_start\ndata: {"message":{"model":"m\\"1"}}\n\n'
        b'data: {"model":"m\\"1","choices":[]}\r\n\r\ndata: {"no":"model"}\n\ndata: [DONE]\n\n'
    )
    plain = b'data: {"x":1}\n\n'
    assert force_model_events(plain, "m") is plain


def test_data_of_several_lines_becomes_one() -> None:
    """JSON may be broken between its tokens only."""
    block = b'event: e\ndata: {"model":\ndata: "up","l":[1,\ndata: 2]}\n\n'
    assert force_model_events(block, "m") == b'event: e\ndata: {"model":"m","l":[1, 2]}\n\n'


def test_headers_are_never_shown() -> None:
    """They hold keys."""
    headers: RawHeaders = ((b"authorization", b"Bearer secret"),)
    assert "secret" not in repr(Facts(names=(), protocol="", client_protocol="", headers=headers))
