"""Plugins are asked once, in parallel, and never waited for."""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio
import trio.testing

from cpa.abi.envelope import PluginCallError
from cpa.errors import CpaError
from cpa.host.questions import CALLS_AT_ONCE, RETRY_S, Failed, Questions
from cpa.types import PluginId

ACME = PluginId("acme")


def refusal(text: str) -> PluginCallError:
    """What a plugin answers that does not want to."""
    return PluginCallError(method="model.static", message=text)


@attrs.define(eq=False)
class Desk:
    """Questions, and who was asked."""

    questions: Questions
    asked: list[Hashable] = attrs.field(factory=list)
    idle: int = 0
    gates: dict[Hashable, trio.Event] = attrs.field(factory=dict)
    errors: dict[Hashable, CpaError] = attrs.field(factory=dict)
    running: int = 0
    most: int = 0

    def round(self, *keys: str, subject: str = "") -> list[object]:
        """One round that needs *keys*."""
        self.questions.begin_round()
        found: list[object] = [
            self.questions.answer(key, subject=subject or key, plugin_id=ACME, ask=partial(self.ask, key))
            for key in keys
        ]
        self.questions.end_round()
        return found

    async def ask(self, key: str) -> str:
        """The plugin."""
        self.asked.append(key)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.lowlevel.checkpoint()
            if key in self.gates:
                await self.gates[key].wait()
            if key in self.errors:
                raise self.errors[key]
            return f"{key}!"
        finally:
            self.running -= 1


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """Open questions."""
    async with trio.open_nursery() as nursery:
        made: Desk

        def idle() -> None:
            made.idle += 1

        made = Desk(Questions(nursery, on_idle=idle))
        yield made
        nursery.cancel_scope.cancel()


async def test_what_is_known_is_not_asked_again(autojump_clock: object) -> None:
    """Across rounds."""
    async with desk() as made:
        assert made.round("a", "b") == [None, None]
        await trio.testing.wait_all_tasks_blocked()
        assert made.idle == 1
        assert made.round("a", "b") == ["a!", "b!"]
        assert made.round("a", "b") == ["a!", "b!"]
        assert sorted(map(str, made.asked)) == ["a", "b"]
        assert made.questions.running == 0


async def test_what_a_round_does_not_need_is_forgotten_and_cancelled(autojump_clock: object) -> None:
    """Answers, and calls in progress."""
    async with desk() as made:
        made.gates["slow"] = trio.Event()
        made.round("a", "slow")
        await trio.testing.wait_all_tasks_blocked()
        assert (made.questions.running, made.running) == (1, 1)
        made.round()
        await trio.testing.wait_all_tasks_blocked()
        assert (made.questions.running, made.running) == (0, 0)
        assert made.round("a") == [None]
        assert not made.questions._last


async def test_few_calls_of_a_plugin_at_once(autojump_clock: object) -> None:
    """Clients need it, too."""
    async with desk() as made:
        gate = trio.Event()
        keys = [str(number) for number in range(20)]
        made.gates = dict.fromkeys(keys, gate)
        made.round(*keys)
        await trio.testing.wait_all_tasks_blocked()
        assert made.running == CALLS_AT_ONCE
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert made.round(*keys) == [f"{key}!" for key in keys]
        assert made.most == CALLS_AT_ONCE


async def test_a_failure_is_tried_again_later(autojump_clock: object) -> None:
    """Not at each round."""
    async with desk() as made:
        made.errors["a"] = refusal("no")
        made.round("a")
        await trio.testing.wait_all_tasks_blocked()
        (failed,) = made.round("a")
        assert isinstance(failed, Failed)
        assert made.questions.retry_at == trio.current_time() + RETRY_S
        await trio.sleep(RETRY_S - 1)
        made.round("a")
        assert made.asked == ["a"]
        del made.errors["a"]
        await trio.sleep(1)
        assert isinstance(made.round("a")[0], Failed)
        await trio.testing.wait_all_tasks_blocked()
        assert made.round("a") == ["a!"]
        assert made.asked == ["a", "a"]


async def test_the_last_answer_counts_until_there_is_a_new_one(autojump_clock: object) -> None:
    """A plugin that restarts has not changed its mind."""
    async with desk() as made:
        made.round("one", subject="s")
        await trio.testing.wait_all_tasks_blocked()
        made.gates["two"] = trio.Event()
        assert made.round("two", subject="s") == ["one!"]
        made.errors["two"] = CpaError("not available")
        made.gates["two"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert made.round("two", subject="s") == ["one!"]
        made.errors["three"] = refusal("I know nothing of it")
        made.round("three", subject="s")
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(made.round("three", subject="s")[0], Failed)


async def test_what_somebody_knows_need_not_be_asked(autojump_clock: object) -> None:
    """Also if the plugin is being asked already."""
    async with desk() as made:
        made.gates["a"] = trio.Event()
        made.round("a")
        await trio.testing.wait_all_tasks_blocked()
        made.questions.know("a", "a", "known")
        assert made.round("a") == ["known"]
        made.gates["a"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert made.round("a") == ["known"]
        assert made.questions.running == 0
