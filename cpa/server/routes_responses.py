"""OpenAI Responses over HTTP, also under the path that Codex clients use."""

import attrs

from cpa.formats.json import chat_streams
from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.server.routes import ClientHead, ModelRoute, Routes, model_head
from cpa.types import Operation


def parse_responses(head: ClientHead, body: bytes) -> ModelRequest:
    """A Responses request; it streams only if ``stream`` is literally true."""
    found = model_head(body)
    return ModelRequest(
        format=Format.OPENAI_RESPONSE,
        operation=Operation.GENERATE,
        model=found.model,
        stream=chat_streams(found.stream),
        body=body,
        headers=head.headers,
        query=head.query,
    )


RESPONSES = ModelRoute(pattern="/v1/responses", format=Format.OPENAI_RESPONSE, parse=parse_responses)
ROUTES: Routes = {
    RESPONSES.pattern: RESPONSES,
    "/backend-api/codex/responses": attrs.evolve(RESPONSES, pattern="/backend-api/codex/responses"),
}
