"""What both transports do alike."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from cpa.abi.errors import (
    AbiMismatch,
    PluginClosed,
    PluginError,
    PluginLoadError,
    PluginReplyTooLarge,
    PluginRequestTooLarge,
)
from cpa.abi.transport import PluginReply, PluginTransport, TransportLimits, method_name
from cpa.config.schema import Isolation
from tests.abi.support import Compiler, Harness

MIB = 1024 * 1024


def text(reply: PluginReply) -> str:
    """Body of a successful reply."""
    assert reply.rc == 0
    return reply.body.decode()


async def balanced(plugin: PluginTransport) -> int:
    """Wait until every buffer is back (a worker frees after it has sent) and check the lengths; how many there were."""
    while True:
        allocated, freed, wrong = map(int, text(await plugin.call("stats", b"{}")).split())
        assert wrong == 0
        if allocated == freed:
            return allocated


@pytest.mark.parametrize(
    ("method", "payload", "rc", "body"),
    [
        ("echo", b"{}", 0, b"{}"),
        ("echo", b"", 0, b""),
        ("echo", b"x" * (3 * MIB), 0, b"x" * (3 * MIB)),
        ("rc", b"1error", 1, b"error"),
        ("rc", b"1", 1, b""),
        ("rc.negative", b"{}", -7, b""),
        ("nothing", b"{}", 0, b""),
        ("null.len", b"{}", 0, b""),
        ("no such method", b"{}", 1, b"unknown method"),
        ("host", b"echo\nhello", 0, b"0 hello"),
        ("host", b"echo", 0, b"0 "),
        ("edges", b"{}", 0, b"1 1 1 1 0 0 empty"),
    ],
)
async def test_a_call_returns_code_and_body_as_the_plugin_gave_them(
    plugin: Harness, library: Compiler, method: str, payload: bytes, rc: int, body: bytes
) -> None:
    """Interpreting them is for the layer above; edges of host.call are listed in behave.c."""
    async with plugin(library("behave")) as acme:
        assert await acme.call(method, payload) == PluginReply(rc=rc, body=body)
        assert acme.in_flight == 0


async def test_every_reply_is_freed_once_with_its_length(plugin: Harness, library: Compiler) -> None:
    """Also empty ones, failed ones and ones that are too large to be read (plugin-abi 1.10)."""
    async with plugin(library("behave"), limits=TransportLimits(max_body_bytes=MIB)) as acme:
        for method, payload in [("echo", b"12345"), ("echo", b""), ("rc", b"1x"), ("rc", b"1"), ("nothing", b"{}")]:
            await acme.call(method, payload)
        with pytest.raises(PluginReplyTooLarge) as caught:
            await acme.call("huge", b"{}")
        assert (caught.value.size_bytes, caught.value.limit_bytes) == (2**30, MIB)
        assert await balanced(acme) >= 5


async def test_calls_from_many_tasks_get_their_own_answers(plugin: Harness, library: Compiler) -> None:
    """Eight tasks, forty calls each, of sizes around those of the socket buffers."""
    sizes = [0, 1, 23, 24, 25, 4096, 65535, 65536, 65537, 300_000]

    async def talk(name: int) -> None:
        for size in sizes * 4:
            payload = b"%d:" % name + b"." * size
            assert (await acme.call("echo", payload)).body == payload

    async with plugin(library("behave")) as acme, trio.open_nursery() as nursery:
        for name in range(8):
            nursery.start_soon(talk, name)


async def test_calls_run_at_the_same_time(plugin: Harness, library: Compiler) -> None:
    """Eight calls wait in the host until the last one is there."""
    here = 0
    everybody = trio.Event()

    async def gather(method: bytes, payload: bytes) -> bytes:
        nonlocal here
        here += 1
        if here == 8:
            everybody.set()
        await everybody.wait()
        return payload

    async with plugin(library("behave"), handler=gather) as acme, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(acme.call, "host", b"gather")


async def test_a_plugin_calls_from_its_own_threads(plugin: Harness, library: Compiler) -> None:
    """Four hundred host calls from eight threads, each with its own answer."""
    async with plugin(library("behave")) as acme:
        assert text(await acme.call("storm", b"{}")) == "400"


@pytest.mark.parametrize("max_calls", [1, 256])
async def test_nested_calls_reach_any_depth(plugin: Harness, library: Compiler, max_calls: int) -> None:
    """call → host call → call of the same plugin, twenty deep: a call that waits for the host takes nobody's place."""

    async def nest(method: bytes, payload: bytes) -> bytes:
        depth = int(payload)
        if depth == 0:
            return b"bottom"
        return (await acme.call("host", b"nest\n%d" % (depth - 1))).body

    async with plugin(library("behave"), handler=nest, limits=TransportLimits(max_calls=max_calls)) as acme:
        assert text(await acme.call("host", b"nest\n20")) == "0 " * 21 + "bottom"


