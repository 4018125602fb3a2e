"""What only the inline transport does."""

import os
import threading

import pytest
import trio

from cpa.abi.errors import PluginClosed, PluginLoadError
from cpa.abi.native import NativeLibrary
from cpa.abi.transport import TransportLimits
from cpa.config.schema import Isolation
from tests.abi.support import Compiler, Harness


@pytest.fixture
def inline() -> Harness:
    """Opens plugins inside this process."""
    return Harness(Isolation.INLINE)


def descriptors() -> list[str]:
    """What this process has open, without the one that lists it."""
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _alive(fd))


def _alive(fd: str) -> bool:
    try:
        os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return False
    return True


async def test_no_descriptor_stays(inline: Harness, library: Compiler) -> None:
    """The library cannot be unmapped; everything else is gone."""
    before = descriptors()
    async with inline(library("behave")) as acme:
        assert acme.pid == os.getpid()
        await acme.call("echo", b"{}")
    assert descriptors() == before


async def test_every_load_is_a_new_library(inline: Harness, library: Compiler) -> None:
    """Also when the copy gets a descriptor whose number an earlier copy had: each has counted its own calls only."""
    path = library("behave")
    before = descriptors()
    for _ in range(50):
        async with inline(path) as acme:
            assert (await acme.call("stats", b"{}")).body == b"0 0 0"
            assert (await acme.call("stats", b"{}")).body == b"1 1 0"
    assert descriptors() == before


async def test_a_hung_call_leaves_its_thread_behind(inline: Harness, library: Compiler) -> None:
    """The caller goes at once; the plugin stays usable."""
    async with inline(library("behave"), limits=TransportLimits(close_grace_s=0)) as acme:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(acme.call, "hang", b"{}")
                while (await acme.call("most.inside", b"{}")).body != b"2":
                    pass
                scope.cancel()
        assert (acme.in_flight, acme.abandoned) == (1, 1)
        assert (await acme.call("echo", b"still")).body == b"still"
    assert acme.in_flight == 1


async def test_killing_is_not_possible_and_says_so(inline: Harness, library: Compiler) -> None:
    """The manager may try."""
    async with inline(library("behave")) as acme:
        acme.kill("hangs")
        assert inline.log.of("transport") == ["cannot be killed inside the proxy: hangs"]
        await acme.call("echo", b"{}")


def test_a_load_that_comes_too_late_is_shut_down(library: Compiler) -> None:
    """Its opener gave up: init is completed, then shutdown() runs, and no call gets in or out."""
    refused = NativeLibrary(plugin_id="acme", max_body=1000)
    refused.end()
    with pytest.raises(PluginLoadError, match="cliproxy_plugin_init returned 1"):  # what its host call returned
        refused.load(library("starts", "-DCASE=10").encode())
    late = NativeLibrary(plugin_id="acme", max_body=1000)
    late.end()
    late.load(library("behave").encode())
    with pytest.raises(PluginClosed):
        late.call(b"echo", b"{}")


def test_host_calls_of_an_ended_library_are_forgotten(library: Compiler) -> None:
    """What was in the queue is freed, and the descriptor is closed once."""
    native = NativeLibrary(plugin_id="acme", max_body=1000)
    native.load(library("behave").encode())
    replies: list[tuple[int, bytes]] = []
    caller = threading.Thread(target=lambda: replies.append(native.call(b"host", b"x\ny")))
    caller.start()
    poller = os.fdopen(os.dup(native.wake_fd), "rb", buffering=0)
    with poller:
        os.set_blocking(poller.fileno(), True)
        poller.read(8)
        native.end()
    caller.join(10)
    assert replies == [(0, b"1 ")]
    assert native.next_host_call() is None
    native.answer(1, 0, b"too late")
    native.end()
