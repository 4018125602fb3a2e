"""The shipped fakes keep the contracts of what they stand for."""

import pytest
import trio
import trio.testing

from cpa.errors import UnknownModel, UpstreamTimeout
from cpa.formats.names import Format
from cpa.pipeline.completions import open_completions
from cpa.testing.fakes import FakeAnswer, FakeExecutor, FakeModels, candidate, execution, services
from cpa.types import Executor, ModelResolver, Operation, UpstreamCall


def call(executor: FakeExecutor) -> UpstreamCall:
    """A call for a candidate of *executor*."""
    credential = candidate(executor).credential
    return UpstreamCall(
        credential=credential,
        execution=execution(),
        wire=executor.wire(Format.OPENAI),
        operation=Operation.GENERATE,
        model="m1",
        stream=True,
        body=(b"{}",),
        client_headers=(),
    )


async def test_answer_gives_its_pieces_whole_or_one_by_one() -> None:
    """As providers do."""
    assert await FakeAnswer([b"a", b"b"]).read() == b"ab"
    assert [piece async for piece in FakeAnswer([b"a", b"b"]).chunks()] == [b"a", b"b"]
    answer = FakeAnswer([b"a"])
    with trio.testing.assert_checkpoints():
        assert await answer.__anext__() == b"a"
    with trio.testing.assert_checkpoints():
        await answer.drain()
    assert answer.drained


async def test_answer_fails_and_waits_where_its_script_says() -> None:
    """After what came before."""
    gate = trio.Event()
    answer = FakeAnswer([b"a", gate, b"b", UpstreamTimeout("slow")])
    received: list[bytes] = []

    async def read() -> None:
        for _ in range(2):
            received.append(await answer.__anext__())
        with pytest.raises(UpstreamTimeout):
            await answer.__anext__()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert received == [b"a"]
            gate.set()
    assert received == [b"a", b"b"]


async def test_executor_counts_open_answers_however_they_are_left() -> None:
    """Leaks show as a count that is not zero."""
    executor = FakeExecutor(format=Format.OPENAI, answer=lambda call: FakeAnswer([b"a"]))
    assert isinstance(executor, Executor)
    async with executor.open(call(executor)) as answer:
        assert executor.open_answers == 1
        assert await answer.read() == b"a"
    assert executor.open_answers == 0
    with trio.CancelScope() as scope:
        async with executor.open(call(executor)):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert (executor.open_answers, len(executor.calls)) == (0, 2)


async def test_executor_raises_what_its_script_raises() -> None:
    """Before an answer exists."""

    def refuse(call: UpstreamCall) -> FakeAnswer:
        raise UpstreamTimeout("never")

    executor = FakeExecutor(format=Format.OPENAI, answer=refuse)
    with pytest.raises(UpstreamTimeout):
        await executor.open(call(executor)).__aenter__()
    assert executor.open_answers == 0


async def test_models_resolve_all_names_but_one() -> None:
    """Tests of the runner do not care about names."""
    executor = FakeExecutor(format=Format.OPENAI, answer=lambda call: FakeAnswer([]))
    one, two = candidate(executor, name="a", provider="p"), candidate(executor, name="b", provider="q")
    models: ModelResolver = FakeModels([one, two])
    assert models.resolve("whatever") == (one, two)
    assert models.resolve("whatever", provider="q") == (two,)
    assert models.providers() == ("p", "q")
    for name, provider in (("unknown", ""), ("whatever", "r")):
        with pytest.raises(UnknownModel):
            models.resolve(name, provider=provider)
    async with open_completions() as completions:
        assert services([one], completions, passthrough_headers=True).passthrough_headers
