"""Sessions beside the plain case: plugins, usage, request logs, HTTP/2, many at once, and nothing left of them."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import attrs
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
import trio.testing

from cpa.credentials.model import Credential
from cpa.errors import RawHeaders
from cpa.formats.names import Format
from cpa.pipeline.stage import (
    AuthCall,
    AuthResult,
    InterceptChunkCall,
    InterceptChunkResult,
    InterceptRequestCall,
    InterceptRequestResult,
    Registration,
    RouteCall,
    StageKind,
)
from cpa.server.websocket_turn import Turn
from cpa.types import Candidate, PluginId, UpstreamCall, Wire
from cpa.usage.record import UsageRecord
from tests.e2e.test_disconnects import alive
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy
from tests.server.wire import FAIL_S, connect, head, serving
from tests.server.ws_client import (
    UPGRADE,
    RawSocket,
    ask,
    close_code,
    create,
    events_of,
    frame,
    raw_socket,
    real_socket,
    settled,
    text_of,
    user,
)

PLUGIN = PluginId("tester")


def stage(kind: StageKind, function: object) -> Registration:
    """A stage in Python."""
    return Registration(kind=kind, plugin_id=PLUGIN, stage=function)  # type: ignore[arg-type]


async def test_stages_see_each_message_as_a_request() -> None:
    """Router, interceptors and chunks, once per turn, with the session's id; a warm-up is none of their business."""
    routed: list[RouteCall] = []
    chunks: list[InterceptChunkCall] = []

    async def route(call: RouteCall) -> None:
        routed.append(call)

    async def before(call: InterceptRequestCall) -> InterceptRequestResult:
        return InterceptRequestResult(body=call.body.replace(b"red", b"green"))

    async def chunk(call: InterceptChunkCall) -> InterceptChunkResult | None:
        chunks.append(call)
        return None

    stages = (
        stage(StageKind.MODEL_ROUTE, route),
        stage(StageKind.INTERCEPT_BEFORE, before),
        stage(StageKind.INTERCEPT_CHUNK, chunk),
    )
    async with running_proxy(registrations=stages) as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, model="claude", generate=False)
                assert not routed
                for text in ("red", "blue"):
                    assert (await ask(socket, user(text)))[-1]["type"] == "response.completed"
        assert [(call.source_format, call.requested_model, call.stream) for call in routed] == [
            ("openai-response", "claude", True)
        ] * 2
        ids = {call.execution.metadata["execution_session_id"] for call in routed}
        assert len(ids) == 1
        assert len({call.execution.trace_id for call in routed}) == 2
        assert all(name not in dict(routed[0].headers) for name in ("Upgrade", "Sec-Websocket-Key", "Connection"))
        assert chunks
        assert b"green" in proxy.mock.requests[0].body
        assert b"blue" in proxy.mock.requests[1].body


@pytest.mark.parametrize(
    ("status", "kind", "body", "told"),
    [
        (418, "text/plain", b"no tea", {"type": "error", "status": 418}),
        (403, "application/json", b'{"error":{"message":"policy","code":"p"}}', {"type": "error", "status": 403}),
        (200, "application/json", b'{"object":"response","id":"own","output":[]}', {"type": "response.completed"}),
        (200, "text/event-stream", b'data: {"type":"response.completed","response":{"id":"own"}}\n\n',
         {"type": "response.completed"}),
        (200, "text/plain", b"something", {"type": "error", "status": 502}),
    ],
    ids=["text", "json", "response", "stream", "neither"],
)  # fmt: skip
async def test_interceptors_that_answer_themselves(
    status: int, kind: str, body: bytes, told: dict[str, object]
) -> None:
    """In events, whatever they say; the session goes on."""

    turns = iter((True, False, False))

    async def before(call: InterceptRequestCall) -> InterceptRequestResult | None:
        if not next(turns):
            return None
        headers = {"Content-Type": [kind], "X-Why": ["because"]}
        return InterceptRequestResult(terminate=True, status_code=status, response_headers=headers, response_body=body)

    async with running_proxy(registrations=[stage(StageKind.INTERCEPT_BEFORE, before)]) as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                event = (await ask(socket, user("stop"), model="responses"))[-1]
                assert {name: event[name] for name in told} == told
                if event["type"] == "error":
                    assert event["error"]["message"]
                    assert event["headers"].get("x-why", "because") == "because"
                else:
                    assert event["response"]["id"] == "own"
                    await ask(socket, user("on"), previous_response_id="own")
                assert proxy.mock.total_requests == (0 if event["type"] == "error" else 1)
                events = await ask(socket, {"role": "assistant", "content": "x"}, user("go"), model="responses")
                assert events[-1]["type"] == "response.completed"


