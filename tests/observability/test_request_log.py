"""Which requests get a file, what it costs the others, and that nobody waits for the disk."""

import os
import threading
import timeit
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from cpa.observability.redact import KnownSecrets
from cpa.observability.request_log import (
    MEMORY_BYTES,
    NO_RECORD,
    LiveRecord,
    RequestLogs,
    RequestLogSettings,
    RequestRecord,
    open_request_logs,
)
from cpa.observability.request_log_file import RecordData

JSON = ((b"content-type", b"application/json"),)
PATH = "/v1/chat/completions"


def begin(logs: RequestLogs, method: str = "POST", path: str = PATH, trace_id: str = "a1b2c3d4") -> RequestRecord:
    return logs.begin(method=method, path=path, headers=JSON, trace_id=trace_id)


def run(record: RequestRecord, status: int, *, body: bytes = b"question", answer: bytes = b"answer") -> None:
    """One exchange with one attempt."""
    record.request_body(body)
    record.attempt(url="https://up", method="POST", headers=JSON, body=(body,), auth="label")
    record.attempt_response(status, JSON)
    record.attempt_body(answer)
    record.response(status, JSON)
    record.response_chunk(answer)
    record.finish(status)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


async def test_with_request_log_on_each_request_gets_a_file(tmp_path: Path) -> None:
    """Whatever its status; the file has all sections."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path, enabled=True, version="9")) as logs:
        for status, ident in ((200, "00000001"), (500, "00000002")):
            run(begin(logs, trace_id=ident), status)
    assert [name[:20] + name[-13:] for name in names(tmp_path)] == [
        "v1-chat-completions--00000001.log",
        "v1-chat-completions--00000002.log",
    ]
    text = (tmp_path / names(tmp_path)[0]).read_text()
    for part in (
        "=== API REQUEST 1 ===",
        "=== API RESPONSE 1 ===",
        "=== RESPONSE ===",
        "question",
        "answer",
        "Version: 9",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("status", "canceled", "expected"),
    [
        (200, False, 0),
        (302, False, 0),
        (399, False, 0),
        (400, False, 1),
        (500, False, 1),
        (499, False, 0),
        (500, True, 0),
    ],
)
async def test_with_request_log_off_only_errors_get_a_file(
    tmp_path: Path, status: int, canceled: bool, expected: int
) -> None:
    """Not 499, not what the client cancelled."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path)) as logs:
        record = begin(logs)
        record.request_body(b"question")
        record.response(status, JSON)
        record.response_chunk(b"answer")
        record.finish(status, canceled=canceled)
    assert len(names(tmp_path)) == expected
    assert all(name.startswith("error-v1-chat-completions-20") for name in names(tmp_path))


async def test_what_is_never_logged(tmp_path: Path) -> None:
    """Plain GET, management, and everything in commercial mode share one record that does nothing."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path, enabled=True)) as logs:
        for method, path in (
            ("GET", "/v1/models"),
            ("POST", "/v0/management"),
            ("PUT", "/v0/management/api-keys"),
            ("POST", "/management"),
            ("POST", "/management/x"),
        ):
            assert begin(logs, method, path) is NO_RECORD
        assert begin(logs, "POST", "/managementx").active
        assert begin(logs, "POST", "/v1/v0/management").active
        websocket = ((b"Upgrade", b"websocket"),)
        assert logs.begin(method="GET", path="/v1/responses", headers=websocket).active
        logs.configure(RequestLogSettings(directory=tmp_path, enabled=True, commercial=True))
        assert begin(logs) is NO_RECORD
    run(NO_RECORD, 500)
    NO_RECORD.attempt_error("text")
    NO_RECORD.websocket_message("client", b"x")
    assert names(tmp_path) == []


async def test_a_success_lets_its_buffers_go_when_it_starts(tmp_path: Path) -> None:
    """With request-log off a stream of an hour must not hold the request's body."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path)) as logs:
        record = begin(logs)
        assert isinstance(record, LiveRecord)
        record.request_body(b"x" * 100)
        assert len(record._data.body.chunks) == 1
        record.response(200, JSON)
        assert not record.active
        assert record._data.body.chunks == []
        run(record, 500)  # late reports do nothing
    assert names(tmp_path) == []


