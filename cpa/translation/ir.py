"""The intermediate representation: what any of the four protocols can say, as flat structs (translation 0.3, 0.4).

It is a union, not an intersection: what only one protocol knows has a home here, and what none of the parsers
understands is kept as raw JSON with its origin, to be emitted to that family only. `Raw` is undecoded JSON text; tool
schemas, tool arguments, tool results and base64 data are never decoded on the way.

Structs are mutable: the passes of `tools.py` edit the request that a parser made, which nobody else holds. Names and
members are those of the specification; tests rely on them.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from cpa.translation.undecoded import Comparable, read_on_demand

Raw: TypeAlias = bytes
"""JSON text, undecoded: an object, list, string, number or literal; b"" = absent."""
NO_RAW: Final = b""
Written: TypeAlias = Any
"""What can be written as it is: a `msgspec.Raw` that views the request's body, or a string; None = there is nothing of
the kind. `Any`, because `JsonValue` has no word for the former."""
_decode_text: Final = msgspec.json.Decoder(str).decode


class Struct(msgspec.Struct, gc=False):
    """Base of all values here: cheap and mutable."""


def _text_of(written: Written) -> str:
    text: str = written if type(written) is str else _decode_text(written)
    return text


def _bytes_of(written: Written) -> bytes:
    if type(written) is str:
        return written.encode()
    data = bytes(written)
    return _decode_text(data).encode() if data.startswith(b'"') else data


# --- request ---------------------------------------------------------------------------------------------------------


class Provenance(StrEnum):
    """Whose state a signature is."""

    CLAUDE = "claude"
    GEMINI = "gemini"
    OPENAI = "openai"
    KIMI = "kimi"
    UNKNOWN = "unknown"


class SigKind(StrEnum):
    """What a signature belongs to (2.10)."""

    THINKING = "thinking"
    REDACTED = "redacted"
    ENCRYPTED = "encrypted"
    PART = "part"


class Sig(Struct):
    """Opaque provider state, which has to come back unchanged.

    Attributes:
      preceding: it belongs to the part before it (envelope flag 1).
      model: a hint of the model that made it, or empty.
      of_call: `SigKind.PART` of a tool call (envelope kind 5), not of text.
    """

    provenance: Provenance
    kind: SigKind
    data: str
    preceding: bool = False
    model: str = ""
    of_call: bool = False


class Authority(StrEnum):
    """Who speaks in a system text; both are the operator."""

    SYSTEM = "system"
    DEVELOPER = "developer"


class SysBlock(Comparable):
    """One block of leading system text. *cache*: its ``cache_control``. *instructions*: Responses' own member.

    *written* and *prose* as of `Text`.
    """

    text: str
    authority: Authority = Authority.SYSTEM
    cache: Raw = NO_RAW
    instructions: bool = False
    written: Written = None
    prose: bool = False


read_on_demand(SysBlock, "text", _text_of)


class Annotation(Struct):
    """A citation (3.5). Offsets count Unicode code points of the block's text; -1 = not stated.

    Attributes:
      kind: ``url``, ``file``, ``doc`` or ``search``.
      origin: format that it came from; *raw*: as it came.
    """

    kind: str
    url: str = ""
    title: str = ""
    start: int = -1
    end: int = -1
    cited_text: str = ""
    origin: str = ""
    raw: Raw = NO_RAW


class Text(Comparable):
    """Visible text.

    Attributes:
      phase: of the Responses message that it stood in.
      written: the text as it came, a long one undecoded (`literals.read_text`); *text* is then decoded when somebody
        asks for it, not before. What writes a text therefore writes ``written or text``, and what wants to know whether
        there is any asks for the same. Neither is ever assigned to: another text is another part.
      prose: behind white space it begins with a visible ASCII character that is no bracket. False = not known.
    """

    text: str
    annotations: Sequence[Annotation] = ()
    sigs: Sequence[Sig] = ()
    cache: Raw = NO_RAW
    phase: str = ""
    written: Written = None
    prose: bool = False


read_on_demand(Text, "text", _text_of)


class MediaKind(StrEnum):
    """What kind of content."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"


class Media(Struct):
    """Non-text content: exactly one of *b64* (with *mime*), *url*, *file_id* (with *issuer*) and *text* is filled.

    Attributes:
      b64: base64 text, never decoded.
      issuer: format whose provider made the file id.
      text: a plain-text document.
      name, title, context: file name, and what a Claude document says of itself.
      detail: ``auto``, ``low``, ``high``, ``original`` or empty.
    """

    media: MediaKind
    mime: str = ""
    b64: str = ""
    url: str = ""
    file_id: str = ""
    issuer: str = ""
    text: str = ""
    name: str = ""
    title: str = ""
    context: str = ""
    detail: str = ""
    citations_on: bool = False
    sigs: list[Sig] = []
    cache: Raw = NO_RAW