async def test_an_answer_without_a_last_event_is_an_error() -> None:
    """The client would wait for it for ever."""

    async def before(call: InterceptRequestCall) -> InterceptRequestResult:
        body = b'data: {"type":"response.created","response":{"id":"own"}}\n\n'
        headers = {"Content-Type": ["text/event-stream"]}
        return InterceptRequestResult(terminate=True, status_code=200, response_headers=headers, response_body=body)

    async with running_proxy(registrations=[stage(StageKind.INTERCEPT_BEFORE, before)]) as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                events = await ask(socket, user("a"), model="responses")
                assert [event["type"] for event in events] == ["response.created", "error"]
                assert events[-1]["status"] == 502
                assert await close_code(socket) == 1011


async def test_plugins_are_asked_who_the_client_is() -> None:
    """At the handshake, and for each message as for each request."""
    asked: list[AuthCall] = []

    async def who(call: AuthCall) -> AuthResult | None:
        asked.append(call)
        return AuthResult(principal="somebody") if "open" in call.query.get("door", []) else None

    async with running_proxy(registrations=[stage(StageKind.FRONTEND_AUTH, who)]) as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url, path="/v1/responses?door=open", key=None) as socket:
                assert (await ask(socket, user("a"), model="responses"))[-1]["type"] == "response.completed"
            assert [(call.method, bool(call.body)) for call in asked] == [("GET", False), ("POST", True)]
            async with connect(proxy.url) as wire:
                upgrade = (
                    "GET /v1/responses?door=shut HTTP/1.1\r\nhost: p\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                await wire.send(upgrade.encode())
                assert (await wire.reply()).status == 401


async def test_frames_sent_while_the_key_is_being_checked_are_an_error() -> None:
    """They cannot be read yet; a client that got no answer to them would wait for ever."""
    asked, answer = trio.Event(), trio.Event()

    async def who(call: AuthCall) -> AuthResult:
        asked.set()
        await answer.wait()
        return AuthResult(principal="somebody")

    async with serving(registrations=[stage(StageKind.FRONTEND_AUTH, who)]) as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head("GET", "/v1/responses", headers=UPGRADE, key=False))
                await asked.wait()
                await wire.send(frame(1, b"{}"))
                await trio.testing.wait_all_tasks_blocked(0.02)
                answer.set()
                socket = RawSocket(wire, await wire.head())
                assert socket.reply.status == 101
                assert (await socket.closed())[0] == 1002
            async with connect(proxy.url) as wire:  # and one that does not wait for the answer
                asked, answer = trio.Event(), trio.Event()
                await wire.send(head("GET", "/v1/responses", headers=UPGRADE, key=False))
                await asked.wait()
            answer.set()
            await settled(proxy)


