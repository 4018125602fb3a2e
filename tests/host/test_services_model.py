"""`host.model.*` as plugins call them: a real pipeline in front of a mock provider."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from cpa.abi.envelope import HostCallError
from cpa.abi.wire_host import HostModelRequest
from cpa.host.scopes import Caller, InboundContext
from cpa.host.services import open_host_services
from cpa.host.services_model import NESTED_SOURCE, nested
from cpa.pipeline.stage import (
    InterceptRequestResult,
    InterceptResponseResult,
    Outcome,
    Registration,
    StageKind,
)
from cpa.types import Execution, PluginId, RequestId, TraceId
from tests.host.hosting import ALICE, BOB, Host, Refused, b64, open_host, unb64
from tests.pipeline.support import register

CHAT = b'{"model":"ignored","messages":[{"role":"user","content":"hi"}]}'
CLAUDE = b'{"model":"ignored","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
STALLED_UNITS = 3
"""The mock falls silent at its fourth write; each is one unit."""
INBOUND = InboundContext(
    headers={"X-Mock-Chunks": ["3"], "X-Team": ["blue"]},
    query={"a": ["b c"]},
    trace_id=TraceId("0a0b0c0d"),
    request_id=RequestId("r1"),
    path="/v1/chat/completions",
)


def asking(*, stream: bool = False, **changes: Any) -> dict[str, Any]:
    """A request as in the contract's example."""
    made = {
        "entry_protocol": "openai",
        "exit_protocol": "",
        "model": "gpt",
        "stream": stream,
        "body": b64(CHAT if not stream else CHAT.replace(b"{", b'{"stream":true,', 1)),
        "headers": {},
        "query": {},
        "alt": "",
    }
    return made | changes


async def read_all(host: Host, stream_id: str) -> tuple[list[bytes], str]:
    """Payloads up to the end, and the error that ended them."""
    payloads: list[bytes] = []
    while True:
        got = await host.call("host.model.stream_read", {"stream_id": stream_id})
        assert list(got) == ["payload", "error", "done"]
        if got["done"]:
            assert got["payload"] is None
            return payloads, got["error"]
        payloads.append(unb64(got["payload"]))


async def test_execute() -> None:
    """A full execution under the model's alias; the body passes otherwise as it is."""
    async with open_host() as host:
        got = await host.call("host.model.execute", asking())
        assert list(got) == ["status_code", "headers", "body"]
        assert (got["status_code"], got["headers"]) == (200, None)
        assert json.loads(unb64(got["body"]))["object"] == "chat.completion"
        (request,) = host.proxy.mock.requests
        assert json.loads(request.body)["model"] == "mock-gpt"


@pytest.mark.parametrize("name", ["claude", "Anthropic", " claude "])
async def test_protocols_by_their_aliases(name: str) -> None:
    """Plugins write them in several ways."""
    async with open_host() as host:
        ask = asking(entry_protocol=name, exit_protocol="claude", model="claude", body=b64(CLAUDE))
        got = await host.call("host.model.execute", ask)
        assert json.loads(unb64(got["body"]))["type"] == "message"


async def test_a_stream_of_bare_units() -> None:
    """Chat: JSON without ``data:`` and without ``[DONE]``; then the end, and the end again."""
    async with open_host() as host:
        head = await host.call("host.model.execute_stream", asking(stream=True))
        assert list(head) == ["status_code", "headers", "stream_id"]
        assert (head["status_code"], head["headers"]) == (200, None)
        units, error = await read_all(host, head["stream_id"])
        assert error == ""
        assert len(units) > 2
        assert all(json.loads(unit)["object"] == "chat.completion.chunk" for unit in units)
        assert await read_all(host, head["stream_id"]) == ([], "")
        assert host.open_streams == 0


async def test_a_stream_of_events() -> None:
    """Claude: complete SSE events."""
    async with open_host() as host:
        body = b64(CLAUDE.replace(b"{", b'{"stream":true,', 1))
        ask = asking(stream=True, entry_protocol="claude", model="claude", body=body)
        head = await host.call("host.model.execute_stream", ask)
        units, _ = await read_all(host, head["stream_id"])
    assert units[0].startswith(b"event: message_start\ndata: {")
    assert all(unit.endswith(b"\n\n") and unit.count(b"data: ") == 1 for unit in units)


