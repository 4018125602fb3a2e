"""The request path in order, with stages that are plain Python functions."""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio

from cpa.config.load import parse_config
from cpa.credentials.from_config import credentials_from_config
from cpa.credentials.model import Credential
from cpa.errors import (
    CpaError,
    NoTranslator,
    RawHeaders,
    Rejected,
    RequestError,
    StageError,
    UnknownModel,
    UpstreamConnectError,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamStreamError,
    UpstreamTimeout,
)
from cpa.formats.names import Format
from cpa.formats.thinking import OFF, Mode, Thinking
from cpa.models.registry import ModelRegistry
from cpa.pipeline.answer import START_HOLD_S
from cpa.pipeline.completions import Completions, open_completions
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.payload import payload_of
from cpa.pipeline.runner import Services, open_answer
from cpa.pipeline.stage import (
    CompletionCall,
    InterceptChunkResult,
    InterceptRequestResult,
    InterceptResponseResult,
    OnError,
    Outcome,
    PickResult,
    RouteResult,
    StageKind,
    TargetKind,
)
from cpa.testing.fakes import FakeAnswer, FakeExecutor, FakeModels, candidate, services
from cpa.types import Candidate, Operation, PluginId, UpstreamCall
from tests.pipeline.support import (
    CHAT,
    DONE,
    STOP,
    delta,
    execute,
    failing,
    full,
    register,
    request,
    streaming,
    unit,
)


async def test_every_stage_runs_in_the_order_of_the_contract() -> None:
    """plugin-abi 6.2 to 6.5, for an answer that is not streamed."""
    seen: list[Any] = []
    kinds = [kind for kind in StageKind if kind not in UNUSED]
    await execute(full(), [register(kind, kind, seen=seen) for kind in reversed(kinds)])
    assert [name for name, _ in seen] == [
        "model.route",
        "request.intercept_before",
        "scheduler.pick",
        "request.intercept_after",
        "request.normalize",
        "response.normalize_before",
        "response.normalize_after",
        "response.intercept_after",
        "request.complete",
    ]


UNUSED = {StageKind.FRONTEND_AUTH, StageKind.THINKING_APPLY, StageKind.USAGE_HANDLE}
"""Client authentication is the server's, thinking that of plugin providers, and usage is told by the collector."""


async def test_a_stream_runs_its_chunk_stages_per_frame_after_one_head_call() -> None:
    """Header-init comes before the first frame, then normalize, then intercept, for each frame in turn."""
    seen: list[Any] = []
    kinds = (StageKind.RESPONSE_NORMALIZE_BEFORE, StageKind.RESPONSE_NORMALIZE_AFTER, StageKind.INTERCEPT_CHUNK)
    result = await execute(
        streaming(delta("a"), STOP, DONE), [register(kind, kind, seen=seen) for kind in kinds], ask=request(stream=True)
    )
    chunks = [call.chunk_index for name, call in seen if name == StageKind.INTERCEPT_CHUNK]
    assert chunks == [-1, 0, 1]
    assert [name for name, _ in seen][:4] == [
        "response.normalize_before",
        "response.normalize_after",
        "response.intercept_stream_chunk",
        "response.intercept_stream_chunk",
    ]
    assert result.body == delta("a") + STOP + DONE


async def test_larger_priorities_run_first_and_ties_go_by_plugin_id() -> None:
    """One integer per plugin decides; the id only when it is equal."""
    seen: list[Any] = []
    kind = StageKind.INTERCEPT_BEFORE
    await execute(
        full(),
        [
            register(kind, "b", seen=seen, priority=5),
            register(kind, "z", seen=seen, priority=10),
            register(kind, "a", seen=seen, priority=5),
            register(kind, "B", seen=seen, priority=5),
        ],
    )
    assert [name for name, _ in seen] == ["z", "B", "a", "b"]


async def test_interceptors_see_what_the_one_before_left() -> None:
    """Bodies and headers are folded; an empty body changes nothing."""
    seen: list[Any] = []
    kind = StageKind.INTERCEPT_BEFORE
    executor = full()
    await execute(
        executor,
        [
            register(
                kind,
                "first",
                lambda call: InterceptRequestResult(
                    body=b'{"model":"m1","n":1}', headers={"x-team": ["red"]}, clear_headers=("User-Agent",)
                ),
                priority=2,
            ),
            register(kind, "second", lambda call: InterceptRequestResult(headers={"X-Two": ["a", "b"]}), seen=seen),
        ],
    )
    [(_, call)] = seen
    assert call.body == b'{"model":"m1","n":1}'
    assert call.headers == {"X-Team": ["red"]}
    assert (call.to_format, call.model, call.requested_model) == ("", "m1", "m1")
    sent = executor.calls[0]
    assert b"".join(sent.body) == b'{"model":"m1","n":1}'
    assert (b"x-team", b"red") in sent.client_headers
    assert [value for name, value in sent.client_headers if name == b"x-two"] == [b"a", b"b"]