async def test_host_calls_work_after_the_call_has_returned(plugin: Harness, library: Compiler) -> None:
    """Executor streams work that way (plugin-abi 1.14)."""
    returned, done = trio.Event(), trio.Event()

    async def late(method: bytes, payload: bytes) -> bytes:
        if method == b"late":
            await returned.wait()
        else:
            assert payload == b"0"
            done.set()
        return b"{}"

    async with plugin(library("behave"), handler=late) as acme:
        await acme.call("late", b"{}")
        returned.set()
        await done.wait()


async def test_a_cancelled_call_is_abandoned_and_its_reply_dropped(plugin: Harness, library: Compiler) -> None:
    """The caller leaves at once, the plugin finishes when it likes, its buffer is freed all the same."""
    asked, release = trio.Event(), trio.Event()

    async def hold(method: bytes, payload: bytes) -> bytes:
        asked.set()
        await release.wait()
        return payload

    async with plugin(library("behave"), handler=hold) as acme:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(acme.call, "host", b"hold\nx")
                await asked.wait()
                scope.cancel()
        assert (acme.in_flight, acme.abandoned, acme.late_replies) == (1, 1, 0)
        (left,) = acme.left_behind()
        assert (left.method, left.started <= left.since <= trio.current_time()) == ("host", True)
        release.set()
        while acme.late_replies == 0:
            await acme.call("nothing", b"{}")
        assert (acme.in_flight, acme.abandoned, acme.late_replies) == (0, 0, 1)
        assert acme.left_behind() == ()
        assert await balanced(acme) >= 1


@pytest.mark.parametrize("lets_go", [True, False], ids=["returns", "hangs"])
async def test_a_cancelled_call_that_unwinds_waits_for_the_plugin_up_to_its_grace(
    plugin: Harness, library: Compiler, lets_go: bool
) -> None:
    """Whatever the plugin waits for in the host is let go first; one that hangs all the same is abandoned."""
    asked, release = trio.Event(), trio.Event()
    events: list[str] = []

    async def hold(method: bytes, payload: bytes) -> bytes:
        asked.set()
        await release.wait()
        return payload

    def unwind() -> float:
        events.append("unwind")
        if lets_go:
            release.set()
        return 30 if lets_go else 0.01

    async with plugin(library("behave"), handler=hold) as acme:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(acme.call, "host", b"hold\nx", unwind=unwind))
                await asked.wait()
                scope.cancel()
        assert scope.cancelled_caught
        assert events == ["unwind"]
        assert (acme.in_flight, acme.abandoned, acme.late_replies) == ((0, 0, 0) if lets_go else (1, 1, 0))
        release.set()
        while not lets_go and acme.late_replies == 0:
            await acme.call("nothing", b"{}")
        assert (acme.in_flight, acme.abandoned) == (0, 0)
        assert await balanced(acme) >= 1


async def test_a_call_that_is_cancelled_already_sends_nothing(plugin: Harness, library: Compiler) -> None:
    """Nothing to abandon, nothing to drop."""
    async with plugin(library("behave")) as acme:
        with trio.CancelScope() as scope:
            scope.cancel()
            await acme.call("echo", b"{}")
        assert scope.cancelled_caught
        assert (acme.in_flight, acme.abandoned) == (0, 0)
        assert text(await acme.call("most.inside", b"{}")) == "1"


async def test_a_closed_plugin_takes_no_calls(plugin: Harness, library: Compiler) -> None:
    """The text is the contract's; closing twice is fine."""
    async with plugin(library("behave")) as acme:
        await acme.aclose(5)
        assert acme.died.is_set()
        assert acme.death == "closed"
        with pytest.raises(PluginClosed, match=r"^plugin client is closed$") as caught:
            await acme.call("echo", b"{}")
        assert (caught.value.plugin_id, caught.value.http_status) == ("acme", 502)
        await acme.aclose(5)


async def test_closing_lets_running_calls_finish_without_the_host(plugin: Harness, library: Compiler) -> None:
    """Their host calls return 1, so that they can."""
    asked = trio.Event()

    async def never(method: bytes, payload: bytes) -> bytes:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError

    async def call() -> None:
        assert (await acme.call("host", b"never\nx")).body == b"1 "

    async with plugin(library("behave"), handler=never) as acme:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await asked.wait()
            await acme.aclose(5)
        assert acme.death == "closed"


