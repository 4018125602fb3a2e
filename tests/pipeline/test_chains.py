"""Chains: what is wrong with them is said at once, and those that make sense do what they say."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import pytest
from structlog.testing import capture_logs

import cpa
from cpa.config.load import parse_config
from cpa.config.schema import PayloadMatch, PayloadRule, PayloadRules
from cpa.errors import ConfigError, CpaError, NoTranslator, Rejected, RequestError, RequiredPluginDown, StageError
from cpa.formats.names import Format
from cpa.formats.sse import event_data, split_events
from cpa.pipeline.chains import BY_PLUGINS, STANDARD, Chain, choose
from cpa.pipeline.compiling import compile_chain, compile_chains
from cpa.pipeline.completions import open_completions
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.payload import compile_rules
from cpa.pipeline.plan import Plan
from cpa.pipeline.runner import Run, open_answer
from cpa.pipeline.stage import OnError, Registration, StageKind
from cpa.pipeline.steps.values import Side, StepContext
from cpa.pipeline.trace import StepRecord
from cpa.testing.fakes import FakeAnswer, FakeExecutor, candidate, services
from cpa.types import Operation, UpstreamCall
from tests.pipeline.support import CHAT, DONE, STOP, delta, full, register, request, streaming

# --- what is wrong with a chain --------------------------------------------------------------------------------------

PAIR = "match: {from: claude, to: gemini}"
WRONG = [
    (
        f"{PAIR}\n      request: [strip-cache-control, plugins]",
        5,
        "request",
        "one translate step, since claude and gemini differ, got none",
    ),
    ("request: [plugins]", 4, "request", "one translate step, since any protocol and any protocol differ, got none"),
    (
        f"{PAIR}\n      request: [{{translate: native}}, {{translate: native}}]",
        5,
        "request[1]",
        "one translate step, got another one; the first is request[0]",
    ),
    (
        f"{PAIR}\n      request: [{{translate: native}}, strip-cache-control]",
        5,
        "request[1]",
        "a step that works on gemini, got strip-cache-control, behind the translation, where bodies are gemini; "
        "it works on openai, claude",
    ),
    (
        f"{PAIR}\n      request:\n        - {{translate: native}}\n        - {{cap-output-tokens: lots}}",
        7,
        "request[1].cap-output-tokens",
        "a number of tokens of at least 1, got 'lots' (str)",
    ),
    (
        f"{PAIR}\n      request:\n        - strip-cash\n        - {{translate: native}}",
        6,
        "request[0]",
        "the name of a step (",
    ),
    (
        f"{PAIR}\n      request: [cap-output-tokens, {{translate: native}}]",
        5,
        "request[0]",
        "{cap-output-tokens: …} with a number of tokens of at least 1, got cap-output-tokens without a setting",
    ),
    (
        f"{PAIR}\n      request: [{{strip-images: yes}}, {{translate: native}}]",
        5,
        "request[0].strip-images",
        "strip-images without a setting, got 'yes' (str)",
    ),
    (
        f"{PAIR}\n      request: [{{translate: native}}, {{replace-text: {{a: b}}}}]",
        5,
        "request[1]",
        "a step for requests, got replace-text, which is one for responses",
    ),
    (
        f"{PAIR}\n      response: [{{translate: native}}, payload]",
        5,
        "response[1]",
        "a step for responses, got payload, whose rules are for requests",
    ),
    (
        f"{PAIR}\n      response: [strip-images, {{translate: native}}]",
        5,
        "response[0]",
        "a step for responses, got strip-images, which is one for requests",
    ),
    (
        f"{PAIR}\n      request: [{{translate: {{via: codex}}}}]",
        5,
        "request[0].translate.via",
        "one of openai, openai-response, claude, gemini, got 'codex' (str)",
    ),
    (
        f"{PAIR}\n      request: [{{translate: {{via: claude}}}}]",
        5,
        "request[0].translate.via",
        "another protocol than the client's, got claude",
    ),
    (
        f"{PAIR}\n      response: [{{translate: {{via: gemini}}}}]",
        5,
        "response[0].translate.via",
        "another protocol than the provider's, got gemini",
    ),
    (
        f"{PAIR}\n      request: [{{translate: {{via: openai}}}}]\n      response: [{{translate: native}}]",
        6,
        "response[0].translate",
        "via openai, as in the request, got native",
    ),
    (
        f"{PAIR}\n      request: [translate]",
        5,
        "request[0]",
        "{translate: …} with native, the id of a plugin, or {via: FORMAT}, got translate without a setting",
    ),
    (
        f"{PAIR}\n      request: [{{translate: [a]}}]",
        5,
        "request[0].translate",
        "native, the id of a plugin, or {via: FORMAT}, got a list of 1",
    ),
    (
        "match: {from: claude, to: klingon}\n      request: [{translate: native}]",
        5,
        "request[0].translate",
        "the id of a plugin, since only plugins know klingon, got native",
    ),
    (
        "match: {from: codex, to: claude}\n      request: [{translate: native}]",
        5,
        "request[0].translate",
        "a protocol that clients speak in match.from, got codex",
    ),
    (
        f"{PAIR}\n      request: [{{translate: native}}, {{plugin: '../x'}}]",
        5,
        "request[1].plugin",
        "the id of a plugin, got '../x' (str)",
    ),
    (
        f"{PAIR}\n      request: [{{translate: native}}, {{plugin: a, required: maybe}}]",
        5,
        "request[1].required",
        "true or false, got 'maybe' (str)",
    ),
    (
        f"{PAIR}\n      request: [{{translate: native}}, {{plugin: a, priority: 3}}]",
        5,
        "request[1]",
        "a plugin and perhaps required, got the key 'priority'",
    ),
    (
        f"{PAIR}\n      request: [{{translate: native}}, plugin]",
        5,
        "request[1]",
        "{plugin: ID}, got plugin without an id",
    ),
    (
        f"{PAIR}\n      request: [{{translate: native}}, {{plugins: all}}]",
        5,
        "request[1].plugins",
        "plugins without a setting, got 'all' (str)",
    ),
    (
        f"{PAIR}\n      request: [{{translate: native}}, {{set: {{a: 1}}, strip: [b]}}]",
        5,
        "request[1]",
        "a step: a name, or a mapping of one name to its setting, got a mapping",
    ),
    (
        f"{PAIR}\n      request:\n        - {{translate: native}}\n        - set:\n            'a..b': 1",
        7,
        "request[1].set",
        "a path (a name is missing at 3), got 'a..b' (str)",
    ),
]


@pytest.mark.parametrize(("steps", "line", "path", "text"), WRONG, ids=[f"{i}-{w[2]}" for i, w in enumerate(WRONG)])
def test_a_wrong_chain_is_a_line_with_its_step(steps: str, line: int, path: str, text: str) -> None:
    """File, line, key path, what was expected, what came: as everything else that is wrong with a file."""
    with pytest.raises(ConfigError) as caught:
        parse_config(f"pipeline:\n  chains:\n    - name: c\n      {steps}\n", file="c.yaml")
    [problem] = caught.value.problems
    where, _, said = problem.partition(": ")
    key, _, said = said.partition(": ")
    assert key == f"pipeline.chains[0].{path}"
    assert said.startswith("expected ")
    assert said.removeprefix("expected ").startswith(text)
    assert int(where.removeprefix("c.yaml:")) in (line, line + 1)  # of a mapping in several lines, that of its content


def test_all_mistakes_come_at_once() -> None:
    """Of all chains, and of the rest of the file."""
    with pytest.raises(ConfigError) as caught:
        parse_config(
            "port: x\npipeline: {chains: [{name: a, request: [zz, {set: 1}]}, {name: b, request: [plugins]}]}", file="f"
        )
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "port",
        "pipeline.chains[0].request[0]",
        "pipeline.chains[0].request[1].set",
        "pipeline.chains[1].request",
    ]


def test_a_chain_of_an_embedder_is_judged_alike() -> None:
    """Without a file there is no line, the path begins with the list."""
    good = cpa.Chain(name="a", match={"from": "openai", "to": "openai"}, request=["strip-images", lambda body, _: body])
    bad = cpa.Chain(name="", request=[object()], response=[{"translate": "native"}, {"set": {}}])
    with pytest.raises(ConfigError) as caught:
        compile_chains([good, bad])
    assert caught.value.problems == (
        "chains[1].name: expected a name, got '' (str)",
        "chains[1].request[0]: expected a step: a name, or a mapping of one name to its setting, got object",
        "chains[1].response[1].set: expected a mapping of paths to values, got an empty mapping",
    )
    for match in ({"form": "x"}, {"models": "x"}, {"from": 3}):
        with pytest.raises(ConfigError, match="match"):
            Chain(name="x", match=match)


# --- which chain -----------------------------------------------------------------------------------------------------


def chain(**given: Any) -> Chain:
    """A chain for Chat clients and providers unless *given* says otherwise."""
    return Chain(**{"name": "c", "match": {"from": "openai", "to": "openai"}, **given})


def test_the_first_chain_that_matches_is_used_and_else_the_standard_order() -> None:
    """By protocols, models and keys, all of which have to agree."""
    chains = compile_chains(
        [
            Chain(name="keyed", match={"keys": ["team-*"], "models": ["gpt-*"]}),
            Chain(name="pair", match={"from": "anthropic", "to": "gemini"}),
            Chain(name="model", match={"models": ["gemini-*", "x"]}),
        ]
    )

    def chosen(source: str, target: str, model: str, principal: str = "") -> str:
        return choose(chains, source=source, target=target, models=(model,), principal=principal).name

    assert chosen("openai", "claude", "gpt-4", "team-blue") == "keyed"
    assert chosen("openai", "claude", "gpt-4", "team") == ""
    assert chosen("claude", "gemini", "gemini-2") == "pair"
    assert chosen("claude", "openai", "gemini-2") == "model"
    assert choose((), source="openai", target="claude", models=("m",)) is STANDARD
    assert choose((), source="claude", target="claude", models=("m",)) is BY_PLUGINS
    assert choose((), source="claude", target="klingon", models=("m",)) is BY_PLUGINS


def test_an_absent_side_is_the_standard_order_with_the_same_translation() -> None:
    """Whoever translates the request by a plugin wants the answer back the same way."""
    [compiled] = compile_chains([Chain(name="c", match={"from": "claude", "to": "x"}, request=[{"translate": "p"}])])
    assert [step.label for step in compiled.response] == ["plugins", "translate: p", "plugins"]
    [other] = compile_chains([Chain(name="c", response=[{"translate": {"via": "openai"}}])])
    request_steps = choose([other], source="claude", target="gemini", models=("m",)).request
    assert [step.label for step in request_steps] == ["translate: via openai", "plugins", "payload"]


def test_the_plan_carries_the_chains() -> None:
    """One frozen value per configuration."""
    compiled, problems = compile_chain(chain(request=["strip-images"]))
    assert not problems
    assert Plan.build([], [compiled]).chains == (compiled,)


# --- what a chain does -----------------------------------------------------------------------------------------------


@attrs.frozen
class Result:
    """What a client would have got, what the provider got, and what was noted."""

    body: bytes
    sent: Any
    steps: tuple[StepRecord, ...]


async def run(
    executor: FakeExecutor,
    *chains: Chain,
    registrations: Iterable[Registration] = (),
    ask: ModelRequest | None = None,
    payload: PayloadRules | None = None,
    monkeypatch: pytest.MonkeyPatch,
) -> Result:
    """One execution through *chains*, read to its end."""
    runs: list[Run] = []
    remember = Run.__init__

    def remembered(self: Run, **given: Any) -> None:
        remember(self, **given)
        runs.append(self)

    monkeypatch.setattr(Run, "__init__", remembered)
    error: CpaError | None = None
    body = b""
    async with open_completions() as completions:
        made = services([candidate(executor)], completions, registrations)
        made = attrs.evolve(made, plan=Plan.build(registrations, compile_chains(chains)))
        if payload is not None:
            made = attrs.evolve(made, payload=compile_rules(payload))
        try:
            async with open_answer(ask or request(), made) as answer:
                frames = [] if answer.stream is None else [frame async for frame in answer.stream]
                body = answer.body + b"".join(frames)
        except CpaError as exc:
            error = exc
    monkeypatch.undo()
    if error is not None:
        raise error
    sent = json.loads(b"".join(executor.calls[0].body)) if executor.calls else None
    return Result(body, sent, tuple(runs[0].trace.steps))


def tagging(kind: StageKind, plugin_id: str, **more: Any) -> Registration:
    """A plugin that adds its name to the member ``tags`` of whole bodies."""

    def tag(call: Any) -> bytes:
        body = json.loads(call.body)
        return json.dumps({**body, "tags": [*body.get("tags", []), plugin_id]}).encode()

    return register(kind, plugin_id, tag, **more)


def function(name: str) -> Any:
    """The same as a step of an embedder."""

    def step(body: bytes, context: StepContext) -> bytes:
        value = json.loads(body)
        return json.dumps({**value, "tags": [*value.get("tags", []), name]}).encode()

    return step


async def test_steps_of_requests_run_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalizers, functions, one plugin, all plugins, payload rules: each sees what the one before left."""

    async def asynchronous(body: bytes, context: StepContext) -> bytes | None:
        assert (context.format, context.side, context.stream) == (Format.OPENAI, Side.REQUEST, False)
        assert context.execution is not None
        return await sub(body)

    async def sub(body: bytes) -> bytes:
        return function("async")(body, None)

    rules = PayloadRules(override=(PayloadRule(models=(PayloadMatch(name="*"),), params={"tags.-1": "payload"}),))
    plugins = [tagging(StageKind.REQUEST_NORMALIZE, name, priority=priority) for name, priority in (("a", 1), ("b", 2))]
    steps = [
        function("py"),
        {"plugin": "a"},
        asynchronous,
        "payload",
        "plugins",
        {"set": {"n": 1}},
        lambda body, _: None,
    ]
    result = await run(full(), chain(request=steps), registrations=plugins, payload=rules, monkeypatch=monkeypatch)
    assert result.sent["tags"] == ["py", "a", "async", "payload", "b", "a"]
    assert result.sent["n"] == 1
    noted = [(record.step, record.calls, record.changed) for record in result.steps if record.side == "request"]
    assert noted == [
        ("python: step", 1, 1),
        ("plugin: a", 1, 1),
        ("python: asynchronous", 1, 1),
        ("payload", 1, 1),
        ("plugins", 1, 1),
        ("set: n", 1, 1),
        ("python: <lambda>", 1, 0),
    ]
    assert {record.chain for record in result.steps} == {"c"}


