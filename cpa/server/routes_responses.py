"""OpenAI Responses over HTTP, also under the path that Codex clients use; compaction and token counts."""

import attrs

from cpa.errors import MalformedRequest
from cpa.formats.json import StreamFlag, chat_streams, pop_member
from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.server.routes import ClientHead, ModelRoute, Routes, generation, model_head
from cpa.types import Operation

COMPACT_ALT = "responses/compact"
"""How plugins' executors are told (proxy 1.11)."""

parse_responses = generation(Format.OPENAI_RESPONSE, chat_streams)


def parse_compact(head: ClientHead, body: bytes) -> ModelRequest:
    """A request to compact a conversation, which is never streamed."""
    found = model_head(body)
    if chat_streams(found.stream):
        raise MalformedRequest("Streaming not supported for compact responses", param="stream")
    if found.stream is not StreamFlag.ABSENT:
        body, _ = pop_member(body, "stream")
    return _unstreamed(head, body, Operation.COMPACT, model=found.model, alt=COMPACT_ALT)


def parse_count(head: ClientHead, body: bytes) -> ModelRequest:
    """A request for the number of tokens of another one."""
    return _unstreamed(head, body, Operation.COUNT_TOKENS, model=model_head(body).model)


def _unstreamed(head: ClientHead, body: bytes, operation: Operation, *, model: str, alt: str = "") -> ModelRequest:
    return head.request(Format.OPENAI_RESPONSE, operation, body, model=model, stream=False, alt=alt)


RESPONSES = ModelRoute(pattern="/v1/responses", format=Format.OPENAI_RESPONSE, parse=parse_responses)
COMPACT = ModelRoute(pattern="/v1/responses/compact", format=Format.OPENAI_RESPONSE, parse=parse_compact)
COUNT = ModelRoute(pattern="/v1/responses/input_tokens", format=Format.OPENAI_RESPONSE, parse=parse_count)
CODEX_PATHS = tuple(
    attrs.evolve(route, pattern=route.pattern.replace("/v1", "/backend-api/codex")) for route in (RESPONSES, COMPACT)
)
ROUTES: Routes = {route.pattern: route for route in (RESPONSES, COMPACT, COUNT, *CODEX_PATHS)}