async def test_headers_follow_the_clients_rules() -> None:
    """Without passthrough only what interceptors add; with it, the provider's."""

    def answer(call: Any) -> InterceptResponseResult:
        return InterceptResponseResult(headers={"X-Seen": ["1"], "Set-Cookie": ["no"]})

    entries = [register(StageKind.INTERCEPT_RESPONSE, "bob", answer)]
    async with open_host(registrations=entries) as host:
        assert (await host.call("host.model.execute", asking()))["headers"] == {"X-Seen": ["1"]}
    async with open_host(extra="passthrough-headers: true") as host:
        headers = (await host.call("host.model.execute", asking()))["headers"]
        assert headers["Content-Type"] == ["application/json"]
        assert "Content-Length" not in headers


async def test_the_scopes_request_lends_headers_query_and_trace() -> None:
    """Unless the plugin gives its own; interceptors of others see them, and where the execution comes from."""
    seen: list[Any] = []
    entries = [
        register(StageKind.INTERCEPT_BEFORE, "bob", seen=seen),
        register(StageKind.MODEL_ROUTE, "bob", seen=seen),
    ]
    async with open_host(registrations=entries) as host:
        async with host.services.scopes.open(ALICE, INBOUND) as scope:
            await host.call("host.model.execute", asking(host_callback_id=scope.id))
            await host.call("host.model.execute", asking(host_callback_id=scope.id, headers={"x-own": ["1"]}))
        await host.call("host.model.execute", asking())
    calls = [call for _, call in seen]
    route, before = calls[0], calls[1]
    assert route.headers == before.headers == {"X-Mock-Chunks": ["3"], "X-Team": ["blue"]}
    assert route.query == {"a": ["b c"]}
    assert before.execution.trace_id == "0a0b0c0d"
    assert before.execution.request_id != "r1"
    assert before.execution.callers == (ALICE,)
    assert before.execution.metadata["source"] == NESTED_SOURCE
    assert before.execution.metadata["request_path"] == "/v1/chat/completions"
    assert calls[3].headers == {"X-Own": ["1"]}
    assert calls[5].headers == {}
    assert calls[5].execution.trace_id == ""


async def test_the_caller_does_not_meet_its_own_execution() -> None:
    """Nor do those that led to it; everybody else does. Each execution completes once."""
    seen: list[tuple[str, Any]] = []
    kinds = (StageKind.MODEL_ROUTE, StageKind.INTERCEPT_BEFORE, StageKind.INTERCEPT_RESPONSE)
    entries = [register(kind, plugin, seen=seen) for kind in kinds for plugin in ("alice", "bob", "carol")]
    ended: list[tuple[str, Any]] = []
    entries += [register(StageKind.REQUEST_COMPLETE, plugin, seen=ended) for plugin in ("alice", "bob", "carol")]
    async with open_host(registrations=entries) as host:
        context = InboundContext(callers=(PluginId("carol"),))
        async with host.services.scopes.open(ALICE, context) as scope:
            await host.call("host.model.execute", asking(host_callback_id=scope.id))
        await trio.testing.wait_all_tasks_blocked()
    assert [plugin for plugin, _ in seen] == ["bob"] * 3
    assert [plugin for plugin, _ in ended] == ["bob"]
    assert ended[0][1].outcome is Outcome.SUCCEEDED


async def test_loops_of_plugins_end() -> None:
    """A → B → A … is stopped by depth, with an error for the plugin that goes too far."""
    async with open_host() as host:
        context = InboundContext(callers=tuple(PluginId(f"p{number}") for number in range(8)))
        async with host.services.scopes.open(ALICE, context) as scope:
            with pytest.raises(Refused, match="nested model calls are 9 deep, at most 8 are allowed"):
                await host.call("host.model.execute", asking(host_callback_id=scope.id))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_error_comes_as_its_text(stream: bool) -> None:
    """With its status beside, which upstream loses."""
    method = "host.model.execute_stream" if stream else "host.model.execute"
    async with open_host() as host:
        headers = {"X-Mock-Status": ["429"], "X-Mock-Body": ['{"error":{"message":"slow"}}']}
        with pytest.raises(Refused) as caught:
            await host.call(method, asking(stream=stream, headers=headers))
        assert caught.value.error["message"] == '{"error":{"message":"slow"}}'
        assert caught.value.error["http_status"] == 429
        assert caught.value.error["retryable"] is True
        assert host.open_streams == 0


