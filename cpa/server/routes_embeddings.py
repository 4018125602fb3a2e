"""OpenAI's embeddings, for providers of ``openai-compatibility`` only: nothing is translated."""

from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.server.routes import ClientHead, ModelRoute, Routes, model_head
from cpa.types import Operation


def parse(head: ClientHead, body: bytes) -> ModelRequest:
    """A request whose body passes as it is, but for the model's name."""
    return ModelRequest(
        format=Format.OPENAI,
        operation=Operation.EMBED,
        model=model_head(body).model,
        stream=False,
        body=body,
        headers=head.headers,
        query=head.query,
    )


EMBEDDINGS = ModelRoute(pattern="/v1/embeddings", format=Format.OPENAI, parse=parse)
ROUTES: Routes = {EMBEDDINGS.pattern: EMBEDDINGS}
