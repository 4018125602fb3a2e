"""The ring of requests: what is kept, for how long, and that nothing of it grows."""

import msgspec
import pytest

from cpa.errors import UpstreamTimeout
from cpa.formats.names import Format
from cpa.observability import live as module
from cpa.observability.live import Live, LiveRequest
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.stage import Outcome, Registration, StageKind
from cpa.types import Operation, PluginId, RequestId

BODY = b'{"model":"m"}'
REQUEST = ModelRequest(
    format=Format.CLAUDE, operation=Operation.GENERATE, model="m", stream=True, body=BODY, principal="secret-key"
)


async def nothing(call: object) -> None:
    """A stage."""


STAGE = Registration(kind=StageKind.REQUEST_NORMALIZE, plugin_id=PluginId("p"), stage=nothing)


def began(live: Live, name: str = "a") -> LiveRequest:
    """A request that is understood."""
    request = live.begin(name, "claude")
    assert request is not None
    request.understood(REQUEST)
    return request


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Monotonic seconds as the test says."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_the_last_requests_stay_and_running_ones_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENDED", 3)
    live = Live()
    slow = began(live, "slow")
    for number in range(5):
        began(live, f"r{number}").finished(200)
    found, _ = live.recent(limit=100)
    assert [request.id for request in found] == ["slow", "r2", "r3", "r4"]
    assert live.running == 1
    slow.finished(200)
    slow.finished(500)
    assert slow.status == 200
    assert live.running == 0
    assert live.series.chart(1).requests == 6


def test_what_is_not_understood_yet_is_not_shown() -> None:
    live = Live()
    request = live.begin("a", "claude")
    assert request is not None
    assert live.recent(limit=9)[0] == ()
    assert live.look("a") is None
    assert live.running == 1
    request.finished(401, "no")
    assert [one.state for one in live.recent(limit=9)[0]] == ["failed"]


def test_keys_and_secrets_do_not_get_into_summaries() -> None:
    live = Live(label=lambda key: key[:2] + "...", redact=lambda text: text.replace("hush", "*"))
    request = began(live)
    request.finished(502, "the provider said hush" + "x" * 5000)
    told = msgspec.json.encode(request.summary()).decode()
    assert "secret-key" not in told
    assert '"client":"se..."' in told
    assert "hush" not in told
    assert len(told) < 1000


@pytest.mark.parametrize(
    ("outcome", "error", "expected"),
    [
        (Outcome.SUCCEEDED, None, ("done", 200)),
        (Outcome.CANCELED, None, ("aborted", 499)),
        (Outcome.FAILED, UpstreamTimeout("late"), ("failed", 504)),
        (Outcome.FAILED, ValueError("x"), ("failed", 500)),
        (Outcome.REJECTED, None, ("failed", 500)),
    ],
)
def test_executions_of_plugins_are_shown_and_counted_apart(
    outcome: Outcome, error: BaseException | None, expected: tuple[str, int]
) -> None:
    """A chart shows what clients asked for; tokens are counted wherever they are used."""
    live = Live()
    request = live.begun(REQUEST, RequestId("e1"))
    assert request is not None
    request.trace.used(3, 4)
    request.ended(outcome, error)
    summary = request.summary()
    assert (summary.state, summary.status, summary.nested) == (*expected, True)
    chart = live.series.chart(1)
    assert (chart.requests, chart.input_tokens, chart.output_tokens) == (0, 3, 4)


def test_bodies_are_kept_for_those_who_watch_only(clock: list[float]) -> None:
    """Readers, and for half a minute those who looked at one; then all of them are let go."""
    live = Live()
    assert began(live).trace.room is None
    with live.read():
        kept = began(live, "kept")
        kept.trace.changed(STAGE, BODY, b"{}")
        kept.finished(200)
        assert live._kept_bytes == kept.trace.kept_bytes == len(BODY) + 2
    assert [live.watched] == [True]
    clock[0] += module.LOOK_S + 1
    assert [live.watched] == [False]
    began(live).finished(200)
    assert (live._kept_bytes, kept.trace.kept_bytes) == (0, 0)
    assert kept.trace.stage(STAGE).kept == []
    assert kept.trace.stage(STAGE).changed == 1
    live.look("kept")
    assert began(live).trace.room is not None


def test_kept_bodies_are_bounded_over_all_and_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 100)
    live = Live()
    with live.read():
        requests = []
        for number in range(4):
            request = began(live, str(number))
            request.trace.changed(STAGE, b"x" * 30, b"y" * 20)
            request.finished(200)
            requests.append(request)
        assert [request.trace.kept_bytes for request in requests] == [0, 0, 50, 50]
        assert live._kept_bytes == 100
        large = began(live)
        large.trace.changed(STAGE, b"x" * (2 << 20), b"")
        assert large.trace.kept_bytes == 0
        for _ in range(9):
            large.trace.changed(STAGE, b"x", b"y")
        assert (large.trace.stage(STAGE).changed, len(large.trace.stage(STAGE).kept)) == (10, 3)


async def test_a_reader_hears_of_what_comes_while_it_reads() -> None:
    live = Live()
    began(live).finished(200)
    with live.read() as reader:
        began(live, "b").finished(200)
        await reader.wait()
        taken, lost = reader.take()
        assert [msgspec.json.decode(one)["state"] for one in taken] == ["running", "done"]
        assert lost == 0
        assert reader.take() == ([], 0)
    began(live).finished(200)
    assert reader.take() == ([], 0)


def test_what_nobody_can_look_at_is_not_noted() -> None:
    live = Live(enabled=False)
    assert live.begin("a", "claude") is None
    assert live.begun(REQUEST, RequestId("e")) is None
    assert live.taps == ()
