"""Refreshing when due: on a clock of the test's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from cpa.abi.envelope import PluginCallError
from cpa.credentials.model import Credential
from cpa.errors import CpaError
from cpa.host.refresh import BACK_OFF_S, FORCED_SPACING_S, Refresher

START = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.define(eq=False)
class Bench:
    """A refresher and what it did: (seconds since the start, id)."""

    credentials: list[Credential]
    refresher: Refresher = attrs.field(init=False)
    tried: list[tuple[float, str]] = attrs.field(factory=list)
    work: Callable[[Credential], Awaitable[datetime | None]] | None = None
    workers: int = 16
    running: int = 0
    most: int = 0

    async def refresh(self, credential: Credential) -> datetime | None:
        """The script."""
        self.tried.append((round(trio.current_time() - self.epoch, 3), credential.id))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.lowlevel.checkpoint()
            return None if self.work is None else await self.work(credential)
        finally:
            self.running -= 1

    epoch: float = 0.0

    def now(self) -> datetime:
        """The wall clock goes with the other one."""
        return START + timedelta(seconds=trio.current_time() - self.epoch)


def credential(name: str = "a", **metadata: Any) -> Credential:
    """Due every 100 s unless it says otherwise."""
    return Credential(
        id=name, provider="acme", label=name, metadata={"refresh_interval": 100, **metadata}, storage_json=name.encode()
    )


@asynccontextmanager
async def bench(*credentials: Credential) -> AsyncIterator[Bench]:
    """A running refresher."""
    made = Bench(list(credentials) or [credential()])
    made.epoch = trio.current_time()
    async with trio.open_nursery() as nursery:
        made.refresher = Refresher(
            nursery=nursery,
            credentials=lambda: made.credentials,
            refresh=made.refresh,
            read_at=lambda credential: START,
            workers=lambda: made.workers,
            clock=made.now,
        )
        nursery.start_soon(made.refresher.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_it_refreshes_every_interval(autojump_clock: object) -> None:
    """For ever."""
    async with bench() as made:
        await trio.sleep(350)
        assert made.tried == [(100, "a"), (200, "a"), (300, "a")]
        known = made.refresher.state("a")
        last, again, problem = known.succeeded, known.again, known.problem
        assert (last, again, problem) == (START + timedelta(seconds=300), None, "")


async def test_a_wish_is_honoured(autojump_clock: object) -> None:
    """Plugin-abi 10, 34: it triggers a refresh of its own."""
    async with bench() as made:

        async def work(credential: Credential) -> datetime | None:
            await trio.lowlevel.checkpoint()
            return made.now() + timedelta(seconds=10) if len(made.tried) == 1 else None

        made.work = work
        await trio.sleep(250)
        assert made.tried == [(100, "a"), (110, "a"), (210, "a")]


async def test_a_failure_waits_for_five_minutes(autojump_clock: object) -> None:
    """And says so meanwhile."""
    async with bench() as made:

        async def work(credential: Credential) -> datetime | None:
            await trio.lowlevel.checkpoint()
            if len(made.tried) == 1:
                raise CpaError("the issuer is down")
            return None

        made.work = work
        await trio.sleep(150)
        known = made.refresher.state("a")
        last, again, problem = known.succeeded, known.again, known.problem
        assert (last, again, problem) == (None, START + timedelta(seconds=100 + BACK_OFF_S), "the issuer is down")
        await trio.sleep(300)
        assert made.tried == [(100, "a"), (100 + BACK_OFF_S, "a")]
        assert made.refresher.state("a").problem == ""


@pytest.mark.parametrize(
    "error",
    [PluginCallError(method="auth.refresh", message="no", http_status=401), CpaError("oauth: invalid_grant: expired")],
)
async def test_a_withdrawn_credential_waits_for_a_change(error: CpaError, autojump_clock: object) -> None:
    """Asking again would not help, and looks like an attack to whoever issued it."""
    async with bench() as made:

        async def work(credential: Credential) -> datetime | None:
            await trio.lowlevel.checkpoint()
            raise error

        made.work = work
        await trio.sleep(5000)
        assert made.tried == [(100, "a")]
        made.credentials = [attrs.evolve(made.credentials[0], storage_json=b"another")]
        made.refresher.wake()
        await trio.sleep(1)
        assert made.tried == [(100, "a"), (5000, "a")]


async def test_the_disabled_are_left_alone(autojump_clock: object) -> None:
    """And what is gone is forgotten."""
    async with bench(attrs.evolve(credential(), disabled=True)) as made:
        await trio.sleep(500)
        assert made.tried == []
        made.credentials = []
        made.refresher.wake()
        await trio.sleep(100)
        assert not made.refresher._accounts


async def test_so_many_at_once(autojump_clock: object) -> None:
    """The operator's number; all get their turn."""
    async with bench(*(credential(f"c{number}") for number in range(20))) as made:
        made.workers = 3

        async def work(credential: Credential) -> datetime | None:
            await trio.sleep(1)
            return None

        made.work = work
        await trio.sleep(150)
        assert made.most == 3
        assert {name for _, name in made.tried} == {f"c{number}" for number in range(20)}