async def test_warm_ups_are_on_the_bill_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record for every turn, of a warm-up one that generated nothing (proxy 7.3)."""
    async with running_proxy() as proxy:
        records: list[UsageRecord] = []

        async def sink(record: UsageRecord) -> None:
            records.append(record)
            arrived.set()

        arrived = trio.Event()
        accounts = proxy.app.state.runtime.services.accounts
        monkeypatch.setattr(accounts, "_current_sinks", lambda: [sink])
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a"), model="claude", generate=False)
                await arrived.wait()
                arrived = trio.Event()
                await ask(socket, user("b"))
                await arrived.wait()
        assert [(record.generate, record.alias, record.failed, record.provider) for record in records] == [
            (False, "claude", False, ""),
            (True, "claude", False, "claude"),
        ]
        assert records[0].tokens.total_tokens == 0
        assert records[1].tokens.total_tokens > 0
        assert {record.principal for record in records} == {CLIENT_KEY}


def logged(directory: Path) -> str:
    """What the request log says so far."""
    return "".join(path.read_text() for path in directory.rglob("v1-responses-*.log"))


async def test_request_logs_show_messages_in_their_order() -> None:
    """A file for each message, with a timeline instead of the response; keys are masked as ever."""
    async with running_proxy(extra="request-log: true") as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("find me"), model="responses")
            timeline = ""
            while "response.completed" not in timeline:  # a thread writes it, piece by piece
                await trio.sleep(0.01)
                text = logged(proxy.directory)
                timeline = text.partition("=== WEBSOCKET TIMELINE ===")[2]
        assert "Downstream Transport: websocket" in text
        assert "=== API REQUEST 1 ===" in text
        assert timeline.index("Event: request") < timeline.index("find me") < timeline.index("Event: response")
        assert CLIENT_KEY not in text


async def test_the_shape_of_events_over_http_2() -> None:
    """RFC 8441: the same session as one stream of a connection; its end is the stream's end."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                client = h2.connection.H2Connection(config=h2.config.H2Configuration(header_encoding="utf-8"))
                client.initiate_connection()
                fields = {
                    ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/v1/responses",
                    ":authority": "proxy", "sec-websocket-version": "13", "authorization": f"Bearer {CLIENT_KEY}",
                }  # fmt: skip
                client.send_headers(1, list(fields.items()))
                await wire.send(client.data_to_send())
                received, status, ended, asked = bytearray(), "", False, False
                while not ended:
                    for event in client.receive_data(await wire.stream.receive_some(65536)):
                        if isinstance(event, h2.events.ResponseReceived):
                            status = str(dict(cast("list[tuple[str, str]]", event.headers))[":status"])
                        elif isinstance(event, h2.events.DataReceived):
                            received += event.data
                            client.acknowledge_received_data(event.flow_controlled_length, 1)
                        elif isinstance(event, h2.events.StreamEnded):
                            ended = True
                    if status and not asked:
                        asked = True
                        client.send_data(1, frame(1, create()))
                    elif b"response.completed" in received and b"\x88" not in received[-4:]:
                        client.send_data(1, frame(8, b"\x03\xe8"))
                    await wire.send(client.data_to_send())
                assert status == "200"
                assert received.count(b'"response.created"') == 1
                assert received.endswith(b"\x88\x02\x03\xe8")
            await settled(proxy)
        assert not proxy.app.state.sockets._conversations


@attrs.define
class PluginAnswer:
    """What a plugin's executor streams."""

    units: tuple[bytes, ...]
    status: int = 200
    headers: RawHeaders = ()

    async def read(self) -> bytes:
        """Nobody asks for it."""
        raise NotImplementedError

    async def chunks(self) -> AsyncIterator[bytes]:
        """The units, cut as the plugin likes."""
        for unit in self.units:
            await trio.lowlevel.checkpoint()
            yield unit

    async def drain(self) -> None:
        """Nothing is left."""


@attrs.define(eq=False)
class PluginExecutor:
    """Plays a plugin's executor, and the only model there is."""

    speaks: Format
    units: tuple[bytes, ...]
    asked: list[bytes] = attrs.field(factory=list)

    def wire(self, client: Format) -> Wire:
        """See `Executor`."""
        return Wire(input=self.speaks, output=self.speaks, native=False)

    @asynccontextmanager
    async def open(self, call: UpstreamCall) -> AsyncIterator[PluginAnswer]:
        """See `Executor`."""
        self.asked.append(b"".join(call.body))
        yield PluginAnswer(self.units)

    def resolve(self, model: str, *, provider: str = "") -> tuple[Candidate, ...]:
        """See `ModelResolver`."""
        return (Candidate(credential=Credential(id="", provider="own", label="own"), model=model, executor=self),)

    def providers(self) -> tuple[str, ...]:
        """See `ModelResolver`."""
        return ("own",)


@pytest.mark.parametrize("speaks", [Format.OPENAI_RESPONSE, Format.OPENAI, Format.CLAUDE])
async def test_executors_of_plugins_serve_sessions(speaks: Format) -> None:
    """In the client's protocol, cut anywhere, or in another one; whole conversations reach them."""
    units = {
        Format.OPENAI_RESPONSE: (
            b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n',
            b'\ndata: {"type":"response.completed","response":{"id":"r","object":"response","output":[{"type":"mess',
            b'age","role":"assistant","content":[{"type":"output_text","text":"hello there"}]}]}}\n\n',
        ),
        Format.OPENAI: (
            b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hello there"}}]}',
            b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        ),
        Format.CLAUDE: tuple(
            f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            for event in (
                {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": {}}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello there"}},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
                {"type": "message_stop"},
            )
        ),
    }[speaks]
    executor = PluginExecutor(speaks, units)
    async with running_proxy() as proxy:
        runtime = proxy.app.state.runtime
        services = attrs.evolve(runtime.services, models=executor)
        proxy.app.state.runtime = attrs.evolve(runtime, services=services)
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                first = await ask(socket, user("one"), model="mine")
                assert first[-1]["type"] == "response.completed"
                assert "hello there" in json.dumps(first[-1])
                await ask(socket, user("two"), previous_response_id=first[-1]["response"]["id"])
    assert len(executor.asked) == 2
    places = [executor.asked[1].find(text) for text in (b"one", b"hello there", b"two")]
    assert -1 not in places
    assert places == sorted(places)