async def test_an_error_without_text_names_its_status() -> None:
    """As the contract words it."""

    def end(call: Any) -> InterceptRequestResult:
        return InterceptRequestResult(terminate=True, status_code=418)

    async with open_host(registrations=[register(StageKind.INTERCEPT_BEFORE, "bob", end)]) as host:
        with pytest.raises(Refused, match="model execution failed with status 418") as caught:
            await host.call("host.model.execute", asking())
    assert caught.value.error["http_status"] == 418


async def test_a_stream_that_breaks_ends_with_the_error() -> None:
    """After the units that had come."""
    async with open_host() as host:
        headers = {"X-Mock-Fault": ["cut"], "X-Mock-At": ["3"]}
        head = await host.call("host.model.execute_stream", asking(stream=True, headers=headers))
        units, error = await read_all(host, head["stream_id"])
        assert units
        assert error
        assert await read_all(host, head["stream_id"]) == ([], "")
        assert host.open_streams == 0


SIGNS = {"openai": "choices", "openai-response": "output", "claude": "content", "gemini": "candidates"}


@pytest.mark.parametrize(
    ("model", "leaving"),
    [*((model, leaving) for model in ("gpt", "claude") for leaving in SIGNS), ("responses", "openai-response")],
)
async def test_answers_leave_in_the_protocol_that_was_asked_for(leaving: str, model: str) -> None:
    """Whatever the request came in, and whatever the provider speaks (plugin-abi 5.5.1)."""
    async with open_host() as host:
        ask = asking(exit_protocol=leaving, model=model)
        answer = json.loads(unb64((await host.call("host.model.execute", ask))["body"]))
        assert SIGNS[leaving] in answer
        head = await host.call("host.model.execute_stream", {**ask, "stream": True})
        units, error = await read_all(host, head["stream_id"])
        assert (bool(units), error) == (True, "")
        bare = leaving in ("openai", "gemini")
        assert all(unit.startswith(b"{" if bare else (b"event:", b"data:")) for unit in units)


@pytest.mark.parametrize(
    ("method", "changes", "text", "status"),
    [
        ("host.model.execute", {"stream": True}, "host.model.execute requires stream=false", 400),
        ("host.model.execute_stream", {"stream": False}, "host.model.execute_stream requires stream=true", 400),
        ("host.model.execute", {"model": "none"}, "unknown provider for model none", 400),
        ("host.model.execute", {"entry_protocol": ""}, "unknown entry_protocol ''", 400),
        ("host.model.execute", {"exit_protocol": "morse"}, "unknown exit_protocol 'morse'", 400),
        ("host.model.execute", {"model": 7}, "decode host model execution request: ", 400),
        ("host.model.execute_stream", {"stream": "true"}, "decode host model execution stream request: ", 400),
    ],
)
async def test_refusals(method: str, changes: dict[str, Any], text: str, status: int) -> None:
    """With the contract's texts where it has some."""
    async with open_host() as host:
        with pytest.raises(Refused) as caught:
            await host.call(method, asking() | changes)
        assert caught.value.error["message"].startswith(text)
        assert caught.value.error["http_status"] == status


def test_what_is_refused_is_no_nested_call() -> None:
    """The execution that it was asked for is accounted for as if nobody had asked."""
    execution = Execution(request_id=RequestId("r"), trace_id=TraceId("t"))
    context = InboundContext(execution=execution)
    with pytest.raises(HostCallError):
        nested(HostModelRequest(entry_protocol="morse"), Caller(plugin_id=PluginId("p")), context)
    assert execution.memory == {}