async def test_one_attempt_answers_for_all_who_ask_at_once(autojump_clock: object) -> None:
    """Two hundred requests that fail with 401 make one call."""
    async with bench() as made:

        async def work(credential: Credential) -> datetime | None:
            await trio.sleep(2)
            return None

        made.work = work
        answers: list[bool] = []

        async def ask() -> None:
            answers.append(await made.refresher.refresh_now(made.credentials[0]))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
        assert answers == [True] * 200
        await ask()  # a moment later: what is there is fresh
        assert answers[-1]
        assert made.tried == [(0, "a")]
        await trio.sleep(FORCED_SPACING_S)
        await ask()
        assert len(made.tried) == 2


async def test_an_attempt_that_failed_a_moment_ago_is_not_repeated(autojump_clock: object) -> None:
    """The provider's no stays a no."""
    async with bench() as made:

        async def work(credential: Credential) -> datetime | None:
            await trio.lowlevel.checkpoint()
            raise CpaError("no")

        made.work = work
        assert not await made.refresher.refresh_now(made.credentials[0])
        assert not await made.refresher.refresh_now(made.credentials[0])
        assert made.tried == [(0, "a")]


async def test_who_asked_may_leave(autojump_clock: object) -> None:
    """The attempt goes on: what it brings is for everybody."""
    async with bench() as made:

        async def work(credential: Credential) -> datetime | None:
            await trio.sleep(2)
            return None

        made.work = work
        with trio.move_on_after(1):
            await made.refresher.refresh_now(made.credentials[0])
        await trio.sleep(3)
        assert made.refresher.state("a").succeeded == START + timedelta(seconds=2)


async def test_the_end_ends_attempts(autojump_clock: object) -> None:
    """Nothing hangs."""
    with trio.fail_after(5):
        async with bench() as made:

            async def work(credential: Credential) -> datetime | None:
                await trio.sleep_forever()
                raise AssertionError

            made.work = work
            with trio.move_on_after(1):
                await made.refresher.refresh_now(made.credentials[0])
        assert made.running == 0


async def test_of_many_that_are_due_as_many_run_as_there_are_workers(autojump_clock: object) -> None:
    """The others wait without a task of their own, and have their turn."""
    names = [f"c{number:03}" for number in range(60)]

    async def work(credential: Credential) -> None:
        await trio.sleep(1)

    async with bench(*map(credential, names)) as made:
        made.workers, made.work = 3, work
        await trio.sleep(100.5)
        assert made.running == made.most == 3
        assert len([task for task in _tasks() if task.name.startswith("refresh c")]) == 3
        await trio.sleep(25)
        assert sorted(name for _, name in made.tried) == names
        assert made.most == 3


def _tasks() -> list[trio.lowlevel.Task]:
    """All there are."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, left = [], [root]
    while left:
        task = left.pop()
        found.append(task)
        left.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


async def test_a_changed_credential_has_its_own_time(autojump_clock: object) -> None:
    """What the heap said of the old one is forgotten; so is what is gone."""
    async with bench(credential("a"), credential("b")) as made:
        await trio.sleep(10)
        made.credentials[:] = [credential("a", refresh_interval=30)]
        made.refresher.wake()
        await trio.sleep(60)
        assert made.tried == [(30, "a"), (60, "a")]


async def test_a_withdrawn_credential_is_not_asked_for_by_requests(autojump_clock: object) -> None:
    """Each of them would ask in vain."""

    async def refused(credential: Credential) -> None:
        await trio.lowlevel.checkpoint()
        raise CpaError("invalid_grant: gone")

    one = credential("a")
    async with bench(one) as made:
        made.work = refused
        assert not await made.refresher.refresh_now(one)
        await trio.sleep(FORCED_SPACING_S + 1)
        assert not await made.refresher.refresh_now(one)
        assert len(made.tried) == 1
        state = made.refresher.state("a")
        assert (state.stopped, state.again, state.problem) == (True, None, "invalid_grant: gone")
