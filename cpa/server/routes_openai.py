"""OpenAI Chat Completions, and the older text completions on top of it."""

import re

import attrs

from cpa.formats import completions
from cpa.formats.json import chat_streams, has_member
from cpa.formats.names import Format
from cpa.formats.units import end_frame, ends_stream, frame_unit, to_units
from cpa.pipeline.exchange import ModelRequest
from cpa.server.routes import ClientHead, ModelRoute, Routes, generation
from cpa.server.routes_responses import parse_responses

FOR_RESPONSES = ("input", "instructions")
"""Members of Responses requests; clients that mix up the two paths send them to this one."""
MESSAGES_FIRST = re.compile(rb'[^{]{0,64}\{[^{\[]{0,512}?"messages"[ \t\r\n]*:')
"""`messages` among the first members, before anything that is nested: true of nearly all chats, and read in no time."""

parse_messages = generation(Format.OPENAI, chat_streams)


def is_chat(body: bytes) -> bool:
    """*body* is no Responses request (translation 1.3). Garbage is a chat, whose parser says what is wrong with it."""
    if MESSAGES_FIRST.match(body) or has_member(body, "messages"):
        return True
    return not any(has_member(body, name) for name in FOR_RESPONSES)


def parse_chat(head: ClientHead, body: bytes) -> ModelRequest:
    """A chat, or a Responses request on the wrong path: its answer is a chat's all the same (proxy 1.6)."""
    if is_chat(body):
        return parse_messages(head, body)
    return attrs.evolve(parse_responses(head, body), exit_format=Format.OPENAI)


def parse_completions(head: ClientHead, body: bytes) -> ModelRequest:
    """A text completion as the chat request that serves it (proxy 1.8)."""
    return parse_messages(head, completions.to_chat(body))


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
