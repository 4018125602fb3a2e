"""Gemini's generateContent family, where the path names the model and the action."""

from cpa.errors import MalformedRequest, UnknownRoute
from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.server.routes import ClientHead, ModelRoute
from cpa.types import Operation

PREFIXES = ("/v1beta/models/", "/v1/models/")
"""The vendor's newer SDKs use the second one."""
ACTIONS = {
    "generateContent": (Operation.GENERATE, False),
    "streamGenerateContent": (Operation.GENERATE, True),
    "countTokens": (Operation.COUNT_TOKENS, False),
}

BLANKS = b" \t\r\n\xef\xbb\xbf"
"""What may stand before a JSON object; the byte order mark is no blank, but some senders write it."""


def split(path: str) -> tuple[str, str] | None:
    """Model and action of a path below one of `PREFIXES`; the last colon divides them. None for other paths."""
    for prefix in PREFIXES:
        if path.startswith(prefix) and ":" in path:
            model, _, action = path[len(prefix) :].rpartition(":")
            return model, action
    return None


def parse(head: ClientHead, body: bytes) -> ModelRequest:
    """A Gemini request; its action says whether it streams."""
    model, action = split(head.path) or ("", "")
    if not model or action not in ACTIONS:
        known = ", ".join(ACTIONS)
        raise UnknownRoute(f"unknown action {action!r}: expected models/MODEL:ACTION with one of {known}")
    if not body[:64].lstrip(BLANKS).startswith(b"{"):
        raise MalformedRequest("request body: expected a JSON object")
    operation, stream = ACTIONS[action]
    return ModelRequest(
        format=Format.GEMINI,
        operation=operation,
        model=model,
        stream=stream,
        body=body,
        headers=head.headers,
        query=head.query,
    )


GEMINI = ModelRoute(pattern="/v1beta/models/{model}:{action}", format=Format.GEMINI, parse=parse)
