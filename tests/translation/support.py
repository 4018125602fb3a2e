"""Contexts and requests for tests of translation."""

from collections.abc import Callable
from itertools import count

from cpa.formats.names import Format
from cpa.translation.context import Context, TranslationSettings
from cpa.translation.ir import IRRequest
from cpa.translation.profile import Capability, ModelProfile

NOW = 1_790_000_000.5


def counting_ids() -> Callable[[], str]:
    """Ids that are the same in every run: 24 digits."""
    numbers = count(1)
    return lambda: f"{next(numbers):024d}"


def make_context(
    client: Format = Format.OPENAI,
    provider: Format = Format.CLAUDE,
    *,
    cap: Capability | None = None,
    profile: ModelProfile | None = None,
    settings: TranslationSettings | None = None,
) -> Context:
    """A context with fixed ids and a fixed clock."""
    return Context(
        client=client,
        provider=provider,
        client_model="client-name",
        model="provider-name",
        stream=True,
        profile=profile or ModelProfile(reasoning=cap or Capability()),
        settings=settings or TranslationSettings(),
        new_id=counting_ids(),
        now_unix=lambda: NOW,
    )


def make_request(client: Format = Format.OPENAI) -> IRRequest:
    """An empty request."""
    return IRRequest(client_format=client, client_model="client-name", model="provider-name", stream=True)