async def test_before_there_is_a_pipeline() -> None:
    """Plugins start early."""
    async with (
        open_host() as host,
        open_host_services(
            clients=host.proxy.app._clients, config=lambda: host.proxy.app.loaded.config, current=lambda: None
        ) as early,
    ):
        other = Host(services=early, proxy=host.proxy)
        with pytest.raises(Refused, match="host model executor is unavailable"):
            await other.call("host.model.execute", asking())


@pytest.mark.parametrize("stream_id", ["", "7"])
async def test_reading_and_closing_what_is_not_open(stream_id: str) -> None:
    """Unlike HTTP streams: the end, without error."""
    async with open_host() as host:
        assert await host.call("host.model.stream_close", {"stream_id": stream_id}) == {}
        if stream_id:
            assert await read_all(host, stream_id) == ([], "")
        else:
            with pytest.raises(Refused, match="model stream id is required"):
                await host.call("host.model.stream_read", {"stream_id": ""})


async def test_an_expired_scope_opens_no_stream() -> None:
    """Upstream opens a dead one."""
    async with open_host() as host:
        async with host.services.scopes.open(ALICE) as scope:
            pass
        with pytest.raises(Refused, match="host_callback_id is unknown or has expired"):
            await host.call("host.model.execute_stream", asking(stream=True, host_callback_id=scope.id))
        got = await host.call("host.model.execute", asking(host_callback_id=scope.id))
        assert got["status_code"] == 200


async def stalled(host: Host, scope_id: str = "", *, generation: int = 0) -> str:
    """A stream whose provider has fallen silent after its first units, which were read."""
    headers = {"X-Mock-Fault": ["stall"], "X-Mock-At": [str(STALLED_UNITS)]}
    ask = asking(stream=True, headers=headers, host_callback_id=scope_id)
    head = await host.call("host.model.execute_stream", ask, generation=generation)
    for _ in range(STALLED_UNITS):
        await host.call("host.model.stream_read", {"stream_id": head["stream_id"]})
    return str(head["stream_id"])


@pytest.mark.parametrize("how", ["close", "scope", "owner"])
async def test_what_ends_a_stream_cancels_its_execution(how: str) -> None:
    """The provider's connection is closed, a blocked read answered, the execution counted as cancelled."""
    ended: list[tuple[str, Any]] = []
    entries: list[Registration] = [register(StageKind.REQUEST_COMPLETE, "bob", seen=ended)]
    async with open_host(registrations=entries) as host, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def read(stream_id: str) -> None:
            payload = json.dumps({"stream_id": stream_id}).encode()
            answers.append(json.loads(await host.services.handle(ALICE, b"host.model.stream_read", payload)))

        async with host.services.scopes.open(ALICE) as scope:
            stream_id = await stalled(host, scope.id if how == "scope" else "")
            nursery.start_soon(read, stream_id)
            await trio.testing.wait_all_tasks_blocked(0.01)
            if how == "close":
                await host.call("host.model.stream_close", {"stream_id": stream_id})
            elif how == "owner":
                host.services.close_owner(ALICE)
        await host.proxy.mock.wait_for(lambda mock: mock.active_responses == 0)
        await trio.testing.wait_all_tasks_blocked()
        assert host.open_streams == 0
        if how == "scope":
            assert answers[0]["error"]["http_status"] == 499
        else:
            assert answers[0]["result"] == {"payload": None, "error": "", "done": True}
        assert await read_all(host, stream_id) == ([], "")
    assert [call.outcome for _, call in ended] == [Outcome.CANCELED]


async def test_a_stream_without_scope_outlives_the_call() -> None:
    """It is the plugin's, until that copy of the plugin ends."""
    async with open_host() as host:
        async with host.services.scopes.open(ALICE):
            head = await host.call("host.model.execute_stream", asking(stream=True))
        units, error = await read_all(host, head["stream_id"])
        assert units
        assert not error
        old, new = await stalled(host, generation=1), await stalled(host, generation=2)
        host.services.close_owner(ALICE, generation=1)
        assert await read_all(host, old) == ([], "")
        assert len(host.services.model_streams) == 1
        await host.call("host.model.stream_close", {"stream_id": new})


