"""Repair of calls and results in the history (2.8): the most repaired area in real traffic.

Theory of operation. All results are taken out of their turns, paired with calls, and put back: after `repair`, each
assistant turn with calls is followed by one user turn that holds exactly its results, in the order of the calls. That
is the strictest placement (Claude, Gemini), and what Chat and Responses take as well; text that stood before or between
comes after it. Nothing is deleted: a result without a call becomes text, a call without a result gets one that says so.
Running it again changes nothing. All made-up ids are functions of the history (L5).
"""

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import attrs

from cpa.translation.context import Context
from cpa.translation.ir import (
    Call,
    IRRequest,
    Part,
    Provenance,
    Reasoning,
    Result,
    Role,
    SigKind,
    Text,
    Turn,
)
from cpa.translation.system import join_turns
from cpa.translation.tool_results import split_result_media
from cpa.translation.tool_survey import RepairTarget, Survey, survey
from cpa.translation.tool_unpack import unpack_media

NO_RESULT: Final = "No result was recorded for this tool call."


@attrs.define(eq=False)
class _Call:
    """A call in the history. *run*: which uninterrupted series of assistant turns it stands in."""

    part: Call
    turn: int
    run: int
    made_id: bool = False
    answers: list[Result] = attrs.field(factory=list)


@attrs.define(eq=False)
class _Result:
    """A result in the history. *run*: the last assistant run that began before it, -1 = none."""

    part: Result
    turn: int
    place: int
    run: int
    call: _Call | None = None


def _belongs_to(answer: Result, call: Call) -> None:
    """Emitters need more of a call than its id: Gemini its name, Responses whether it took free text."""
    answer.name = call.name
    answer.namespace = call.namespace
    answer.shape = call.shape


class _Pending:
    """Calls that no result has claimed, oldest first."""

    def __init__(self) -> None:
        self._named: defaultdict[str, deque[_Call]] = defaultdict(deque)
        self._made: defaultdict[str, deque[_Call]] = defaultdict(deque)
        self._nearest: deque[_Call] = deque()
        self._run = -1

    def add(self, call: _Call) -> None:
        """The next call in the history, answered or not."""
        self._named[call.part.name].append(call)
        if call.made_id:
            self._made[call.part.name].append(call)
        if call.run != self._run:
            self._run = call.run
            self._nearest.clear()
        self._nearest.append(call)

    def take(self, result: Result) -> _Call | None:
        """For a result without an id: the oldest of its name, else the oldest of the nearest run."""
        return _first_open(self._named[result.name]) or _first_open(self._nearest)

    def take_made(self, result: Result) -> _Call | None:
        """For a result whose id no call has: the oldest of its name that came without an id."""
        return _first_open(self._made[result.name])


def _first_open(calls: deque[_Call]) -> _Call | None:
    while calls:
        call = calls.popleft()
        if not call.answers:
            return call
    return None


def repair(request: IRRequest, target: RepairTarget, ctx: Context, seen: Survey | None = None) -> None:
    """Make every call answered exactly once, directly after its turn, with ids that *target* takes. In place.

    Results then have their call's id, name, namespace and shape. What had to be made up, moved into text or left out
    is among the losses of *ctx*.

    Args:
      seen: what `tool_survey.survey` found in this history for this target, if it was asked.
    """
    intact = (seen or survey(request, target)).turns
    if intact is None:
        request.turns = [turn for turn in request.turns if turn.parts]
        _History(request, target, ctx).repair()
    else:
        request.turns = intact
    if target is RepairTarget.RESPONSES:
        drop_dangling_reasoning(request, ctx)


