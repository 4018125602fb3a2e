"""Requests, replies and host calls as bytes: the wrapping of plugin-abi.md 2.1–2.2 and the return codes of 1.13.

Theory of operation. A request is a bare object: the message's members and, at the end, the ids of the call. A reply is
an envelope ``{"ok":…,"result":…}``, read in two steps as the Go host does: the envelope, whose types must be right even
where they are ignored, then the result. Most replies of a busy proxy say "nothing to change" or are one body; both are
recognised by their bytes, everything else goes through `codec`. Recognition never accepts what `codec` would refuse:
the body's base64 is checked by the decoder itself, and what it does not take is read again properly.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import attrs
import pybase64

from cpa.abi.codec import Message, Prepared, codec, flag, number, optional, text, undecoded
from cpa.abi.gojson import MAX_MESSAGE_BYTES, GoJsonError, Tree
from cpa.abi.kinds import encode_text
from cpa.abi.methods import HOST_METHODS, Method
from cpa.errors import CpaError

Q = TypeVar("Q")
R = TypeVar("R")

MAX_ERROR_TEXT: Final = 4096
"""Characters of a plugin's own text in an error: it goes to logs and clients, and plugins put whole bodies into it."""
_FIRST_STATUS: Final = 200
_LAST_STATUS: Final = 599

NO_REQUEST: Final = b"{}"
"""The request of methods that are told nothing."""
EMPTY_RESULT: Final = b'{"ok":true,"result":{}}'
"""The answer to a host call that only succeeds."""


class PluginCallError(CpaError):
    """A plugin answered that it failed.

    Attributes:
      method: wire name of the call.
      reported_status: ``http_status`` of the plugin's error, 0 when absent. `http_status` is the same if HTTP can carry
        it as a final status (200..599), else 500.
    """

    as_said = True
    http_status = 500
    code = "plugin_call_failed"
    default_message = "plugin call failed"

    def __init__(self, *, method: str, message: str = "", http_status: int = 0) -> None:
        usable = _FIRST_STATUS <= http_status <= _LAST_STATUS
        super().__init__(_shorten(message), http_status=http_status if usable else None)
        self.method = method
        self.reported_status = http_status


class PluginReplyError(PluginCallError):
    """A plugin answered with what cannot be understood; nothing of it was used."""

    code = "plugin_reply_invalid"


class HostCallError(CpaError):
    """A plugin asked the host wrongly; goes back to it as an envelope."""

    http_status = 400
    code = "host_call_failed"
    default_message = "host call failed"


def _shorten(message: str) -> str:
    return message if len(message) <= MAX_ERROR_TEXT else message[:MAX_ERROR_TEXT] + "…"


class _Error(Message):
    code: str = text("code")
    message: str = text("message")
    retryable: bool = flag("retryable")
    http_status: int = number("http_status")


class _Envelope(Message):
    ok: bool = flag("ok")
    result: Tree = undecoded("result")
    error: _Error | None = optional("error", _Error)


_envelopes = codec(_Envelope)

# --- host → plugin ---------------------------------------------------------------------------------------------------


def encode_request(method: Method[Q, Any], request: Q, *, scope_id: str = "", stream_id: str = "") -> bytes:
    """The request of a plugin call, compact JSON. *stream_id* and *scope_id* come last, in this order, unless empty.

    Raises: ValueError for ids that *method* does not carry, and for times without zone.
    """
    return codec(method.request).encode(request, _tail(method, scope_id, stream_id))


def _tail(method: Method[Any, Any], scope_id: str, stream_id: str) -> bytes:
    if (scope_id and not method.scoped) or (stream_id and not method.streamed):
        raise ValueError(f"{method.name} carries no such id")
    tail = b',"stream_id":' + encode_text(stream_id) if stream_id else b""
    return tail + b',"host_callback_id":' + encode_text(scope_id) if scope_id else tail


@attrs.frozen
class PreparedRequest:
    """A request whose constant part is encoded once: for the chunks of a stream, for a chain of plugins."""

    _method: Method[Any, Any]
    _prepared: Prepared

    def encode(self, *, scope_id: str = "", **values: Any) -> bytes:
        """As `encode_request`; *values* are all attributes that were left open. Raises: KeyError, ValueError."""
        return self._prepared.encode(values, _tail(self._method, scope_id, ""))


def prepare_request(method: Method[Q, Any], request: Q, varying: Iterable[str]) -> PreparedRequest:
    """*request* with the attributes *varying* left open. Raises: ValueError when it has no such attribute."""
    return PreparedRequest(method, codec(method.request).prepare(request, varying))


def decode_reply(method: Method[Any, R], status: int, data: bytes) -> R:
    """What a plugin answered: its return code and the bytes that it left.

    Raises:
      PluginReplyError: not an envelope, a wrong type anywhere, or a failure without a readable reason.
      PluginCallError: the plugin's own error.
    """
    if status != 0:
        raise _failure(method.name, status, data)
    quick = _decode_quickly(method, data)
    if quick is not None:
        return quick
    envelope = _read_envelope(method.name, data)
    if not envelope.ok:
        raise _reported(method.name, envelope)
    try:
        return codec(method.reply).decode(envelope.result)
    except GoJsonError as exc:
        raise PluginReplyError(method=method.name, message=f"decode plugin result {method.name}: {exc}") from exc


