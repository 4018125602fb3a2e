"""The four protocols by their bytes: paths, bodies, and how each of them reports a failure."""

import json
from typing import Any

import attrs
import httpx

from cpa.formats.names import Format
from cpa.testing.mock import RecordedRequest, expected_body


@attrs.frozen(kw_only=True)
class Wire:
    """One protocol, the same on both sides of the proxy of `tests.proxy`.

    Attributes:
      name: alias for clients; the provider's is ``mock-NAME``, and ``mock-NAME-unrenamed`` is the same on both sides.
      member: that of the body which holds the conversation.
      terminal: bytes that only a complete stream contains.
    """

    name: str
    format: Format
    path: str
    member: str
    terminal: bytes

    def url(self, *, stream: bool, model: str = "") -> str:
        """Path and query of a request to the proxy."""
        if self.format is not Format.GEMINI:
            return self.path
        action = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{self.path}/{model or self.name}:{action}"

    def conversation(self, text: str) -> object:
        """The member that holds one user message of *text*."""
        if self.format is Format.GEMINI:
            return [{"role": "user", "parts": [{"text": text}]}]
        return [{"role": "user", "content": text}]

    def body(self, *, stream: bool = False, model: str = "", text: str = "hello", **more: object) -> bytes:
        """A compact body."""
        members: dict[str, object] = {self.member: self.conversation(text), **more}
        if self.format is not Format.GEMINI:
            members = {"model": model or self.name, **members, "stream": stream}
        if self.format is Format.CLAUDE:
            members["max_tokens"] = 99
        return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()

    async def post(
        self, client: httpx.AsyncClient, *, stream: bool = False, text: str = "hello", headers: dict[str, str]
    ) -> httpx.Response:
        """Ask and read the whole answer. Raises: httpx.RemoteProtocolError when it was cut off."""
        return await client.post(self.url(stream=stream), content=self.body(stream=stream, text=text), headers=headers)

    def error_of(self, body: bytes) -> dict[str, Any]:
        """The error object of *body*, whose shape is checked."""
        value = json.loads(body)
        error: dict[str, Any] = value["error"]
        if self.format is Format.CLAUDE:
            assert value["type"] == "error"
        if self.format is Format.GEMINI:
            assert isinstance(error["code"], int)
            assert error["status"].isupper()
        else:
            assert isinstance(error["type"], str)
        assert isinstance(error["message"], str)
        assert error["message"]
        return error

    def in_band_error(self, events: bytes) -> dict[str, Any]:
        """The error that *events*, which must be a single one, report inside a stream."""
        assert events.endswith(b"\n\n")
        assert events.count(b"\n\n") == 1
        *names, data = events.removesuffix(b"\n\n").split(b"\n")
        value = json.loads(data.removeprefix(b"data: "))
        if self.format is Format.OPENAI_RESPONSE:
            assert names in ([b"event: error"], [b"event: response.failed"])
            assert value["message"]
            found: dict[str, Any] = value
            return found
        assert names == ([b"event: error"] if self.format is Format.CLAUDE else [])
        return self.error_of(data.removeprefix(b"data: "))


CHAT = Wire(name="gpt", format=Format.OPENAI, path="/v1/chat/completions", member="messages", terminal=b"data: [DONE]")
RESPONSES = Wire(
    name="responses",
    format=Format.OPENAI_RESPONSE,
    path="/v1/responses",
    member="input",
    terminal=b"event: response.completed",
)
CLAUDE = Wire(
    name="claude", format=Format.CLAUDE, path="/v1/messages", member="messages", terminal=b"event: message_stop"
)
GEMINI = Wire(name="gemini", format=Format.GEMINI, path="/v1beta/models", member="contents", terminal=b'"finishReason"')
WIRES = (CHAT, RESPONSES, CLAUDE, GEMINI)


def sent_by(request: RecordedRequest) -> bytes:
    """Every byte of the body with which the mock answered *request*."""
    return expected_body(request.target, request.body, request.headers)
