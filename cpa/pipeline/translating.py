"""How the pipeline uses translation: one context per attempt, made where protocols differ (translation.md)."""

from collections.abc import Callable
from contextlib import suppress

import attrs

from cpa.errors import RequestError
from cpa.formats.names import SAME_WIRE, Format, translates
from cpa.formats.thinking import Thinking, split_suffix
from cpa.pipeline.exchange import ModelRequest
from cpa.translation.context import Context, Signatures, StoredResponses, TranslationSettings
from cpa.translation.counting import estimate, unwrap_count_request
from cpa.translation.profile import ModelProfile, default_profile
from cpa.translation.registry import spoke
from cpa.types import Candidate, Wire

MAX_LOSS_HEADER_BYTES = 4096
"""Of ``X-CPA-Loss``; proxies in front of us cut off headers of 8 KB."""


def plain_profile(candidate: Candidate, provider: Format) -> ModelProfile:
    """A `TranslationServices.profile_of` that knows no models."""
    return default_profile(provider)


@attrs.frozen(kw_only=True)
class TranslationServices:
    """What translation needs beside the bodies.

    Attributes:
      profile_of: what a candidate's model takes.
      signatures, responses: stores of one tenant, by the client's principal; None = none.
    """

    settings: TranslationSettings = attrs.field(factory=TranslationSettings)
    profile_of: Callable[[Candidate, Format], ModelProfile] = plain_profile
    signatures: Callable[[str], Signatures | None] = lambda principal: None
    responses: Callable[[str], StoredResponses | None] = lambda principal: None


def request_context(
    request: ModelRequest,
    candidate: Candidate,
    wire: Wire,
    services: TranslationServices,
    *,
    thinking: Thinking | None,
) -> Context | None:
    """What translates *request* for *candidate*; None where its bytes will do, or nothing but a plugin can.

    Args:
      thinking: what the model's name asks for. Native providers get it in the body, which is written anew then.
    """
    asked_by_name = thinking is not None and wire.native and (request.format, wire.input) in SAME_WIRE
    if not asked_by_name and not translates(request.format, wire.input):
        return None
    return attrs.evolve(_context(request, candidate, Format(wire.input), services), thinking=thinking)


def answer_context(
    request: ModelRequest,
    candidate: Candidate,
    wire: Wire,
    services: TranslationServices,
    *,
    asked: Context | None,
    body: bytes,
) -> Context | None:
    """What translates the answer, likewise. *asked*: what has translated the request; *body*: the client's."""
    if not translates(request.answer_format, wire.output):
        return None
    if asked is not None and asked.provider == wire.input:
        return attrs.evolve(asked, client=request.answer_format, provider=Format(wire.output))
    made = _context(request, candidate, Format(wire.output), services)
    # Answers repeat, and map back, what the request said; one that cannot be read has nothing to repeat.
    with suppress(RequestError):
        made.request = spoke(request.format).parse_request(body, made)
    made.losses.clear()
    return attrs.evolve(made, client=request.answer_format)


def estimated_tokens(
    request: ModelRequest, candidate: Candidate, services: TranslationServices, *, asked: Context | None, body: bytes
) -> int:
    """How many tokens *body* is, roughly (translation Part 6). Raises: MalformedRequest."""
    if asked is not None and asked.request is not None:
        return estimate(asked.request)
    made = _context(request, candidate, request.format, services)
    return estimate(spoke(request.format).parse_request(unwrap_count_request(request.format, body), made))


def _context(request: ModelRequest, candidate: Candidate, provider: Format, services: TranslationServices) -> Context:
    return Context(
        client=request.format,
        provider=provider,
        client_model=split[0] if (split := split_suffix(request.model)) else request.model,
        model=candidate.model,
        stream=request.stream,
        profile=services.profile_of(candidate, provider),
        settings=services.settings,
        signatures=services.signatures(request.principal),
        responses=services.responses(request.principal),
    )


def loss_header(context: Context) -> bytes:
    """``X-CPA-Loss``: paths and what became of them, in ASCII, bounded."""
    text = "; ".join(dict.fromkeys(str(loss) for loss in context.losses))
    return text.encode("ascii", "replace").replace(b"\r", b" ").replace(b"\n", b" ")[:MAX_LOSS_HEADER_BYTES]