async def test_shutdown_may_call_the_host(plugin: Harness, library: Compiler) -> None:
    """It is still answered then (plugin-abi 9.5)."""
    heard = []

    async def hear(method: bytes, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        heard.append(method)
        return b"{}"

    async with plugin(library("behave"), handler=hear) as acme:
        await acme.call("shutdown.call", b"{}")
        await acme.aclose(5)
        assert heard == [b"in.shutdown"]


@pytest.mark.parametrize("setup", ["hang", "shutdown.hang"])
async def test_closing_keeps_its_deadline(plugin: Harness, library: Compiler, setup: str) -> None:
    """A call or a shutdown() that hangs is killed or left behind, whatever the plugin wants."""

    async def wait() -> None:
        if setup == "hang":
            with pytest.raises(PluginClosed):
                await acme.call("hang", b"{}")
        else:
            await acme.call("shutdown.hang", b"{}")
            began.set()

    began = trio.Event()
    async with plugin(library("behave")) as acme:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            while setup == "hang" and text(await acme.call("most.inside", b"{}")) != "2":
                pass
            if setup == "shutdown.hang":
                await began.wait()
            await acme.aclose(0.1)
        assert acme.death is not None
        assert "did not end" in acme.death


async def test_leaving_the_block_under_cancellation_still_closes_in_order(plugin: Harness, library: Compiler) -> None:
    """The end is shielded: shutdown() runs."""
    heard = []

    async def hear(method: bytes, payload: bytes) -> bytes:
        heard.append(method)  # without a checkpoint: this nursery is cancelled too
        return b"{}"

    with trio.CancelScope() as scope:
        async with plugin(library("behave"), handler=hear) as acme:
            await acme.call("shutdown.call", b"{}")
            scope.cancel()
    assert acme.death == "closed"
    assert heard == [b"in.shutdown"]


async def test_sizes_are_limited_in_every_direction(plugin: Harness, library: Compiler) -> None:
    """Requests before they are sent, replies before they are read, host calls and their answers with return value 1."""

    async def large(method: bytes, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"x" * (101 if method == b"large" else 100)

    async with plugin(library("behave"), handler=large, limits=TransportLimits(max_body_bytes=100)) as acme:
        assert len((await acme.call("echo", b"x" * 100)).body) == 100
        with pytest.raises(PluginRequestTooLarge) as caught:
            await acme.call("echo", b"x" * 101)
        assert caught.value.size_bytes == 101
        with pytest.raises(PluginReplyTooLarge):
            await acme.call("host", b"fits")  # 100 bytes and the two of the return value
        assert text(await acme.call("host.size", b"100")) == "0"
        assert text(await acme.call("host.size", b"101")) == "1"
        assert text(await acme.call("host", b"large")) == "1 "
        assert plugin.log.of("transport") == ["answer of 101 bytes to a host call is too large: dropped"]


async def test_a_handler_that_fails_still_answers_the_plugin(plugin: Harness, library: Compiler) -> None:
    """The error goes to the nursery of the host calls, the plugin gets return value 1."""

    async def broken(method: bytes, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        raise LookupError("broken")

    async def use() -> None:
        async with plugin(library("behave"), handler=broken) as acme:
            with trio.CancelScope(shield=True):
                bodies.append((await acme.call("host", b"x")).body)
            await trio.sleep_forever()

    bodies: list[bytes] = []
    with pytest.raises(LookupError, match="broken"):
        await use()
    assert bodies == [b"1 "]


RETURNS_5, ABI_2, NULL_CALL, NULL_FREE, HANG, HANG_IN_DLOPEN, CALLS_HOST = 1, 2, 3, 4, 8, 9, 10


@pytest.mark.parametrize(
    ("case", "error", "expected"),
    [
        (RETURNS_5, PluginLoadError, "cliproxy_plugin_init returned 5"),
        (ABI_2, AbiMismatch, "plugin ABI version 2 is not supported"),
        (NULL_CALL, PluginLoadError, "plugin function table is incomplete"),
        (NULL_FREE, PluginLoadError, "plugin function table is incomplete"),
    ],
)
async def test_a_refused_init_is_shut_down_and_named(
    plugin: Harness, library: Compiler, case: int, error: type[PluginError], expected: str
) -> None:
    """Texts and order of plugin-abi 1.9; shutdown() runs, and may call the host."""
    heard = []

    async def hear(method: bytes, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        heard.append(method)
        return b"{}"

    with pytest.raises(error) as caught:
        async with plugin(library("starts", f"-DCASE={case}"), handler=hear):
            raise AssertionError
    assert type(caught.value) is error
    assert str(caught.value) == expected
    assert caught.value.plugin_id == "acme"
    assert heard == [b"stopped"]


def _missing(folder: Path) -> None:
    """No file at all."""


def _text_file(folder: Path) -> None:
    (folder / "x.so").write_text("not a library\n" * 100)


def _empty(folder: Path) -> None:
    (folder / "x.so").touch()


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "x.so")


def _folder(folder: Path) -> None:
    (folder / "x.so").mkdir()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_missing, "No such file or directory"),
        (_text_file, "invalid ELF header"),
        (_empty, "file too short"),
        (_fifo, "not a regular file"),
        (_folder, "not a regular file"),
    ],
)
async def test_what_is_no_library_is_refused(
    plugin: Harness, tmp_path: Path, make: Callable[[Path], None], expected: str
) -> None:
    """With the path of the file, not of its private copy."""
    make(tmp_path)
    with pytest.raises(PluginLoadError) as caught:
        async with plugin(str(tmp_path / "x.so")):
            raise AssertionError
    assert str(caught.value) == f"dlopen {tmp_path}/x.so: {expected}"


