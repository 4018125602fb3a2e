"""Log lines have the contract's form and never carry a secret."""

import json
import logging
import re
from collections.abc import Iterator
from typing import TextIO

import msgspec
import pytest
import structlog
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpa.observability.log import DEBUG, INFO, LogFormat, configure_logging, get_logger, log_access, request_id
from cpa.observability.redact import KnownSecrets
from cpa.observability.sink import LogSink

HEAD = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[%s\] \[%s\] \[test_log\.py:\d+\] "
CANARIES = {
    "openai": "sk-proj-CANARYopenaiCANARY0123456789",
    "google": "AIzaCANARYgoogleCANARY0123456789abcdef",
    "home": "CANARYhomemadeCANARY",
    "odd": 'CANARY"odd\\CANARY§ü',
}


class Memory:
    """A destination that keeps everything."""

    def __init__(self) -> None:
        self.data = b""

    def write_nowait(self, data: bytes | memoryview) -> int:
        self.data += bytes(data)
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def wait_writable_blocking(self, timeout_s: float) -> None:
        pass

    def sweep(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> str:
        data, self.data = self.data, b""
        return data.decode()


@pytest.fixture
def memory() -> Iterator[Memory]:
    """Logging is global by nature: what a test sets up must be gone afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield Memory()
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


def set_up(memory: Memory, format: LogFormat = "console", *, debug: bool = False, secrets: object = ()) -> LogSink:
    sink = LogSink(memory)
    known = KnownSecrets(secrets if isinstance(secrets, tuple) else ())
    configure_logging(format=format, debug=debug, sink=sink, secrets=known)
    return sink


def test_console_lines_have_the_form_of_the_contract(memory: Memory) -> None:
    """The management API's log reader parses the head."""
    set_up(memory)
    log = get_logger(plugin="p")
    log.info("hello world", count=3, text="two words", empty="", ok=True, ratio=0.25, data={"a": [1]})
    line = memory.take()
    assert re.fullmatch(
        HEAD % ("--------", "info ")
        + re.escape('hello world plugin=p count=3 text="two words" empty="" ok=True ratio=0.25 data={"a":[1]}')
        + "\n",
        line,
    )


@pytest.mark.parametrize(
    ("method", "padded"), [("debug", "debug"), ("info", "info "), ("warning", "warn "), ("error", "error")]
)
def test_levels_are_padded_to_five(memory: Memory, method: str, padded: str) -> None:
    """Columns line up."""
    set_up(memory, debug=True)
    getattr(get_logger(), method)("x")
    assert re.fullmatch(HEAD % ("--------", padded) + "x\n", memory.take())


def test_json_lines_carry_time_level_event_and_request_id(memory: Memory) -> None:
    """One object per line; fields cannot overwrite ours."""
    set_up(memory, "json")
    request_id.set("a1b2c3d4")
    try:
        get_logger().warning("odd thing", level="high", nothing=None, raw=b"\xff", bad="\ud800")
    finally:
        request_id.set("")
    line = memory.take()
    record = json.loads(line)
    assert line.count("\n") == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("ts"))
    assert record.pop("caller").startswith("test_log.py:")
    assert record == {
        "level": "warn",
        "event": "odd thing",
        "request_id": "a1b2c3d4",
        "level_": "high",
        "nothing": None,
        "raw": "\\xff",
        "bad": "\\ud800",
    }


async def test_each_request_has_its_own_id(memory: Memory) -> None:
    """A context variable: tasks inherit it, neighbours do not see it."""
    set_up(memory)
    log = get_logger()

    async def serve(ident: str) -> None:
        request_id.set(ident)
        await trio.lowlevel.checkpoint()
        log.info("served", ident=ident)

    async with trio.open_nursery() as nursery:
        for ident in ("aaaaaaaa", "bbbbbbbb"):
            nursery.start_soon(serve, ident)
    log.info("served", ident="--------")
    lines = memory.take().splitlines()
    assert len(lines) == 3
    for line in lines:
        assert f"[{line[-8:]}]" in line


def test_debug_and_format_change_for_existing_loggers(memory: Memory) -> None:
    """A reload reaches loggers that modules made at import and have used since."""
    set_up(memory)
    log = get_logger()
    log.debug("unseen")
    assert not log.is_enabled_for(DEBUG)
    set_up(memory, "json", debug=True)
    log.debug("seen")
    assert log.is_enabled_for(INFO)
    assert json.loads(memory.take())["event"] == "seen"