class Shape(StrEnum):
    """How a tool takes its input."""

    JSON = "json"
    TEXT = "text"


class Call(Comparable):
    """A tool call in the history.

    Attributes:
      call_id: empty when the protocol gave none; `tools.repair` fills it.
      item_id: of a Responses item.
      name: in the client's spelling; *namespace*: of a Responses tool.
      args: JSON text of an object (`Shape.JSON` from Claude and Gemini), or the argument string as it came.
      args_text: *args* is a string that somebody else wrote and need not be JSON (Chat, Responses, custom tools).
      written: the arguments as they came: the string, undecoded or not, or the undecoded object. None = only
        *args* has them.
    """

    call_id: str
    name: str
    args: bytes = b""
    args_text: bool = False
    shape: Shape = Shape.JSON
    namespace: str = ""
    item_id: str = ""
    sigs: Sequence[Sig] = ()
    status: str = ""
    cache: Raw = NO_RAW
    written: Written = None


read_on_demand(Call, "args", _bytes_of)


class Result(Struct):
    """A tool's result.

    Attributes:
      call_id, name: may be empty; `tools.repair` fills both, *namespace* and *shape* from the call.
      parts: text and media; empty when *json* is given.
      json: one JSON value that is no text (Gemini).
    """

    call_id: str
    name: str = ""
    parts: "list[Text | Media]" = []
    json: Raw = NO_RAW
    is_error: bool = False
    shape: Shape = Shape.JSON
    status: str = ""
    item_id: str = ""
    cache: Raw = NO_RAW
    namespace: str = ""


class Channel(StrEnum):
    """Where visible reasoning comes from (2.10)."""

    SUMMARY = "summary"
    RAW = "raw"


class Reasoning(Struct):
    """Reasoning of an earlier turn. *redacted*: nothing but its signature may be seen.

    *hidden*: raw reasoning of a Responses item that shows a summary; for its own family only.
    """

    texts: list[str] = []
    channel: Channel = Channel.SUMMARY
    sigs: list[Sig] = []
    item_id: str = ""
    redacted: bool = False
    hidden: list[str] = []


class Refusal(Struct):
    """Text with which the model refused."""

    text: str


class ServerCall(Struct):
    """A step of a tool that the provider runs: ``web_search``, ``web_fetch``, ``code``, ``image_gen``, ``file_search``,
    ``mcp`` or ``other``."""

    kind: str
    origin: str
    raw: Raw
    call_id: str = ""


class ServerResult(Struct):
    """What it gave."""

    kind: str
    origin: str
    raw: Raw
    call_id: str = ""


class Compaction(Struct):
    """Compacted history. *text*: what it says, if it is ours; else *data* is somebody's secret."""

    origin: str
    data: str
    text: str = ""


class Native(Struct):
    """What no parser understood; for its own family only. *inner*: a content part of a Responses message, no item."""

    origin: str
    raw: Raw
    inner: bool = False


Part: TypeAlias = Text | Media | Call | Result | Reasoning | Refusal | ServerCall | ServerResult | Compaction | Native
"""Anything that a turn may hold."""


class Role(StrEnum):
    """Who speaks in a turn; system text after the first other turn is a turn of its own."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


class Turn(Comparable):
    """One turn; an assistant's holds reasoning, text and calls in their true order.

    Attributes:
      name: of a Chat message. *phase*: of a Responses message.
      authority: of a system turn.
      ordered: the order of text and calls means something (all protocols but Chat).
      plain: nothing but what every target takes as it is (`tool_survey.survey`). False = not known.
      thinks: it would be plain without its reasoning. False = not known.
    """

    role: Role
    parts: list[Part]
    name: str = ""
    phase: str = ""
    authority: Authority = Authority.SYSTEM
    ordered: bool = True
    plain: bool = False
    thinks: bool = False


class ToolKind(StrEnum):
    """Who runs a tool, and how it takes its input."""

    FUNCTION = "function"
    CUSTOM = "custom"
    SERVER = "server"


class Tool(Struct):
    """A tool definition.

    Attributes:
      namespace: of a Responses namespace's child; *namespace_description* likewise.
      schema: of a function's input; absent = takes nothing. *strict*: None = not stated.
      grammar: a custom tool's ``format`` in the Responses spelling.
      server: what a server tool does, as in `ServerCall.kind`; *config*: as it came, from *origin*.
      schema_openapi: *schema* is Gemini's OpenAPI dialect (upper-case types).
    """

    kind: ToolKind
    name: str
    description: str = ""
    namespace: str = ""
    namespace_description: str = ""
    schema: Raw = NO_RAW
    schema_openapi: bool = False
    strict: bool | None = None
    grammar: Raw = NO_RAW
    server: str = ""
    config: Raw = NO_RAW
    cache: Raw = NO_RAW
    defer_loading: bool = False
    extras: dict[str, Raw] = {}
    origin: str = ""


class ChoiceMode(StrEnum):
    """What the model may do with tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"
    SUBSET = "subset"
    SERVER = "server"