async def test_a_library_without_the_entry_point_is_refused(plugin: Harness, library: Compiler) -> None:
    """The loader's own words follow."""
    with pytest.raises(PluginLoadError) as caught:
        async with plugin(library("no_entry")):
            raise AssertionError
    assert str(caught.value) == "missing cliproxy_plugin_init: undefined symbol: cliproxy_plugin_init"


async def test_init_may_call_the_host(plugin: Harness, library: Compiler) -> None:
    """It should not, but must be answered (plugin-abi 1.9)."""
    heard = []

    async def hear(method: bytes, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        heard.append((method, payload))
        return b"{}"

    async with plugin(library("starts", f"-DCASE={CALLS_HOST}"), handler=hear) as acme:
        assert heard == [(b"from.init", b"{}")]
        await acme.call("x", b"{}")


@pytest.mark.parametrize("case", [HANG, HANG_IN_DLOPEN])
async def test_a_start_that_hangs_has_a_deadline(plugin: Harness, library: Compiler, case: int) -> None:
    """In init; and in a constructor of the library, but for inline plugins: that one would keep the loader's lock."""
    if plugin.isolation is Isolation.INLINE and case == HANG_IN_DLOPEN:
        return
    with pytest.raises(PluginLoadError, match=r"did not return within 0\.2 s$"):
        async with plugin(library("starts", f"-DCASE={case}"), limits=TransportLimits(start_s=0.2)):
            raise AssertionError


async def test_a_start_can_be_cancelled(plugin: Harness, library: Compiler) -> None:
    """The worker is gone, or the thread left behind; nobody waits."""
    with trio.move_on_after(0.2) as scope:
        async with plugin(library("starts", f"-DCASE={HANG}")):
            raise AssertionError
    assert scope.cancelled_caught


async def test_each_opening_is_an_instance_of_its_own(plugin: Harness, library: Compiler) -> None:
    """The same file twice shares nothing, unlike dlopen of one path (plugin-abi 9.1)."""
    path = library("behave")
    async with plugin(path) as first, plugin(path) as second:
        await first.call("echo", b"x")
        assert text(await first.call("stats", b"{}")).split()[0] == "1"
        assert text(await second.call("stats", b"{}")).split()[0] == "0"


async def test_the_file_may_be_overwritten_while_the_plugin_runs(
    plugin: Harness, library: Compiler, tmp_path: Path
) -> None:
    """What is mapped is a private copy."""
    copy = shutil.copy(library("behave"), tmp_path / "copy.so")
    async with plugin(str(copy)) as acme:
        os.truncate(copy, 0)
        assert text(await acme.call("storm", b"{}")) == "400"


@pytest.mark.parametrize("method", ["", "a\0b", "x" * 256])
async def test_impossible_method_names_are_the_callers_fault(plugin: Harness, library: Compiler, method: str) -> None:
    """They would not reach the plugin as they are."""
    async with plugin(library("behave")) as acme:
        with pytest.raises(ValueError, match="expected a method name"):
            await acme.call(method, b"{}")
        assert acme.in_flight == 0
    assert method_name("ä") == b"\xc3\xa4"


@pytest.mark.parametrize("limits", [{"max_body_bytes": 2**31}, {"max_calls": 0}, {"start_s": 0}, {"close_grace_s": -1}])
def test_limits_are_checked(limits: dict[str, int]) -> None:
    """Go plugins cut lengths to 31 bits; the rest would make no sense."""
    with pytest.raises(ValueError, match="must be"):
        TransportLimits(**limits)
