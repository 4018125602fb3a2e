"""Anthropic Messages and its token count."""

from cpa.formats.json import claude_streams
from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.server.routes import ClientHead, ModelRoute, Routes, generation, model_head
from cpa.types import Operation


def parse_count(head: ClientHead, body: bytes) -> ModelRequest:
    """A request to count a Messages body's tokens."""
    return head.request(Format.CLAUDE, Operation.COUNT_TOKENS, body, model=model_head(body).model, stream=False)


ROUTES: Routes = {
    route.pattern: route
    for route in (
        ModelRoute(pattern="/v1/messages", format=Format.CLAUDE, parse=generation(Format.CLAUDE, claude_streams)),
        ModelRoute(pattern="/v1/messages/count_tokens", format=Format.CLAUDE, parse=parse_count),
    )
}
