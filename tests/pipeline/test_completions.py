"""Completion events outside their exchanges."""

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
import trio

from cpa.pipeline.completions import MAX_RUNNING, open_completions
from cpa.pipeline.stage import CompletionCall, Outcome, StageKind
from cpa.types import Execution, RequestId, TraceId
from tests.pipeline.support import register

CALL = CompletionCall(
    execution=Execution(request_id=RequestId("r"), trace_id=TraceId("")),
    source_format="openai",
    model="m",
    requested_model="m",
    stream=False,
    outcome=Outcome.SUCCEEDED,
    status_code=200,
    error="",
    started_at=datetime.now(UTC),
    completed_at=datetime.now(UTC),
)


async def test_all_are_told_at_the_same_time_and_one_failure_harms_nobody(autojump_clock: trio.abc.Clock) -> None:
    """Each in a task of its own; the submitter does not wait."""
    told: list[str] = []

    def slow(name: str) -> Any:
        async def stage(call: Any) -> None:
            await trio.sleep(1)
            told.append(name)

        return attrs.evolve(register(StageKind.REQUEST_COMPLETE, name), stage=stage)

    def explode(call: Any) -> None:
        raise ValueError

    started = trio.current_time()
    async with open_completions() as completions:
        await completions.submit(CALL, [slow("a"), register(StageKind.REQUEST_COMPLETE, "bad", explode), slow("b")])
        assert trio.current_time() == started
    assert sorted(told) == ["a", "b"]
    assert trio.current_time() - started == pytest.approx(1)


async def test_a_call_that_never_ends_cannot_hold_the_program(autojump_clock: trio.abc.Clock) -> None:
    """The end of the program bounds what is under way."""
    with trio.fail_after(60):
        async with open_completions() as completions:

            async def hang(call: Any) -> None:
                await trio.sleep_forever()

            await completions.submit(CALL, [attrs.evolve(register(StageKind.REQUEST_COMPLETE, "h"), stage=hang)])


async def test_too_many_running_calls_make_the_submitter_wait(autojump_clock: trio.abc.Clock) -> None:
    """Bounded, not dropped."""
    release = trio.Event()

    async def wait(call: Any) -> None:
        await release.wait()

    entry = attrs.evolve(register(StageKind.REQUEST_COMPLETE, "w"), stage=wait)
    async with open_completions() as completions:
        for _ in range(MAX_RUNNING):
            await completions.submit(CALL, [entry])
        with trio.move_on_after(1) as scope:
            await completions.submit(CALL, [entry])
        assert scope.cancelled_caught
        release.set()
