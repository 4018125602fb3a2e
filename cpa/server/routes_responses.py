"""OpenAI Responses over HTTP, also under the path that Codex clients use."""

import attrs

from cpa.formats.json import chat_streams
from cpa.formats.names import Format
from cpa.server.routes import ModelRoute, Routes, generation

RESPONSES = ModelRoute(
    pattern="/v1/responses", format=Format.OPENAI_RESPONSE, parse=generation(Format.OPENAI_RESPONSE, chat_streams)
)
ROUTES: Routes = {
    RESPONSES.pattern: RESPONSES,
    "/backend-api/codex/responses": attrs.evolve(RESPONSES, pattern="/backend-api/codex/responses"),
}
