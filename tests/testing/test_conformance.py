"""The conformance kit on compiled plugins: one that does everything right, and one for each thing done wrong."""

import os
from pathlib import Path

import attrs
import pytest
import trio

from cpa.abi import methods, wire
from cpa.abi.codec import codec
from cpa.abi.envelope import decode_request
from cpa.abi.methods import PLUGIN_METHODS
from cpa.config.schema import Isolation
from cpa.testing.conformance import Check, Planned, Report, Settings, Verdict, check_plugin
from cpa.testing.conformance.bench import heap_checks
from cpa.testing.conformance.checks import descendants
from cpa.testing.conformance.requests import (
    OVERSIZED_BYTES,
    About,
    broken_requests,
    good_request,
    good_value,
    mistyped_requests,
    oversized_request,
)
from tests.testing.conformance_support import Compiler

RUN_S = 60.0
QUICK_S = 0.4
"""For plugins that hang: long enough for everything else on a busy machine."""
BOTH = tuple(Isolation)
ABOUT = About(
    plugin_id="acme",
    metadata=wire.PluginMetadata(name="acme", version="1", author="a", repository="r"),
    config_yaml=b"enabled: true\n",
)
SENT = [row for row in PLUGIN_METHODS if row.sent]


async def run(path: Path, *isolations: Isolation, timeout_s: float = 5.0) -> Report:
    with trio.fail_after(RUN_S):
        return await check_plugin(Settings(path=path, isolations=isolations or BOTH, timeout_s=timeout_s))


def failures(report: Report) -> list[tuple[str, str, str]]:
    """Method, name and text of the failed checks."""
    return [(check.method, check.name, check.got) for check in report.checks if check.verdict is Verdict.FAIL]


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", SENT, ids=lambda row: row.name)
def test_good_requests_are_messages_of_their_method(row: methods.Method[object, object]) -> None:
    """The host's own codec reads them, and their ids are where they belong."""
    value, data = good_value(row, ABOUT), good_request(row, ABOUT)
    assert type(value) is row.request
    assert decode_request(row, data) == value
    ids = codec(wire.CallIds).read(data)
    assert bool(ids.scope_id) == row.scoped
    assert bool(ids.stream_id) == row.streamed
    # An empty message would test nothing, except where there is nothing to say.
    assert (value == row.request()) == (row.request is wire.Empty)


@pytest.mark.parametrize("row", SENT, ids=lambda row: row.name)
def test_oversized_requests_are_good_ones_but_for_their_size(row: methods.Method[object, object]) -> None:
    """More than a megabyte."""
    data = oversized_request(row, ABOUT)
    assert len(data) > OVERSIZED_BYTES > 1_000_000
    assert type(decode_request(row, data)) is row.request


def test_bad_requests_are_bad() -> None:
    """None of them is what the host would send."""
    good = good_request(methods.REQUEST_NORMALIZE, ABOUT)
    broken = dict(broken_requests(good))
    assert good not in broken.values()
    assert len(broken) == 7
    mistyped = dict(mistyped_requests(good))
    assert set(mistyped) == {
        "FromFormat",
        "ToFormat",
        "Model",
        "Stream",
        "Body",
        "every member",
        "bytes that are not base64",
    }
    for name, data in mistyped.items():
        with pytest.raises(ValueError, match=r"cannot|base64|illegal|invalid"):
            decode_request(methods.REQUEST_NORMALIZE, data)
        assert data != good, name