def test_nothing_forges_a_line(memory: Memory) -> None:
    """Texts of strangers hold line ends, terminal sequences, quotes and direction marks."""
    set_up(memory)
    forged = '\n[2026-10-01 10:00:00] [--------] [info ] [a.py:1] forged\r\x1b[2J\u2028\u202e"x=1'
    get_logger().info("event" + forged, value=forged, **{"na\nme": "v"})
    try:
        raise ValueError(forged)
    except ValueError:
        get_logger().exception("failed")
    lines = memory.take().split("\n")
    assert len([line for line in lines if line.startswith("[")]) == 2
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028\u202e]", "".join(lines))


def test_tracebacks_follow_their_line(memory: Memory) -> None:
    """Indented on the console, one field in JSON; groups included."""

    def fail() -> None:
        raise ExceptionGroup("several", [ValueError("inner words"), KeyError("other")])

    for format in ("console", "json"):
        set_up(memory, "console" if format == "console" else "json")
        try:
            fail()
        except ExceptionGroup as exc:
            get_logger().error("failed", exc_info=exc)
        text = memory.take()
        assert "inner words" in text
        assert "in fail" in text
        assert all(line.startswith("    ") for line in text.splitlines()[1:])


def test_stdlib_records_come_too_from_warning_on(memory: Memory) -> None:
    """Libraries log by the standard module; info only when debugging."""
    logging.getLogger().handlers.clear()  # the test runner's raise for misused formats
    set_up(memory)
    logger = logging.getLogger("hypercorn.error")
    logger.info("quiet")
    logger.warning("bad %s", "thing")
    logger.error("wrong %s")
    logger.warning("misused %d", "text")
    lines = memory.take().splitlines()
    assert [line.split("] ")[-1] for line in lines] == [
        "bad thing logger=hypercorn.error",
        "wrong %s logger=hypercorn.error",
        "misused %d logger=hypercorn.error",
    ]
    set_up(memory, debug=True)
    logging.getLogger("httpx").info("HTTP Request: POST https://h/v1?key=%s", CANARIES["home"])
    assert "CANARYhomemade" not in (line := memory.take())
    assert "key=CANA...NARY" in line
    assert len([handler for handler in logging.getLogger().handlers if "Stdlib" in type(handler).__name__]) == 1


@pytest.mark.parametrize(
    ("status", "level"), [(200, "info "), (399, "info "), (404, "warn "), (499, "warn "), (500, "error")]
)
def test_access_lines(memory: Memory, status: int, level: str) -> None:
    """Status, latency, client, method, path with masked query."""
    set_up(memory)
    log_access(
        status=status, duration_s=0.0125, client="127.0.0.1", method="POST", path="/v1/x", query="key=abcdefghijkl&a=1"
    )
    assert re.fullmatch(
        HEAD % ("--------", level) + rf"request status={status} latency_ms=12\.5 client=127\.0\.0\.1 method=POST "
        r'path="/v1/x\?key=abcd\.\.\.ijkl&a=1"' + "\n",
        memory.take(),
    )


HOSTILE_TEXTS = st.one_of(
    st.sampled_from(
        [
            *("", "/v1/chat/completions", "127.0.0.1", "::1", "a b", '"quoted"', "back\\slash", "a=b", "[x]", "/a\nb"),
            *("\x1b[31m", "\u2028", "\u202e/x", "\ud800", "schlüssel", "a" * 600, "/" + "x" * 9000, "key=abcdefghijkl"),
            *(f"/{secret}" for secret in CANARIES.values()),
            *("Bearer abcdefghijklmnop", "http://user:pass-word@host/", "authorization: abcdefghijkl"),
        ]
    ),
    st.text(st.characters(codec=None), max_size=40),
)


