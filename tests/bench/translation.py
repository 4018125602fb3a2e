"""What translation costs: agents' requests in all twelve foreign directions, and the events of streams.

The measure of a request is the standard library's `json.loads` and `json.dumps` of the same body in the same round.
CPU time of this process, which does nothing else; a result is the fastest of some repetitions, because a machine that
does something else as well makes everything slower, and nothing faster. Memory is measured apart, because to watch
the allocator slows it down; msgspec takes its memory from Python's, so `tracemalloc` sees all of it.
"""

import gc
import json
import tracemalloc
from collections.abc import Callable, Mapping
from itertools import permutations
from time import process_time
from typing import Final

from cpa.abi.memory import keep_freed_memory
from cpa.formats.names import Format
from cpa.translation import schema, tool_cache
from cpa.translation.registry import StreamSession, translate_request
from tests.bench import translation_bodies as bodies
from tests.bench.figures import Layout, Section
from tests.bench.record import Record
from tests.bench.scenarios import Figure, Scale

REQUEST_LIMIT = 0.5
"""Issue 4: a request's translation costs at most half of the standard library's decoding and encoding."""
MEMORY_LIMIT = 3.0
"""Issue 4: and takes at most three times the body's memory, beside the body."""
EVENT_LIMIT_US = 20.0
"""Translation 0.6, rule 8."""
REPEATS_PER_SCALE = 10
"""The fastest of so few is one that nothing has disturbed only if there are enough of them."""

DIRECTIONS: Final = tuple(permutations(bodies.CLIENTS, 2))
"""(client, provider) of the directions that change the protocol."""
_TITLES: Final = {
    Format.OPENAI: "Chat",
    Format.OPENAI_RESPONSE: "Responses",
    Format.CLAUDE: "Claude",
    Format.GEMINI: "Gemini",
}

REQUESTS = Layout(
    name="Translation of requests",
    systems=("stdlib", "cpa"),
    base="stdlib",
    spreads=(("cpa", "stdlib"),),
    absolute=("cpa", "stdlib"),
    judged="cpa",
    against="stdlib",
)
COLD = Layout(
    name="Translation of requests with tools that were never seen",
    systems=("stdlib", "cpa"),
    base="stdlib",
    spreads=(("cpa", "stdlib"),),
    absolute=("cpa", "stdlib"),
    judged="cpa",
    against="stdlib",
)
MEMORY = Layout(
    name="Memory of translation",
    systems=("cpa",),
    base="cpa",
    spreads=(),
    absolute=("cpa",),
    judged="cpa",
)
EVENTS = Layout(
    name="Translation of streams",
    systems=("cpa",),
    base="cpa",
    spreads=(),
    absolute=("cpa",),
    judged="cpa",
)


def _named(client: Format, provider: Format) -> str:
    return f"{_TITLES[client]} → {_TITLES[provider]}"


def request_figure(client: Format, provider: Format, size: str) -> Figure:
    """CPU of one request's translation."""
    key = f"translation.request.{client.value}.{provider.value}.{size.replace(' ', '').lower()}"
    return Figure(key=key, title=f"{_named(client, provider)}, {size}", unit="µs", limit=REQUEST_LIMIT)


def cold_figure(client: Format, provider: Format, size: str) -> Figure:
    """The same for a session's first request: nothing is known of its tools. Without a limit."""
    key = f"translation.first.{client.value}.{provider.value}.{size.replace(' ', '').lower()}"
    return Figure(key=key, title=f"first request, {_named(client, provider)}, {size}", unit="µs")


def memory_figure(client: Format, provider: Format, size: str) -> Figure:
    """Its peak."""
    key = f"translation.memory.{client.value}.{provider.value}.{size.replace(' ', '').lower()}"
    return Figure(key=key, title=f"peak, {_named(client, provider)}, {size}", unit="x body", limit=MEMORY_LIMIT)


def event_figure(provider: Format, client: Format) -> Figure:
    """CPU of one event of a stream."""
    key = f"translation.event.{provider.value}.{client.value}"
    title = f"event of a stream, {_named(provider, client)}"
    return Figure(key=key, title=title, unit="µs", limit=EVENT_LIMIT_US)


REQUEST_SECTION = Section(
    layout=REQUESTS, figures=tuple(request_figure(*pair, size) for size in bodies.SIZES for pair in DIRECTIONS)
)
COLD_SECTION = Section(
    layout=COLD, figures=tuple(cold_figure(*pair, size) for size in bodies.SIZES for pair in DIRECTIONS)
)
MEMORY_SECTION = Section(
    layout=MEMORY, figures=tuple(memory_figure(*pair, size) for size in bodies.SIZES for pair in DIRECTIONS)
)
EVENT_SECTION = Section(layout=EVENTS, figures=tuple(event_figure(*pair) for pair in DIRECTIONS))
SECTIONS = (REQUEST_SECTION, COLD_SECTION, MEMORY_SECTION, EVENT_SECTION)
_NAMES: Final = {
    "translation: requests": REQUEST_SECTION,
    "translation: first requests": COLD_SECTION,
    "translation: memory": MEMORY_SECTION,
    "translation: events": EVENT_SECTION,
}


