"""A whole answer as the stream that it should have been (translation Part 3): one delta per block."""

from cpa.errors import UpstreamProtocolError
from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import Format
from cpa.translation.context import Context, TranslationSettings
from cpa.translation.ir import Err, IRRequest, ReasoningIntent
from cpa.translation.normalizer import Normalizer
from cpa.translation.profile import default_profile
from cpa.translation.registry import spoke


def unfold(body: bytes, provider: Format, *, usage: bool) -> bytes:
    """The events of a stream, in the provider's own protocol, that say what *body* says.

    Args:
      body: JSON, one answer; of Gemini also a list of chunks.
      usage: whether Chat's extra chunk of usage is wanted.

    Raises: UpstreamProtocolError for what is no answer.
    """
    if body.lstrip().startswith(b"["):
        return _listed(body, provider)
    client = Format.OPENAI_RESPONSE if provider is Format.CODEX else provider
    ctx = Context(
        client=client,
        provider=provider,
        client_model="",
        model="",
        stream=True,
        profile=default_profile(provider),
        settings=TranslationSettings(report_provider_model=True, chat_reasoning_details=True),
    )
    ctx.request = IRRequest(
        client_format=client, client_model="", model="", stream=True, include_usage=usage, reasoning=_CARRIES
    )
    normalizer = Normalizer(ctx)
    events = normalizer.feed(spoke(provider).parse_full(body, ctx)) + normalizer.finish()
    emitter = spoke(client).open_emitter(ctx)
    for event in events:
        if isinstance(event, Err):
            raise UpstreamProtocolError(event.message, code=event.code)
    return b"".join(emitter.feed(event) for event in events)


_CARRIES = ReasoningIntent(carry=True)


def _listed(body: bytes, provider: Format) -> bytes:
    """Gemini's other form of a stream. Raises: UpstreamProtocolError."""
    try:
        chunks = decode(body)
    except JsonError as exc:
        raise UpstreamProtocolError("upstream answered with something else than JSON") from exc
    if provider is not Format.GEMINI or not isinstance(chunks, list):
        raise UpstreamProtocolError("upstream answered with a list")
    return b"".join(b"data: " + encode(chunk) + b"\n\n" for chunk in chunks)