async def test_a_logged_success_costs_microseconds(tmp_path: Path) -> None:
    """With request-log off; generous, because the machine is shared."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path)) as logs:
        best = min(timeit.repeat(lambda: run(begin(logs), 200), number=200, repeat=5)) / 200
    assert best < 100e-6


async def test_the_newest_error_files_are_kept(tmp_path: Path) -> None:
    """Negative means ten."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path, error_files=3)) as logs:
        for number in range(8):
            run(begin(logs, trace_id=f"{number:08}"), 500)
    assert [name[-12:-4] for name in names(tmp_path)] == ["00000005", "00000006", "00000007"]
    assert RequestLogSettings(directory=tmp_path, error_files=-1).error_files == 10


async def test_all_attempts_and_errors_are_in_the_file(tmp_path: Path) -> None:
    """Two failed credentials and a success are three attempts."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path)) as logs:
        record = begin(logs, trace_id="")
        record.request_body(b"question")
        for number in (1, 2):
            record.attempt(url=f"https://up/{number}", method="POST", headers=JSON, body=(b"q%d" % number,), auth="a")
            record.attempt_response(429, JSON)
            record.attempt_body(b"slow down %d" % number)
        record.attempt(url="https://up/3", method="POST", headers=JSON, body=(b"q3",))
        record.attempt_error("connection refused")
        record.response(503, JSON)
        record.finish(503)
        record.finish(200)
    (name,) = names(tmp_path)
    text = (tmp_path / name).read_text()
    assert len(name.rpartition("-")[2]) == len("a1b2c3d4.log")
    for number in (1, 2):
        assert f"=== API RESPONSE {number} ===" in text
        assert f"slow down {number}" in text
    assert "=== API RESPONSE 3 ===" not in text
    assert "connection refused" in text
    assert text.rindex("Status: 503") > text.index("=== RESPONSE ===")


async def test_large_bodies_go_to_the_disk_and_are_cut_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With request-log on memory stays small and the file has a note; spools leave nothing behind."""
    limit = 5 * MEMORY_BYTES
    monkeypatch.setattr("cpa.observability.request_log.MAX_CAPTURE_BYTES", limit)
    piece = b"0123456789abcde\n" * 4096
    async with open_request_logs(RequestLogSettings(directory=tmp_path, enabled=True)) as logs:
        record = begin(logs)
        record.request_body(piece * 20)
        record.response(200, JSON)
        assert isinstance(record, LiveRecord)
        for _ in range(100):
            record.response_chunk(piece)
            await trio.lowlevel.checkpoint()
            assert record._data.response.memory_bytes <= MEMORY_BYTES + len(piece)
        record.finish(200)
        await logs.drain()
        assert len(names(tmp_path)) == 1
    text = (tmp_path / names(tmp_path)[0]).read_bytes()
    assert piece * 20 in text
    body = text.partition(b"=== RESPONSE ===")[2]
    assert (piece * 100)[:limit] in body
    lost = len(piece) * 100 - limit
    assert b"[truncated: %d of %d bytes not captured]" % (lost, len(piece) * 100) in body


async def test_error_answers_are_cut_at_one_mebibyte_in_memory(tmp_path: Path) -> None:
    """With request-log off nothing is spooled; the request's own buffers are references."""
    body = b"b" * (3 * MEMORY_BYTES)
    async with open_request_logs(RequestLogSettings(directory=tmp_path)) as logs:
        record = begin(logs)
        record.request_body(body)
        record.attempt(url="u", method="POST", headers=(), body=(body,))
        record.attempt(url="u", method="POST", headers=(), body=(b"translated" * MEMORY_BYTES,))
        assert isinstance(record, LiveRecord)
        assert record._data.attempts[0].body.chunks[0] is body
        assert record._data.attempts[1].body.memory_bytes == MEMORY_BYTES
        record.response(500, JSON)
        record.response_chunk(b"r" * (2 * MEMORY_BYTES))
        record.finish(500)
    text = (tmp_path / names(tmp_path)[0]).read_bytes()
    assert text.count(body) == 2
    assert b"[truncated: %d of %d bytes not captured]" % (MEMORY_BYTES, 2 * MEMORY_BYTES) in text