def test_heap_checks_are_in_the_environment_only_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other children of this process are none of their business."""
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.delenv("MALLOC_CHECK_", raising=False)
    before = dict(os.environ)
    with heap_checks() as found:
        assert os.environ["MALLOC_PERTURB_"] == "165"
        assert found == ("MALLOC_CHECK_" in os.environ)
    assert dict(os.environ) == before


# --- a plugin that is right ------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Hearing:
    """An observer who remembers."""

    began_: list[tuple[Isolation, str, str]] = attrs.field(factory=list)
    methods: set[str] = attrs.field(factory=set)
    checks: list[Check] = attrs.field(factory=list)

    def began(self, planned: Planned, isolation: Isolation) -> None:
        """See `Observer`."""
        self.began_.append((isolation, planned.name, planned.method))

    def calling(self, method: str) -> None:
        """See `Observer`."""
        self.methods.add(method)

    def ended(self, check: Check) -> None:
        """See `Observer`."""
        self.checks.append(check)


@pytest.mark.parametrize("isolation", BOTH, ids=str)
async def test_a_good_plugin_passes_everything(kit_plugin: Compiler, isolation: Isolation) -> None:
    """Every method of the contract was driven, in every way, and the observer was told."""
    hearing = Hearing()
    with trio.fail_after(RUN_S):
        settings = Settings(path=kit_plugin(), isolations=(isolation,))
        report = await check_plugin(settings, observer=hearing)
    assert failures(report) == []
    assert report.ok
    expected_skips = {"nothing left over"} if isolation is Isolation.INLINE else set()
    assert {check.name for check in report.checks if check.verdict is not Verdict.PASS} == expected_skips
    assert report.plugin is not None
    assert report.plugin.capabilities == wire.SWITCHES
    assert (report.plugin.id, report.plugin.name, report.plugin.schema_version) == ("kit", "kit", 3)
    by_method: dict[str, set[str]] = {}
    for check in report.checks:
        by_method.setdefault(check.method, set()).add(check.name)
    for row in SENT:
        if row.capability:
            assert by_method[row.name] >= {
                "good request",
                "empty request",
                "broken request",
                "wrong types",
                "oversized request",
                "concurrent requests",
                "freed once",
            }
            assert {c.capability for c in report.checks if c.method == row.name} == {row.capability}
    assert {row.name for row in SENT} <= hearing.methods
    assert {"cliproxy_plugin_init", "shutdown()"} <= hearing.methods
    assert tuple(hearing.checks) == report.checks
    assert hearing.began_ == [(check.isolation, check.name, check.method) for check in report.checks]
    found = {check.name: check.got for check in report.checks}
    assert found["re-entrancy"].endswith("nested calls answered")
    assert "host.http.do, host.log, host.stream.close, host.stream.emit" in found["host calls"]


# --- plugins that are not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", BOTH, ids=str)
async def test_a_crash_names_signal_method_and_request_and_the_kit_goes_on(
    kit_plugin: Compiler, isolation: Isolation
) -> None:
    """Exactly one check fails, all others are made."""
    report = await run(kit_plugin("FEW", "SEGV_ON_BROKEN"), isolation)
    [(method, name, got)] = failures(report)
    assert (method, name) == ("request.normalize", "broken request")
    assert got.startswith("killed by signal 11 (SIGSEGV) in request.normalize")
    if isolation is Isolation.PROCESS:
        assert "(request: truncated JSON)" in got
    assert report.checks[-1].name in ("shutdown", "nothing left over")
    assert report.counts()[Verdict.PASS] > 70


@pytest.mark.parametrize("isolation", BOTH, ids=str)
async def test_a_hang_is_bounded_and_said(kit_plugin: Compiler, isolation: Isolation) -> None:
    """Checks that would only hang again are left out."""
    report = await run(kit_plugin("FEW", 'HANG_IN="usage.handle"'), isolation, timeout_s=QUICK_S)
    found = failures(report)
    assert {(method, name) for method, name, _ in found} == {
        ("usage.handle", name)
        for name in ("good request", "empty request", "broken request", "wrong types", "oversized request")
    }
    assert all(got.startswith(f"usage.handle did not return within {QUICK_S:g} s") for _, _, got in found)
    skipped = {check.name for check in report.checks if check.verdict is Verdict.SKIP and check.method}
    assert skipped == {"concurrent requests", "freed once"}


@pytest.mark.parametrize("isolation", BOTH, ids=str)
async def test_wrong_types_are_said_in_the_decoders_words(kit_plugin: Compiler, isolation: Isolation) -> None:
    """As the host would log them."""
    report = await run(kit_plugin("FEW", "WRONG_TYPE"), isolation)
    found = failures(report)
    assert {method for method, _, _ in found} == {"request.normalize"}
    assert all("decode plugin result request.normalize: Body: cannot unmarshal number" in got for _, _, got in found)


@pytest.mark.parametrize("isolation", BOTH, ids=str)
async def test_a_double_free_is_found_where_it_happens(kit_plugin: Compiler, isolation: Isolation) -> None:
    """After the reply was read and right."""
    report = await run(kit_plugin("FEW", "DOUBLE_FREE"), isolation)
    found = failures(report)
    assert {method for method, _, _ in found} == {"request.normalize"}
    [got] = [got for _, name, got in found if name == "good request"]
    assert "killed by signal 6 (SIGABRT)" in got
    assert "request.normalize" in got
    assert "free()" in got


@pytest.mark.parametrize("isolation", BOTH, ids=str)
async def test_leaving_the_process_in_shutdown_is_found_there_only(kit_plugin: Compiler, isolation: Isolation) -> None:
    """Although every copy ends so."""
    report = await run(kit_plugin("FEW", "EXIT_IN_SHUTDOWN=3"), isolation)
    assert failures(report) == [("", "shutdown", "exited with status 3 in shutdown()")]


@pytest.mark.parametrize("isolation", BOTH, ids=str)
async def test_a_shutdown_that_hangs_is_found_there_only(kit_plugin: Compiler, isolation: Isolation) -> None:
    """And is not waited for again and again."""
    report = await run(kit_plugin("FEW", "HANG_IN_SHUTDOWN"), isolation, timeout_s=QUICK_S)
    assert failures(report) == [("", "shutdown", f"shutdown() did not return within {QUICK_S:g} s")]


@pytest.mark.parametrize(
    ("switch", "method", "name", "got"),
    [
        (
            "FORGETFUL",
            "plugin.reconfigure",
            "reconfigure",
            "other capabilities: executor, management_api",
        ),
        ("FICKLE", "executor.identifier", "identifier stable", "changes: 'kit0', 'kit1', 'kit2'"),
        ("SILENT", "cpa.conformance.unknown", "unknown method", "decode plugin envelope"),
        ("SERIAL", "", "re-entrancy", "did not return within"),
        ("NO_CLOSE", "executor.execute_stream", "good request", "3 chunks emitted, but the stream was not closed"),
        ("RACE", "usage.handle", "concurrent requests", "killed by signal 6 (SIGABRT) in usage.handle"),
        ("LEAVE_CHILD", "", "nothing left over", "still running: process "),
        ("BAD_HOST_CALL", "", "host calls", "host.log: decode host log request: "),
        ("NO_AUTHOR", "plugin.register", "register", "plugin metadata are invalid: Author blank"),
        ('ABORT_IN="plugin.register"', "plugin.register", "register", "killed by signal 6 (SIGABRT) in plugin.regist"),
    ],
)
async def test_each_fault_is_found(kit_plugin: Compiler, switch: str, method: str, name: str, got: str) -> None:
    """In a check that says what it is."""
    report = await run(kit_plugin("FEW", switch), Isolation.PROCESS, timeout_s=QUICK_S)
    assert not report.ok
    [found] = [text for at, check, text in failures(report) if (at, check) == (method, name)]
    assert got in found
    if switch == "LEAVE_CHILD":
        for word in found.split("process ")[1:]:
            os.kill(int(word.strip(", ")), 9)  # ours: the kit only reports what it finds


async def test_what_cannot_be_loaded_is_one_failed_check(tmp_path: Path) -> None:
    """With the loader's words, in both isolations."""
    path = tmp_path / "kit.so"
    path.write_bytes(b"no library")
    report = await run(path)
    assert [(check.isolation, check.name, check.verdict) for check in report.checks] == [
        (isolation, "load", Verdict.FAIL) for isolation in BOTH
    ]
    assert all("dlopen" in check.got for check in report.checks)
    assert report.plugin is None


@attrs.define(eq=False)
class UntilCalled(Hearing):
    """Waits for a call of the plugin."""

    method: str = "plugin.register"
    called: trio.Event = attrs.field(factory=trio.Event)

    def calling(self, method: str) -> None:
        """See `Observer`."""
        if method == self.method:
            self.called.set()


@pytest.mark.parametrize("isolation", BOTH, ids=str)
async def test_a_run_that_is_cancelled_leaves_no_process(kit_plugin: Compiler, isolation: Isolation) -> None:
    """Although the plugin hangs."""
    settings = Settings(path=kit_plugin('HANG_IN="plugin.register"'), isolations=(isolation,), timeout_s=50)
    observer = UntilCalled()
    with trio.fail_after(RUN_S):
        async with trio.open_nursery() as nursery:

            async def check() -> None:
                await check_plugin(settings, observer=observer)

            nursery.start_soon(check)
            await observer.called.wait()
            nursery.cancel_scope.cancel()
    assert descendants(os.getpid()) == ()