@given(
    status=st.integers(100, 599),
    duration_s=st.floats(0, 1e7),
    texts=st.tuples(HOSTILE_TEXTS, HOSTILE_TEXTS, HOSTILE_TEXTS),
    format=st.sampled_from(["console", "json"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_access_lines_are_like_any_other(
    memory: Memory, status: int, duration_s: float, texts: tuple[str, str, str], format: LogFormat
) -> None:
    """They are put together in one go; what strangers wrote is escaped and hidden as everywhere."""
    set_up(memory, format, secrets=tuple(CANARIES.values()))
    client, method, path = texts
    token = request_id.set("0123abcd")
    try:
        log_access(status=status, duration_s=duration_s, client=client, method=method, path=path)
        found = memory.take()
        log = get_logger()
        write = log.info if status < 400 else log.warning if status < 500 else log.error
        latency_ms = round(duration_s * 1000, 3)
        write("request", status=status, latency_ms=latency_ms, client=client, method=method, path=path)
        expected = memory.take()
    finally:
        request_id.reset(token)
    moment, place = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{3}Z)?", r"test_log\.py:\d+"
    for varies in (moment, place):
        found, expected = (re.sub(varies, "…", text, count=1) for text in (found, expected))
    assert found == expected


def test_the_same_handlers_stay_for_others(memory: Memory) -> None:
    """Test runners hang their own handlers on the root logger; only plain stream handlers would write twice."""

    class Foreign(logging.StreamHandler[TextIO]):
        pass

    root = logging.getLogger()
    foreign, plain_handler = Foreign(), logging.StreamHandler()
    root.addHandler(foreign)
    root.addHandler(plain_handler)
    set_up(memory)
    assert foreign in root.handlers
    assert plain_handler not in root.handlers


def test_dropped_lines_are_reported_in_the_same_form(memory: Memory) -> None:
    """The note is a log line like any other."""
    sink = set_up(memory, "json")
    record = json.loads(sink.dropped_line(7))
    assert (record["level"], record["event"], record["count"]) == ("warn", "7 log lines dropped", 7)


class Holder:
    """A careless class: its repr shows the key."""

    def __init__(self, key: str) -> None:
        self.api_key = key

    def __repr__(self) -> str:
        return f"Holder(api_key={self.api_key!r})"


def log_everywhere(secret: str) -> None:
    """Put *secret* in every place of a log line that there is."""
    log = get_logger()
    log.info(f"event with {secret}")
    log.info(f"event with api_key={secret}")
    names = ["authorization", "api_key", "key", "token", "secret", "cookie", "password", "x_api_key", "refresh_token"]
    for name in [*names, "text", "headers", "url", "query", "body", "error", "value"]:
        log.info("values", **{name: secret})
        log.warning("values", **{name: secret.encode()})
        log.error("values", **{name: {"authorization": f"Bearer {secret}", secret: [secret, (secret, secret)]}})
        log.info("values", **{name: [("x-api-key", secret), (b"cookie", f"a={secret}".encode())]})
        log.info("values", **{name: ValueError(f"wrong key {secret}")})
        log.info("values", **{name: Holder(secret)})
    log.info(
        "urls", url=f"https://user:{secret}@host/path?key={secret}&x=1#token={secret}", proxy_url=f"socks5://{secret}@h"
    )
    log.info("bound", bound=structlog.get_logger().bind(api_key=secret)._context)
    get_logger(session_token=secret).info("bound")
    log_access(
        status=500, duration_s=1, client=secret, method=secret, path=f"/{secret}", query=f"key={secret}&{secret}"
    )
    try:
        try:
            raise KeyError(secret)
        except KeyError as exc:
            raise ExceptionGroup(secret, [ValueError(f"authorization: Bearer {secret}")]) from exc
    except ExceptionGroup:
        log.exception("failed")
    for logger in ("httpx", "hypercorn.error", "some.library"):
        logging.getLogger(logger).error("sent %s to https://h?key=%s", secret, secret, exc_info=ValueError(secret))


@pytest.mark.parametrize("format", ["console", "json"])
@pytest.mark.parametrize("many", [0, 100])
def test_canary_keys_never_appear_in_any_written_byte(memory: Memory, format: LogFormat, many: int) -> None:
    """Shaped keys, home-made ones, and one with quotes and backslashes; few and many of them."""
    known = tuple(CANARIES.values()) + tuple(f"unrelated-secret-{number}" for number in range(many))
    set_up(memory, format, debug=True, secrets=known)
    for secret in CANARIES.values():
        log_everywhere(secret)
    written = memory.take()
    assert len(written) > 20_000
    for secret in CANARIES.values():
        escaped = (msgspec.json.encode(secret).decode()[1:-1], repr(secret)[1:-1], json.dumps(secret)[1:-1])
        for form in (secret, secret[6:], *escaped):
            assert form not in written


@pytest.mark.parametrize("format", ["console", "json"])
def test_shaped_keys_need_not_be_known(memory: Memory, format: LogFormat) -> None:
    """Clients send keys that we never heard of."""
    set_up(memory, format)
    for name in ("openai", "google"):
        log_everywhere(CANARIES[name])
    written = memory.take()
    assert CANARIES["openai"] not in written
    assert CANARIES["google"] not in written
