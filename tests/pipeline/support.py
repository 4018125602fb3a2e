"""What the pipeline's tests share: requests, recording stages, one run of the runner."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import attrs

from cpa.errors import CpaError, RawHeaders
from cpa.formats.names import Format
from cpa.pipeline.completions import open_completions
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.runner import open_answer
from cpa.pipeline.stage import OnError, Registration, StageKind
from cpa.testing.fakes import FakeAnswer, FakeExecutor, candidate, services
from cpa.types import Candidate, Operation, PluginId, TraceId, UpstreamCall

CHAT = b'{"model":"m1","messages":[]}'
DELTA = 'data: {{"id":"c","object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{"content":"{}"}}}}]}}\n\n'
STOP = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def delta(text: str) -> bytes:
    """A chat chunk event."""
    return DELTA.format(text).encode()


def unit(text: str) -> bytes:
    """The same as chunk interceptors see it: bare JSON."""
    return delta(text)[len(b"data: ") :].strip()


def request(*, stream: bool = False, body: bytes = CHAT, **changes: Any) -> ModelRequest:
    """A chat request."""
    made = ModelRequest(
        format=Format.OPENAI,
        operation=Operation.GENERATE,
        model="m1",
        stream=stream,
        body=body,
        headers=((b"user-agent", b"test"), (b"x-team", b"blue")),
        path="/v1/chat/completions",
        trace_id=TraceId("0a0b0c0d"),
    )
    return attrs.evolve(made, **changes)


def register(
    kind: StageKind,
    plugin_id: str,
    answer: Callable[[Any], Any] | None = None,
    *,
    seen: list[Any] | None = None,
    priority: int = 0,
    on_error: OnError = OnError.SKIP,
) -> Registration:
    """A stage that notes its calls in *seen* and answers what *answer* makes of them."""

    async def stage(call: Any) -> Any:
        if seen is not None:
            seen.append((plugin_id, call))
        return None if answer is None else answer(call)

    return Registration(kind=kind, plugin_id=PluginId(plugin_id), stage=stage, priority=priority, on_error=on_error)


def full(body: bytes = b'{"id":"r1"}', headers: RawHeaders = ((b"content-type", b"application/json"),)) -> FakeExecutor:
    """A chat provider that answers *body*."""
    return FakeExecutor(Format.OPENAI, lambda call: FakeAnswer([body], headers=headers))


def streaming(*events: bytes, headers: RawHeaders = ((b"x-up", b"1"),)) -> FakeExecutor:
    """A chat provider that streams *events*."""
    return FakeExecutor(Format.OPENAI, lambda call: FakeAnswer(list(events), headers=headers))


def failing(error: Callable[[], BaseException]) -> FakeExecutor:
    """A provider that always fails."""

    def answer(call: UpstreamCall) -> FakeAnswer:
        raise error()

    return FakeExecutor(Format.OPENAI, answer)


@attrs.frozen
class Result:
    """What a client would have got."""

    headers: RawHeaders
    body: bytes
    frames: tuple[bytes, ...] = ()


async def execute(
    candidates: Sequence[Candidate] | FakeExecutor,
    registrations: Iterable[Registration] = (),
    *,
    ask: ModelRequest | None = None,
    passthrough_headers: bool = False,
    inside: Callable[[], Awaitable[None]] | None = None,
) -> Result:
    """One execution, read to its end; completion events have been delivered when it returns."""
    if isinstance(candidates, FakeExecutor):
        candidates = [candidate(candidates)]
    error: CpaError | None = None
    result = Result((), b"")
    async with open_completions() as completions:
        made = services(candidates, completions, registrations, passthrough_headers=passthrough_headers)
        try:
            async with open_answer(ask or request(), made) as answer:
                if inside is not None:
                    await inside()
                frames = [] if answer.stream is None else [frame async for frame in answer.stream]
                result = Result(answer.headers, answer.body + b"".join(frames), tuple(frames))
        except CpaError as exc:
            error = exc  # raised below, outside the nursery, which would wrap it
    if error is not None:
        raise error
    return result
