"""Where providers say when to come back (proxy 4.4 [B])."""

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.jsontypes import JsonValue
from cpa.scheduling.hints import duration_s, retry_after_s

NOW = 1_800_000_000.0


def hint(body: JsonValue = None, **headers: str) -> float | None:
    raw = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return retry_after_s(raw, body, now_unix=NOW)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "17"}, 17),
        ({"retry_after": " 1.5 "}, 1.5),
        ({"retry_after": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"retry_after": formatdate(NOW - 90, usegmt=True)}, None),
        ({"retry_after": "0"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "9" * 40}, None),
        ({"retry_after_ms": "250"}, 0.25),
        ({"x_ratelimit_reset_requests": "6m0s"}, 360),
        ({"x_ratelimit_reset_tokens": "20ms"}, 0.02),
        ({"x_ratelimit_reset_requests": "1s", "x_ratelimit_reset_tokens": "1h2m3s"}, 3723),
        (
            {
                "x_ratelimit_reset_requests": "1s",
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_tokens": "1h",
                "x_ratelimit_remaining_tokens": "5000",
            },
            1,
        ),
        ({"x_ratelimit_reset": str(int(NOW) + 30)}, 30),
        ({"anthropic_ratelimit_unified_reset": str(int(NOW) + 600)}, 600),
        ({"anthropic_ratelimit_unified_5h_reset": str(int(NOW) + 60), "retry_after": "30"}, 60),
        ({"anthropic_ratelimit_requests_reset": "2027-01-15T08:01:00Z"}, 60),
    ],
)
def test_headers(headers: dict[str, str], seconds: float | None) -> None:
    """Of several, the latest; nonsense says nothing."""
    assert hint(**headers) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"details": [{"@type": "x"}, {"retryDelay": "34.5s"}]}}, 34.5),
        ([{"error": {"details": [{"retryDelay": "2s"}]}}], 2),
        ({"error": {"details": [{"retryDelay": {"seconds": "7"}}]}}, 7),
        ({"error": {"resets_in_seconds": 120}}, 120),
        ({"error": {"resets_at": NOW + 60}}, 60),
        ({"error": {"resets_at": (NOW + 60) * 1000}}, 60),
        ({"retry_after": 3}, 3),
        ({"error": {"details": "x", "resets_in_seconds": True, "retry_after": float("nan")}}, None),
        ({"error": "text"}, None),
        ("text", None),
        ([], None),
    ],
)
def test_bodies(body: JsonValue, seconds: float | None) -> None:
    """Google's and those of ChatGPT's backend."""
    assert hint(body) == (None if seconds is None else pytest.approx(seconds))


def test_other_headers_say_nothing() -> None:
    """Rate limits that are not exhausted come with every answer."""
    assert hint(x_request_id="5", date="17", age="3") is None


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_duration_or_none(text: str) -> None:
    """Never an error."""
    seconds = duration_s(text)
    assert seconds is None or seconds >= 0