async def test_another_order_gives_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cap and a value that breaks it, the last one counts."""
    cap, put = {"cap-output-tokens": 10}, {"set": {"max_tokens": 99}}
    first = await run(full(), chain(request=[put, cap]), monkeypatch=monkeypatch)
    second = await run(full(), chain(request=[cap, put]), monkeypatch=monkeypatch)
    assert first.sent["max_tokens"] == 10
    assert second.sent["max_tokens"] == 99


async def test_a_chain_without_payload_keeps_its_rules_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain is the whole order; the standard one has the rules at its end."""
    rules = PayloadRules(override=(PayloadRule(models=(PayloadMatch(name="*"),), params={"n": 5}),))
    without = await run(full(), chain(request=["strip-images"]), payload=rules, monkeypatch=monkeypatch)
    standard = await run(full(), payload=rules, monkeypatch=monkeypatch)
    assert "n" not in without.sent
    assert standard.sent["n"] == 5
    assert [record.step for record in standard.steps] == ["payload"]


async def test_steps_of_whole_answers_run_on_both_sides_of_the_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, the first step of plugins stands for both of their stages."""
    plugins = [
        tagging(StageKind.RESPONSE_NORMALIZE_BEFORE, "before"),
        tagging(StageKind.RESPONSE_NORMALIZE_AFTER, "after"),
    ]
    made = chain(response=[function("one"), "plugins", function("two")])
    result = await run(full(), made, registrations=plugins, monkeypatch=monkeypatch)
    assert json.loads(result.body)["tags"] == ["one", "before", "after", "two"]
    between = chain(response=["plugins", function("x"), {"translate": "native"}, function("y"), "plugins"])
    result = await run(full(), between, registrations=plugins, monkeypatch=monkeypatch)
    assert json.loads(result.body)["tags"] == ["before", "x", "y", "after"]


async def test_steps_of_streams_see_single_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """End marks pass; an event may be removed; one record tells of all calls."""

    def without_b(body: bytes, context: StepContext) -> bytes:
        assert context.stream
        return b"" if b'"b"' in body else body

    executor = streaming(b": hello\n\n" + delta("a") + delta("b"), delta("foo"), STOP, DONE)
    made = chain(response=[{"replace-text": {"foo": "bar"}}, {"translate": "native"}, without_b, {"set": {"x": 1}}])
    result = await run(executor, made, ask=request(stream=True), monkeypatch=monkeypatch)
    events = [json.loads(data) for data in map(event_data, split_events(result.body)) if data and data != b"[DONE]"]
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["a", "bar", None]
    assert all(event["x"] == 1 for event in events)
    assert result.body.endswith(DONE)
    calls = {record.step: (record.calls, record.changed) for record in result.steps if record.side == "response"}
    assert calls == {"replace-text: foo": (4, 1), "python: without_b": (4, 1), "set: x": (3, 3)}


async def test_plugins_and_edits_take_turns_in_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the translation plugins see lines with data, behind it bare JSON; edits see JSON in both places."""
    seen: list[Any] = []
    plugins = [
        register(StageKind.RESPONSE_NORMALIZE_BEFORE, "p", lambda call: call.body.replace(b"foo", b"fab"), seen=seen),
        register(StageKind.RESPONSE_NORMALIZE_AFTER, "p", lambda call: call.body.replace(b"bar", b"end"), seen=seen),
    ]
    steps = [
        "plugins",
        {"replace-text": {"fab": "bar"}},
        {"translate": "native"},
        "plugins",
        {"replace-text": {"end": "END"}},
    ]
    result = await run(
        streaming(delta("foo"), STOP, DONE),
        chain(response=steps),
        registrations=plugins,
        ask=request(stream=True),
        monkeypatch=monkeypatch,
    )
    assert delta("END") in result.body
    assert [call.body[:6] for _, call in seen[:1]] == [b"data: "]
    assert all(call.body.startswith((b"data: ", b"{")) for _, call in seen)


