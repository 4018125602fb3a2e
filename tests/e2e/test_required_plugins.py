"""``on-error: fail``: no request passes by a plugin that is away; compiled plugins die, hang and talk nonsense."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from cpa.errors import RequiredPluginDown
from cpa.formats.names import Format
from tests.e2e.wire import CHAT, WIRES, Wire
from tests.proxy import RunningProxy, running_proxy

FAIL_S = 120
SOURCE = Path(__file__).parent / "plugins" / "frail.c"
HEADERS = Path("cpa/abi").absolute()
ABORT, HANG, NONSENSE, ERROR = range(4)
DOWN = str(RequiredPluginDown("frail"))


def build(target: Path, method: str, manner: int) -> None:
    """The plugin that fails in *method*."""
    defines = (f'-DFRAIL="{method}"', f"-DMANNER={manner}")
    command = ("gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-I{HEADERS}", *defines, str(SOURCE), "-o", str(target))
    subprocess.run(command, check=True, timeout=60)


@asynccontextmanager
async def proxy_with(
    folder: Path, method: str, manner: int = ABORT, *, settings: str = "on-error: fail", enabled: bool = True
) -> AsyncIterator[RunningProxy]:
    """A proxy with the plugin; an empty *method* = its library is missing."""
    if method:
        build(folder / "frail.so", method, manner)
    extra = f"""
plugins:
  enabled: {str(enabled).lower()}
  dir: {folder}
  configs:
    frail: {{enabled: true, {settings}}}
"""
    async with running_proxy(extra=extra) as proxy:
        yield proxy


def state_of(proxy: RunningProxy) -> str:
    """The plugin's."""
    [status] = [status for status in proxy.app.plugins.manager.states() if status.id == "frail"]
    return str(status.state)


def assert_refused(wire: Wire, answer: httpx.Response) -> None:
    """By the plugin's absence, which is named."""
    # Claude's clients know no 503: for them it is 529, overloaded.
    assert answer.status_code == (529 if wire.format is Format.CLAUDE else 503), answer.text
    assert DOWN in wire.error_of(answer.content)["message"]


@pytest.mark.parametrize(
    ("method", "manner"),
    [
        ("request.intercept_before", ABORT),
        ("request.intercept_after", ABORT),
        ("request.normalize", ABORT),
        ("request.normalize", HANG),
        ("request.intercept_before", NONSENSE),
    ],
)
async def test_a_request_that_the_plugin_did_not_see_goes_nowhere(tmp_path: Path, method: str, manner: int) -> None:
    """The provider gets nothing, whatever the client speaks."""
    settings = "on-error: fail, timeout: 0.5" if manner == HANG else "on-error: fail"
    wires = WIRES if manner == NONSENSE else (CHAT,)
    with trio.fail_after(FAIL_S):
        async with (
            proxy_with(tmp_path, method, manner, settings=settings) as proxy,
            proxy.client() as client,
        ):
            for wire in wires:
                for stream in (False, True):
                    answer = await wire.post(client, stream=stream, headers={})
                    if manner == NONSENSE:  # its own words, such as they are
                        assert answer.status_code >= 500
                    else:
                        assert_refused(wire, answer)
            assert proxy.mock.total_requests == 0


async def test_an_answer_that_the_plugin_did_not_see_reaches_nobody(tmp_path: Path) -> None:
    with trio.fail_after(FAIL_S):
        async with proxy_with(tmp_path, "response.intercept_after") as proxy, proxy.client() as client:
            assert_refused(CHAT, await CHAT.post(client, headers={}))
            assert proxy.mock.total_requests == 1


async def test_a_stream_whose_chunks_the_plugin_did_not_see_does_not_begin(tmp_path: Path) -> None:
    with trio.fail_after(FAIL_S):
        async with proxy_with(tmp_path, "response.intercept_stream_chunk") as proxy, proxy.client() as client:
            assert_refused(CHAT, await CHAT.post(client, stream=True, headers={}))


async def test_what_the_plugin_itself_says_is_what_the_client_hears(tmp_path: Path) -> None:
    with trio.fail_after(FAIL_S):
        async with proxy_with(tmp_path, "request.normalize", ERROR) as proxy, proxy.client() as client:
            answer = await CHAT.post(client, headers={})
            assert (answer.status_code, CHAT.error_of(answer.content)["message"]) == (451, "not today")
            assert proxy.mock.total_requests == 0


async def test_nothing_passes_while_it_starts_again_nor_once_it_is_fused(tmp_path: Path) -> None:
    """From the first crash to the fuse every single request is refused."""
    with trio.fail_after(FAIL_S):
        async with proxy_with(tmp_path, "request.intercept_before") as proxy, proxy.client() as client:
            while (state := state_of(proxy)) != "fused":
                assert state in ("registered", "restarting")
                assert_refused(CHAT, await CHAT.post(client, headers={}))
            assert_refused(CHAT, await CHAT.post(client, headers={}))
            assert_refused(CHAT, await CHAT.post(client, stream=True, headers={}))
            assert proxy.mock.total_requests == 0


@pytest.mark.parametrize("method", ["", "plugin.register"], ids=["no library", "fails to register"])
async def test_nothing_passes_when_it_could_not_be_loaded(tmp_path: Path, method: str) -> None:
    with trio.fail_after(FAIL_S):
        async with proxy_with(tmp_path, method, ERROR) as proxy, proxy.client() as client:
            assert state_of(proxy) in ("failed", "restarting")  # the folder's watch tries once more
            for wire in WIRES:
                assert_refused(wire, await wire.post(client, headers={}))
            assert (await client.get("/v1/models")).status_code == 200
            assert proxy.mock.total_requests == 0


async def test_it_passes_again_as_soon_as_the_library_is_there(tmp_path: Path) -> None:
    with trio.fail_after(FAIL_S):
        async with proxy_with(tmp_path, "") as proxy, proxy.client() as client:
            assert_refused(CHAT, await CHAT.post(client, headers={}))
            scratch = tmp_path / ".frail.part"
            build(scratch, "nothing", ABORT)
            scratch.rename(tmp_path / "frail.so")
            while state_of(proxy) != "registered":
                await trio.lowlevel.checkpoint()
            assert (await CHAT.post(client, headers={})).status_code == 200


@pytest.mark.parametrize("enabled", [False, True], ids=["plugins off", "skip"])
async def test_without_the_setting_or_without_plugins_requests_go_on(tmp_path: Path, enabled: bool) -> None:
    """The default is as it was, and switching plugins off is the operator's decision."""
    settings = "on-error: skip" if enabled else "on-error: fail"
    with trio.fail_after(FAIL_S):
        async with (
            proxy_with(tmp_path, "request.intercept_before", settings=settings, enabled=enabled) as proxy,
            proxy.client() as client,
        ):
            assert (await CHAT.post(client, headers={})).status_code == 200
