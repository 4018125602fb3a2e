"""The grammar of model names and headers."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.testing.mock import BadDirective, Fault, Scenario, apply_headers, parse_model
from cpa.testing.mock.scenario import _FLAGS, _NUMBERS, MAX_ANSWER_BYTES, MAX_CHUNK_BYTES

NAMES = [
    ("mock", Scenario()),
    ("gpt-4.1", Scenario()),
    ("mock-status-429-retry-after-7", Scenario(status=429, retry_after=7)),
    ("mock-chunks-200-delay-20", Scenario(chunks=200, delay_s=0.02)),
    ("mock-chunk-bytes-1024-chunks-3", Scenario(chunks=3, chunk_bytes=1024)),
    ("mock-fault-reset-at-3", Scenario(fault=Fault.RESET, fault_at=3)),
    ("mock-fault-reset-headers-times-2", Scenario(fault=Fault.RESET_HEADERS, times=2)),
    ("mock-fault-close-before-headers", Scenario(fault=Fault.CLOSE_BEFORE_HEADERS)),
    ("mock-fault-split-utf8", Scenario(fault=Fault.SPLIT_UTF8)),
    ("mock-fault-no-done-tool", Scenario(fault=Fault.NO_DONE, tool=True)),
    ("mock-first-byte-1500", Scenario(first_byte_s=1.5)),
    ("mock-first-byte-ms-1500-delay-ms-5", Scenario(first_byte_s=1.5, delay_s=0.005)),
    ("mock-delay-0", Scenario(delay_s=0.0)),
    ("mock-tool-think-chunks-5", Scenario(tool=True, think=True, chunks=5)),
    ("mock-tool-calls-2", Scenario(tool=True, calls=2)),
    ("mock-body-overloaded-status-503", Scenario(body="overloaded", status=503)),
    ("MOCK-Status-503", Scenario(status=503)),
    ("team/mock-status-500", Scenario(status=500)),
    ("claude-mock-status-529", Scenario(status=529)),
    ("mock-think-chunks-2(high)", Scenario(think=True, chunks=2)),
    ("status-429", Scenario()),  # no `mock`: an ordinary name
    ("gpt-tool-thinking", Scenario(tool=True, think=True)),
    ("mock-status", Scenario()),  # unknown or unfinished words are ignored
    ("mock-status-high-delay-20", Scenario(delay_s=0.02)),
    ("mock-status-100", Scenario()),
    ("mock-status-99999999999999999999", Scenario()),
    ("mock-status-٤٢٩", Scenario()),
    ("mock-fault-nonsense-chunks-3", Scenario(chunks=3)),
    ("mock--chunks-3-", Scenario(chunks=3)),
]


@pytest.mark.parametrize(("name", "expected"), NAMES, ids=[name for name, _ in NAMES])
def test_name_is_read(name: str, expected: Scenario) -> None:
    assert parse_model(name) == expected


WORDS = st.sampled_from(["mock", "fault", "at", "reset", "chunks", "5", "times", "body"])


@given(st.text(max_size=60) | st.lists(WORDS).map("-".join))
def test_any_text_is_a_name(name: str) -> None:
    scenario = parse_model(name)
    assert scenario.text_chunk_bytes > 0
    assert scenario.fault_at >= 0


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_can_be_named(fault: Fault) -> None:
    """The words of one fault are a prefix of another's: the longest must win."""
    assert parse_model(f"mock-fault-{fault}-at-1") == Scenario(fault=fault, fault_at=1)
    assert apply_headers(Scenario(), [(b"x-mock-fault", fault.upper().encode())]).fault is fault


def test_headers_win_over_the_name() -> None:
    headers = [(b"x-mock-status", b" 503 "), (b"accept", b"*/*"), (b"x-mock-tool", b"1"), (b"x-mock-delay-ms", b"2")]
    expected = Scenario(status=503, retry_after=7, tool=True, delay_s=0.002)
    assert apply_headers(parse_model("mock-status-429-retry-after-7"), headers) == expected


def test_header_can_switch_a_flag_off() -> None:
    assert apply_headers(parse_model("mock-tool"), [(b"x-mock-tool", b"0")]) == Scenario()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ((b"x-mock-status", b"abc"), "expected an integer from 200 to 599, got 'abc'"),
        ((b"x-mock-chunks", b"0"), "expected an integer from 1 to"),
        ((b"x-mock-fault", b"rest"), "expected one of reset, "),
        ((b"x-mock-colour", b"red"), "x-mock-colour is unknown; known are"),
    ],
)
def test_wrong_header_is_an_error(header: tuple[bytes, bytes], said: str) -> None:
    with pytest.raises(BadDirective) as caught:
        apply_headers(Scenario(), [header])
    assert said.lower() in str(caught.value).lower()


@pytest.mark.parametrize("word", [*Fault, *_NUMBERS, *_FLAGS, "body"])
def test_every_word_is_documented(word: str) -> None:
    manual = Path(__file__).parents[2] / "docs" / "mock-provider.md"
    assert f"`{word}`" in manual.read_text()


def test_size_of_an_answer_is_bounded() -> None:
    scenario = Scenario(chunks=1_000_000, chunk_bytes=MAX_CHUNK_BYTES)
    assert scenario.text_chunks == MAX_ANSWER_BYTES // MAX_CHUNK_BYTES


def test_healthy_form_has_no_fault_but_keeps_the_pace() -> None:
    sick = parse_model("mock-status-500-body-x-retry-after-1-fault-cut-times-1-delay-3-chunks-4-think")
    assert sick.healthy() == attrs.evolve(Scenario(), delay_s=0.003, chunks=4, think=True)
