"""Request bodies: codings, limits on size, ratio and time, and refusals that their clients get to read."""

import gzip
import json
import zlib
from collections.abc import Callable

import brotli
import pytest
import trio
import zstandard

from cpa.server import body as body_module
from cpa.server import listener
from tests.server.test_listener import SWEEP_S
from tests.server.wire import CHAT, FAIL_S, Serving, connect, head, post, serving

MIB = 1 << 20
SENT = CHAT.replace(b'"gpt"', b'"mock-gpt"')
PATHS = {
    "/v1/chat/completions": "gpt",
    "/v1/responses": "responses",
    "/v1/messages": "claude",
    "/v1beta/models/gemini:generateContent": "gemini",
}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, zstd": lambda data: zstandard.ZstdCompressor().compress(gzip.compress(data)),
    "identity, BR": brotli.compress,
}


def message_of(path: str, body: bytes) -> str:
    """The text of an error in the protocol of *path*, whose shape is checked."""
    found = json.loads(body)
    if path == "/v1/messages":
        assert found["type"] == "error"
        assert found["error"]["type"]
    elif path.startswith("/v1beta"):
        assert isinstance(found["error"]["code"], int)
        assert found["error"]["status"]
    else:
        assert found["error"]["type"]
    text = found["error"]["message"]
    assert isinstance(text, str)
    return text


@pytest.fixture(autouse=True)
def quick_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """See test_listener.py."""
    monkeypatch.setattr(listener, "SWEEP_S", SWEEP_S)