async def test_termination_ends_the_exchange_without_a_provider() -> None:
    """No later interceptor, no provider; status, filtered headers and raw body are the interceptor's."""
    seen: list[Any] = []
    done: list[Any] = []
    executor = full()
    with pytest.raises(Rejected) as caught:
        await execute(
            executor,
            [
                register(
                    StageKind.INTERCEPT_BEFORE,
                    "gate",
                    lambda call: InterceptRequestResult(
                        terminate=True,
                        status_code=429,
                        response_headers={"Retry-After": ["1"], "Connection": ["X-Hop"], "X-Hop": ["1"]},
                        response_body=b"no",
                    ),
                    priority=1,
                ),
                register(StageKind.INTERCEPT_BEFORE, "later", seen=seen),
                register(StageKind.REQUEST_COMPLETE, "watch", seen=done),
            ],
        )
    error = caught.value
    assert (error.http_status, error.body, error.plugin_id) == (429, b"no", "gate")
    assert dict(error.headers) == {b"retry-after": b"1", b"content-type": b"application/json"}
    assert not seen
    assert not executor.calls
    [(_, event)] = done
    assert (event.outcome, event.status_code) == (Outcome.REJECTED, 429)


@pytest.mark.parametrize("status", [0, 100, 199, 600, -1])
async def test_termination_with_a_status_that_is_none_answers_403(status: int) -> None:
    """200 to 599 are statuses; anything else is the default."""
    stage = register(
        StageKind.INTERCEPT_AFTER, "gate", lambda call: InterceptRequestResult(terminate=True, status_code=status)
    )
    with pytest.raises(Rejected) as caught:
        await execute(full(), [stage])
    assert caught.value.http_status == 403


async def test_interceptors_after_selection_run_once_per_attempt_from_the_same_start() -> None:
    """Results of a failed attempt are not carried over to the next one."""
    seen: list[Any] = []
    bad = failing(lambda: UpstreamConnectError("refused"))
    good = full()
    stage = register(
        StageKind.INTERCEPT_AFTER,
        "tag",
        lambda call: InterceptRequestResult(body=call.body + b" "),
        seen=seen,
    )
    await execute([candidate(bad, name="a", model="up-a"), candidate(good, name="b", model="up-b")], [stage])
    assert [(call.model, call.to_format, call.body) for _, call in seen] == [
        ("up-a", "openai", CHAT),
        ("up-b", "openai", CHAT),
    ]


async def test_a_failing_stage_is_skipped_unless_it_may_not_fail() -> None:
    """A plugin's failure costs nothing, or one exchange when its owner wants that."""
    done: list[Any] = []

    def explode(call: Any) -> None:
        raise ZeroDivisionError("secret text")

    normal = register(StageKind.INTERCEPT_BEFORE, "bad", explode)
    assert (await execute(full(), [normal])).body == b'{"id":"r1"}'
    strict = register(StageKind.INTERCEPT_BEFORE, "bad", explode, on_error=OnError.FAIL)
    with pytest.raises(StageError) as caught:
        await execute(full(), [strict, register(StageKind.REQUEST_COMPLETE, "watch", seen=done)])
    assert (caught.value.stage, caught.value.plugin_id) == ("request.intercept_before", "bad")
    assert "secret" not in str(caught.value)
    assert done[0][1].outcome is Outcome.FAILED


async def test_normalizers_fold_and_get_the_upstream_model_in_the_body() -> None:
    """On the native path the body already is the provider's; both formats are named."""
    seen: list[Any] = []
    executor = full()
    await execute(
        [candidate(executor, model="real")],
        [
            register(
                StageKind.REQUEST_NORMALIZE, "x", lambda call: attrs.evolve(call).body + b"\n", seen=seen, priority=1
            ),
            register(StageKind.REQUEST_NORMALIZE, "y", lambda call: b"", seen=seen),
            register(StageKind.REQUEST_TRANSLATE, "never", seen=seen),
        ],
    )
    assert [name for name, _ in seen] == ["x", "y"]
    assert [(c.from_format, c.to_format, c.model) for _, c in seen] == [("openai", "openai", "real")] * 2
    assert b"".join(executor.calls[0].body) == b'{"model":"real","messages":[]}\n'


async def test_claude_to_claude_asks_translators_because_no_native_route_exists() -> None:
    """plugin-abi 6.3: same-format Claude is the one pair that plugins may translate; first non-empty wins."""
    executor = FakeExecutor(Format.CLAUDE, lambda call: FakeAnswer([b"{}"]))
    seen: list[Any] = []
    await execute(
        [candidate(executor)],
        [
            register(StageKind.REQUEST_TRANSLATE, "empty", lambda call: b"", seen=seen, priority=2),
            register(StageKind.REQUEST_TRANSLATE, "wins", lambda call: b'{"model":"m1","x":1}', seen=seen, priority=1),
            register(StageKind.REQUEST_TRANSLATE, "late", lambda call: b"late", seen=seen),
        ],
        ask=request(format=Format.CLAUDE),
    )
    assert [name for name, _ in seen] == ["empty", "wins"]
    assert b"".join(executor.calls[0].body) == b'{"model":"m1","x":1}'


