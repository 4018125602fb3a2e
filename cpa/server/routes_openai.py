"""OpenAI Chat Completions, and the older text completions on top of it."""

from cpa.formats import completions
from cpa.formats.json import chat_streams
from cpa.formats.names import Format
from cpa.formats.units import end_frame, ends_stream, frame_unit, to_units
from cpa.pipeline.exchange import ModelRequest
from cpa.server.routes import ClientHead, ModelRoute, Routes, generation

parse_chat = generation(Format.OPENAI, chat_streams)


def parse_completions(head: ClientHead, body: bytes) -> ModelRequest:
    """A text completion as the chat request that serves it (proxy 1.8)."""
    return parse_chat(head, completions.to_chat(body))


class CompletionsReshape:
    """Chat answers as text completions."""

    def full(self, body: bytes) -> bytes:
        """See `Reshape`."""
        return completions.from_chat(body)

    def frames(self, block: bytes) -> bytes:
        """See `Reshape`; chunks that say nothing in this protocol are dropped."""
        texts = (completions.from_chat_chunk(unit) for unit in to_units(Format.OPENAI, block))
        frames = b"".join(frame_unit(Format.OPENAI, text) for text in texts if text is not None)
        return frames + end_frame(Format.OPENAI) if ends_stream(Format.OPENAI, block) else frames


CHAT = ModelRoute(pattern="/v1/chat/completions", format=Format.OPENAI, parse=parse_chat)
COMPLETIONS = ModelRoute(
    pattern="/v1/completions", format=Format.OPENAI, parse=parse_completions, reshape=CompletionsReshape
)
ROUTES: Routes = {route.pattern: route for route in (CHAT, COMPLETIONS)}
