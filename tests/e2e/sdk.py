"""What the tests with the vendors' clients share."""

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio

from tests.proxy import CLIENT_KEY, PROVIDER_KEY, RunningProxy, running_proxy

T = TypeVar("T")
TIMEOUT_S = 90.0
"""Of slow streams, byte by byte, on a machine that has other things to do."""
HELLO = "Hello, Wörld"
TEXT = "Mock answer to 12 characters"
"""How the mock begins its answer to `HELLO`."""
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
ARGUMENTS = {"city": "Paris", "days": 1}
"""What the mock calls a tool of that schema with."""
TOOLS = {"X-Mock-Tool": "1"}
BROKEN = ("reset", "cut", "eof")
"""Ways in which a provider's stream ends too early: RST, half an event and FIN, a clean end between two events."""
RECUT = ("crlf", "split-utf8", "split-frames", "merge-frames", "slow-bytes")

leaves_generators = pytest.mark.filterwarnings(
    r"ignore:Async generator '(openai|anthropic|google|httpx2|httpcore2)\.:ResourceWarning"
)
"""For asynchronous clients on Trio: they leave their own generators to the garbage collector."""


async def with_proxy(use: Callable[[RunningProxy], T]) -> T:
    """Run the blocking *use* in a thread against a proxy on this loop."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy:
            return await trio.to_thread.run_sync(use, proxy)


@asynccontextmanager
async def proxy_for_async_client() -> AsyncIterator[RunningProxy]:
    """A proxy; what the client's generators leave behind is collected while `leaves_generators` is in force."""
    with trio.fail_after(TIMEOUT_S):
        async with running_proxy() as proxy:
            yield proxy
        gc.collect()


def said(text: str) -> list[Any]:
    """One user message, for Chat, Responses and Messages."""
    return [{"role": "user", "content": text}]


def with_fault(fault: str, at: int = 3) -> dict[str, str]:
    """Headers that order a fault from the mock."""
    return {"X-Mock-Fault": fault, "X-Mock-At": str(at)}


def assert_key_was_exchanged(proxy: RunningProxy, header: bytes, value: bytes) -> None:
    """The latest request carried the provider's key as *value* in *header*, and the client's nowhere."""
    request = proxy.mock.requests[-1]
    assert request.header(header) == value
    assert PROVIDER_KEY.encode() in value
    everything = b"\n".join((request.target.encode(), request.body, *(sent for _, sent in request.headers)))
    assert CLIENT_KEY.encode() not in everything
