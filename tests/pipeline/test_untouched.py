"""The short cut for requests in which nobody takes part says what the long way says."""

from collections.abc import Iterable
from typing import Any

import attrs
import pytest

from cpa.formats.names import Format
from cpa.pipeline.asking import Asking
from cpa.pipeline.completions import open_completions
from cpa.pipeline.runner import Run, Services
from cpa.pipeline.stage import Registration, StageKind
from cpa.testing.fakes import FakeAnswer, FakeExecutor, candidate, services
from cpa.translation.signatures import ENVELOPE_PREFIX
from cpa.types import Candidate, Operation
from tests.pipeline.support import CHAT, register, request

SEALED = b'{"model":"m1","messages":[{"role":"assistant","reasoning":"%s"}]}' % (ENVELOPE_PREFIX + "x" * 40).encode()
FORMATS = (Format.OPENAI, Format.OPENAI_RESPONSE, Format.CLAUDE, Format.GEMINI)


def asking_of(made: Services, **changes: Any) -> Asking:
    run = Run(request=request(**changes), services=made, observer=None, wire_log=None, trace=None)
    return Asking(run.run)


def one_of(fmt: Format, model: str = "m1", *, native: bool = True) -> Candidate:
    return attrs.evolve(candidate(FakeExecutor(fmt, lambda call: FakeAnswer([b"{}"]), native=native)), model=model)


async def both(
    chosen: Candidate, registrations: Iterable[Registration] = (), **changes: Any
) -> tuple[object | None, object]:
    """What the short cut says, and the long way."""
    async with open_completions() as completions:
        made = services([chosen], completions, registrations)
        asking = asking_of(made, **changes)
        return asking._untouched(chosen), await asking._prepare(chosen)  # the two of them are the subject


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["m1", "another-name"])
async def test_it_prepares_the_same(fmt: Format, stream: bool, model: str) -> None:
    """Every member, the renamed model's pieces included."""
    short, long = await both(one_of(fmt, model), format=fmt, stream=stream)
    assert short is not None
    assert short == long


@pytest.mark.parametrize(
    ("chosen", "changes"),
    [
        (one_of(Format.CLAUDE), {}),
        (one_of(Format.OPENAI, native=False), {}),
        (one_of(Format.OPENAI), {"operation": Operation.COUNT_TOKENS}),
        (one_of(Format.OPENAI), {"operation": Operation.EMBED}),
        (one_of(Format.OPENAI), {"exit_format": Format.CLAUDE}),
        (one_of(Format.OPENAI), {"body": SEALED}),
        (one_of(Format.OPENAI), {"model": "m1(high)"}),
    ],
    ids=["another protocol", "a plugin's", "a count", "embeddings", "another answer", "an envelope", "a suffix"],
)
async def test_it_gives_way_where_something_is_to_be_done(chosen: Candidate, changes: dict[str, Any]) -> None:
    """Whatever the long way would do there."""
    async with open_completions() as completions:
        assert asking_of(services([chosen], completions), **changes)._untouched(chosen) is None


@pytest.mark.parametrize("kind", list(StageKind))
async def test_it_gives_way_to_every_stage(kind: StageKind) -> None:
    """Also to those that see answers only: which ones matter is not its business."""
    async with open_completions() as completions:
        chosen = one_of(Format.OPENAI)
        made = services([chosen], completions, [register(kind, "p")])
        assert asking_of(made, body=CHAT)._untouched(chosen) is None