async def test_multipart_bodies_are_not_captured(tmp_path: Path) -> None:
    """They are files of users."""
    headers = ((b"Content-Type", b"multipart/form-data; boundary=x"),)
    async with open_request_logs(RequestLogSettings(directory=tmp_path)) as logs:
        record = logs.begin(method="POST", path=PATH, headers=headers, trace_id="a1b2c3d4")
        record.request_body(picture := b"picture" * 10)
        record.attempt(url="http://p", method="POST", headers=(), body=(picture,))
        record.finish(400)
    text = (tmp_path / names(tmp_path)[0]).read_text()
    assert "picture" not in text
    assert "[multipart body of 70 bytes not captured]" in text


async def test_websocket_messages_make_a_timeline(tmp_path: Path) -> None:
    """Both directions, in order."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path, enabled=True)) as logs:
        record = logs.begin(
            method="GET", path="/v1/responses", headers=((b"upgrade", b"websocket"),), transport="websocket"
        )
        record.response(101, ())
        record.websocket_message("client", b'{"type":"response.create"}')
        record.websocket_message("upstream", b'{"type":"response.created"}')
        record.finish(101)
    text = (tmp_path / names(tmp_path)[0]).read_text()
    assert "Downstream Transport: websocket" in text
    assert text.index("Event: client\n") < text.index("response.create") < text.index("Event: upstream\n")
    assert "=== RESPONSE ===" not in text


class Gate:
    """Holds the writer's thread until it is opened, as a slow disk would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        monkeypatch.setattr("cpa.observability.request_log.write_record", self.write)

    def write(self, record: RecordData, *, directory: Path, version: str, error: bool, secrets: KnownSecrets) -> Path:
        self.entered.set()
        assert self.open.wait(5)
        path = directory / f"{record.trace_id}.log"
        path.write_bytes(b"")
        return path


async def test_a_slow_disk_drops_records_and_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded; what does not fit is counted."""
    gate = Gate(monkeypatch)
    settings = RequestLogSettings(directory=tmp_path, enabled=True)
    async with open_request_logs(settings, max_jobs=3) as logs:
        run(begin(logs, trace_id="first"), 200)
        await trio.to_thread.run_sync(gate.entered.wait)
        for number in range(10):
            run(begin(logs, trace_id=f"next{number}"), 200)
        assert logs.dropped == 7
        gate.open.set()
    assert names(tmp_path) == ["first.log", "next0.log", "next1.log", "next2.log"]


async def test_the_queue_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few records may be large; a body that could not be spooled is cut where the gap begins."""
    monkeypatch.setattr("cpa.observability.request_log.MAX_QUEUED_BYTES", 4 * MEMORY_BYTES)
    gate = Gate(monkeypatch)
    async with open_request_logs(RequestLogSettings(directory=tmp_path, enabled=True)) as logs:
        run(begin(logs, trace_id="first"), 200)
        await trio.to_thread.run_sync(gate.entered.wait)
        record = begin(logs, trace_id="large")
        for _ in range(10):
            record.response_chunk(b"x" * (MEMORY_BYTES + 1))
        assert isinstance(record, LiveRecord)
        capture = record._data.response
        assert capture.full
        assert capture.kept_bytes == 3 * (MEMORY_BYTES + 1)
        assert capture.seen_bytes == 10 * (MEMORY_BYTES + 1)
        record.finish(200)
        gate.open.set()
    assert names(tmp_path) == ["first.log", "large.log"]


async def test_a_disk_that_refuses_costs_records_only(tmp_path: Path) -> None:
    """The directory is a file: counted, logged, and the next one is tried again."""
    blocked = tmp_path / "logs"
    blocked.write_bytes(b"")
    async with open_request_logs(RequestLogSettings(directory=blocked, enabled=True)) as logs:
        run(begin(logs, trace_id="00000001"), 200)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            while not logs.dropped:
                await trio.lowlevel.checkpoint()
        record = begin(logs, trace_id="00000002")
        for _ in range(3):
            record.response_chunk(b"x" * (2 * MEMORY_BYTES))
            await trio.testing.wait_all_tasks_blocked()
        os.unlink(blocked)
        record.finish(200)
        await logs.drain()
        assert logs.dropped == 1
    assert len(names(blocked)) == 1