async def test_without_any_translator_a_foreign_provider_is_refused_by_name() -> None:
    """Better a clear 501 than a body that the provider cannot read."""
    executor = FakeExecutor("acme", lambda call: FakeAnswer([b"{}"]), native=False)
    with pytest.raises(NoTranslator) as caught:
        await execute([candidate(executor)])
    assert (caught.value.source, caught.value.target, caught.value.http_status) == ("openai", "acme", 501)
    assert not executor.calls


async def test_a_plugin_translator_fills_a_gap() -> None:
    """Plugins may carry a pair that nothing native does."""
    executor = FakeExecutor("acme", lambda call: FakeAnswer([b'{"g":1}']), native=False)
    result = await execute(
        [candidate(executor)],
        [
            register(StageKind.REQUEST_TRANSLATE, "t", lambda call: b'{"contents":[]}'),
            register(StageKind.RESPONSE_TRANSLATE, "t", lambda call: b'{"chat":1}'),
        ],
    )
    assert b"".join(executor.calls[0].body) == b'{"contents":[]}'
    assert result.body == b'{"chat":1}'


async def test_a_plugin_translator_fills_a_gap_of_a_stream_too() -> None:
    """One frame per unit; a unit that nobody translates passes unchanged."""
    seen: list[Any] = []
    events = (b'{"text":"a"}', b'{"end":1}')
    executor = FakeExecutor("acme", lambda call: FakeAnswer(list(events)), native=False)
    result = await execute(
        [candidate(executor)],
        [
            register(StageKind.REQUEST_TRANSLATE, "t", lambda call: b'{"contents":[]}'),
            register(
                StageKind.RESPONSE_TRANSLATE,
                "t",
                lambda call: b'{"t":1}' if b"text" in call.body else b'{"t":2}',
                seen=seen,
            ),
        ],
        ask=request(stream=True),
    )
    assert [call.body for _, call in seen] == list(events)
    assert result.body == b'data: {"t":1}\n\ndata: {"t":2}\n\n' + DONE


async def test_response_interceptors_change_body_and_only_their_headers_reach_the_client() -> None:
    """Without pass-through, upstream headers stay inside unless an interceptor changed them."""
    seen: list[Any] = []
    up = ((b"content-type", b"application/json"), (b"x-up", b"1"), (b"set-cookie", b"s=1"))
    stage = register(
        StageKind.INTERCEPT_RESPONSE,
        "r",
        lambda call: InterceptResponseResult(body=b'{"x":1}', headers={"x-seen": ["1"], "Set-Cookie": ["evil=1"]}),
        seen=seen,
    )
    result = await execute(full(headers=up), [stage])
    assert (result.body, dict(result.headers)) == (b'{"x":1}', {b"x-seen": b"1"})
    call = seen[0][1]
    assert call.response_headers["X-Up"] == ["1"]
    assert (call.original_request, call.request_body, call.body) == (CHAT, CHAT, b'{"id":"r1"}')


async def test_passthrough_headers_shows_upstream_headers_but_not_those_of_the_connection() -> None:
    """proxy 1.16."""
    up = (
        (b"content-type", b"application/json"),
        (b"x-request-id", b"r"),
        (b"connection", b"keep-alive, x-hop"),
        (b"x-hop", b"1"),
        (b"set-cookie", b"s=1"),
        (b"content-length", b"11"),
        (b"x-litellm-a", b"1"),
    )
    result = await execute(full(headers=up), passthrough_headers=True)
    assert dict(result.headers) == {b"content-type": b"application/json", b"x-request-id": b"r"}


async def test_chunks_can_be_replaced_and_dropped_and_history_holds_what_was_sent() -> None:
    """Dropped chunks count in the index and are missing in the history; a drop ends the chain for its chunk."""
    seen: list[Any] = []
    later: list[Any] = []

    def edit(call: Any) -> InterceptChunkResult | None:
        if call.chunk_index == 0:
            return InterceptChunkResult(body=unit("A"))
        return InterceptChunkResult(drop=True) if call.chunk_index == 1 else None

    result = await execute(
        streaming(delta("a") + delta("b"), delta("c"), STOP, DONE),
        [
            register(StageKind.INTERCEPT_CHUNK, "edit", edit, seen=seen, priority=1),
            register(StageKind.INTERCEPT_CHUNK, "later", seen=later),
        ],
        ask=request(stream=True),
    )
    assert result.body == delta("A") + delta("c") + STOP + DONE
    assert [call.chunk_index for _, call in seen] == [-1, 0, 1, 2, 3]
    assert [call.chunk_index for _, call in later] == [-1, 0, 2, 3]
    assert later[1][1].body == unit("A")
    assert seen[3][1].history == (unit("A"),)
    assert seen[0][1].body == b""
    assert seen[0][1].original_request == CHAT


