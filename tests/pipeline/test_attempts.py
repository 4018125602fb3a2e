"""The attempts of one execution: waits, renewals, marks, and the client that leaves."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from cpa.credentials.model import Credential
from cpa.errors import CpaError, UpstreamHungUp, UpstreamStatusError, UpstreamStreamError
from cpa.formats.names import Format
from cpa.pipeline.completions import open_completions
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.runner import open_answer
from cpa.pipeline.services import Services
from cpa.pipeline.stage import PickResult, StageKind
from cpa.scheduling.scheduler import Scheduling
from cpa.scheduling.settings import SchedulingSettings
from cpa.testing.fakes import FakeAnswer, FakeExecutor, candidate, services
from cpa.types import Candidate, UpstreamCall
from tests.pipeline.support import DONE, STOP, delta, register, request

GOOD = b'{"id":"r1"}'


def refuse(status: int, **headers: str) -> UpstreamStatusError:
    """A provider's error."""
    raw = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return UpstreamStatusError(status=status, headers=raw, body=b"{}", provider_format="openai")


@attrs.define(eq=False)
class World:
    """An executor whose answers depend on whose key is used, and a scheduler on Trio's clock.

    Attributes:
      script: credential id to what its attempts find, in order; the last entry stays. None = a good answer.
    """

    script: dict[str, list[CpaError | list[Any] | None]]
    settings: SchedulingSettings = attrs.field(factory=SchedulingSettings)
    asked: list[str] = attrs.field(factory=list)
    executor: FakeExecutor = attrs.field(init=False)
    scheduling: Scheduling = attrs.field(init=False)
    pool: tuple[Candidate, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.executor = FakeExecutor(Format.OPENAI, self._answer)
        self.scheduling = Scheduling(clock=trio.current_time, jitter=lambda: 0.0)
        self.pool = tuple(candidate(self.executor, name=name) for name in self.script)

    def _answer(self, call: UpstreamCall) -> FakeAnswer:
        name = call.credential.id
        self.asked.append(name if not call.credential.api_key else f"{name}+")
        steps = self.script[name]
        found = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(found, CpaError):
            raise found
        return FakeAnswer(found if found is not None else [GOOD])

    def services(self, stack_completions: Any, registrations: Sequence[Any] = (), **changes: Any) -> Services:
        """A snapshot."""
        made = services(self.pool, stack_completions, registrations, scheduling=self.scheduling, settings=self.settings)
        return attrs.evolve(made, **changes)

    async def run(
        self, ask: ModelRequest | None = None, registrations: Sequence[Any] = (), **changes: Any
    ) -> bytes | CpaError:
        """One execution: its whole answer, or its error."""
        result: bytes | CpaError = b""
        async with open_completions() as completions:
            try:
                made = self.services(completions, registrations, **changes)
                async with open_answer(ask or request(), made) as answer:
                    result = answer.body
                    if answer.stream is not None:
                        result = b"".join([frame async for frame in answer.stream])
            except CpaError as exc:
                result = exc
        return result

    def reasons(self) -> dict[str, str]:
        """Credential id to why it cools."""
        return {name: record.kind.value for name, _, record in self.scheduling.health.open_windows()}


async def test_a_round_waits_and_is_served(autojump_clock: MockClock) -> None:
    """429 for a second, then an answer, in one request."""
    world = World({"a": [refuse(429, retry_after="7"), None]})
    begun = trio.current_time()
    assert await world.run() == GOOD
    assert trio.current_time() - begun == pytest.approx(7)
    assert world.asked == ["a", "a"]
    assert world.reasons() == {}


async def test_waiting_ends_at_once_when_the_client_leaves(autojump_clock: MockClock) -> None:
    """And nothing is asked afterwards."""
    world = World({"a": [refuse(429, retry_after="20"), None]})
    begun = trio.current_time()
    with trio.move_on_after(3) as scope:
        await world.run()
    assert scope.cancelled_caught
    assert trio.current_time() - begun == pytest.approx(3)
    assert world.asked == ["a"]


async def test_a_client_that_leaves_marks_nobody(autojump_clock: MockClock) -> None:
    """Whether it waited for the head or read the stream; a probe is free again."""
    never = trio.Event()
    world = World({"a": [refuse(500), [never], None]}, SchedulingSettings(max_retry_interval_s=0))
    await world.run()
    before = list(world.scheduling.health.open_windows())
    with trio.move_on_after(1) as scope:
        await world.run()
    assert scope.cancelled_caught
    assert list(world.scheduling.health.open_windows()) == before
    assert len(world.scheduling.probes) == 0
    assert await world.run() == GOOD


async def test_an_error_after_the_first_byte_marks_and_is_not_retried() -> None:
    """In-band errors by what they say; broken connections not at all."""
    overloaded = b'data: {"error":{"message":"over","code":"rate_limit_exceeded"}}\n\n'
    world = World({"a": [[delta("x"), overloaded]], "b": [None]})
    failed = await world.run(request(stream=True))
    assert isinstance(failed, UpstreamStreamError)
    assert world.reasons() == {"a": "quota"}
    assert world.asked == ["a"]
    world = World({"a": [[delta("x"), UpstreamHungUp("cut")]], "b": [None]})
    assert isinstance(await world.run(request(stream=True)), UpstreamHungUp)
    assert world.reasons() == {}


async def test_a_stream_that_breaks_before_its_first_byte_rotates() -> None:
    """Nobody has seen anything yet."""
    world = World({"a": [[UpstreamHungUp("cut")]], "b": [[delta("x"), STOP, DONE]]})
    assert await world.run(request(stream=True)) == delta("x") + STOP + DONE
    assert world.asked == ["a", "b"]


# --- renewals ------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Renewer:
    """Renews by giving a key, or not at all."""

    works: bool = True
    asked: list[str] = attrs.field(factory=list)

    async def refresh(self, credential: Credential) -> Credential | None:
        """See `cpa.types.Refresher`."""
        await trio.lowlevel.checkpoint()
        self.asked.append(credential.id)
        return attrs.evolve(credential, api_key="renewed-token") if self.works else None


async def test_a_refused_token_is_renewed_once_and_tried_again() -> None:
    """Proxy 3.7: the same credential, once; a success leaves no trace."""
    world, renewer = World({"a": [refuse(401), None], "b": [None]}), Renewer()
    assert await world.run(refresher=renewer) == GOOD
    assert (world.asked, renewer.asked, world.reasons()) == (["a", "a+"], ["a"], {})


async def test_a_renewed_token_that_is_refused_again_rotates() -> None:
    """Not for ever."""
    world, renewer = World({"a": [refuse(401)], "b": [None]}), Renewer()
    assert await world.run(refresher=renewer) == GOOD
    assert (world.asked, renewer.asked) == (["a", "a+", "b"], ["a"])
    assert world.reasons() == {"a": "unauthorized"}


async def test_what_cannot_be_renewed_rotates() -> None:
    """No refresh token, or it was refused as well; other statuses are no reason to renew."""
    world, renewer = World({"a": [refuse(401)], "b": [refuse(403)], "c": [None]}), Renewer(works=False)
    assert await world.run(refresher=renewer) == GOOD
    assert (world.asked, renewer.asked) == (["a", "b", "c"], ["a"])


# --- plugins that schedule -----------------------------------------------------------------------------------------


async def test_schedulers_are_asked_for_every_attempt_and_see_who_is_left() -> None:
    """Those that are tried or blocked are gone; a delegated strategy is for one pick."""
    seen: list[Any] = []
    world = World({"a": [refuse(403)], "b": [refuse(403)], "c": [None]}, SchedulingSettings(max_retry_interval_s=0))
    picks = register(StageKind.SCHEDULER_PICK, "s", lambda call: PickResult(credential_id="b"), seen=seen, priority=1)
    assert await world.run(registrations=[picks]) == GOOD
    assert [[one.id for one in call.candidates] for _, call in seen] == [["a", "b", "c"], ["a", "c"], ["c"]]
    assert world.asked == ["b", "a", "c"]
    seen.clear()
    assert await world.run(registrations=[picks]) == GOOD
    assert [[one.id for one in call.candidates] for _, call in seen] == [["c"]]


async def test_schedulers_are_not_asked_when_nobody_is_ready() -> None:
    """plugin-abi 4.5."""
    seen: list[Any] = []
    world = World({"a": [refuse(403)]}, SchedulingSettings(max_retry_interval_s=0))
    await world.run()
    picks = register(StageKind.SCHEDULER_PICK, "s", lambda call: None, seen=seen)
    refused = await world.run(registrations=[picks])
    assert isinstance(refused, CpaError)
    assert (refused.http_status, refused.code) == (503, "auth_unavailable")
    assert not seen


async def test_plugins_are_told_of_the_session() -> None:
    """plugin-abi 6.11, with session affinity only."""
    seen: list[Any] = []
    picks = register(StageKind.SCHEDULER_PICK, "s", lambda call: None, seen=seen)
    world = World({"a": [None]}, SchedulingSettings(affinity=True))
    ask = request(body=b'{"model":"m1","messages":[{"role":"user","content":"hi"}]}')
    assert await world.run(ask, registrations=[picks]) == GOOD
    told = seen[0][1].execution.metadata
    assert (told["session_affinity_provider"], told["session_affinity_model"]) == ("fake", "m1")
    assert told["derived_session_id"].startswith("ctx:v1:")
    world = World({"a": [None]})
    assert await world.run(ask, registrations=[picks]) == GOOD
    assert "session_affinity_provider" not in seen[1][1].execution.metadata


# --- many ----------------------------------------------------------------------------------------------------------

STATUSES = (401, 402, 403, 404, 408, 429, 500, 502, 503, 529)


def failing_in_turn(number: int, at: int) -> bool:
    """Of 50, the 40 that fail while request *at* runs; ten others are fine each time."""
    return (number - at // 20) % 50 >= 10


async def many(
    world: World, count: int, fails: Callable[[int, int], bool], error: Callable[[int], CpaError]
) -> list[Any]:
    """So many requests, ten at a time; what each one got."""
    results: list[Any] = []
    async with AsyncExitStack() as stack:
        completions = await stack.enter_async_context(open_completions())
        made = world.services(completions)
        for at in range(0, count, 10):
            for number, name in enumerate(world.script):
                world.script[name] = [error(number) if fails(number, at) else None]

            async def one() -> None:
                try:
                    async with open_answer(request(), made) as answer:
                        results.append(answer.body)
                except CpaError as exc:
                    results.append(exc)

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(one)
    return results


async def test_a_thousand_requests_over_fifty_credentials_of_which_forty_fail() -> None:
    """With all kinds of errors: no client sees one, and the failing ones are asked a few times only."""
    world = World({f"c{number:02}": [None] for number in range(50)}, SchedulingSettings(max_retry_interval_s=0))
    with trio.fail_after(120):
        results = await many(
            world, 1000, lambda number, at: number % 5 != 0, lambda n: refuse(STATUSES[n % len(STATUSES)])
        )
    assert results == [GOOD] * 1000
    assert len(world.asked) < 1000 + 40 * 12


async def test_failures_that_pass_hurt_no_client_either() -> None:
    """Forty of fifty fail at any time, other ones every 20 requests: whoever recovered serves again in time."""
    world = World({f"c{number:02}": [None] for number in range(50)}, SchedulingSettings(max_retry_interval_s=0))
    with trio.fail_after(120):
        results = await many(world, 400, failing_in_turn, lambda n: refuse((500, 502, 503, 408)[n % 4]))
    assert results == [GOOD] * 400
