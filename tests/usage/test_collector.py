"""Delivery of records: in order, apart from requests, bounded, and flushed at the end."""

from collections.abc import Callable

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from cpa.errors import CpaError
from cpa.formats.names import Format
from cpa.usage.collector import FLUSH_S, Sink, UsageCollector, open_collector
from cpa.usage.record import UsageRecord
from tests.usage.support import CREDENTIAL, record

FAIL_S = 120


def into(told: list[str], name: str = "") -> Sink:
    """A sink that notes ids."""

    async def sink(item: UsageRecord) -> None:
        await trio.lowlevel.checkpoint()
        told.append(name + item.request_id)

    return sink


def failing(error: Callable[[], BaseException]) -> Sink:
    """A sink that always raises."""

    async def sink(item: UsageRecord) -> None:
        await trio.lowlevel.checkpoint()
        raise error()

    return sink


def slow(told: list[str], seconds: float) -> Sink:
    """A sink that takes its time."""

    async def sink(item: UsageRecord) -> None:
        await trio.sleep(seconds)
        told.append(item.request_id)

    return sink


async def hang(item: UsageRecord) -> None:
    """A sink that never returns."""
    await trio.sleep_forever()


async def test_sinks_are_told_in_order_one_after_the_other() -> None:
    """Every record reaches every sink before the next record reaches any."""
    told: list[str] = []
    with trio.fail_after(FAIL_S):
        async with open_collector(lambda: (into(told, "a"), into(told, "b"))) as collector:
            for number in range(3):
                collector.submit(record(number))
            assert told == []
    assert told == ["ar0", "br0", "ar1", "br1", "ar2", "br2"]
    assert (collector.dropped, len(collector)) == (0, 0)


async def test_records_are_delivered_while_the_program_runs() -> None:
    """Not only at its end."""
    told: list[str] = []
    with trio.fail_after(FAIL_S):
        async with open_collector(lambda: (into(told),)) as collector:
            for number in range(3):
                collector.submit(record(number))
                await trio.testing.wait_all_tasks_blocked()
                assert told == [f"r{index}" for index in range(number + 1)]
                assert len(collector) == 0


async def test_without_sinks_nothing_is_wanted_nor_kept() -> None:
    """They come and go while the collector runs."""
    told: list[str] = []
    sinks: list[Sink] = []
    with trio.fail_after(FAIL_S):
        async with open_collector(lambda: sinks) as collector:
            wanted = [collector.wanted]
            collector.submit(record(0))
            assert len(collector) == 0
            sinks.append(into(told))
            wanted.append(collector.wanted)
            collector.submit(record(1))
            await trio.testing.wait_all_tasks_blocked()
            sinks.clear()
            collector.submit(record(2))
    assert wanted == [False, True]
    assert (told, collector.dropped) == (["r1"], 0)


async def test_a_sink_that_fails_costs_nobody_else_anything() -> None:
    """Errors, bugs and groups of them are logged and passed over."""
    told: list[str] = []
    sinks = (
        failing(lambda: CpaError("plugin acme is gone")),
        failing(lambda: KeyError("bug")),
        failing(lambda: ExceptionGroup("several", [ValueError()])),
        into(told),
    )
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_collector(lambda: sinks) as collector:
            collector.submit(record(0))
            collector.submit(record(1))
    assert told == ["r0", "r1"]
    assert [(line["event"], line["request_id"], line["log_level"]) for line in lines] == [
        ("usage.not_delivered", f"r{number}", level) for number in (0, 1) for level in ("warning", "error", "error")
    ]
    assert lines[0]["error"] == "plugin acme is gone"
    assert isinstance(lines[1]["exc_info"], KeyError)


async def test_a_full_queue_drops_the_oldest_and_says_so_once(autojump_clock: trio.testing.MockClock) -> None:
    """A line each time that it begins to drop, a counter for the rest."""
    told: list[str] = []
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_collector(lambda: (slow(told, 1),), max_queued=3) as collector:
            collector.submit(record(0))
            await trio.testing.wait_all_tasks_blocked()  # the first is on its way, three may wait
            for number in range(1, 9):
                collector.submit(record(number))
            assert (len(collector), collector.dropped) == (4, 5)
            assert [line["event"] for line in lines] == ["usage.dropped"]
            assert lines[0]["log_level"] == "error"
            await trio.sleep(10)
            assert told == ["r0", "r6", "r7", "r8"]
            for number in range(10, 15):
                collector.submit(record(number))
            assert [line["event"] for line in lines] == ["usage.dropped"] * 2
            await trio.sleep(10)
    assert told[4:] == ["r12", "r13", "r14"]
    assert collector.dropped == 7