async def test_head_call_decides_stream_headers() -> None:
    """Header changes reach the client until the head is sent, later ones do not."""

    def headers(call: Any) -> InterceptChunkResult:
        return InterceptChunkResult(headers={"x-index": [str(call.chunk_index)]})

    result = await execute(
        streaming(delta("a"), delta("b"), STOP, DONE),
        [register(StageKind.INTERCEPT_CHUNK, "h", headers)],
        ask=request(stream=True),
    )
    assert dict(result.headers) == {b"x-index": b"0"}


async def test_without_chunk_stages_events_pass_as_the_bytes_they_came_as() -> None:
    """Odd spacing and unknown members survive when nobody looks."""
    odd = b'data:  {"choices":[{"index":0,"delta":{"content":"x"}}],  "zz":1e400}\r\n\r\n'
    result = await execute(streaming(odd, STOP, DONE), ask=request(stream=True))
    assert result.body == odd + STOP + DONE


async def test_a_router_may_choose_provider_and_model() -> None:
    """First valid answer wins; what the router names replaces the model."""
    ours, other = full(b'{"from":"ours"}'), full(b'{"from":"other"}')
    routes = [
        register(
            StageKind.MODEL_ROUTE,
            "invalid",
            lambda call: RouteResult(target_kind=TargetKind.PROVIDER, target="nobody"),
            priority=2,
        ),
        register(
            StageKind.MODEL_ROUTE,
            "valid",
            lambda call: RouteResult(target_kind=TargetKind.PROVIDER, target="other", model="m9"),
            priority=1,
        ),
    ]
    result = await execute([candidate(ours), candidate(other, name="two", provider="other")], routes)
    assert result.body == b'{"from":"other"}'


async def test_an_unknown_model_ends_before_an_execution_begins() -> None:
    """No completion event: nothing had started (plugin-abi 4.10)."""
    done: list[Any] = []
    with pytest.raises(UnknownModel):
        await execute(full(), [register(StageKind.REQUEST_COMPLETE, "w", seen=done)], ask=request(model="unknown"))
    assert not done


async def test_the_highest_scheduler_plugin_that_decides_picks() -> None:
    """It sees the highest tier without secrets; unknown picks fall back to the built-in."""
    seen: list[Any] = []
    low, a, b = full(b'{"by":"low"}'), full(b'{"by":"a"}'), full(b'{"by":"b"}')
    pool = [
        candidate(low, name="low", priority=0),
        candidate(a, name="a", priority=5),
        candidate(b, name="b", priority=5),
    ]
    picks = register(StageKind.SCHEDULER_PICK, "s", lambda call: PickResult(credential_id="b"), seen=seen, priority=1)
    other = register(StageKind.SCHEDULER_PICK, "t", lambda call: PickResult(credential_id="a"), seen=seen)
    assert (await execute(pool, [picks, other])).body == b'{"by":"b"}'
    assert [name for name, _ in seen] == ["s"]
    assert [c.id for c in seen[0][1].candidates] == ["a", "b"]
    wrong = register(StageKind.SCHEDULER_PICK, "s", lambda call: PickResult(credential_id="low"))
    assert (await execute(pool, [wrong])).body == b'{"by":"a"}'
    # Upstream asks the first one only; its documentation promises the next one (plugin-abi chapter 10, no. 15).
    declines = register(StageKind.SCHEDULER_PICK, "s", lambda call: None, priority=1)
    next_one = register(StageKind.SCHEDULER_PICK, "t", lambda call: PickResult(credential_id="b"))
    assert (await execute(pool, [declines, next_one])).body == b'{"by":"b"}'


async def test_a_scheduler_that_fails_denies_the_request_in_its_own_words() -> None:
    """With the status that it chose (plugin-abi 4.5)."""

    def deny(call: Any) -> None:
        raise CpaError("over budget", http_status=429, code="budget")

    denies = register(StageKind.SCHEDULER_PICK, "s", deny, on_error=OnError.FAIL)
    with pytest.raises(CpaError, match="over budget") as caught:
        await execute(full(), [denies])
    assert caught.value.http_status == 429


async def test_schedulers_see_no_secret_attributes() -> None:
    """Names decide (plugin-abi 4.5)."""
    seen: list[Any] = []
    made = candidate(full())
    attributes = {"path": "a.json", "API_KEY": "k", "my_token": "t", "proxy_url": "p", "region": "eu"}
    made = attrs.evolve(made, credential=attrs.evolve(made.credential, attributes=attributes))
    await execute([made], [register(StageKind.SCHEDULER_PICK, "s", seen=seen)])
    assert seen[0][1].candidates[0].attributes == {"path": "a.json", "region": "eu"}


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_a_fault_of_the_request_is_told_at_once(status: int) -> None:
    """Another credential would be asked the same wrong thing."""
    bad, good = failing(lambda: upstream(status)), full()
    with pytest.raises(UpstreamStatusError) as caught:
        await execute([candidate(bad, name="a"), candidate(good, name="b")])
    assert caught.value.status == status
    assert not good.calls


