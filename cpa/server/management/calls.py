"""What a management handler gets, and what it gives back."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import attrs

from cpa.errors import RawHeaders
from cpa.formats.json import encode
from cpa.host.plugins import PluginHost
from cpa.pipeline.rules import query_map
from cpa.server.routes import ClientHead
from cpa.server.state import Runtime
from cpa.usage.service import UsageServices

JSON_TYPE: Final = (b"content-type", b"application/json")
TEXT_TYPE: Final = (b"content-type", b"text/plain; charset=utf-8")


@attrs.frozen(kw_only=True)
class Answer:
    """A whole answer. *headers* have lower-case names, without framing (``content-length`` and its kind)."""

    status: int = 200
    headers: RawHeaders = ()
    body: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen(kw_only=True)
class ManagementCall:
    """One request to a handler, let in and read whole.

    Attributes:
      params: what stands at the ``{name}`` parts of the route's pattern.
      body: content codings undone; empty where the route wants none.
      server_port: of the socket that the client came to.
    """

    head: ClientHead
    runtime: Runtime
    plugins: PluginHost | None
    usage: UsageServices = attrs.field(factory=UsageServices)
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