class _History:
    """One history while it is repaired; the methods are the steps of 2.8."""

    def __init__(self, request: IRRequest, target: RepairTarget, ctx: Context) -> None:
        self._request = request
        self._target = target
        self._ctx = ctx
        self._calls: list[_Call] = []
        self._results: list[_Result] = []

    def repair(self) -> None:
        self._index()
        groups = self._groups()
        self._pair_explicit(groups)
        self._pair_implicit()
        self._rename_duplicates(groups)
        kept = self._settle_orphans()
        self._answer_all()
        self._map_ids(kept)
        self._rebuild(kept)

    def _index(self) -> None:
        """Steps 1 and 2: find calls and results in order; calls without an id get one of their position."""
        run = -1
        previous: Role | None = None
        for number, turn in enumerate(self._request.turns):
            if turn.role is Role.ASSISTANT and previous is not Role.ASSISTANT:
                run += 1
            previous = turn.role
            for place, part in enumerate(turn.parts):
                if isinstance(part, Call) and turn.role is Role.ASSISTANT:
                    call = _Call(part, number, run)
                    if not part.call_id:
                        part.call_id = "call_" + _digest(f"{number}\0{place}\0{part.name}", 24)
                        call.made_id = True
                    self._calls.append(call)
                elif isinstance(part, Result):
                    unpack_media(part, self._ctx.client.value)
                    self._results.append(_Result(part, number, place, run))

    def _groups(self) -> dict[str, list[list[_Call]]]:
        """Calls of each id, those of one run together: several runs mean that the client counts anew."""
        groups: defaultdict[str, list[list[_Call]]] = defaultdict(list)
        for call in self._calls:
            series = groups[call.part.call_id]
            if series and series[-1][0].run == call.run:
                series[-1].append(call)
            else:
                series.append([call])
        return groups

    def _pair_explicit(self, groups: dict[str, list[list[_Call]]]) -> None:
        """Steps 4, 5 and 6: a result belongs to the last run before it that has its id, or else to the first after."""
        matched: defaultdict[tuple[str, int], list[_Result]] = defaultdict(list)
        runs = {call_id: [group[0].run for group in series] for call_id, series in groups.items()}
        for result in self._results:
            call_id = result.part.call_id
            if call_id in runs:
                matched[call_id, max(bisect_right(runs[call_id], result.run) - 1, 0)].append(result)
        for (call_id, place), results in matched.items():
            group = groups[call_id][place]
            for number, result in enumerate(results):  # in order; the rest belongs to the last of them
                result.call = group[min(number, len(group) - 1)]
                result.call.answers.append(result.part)

    def _pair_implicit(self) -> None:
        """Step 3, for results without an id, and for those with one where the call had none (Gemini)."""
        pending = _Pending()
        calls = deque(self._calls)
        for result in self._results:
            while calls and calls[0].run <= result.run:
                pending.add(calls.popleft())
            if result.call is None:
                result.call = pending.take_made(result.part) if result.part.call_id else pending.take(result.part)
                if result.call is not None:
                    result.call.answers.append(result.part)

    def _rename_duplicates(self, groups: dict[str, list[list[_Call]]]) -> None:
        """Step 4: of equal ids all but the first are renamed, by how often the id came before."""
        used = {call.part.call_id for call in self._calls} | {result.part.call_id for result in self._results}
        for call_id, series in groups.items():
            for number, call in enumerate(call for group in series for call in group):
                if number:
                    call.part.call_id = _unused(f"{call_id}_", f"{call_id}\0{number}", 8, used)

    def _settle_orphans(self) -> list[_Result]:
        """Step 8. Returns the results that stay where they are, because the provider knows their calls."""
        state = self._request.state
        remembered = bool(state.previous_id or state.conversation) and not self._ctx.profile.codex
        orphans = [result for result in self._results if result.call is None]
        if self._target is RepairTarget.RESPONSES and remembered:
            return [orphan for orphan in orphans if orphan.part.call_id]
        return []

    def _answer_all(self) -> None:
        """Steps 5 and 9: one result for each call, the last that there is, or one that says that there is none."""
        for call in self._calls:
            if not call.answers:
                call.answers.append(Result(call_id="", parts=[Text(text=NO_RESULT)], is_error=True))
                self._lose(f"call of {call.part.name[:64]} without a result")
            elif len(call.answers) > 1:
                self._lose(f"several results for a call of {call.part.name[:64]}")
                del call.answers[:-1]
            _belongs_to(call.answers[0], call.part)

    def _map_ids(self, kept: list[_Result]) -> None:
        """Step 10: one map for calls and results, injective."""
        ids = dict.fromkeys([call.part.call_id for call in self._calls] + [result.part.call_id for result in kept])
        used = {call_id for call_id in ids if self._target.accepts_id(call_id)}
        prefix = "toolu_" if self._target is RepairTarget.CLAUDE else "call_"
        mapped = {
            call_id: call_id if self._target.accepts_id(call_id) else _unused(prefix, call_id, 24, used)
            for call_id in ids
        }
        for call in self._calls:
            call.part.call_id = call.answers[0].call_id = mapped[call.part.call_id]
        for result in kept:
            result.part.call_id = mapped[result.part.call_id]

    def _rebuild(self, kept: list[_Result]) -> None:
        """Steps 6 and 7: turns without results, joined where they are pieces of one, each followed by its results."""
        places = {id(result.part): result for result in self._results}
        stay = {id(result.part) for result in kept}
        calls: defaultdict[int, list[_Call]] = defaultdict(list)
        for call in self._calls:
            calls[call.turn].append(call)
        turns: list[Turn] = []
        for first, last in self._pieces():
            turn = self._request.turns[first]
            for number in range(first + 1, last + 1):
                turn = join_turns(turn, self._request.turns[number])
            said, aside = self._without_results(turn, places, stay)
            turn.parts = said
            if said:
                turns.append(turn)
            answered = [call.answers[0] for number in range(first, last + 1) for call in calls[number]]
            if answered:
                turns.append(Turn(role=Role.USER, parts=[*answered]))
            if aside:
                turns.append(Turn(role=Role.USER, parts=aside))
        self._request.turns = turns

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """(first, last) of the turns that are to be one.

        Adjacent assistant turns are pieces of one model turn if a call of the first is answered after the last that
        calls: to answer it in between would tear parallel calls, and their reasoning, apart.
        """
        turns = self._request.turns
        answered_in = {id(result.call): result.turn for result in self._results if result.call is not None}
        answers: defaultdict[int, int] = defaultdict(int)  # the last turn that answers a call of this one
        calling = {call.turn for call in self._calls}
        for call in self._calls:
            answers[call.turn] = max(answers[call.turn], answered_in.get(id(call), 0))
        number = 0
        while number < len(turns):
            end = number + 1
            if turns[number].role is Role.ASSISTANT:
                while end < len(turns) and turns[end].role is Role.ASSISTANT:
                    end += 1
                callers = [place for place in range(number, end) if place in calling]
                first = next((place for place in callers if answers[place] >= end), end)
                last = callers[-1] if callers else number
                yield from ((place, place) for place in range(number, min(first, end)))
                if first < end:
                    yield first, last
                    yield from ((place, place) for place in range(last + 1, end))
            else:
                yield number, number
            number = end

    def _without_results(self, turn: Turn, places: dict[int, _Result], stay: set[int]) -> tuple[list[Part], list[Part]]:
        """(parts of *turn*, parts for a user turn after it): results are taken out, orphans told as text."""
        said: list[Part] = []
        aside: list[Part] = []
        for part in turn.parts:
            if not isinstance(part, Result) or id(part) in stay:
                said.append(part)
            elif places[id(part)].call is None:
                (said if turn.role is Role.USER else aside).extend(self._as_text(part))
        return said, aside

    def _as_text(self, orphan: Result) -> list[Part]:
        text, media = split_result_media(orphan, mark_error=True)
        name = f" {orphan.name}" if orphan.name else ""
        self._lose("result without a call became text")
        told: list[Part] = [Text(text=f"[result of an earlier tool call{name}]: {text}", cache=orphan.cache)]
        return [*told, *media]

    def _lose(self, note: str) -> None:
        self._ctx.lose("messages", note)