@pytest.mark.parametrize("status", [401, 402, 403, 404, 408, 429, 500, 503, 529])
async def test_a_fault_of_the_credential_or_provider_rotates(status: int) -> None:
    """Each credential is tried once; the first good one answers."""
    bad, good = failing(lambda: upstream(status)), full()
    result = await execute([candidate(bad, name="a"), candidate(good, name="b")])
    assert result.body == b'{"id":"r1"}'
    assert len(bad.calls) == 1


def upstream(status: int) -> UpstreamStatusError:
    """A provider's error answer."""
    return UpstreamStatusError(status=status, headers=(), body=b"{}", provider_format="openai")


async def test_when_all_fail_the_last_providers_error_is_the_clients() -> None:
    """Not a made-up one: it says most about what to do."""
    first, second = failing(lambda: upstream(500)), failing(lambda: upstream(429))
    with pytest.raises(UpstreamStatusError) as caught:
        await execute([candidate(first, name="a"), candidate(second, name="b")])
    assert caught.value.status == 429


async def test_an_error_before_the_first_frame_is_a_real_error_and_rotates() -> None:
    """A provider that says 200 and then fails has not answered yet."""
    fault = b'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n'
    bad, good = streaming(fault), streaming(delta("x"), STOP, DONE)
    with pytest.raises(UpstreamStatusError) as caught:
        await execute(bad, ask=request(stream=True))
    assert caught.value.status == 503
    assert b"overloaded" in caught.value.body
    result = await execute([candidate(bad, name="a"), candidate(good, name="b")], ask=request(stream=True))
    assert result.body == delta("x") + STOP + DONE


async def test_a_provider_that_repeats_its_key_in_a_stream_does_not_betray_it() -> None:
    """Neither as the first event, which becomes an answer, nor later, when its frame is relayed."""
    fault = b'data: {"error":{"message":"bad key strange-key-of-mine","code":401}}\n\n'
    for events, expected in (((fault,), UpstreamStatusError), ((delta("x"), fault), UpstreamStreamError)):
        plain = candidate(streaming(*events))
        mine = attrs.evolve(plain, credential=attrs.evolve(plain.credential, api_key="strange-key-of-mine"))
        with pytest.raises(expected) as caught:
            await execute([mine], ask=request(stream=True))
        told = caught.value.body if isinstance(caught.value, UpstreamStatusError) else caught.value.frame
        assert b"bad key stra...mine" in told


async def test_an_empty_stream_is_an_error() -> None:
    """A client must never take nothing for an answer."""
    with pytest.raises(UpstreamProtocolError) as caught:
        await execute(streaming(), ask=request(stream=True))
    assert caught.value.code == "empty_stream"


async def test_a_failure_after_the_first_frame_reaches_the_reader_and_is_not_retried() -> None:
    """What was sent cannot be taken back."""
    done: list[Any] = []
    good = full()
    for broken, expected in (
        (streaming(delta("x")), UpstreamProtocolError),
        (streaming(delta("x"), b'data: {"error":{"message":"late","code":500}}\n\n'), UpstreamStreamError),
    ):
        with pytest.raises(expected):
            await execute(
                [candidate(broken, name="a"), candidate(good, name="b")],
                [register(StageKind.REQUEST_COMPLETE, "w", seen=done)],
                ask=request(stream=True),
            )
    assert not good.calls
    assert [call.outcome for _, call in done] == [Outcome.FAILED, Outcome.FAILED]


async def test_completion_tells_exactly_once_how_it_ended() -> None:
    """Success, provider failure and a client that left; started before completed, ids filled."""
    done: list[CompletionCall] = []

    async def note(call: CompletionCall) -> None:
        done.append(call)

    stage = attrs.evolve(register(StageKind.REQUEST_COMPLETE, "w"), stage=note)
    await execute(full(), [stage])
    with pytest.raises(UpstreamStatusError):
        await execute(failing(lambda: upstream(500)), [stage])
    with trio.CancelScope() as scope:

        async def leave() -> None:
            scope.cancel()
            await trio.lowlevel.checkpoint()

        await execute(streaming(delta("x"), STOP), [stage], ask=request(stream=True), inside=leave)
    assert [(c.outcome, c.status_code) for c in done] == [
        (Outcome.SUCCEEDED, 200),
        (Outcome.FAILED, 500),
        (Outcome.CANCELED, 0),
    ]
    assert len({c.execution.request_id for c in done}) == 3
    assert all(c.started_at <= c.completed_at for c in done)
    assert done[0].execution.trace_id == "0a0b0c0d"


async def test_a_reader_that_stops_early_cancels_and_closes_the_provider() -> None:
    """Leaving the context closes everything that it opened."""
    done: list[Any] = []
    executor = streaming(delta("x"), delta("y"), STOP, DONE)
    async with open_completions() as completions:
        made = services([candidate(executor)], completions, [register(StageKind.REQUEST_COMPLETE, "w", seen=done)])
        async with open_answer(request(stream=True), made) as answer:
            assert answer.stream is not None
            assert await answer.stream.__anext__() == delta("x")
            assert executor.open_answers == 1
        assert executor.open_answers == 0
    assert [call.outcome for _, call in done] == [Outcome.CANCELED]


