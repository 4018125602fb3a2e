"""What a management handler gets, and what it gives back."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import attrs

from cpa.config.editing import Author, ConfigEditor
from cpa.errors import RawHeaders
from cpa.formats.json import encode
from cpa.host.plugins import PluginHost
from cpa.observability.live import Live
from cpa.observability.sink import LogSink
from cpa.pipeline.rules import query_map
from cpa.server.routes import ClientHead
from cpa.server.state import Runtime
from cpa.upstream.outbound import OutboundCalls
from cpa.usage.service import UsageServices

JSON_TYPE: Final = (b"content-type", b"application/json")
TEXT_TYPE: Final = (b"content-type", b"text/plain; charset=utf-8")


Write: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends a piece of an answer; waits while the client does not read."""
Feed: TypeAlias = Callable[[Write], Awaitable[None]]
"""Writes an answer piece by piece; where it returns the answer ends. Cancelled when the client leaves, and when the
server drains: then the answer ends in order."""


@attrs.frozen(kw_only=True)
class Answer:
    """An answer. *headers* have lower-case names, without framing (``content-length`` and its kind).

    Attributes:
      body: all of it, unless *feed* writes it.
    """

    status: int = 200
    headers: RawHeaders = ()
    body: bytes = attrs.field(default=b"", repr=False)
    feed: Feed | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class ManagementCall:
    """One request to a handler, let in and read whole.

    Attributes:
      params: what stands at the ``{name}`` parts of the route's pattern.
      body: content codings undone; empty where the route wants none.
      server_port: of the socket that the client came to.
      editor: of the configuration file; None where there is none (the demo, embedders).
      author: who asks, for edits and their audit line.
      log_sink: where the application log goes; None where somebody else cares for it.
      outbound: for calls to providers.
    """

    head: ClientHead
    runtime: Runtime
    plugins: PluginHost | None
    editor: ConfigEditor | None = None
    author: Author = attrs.field(factory=Author)
    log_sink: LogSink | None = None
    outbound: OutboundCalls | None = None
    usage: UsageServices = attrs.field(factory=UsageServices)
    live: Live = attrs.field(factory=Live)
    params: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", repr=False)
    server_port: int = 0

    def query(self, name: str) -> str:
        """The first value of that parameter, trimmed; empty without one."""
        return query_map(self.head.query).get(name, [""])[0].strip()


Handler: TypeAlias = Callable[[ManagementCall], Awaitable[Answer]]


def json_answer(value: object, *, status: int = 200) -> Answer:
    """*value* as JSON."""
    return Answer(status=status, headers=(JSON_TYPE,), body=encode(value))


def text_answer(text: str, *, status: int) -> Answer:
    """Plain text."""
    return Answer(status=status, headers=(TEXT_TYPE,), body=text.encode())


def error_answer(status: int, text: str) -> Answer:
    """An error as the management API tells it (proxy 6)."""
    return json_answer({"error": text}, status=status)


def coded_error(status: int, code: str, message: str) -> Answer:
    """An error as its plugin endpoints tell it (plugin-abi 7.2)."""
    return json_answer({"error": code, "message": message}, status=status)
