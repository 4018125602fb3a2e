"""How the pipeline uses translation: one context per attempt, made where protocols differ (translation.md)."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256

import attrs

from cpa.errors import RequestError
from cpa.formats.errors import WireError
from cpa.formats.names import SAME_WIRE, Format, carries, translates
from cpa.formats.scan import contains
from cpa.formats.thinking import Thinking, split_suffix
from cpa.pipeline.chains import By, Translate
from cpa.pipeline.exchange import ModelRequest
from cpa.translation.context import Context, Signatures, StoredResponses, TranslationSettings
from cpa.translation.counting import estimate, unwrap_count_request
from cpa.translation.ir import Err
from cpa.translation.profile import ModelProfile, default_profile
from cpa.translation.registry import StreamSession, spoke, translate_full
from cpa.translation.signatures import ENVELOPE_PREFIX
from cpa.types import Candidate, MediaFetcher, Wire

_ENVELOPE = ENVELOPE_PREFIX.encode()
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
      fetcher: gets media by address; None = addresses stay what they are.
    """

    settings: TranslationSettings = attrs.field(factory=TranslationSettings)
    profile_of: Callable[[Candidate, Format], ModelProfile] = plain_profile
    signatures: Callable[[str], Signatures | None] = lambda principal: None
    responses: Callable[[str], StoredResponses | None] = lambda principal: None
    fetcher: MediaFetcher | None = None


def request_context(
    request: ModelRequest,
    candidate: Candidate,
    wire: Wire,
    services: TranslationServices,
    *,
    thinking: Thinking | None,
    sealed: bool = False,
) -> Context | None:
    """What translates *request* for *candidate*; None where its bytes will do, or nothing but a plugin can.

    Args:
      thinking: what the model's name asks for. Native providers get it in the body, which is written anew then.
      sealed: `has_envelope` of its body: another provider has answered before. No vendor takes our envelopes (2.10).
    """
    rewritten = thinking is not None or sealed
    at_home = rewritten and wire.native and (request.format, wire.input) in SAME_WIRE
    if not at_home and not translates(request.format, wire.input):
        return None
    return attrs.evolve(_context(request, candidate, Format(wire.input), services), thinking=thinking)


def has_envelope(body: bytes) -> bool:
    """Whether *body* may hold what we gave a client to keep for another provider; cheap, may be wrong in saying yes."""
    return contains(body, _ENVELOPE)


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


def request_hops(
    request: ModelRequest,
    candidate: Candidate,
    wire: Wire,
    services: TranslationServices,
    *,
    step: Translate,
    thinking: Thinking | None,
    sealed: bool = False,
) -> tuple[Context, ...]:
    """What translates *request* natively when a chain translates it as *step* says: one context for each translation.

    Empty where the client's bytes will do, where a plugin is to translate, and where nothing can: there is no telling
    these apart here, whoever applies the chain knows.
    """
    if step.by is By.PLUGIN:
        return ()
    if step.via is None:
        context = request_context(request, candidate, wire, services, thinking=thinking, sealed=sealed)
        return () if context is None else (context,)
    pairs = [(request.format, str(step.via)), (step.via, wire.input)]
    if not all(carries(client, provider) for client, provider in pairs):
        return ()
    hops = [
        _hop(request, candidate, services, client=client, provider=Format(provider))
        for client, provider in pairs
        if translates(client, provider)
    ]
    # The wish in the model's name is for the provider's model, of which only the last translation knows.
    return (*hops[:-1], *(attrs.evolve(hop, thinking=thinking) for hop in hops[-1:]))


def answer_hops(
    request: ModelRequest,
    candidate: Candidate,
    wire: Wire,
    services: TranslationServices,
    *,
    step: Translate,
    asked: tuple[Context, ...],
    body: bytes,
) -> tuple[Context, ...]:
    """What translates the answer natively, first what meets the provider's bytes. *asked*: what `request_hops` gave."""
    if step.by is By.PLUGIN:
        return ()
    if step.via is None:
        first = asked[0] if len(asked) == 1 else None
        context = answer_context(request, candidate, wire, services, asked=first, body=body)
        return () if context is None else (context,)
    found = []
    if translates(step.via, wire.output):
        there = next((hop for hop in asked if hop.client is step.via), None)
        hop = there or _hop(request, candidate, services, client=step.via, provider=Format(wire.output))
        found.append(attrs.evolve(hop, client=step.via, provider=Format(wire.output)))
    if translates(request.answer_format, step.via):
        there = next((hop for hop in asked if hop.provider is step.via), None)
        hop = there or _hop(request, candidate, services, client=request.format, provider=step.via)
        found.append(attrs.evolve(hop, client=request.answer_format, provider=step.via))
    return tuple(found)


def _hop(
    request: ModelRequest, candidate: Candidate, services: TranslationServices, *, client: Format, provider: Format
) -> Context:
    """One of two translations. What stands between them is nobody's model and nobody's stored answer."""
    made = _context(request, candidate, provider, services)
    first = client is request.format
    return attrs.evolve(
        made,
        client=client,
        profile=default_profile(provider) if first else made.profile,
        responses=made.responses if first else None,
    )


class Relay:
    """A stream through one translation or several, with the face of a `StreamSession`."""

    __slots__ = ("_first", "_rest", "_sessions")

    def __init__(self, contexts: Sequence[Context]) -> None:
        self._sessions = tuple(StreamSession(context) for context in contexts)
        self._first, *self._rest = self._sessions

    @property
    def ended(self) -> bool:
        """The client has all that it will get."""
        return self._sessions[-1].ended

    @property
    def error(self) -> Err | None:
        """What the provider reported inside its stream."""
        return next((session.error for session in self._sessions if session.error is not None), None)

    @property
    def next_sequence(self) -> int:
        """`sequence_number` of the next event of a Responses stream; 0 elsewhere."""
        return self._sessions[-1].next_sequence

    def failure(self, error: WireError) -> bytes:
        """*error* as the last event of the client's stream; empty where it needs nothing of what was said."""
        return self._sessions[-1].failure(error)

    def feed(self, block: bytes) -> bytes:
        """Wire bytes for the client from *block*, whole events of the provider."""
        return self._on(self._first.feed(block))

    def feed_unit(self, unit: bytes) -> bytes:
        """The same for one unit of a plugin's executor."""
        return self._on(self._first.feed_unit(unit))

    def finish(self) -> bytes:
        """The provider's stream has ended cleanly: what is left for the client."""
        frames = self._first.finish()
        for session in self._rest:
            if self.error is None:  # what follows an error is not an end
                frames = (session.feed(frames) if frames else b"") + session.finish()
        return frames

    def _on(self, frames: bytes) -> bytes:
        for session in self._rest:
            frames = session.feed(frames) if frames else b""
        return frames


def translate_body(body: bytes, contexts: Iterable[Context]) -> bytes:
    """A provider's whole answer as the client reads it. Raises: UpstreamProtocolError."""
    for context in contexts:
        body = translate_full(body, context)
    return body


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
        tenant=sha256(request.principal.encode("utf-8", "replace")).digest(),
    )


def loss_header(contexts: Iterable[Context]) -> bytes:
    """``X-CPA-Loss``: paths and what became of them, in ASCII, bounded; empty when nothing was lost."""
    text = "; ".join(dict.fromkeys(str(loss) for context in contexts for loss in context.losses))
    return text.encode("ascii", "replace").replace(b"\r", b" ").replace(b"\n", b" ")[:MAX_LOSS_HEADER_BYTES]