@pytest.mark.parametrize("waiting_for", ["head", "stage", "chunk"])
async def test_cancelling_anywhere_closes_the_provider(waiting_for: str, autojump_clock: trio.abc.Clock) -> None:
    """Nothing stays open, wherever the execution stood when its client left."""
    never = trio.Event()
    executor = streaming(delta("x"), STOP, DONE)
    registrations = []
    if waiting_for == "head":
        executor = FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([never]))
    elif waiting_for == "chunk":
        executor = FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([delta("x"), never]))
    else:

        async def block(call: Any) -> None:
            await never.wait()

        registrations = [attrs.evolve(register(StageKind.INTERCEPT_AFTER, "slow"), stage=block)]
    with trio.move_on_after(1) as scope:
        await execute(executor, registrations, ask=request(stream=True))
    assert scope.cancelled_caught
    assert executor.open_answers == 0


async def test_a_plugin_does_not_meet_the_executions_it_started() -> None:
    """Its router, interceptors and completion event are skipped; its normalizers and everybody else's stages run."""
    seen: list[Any] = []
    kinds = [kind for kind in StageKind if kind not in UNUSED | {StageKind.SCHEDULER_PICK}]
    registrations = [register(kind, plugin, seen=seen) for kind in kinds for plugin in ("caller", "other")]
    await execute(full(), registrations, ask=request(callers=(PluginId("caller"),)))
    of_caller = [call for name, call in seen if name == "caller"]
    assert {type(call).__name__ for call in of_caller} == {"TransformCall"}
    assert sum(name == "other" for name, _ in seen) == 8


async def test_the_chain_of_callers_ends() -> None:
    """A -> B -> A skips both; a chain that grows without end is refused."""
    seen: list[Any] = []
    stages = [register(StageKind.INTERCEPT_BEFORE, name, seen=seen) for name in ("a", "b", "c")]
    await execute(full(), stages, ask=request(callers=(PluginId("a"), PluginId("b"))))
    assert [name for name, _ in seen] == ["c"]
    deep = tuple(PluginId(f"p{number}") for number in range(attrs.fields(Services).nested_depth.default + 1))
    with pytest.raises(RequestError, match="nested"):
        await execute(full(), ask=request(callers=deep))


async def test_metadata_names_model_path_and_idempotency_key() -> None:
    """plugin-abi 6.11."""
    seen: list[Any] = []
    ask = request(headers=((b"idempotency-key", b"k1"),))
    await execute(full(), [register(StageKind.INTERCEPT_BEFORE, "m", seen=seen)], ask=ask)
    assert seen[0][1].execution.metadata == {
        "requested_model": "m1",
        "request_path": "/v1/chat/completions",
        "idempotency_key": "k1",
        "service_tier": "auto",
        "generate": True,
    }


async def test_metadata_grows_along_the_way() -> None:
    """What a request asks for is known after routing, the credential after its selection (plugin-abi 6.11)."""
    seen: list[Any] = []
    kinds = (StageKind.MODEL_ROUTE, StageKind.INTERCEPT_BEFORE, StageKind.INTERCEPT_AFTER)
    ask = request(body=b'{"reasoning_effort":"high","service_tier":"flex","generate":false}')
    await execute(full(), [register(kind, "m", seen=seen) for kind in kinds], ask=ask)
    routing, before, after = ({*call.execution.metadata.items()} for _, call in seen)
    asked = {("reasoning_effort", "high"), ("service_tier", "flex"), ("generate", False)}
    assert before - routing == asked
    assert after - before == {("selected_auth_id", "one"), ("selected_auth_index", "index-one")}


PLUGIN = FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([b'{"id":"r1"}']), native=False)


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        ("m1(1024)", CHAT, Thinking(mode=Mode.BUDGET, budget=1024)),
        ("m1", b'{"reasoning_effort":"low"}', Thinking(mode=Mode.LEVEL, level="low")),
        ("m1(none)", b'{"reasoning_effort":"low"}', OFF),
        ("m1", CHAT, None),
    ],
)
async def test_thinking_of_a_plugins_provider_is_its_stages_matter(
    model: str, body: bytes, expected: Thinking | None
) -> None:
    """Upstream never calls it for plugin executors (plugin-abi chapter 10, no. 17). The suffix wins over the body."""
    seen: list[Any] = []
    stage = attrs.evolve(
        register(StageKind.THINKING_APPLY, "t", lambda call: b'{"applied":1}', seen=seen), provider="fake"
    )
    calls = len(PLUGIN.calls)

    async with open_completions() as completions:
        made = attrs.evolve(services([], completions, [stage]), models=FakeModels([candidate(PLUGIN)]))
        async with open_answer(request(model=model, body=body), made):
            pass
    assert [call.thinking for _, call in seen] == ([] if expected is None else [expected])
    assert b"".join(PLUGIN.calls[calls].body) == (body if expected is None else b'{"applied":1}')


