"""The entry of all host calls: envelopes, limits, log lines, executor streams."""

import json
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from cpa.abi.methods import HOST_METHODS
from cpa.host import services as module
from cpa.host.scopes import Caller, InboundContext
from cpa.host.streams import QUEUED_CHUNKS, ExecutorStreamError
from cpa.observability.log import request_id
from cpa.types import TraceId
from tests.host.hosting import ALICE, BOB, Host, Refused, b64, open_host

CALLER = Caller(plugin_id=ALICE)


async def test_every_method_of_the_table_is_served() -> None:
    """Neither more nor less."""
    async with open_host() as host:
        assert {*host.services._waiting, *host.services._immediate} == set(HOST_METHODS)
        assert len(HOST_METHODS) == 15


@pytest.mark.parametrize("method", [b"host.magic", b"", b"\xff\xfe", b"plugin.register", b"HOST.LOG"])
async def test_unknown_methods(method: bytes) -> None:
    """Of any bytes."""
    async with open_host() as host:
        answer = json.loads(await host.services.handle(ALICE, method, b"{}"))
    text = f"unsupported host callback {method.decode('utf-8', 'replace')}".strip()
    assert answer == {"ok": False, "error": {"code": "host_call_failed", "message": text, "http_status": 400}}


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'"x"', b"\xff", b"7", b'{"stream_id":{}}', b"[" * 100_000])
async def test_garbage_gets_an_envelope(payload: bytes) -> None:
    """From every method; nothing rises into the transport."""
    async with open_host() as host:
        for name in HOST_METHODS:
            answer = json.loads(await host.services.handle(ALICE, name.encode(), payload))
            assert answer["ok"] is (name == "host.auth.list" and not payload) or payload == b'{"stream_id":{}}'
            if not answer["ok"]:
                assert answer["error"]["message"]


async def test_a_bug_of_ours_is_an_envelope_and_a_log_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin learns nothing of our insides."""
    async with open_host() as host:

        def broken(*_: object) -> object:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(host.services, "_immediate", {"host.log": broken})
        with capture_logs() as lines, pytest.raises(Refused, match="internal error") as caught:
            await host.call("host.log", {})
        assert caught.value.error == {"code": "host_call_failed", "message": "internal error", "http_status": 500}
        assert lines[0]["event"] == "host_call.crashed"
        assert lines[0]["plugin_id"] == "alice"


async def test_cancellation_is_the_transports() -> None:
    """It leaves `handle` as it is, and nothing stays behind."""
    async with open_host() as host:
        with trio.CancelScope() as scope:
            scope.cancel()
            await host.call("host.model.execute", {"entry_protocol": "openai", "model": "gpt", "body": b64(b"{}")})
        assert scope.cancelled_caught
        assert host.services.running(ALICE) == 0


async def test_calls_at_once_are_bounded_per_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many are refused, not queued; what cannot block is always served, or nothing could be given free."""
    monkeypatch.setattr(module, "MAX_HOST_CALLS", 3)
    async with open_host() as host, trio.open_nursery() as nursery:
        with host.services.executor_streams.open(CALLER) as stream:
            await stream.emit(b"x")
            await anext(stream)
            for _ in range(QUEUED_CHUNKS):
                await stream.emit(b"x")

            async def emit() -> None:
                with pytest.raises(Refused, match="is not open"):
                    await host.call("host.stream.emit", {"stream_id": stream.id, "payload": b64(b"y")})

            for _ in range(3):
                nursery.start_soon(emit)
            await trio.testing.wait_all_tasks_blocked()
            assert host.services.running(ALICE) == 3
            with pytest.raises(Refused, match="more than 3 host calls at once") as caught:
                await host.call("host.auth.list")
            assert caught.value.error["retryable"] is True
            assert await host.call("host.auth.list", plugin=BOB) == {"files": []}
            assert await host.call("host.stream.close", {"stream_id": stream.id}) == {}
    assert host.services.running(ALICE) == 0


# --- host.stream.* ---------------------------------------------------------------------------------------------------


async def test_emit_and_close() -> None:
    """What the plugin emits is what the consumer gets, also after the call has returned."""
    async with open_host() as host:
        with host.services.executor_streams.open(CALLER) as stream:
            for text in (b"one", b"two"):
                assert await host.call("host.stream.emit", {"stream_id": stream.id, "payload": b64(text)}) == {}
            assert await host.call("host.stream.emit", {"stream_id": stream.id}) == {}
            assert await host.call("host.stream.close", {"stream_id": stream.id}) == {}
            assert await host.call("host.stream.close", {"stream_id": stream.id}) == {}
            with pytest.raises(Refused, match=f"stream {stream.id} is not open"):
                await host.call("host.stream.emit", {"stream_id": stream.id, "payload": b64(b"x")})
            assert [chunk async for chunk in stream] == [b"one", b"two"]


