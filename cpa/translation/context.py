"""What one translated exchange knows from its request to the last byte of its answer."""

import secrets
import string
from collections.abc import Callable
from time import time
from typing import Final, Protocol

import attrs

from cpa.formats.names import Format
from cpa.formats.thinking import Thinking
from cpa.translation.ir import IRRequest, Raw, Sig
from cpa.translation.loss import Loss, LossKind
from cpa.translation.profile import ModelProfile

BASE62 = string.ascii_letters + string.digits
_DEGRADED, _DROPPED = LossKind  # looking into an enumeration takes longer than to make a loss


def random_id() -> str:
    """24 random characters that every protocol accepts in an id. For answers only: requests are deterministic (L5)."""
    return "".join(secrets.choice(BASE62) for _ in range(24))


class Signatures(Protocol):
    """Remembers the signatures that Chat clients lose (translation 2.10)."""

    def of_call(self, call_id: str) -> tuple[Sig, ...]:
        """What was kept for a call."""
        ...

    def of_text(self, text: str) -> tuple[Sig, ...]:
        """What was kept for an assistant's text."""
        ...

    def keep_call(self, call_id: str, sig: Sig) -> None:
        """Remember *sig* for a call."""
        ...

    def keep_text(self, text: str, sig: Sig) -> None:
        """Remember *sig* for an assistant's text."""
        ...


class StoredResponses(Protocol):
    """Items of earlier answers that clients refer to by id (translation 2.16)."""

    def items(self, response_id: str) -> list[Raw] | None:
        """Input and output items of an answer, oldest first; None = unknown."""
        ...

    def item(self, item_id: str) -> Raw | None:
        """One item; None = unknown."""
        ...

    def keep(self, body: bytes, response: bytes) -> None:
        """Remember the answer *response* to the client's request *body*."""
        ...


@attrs.frozen(kw_only=True)
class TranslationSettings:
    """The operator's choices, section ``translation`` of the configuration."""

    strict: bool = False
    report_losses: bool = False
    strict_content: bool = False
    foreign_reasoning_as_text: bool = False
    chat_reasoning_details: bool = True
    claude_auto_cache: bool = True
    gemini_default_safety: bool = True
    gemini_url_media: str = "file_uri"
    gemini_url_media_allow: tuple[str, ...] = ()
    responses_default_summary: str = "none"
    report_provider_model: bool = False


_DEFAULTS: Final = TranslationSettings()


@attrs.define(kw_only=True, eq=False)
class Names:
    """Tool names on both sides of one exchange; made by `tools.build_names`.

    Attributes:
      wire: (namespace, client name) to the name that the provider sees; ``client`` is the inverse.
      custom: wire names of tools that take free text and were wrapped, so that calls of them are unwrapped.
      unchanged: both sides spell all of them alike.
    """

    wire: dict[tuple[str, str], str] = attrs.field(factory=dict)
    client: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    custom: set[str] = attrs.field(factory=set)
    unchanged: bool = False

    def to_wire(self, name: str, namespace: str = "") -> str:
        """The provider's name of a tool; unknown ones pass."""
        return self.wire.get((namespace, name), name)

    def to_client(self, wire: str) -> tuple[str, str]:
        """(namespace, name) as the client spells it; unknown ones pass."""
        return self.client.get(wire, ("", wire))


@attrs.define(kw_only=True, eq=False)
class Context:
    """One exchange between two protocols. Everything that is needed for its answer is computed once, from its request.

    Attributes:
      client, provider: who speaks what; *provider* is `Format.CODEX` for that dialect.
      client_model: as the client wrote it, without a suffix; what answers are called by. *model*: the provider's id.
      thinking: what the model's name asks for in the way of reasoning, which beats the body.
      request: as parsed; None until then.
      echo: members of a Responses request that its answer repeats.
      client_body: the request, where its answer may have to be remembered with it.
      folds: the client wants a whole answer, for which the provider had better be asked for a stream.
      whole: it must not be, because a plugin translates the answer and wants it as the provider would have sent it.
      losses: what could not be carried over, in order.
      tenant: whose request it is, a digest: what is kept of one request is found by others of the same tenant only.
    """

    client: Format
    provider: Format
    client_model: str
    model: str
    stream: bool
    profile: ModelProfile
    settings: TranslationSettings = _DEFAULTS
    signatures: Signatures | None = None
    responses: StoredResponses | None = None
    thinking: Thinking | None = None
    request: IRRequest | None = None
    names: Names = attrs.field(factory=Names)
    echo: dict[str, Raw] = attrs.field(factory=dict)
    losses: list[Loss] = attrs.field(factory=list)
    estimated_input: int = 0
    folds: bool = False
    whole: bool = False
    client_body: bytes = attrs.field(default=b"", repr=False)
    tenant: bytes = attrs.field(default=b"", repr=False)
    new_id: Callable[[], str] = random_id
    now_unix: Callable[[], float] = time

    @property
    def same_family(self) -> bool:
        """Both protocols are of one vendor."""
        return family(self.client) == family(self.provider)

    def lose(self, path: str, note: str = "", *, dropped: bool = False) -> None:
        """Note that something at *path* (of the client's body) is degraded, or dropped."""
        self.losses.append(Loss(path=path, kind=_DROPPED if dropped else _DEGRADED, note=note))


def family(fmt: Format) -> str:
    """Formats of one vendor, whose state and extras can be exchanged."""
    return "openai" if fmt in (Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX) else fmt.value
