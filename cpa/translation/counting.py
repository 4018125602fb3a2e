"""Token counts across protocols, and the estimate where nobody counts (translation Part 6).

Of texts it is `cpa.formats.estimate`'s: stable, which is what clients that trim their history need.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

import msgspec

from cpa.errors import MalformedRequest, UpstreamProtocolError
from cpa.formats.estimate import estimate_chars
from cpa.formats.json import decode_members, encode
from cpa.formats.names import Format
from cpa.formats.scan import count_chars
from cpa.translation.ir import (
    Call,
    Compaction,
    IRRequest,
    Media,
    MediaKind,
    Native,
    Part,
    Reasoning,
    Refusal,
    Result,
    ServerCall,
    ServerResult,
    Text,
    Written,
)
from cpa.translation.tool_cache import Toolset

TOKENS_PER_MESSAGE: Final = 4
SAMPLE_BYTES: Final = 512
MAX_SAMPLES: Final = 24
_sampled: Final = Struct(f"x{SAMPLE_BYTES - 1}s").unpack_from
MEDIA_TOKENS: Final = {MediaKind.IMAGE: 1500, MediaKind.FILE: 3000, MediaKind.AUDIO: 500, MediaKind.VIDEO: 3000}

COUNTED_BY_PROVIDER: Final = frozenset({Format.CLAUDE, Format.GEMINI})
"""Protocols with a counting endpoint that a foreign request can be translated for."""
_NOT_COUNTED: Final = frozenset({"max_tokens", "stream", "metadata", "stop_sequences", "service_tier", "temperature"})
"""Members that the Claude endpoint refuses or that cost nothing."""


def estimate(request: IRRequest) -> int:
    """How many tokens *request* is, roughly; the same for the same request."""
    found = _Collected()
    for turn in request.turns:
        found.look(turn.parts)
    return _total(request, found)


def estimate_sorted(request: IRRequest, said: list[Text], calls: list[Call], others: list[Part]) -> int:
    """The same for whoever has looked at all parts, and knows which are texts, results that are one text included, and
    which are calls."""
    found = _Collected()
    found.take([text.written or text.text for text in said])
    found.take_calls(calls)
    found.look(others)
    return _total(request, found)


def _total(request: IRRequest, found: "_Collected") -> int:
    found.take([block.written or block.text for block in request.system])
    counts = (
        _of_tools(request),
        count_texts(found.texts),
        _of_literals(found.literals),
        (found.plain, 0),
    )
    extra = found.extra + TOKENS_PER_MESSAGE * (len(request.turns) + 1)
    return estimate_chars(sum(plain for plain, _ in counts), sum(wide for _, wide in counts)) + extra


def _of_tools(request: IRRequest) -> tuple[int, int]:
    """(ASCII characters, others) in the tools of *request*, counted once for all requests that send the same."""
    known = request.toolset
    if isinstance(known, Toolset) and known.chars is not None:
        return known.chars
    texts = [text for tool in request.tools for text in (tool.name, tool.description)]
    plain, wide = count_chars("\n".join(texts).encode("utf-8", "replace"))
    plain += sum(len(tool.schema or tool.grammar or tool.config) for tool in request.tools)
    if isinstance(known, Toolset):
        known.chars = plain, wide
    return plain, wide


class _Collected:
    """What there is to be counted.

    Attributes:
      texts: to be counted exactly. *literals*: long ones, see `_of_literals`.
      plain: ASCII characters of which no more is to be known. *extra*: tokens.
    """

    __slots__ = ("extra", "literals", "plain", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.literals: list[msgspec.Raw] = []
        self.plain = 0
        self.extra = 0

    def take(self, texts: list[Written]) -> None:
        """Texts as they came."""
        for text in texts:
            if type(text) is msgspec.Raw:
                self.literals.append(text)
            elif type(text) is str:
                self.texts.append(text)

    def take_calls(self, calls: list[Call]) -> None:
        """Calls, of which only names and arguments are read by a model."""
        for call in calls:
            written = call.written
            undecoded = type(written) is msgspec.Raw and not call.args_text
            self.plain += len(call.name) + len(written if undecoded else call.args)

    def look(self, parts: Sequence[Part]) -> None:
        """The parts of a turn, or of a result."""
        for part in parts:
            if type(part) is Result and len(part.parts) == 1 and not part.json:
                part = part.parts[0]
            if type(part) is Reasoning:
                self.texts += part.texts
            elif type(part) is Text:
                self.take([part.written or part.text])
            elif type(part) is Call:
                self.take_calls([part])
            elif type(part) is Result:
                self.plain += len(part.json)
                self.look(part.parts)
            else:
                self.extra += _media_tokens(part)
                self.texts += _texts(part)


def count_texts(texts: list[str]) -> tuple[int, int]:
    """(ASCII characters, others) in *texts*, between which one character stands."""
    others = [text for text in texts if not text.isascii()]
    plain = sum(map(len, texts)) + max(0, len(texts) - 1)
    if not others:
        return plain, 0
    joined = "".join(others)
    ascii_chars, wide = count_chars(joined.encode("utf-8", "replace"))
    return plain - len(joined) + ascii_chars, wide


def _of_literals(literals: list[msgspec.Raw]) -> tuple[int, int]:
    """The same of long texts, of which some are looked at, and stand for all: to decode a session's files and logs for
    an estimate costs more than the translation."""
    if not literals:
        return 0, 0
    size = sum(map(len, literals)) - 2 * len(literals)
    chosen = literals[:: max(1, len(literals) // MAX_SAMPLES)]
    sample = b"".join(
        [
            # Half the time of a slice of a view, and as little is copied.
            _sampled(literal)[0] if len(literal) > SAMPLE_BYTES else bytes(literal)[1:-1]
            for literal in chosen
        ]
    )
    ascii_chars, wide = count_chars(sample)
    ascii_chars -= sample.count(b"\\")  # an escape is two bytes for one character, nearly always
    return ascii_chars * size // len(sample), wide * size // len(sample)


def _texts(part: Part) -> list[str]:
    match part:
        case Refusal() | Media():
            return [part.text]
        case ServerCall() | ServerResult() | Native():
            return [part.raw.decode("utf-8", "replace")]
        case Text() | Call() | Result() | Reasoning() | Compaction():
            return []


def _media_tokens(part: Part) -> int:
    return MEDIA_TOKENS[part.media] if isinstance(part, Media) and not part.text else 0


def unwrap_count_request(client: Format, body: bytes) -> bytes:
    """The request whose tokens a client asks for; Gemini clients may wrap it. Raises: MalformedRequest."""
    if client is not Format.GEMINI:
        return body
    try:
        members = decode_members(body)
    except ValueError as exc:
        raise MalformedRequest(f"the body is not a JSON object: {exc}") from exc
    wrapped = members.get("generateContentRequest", members.get("generate_content_request"))
    return body if wrapped is None else bytes(wrapped)


def count_request(provider: Format, body: bytes, model: str) -> bytes:
    """A translated request as *provider*'s counting endpoint takes it."""
    members = decode_members(body)
    if provider is Format.GEMINI:
        name = msgspec.Raw(encode(f"models/{model}"))
        return encode({"generateContentRequest": {"model": name, **members}})
    return encode({name: value for name, value in members.items() if name not in _NOT_COUNTED})