@pytest.mark.parametrize("method", ["host.stream.emit", "host.stream.close"])
async def test_an_error_ends_the_stream(method: str) -> None:
    """A payload beside it is not delivered."""
    async with open_host() as host:
        with host.services.executor_streams.open(CALLER) as stream:
            await host.call("host.stream.emit", {"stream_id": stream.id, "payload": b64(b"one")})
            await host.call(method, {"stream_id": stream.id, "payload": b64(b"two"), "error": "backend vanished"})
            assert await anext(stream) == b"one"
            with pytest.raises(ExecutorStreamError, match="backend vanished"):
                await anext(stream)


@pytest.mark.parametrize(
    ("method", "members", "text"),
    [
        ("host.stream.emit", {}, "stream id is required"),
        ("host.stream.emit", {"stream_id": "3"}, "stream 3 is not open"),
        ("host.stream.emit", {"stream_id": "3", "error": "x"}, "stream 3 is not open"),
        ("host.stream.emit", {"stream_id": 3}, "decode stream emit request: "),
        ("host.stream.close", {"stream_id": 3}, "decode stream close request: "),
    ],
)
async def test_errors_of_executor_streams(method: str, members: Any, text: str) -> None:
    """With the contract's texts."""
    async with open_host() as host:
        with pytest.raises(Refused) as caught:
            await host.call(method, members)
        assert caught.value.error["message"].startswith(text)


@pytest.mark.parametrize("stream_id", ["", "3"])
async def test_closing_what_is_not_open_is_nothing(stream_id: str) -> None:
    """Contract."""
    async with open_host() as host:
        assert await host.call("host.stream.close", {"stream_id": stream_id}) == {}


async def test_executor_streams_of_others_are_errors() -> None:
    """Upstream does not look."""
    async with open_host() as host:
        with host.services.executor_streams.open(CALLER) as stream:
            for method in ("host.stream.emit", "host.stream.close"):
                with pytest.raises(Refused, match="another plugin"):
                    await host.call(method, {"stream_id": stream.id}, plugin=BOB)


async def test_the_end_of_a_plugin_ends_its_executor_streams() -> None:
    """Its clients must not wait for a dead worker."""
    async with open_host() as host:
        with host.services.executor_streams.open(CALLER) as stream:
            host.services.close_owner(ALICE, reason="killed by signal 9 (SIGKILL)")
            with pytest.raises(ExecutorStreamError, match="SIGKILL"):
                await anext(stream)


# --- host.log --------------------------------------------------------------------------------------------------------


async def logged(host: Host, members: Any) -> Any:
    """The line that `host.log` makes of *members*."""
    with capture_logs() as lines:
        assert await host.call("host.log", members) == {}
    (line,) = lines
    return line


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("info", "info"),
        ("WARN", "warning"),
        ("warning", "warning"),
        ("error", "error"),
        ("trace", "debug"),
        ("", "debug"),
        ("loud", "debug"),
    ],
)
async def test_log_levels(level: str, written: str) -> None:
    """Anything unknown is debug."""
    async with open_host() as host:
        line = await logged(host, {"level": level, "message": " ready ", "fields": {"models": 3, " ": 1}})
    assert line == {
        "event": "plugin.log",
        "log_level": written,
        "plugin_id": "alice",
        "message": "ready",
        "fields": {"models": 3},
    }


async def test_log_texts_are_bounded() -> None:
    """A plugin cannot fill the log by one call, nor name its fields as ours."""
    async with open_host() as host:
        fields = {"plugin_id": "bob", "event": "x", "exc_info": True} | {f"f{n}": n for n in range(100)}
        line = await logged(host, {"level": "info", "message": "x" * 100_000, "fields": fields})
        assert len(line["message"]) == module.MAX_LOG_CHARS
        assert len(line["fields"]) == module.MAX_LOG_FIELDS
        assert line["plugin_id"] == "alice"
        assert (await logged(host, {"level": "info", "message": "  "}))["message"] == "plugin log"


async def test_log_lines_belong_to_the_scopes_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of the request itself; a foreign scope is an error, an expired one nobody's request."""
    seen: list[str] = []

    class Log:
        def info(self, event: str, **fields: object) -> None:
            seen.append(request_id.get())

    context = InboundContext(trace_id=TraceId("0a0b0c0d"))
    async with open_host() as host, host.services.scopes.open(ALICE, context) as scope:
        with monkeypatch.context() as patch:
            patch.setattr(module, "log", Log())
            for scope_id in (scope.id, "", "gone"):
                await host.call("host.log", {"level": "info", "host_callback_id": scope_id})
        with pytest.raises(Refused, match="another plugin"):
            await host.call("host.log", {"host_callback_id": scope.id}, plugin=BOB)
    assert seen == ["0a0b0c0d", "", ""]