class ToolChoice(Struct):
    """*names*: (namespace, name) of a named tool or of a subset, or ("", kind) of a server tool.

    *required*: of a subset, one of it must be called. *custom*: the named tool is a custom one. *raw*: a choice of
    Responses that nobody else can say, as it came.
    """

    mode: ChoiceMode
    names: list[tuple[str, str]] = []
    required: bool = False
    custom: bool = False
    raw: Raw = NO_RAW


class Sampling(Struct):
    """None = not stated. *logit_bias* is raw."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence: float | None = None
    frequency: float | None = None
    logit_bias: Raw = NO_RAW
    stop: list[str] = []
    max_out: int | None = None
    n: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None


class OutputKind(StrEnum):
    """What the answer's text is to be."""

    TEXT = "text"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


class OutputSpec(Struct):
    """Structured output and modalities. *schema_openapi* as in `Tool`. *enum_text*: Gemini's ``text/x.enum``."""

    kind: OutputKind = OutputKind.TEXT
    name: str = ""
    description: str = ""
    schema: Raw = NO_RAW
    schema_openapi: bool = False
    strict: bool | None = None
    enum_text: bool = False
    verbosity: str = ""
    modalities: list[str] = []
    image: Raw = NO_RAW
    audio: Raw = NO_RAW


class ReasoningMode(StrEnum):
    """How much reasoning was asked for."""

    UNSET = "unset"
    OFF = "off"
    AUTO = "auto"
    LEVEL = "level"
    BUDGET = "budget"
    BETWEEN_TOOLS = "between_tools"


class ReasoningIntent(Struct):
    """See translation 2.9. Both *level* and *budget* may be given; *mode* says which was meant first.

    Attributes:
      suffix: it comes from the model's name, which beats the body.
      visible: whether the client wants to see reasoning; None = did not say.
      detail: ``auto``, ``concise``, ``detailed``, ``summarized``, ``omitted`` or empty.
      carry: the client can carry encrypted state.
      extra: members of Responses only.
      effort_only: of Claude, an effort without ``thinking``; its own family keeps it so.
    """

    mode: ReasoningMode = ReasoningMode.UNSET
    level: str = ""
    budget: int = 0
    suffix: bool = False
    visible: bool | None = None
    detail: str = ""
    carry: bool = False
    extra: dict[str, Raw] = {}
    effort_only: bool = False


class Identity(Struct):
    """Who asks."""

    end_user: str = ""
    session: str = ""
    cache_key: str = ""
    metadata: Raw = NO_RAW


class StateSpec(Struct):
    """Server-side state of Responses clients."""

    previous_id: str = ""
    conversation: Raw = NO_RAW
    store: bool | None = None
    background: bool = False
    truncation: str = ""
    include: list[str] = []
    prompt: Raw = NO_RAW
    context_management: Raw = NO_RAW
    max_tool_calls: int | None = None


class IRRequest(Comparable):
    """A request, whoever made it.

    Attributes:
      client_format, client_model: as the client spoke; *model*: the id for the provider.
      tier: ``auto``, ``standard``, ``flex``, ``priority``, ``fast``, ``ultrafast`` or empty.
      safety: Gemini's ``safetySettings``. *cache_hint*: a request-level ``cache_control``.
      include_usage: the client wants usage in its stream; None = did not say.
      legacy_functions: a Chat client that knows ``functions`` only.
      extras: unknown top-level members, by the client's format.
      toolset: a `tool_cache.Toolset`, what is known of *tools* since they were sent before; None = nothing.
    """

    client_format: str
    client_model: str
    model: str
    stream: bool
    system: list[SysBlock] = msgspec.field(default_factory=list)
    turns: list[Turn] = msgspec.field(default_factory=list)
    tools: list[Tool] = msgspec.field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel: bool | None = None
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    output: OutputSpec = msgspec.field(default_factory=OutputSpec)
    reasoning: ReasoningIntent = msgspec.field(default_factory=ReasoningIntent)
    identity: Identity = msgspec.field(default_factory=Identity)
    tier: str = ""
    state: StateSpec = msgspec.field(default_factory=StateSpec)
    safety: Raw = NO_RAW
    cache_hint: Raw = NO_RAW
    include_usage: bool | None = None
    legacy_functions: bool = False
    extras: dict[str, dict[str, Raw]] = msgspec.field(default_factory=dict)
    toolset: object = None


