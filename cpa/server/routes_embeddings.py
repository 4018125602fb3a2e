"""OpenAI's embeddings, for providers of ``openai-compatibility`` only: nothing is translated."""

from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.server.routes import ClientHead, ModelRoute, Routes, model_head
from cpa.types import Operation


def parse(head: ClientHead, body: bytes) -> ModelRequest:
    """A request whose body passes as it is, but for the model's name."""
    return head.request(Format.OPENAI, Operation.EMBED, body, model=model_head(body).model, stream=False)


EMBEDDINGS = ModelRoute(pattern="/v1/embeddings", format=Format.OPENAI, parse=parse)
ROUTES: Routes = {EMBEDDINGS.pattern: EMBEDDINGS}