async def test_many_sessions_leave_nothing_behind() -> None:
    """Served at once, each with its own conversation; afterwards neither memory nor objects are held."""
    async with serving() as proxy:
        before = alive(Turn)

        async def one(number: int) -> None:
            async with real_socket(proxy.url) as socket:
                await ask(socket, user(f"n{number}n"), model="claude")
                events = await ask(socket, user("and?"))
                assert text_of(events)
                if number % 3 == 0:
                    await socket.send(create(model="claude").decode())
                    await socket.recv()  # and leaves in the middle

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(12):
                    nursery.start_soon(one, number)
            await settled(proxy)
        memory = proxy.app.state.sockets
        assert (memory.size_bytes, len(memory._conversations)) == (0, 0)
        assert alive(Turn) <= before
        followed = [request.body.decode() for request in proxy.mock.requests if b"and?" in request.body]
        whose = [re.findall(r"n([0-9]+)n", body) for body in followed]
        assert all(len(names) == 1 for names in whose)
        assert {names[0] for names in whose} == {str(number) for number in range(12)}


async def test_a_dropped_conversation_is_said_to_be_gone() -> None:
    """Memory for all sessions together is bounded; the client is asked for everything and may go on."""
    async with running_proxy() as proxy:
        proxy.app.state.sockets.max_bytes = 2000
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as one, real_socket(proxy.url) as two:
                first = await ask(one, user("a" * 1000), model="responses")
                await ask(two, user("b" * 1000), model="responses")
                for more in ({}, {"previous_response_id": first[-1]["response"]["id"]}):
                    [error] = await ask(one, user("c"), **more)
                    assert (error["status"], error["error"]["code"]) == (409, "previous_response_not_found")
                assert (await ask(one, user("c"), {"role": "assistant", "content": "d"}))[-1]["type"] == (
                    "response.completed"
                )
        assert proxy.app.state.sockets.size_bytes <= 2000


async def test_an_input_that_grows_beyond_the_limit_of_a_request_is_refused() -> None:
    """As over HTTP, 413; the session goes on."""
    async with running_proxy(extra="limits: {body-bytes: 20000}") as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a" * 15_000), model="responses")
                [error] = await ask(socket, user("b" * 15_000))
                assert (error["status"], error["error"]["code"]) == (413, "request_too_large")
                assert (await ask(socket, user("c")))[-1]["type"] == "response.completed"


async def test_a_reload_takes_effect_with_the_next_message() -> None:
    """Each message is served under the configuration of its moment, on the connection that there is."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            async with real_socket(proxy.url) as socket:
                await ask(socket, user("a"), model="responses")
                rebuild(proxy)
                assert (await ask(socket, user("b")))[-1]["type"] == "response.completed"
                assert len(json.loads(proxy.mock.requests[-1].body)["input"]) == 3


def rebuild(proxy: RunningProxy) -> None:
    """A new snapshot of the same configuration."""
    state = proxy.app.state
    state.runtime = proxy.app._builder.build(state.runtime.config)


async def test_cancelled_servers_end_their_sessions_at_once() -> None:
    """A second signal, or the end of the grace: nobody waits for a client's answer to a close."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy, "x-mock-first-byte: 600000") as socket:
                await socket.send(frame(1, create()))
                await proxy.mock.wait_requests(1)
                [connection] = proxy.connections
                connection.abort()
                await proxy.mock.requests[0].wait_closed_by_client()
                await settled(proxy)


async def test_answers_that_wait_for_a_slow_reader_are_whole() -> None:
    """A client that reads late gets every event."""
    async with running_proxy() as proxy:
        with trio.fail_after(FAIL_S):
            headers = {"x-mock-chunks": "60", "x-mock-chunk-bytes": "4000"}
            async with real_socket(proxy.url, headers=headers) as socket:
                await socket.send(create(model="claude").decode())
                await trio.testing.wait_all_tasks_blocked(0.05)
                events = await events_of(socket)
                numbers = [event["sequence_number"] for event in events]
                assert numbers == list(range(len(events)))
                assert len(text_of(events).encode()) == 60 * 4000