def drop_dangling_reasoning(request: IRRequest, ctx: Context) -> None:
    """Remove encrypted reasoning that led to nothing: OpenAI demands the item that followed it (2.10, case 101)."""
    turns = request.turns
    for number, turn in enumerate(turns):
        if turn.plain:
            continue
        following = turns[number + 1].role if number + 1 < len(turns) else None
        if turn.role is not Role.ASSISTANT or following is Role.ASSISTANT:
            continue
        while turn.parts and _is_encrypted(turn.parts[-1]):
            turn.parts.pop()
            ctx.lose("messages", "reasoning without the item that it led to", dropped=True)
    request.turns = [turn for turn in turns if turn.parts]


def _is_encrypted(part: Part) -> bool:
    return isinstance(part, Reasoning) and any(
        sig.provenance is Provenance.OPENAI and sig.kind is SigKind.ENCRYPTED for sig in part.sigs
    )


def _unused(prefix: str, seed: str, digits: int, used: set[str]) -> str:
    """*prefix* and digits of *seed*'s hash, different from all of *used*, to which it is added."""
    candidate = prefix + _digest(seed, digits)
    while candidate in used:  # the client calls one so: by chance never
        seed += "\0"
        candidate = prefix + _digest(seed, digits)
    used.add(candidate)
    return candidate


def _digest(seed: str, digits: int) -> str:
    return sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