async def test_the_end_waits_for_what_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """As long as it takes, within the limit."""
    told: list[str] = []
    started = trio.current_time()
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_collector(lambda: (slow(told, 1),)) as collector:
            for number in range(4):
                collector.submit(record(number))
    assert told == ["r0", "r1", "r2", "r3"]
    assert trio.current_time() - started == pytest.approx(4)
    assert (collector.dropped, lines) == (0, [])


async def test_a_stuck_sink_cannot_hold_the_program(autojump_clock: trio.testing.MockClock) -> None:
    """What was lost is said, the record that was being delivered included."""
    started = trio.current_time()
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_collector(lambda: (hang,)) as collector:
            for number in range(4):
                collector.submit(record(number))
            await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() - started == pytest.approx(FLUSH_S)
    assert collector.dropped == 4
    assert [(line["event"], line["records"]) for line in lines] == [("usage.lost", 4)]


async def test_cancellation_around_it_does_not_lose_records(autojump_clock: trio.testing.MockClock) -> None:
    """Neither that of the request that submits, nor that of the program."""
    told: list[str] = []
    with trio.fail_after(FAIL_S), trio.CancelScope() as program:
        async with open_collector(lambda: (slow(told, 1),)) as collector:
            with trio.CancelScope() as request:
                request.cancel()
                try:
                    await trio.lowlevel.checkpoint()
                finally:
                    collector.submit(record(0))
            await trio.sleep(0.5)
            collector.submit(record(1))
            program.cancel()
            await trio.sleep_forever()
    assert program.cancelled_caught
    assert (told, collector.dropped) == (["r0", "r1"], 0)


async def test_cancellation_before_the_worker_has_begun_does_not_lose_records() -> None:
    """The shortest life of a program."""
    told: list[str] = []
    with trio.fail_after(FAIL_S), trio.CancelScope() as program:
        program.cancel()
        async with open_collector(lambda: (into(told),)) as collector:
            collector.submit(record(0))
    assert told == ["r0"]


async def test_an_error_around_it_rises_after_the_flush() -> None:
    """The body's own error is what the caller sees."""
    told: list[str] = []
    with trio.fail_after(FAIL_S):
        with pytest.RaisesGroup(ZeroDivisionError):
            async with open_collector(lambda: (into(told),)) as collector:
                collector.submit(record(0))
                raise ZeroDivisionError
    assert told == ["r0"]


async def test_a_record_after_the_end_is_lost_and_counted() -> None:
    """Whoever outlives the collector learns nothing of it."""
    told: list[str] = []
    with trio.fail_after(FAIL_S):
        async with open_collector(lambda: (into(told),)) as collector:
            pass
    collector.submit(record(0))
    assert (told, collector.dropped, len(collector)) == ([], 1, 0)


async def test_a_sink_that_breaks_the_program_ends_the_worker_and_hangs_nobody() -> None:
    """What is no Exception is not the collector's to handle."""
    with trio.fail_after(FAIL_S):
        with pytest.RaisesGroup(GeneratorExit):
            async with open_collector(lambda: (failing(GeneratorExit),)) as collector:
                collector.submit(record(0))
                await trio.sleep_forever()


async def test_sinks_that_never_wait_leave_others_their_turn() -> None:
    """Thousands of records may be waiting."""
    told: list[str] = []

    async def sink(item: UsageRecord) -> None:
        told.append(item.request_id)

    seen = 0
    with trio.fail_after(FAIL_S):
        async with open_collector(lambda: (sink,)) as collector:
            for number in range(50):
                collector.submit(record(number))
            while len(collector):
                seen += 1
                await trio.lowlevel.checkpoint()
    assert len(told) == 50
    assert seen > 10


async def test_attempts_of_a_collector_end_up_in_its_sinks() -> None:
    """The way that the runner goes; an executor that it does not name is named after the provider."""
    got: list[UsageRecord] = []

    async def sink(item: UsageRecord) -> None:
        await trio.lowlevel.checkpoint()
        got.append(item)

    def begin(collector: UsageCollector, executor_type: str = "") -> None:
        attempt = collector.attempt(
            credential=CREDENTIAL,
            model="m",
            alias="a",
            principal="p",
            request_format=Format.OPENAI,
            provider_format="openai",
            request_body=b"{}",
            request_id="r",
            trace_id="",
            executor_type=executor_type,
        )
        attempt.body(b'{"usage":{"prompt_tokens":2}}')
        attempt.finish(None, complete=True)

    with trio.fail_after(FAIL_S):
        async with open_collector(lambda: (sink,)) as collector:
            begin(collector)
            begin(collector, "acme")
    assert [(item.executor_type, item.tokens.input_tokens, item.alias) for item in got] == [
        ("GeminiExecutor", 2, "a"),
        ("acme", 2, "a"),
    ]
