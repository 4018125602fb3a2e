"""What chunk interceptors may look back on."""

from hypothesis import given
from hypothesis import strategies as st

from cpa.pipeline.stream import HISTORY_BYTES, HISTORY_CHUNKS, History


@given(st.lists(st.integers(0, HISTORY_BYTES // 3), max_size=200))
def test_history_is_the_longest_allowed_tail(sizes: list[int]) -> None:
    """Newest chunks stay, within 64 entries and 1 MiB."""
    history = History()
    chunks = [bytes(size) for size in sizes]
    for chunk in chunks:
        history.append(chunk)
    kept = history.snapshot()
    assert len(kept) <= HISTORY_CHUNKS
    assert sum(map(len, kept)) <= HISTORY_BYTES
    assert kept == tuple(chunks[len(chunks) - len(kept) :])
    if len(kept) < min(len(chunks), HISTORY_CHUNKS):
        assert sum(map(len, kept)) + len(chunks[-len(kept) - 1]) > HISTORY_BYTES


def test_a_chunk_beyond_the_limit_empties_the_history() -> None:
    """plugin-abi 6.5."""
    history = History()
    history.append(b"small")
    history.append(bytes(HISTORY_BYTES + 1))
    assert history.snapshot() == ()
    history.append(b"next")
    assert history.snapshot() == (b"next",)
