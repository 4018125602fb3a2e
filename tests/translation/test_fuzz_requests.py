"""Requests that somebody broke: a well-formed request for the provider, or a refusal that says so (translation 0.3)."""

import json
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpa.errors import CpaError
from cpa.formats.names import Format
from cpa.translation.profile import default_profile
from cpa.translation.registry import translate_request
from tests.translation.fuzzing import REQUESTS, broken_bytes
from tests.translation.support import make_context

PROVIDERS = (Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX, Format.CLAUDE, Format.GEMINI)
DIRECTIONS = [(Format(client), provider) for client, provider in product(REQUESTS, PROVIDERS)]
MODERATE = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
REFUSALS = range(400, 500)


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
@MODERATE
@given(data=st.data())
def test_broken_requests_are_translated_or_refused(client: Format, provider: Format, data: st.DataObject) -> None:
    """Never anything else: no other error, no body that is no JSON, and the same bytes each time (L5)."""
    body = data.draw(broken_bytes(REQUESTS[client]))
    made = []
    for _ in range(2):
        context = make_context(client, provider, profile=default_profile(provider))
        try:
            made.append(translate_request(body, context))
        except CpaError as exc:
            refusal = exc
        else:
            continue
        assert refusal.http_status in REFUSALS
        assert str(refusal)
        return
    assert made[0] == made[1]
    assert isinstance(json.loads(made[0]), dict)


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
def test_the_unbroken_ones_are_translated(client: Format, provider: Format) -> None:
    """What is broken above is good: otherwise refusals would prove nothing."""
    context = make_context(client, provider, profile=default_profile(provider))
    assert isinstance(json.loads(translate_request(json.dumps(REQUESTS[client]).encode(), context)), dict)