async def test_cancellation_writes_what_is_queued(tmp_path: Path) -> None:
    """The last requests before the end are the interesting ones."""
    with trio.CancelScope() as scope:
        async with open_request_logs(RequestLogSettings(directory=tmp_path)) as logs:
            for number in range(5):
                run(begin(logs, trace_id=f"{number:08}"), 500)
            scope.cancel()
    assert len(names(tmp_path)) == 5
    run(begin(logs), 500)
    assert logs.dropped == 1


async def test_a_hung_disk_does_not_keep_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the grace time the rest is given up and counted."""
    gate = Gate(monkeypatch)
    with trio.fail_after(5):
        async with open_request_logs(RequestLogSettings(directory=tmp_path), close_grace_s=0.02) as logs:
            for number in range(4):
                run(begin(logs, trace_id=f"{number:08}"), 500)
            await trio.to_thread.run_sync(gate.entered.wait)
    assert logs.dropped == 3
    gate.open.set()


async def test_an_abandoned_record_leaves_no_spool(tmp_path: Path) -> None:
    """A request-log file that is dropped gives its descriptor back (an unclosed one fails this suite as a warning)."""
    async with open_request_logs(RequestLogSettings(directory=tmp_path, enabled=True), max_jobs=2) as logs:
        record = begin(logs)
        for _ in range(2):
            record.response_chunk(b"x" * (2 * MEMORY_BYTES))
            with trio.fail_after(5):
                while logs._queued_bytes:
                    await trio.lowlevel.checkpoint()
        assert isinstance(record, LiveRecord)
        assert record._data.response.spool is not None
        assert len(open_files(tmp_path)) == 1
        record._discard()
    assert names(tmp_path) == []
    assert open_files(tmp_path) == []


def open_files(directory: Path) -> list[str]:
    """Files below *directory*, nameless ones included, that this process holds open."""
    targets = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # one of them was that of the listing
            targets.append(os.readlink(f"/proc/self/fd/{number}"))
    return [target for target in targets if target.startswith(str(directory))]


async def test_canary_keys_never_reach_a_file(tmp_path: Path) -> None:
    """In every place that a request log has, shaped and home-made."""
    shaped, home = "sk-proj-CANARYopenaiCANARY0123456789", 'CANARY"home\\made§CANARY'
    secrets = KnownSecrets([home])
    async with open_request_logs(RequestLogSettings(directory=tmp_path, enabled=True), secrets=secrets) as logs:
        for number, key in enumerate((shaped, home)):
            raw = key.encode()
            headers = tuple(
                (name, value)
                for name in (b"authorization", b"x-api-key", b"cookie", b"set-cookie", b"x-other", b"referer", raw)
                for value in (raw, b"Bearer " + raw, b"a=" + raw, b"https://u:" + raw + b"@h/?key=" + raw)
            )
            record = logs.begin(
                method="POST", path=f"/v1/{key}", headers=headers, query=f"key={key}&x={key}", trace_id=f"{number:08}"
            )
            body = b'{"api_key":"%s","text":"my key is %s"}' % (raw, raw)
            record.request_body(body)
            url = f"https://user:{key}@host/p?key={key}#{key}"
            record.attempt(url=url, method="POST", headers=headers, body=(body,), auth=f"key {key}")
            record.attempt_response(401, headers)
            record.attempt_body(b"Incorrect key: " + raw[:9])
            record.attempt_body(raw[9:] + b".")
            record.attempt_error(f"401 for {key}; authorization: Bearer {key}")
            record.response(401, headers)
            record.response_chunk(body)
            if number:
                record.websocket_message(f"client {key}", body)
            record.finish(401)
    found = [name.encode() + (tmp_path / name).read_bytes() for name in names(tmp_path)]
    assert len(found) == 2
    for text in found:
        assert len(text) > 3000
        for canary in (shaped, home, shaped[3:], home[6:]):
            assert canary.encode() not in text