_NOTHING_SAID: Final = frozenset({EMPTY_RESULT, b'{"ok":true}', b'{"ok":true,"result":null}'})
_LONGEST_NOTHING: Final = max(len(reply) for reply in _NOTHING_SAID)
_BODY_END: Final = b'"}}'


def _decode_quickly(method: Method[Any, R], data: bytes) -> R | None:
    """The result if *data* is one of the two frequent replies in compact form, else None."""
    if len(data) <= _LONGEST_NOTHING and data in _NOTHING_SAID:
        return method.reply()
    shape = _body_shape(method.reply)
    if (
        shape is None
        or len(data) > MAX_MESSAGE_BYTES
        or not data.startswith(shape.start)
        or not data.endswith(_BODY_END)
    ):
        return None
    try:
        body = pybase64.b64decode(memoryview(data)[len(shape.start) : -len(_BODY_END)], validate=True)
    except ValueError:  # an escape, a line break, another member, or no base64 at all
        return None
    return method.reply(**{shape.attribute: body})


@attrs.frozen
class _BodyShape:
    """How a reply begins that has one member, a body."""

    start: bytes
    attribute: str


_shapes: dict[type[Any], _BodyShape | None] = {}


def _body_shape(reply: type[Any]) -> _BodyShape | None:
    if reply not in _shapes:
        found = codec(reply).first_bytes()
        _shapes[reply] = found and _BodyShape(b'{"ok":true,"result":{"%b":"' % found[1].encode(), found[0])
    return _shapes[reply]


def _read_envelope(method: str, data: bytes) -> _Envelope:
    try:
        return _envelopes.read(data)
    except GoJsonError as exc:
        raise PluginReplyError(method=method, message=f"decode plugin envelope {method}: {exc}") from exc


def _reported(method: str, envelope: _Envelope) -> PluginCallError:
    error = envelope.error or _Error()
    return PluginCallError(method=method, message=error.message.strip(), http_status=error.http_status)


def _failure(method: str, status: int, data: bytes) -> PluginCallError:
    """What a non-zero return code means: the error in the envelope if there is one, else the raw body."""
    try:
        envelope = _envelopes.read(data)
    except GoJsonError:
        envelope = _Envelope(ok=True)
    if not envelope.ok and envelope.error is not None:
        return _reported(method, envelope)
    body = data[: 4 * MAX_ERROR_TEXT].decode("utf-8", "replace")  # a character has at most four bytes
    return PluginReplyError(method=method, message=f"plugin call {method} returned {status}: {body}")


# --- plugin → host ---------------------------------------------------------------------------------------------------


def find_host_method(name: str) -> Method[Any, Any]:
    """The row of a host call. Raises: HostCallError."""
    method = HOST_METHODS.get(name)
    if method is None:
        raise HostCallError(f"unsupported host callback {_shorten(name)}")
    return method


def decode_host_request(method: Method[Q, Any], data: bytes) -> Q:
    """What a plugin asks. Raises: HostCallError with the contract's text."""
    if not data and method.empty_request:
        return method.request()
    try:
        return codec(method.request).read(data)
    except GoJsonError as exc:
        raise HostCallError(f"{method.complaint}: {exc}") from exc


def encode_host_reply(method: Method[Any, R], result: R) -> bytes:
    """The envelope of a host call that succeeded. Raises: GoJsonError when embedded JSON is none."""
    return b'{"ok":true,"result":%b}' % codec(method.reply).encode(result)


def encode_host_error(message: str, *, http_status: int = 0, retryable: bool = False) -> bytes:
    """The envelope of a host call that failed.

    *http_status* and *retryable* tell more than the Go host does; plugins that do not know them ignore them. Left out
    when zero or false.
    """
    extra = b',"retryable":true' if retryable else b""
    if http_status:
        extra += b',"http_status":%d' % http_status
    return b'{"ok":false,"error":{"code":"host_call_failed","message":%b%b}}' % (encode_text(message), extra)


# --- the plugin's side: for fakes and the conformance kit ------------------------------------------------------------


def decode_request(method: Method[Q, Any], data: bytes) -> Q:
    """What the host asks of a plugin. The ids of the call are in `wire.CallIds`. Raises: GoJsonError."""
    return codec(method.request).read(data)


def encode_reply(method: Method[Any, R], result: R) -> bytes:
    """The envelope of a plugin call that succeeded."""
    return b'{"ok":true,"result":%b}' % codec(method.reply).encode(result)


def encode_error(message: str, *, code: str = "failed", http_status: int = 0) -> bytes:
    """The envelope of a plugin call that failed."""
    status = b',"http_status":%d' % http_status if http_status else b""
    return b'{"ok":false,"error":{"code":%b,"message":%b%b}}' % (encode_text(code), encode_text(message), status)
