"""Streams that somebody broke, or cut into other pieces: well-formed streams for clients, complete or not (L2, L3)."""

import copy
import json
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpa.errors import UpstreamError
from cpa.formats.names import Format
from cpa.formats.streams import open_reader
from cpa.translation.registry import Fold, StreamSession, translate_full
from cpa.translation.unfold import unfold
from tests.translation.answers import CHECKS, STREAMS, events_of, sse
from tests.translation.fuzzing import broken
from tests.translation.support import make_context

DIRECTIONS = [(Format(client), Format(provider)) for client, provider in product(CHECKS, STREAMS)]
MODERATE = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def carried(client: Format, provider: Format, pieces: list[bytes]) -> tuple[bytes, bool]:
    """What a client gets of a stream in *pieces*, and whether it ended well."""
    reader = open_reader(provider)
    session = StreamSession(make_context(client, provider))
    out = b""
    try:
        for piece in pieces:
            block = reader.feed(piece)
            if block:
                out += session.feed(block)
            if session.ended or reader.done or reader.fault:
                break
        if reader.fault is None and not session.ended:
            block = reader.finish()
            out += session.feed(block) if block else b""
            if reader.fault is None:
                out += session.finish()
    except UpstreamError:
        return out, False
    return out, session.ended and session.error is None


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """*stream* in pieces."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges) if end > start]


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
@MODERATE
@given(places=st.lists(st.integers(0, 10_000), max_size=30))
def test_cuts_change_nothing(client: Format, provider: Format, places: list[int]) -> None:
    """L3, and the whole stream is a good one."""
    stream = sse(provider, STREAMS[provider])
    whole, ended = carried(client, provider, [stream])
    assert ended
    CHECKS[client](events_of(whole), ended=True)
    assert carried(client, provider, cut(stream, places)) == (whole, True)


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
def test_bytes_one_by_one(client: Format, provider: Format) -> None:
    """The finest cut."""
    stream = sse(provider, STREAMS[provider])
    assert carried(client, provider, [bytes([byte]) for byte in stream]) == carried(client, provider, [stream])


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
def test_what_is_cut_off_never_looks_complete(client: Format, provider: Format) -> None:
    """Every number of events, but all of them; the last ones of some protocols say nothing that is needed."""
    events = STREAMS[provider]
    for count in range(len(events)):
        stream = sse("claude" if provider is Format.CLAUDE else "codex", events[:count])
        out, ended = carried(client, provider, [stream])
        needed = {"openai": 7, "codex": len(events), "claude": len(events), "gemini": 3}[provider]
        assert ended == (count >= needed)
        CHECKS[client](events_of(out), ended=ended)


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
@MODERATE
@given(data=st.data())
def test_broken_events(client: Format, provider: Format, data: st.DataObject) -> None:
    """Members dropped, repeated, of other types; events lost and doubled; bytes that are none of UTF-8."""
    events = data.draw(broken(STREAMS[provider]))
    stream = sse(provider, events)
    if data.draw(st.integers(0, 4)) == 0:
        at = data.draw(st.integers(0, len(stream)))
        stream = stream[:at] + data.draw(st.sampled_from((b"\xff", b"\n", b"\r", b"}", b'"', b"\n\n"))) + stream[at:]
    out, ended = carried(client, provider, cut(stream, data.draw(st.lists(st.integers(0, 10_000), max_size=4))))
    CHECKS[client](events_of(out), ended=ended)


def folded(client: Format, provider: Format, stream: bytes) -> Any:
    """A whole answer out of a stream."""
    fold = Fold(make_context(client, provider))
    fold.feed(stream)
    return json.loads(fold.result())


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
def test_a_whole_answer_is_the_fold_of_its_stream(client: Format, provider: Format) -> None:
    """L2, by way of a whole answer of the provider's own: its stream folds to it, and it unfolds to such a stream."""
    home = Format.OPENAI_RESPONSE if provider is Format.CODEX else provider
    own = folded(home, provider, sse(provider, STREAMS[provider]))
    body = json.dumps(own).encode()
    whole = json.loads(translate_full(body, make_context(client, provider)))
    assert folded(client, provider, unfold(body, provider, usage=True)) == whole


@pytest.mark.parametrize(("client", "provider"), DIRECTIONS)
@MODERATE
@given(data=st.data())
def test_broken_whole_answers(client: Format, provider: Format, data: st.DataObject) -> None:
    """JSON for the client, or an error of the provider's."""
    home = Format.OPENAI_RESPONSE if provider is Format.CODEX else provider
    own = folded(home, provider, sse(provider, copy.deepcopy(STREAMS[provider])))
    body = json.dumps(data.draw(broken(own))).encode()
    try:
        answer = translate_full(body, make_context(client, provider))
    except UpstreamError:
        return
    assert isinstance(json.loads(answer), dict)
