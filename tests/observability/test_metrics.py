"""Metrics count what happened, under few labels."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from cpa.observability.metrics import MAX_PROTOCOLS, MAX_PROVIDERS, Metrics, NullMetrics, PrometheusMetrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The exposition, parsed as a scraper does it."""
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def finish(metrics: Metrics, *, provider: str = "claude", status: int = 200, stream: bool = False) -> None:
    metrics.request_started()
    metrics.request_finished(
        protocol="openai",
        provider=provider,
        status=status,
        stream=stream,
        duration_s=0.2,
        bytes_in=100,
        bytes_out=7,
    )


def test_a_request_is_counted_once_in_each_metric() -> None:
    """Requests, duration and bytes per protocol and provider."""
    metrics = PrometheusMetrics()
    finish(metrics, stream=True)
    finish(metrics, stream=True)
    finish(metrics, status=429)
    both = {"protocol": "openai", "provider": "claude"}
    assert value(metrics, "cpa_requests_total", **both, status="200", stream="true") == 2
    assert value(metrics, "cpa_requests_total", **both, status="429", stream="false") == 1
    assert value(metrics, "cpa_request_duration_seconds_count", **both) == 3
    assert value(metrics, "cpa_request_duration_seconds_sum", **both) == pytest.approx(0.6)
    assert value(metrics, "cpa_request_duration_seconds_bucket", **both, le="0.1") == 0
    assert value(metrics, "cpa_request_duration_seconds_bucket", **both, le="0.25") == 3
    assert value(metrics, "cpa_request_bytes_total", **both) == 300
    assert value(metrics, "cpa_response_bytes_total", **both) == 21
    assert value(metrics, "cpa_requests_in_flight") == 0


def test_gauges_go_up_and_down() -> None:
    """What is open now."""
    metrics = PrometheusMetrics()
    metrics.request_started()
    metrics.stream_opened()
    metrics.stream_opened()
    metrics.stream_closed()
    assert value(metrics, "cpa_requests_in_flight") == 1
    assert value(metrics, "cpa_open_streams") == 1


def test_attempts_first_bytes_disconnects_and_reloads() -> None:
    """One series each; an attempt without answer has its own."""
    metrics = PrometheusMetrics()
    metrics.attempt("gemini", 200)
    metrics.attempt("gemini", 0)
    metrics.first_byte("gemini", 0.03)
    metrics.client_disconnected("openai")
    metrics.config_reloaded(ok=True)
    assert value(metrics, "cpa_upstream_attempts_total", provider="gemini", status="200") == 1
    assert value(metrics, "cpa_upstream_attempts_total", provider="gemini", status="none") == 1
    assert value(metrics, "cpa_first_byte_seconds_bucket", provider="gemini", le="0.05") == 1
    assert value(metrics, "cpa_client_disconnects_total", protocol="openai") == 1
    assert value(metrics, "cpa_config_reloads_total", result="ok") == 1
    assert value(metrics, "cpa_config_reloads_total", result="failed") == 0


def test_numbers_of_others_are_read_when_asked() -> None:
    """Pool and sink keep their own counts."""
    metrics = PrometheusMetrics()
    assert value(metrics, "cpa_upstream_connections", state="open") == 0
    metrics.watch_connections(lambda: 5, lambda: 2)
    metrics.watch_dropped(lambda: 11, lambda: 3)
    assert value(metrics, "cpa_upstream_connections", state="open") == 5
    assert value(metrics, "cpa_upstream_connections", state="idle") == 2
    assert value(metrics, "cpa_log_lines_dropped_total") == 11
    assert value(metrics, "cpa_request_logs_dropped_total") == 3


def test_label_values_are_bounded() -> None:
    """Each label value is a series for ever: providers beyond the limit share one, so do strange statuses."""
    metrics = PrometheusMetrics()
    for number in range(MAX_PROVIDERS + 50):
        finish(metrics, provider=f"p{number}", status=700 + number)
        metrics.client_disconnected(f"protocol{number}")
    found = samples(metrics)
    labels = {dict(key[1]).get("provider") for key in found}
    assert len(labels - {None}) == MAX_PROVIDERS + 1
    assert {dict(key[1])["status"] for key in found if key[0] == "cpa_requests_total"} == {"other"}
    assert len([key for key in found if key[0] == "cpa_client_disconnects_total"]) == MAX_PROTOCOLS
    finish(metrics, provider="")
    assert value(metrics, "cpa_requests_total", protocol="openai", provider="none", status="200", stream="false") == 1


def test_two_instances_share_nothing() -> None:
    """A registry of its own each: tests and embedders run several proxies in one process."""
    first, second = PrometheusMetrics(), PrometheusMetrics()
    first.request_started()
    assert value(second, "cpa_requests_in_flight") == 0
    assert value(first, "cpa_requests_in_flight") == 1


def test_null_metrics_take_everything_and_keep_nothing() -> None:
    """The same interface when metrics are off."""
    metrics: Metrics = NullMetrics()
    finish(metrics)
    metrics.stream_opened()
    metrics.stream_closed()
    metrics.attempt("p", 200)
    metrics.first_byte("p", 1.0)
    metrics.client_disconnected("openai")
    metrics.config_reloaded(ok=False)
    metrics.watch_connections(lambda: 1, lambda: 1)
    metrics.watch_dropped(lambda: 1, lambda: 1)
    assert not metrics.enabled
    assert metrics.render()[0] == b""


TIMES = st.one_of(st.sampled_from([0.0, 0.05, 0.1, 600.0, 600.1]), st.floats(0, 2000))
EVENTS = st.one_of(
    st.tuples(
        *(st.just("finished"), st.sampled_from(["openai", "claude"]), st.sampled_from(["", "p", 'q"\n\\'])),
        *(st.sampled_from([0, 200, 429, 999]), st.booleans(), TIMES, st.integers(0, 1 << 40)),
    ),
    st.tuples(st.just("first"), st.sampled_from(["p", "q"]), TIMES),
    st.tuples(st.just("attempt"), st.sampled_from(["p", "q"]), st.sampled_from([0, 200, 500])),
    st.tuples(st.sampled_from(["started", "opened", "closed", "left", "reloaded"])),
)


def report(metrics: Metrics, event: tuple[Any, ...]) -> None:
    match event:
        case ("finished", protocol, provider, status, stream, seconds, size):
            metrics.request_finished(
                protocol=protocol,
                provider=provider,
                status=status,
                stream=stream,
                duration_s=seconds,
                bytes_in=size,
                bytes_out=size // 3,
            )
        case ("first", provider, seconds):
            metrics.first_byte(provider, seconds)
        case ("attempt", provider, status):
            metrics.attempt(provider, status)
        case ("started",):
            metrics.request_started()
        case ("opened",):
            metrics.stream_opened()
        case ("closed",):
            metrics.stream_closed()
        case ("left",):
            metrics.client_disconnected("openai")
        case ("reloaded",):
            metrics.config_reloaded(ok=False)


@given(st.lists(EVENTS, max_size=20))
@settings(max_examples=60, deadline=None)
def test_one_process_says_the_same_as_several(events: list[tuple[Any, ...]]) -> None:
    """One process has counters of its own, several those of the library: a scraper must not see a difference."""
    own, library = PrometheusMetrics(shared=False), PrometheusMetrics(shared=True)
    for event in events:
        report(own, event)
        report(library, event)

    def lines(metrics: Metrics) -> list[bytes]:
        return [
            line for line in metrics.render()[0].splitlines() if b" process_" not in line and line[:8] != b"process_"
        ]

    assert lines(own) == lines(library)
    assert len(lines(own)) > 20
