"""The package that plugins in Go share: its own head as a plugin, and handlers that misbehave."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from cpa.abi import methods, wire
from cpa.abi.envelope import PluginCallError
from cpa.abi.kinds import B64
from cpa.abi.methods import Method
from cpa.config.schema import Isolation
from cpa.host.plugin import LivePlugin
from cpa.testing.conformance import Settings, Verdict, check_plugin
from tests.examples.building import EXAMPLES, HERE, ROOT, all_examples, install, languages_of
from tests.examples.hosting import FAIL_S, configuration
from tests.examples.test_frame import STANDARD
from tests.native.build import go_cache, needed
from tests.proxy import running_proxy

HEAD = EXAMPLES / "lib" / "go" / "plugin.go"
TRANSFORM = wire.RequestTransformRequest()
ANSWER = wire.ResponseTransformRequest(body=B64(b"x"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Go's, as for all other libraries of the session."""
    return go_cache(tmp_path_factory.getbasetemp())


def build(source: Path, target: Path, cache: str) -> Path:
    """A plugin of one file as if it stood among the examples."""
    overlay = target.with_suffix(".json")
    overlay.write_text(
        json.dumps({"Replace": {str(EXAMPLES / "here" / "go" / "main.go"): str(source)}}), encoding="utf-8"
    )
    go = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOWORK": "off", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "1"}
    command = [needed("go"), "build", "-buildmode=c-shared", "-ldflags=-s -w", f"-overlay={overlay}", "-o", str(target)]
    done = subprocess.run(
        [*command, "./here/go"],
        cwd=EXAMPLES,
        env={**os.environ, **go, "GOCACHE": cache},
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


async def test_the_plugin_in_its_head_is_one(tmp_path: Path, cache: str) -> None:
    """With a registration, which the head leaves out."""
    text = HEAD.read_text(encoding="utf-8").partition("// A whole plugin:")[2].partition("// MEMORY.")[0]
    source = tmp_path / "head.go"
    source.write_text(
        re.sub(r"^//\t?", "", text, flags=re.MULTILINE)
        + """
var registration = plugin.Registration{
    Metadata: plugin.Metadata{Name: "n", Version: "1", Author: "me", GitHubRepository: "https://example.org/n"},
    Capabilities: plugin.Capabilities{RequestNormalizer: true},
}
""",
        encoding="utf-8",
    )
    report = await check_plugin(Settings(path=build(source, tmp_path / "head.so", cache)))
    assert report.plugin is not None
    assert report.plugin.capabilities == ("request_normalizer",)
    wrong = [check for check in report.checks if check.verdict not in (Verdict.PASS, Verdict.SKIP)]
    assert not wrong, wrong


async def refused(plugin: LivePlugin, method: Method[Any, Any], request: object) -> PluginCallError:
    """How a call of it fails."""
    with pytest.raises(PluginCallError) as caught:
        await plugin.call(method, request)
    return caught.value


async def test_handlers_that_misbehave_cost_their_own_call(tmp_path: Path, cache: str) -> None:
    """Panics included, in the proxy's own process too; codes and statuses of errors arrive."""
    library = build(HERE / "misbehaving.go", tmp_path / "misbehaving.so", cache)
    for isolation in Isolation:
        folder = tmp_path / isolation
        folder.mkdir()
        install(library, folder, "misbehaving")
        extra = configuration(["misbehaving"], folder, isolation)
        with trio.fail_after(FAIL_S):
            async with running_proxy(extra=extra) as proxy, proxy.client(key=None) as anybody:
                [plugin] = proxy.app.plugins.manager.snapshot()
                [before] = proxy.app.plugins.manager.states()
                panicked = await refused(plugin, methods.REQUEST_TRANSLATE, TRANSFORM)
                assert str(panicked) == "panic: assignment to entry in nil map"
                assert str(await refused(plugin, methods.REQUEST_NORMALIZE, TRANSFORM)) == "that went wrong"
                assert "unsupported type: chan int" in str(await refused(plugin, methods.RESPONSE_TRANSLATE, ANSWER))
                denied = await refused(plugin, methods.SCHEDULER_PICK, wire.PickRequest())
                assert (str(denied), denied.reported_status) == ("not today", 418)
                assert (await plugin.call(methods.RESPONSE_NORMALIZE_AFTER, ANSWER)).body == b""
                large = wire.ResponseTransformRequest(body=B64(bytes(range(256)) * 20_000))
                assert (await plugin.call(methods.RESPONSE_NORMALIZE_BEFORE, large)).body == large.body.data
                for path in ("/none", "/status"):
                    assert (await anybody.get(f"/v0/resource/plugins/misbehaving{path}")).status_code == 404
                page = await plugin.call(methods.MANAGEMENT_HANDLE, wire.ManagementRequest())
                unknown, known, undecodable = page.body.decode().split("|")
                assert unknown == "host_call_failed: unsupported host callback host.no.such"
                assert known == "<nil>"
                assert undecodable.startswith("decode host.auth.list result: json: cannot unmarshal object")
                assert proxy.app.plugins.manager.states() == (before,)  # nothing crashed, nothing was restarted


def test_every_example_of_the_documents_is_there_in_go() -> None:
    """The standard ones in their three languages, four more and the page of model calls in Go only."""
    only = {"codex-service-tier", "host-callback-auth-files", "host-model-callback", "request-lifecycle", "scheduler"}
    written = {example.name for example in all_examples() if example.language == "go"}
    assert written == STANDARD | only
    assert all(languages_of(name) == ("go",) for name in only)


def test_the_go_lines_of_the_documents_work(tmp_path: Path, cache: str) -> None:
    """From the repository's root, and in the folder of the example."""
    for folder, package in ((ROOT, "./examples/plugin/simple/go"), (EXAMPLES / "host-model-callback" / "go", ".")):
        command = [needed("go"), "build", "-buildmode=c-shared", "-o", str(tmp_path / "plugin.so"), package]
        nothing_fetched = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOCACHE": cache}
        kept = {name: value for name, value in os.environ.items() if name not in {"GOWORK", "GOFLAGS"}}
        # A checkout that is somebody else's has no version that Go could stamp into the library.
        env = {**kept, **nothing_fetched, "GOFLAGS": "-buildvcs=false"}
        done = subprocess.run(command, cwd=folder, env=env, timeout=300, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "plugin.so").read_bytes().startswith(b"\x7fELF")
        (tmp_path / "plugin.so").unlink()


def test_everything_in_go_is_formatted() -> None:
    """As Go programmers expect it."""
    command = [needed("gofmt"), "-l", str(EXAMPLES), str(HERE)]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