def measure(scale: Scale, record: Record, *, only: str = "", sizes: Mapping[str, int] = bodies.SIZES) -> None:
    """The parts whose names contain *only*. *sizes*: of the bodies, in bytes, by the names that the figures have."""
    chosen = [section for name, section in _NAMES.items() if only in name]
    if not chosen:
        return
    keep_freed_memory()  # as the proxy does
    for size, size_bytes in sizes.items():
        session = bodies.make_session(size_bytes, bodies.TOOLS[size])
        sent = {client: bodies.write_body(session, client) for client in bodies.CLIENTS}
        if REQUEST_SECTION in chosen:
            for number in range(scale.rounds):
                record.say(f"translation: requests of {size}", number)
                measure_requests(sent, size, record, repeats=REPEATS_PER_SCALE * scale.repeats)
        if COLD_SECTION in chosen:
            for number in range(scale.rounds):
                record.say(f"translation: first requests of {size}", number)
                measure_requests(sent, size, record, repeats=scale.repeats, figure=cold_figure, before=_forget)
        if MEMORY_SECTION in chosen:
            record.say(f"translation: memory, {size}")
            for client, provider in DIRECTIONS:
                value = peak(sent[client], client, provider)
                record.keep(memory_figure(client, provider, size).key, "cpa", value)
    if EVENT_SECTION in chosen:
        streams = {provider: bodies.stream_events(provider) for provider in bodies.CLIENTS}
        for number in range(scale.rounds):
            record.say("translation: events", number)
            for provider, client in DIRECTIONS:
                seconds = event_seconds(streams[provider], client, provider, repeats=REPEATS_PER_SCALE * scale.repeats)
                record.keep(event_figure(provider, client).key, "cpa", seconds * 1e6)


def _forget() -> None:
    """Nothing is known of any tool."""
    tool_cache.cache.clear()
    schema.forget()


def measure_requests(
    sent: dict[Format, bytes],
    size: str,
    record: Record,
    *,
    repeats: int,
    figure: Callable[[Format, Format, str], Figure] = request_figure,
    before: Callable[[], None] = lambda: None,
) -> None:
    """One round: each body by the standard library and into the three other protocols, in turn *repeats* times.

    Args:
      before: called before each translation, outside of what is measured.
    """
    for client, body in sent.items():
        for provider, (stdlib, own) in _of_body(body, client, repeats, before).items():
            key = figure(client, provider, size).key
            record.keep(key, "stdlib", stdlib * 1e6)
            record.keep(key, "cpa", own * 1e6)


def _of_body(
    body: bytes, client: Format, repeats: int, before: Callable[[], None]
) -> dict[Format, tuple[float, float]]:
    """Provider → CPU seconds of the standard library and of the translation."""

    def again() -> None:
        json.dumps(json.loads(body))

    def into(provider: Format) -> Callable[[], None]:
        def translate() -> None:
            translate_request(body, bodies.make_context(client, provider))

        return translate

    found = {}
    for provider in bodies.CLIENTS:
        if provider is not client:
            # Side by side, call by call: whatever else the machine does, it does to both.
            stdlib, own = fastest([again, into(provider)], repeats, before=before)
            found[provider] = (stdlib, own)
    return found


def fastest(works: list[Callable[[], None]], repeats: int, *, before: Callable[[], None] = lambda: None) -> list[float]:
    """The least CPU seconds of each of *works*, of *repeats* calls that alternate, after one to warm up. *before*: what
    is done before each, unmeasured."""
    for work in works:
        work()
    least = [float("inf")] * len(works)
    for _ in range(repeats):
        for place, work in enumerate(works):
            before()
            started = process_time()
            work()
            least[place] = min(least[place], process_time() - started)
    return least


def peak(body: bytes, client: Format, provider: Format) -> float:
    """The most memory that a translation holds at once, beside *body*, in multiples of it."""
    translate_request(body, bodies.make_context(client, provider))  # what is loaded and cached once is not counted
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        translate_request(body, bodies.make_context(client, provider))
        return (tracemalloc.get_traced_memory()[1] - before) / len(body)
    finally:
        tracemalloc.stop()


def event_seconds(events: list[bytes], client: Format, provider: Format, *, repeats: int) -> float:
    """CPU seconds per event of a stream whose events come one by one: the least of *repeats* streams."""

    def stream() -> None:
        context = bodies.make_context(client, provider)
        session = StreamSession(context)
        for event in events:
            session.feed(event)
        session.finish()

    [least] = fastest([stream], repeats)
    return least / len(events)
