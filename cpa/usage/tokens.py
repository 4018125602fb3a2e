"""Token counts out of providers' answers, whole and streamed (proxy 7.3, translation 3.4).

Theory of operation. A protocol is a row of `RULES`: the member that holds usage, where in an answer or event it may
stand, and which of its members mean what. In a stream the last object that states a count holds, because they are
cumulative; only Claude states the input first and the output last, so there it is the last of each count. Nothing here
raises: what a provider says of its usage is information, and nonsense is the same as none.

Most blocks of a stream say nothing of usage, which one search finds out. Gemini says it in every frame: therefore an
event is kept, and decoded when somebody asks.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import msgspec

from cpa.formats.json import repair
from cpa.formats.names import Format
from cpa.formats.sse import event_data, split_events
from cpa.usage.record import NO_TOKENS, Tokens

MAX_USAGE_BYTES: Final = 64 * 1024
"""Largest usage object that is read; real ones have a few hundred bytes."""
MAX_COUNT: Final = 1 << 53
"""Larger counts are nonsense; and sums of smaller ones fit into the 64 bits that plugins expect."""

_NONE = msgspec.Raw(b"")
_Path = tuple[str, ...]
_NOTHING: Final[dict[str, int]] = dict.fromkeys(
    ("input", "tool_input", "output", "reasoning", "cache_read", "cache_creation", "total"), 0
)


class _Places(msgspec.Struct, gc=False):
    """Members that are usage or lead to it; at the top level of an answer or event, and one level down."""

    usage: msgspec.Raw = _NONE
    usageMetadata: msgspec.Raw = _NONE
    message: msgspec.Raw = _NONE
    response: msgspec.Raw = _NONE


@attrs.frozen(kw_only=True)
class Rule:
    """Where and how a protocol states usage.

    Attributes:
      member: name of the usage object.
      inside: member of an event that may hold it instead of the event itself; empty = none.
      hint: what every object that states a count contains, and ``null`` does not.
      paths: members of the usage object, by what they count: input, tool_input, output, reasoning, cache_read,
        cache_creation, total.
      outside: what adds to input and output when no total is stated.
      merged: objects of one stream complete each other; else the last one says it all.
      marker, reads: made of the above.
    """

    member: str
    inside: str
    hint: bytes
    paths: Mapping[str, _Path]
    outside: tuple[str, ...] = ()
    merged: bool = False
    marker: bytes = attrs.field(init=False)
    reads: tuple[tuple[str, str, str], ...] = attrs.field(init=False)

    @marker.default
    def _marker(self) -> bytes:
        # With its quotes: text that mentions it has them escaped.
        return f'"{self.member}"'.encode()

    @reads.default
    def _reads(self) -> tuple[tuple[str, str, str], ...]:
        # `paths` as it is walked for every answer: what is counted, the member, and the one inside it or nothing.
        return tuple((name, *path, *("",) * (2 - len(path))) for name, path in self.paths.items())  # type: ignore[misc]


_RESPONSES = Rule(
    member="usage",
    inside="response",
    hint=b'_tokens"',
    paths={
        "input": ("input_tokens",),
        "output": ("output_tokens",),
        "reasoning": ("output_tokens_details", "reasoning_tokens"),
        "cache_read": ("input_tokens_details", "cached_tokens"),
        "cache_creation": ("input_tokens_details", "cache_write_tokens"),
        "total": ("total_tokens",),
    },
)
RULES: Mapping[str, Rule] = {
    Format.OPENAI: Rule(
        member="usage",
        inside="",
        hint=b'_tokens"',
        paths={
            "input": ("prompt_tokens",),
            "output": ("completion_tokens",),
            "reasoning": ("completion_tokens_details", "reasoning_tokens"),
            "cache_read": ("prompt_tokens_details", "cached_tokens"),
            "cache_creation": ("prompt_tokens_details", "cache_write_tokens"),
            "total": ("total_tokens",),
        },
    ),
    Format.OPENAI_RESPONSE: _RESPONSES,
    Format.CODEX: _RESPONSES,
    Format.CLAUDE: Rule(
        member="usage",
        inside="message",
        hint=b'_tokens"',
        paths={
            "input": ("input_tokens",),
            "output": ("output_tokens",),
            "reasoning": ("output_tokens_details", "thinking_tokens"),
            "cache_read": ("cache_read_input_tokens",),
            "cache_creation": ("cache_creation_input_tokens",),
        },
        outside=("cache_read", "cache_creation"),
        merged=True,
    ),
    Format.GEMINI: Rule(
        member="usageMetadata",
        inside="response",
        hint=b'TokenCount"',
        paths={
            "input": ("promptTokenCount",),
            "tool_input": ("toolUsePromptTokenCount",),
            "output": ("candidatesTokenCount",),
            "reasoning": ("thoughtsTokenCount",),
            "cache_read": ("cachedContentTokenCount",),
            "total": ("totalTokenCount",),
        },
        outside=("reasoning",),
    ),
}
"""By name of the protocol; a plugin's own protocol has none, and its answers no counts."""

_decode_places = msgspec.json.Decoder(_Places).decode
_decode_object = msgspec.json.Decoder(dict[str, object]).decode