# --- response events -------------------------------------------------------------------------------------------------


class BlockKind(StrEnum):
    """What a block of an answer is."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL = "tool"
    CUSTOM_TOOL = "custom_tool"
    REFUSAL = "refusal"
    IMAGE = "image"
    AUDIO = "audio"
    SERVER_CALL = "server_call"
    SERVER_RESULT = "server_result"
    OPAQUE = "opaque"


class StopReason(StrEnum):
    """Why an answer ended (3.3)."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    TOOL_USE = "tool_use"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"
    REFUSAL = "refusal"
    PAUSE = "pause"
    MALFORMED_CALL = "malformed_call"
    OTHER = "other"
    CANCELLED = "cancelled"


class Tokens(Struct):
    """Usage (3.4), cumulative. None = not stated, which never erases what was.

    *input* is everything that the model read, *output* everything that it wrote, reasoning included. *tool_prompt* is
    not part of *input*.
    """

    input: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    tool_prompt: int | None = None
    output: int | None = None
    reasoning: int | None = None
    total: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_output: int | None = None
    searches: int | None = None
    tier: str = ""
    speed: str = ""
    estimated: bool = False


class Meta(Struct):
    """What is known of a block when it opens."""

    item_id: str = ""
    call_id: str = ""
    name: str = ""
    namespace: str = ""
    phase: str = ""
    mime: str = ""
    channel: Channel = Channel.SUMMARY
    redacted: bool = False
    server: str = ""
    origin: str = ""
    raw: Raw = NO_RAW


class Event(Struct, kw_only=True):
    """Base of the events; *choice* is 0 unless several answers were asked for."""

    choice: int = 0


class Start(Event, tag=True):
    """The answer begins. *created_unix* 0 = not stated."""

    id: str = ""
    model: str = ""
    created_unix: int = 0


class Open(Event, tag=True):
    """Block *b* begins."""

    b: int
    kind: BlockKind
    meta: Meta = msgspec.field(default_factory=Meta)


class TokenProb(Struct):
    """How likely a token of an answer was (2.4).

    Attributes:
      logprob: natural logarithm, finite, at most 0 in practice.
      bytes: of the token, which need not be whole characters; None = those of *token*.
      token_id: Gemini's; -1 = not stated.
      top: what else might have come; theirs is empty.
    """

    token: str
    logprob: float
    bytes: list[int] | None = None
    token_id: int = -1
    top: "tuple[TokenProb, ...]" = ()


class Delta(Event, tag=True):
    """More of block *b*: text, reasoning, argument text, refusal, or base64.

    *probs*: of its tokens, of text and refusals. Behind the normalizer *s* is empty only where they came too late.
    """

    b: int
    s: str
    probs: tuple[TokenProb, ...] = ()


class PartBreak(Event, tag=True):
    """The boundary between two parts of one reasoning block."""

    b: int


class SigEvent(Event, tag=True):
    """A signature for block *b*; -1 = for none. A later one of a block replaces an earlier one."""

    b: int
    sig: Sig


class Ann(Event, tag=True):
    """A citation for block *b*."""

    b: int
    annotation: Annotation


class Close(Event, tag=True):
    """Block *b* ends. *final*: all of it, authoritative (E6); None = what was streamed. *incomplete*: it was cut.

    Behind the normalizer *final* is always None: what was missing came as a `Delta`. *failed*: an `Err` follows at
    once, so that the block is not closed on the wire (4.9a: half an argument text would break parsers); implies
    *incomplete*.
    """

    b: int
    final: str | None = None
    incomplete: bool = False
    failed: bool = False


class Usage(Event, tag=True):
    """What was used so far."""

    tokens: Tokens


class Stop(Event, tag=True):
    """Why the answer ends. *detail*: the provider's words; *sequence*: the stop sequence, if known."""

    reason: StopReason
    detail: str = ""
    sequence: str = ""


class Ping(Event, tag=True):
    """A sign of life."""


class End(Event, tag=True):
    """The normal end."""


class Err(Event, tag=True):
    """The abnormal end. *status*, *code* and *message* as `cpa.formats.errors` means them."""

    status: int
    message: str
    code: str = ""
    retry_after_s: float | None = None


IREvent: TypeAlias = Start | Open | Delta | PartBreak | SigEvent | Ann | Close | Usage | Stop | Ping | End | Err
"""One event of an answer. What emitters may rely on is E1 to E9, which `normalizer.Normalizer` makes true."""