def by_names(text: str, executor: FakeExecutor, completions: Completions) -> Services:
    """The services of a configuration in which *executor* serves everybody."""
    config = parse_config(text, file="t.yaml").config
    credentials = credentials_from_config(config)
    models = ModelRegistry(credentials, {credential.provider: executor for credential in credentials})
    return attrs.evolve(
        services([], completions),
        models=models,
        payload=payload_of(config),
        thinking_of=models.thinking,
        answer_name=models.answer_name,
    )


POOL = """
openai-compatibility:
  - name: farm
    base-url: http://farm.test
    api-key-entries: [{api-key: k1}, {api-key: k2}]
    models:
      - {name: one, alias: smart, force-mapping: true}
      - {name: two, alias: smart}
payload:
  default: [{models: [{name: "smart*"}], params: {top_p: 0.5}}]
  override: [{models: [{name: two, headers: {x-team: blue}}], params: {user: team}}]
"""


async def test_the_next_model_of_a_pool_is_tried_before_its_credential_is_given_up() -> None:
    """Proxy 2.4. Rules see the model of the attempt."""
    seen: list[tuple[str, str, bytes]] = []

    def answer(call: UpstreamCall) -> FakeAnswer:
        seen.append((call.credential.api_key, call.model, b"".join(call.body)))
        if len(seen) < 4:
            raise UpstreamStatusError(status=500, headers=(), body=b"{}", provider_format=Format.OPENAI)
        return FakeAnswer([b'{"id":"r1","model":"two"}'])

    body = b'{"model":"smart(high)","messages":[{"role":"user","content":"hi"}]}'
    async with open_completions() as completions:
        made = by_names(POOL, FakeExecutor(Format.OPENAI, answer), completions)
        async with open_answer(request(model="smart(high)", body=body), made) as result:
            assert result.body == b'{"id":"r1","model":"two"}'
    assert [model for _, model, _ in seen] == ["one", "two", "one", "two"]
    keys = [key for key, _, _ in seen]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    first, second = json.loads(seen[0][2]), json.loads(seen[1][2])
    hello = [{"role": "user", "content": "hi"}]
    assert first == {"model": "one", "messages": hello, "reasoning_effort": "high", "top_p": 0.5}
    assert second == {**first, "model": "two", "user": "team"}


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_carry_the_forced_name(stream: bool) -> None:
    """Proxy 2.4: whole ones, and every event."""
    piece = b'{"id":"c","model":"one","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    pieces = [b"data: " + piece + b"\n\n", DONE] if stream else [piece]
    async with open_completions() as completions:
        made = by_names(POOL, FakeExecutor(Format.OPENAI, lambda call: FakeAnswer(pieces)), completions)
        async with open_answer(request(model="smart", stream=stream), made) as answer:
            got = answer.body + b"".join([] if answer.stream is None else [frame async for frame in answer.stream])
    assert got == b"".join(pieces).replace(b"one", b"smart")


@attrs.define
class Account:
    """What was noted of one attempt."""

    about: dict[str, Any]
    response_headers: RawHeaders = ()
    noted: list[Any] = attrs.field(factory=list)
    taken: int = 0

    def feed(self, block: bytes) -> None:
        self.noted.append(block)

    def delivered(self) -> None:
        self.taken = len(self.noted)

    def body(self, data: bytes) -> None:
        self.noted.append(data)

    @property
    def counted(self) -> tuple[int, int]:
        return 3, 5

    def finish(self, error: CpaError | None, *, complete: bool) -> None:
        self.noted.append((None if error is None else error.http_status, complete))


@attrs.define
class Books:
    """All accounts."""

    wanted: bool = True
    accounts: list[Account] = attrs.field(factory=list)

    def attempt(self, **about: Any) -> Account:
        self.accounts.append(Account(about))
        return self.accounts[-1]


async def kept(books: Books, candidates: Sequence[Candidate], ask: ModelRequest, *, read: int = 99) -> None:
    """One execution of which the client reads *read* frames."""
    async with open_completions() as completions:
        made = attrs.evolve(services(candidates, completions), accounts=books)
        with suppress(CpaError):
            async with open_answer(ask, made) as answer:
                frames = 0
                while answer.stream is not None and frames < read and await anext(answer.stream, b""):
                    frames += 1


async def test_every_attempt_has_one_account() -> None:
    """Failures too; whole answers and streams; nothing when nobody wants to know, or tokens are only counted."""
    books = Books()
    failed = candidate(failing(lambda: UpstreamTimeout("slow")), name="a")
    await kept(books, [failed, candidate(full(), name="b", model="up")], request())
    assert [account.noted for account in books.accounts] == [[(504, False)], [b'{"id":"r1"}', (None, True)]]
    about = books.accounts[1].about
    assert (about["credential"].id, about["model"], about["alias"]) == ("b", "up", "m1")
    assert books.accounts[1].response_headers == ((b"content-type", b"application/json"),)
    books = Books()
    await kept(books, [candidate(streaming(delta("a"), STOP, DONE))], request(stream=True))
    assert books.accounts[0].noted == [delta("a"), STOP, DONE, (None, True)]
    books = Books()
    await kept(books, [candidate(full())], request(operation=Operation.COUNT_TOKENS))
    await kept(Books(wanted=False), [candidate(full())], request())
    assert not books.accounts