async def post_once(proxy: Serving, data: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    async with connect(proxy.url) as wire:
        await wire.send(data)
        reply = await wire.reply()
        return reply.status, reply.body


async def test_every_coding_is_undone_for_every_protocol() -> None:
    """Codex sends zstd, others what their HTTP library likes; providers get plain bodies."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for coding, pack in PACK.items():
                status, _ = await post_once(proxy, post(pack(CHAT), headers=[f"content-encoding: {coding}"]))
                assert status == 200, coding
                assert proxy.mock.requests[-1].body == SENT, coding
                assert proxy.mock.requests[-1].header(b"content-encoding") is None
            for path, model in PATHS.items():
                turn = {"messages": [{"role": "user", "content": "a"}], "contents": [{"parts": [{"text": "a"}]}]}
                body = json.dumps({"model": model, "input": "a", **turn}).encode()
                status, _ = await post_once(proxy, post(gzip.compress(body), path, headers=["content-encoding: gzip"]))
                assert status == 200, path


async def test_several_headers_are_one_list() -> None:
    """HTTP allows a list to be split over headers."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            packed = zstandard.ZstdCompressor().compress(gzip.compress(CHAT))
            headers = ["content-encoding: gzip", "content-encoding: zstd"]
            assert (await post_once(proxy, post(packed, headers=headers)))[0] == 200


@pytest.mark.parametrize("coding", ["compress", "gzip", "deflate", "br", "zstd", "gzip, unknown"])
async def test_wrong_label_on_json_is_forgiven(coding: str) -> None:
    """Some clients label plain bodies; the bytes already are what was meant."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            assert (await post_once(proxy, post(CHAT, headers=[f"content-encoding: {coding}"])))[0] == 200
            assert proxy.mock.requests[-1].body == SENT


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("coding", ["compress", "gzip", "zstd"])
async def test_garbage_in_a_coding_is_400_in_the_protocol(path: str, coding: str) -> None:
    """The client's library then shows the reason."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            status, body = await post_once(proxy, post(b"\x00garbage", path, headers=[f"content-encoding: {coding}"]))
            assert status == 400
            assert coding in message_of(path, body)
            truncated = PACK["zstd"](CHAT)[:-3]
            status, _ = await post_once(proxy, post(truncated, path, headers=["content-encoding: zstd"]))
            assert status == 400
            assert proxy.mock.total_requests == 0


@pytest.mark.parametrize("path", PATHS)
async def test_too_large_is_413_in_the_protocol_however_it_is_sent(path: str) -> None:
    """As declared, without anything being read; as chunks; and after decompression."""
    async with serving(extra="limits: {body-bytes: 100000}") as proxy:
        with trio.fail_after(FAIL_S):
            status, body = await post_once(proxy, head(path=path, length=100_001))
            assert status == 413
            assert "100000" in message_of(path, body)
            chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
            status, body = await post_once(proxy, head(path=path, headers=["transfer-encoding: chunked"]) + chunk * 4)
            assert status == 413
            assert "100000" in message_of(path, body)
            packed = gzip.compress(bytes(200_000))
            status, body = await post_once(proxy, post(packed, path, headers=["content-encoding: gzip"]))
            assert status == 413
            assert "100000" in message_of(path, body)
            await proxy.quiet()
            assert proxy.mock.total_requests == 0


async def test_body_of_exactly_the_limit_is_served() -> None:
    """The limit is what may be sent, not what may not."""
    async with serving(extra=f"limits: {{body-bytes: {len(CHAT)}}}") as proxy:
        with trio.fail_after(FAIL_S):
            assert (await post_once(proxy, post(CHAT)))[0] == 200
            assert (await post_once(proxy, post(CHAT + b" ")))[0] == 413


@pytest.mark.parametrize("coding", ["gzip", "deflate", "Deflate", "br", "zstd", "gzip, zstd"])
async def test_bombs_are_413(coding: str) -> None:
    """64 MiB of zeros in a few kilobytes: by size, and by ratio where the size would be allowed."""
    bomb = PACK[coding](bytes(64 * MIB))
    async with serving(extra="limits: {body-bytes: 8388608}") as proxy:
        with trio.fail_after(FAIL_S):
            assert (await post_once(proxy, post(bomb, headers=[f"content-encoding: {coding}"])))[0] == 413
    async with serving(extra="limits: {decompression-ratio: 50}") as proxy:
        with trio.fail_after(FAIL_S):
            assert (await post_once(proxy, post(bomb, headers=[f"content-encoding: {coding}"])))[0] == 413


async def test_decoding_leaves_the_loop_to_others() -> None:
    """A large compressed body is decoded in steps, between which other clients are served."""
    body = b'{"model":"gpt","messages":[{"role":"user","content":"' + b"abcdefgh" * (4 * MIB) + b'"}]}'
    packed = gzip.compress(body, 1)
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            longest = 0.0

            async def watch() -> None:
                nonlocal longest
                last = trio.current_time()
                while True:
                    await trio.lowlevel.checkpoint()
                    now = trio.current_time()
                    longest, last = max(longest, now - last), now

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                decoded = await body_module.decode(packed, "gzip", proxy.app.loaded.config.limits)
                nursery.cancel_scope.cancel()
            assert len(decoded) == len(body)
            assert longest < 0.2


async def test_413_is_readable_for_a_client_that_writes_everything_first() -> None:
    """Most HTTP libraries do not look at the answer before the body is out: a reset would hide the reason."""
    async with serving(extra="limits: {body-bytes: 1000}") as proxy:
        with trio.fail_after(FAIL_S):
            for declared in (True, False):
                async with connect(proxy.url) as wire:
                    data = bytes(8 * MIB)
                    if declared:
                        await wire.send(head(length=len(data)) + data)
                    else:
                        await wire.send(head(headers=["transfer-encoding: chunked"]))
                        await wire.send(b"%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n")
                    assert (await wire.reply()).status == 413
            await proxy.quiet()


async def test_413_is_readable_for_a_client_that_reads_early() -> None:
    """It need not send the rest: the answer is complete by its length and says that the connection ends."""
    async with serving(extra="limits: {body-bytes: 1000}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head(length=100 * MIB))
                reply = await wire.reply()
                assert reply.status == 413
                assert reply.headers["connection"] == "close"
            await proxy.quiet()


@pytest.mark.parametrize("key", [True, False], ids=["too large", "no key"])
async def test_endless_body_after_a_refusal_is_cut_off(key: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a refused client goes on sending is dropped within bounds of bytes and time, then it is disconnected."""
    monkeypatch.setattr(body_module, "LINGER_BYTES", 2 * MIB)
    monkeypatch.setattr(listener, "LINGER_BYTES", 2 * MIB)
    async with serving(extra="limits: {body-bytes: 100000}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head(headers=["transfer-encoding: chunked"], key=key))
                chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
                sent = 0
                with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - which of the sends it is, is open
                    while True:
                        await wire.send(chunk)
                        sent += 1
                        assert sent < 100
            await proxy.quiet()


async def test_silent_client_after_a_refusal_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for one that announces a body and sends nothing."""
    monkeypatch.setattr(body_module, "LINGER_S", 0.1)
    monkeypatch.setattr(listener, "LINGER_S", 0.1)
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head(length=100, key=False))
                assert (await wire.reply()).status == 401
                assert await wire.rest() == b""
            await proxy.quiet()


@pytest.mark.parametrize("path", PATHS)
async def test_slow_body_is_408_in_the_protocol(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has time in proportion to what came of it; a client that stops has not."""
    monkeypatch.setattr(body_module, "LINGER_S", 0.1)
    async with serving(extra="limits: {body-seconds: 0.1}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head(path=path, length=1000) + b'{"model":')
                reply = await wire.reply()
                assert reply.status == 408
                assert "9 bytes" in message_of(path, reply.body)
            await proxy.quiet()
            assert proxy.mock.total_requests == 0


async def test_steady_uploads_get_the_time_they_need() -> None:
    """Slow lines may upload: each 16 KiB buy another second."""
    async with serving(extra="limits: {body-seconds: 0.2}") as proxy:
        with trio.fail_after(FAIL_S):
            body = b'{"model":"gpt","messages":[{"role":"user","content":"' + b"a" * 65536 + b'"}]}'
            async with connect(proxy.url) as wire:
                await wire.send(head(length=len(body)))
                for start in range(0, len(body), 8192):
                    await wire.send(body[start : start + 8192])
                    await trio.sleep(0.05)
                assert (await wire.reply()).status == 200


async def test_client_that_leaves_in_its_body_reaches_no_provider() -> None:
    """Half a request is none, and nobody is there to be told."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for part in (b"", b'{"model":"gpt"', CHAT[:-1]):
                async with connect(proxy.url) as wire:
                    await wire.send(head(length=len(CHAT)) + part)
                await proxy.quiet()
            assert proxy.mock.total_requests == 0


NO_REQUESTS = (b"", b"[]", b'"text"', b"\xff\xfe")
NO_MODEL = (b"{", b'{"messages":[]}')
"""Where the model is in the path, the provider judges these."""


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (path, body)
        for path in PATHS
        for body in (NO_REQUESTS if path.startswith("/v1beta") else (*NO_REQUESTS, *NO_MODEL))
    ],
)
async def test_bodies_that_are_no_requests_are_400_in_the_protocol(path: str, body: bytes) -> None:
    """Whatever a client sends, it gets the reason in words that its library understands."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            status, answer = await post_once(proxy, post(body, path))
            assert status == 400
            assert message_of(path, answer)
            assert proxy.mock.total_requests == 0
