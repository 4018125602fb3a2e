"""A local view that replicas can share: later writes win, what has expired is gone, tables end somewhere."""

from cpa.scheduling.store import TOMBSTONE_S, Entry, Key, MemoryStore, Space
from tests.scheduling.support import Clock

SPACE = Space(name="s", encode=lambda value: str(value).encode(), decode=bytes.decode, max_entries=3)


def test_values_end_at_their_time() -> None:
    """Not a moment later."""
    clock = Clock()
    store = MemoryStore(clock)
    store.put(SPACE, ("a",), 1, expires_unix=clock.now + 5)
    clock.advance(4.9)
    assert store.get(SPACE, ("a",)) == 1
    clock.advance(0.1)
    assert store.get(SPACE, ("a",)) is None
    assert list(store.items(SPACE)) == []


def test_the_later_write_wins_whichever_comes_first() -> None:
    """Also against a dropped key."""
    clock = Clock()
    store = MemoryStore(clock)
    store.put(SPACE, ("a",), "new", expires_unix=clock.now + 5)
    old = Entry(value="old", expires_unix=clock.now + 50, written_unix=clock.now - 1)
    assert not store.apply(SPACE, ("a",), old)
    assert store.get(SPACE, ("a",)) == "new"
    store.drop(SPACE, ("a",))
    assert not store.apply(SPACE, ("a",), old)
    assert store.get(SPACE, ("a",)) is None
    assert store.apply(SPACE, ("a",), Entry(value="newer", expires_unix=clock.now + 5, written_unix=clock.now + 1))
    assert store.get(SPACE, ("a",)) == "newer"


def test_tables_are_bounded_and_swept() -> None:
    """The least recently written goes."""
    clock = Clock()
    store = MemoryStore(clock)
    for name in "abcd":
        store.put(SPACE, (name,), name, expires_unix=clock.now + 5)
    assert [key for key, _ in store.items(SPACE)] == [("b",), ("c",), ("d",)]
    store.drop(SPACE, ("b",))
    clock.advance(TOMBSTONE_S + 1)
    store.sweep()
    assert len(store) == 0


def test_listeners_hear_every_change() -> None:
    """Those of others, too."""
    clock = Clock()
    store = MemoryStore(clock)
    heard: list[tuple[Key, object]] = []
    store.subscribe(SPACE, lambda key, entry: heard.append((key, entry.value)))
    store.put(SPACE, ("a",), 1, expires_unix=clock.now + 5)
    store.apply(SPACE, ("a",), Entry(value=2, expires_unix=clock.now + 5, written_unix=clock.now))
    store.drop(SPACE, ("a",))
    store.drop(SPACE, ("never",))
    assert heard == [(("a",), 1), (("a",), 2), (("a",), None)]