async def test_an_execution_is_cancelled_with_its_scope() -> None:
    """The client left: the plugin's thread comes back with an error, the provider loses its client."""
    async with open_host() as host, trio.open_nursery() as nursery:

        async def ask(scope_id: str) -> None:
            headers = {"X-Mock-First-Byte": ["60000"]}
            with pytest.raises(Refused, match="canceled"):
                await host.call("host.model.execute", asking(headers=headers, host_callback_id=scope_id))

        async with host.services.scopes.open(ALICE) as scope:
            nursery.start_soon(ask, scope.id)
            nursery.start_soon(ask, scope.id)
            await host.proxy.mock.wait_requests(2)
        await host.proxy.mock.wait_for(lambda mock: mock.active_responses == 0)


async def test_blocked_reads_wake_within_ten_milliseconds() -> None:
    """Median of many, as the machine is shared."""
    times: list[float] = []
    async with open_host() as host:
        for _ in range(15):
            times.append(await wake_up_s(host))
    print(f"wake-up in ms: median {sorted(times)[7] * 1e3:.3f}, largest {max(times) * 1e3:.3f}")
    assert sorted(times)[7] < 0.01


async def wake_up_s(host: Host) -> float:
    """From the closing of a scope to the answer of a read that was blocked in it."""
    woken = 0.0

    async def read(stream_id: str) -> None:
        nonlocal woken
        with pytest.raises(Refused, match="canceled"):
            await host.call("host.model.stream_read", {"stream_id": stream_id})
        woken = trio.current_time()

    async with trio.open_nursery() as nursery, host.services.scopes.open(ALICE) as scope:
        nursery.start_soon(read, await stalled(host, scope.id))
        await trio.testing.wait_all_tasks_blocked(0.005)
        closed = trio.current_time()
    return woken - closed


async def test_streams_and_scopes_of_others_are_errors() -> None:
    """Even for those who know the ids."""
    async with open_host() as host, host.services.scopes.open(ALICE) as scope:
        for stream, method in ((False, "host.model.execute"), (True, "host.model.execute_stream")):
            with pytest.raises(Refused, match="another plugin"):
                await host.call(method, asking(stream=stream, host_callback_id=scope.id), plugin=BOB)
        ref = {"stream_id": await stalled(host, scope.id)}
        for method in ("host.model.stream_read", "host.model.stream_close"):
            with pytest.raises(Refused, match="another plugin"):
                await host.call(method, ref, plugin=BOB)


async def test_many_at_once() -> None:
    """Streams and executions of two plugins, under scopes and without."""
    async with open_host() as host:
        async with host.services.scopes.open(ALICE) as scope, trio.open_nursery() as nursery:

            async def ask(number: int) -> None:
                stream, scope_id = bool(number % 2), scope.id if number % 4 < 2 else ""
                members = asking(stream=stream, host_callback_id=scope_id)
                if stream:
                    head = await host.call("host.model.execute_stream", members)
                    units, error = await read_all(host, head["stream_id"])
                    assert len(units) > 2
                    assert not error
                else:
                    assert (await host.call("host.model.execute", members))["status_code"] == 200

            for number in range(60):
                nursery.start_soon(ask, number)
        assert host.open_streams == 0


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100])
async def test_a_storm_under_a_closing_scope_leaves_nothing(turns: int) -> None:
    """Whatever the calls are just doing: each of them gets an answer, nothing stays open."""
    async with open_host() as host, trio.open_nursery() as nursery:
        statuses: list[int] = []

        async def ask(scope_id: str) -> None:
            members = asking(stream=True, headers={"X-Mock-Chunks": ["50"]}, host_callback_id=scope_id)
            try:
                head = await host.call("host.model.execute_stream", members)
                await read_all(host, head["stream_id"])
                statuses.append(200)
            except Refused as exc:
                statuses.append(exc.error["http_status"])

        async with host.services.scopes.open(ALICE) as scope:
            for _ in range(25):
                nursery.start_soon(ask, scope.id)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            await host.proxy.mock.wait_for(lambda mock: mock.active_responses == 0)
            await trio.testing.wait_all_tasks_blocked()
        assert len(statuses) == 25
        assert set(statuses) <= {200, 410, 499}
        assert host.open_streams == 0