async def test_the_account_of_a_client_that_leaves_is_of_what_was_delivered() -> None:
    """No error, but not complete."""
    books = Books()
    await kept(books, [candidate(streaming(delta("a"), delta("b"), STOP, DONE))], request(stream=True), read=1)
    assert books.accounts[0].noted[-1] == (None, False)
    broken = streaming(delta("a"), UpstreamTimeout("cut"))
    await kept(books, [candidate(broken)], request(stream=True))
    assert books.accounts[1].noted == [delta("a"), (504, False)]


ROLE = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
OVERLOADED = b'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n'


async def test_providers_of_another_protocol_are_passed_over_while_one_fits() -> None:
    """One model name on several providers must not fail or work by turns."""
    other = FakeExecutor("acme", lambda call: FakeAnswer([b"{}"]), native=False)
    mine = full()
    pool = [candidate(other, name="a", provider="x"), candidate(mine, name="b"), candidate(other, name="c")]
    for _ in range(4):
        assert (await execute(pool)).body == b'{"id":"r1"}'
    assert not other.calls


async def test_a_failure_right_behind_the_start_events_is_answered_with_its_status() -> None:
    """Start events alone are no answer: another credential may still give one."""
    bad, good = streaming(ROLE, OVERLOADED), streaming(ROLE, delta("x"), STOP, DONE)
    with pytest.raises(UpstreamStatusError) as caught:
        await execute(bad, ask=request(stream=True))
    assert caught.value.status == 503
    result = await execute([candidate(bad, name="a"), candidate(good, name="b")], ask=request(stream=True))
    assert result.body == ROLE + delta("x") + STOP + DONE


async def test_start_events_are_not_held_back_for_long(autojump_clock: trio.abc.Clock) -> None:
    """A provider that thinks after its first event keeps nobody in the dark."""
    executor = FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([ROLE, trio.Event()]))
    async with open_completions() as completions:
        started = trio.current_time()
        async with open_answer(request(stream=True), services([candidate(executor)], completions)) as answer:
            assert answer.stream is not None
            assert await answer.stream.__anext__() == ROLE
            assert trio.current_time() - started == pytest.approx(START_HOLD_S)


async def test_an_answered_stream_ends_well_although_its_provider_breaks_or_never_closes(
    autojump_clock: trio.abc.Clock,
) -> None:
    """After the terminal sign the answer is complete; what happens to the connection is nobody's loss."""
    for last in (UpstreamProtocolError("reset"), trio.Event()):
        done: list[Any] = []
        executor = FakeExecutor(Format.OPENAI, lambda call, last=last: FakeAnswer([delta("x"), STOP, last]))
        result = await execute(
            executor, [register(StageKind.REQUEST_COMPLETE, "w", seen=done)], ask=request(stream=True)
        )
        assert result.body == delta("x") + STOP + DONE
        assert done[0][1].outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", UpstreamProtocolError),
        (b" \n", UpstreamProtocolError),
        (b"<html>busy</html>", UpstreamProtocolError),
        (b'{ "error": {"message":"busy","code":429}}', UpstreamStatusError),
    ],
)
async def test_a_200_without_an_answer_is_a_failure_and_rotates(body: bytes, expected: type[Exception]) -> None:
    """Nothing, a page, or an error with the wrong status: a client must not take any of them for an answer."""
    with pytest.raises(expected):
        await execute(full(body))
    result = await execute([candidate(full(body), name="a"), candidate(full(), name="b")])
    assert result.body == b'{"id":"r1"}'


async def test_answers_that_only_mention_errors_are_answers() -> None:
    """Members called error that are null, or that stand further inside."""
    for body in (b'{"error":null,"id":"r"}', b'{"id":"r","error":{"x":1}}', b'[{"error":{}}]'):
        assert (await execute(full(body))).body == body


class Attempts:
    """Notes how attempts end."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, type[Exception] | None]] = []

    def attempt_started(self, credential: Credential) -> None:
        """Not asked about."""

    def attempt_ended(self, credential: Credential, error: CpaError | None) -> None:
        """Credential and kind of failure."""
        self.ended.append((credential.id, None if error is None else type(error)))


async def test_a_streams_attempt_ends_with_the_stream() -> None:
    """A stream that broke is a failed attempt, however well it began; each attempt ends once."""
    for last, expected in ((DONE, None), (OVERLOADED, UpstreamStreamError)):
        attempts = Attempts()
        pool = [
            candidate(failing(lambda: upstream(500)), name="a"),
            candidate(streaming(delta("x"), STOP, last), name="b"),
        ]
        async with open_completions() as completions:
            with suppress(UpstreamStreamError):
                async with open_answer(request(stream=True), services(pool, completions), observer=attempts) as answer:
                    assert answer.stream is not None
                    assert attempts.ended == [("a", UpstreamStatusError)]
                    async for _ in answer.stream:
                        pass
        assert attempts.ended == [("a", UpstreamStatusError), ("b", expected)]