def tokens_of_body(fmt: str, body: bytes) -> Tokens:
    """The counts of a whole answer in the protocol *fmt*; zeros when it states none. Never raises."""
    meter = TokenMeter(fmt)
    meter.read(body)
    return meter.tokens


def states_output(fmt: str, data: bytes) -> bool:
    """Whether one event's *data* in the protocol *fmt* says how much was written so far. Never raises."""
    rule = RULES.get(fmt)
    if rule is None or data.find(rule.marker) < 0 or data.find(rule.hint) < 0:
        return False
    return any("output" in _counts(rule, usage) for usage in _usage_objects(rule, data))


class TokenMeter:
    """Reads along with one answer in the protocol *fmt*.

    Attributes:
      marker: a block without it says nothing of usage and need not be fed; empty = one cannot tell.
    """

    __slots__ = ("_counts", "_event", "_rule", "marker")

    def __init__(self, fmt: str) -> None:
        rule = self._rule = RULES.get(fmt)
        self.marker = b"" if rule is None else rule.marker
        self._counts: dict[str, int] = {}
        self._event = b""  # the last one with usage, not decoded yet

    @property
    def tokens(self) -> Tokens:
        """The counts so far."""
        rule = self._rule
        if rule is None:
            return NO_TOKENS
        if self._event:
            self._settle(rule)
        return _tokens(rule, self._counts)

    @property
    def says_something(self) -> bool:
        """The provider said how long the prompt or the answer is."""
        if self._event and self._rule is not None:
            self._settle(self._rule)
        return "output" in self._counts or "input" in self._counts

    def states(self, name: str) -> bool:
        """Whether the provider said how many tokens of that kind there are: ``input`` or ``output``."""
        if self._event and self._rule is not None:
            self._settle(self._rule)
        return name in self._counts

    def _settle(self, rule: Rule) -> None:
        event, self._event = self._event, b""
        self._take(rule, event_data(event) or b"")

    def feed(self, block: bytes) -> None:
        """*block*: whole wire events, or units (plugin-abi 6.16) of a plugin's executor. Never raises."""
        rule = self._rule
        if rule is None or block.find(rule.marker) < 0 or block.find(rule.hint) < 0:
            return
        for event in split_events(block):
            if event.find(rule.marker) < 0 or event.find(rule.hint) < 0:
                continue
            if rule.merged:
                self._take(rule, event_data(event) or b"")
            else:
                self._event = event

    def read(self, body: bytes) -> None:
        """*body*: a whole JSON answer. Never raises."""
        rule = self._rule
        if rule is not None and rule.marker in body:
            self._take(rule, body)

    def _take(self, rule: Rule, data: bytes) -> None:
        if not rule.merged:
            self._counts = {}
        for usage in _usage_objects(rule, data):
            self._counts |= _counts(rule, usage)


def _tokens(rule: Rule, counts: dict[str, int]) -> Tokens:
    if not counts:
        return NO_TOKENS
    known = _NOTHING | counts
    input_tokens, output_tokens, total_tokens = known["input"] + known["tool_input"], known["output"], known["total"]
    if not total_tokens:
        total_tokens = input_tokens + output_tokens
        for name in rule.outside:
            total_tokens += known[name]
    return Tokens(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=known["reasoning"],
        cache_read_tokens=known["cache_read"],
        cache_creation_tokens=known["cache_creation"],
        total_tokens=total_tokens,
    )


def _usage_objects(rule: Rule, data: bytes) -> Sequence[dict[str, object]]:
    """The usage objects of one event or answer, the outer one last."""
    places = _places(data)
    if places is None:
        return ()
    found: list[dict[str, object]] = []
    if rule.inside:
        inner = getattr(places, rule.inside)
        nested = _places(bytes(inner)) if inner is not _NONE else None
        if nested is not None:
            found += _object(getattr(nested, rule.member))
    found += _object(getattr(places, rule.member))
    return found


def _places(data: bytes) -> _Places | None:
    try:
        return _decode_places(data)
    except (ValueError, RecursionError):
        try:
            return _decode_places(repair(data))
        except (ValueError, RecursionError):
            return None


def _object(raw: msgspec.Raw) -> tuple[dict[str, object], ...]:
    """The one object that *raw* is; none when it is something else."""
    if not 2 <= len(memoryview(raw)) <= MAX_USAGE_BYTES:
        return ()
    try:
        return (_decode_object(raw),)
    except (ValueError, RecursionError):
        return ()


def _counts(rule: Rule, usage: dict[str, object]) -> dict[str, int]:
    """What the usage object states. For every answer, and for every frame of some streams: nothing is called here for
    a plain number."""
    counts: dict[str, int] = {}
    for name, member, inner in rule.reads:
        if member not in usage:
            continue
        value = usage[member]
        if inner:
            if type(value) is not dict or inner not in value:
                continue
            value = value[inner]
        if type(value) is int and 0 <= value <= MAX_COUNT:
            counts[name] = value
        elif (count := _count(value)) is not None:
            counts[name] = count
    return counts


def _count(value: object) -> int | None:
    """A count, or None when it is not stated; some gateways write ``12.0``."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None