_COUNT_NAMES: Final = ("input_tokens", "totalTokens", "total_tokens")
_COUNT_DIGITS: Final = 15
"""More cannot be meant."""


def read_count(provider: Format, body: bytes) -> int:
    """The number in a provider's answer. Raises: UpstreamProtocolError."""
    name = "totalTokens" if provider is Format.GEMINI else "input_tokens"
    try:
        number = bytes(decode_members(body)[name])
    except (ValueError, KeyError):
        number = b""
    if not number.isdigit() or len(number) > _COUNT_DIGITS:
        raise UpstreamProtocolError("the provider's token count has no number in it")
    return int(number)


def find_count(body: bytes) -> int | None:
    """The number in a plugin's answer, in whichever protocol's words it is; None when there is none.

    Plugins' executors count in the words of their output format or in none's (plugin-abi 4.7.5 has ``total_tokens``).
    """
    try:
        members = decode_members(body)
    except ValueError:
        return None
    for name in _COUNT_NAMES:
        number = bytes(members[name]) if name in members else b""
        if number.isdigit() and len(number) <= _COUNT_DIGITS:
            return int(number)
    return None


def count_reply(client: Format, tokens: int) -> bytes:
    """*tokens* as a client wants to hear them."""
    match client:
        case Format.GEMINI:
            details = [{"modality": "TEXT", "tokenCount": tokens}]
            return encode({"totalTokens": tokens, "promptTokensDetails": details})
        case Format.OPENAI_RESPONSE:
            return encode({"object": "response.input_tokens", "input_tokens": tokens})
        case _:
            return encode({"input_tokens": tokens})