# --- with translation ------------------------------------------------------------------------------------------------

CLAUDE = b'{"model":"m1","max_tokens":500,"system":"S","messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]}'  # noqa: E501
GEMINI_ANSWER = b'{"candidates":[{"content":{"role":"model","parts":[{"text":"I think","thought":true},{"text":"say foo"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5},"modelVersion":"g","responseId":"r"}'  # noqa: E501


def gemini(*, stream: bool = False) -> FakeExecutor:
    """A provider that speaks Gemini's protocol."""
    body = b"data: " + GEMINI_ANSWER + b"\r\n\r\n" if stream else GEMINI_ANSWER
    headers = ((b"content-type", b"application/json"),)
    return FakeExecutor(Format.GEMINI, lambda call: FakeAnswer([body], headers=headers))


def claude_request(*, stream: bool = False) -> ModelRequest:
    """A client of Claude's protocol."""
    body = CLAUDE.replace(b'"max_tokens"', b'"stream":true,"max_tokens"') if stream else CLAUDE
    return attrs.evolve(request(stream=stream, body=body), format=Format.CLAUDE, path="/v1/messages")


TRANSLATIONS = [{"translate": "native"}, {"translate": {"via": "openai"}}, {"translate": {"via": "openai-response"}}]


@pytest.mark.parametrize("translate", TRANSLATIONS, ids=str)
@pytest.mark.parametrize("stream", [False, True])
async def test_steps_see_the_protocol_of_their_side(
    translate: Mapping[str, Any], stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claude's before the request's translation, Gemini's behind it, and the other way round for the answer; directly,
    and by way of a third protocol."""
    formats: list[str] = []

    def note(body: bytes, context: StepContext) -> None:
        formats.append(context.format)

    made = Chain(
        name="c",
        match={"from": "claude", "to": "gemini"},
        request=["strip-cache-control", note, translate, note, {"cap-output-tokens": 100}],
        response=["strip-reasoning", note, translate, {"replace-text": {"foo": "bar"}}],
    )
    result = await run(gemini(stream=stream), made, ask=claude_request(stream=stream), monkeypatch=monkeypatch)
    assert formats[:3] == [Format.CLAUDE, Format.GEMINI, Format.GEMINI]
    assert result.sent["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]
    assert result.sent["systemInstruction"]["parts"] == [{"text": "S"}]
    assert result.sent["generationConfig"]["maxOutputTokens"] == 100
    assert b"say bar" in result.body
    assert b"I think" not in result.body
    if stream:
        assert b"event: message_stop" in result.body
        assert result.body.count(b"event: message_start") == 1
    else:
        answer = json.loads(result.body)
        assert answer["content"] == [{"type": "text", "text": "say bar"}]
        assert answer["stop_reason"] == "end_turn"
        assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (3, 2)
    sides = [(record.side, record.step) for record in result.steps if record.step.startswith("translate")]
    assert [side for side, _ in sides] == ["request", "response"]


async def test_counts_of_tokens_are_translated_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vendors refuse limits and the like there."""
    executor = FakeExecutor(Format.GEMINI, lambda call: FakeAnswer([b'{"totalTokens":7}']))
    made = Chain(
        name="c",
        match={"from": "claude"},
        request=[{"translate": "native"}, {"set": {"zzz": 1}}],
        response=[{"translate": "native"}, {"set": {"zzz": 1}}],
    )
    ask = attrs.evolve(claude_request(), operation=Operation.COUNT_TOKENS)
    result = await run(executor, made, ask=ask, monkeypatch=monkeypatch)
    assert json.loads(result.body) == {"input_tokens": 7}
    assert b"zzz" not in b"".join(executor.calls[0].body)


async def test_a_plugin_translates_where_the_chain_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though we could; of several the named one alone, and without it nobody."""
    seen: list[Any] = []
    plugins = [
        register(StageKind.REQUEST_TRANSLATE, "other", lambda call: b'{"by":"other"}', seen=seen, priority=9),
        register(StageKind.REQUEST_TRANSLATE, "mine", lambda call: b'{"by":"mine"}', seen=seen),
        register(StageKind.RESPONSE_TRANSLATE, "mine", lambda call: b'{"answer":"mine"}', seen=seen),
    ]
    made = Chain(name="c", match={"from": "claude", "to": "gemini"}, request=[{"translate": "mine"}])
    result = await run(gemini(), made, registrations=plugins, ask=claude_request(), monkeypatch=monkeypatch)
    assert (result.sent, json.loads(result.body)) == ({"by": "mine"}, {"answer": "mine"})
    assert [name for name, _ in seen] == ["mine", "mine"]
    with pytest.raises(NoTranslator):
        await run(gemini(), made, registrations=plugins[:1], ask=claude_request(), monkeypatch=monkeypatch)


async def test_native_translation_to_what_only_plugins_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain for any provider meets one of a plugin's invention."""
    executor = FakeExecutor("klingon", lambda call: FakeAnswer([b"{}"]))
    plugin = register(StageKind.REQUEST_TRANSLATE, "p", lambda call: b"{}")
    made = Chain(name="c", request=[{"translate": "native"}])
    with pytest.raises(NoTranslator):
        await run(executor, made, registrations=[plugin], monkeypatch=monkeypatch)
    assert not executor.calls


# --- plugins that are not there, functions that fail -----------------------------------------------------------------


@pytest.mark.parametrize("side", ["request", "response"])
async def test_an_absent_plugin_is_skipped_loudly(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request goes on; log and trace say that something was left out."""
    steps = [{"plugin": "ghost"}, {"set": {"n": 1}}]
    with capture_logs() as logs:
        result = await run(full(), chain(**{side: steps}), monkeypatch=monkeypatch)
    assert (result.sent if side == "request" else json.loads(result.body))["n"] == 1
    warnings = [entry for entry in logs if entry["event"] == "chain.step_skipped"]
    assert {entry["plugin_id"] for entry in warnings} == {"ghost"}
    assert all(entry["log_level"] == "warning" for entry in warnings)
    assert all(record.skipped for record in result.steps if record.step == "plugin: ghost")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("side", ["request", "response"])
async def test_a_required_plugin_that_is_absent_is_a_503(
    side: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the client has a byte; of a request before the provider has one."""
    executor = streaming(delta("a"), STOP, DONE) if stream else full()
    steps = [{"plugin": "ghost", "required": True}]
    with pytest.raises(RequiredPluginDown) as caught:
        await run(executor, chain(**{side: steps}), ask=request(stream=stream), monkeypatch=monkeypatch)
    assert (caught.value.http_status, caught.value.plugin_id) == (503, "ghost")
    assert bool(executor.calls) == (side == "response")


async def test_a_plugin_that_declares_one_stage_of_answers_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is translated, its step means both."""
    plugins = [tagging(StageKind.RESPONSE_NORMALIZE_AFTER, "p")]
    made = chain(response=[{"plugin": "p", "required": True}])
    result = await run(full(), made, registrations=plugins, monkeypatch=monkeypatch)
    assert json.loads(result.body)["tags"] == ["p"]


def broken(call: Any) -> bytes:
    raise OSError("boom")


def refusing(call: Any) -> bytes:
    raise RequestError("not today")


@pytest.mark.parametrize(("answer", "status"), [(broken, 503), (refusing, 400)])
async def test_a_required_plugin_that_fails_ends_the_request(
    answer: Any, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that breaks counts as not there; what it has to say to the client is said."""
    plugin = register(StageKind.REQUEST_NORMALIZE, "p", answer, on_error=OnError.SKIP)
    optional = await run(full(), chain(request=[{"plugin": "p"}]), registrations=[plugin], monkeypatch=monkeypatch)
    assert optional.sent == json.loads(CHAT)
    with pytest.raises(CpaError) as caught:
        await run(
            full(), chain(request=[{"plugin": "p", "required": True}]), registrations=[plugin], monkeypatch=monkeypatch
        )
    assert caught.value.http_status == status


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (lambda body, context: 1 / 0, StageError),
        (lambda body, context: "text", StageError),
        (broken, StageError),
    ],
)
async def test_a_function_that_fails_ends_the_request(
    step: Any, error: type[CpaError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step in code is there for a reason: going on without it would be a guess."""

    def called(body: bytes, context: StepContext) -> Any:
        return step(body, context) if step is not broken else broken(body)

    for side in ("request", "response"):
        with pytest.raises(error):
            await run(full(), chain(**{side: [called]}), monkeypatch=monkeypatch)


async def test_a_function_may_reject_a_request_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """CpaErrors are for the client."""

    def gate(body: bytes, context: StepContext) -> bytes:
        raise Rejected(status=451, headers=(), body=b"{}", plugin_id="gate")

    executor = full()
    with pytest.raises(Rejected):
        await run(executor, chain(request=[gate]), monkeypatch=monkeypatch)
    assert not executor.calls


async def test_without_chains_and_plugins_bytes_stay_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very objects, and nothing noted: the standard order costs nothing."""
    pieces: list[tuple[bytes, ...]] = []

    def answer(call: UpstreamCall) -> FakeAnswer:
        pieces.append(call.body)
        return FakeAnswer([b'{"id":"r1"}'])

    result = await run(FakeExecutor(Format.OPENAI, answer), monkeypatch=monkeypatch)
    assert pieces[0][0] is CHAT
    assert result.steps == ()


async def test_a_chain_is_for_plugin_executors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """They speak the client's protocol and would be left alone; whoever names steps for them wants them."""
    executor = FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([b'{"id":"r1"}']), native=False)
    made = chain(request=[{"set": {"n": 1}}], response=[{"set": {"n": 2}}])
    result = await run(executor, made, monkeypatch=monkeypatch)
    assert result.sent["n"] == 1
    assert json.loads(result.body) == {"id": "r1", "n": 2}


RESPONSES_STREAM = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"r","status":"in_progress"}}\n\n'  # noqa: E501
    b'event: response.output_item.added\ndata: {"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"id":"i","type":"message","role":"assistant","content":[]}}\n\n'  # noqa: E501
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":2,"item_id":"i","output_index":0,"content_index":0,"delta":"foo"}\n\n'  # noqa: E501
    b'event: response.output_item.done\ndata: {"type":"response.output_item.done","sequence_number":3,"output_index":0,"item":{"id":"i","type":"message","role":"assistant","content":[{"type":"output_text","text":"foo"}]}}\n\n'  # noqa: E501
    b'event: response.completed\ndata: {"type":"response.completed","sequence_number":4,"response":{"id":"r","status":"completed","output":[],"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}}\n\n'  # noqa: E501
)


@pytest.mark.parametrize("translate", [TRANSLATIONS[0], {"translate": {"via": "gemini"}}], ids=str)
async def test_steps_on_a_stream_that_is_folded_into_a_whole_answer(
    translate: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codex does nothing but stream: steps before the translation see its events, those behind it the whole body."""
    executor = FakeExecutor(Format.CODEX, lambda call: FakeAnswer([RESPONSES_STREAM]))
    seen: list[tuple[str, bytes]] = []

    def note(body: bytes, context: StepContext) -> None:
        seen.append((context.format, body))

    made = Chain(
        name="c",
        match={"from": "openai", "to": "codex"},
        request=[translate],
        response=[{"replace-text": {"foo": "bar"}}, translate, note, {"replace-text": {"bar": "end"}}],
    )
    ask = request(body=b'{"model":"m1","messages":[{"role":"user","content":"hi"}]}')
    result = await run(executor, made, ask=ask, monkeypatch=monkeypatch)
    assert json.loads(result.body)["choices"][0]["message"]["content"] == "end"
    [(fmt, body)] = seen
    assert fmt == Format.OPENAI
    assert json.loads(body)["choices"][0]["message"]["content"] == "bar"
    assert result.sent["stream"] is True
