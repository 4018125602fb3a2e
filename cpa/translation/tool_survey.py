"""One look at a history that finds what later steps would each have to look for (2.3, 2.6, 2.8).

Histories are long, and nearly all of them need no repair and hold little that a target cannot take. Whoever looks at
each part asks all questions at once: which tools are called, whether each call is answered in its place, and which
turns are plain. Later steps pass over those, and do their work on the few others.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Final

import attrs

from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.counting import estimate, estimate_sorted
from cpa.translation.ir import Call, IRRequest, Part, Reasoning, Result, Role, Text, Turn
from cpa.translation.literals import is_blank
from cpa.translation.system import with_parts
from cpa.translation.tool_unpack import unpack_media

Key = tuple[str, str]
"""(namespace, client's name) of a tool."""
MAX_CHAT_ID: Final = 40
MAX_RESPONSES_ID: Final = 64
_CLAUDE_ID = re.compile(r"[A-Za-z0-9_-]+")
_CLAUDE: Final = Format.CLAUDE
_USER, _ASSISTANT = Role.USER, Role.ASSISTANT  # looking into an enumeration takes longer than looking at a part


class RepairTarget(Enum):
    """Whose rules the history has to satisfy."""

    CHAT = "chat"
    RESPONSES = "responses"
    CLAUDE = "claude"
    GEMINI = "gemini"

    def accepts_id(self, call_id: str) -> bool:
        """Whether the target takes *call_id*."""
        return self.accepts_ids([call_id])

    def accepts_ids(self, call_ids: list[str]) -> bool:
        """Whether the target takes all of *call_ids*."""
        match self:
            case RepairTarget.CLAUDE:
                return all(call_ids) and _CLAUDE_ID.fullmatch("".join(call_ids)) is not None
            case RepairTarget.CHAT:
                return max(map(len, call_ids)) <= MAX_CHAT_ID
            case RepairTarget.RESPONSES:
                return max(map(len, call_ids)) <= MAX_RESPONSES_ID
            case RepairTarget.GEMINI:
                return True


@attrs.frozen(kw_only=True)
class Survey:
    """What there is in a history.

    Attributes:
      called: tools that are called, and what results name otherwise than their calls do.
      turns: the history as `tools.repair` leaves it when there is nothing to repair; None = there is.
    """

    called: set[Key]
    turns: list[Turn] | None


def survey(request: IRRequest, target: RepairTarget, ctx: Context | None = None) -> Survey:
    """Look at the history of *request*. Where it needs no repair, `Turn.plain` is known afterwards, and results have
    their call's name, namespace and shape, and their media.

    Args:
      ctx: told how many tokens the request is, if its answer will have to say so.
    """
    found = _Surveyor()
    intact = found.look(request.turns) and found.settle(target, request.client_format)
    if ctx is not None and ctx.client is _CLAUDE and ctx.stream:  # whose streams begin with what was read
        ctx.estimated_input = found.estimate(request) if intact else estimate(request)
    if intact:
        return Survey(called=found.called, turns=found.turns)
    return Survey(called=called_in(request.turns), turns=None)


def without_reasoning(turn: Turn, kept: Callable[[Reasoning], bool] | None = None) -> list[tuple[int, Reasoning]]:
    """Take the reasoning out of *turn*, which `thinks`, so that it is plain.

    Args:
      kept: whether the target reads it; where it reads any of it, nothing is changed.

    Returns: what was taken out, with its places.
    """
    thoughts: list[tuple[int, Reasoning]] = []
    others: list[Part] = []
    for place, part in enumerate(turn.parts):
        if type(part) is not Reasoning:
            others.append(part)
        elif kept is not None and kept(part):
            return []
        else:
            thoughts.append((place, part))
    turn.parts, turn.plain, turn.thinks = others, True, False
    return thoughts


def called_in(turns: list[Turn]) -> set[Key]:
    """Names of all calls and results, wherever they stand."""
    return {
        (part.namespace, part.name)
        for turn in turns
        for part in turn.parts
        if type(part) is Call or (type(part) is Result and part.name)
    }


class _Surveyor:
    """Collects while it looks; nothing is changed before `settle`."""

    def __init__(self) -> None:
        self.called: set[Key] = set()
        self.turns: list[Turn] = []
        self._names: set[str] = set()
        self._calls: list[Call] = []  # that are answered, and what by
        self._results: list[Result] = []
        self._plain: list[Turn] = []
        self._thinking: list[Turn] = []
        self._unsure: list[tuple[Turn, Result]] = []  # what may be media in disguise
        self._texts: list[Text] = []  # of turns and of results
        self._others: list[Part] = []  # neither texts nor calls that are answered, nor results that are one text

    def look(self, turns: list[Turn]) -> bool:
        """Whether each call is answered directly after its turn, in order, and nothing else is."""
        asked: list[Call] = []
        for turn in turns:
            parts = turn.parts
            if not parts:
                continue
            if turn.role is _ASSISTANT:
                if asked or not self._look_at_model(turn, parts, asked):
                    return False
            elif not asked:
                if not self._look_at_others(turn, parts):
                    return False
            else:
                if turn.role is not _USER or not self._look_at_answers(turn, parts, asked):
                    return False
                asked = []
        return not asked

    def _look_at_model(self, turn: Turn, parts: list[Part], asked: list[Call]) -> bool:
        plain = not turn.name
        says = thinks = False
        texts = self._texts
        for part in parts:
            if type(part) is Call:
                says = True
                asked.append(part)
                if part.namespace:
                    self.called.add((part.namespace, part.name))
                else:
                    self._names.add(part.name)
                if part.cache:
                    plain = False
            elif type(part) is Text:
                says = True
                texts.append(part)
                if part.cache or part.annotations or not (part.prose or not is_blank(part)):
                    plain = False
                elif asked and not turn.ordered:
                    plain = False  # it belongs before the calls
            elif type(part) is Result:
                return False
            else:
                self._others.append(part)
                if type(part) is Reasoning:
                    thinks = True
                else:
                    plain = False
        if plain and says:
            (self._thinking if thinks else self._plain).append(turn)
        self.turns.append(turn)
        return True

    def _look_at_others(self, turn: Turn, parts: list[Part]) -> bool:
        """A turn of the user or of the operator without answers."""
        plain = not turn.name and turn.role is _USER
        for part in parts:
            if type(part) is Text:
                self._texts.append(part)
                if part.cache or part.annotations or not (part.prose or not is_blank(part)):
                    plain = False
            elif type(part) is Result:
                return False
            else:
                plain = False
                self._others.append(part)
                if type(part) is Call:  # nobody answers it there
                    self.called.add((part.namespace, part.name))
        if plain:
            self._plain.append(turn)
        self.turns.append(turn)
        return True

    def _look_at_answers(self, turn: Turn, parts: list[Part], asked: list[Call]) -> bool:
        """A user's turn behind calls: their results and perhaps more, which becomes a turn of its own."""
        count = len(asked)
        if len(parts) < count:
            return False
        rest = None
        if len(parts) > count:
            rest = with_parts(turn, parts[count:])
            turn = Turn(_USER, parts[:count])
        elif turn.name or turn.phase:
            turn = Turn(_USER, parts)
        plain = True
        texts, results = self._texts, self._results
        self._calls += asked
        for call, answer in zip(asked, parts):  # noqa: B905 - what is left over is `rest`
            if type(answer) is not Result or answer.call_id != call.call_id:
                return False
            if answer.name and (answer.name != call.name or answer.namespace != call.namespace):
                self.called.add((answer.namespace, answer.name))
            results.append(answer)
            inner = answer.parts
            only = inner[0] if len(inner) == 1 and not answer.json else None
            if type(only) is not Text:
                plain = False
                self._others.append(answer)
            elif only.prose:
                texts.append(only)
                if only.cache or only.annotations or answer.cache:
                    plain = False
            else:
                self._others.append(answer)
                self._unsure.append((turn, answer))
                if only.cache or only.annotations or answer.cache or not (only.written or only.text):
                    plain = False
        if plain:
            self._plain.append(turn)
        self.turns.append(turn)
        return rest is None or self._look_at_others(rest, rest.parts)

    def estimate(self, request: IRRequest) -> int:
        """How many tokens *request*, which was looked at and settled, is."""
        return estimate_sorted(request, self._texts, self._calls, self._others)

    def settle(self, target: RepairTarget, issuer: str) -> bool:
        """Make what was seen true, unless *target* does not take the ids. *issuer*: format of the client."""
        ids = [call.call_id for call in self._calls]
        if ids and (not all(ids) or len(set(ids)) != len(ids) or not target.accepts_ids(ids)):
            return False
        self.called.update(("", name) for name in self._names)
        for call, answer in zip(self._calls, self._results, strict=True):
            # Emitters need more of a call than its id: Gemini its name, Responses whether it took free text.
            answer.name, answer.namespace, answer.shape = call.name, call.namespace, call.shape
        for turn in self._plain:
            turn.plain = True
        for turn in self._thinking:
            turn.thinks = True
        for turn, answer in self._unsure:
            unpack_media(answer, issuer)
            if len(answer.parts) != 1 or type(answer.parts[0]) is not Text:
                turn.plain = False
        return True
