"""What plugins ask of the host and what it answers: the messages of plugin-abi.md chapter 5.

As in `wire.py`: values only, fields in wire order. Requests come from plugins, so that their order means nothing to us;
what a plugin's side (fakes, the conformance kit) writes leaves empty members out.
"""

from datetime import datetime

from cpa.abi.codec import (
    Message,
    any_map,
    data,
    embedded,
    flag,
    list_map,
    moment,
    nullable_list_map,
    number,
    optional,
    struct,
    structs,
    text,
)
from cpa.formats.headers import HeaderMap
from cpa.types import JsonObject

# --- host.http.* (5.3, 5.4) ------------------------------------------------------------------------------------------


class NestedHttpRequest(Message):
    """The member ``request`` of `HostHttpRequest`."""

    method: str = text("method", omit=True)
    url: str = text("url", omit=True)
    headers: HeaderMap = list_map("headers", omit=True, secret=True)
    body: bytes = data("body", omit=True, secret=True)


class HostHttpRequest(Message):
    """`host.http.do`, `host.http.do_stream`. Header names keep the plugin's spelling."""

    http_client_id: str = text("http_client_id", omit=True)
    method: str = text("method", omit=True)
    url: str = text("url", omit=True)
    headers: HeaderMap = list_map("headers", omit=True, secret=True)
    body: bytes = data("body", omit=True, secret=True)
    request: NestedHttpRequest | None = optional("request", NestedHttpRequest, omit=True)
    scope_id: str = text("host_callback_id", omit=True)

    def effective(self) -> "HostHttpRequest":
        """What is meant: the members of *request* instead of the outer ones, if it is there; ``GET`` by default."""
        inner: HostHttpRequest | NestedHttpRequest = self.request or self
        return HostHttpRequest(
            method=inner.method or "GET",
            url=inner.url,
            headers=inner.headers,
            body=inner.body,
            scope_id=self.scope_id,
        )


class HostHttpReply(Message):
    """`host.http.do`. The one callback with Go's names."""

    status_code: int = number("StatusCode")
    headers: HeaderMap = list_map("Headers", secret=True)
    body: bytes = data("Body", secret=True)


class HostHttpStreamReply(Message):
    """`host.http.do_stream`."""

    status_code: int = number("status_code")
    headers: HeaderMap = list_map("headers", omit=True, secret=True)
    stream_id: str = text("stream_id")


class StreamRef(Message):
    """`host.http.stream_read`, `.stream_close`, `host.model.stream_read`, `.stream_close`."""

    stream_id: str = text("stream_id")


class HttpStreamReadReply(Message):
    """`host.http.stream_read`: a block, the end, or an error (with *done*)."""

    payload: bytes = data("payload", omit=True, secret=True)
    error: str = text("error", omit=True)
    done: bool = flag("done", omit=True)


# --- host.model.* (5.5) ----------------------------------------------------------------------------------------------


class HostModelRequest(Message):
    """`host.model.execute`, `host.model.execute_stream`. Empty headers and query: those of the scope's request."""

    entry_protocol: str = text("entry_protocol")
    exit_protocol: str = text("exit_protocol", omit=True)
    model: str = text("model")
    stream: bool = flag("stream")
    body: bytes = data("body", secret=True)
    headers: HeaderMap = list_map("headers", omit=True, secret=True)
    query: HeaderMap = list_map("query", omit=True, secret=True)
    alt: str = text("alt", omit=True)
    scope_id: str = text("host_callback_id", omit=True)


class HostModelReply(Message):
    """`host.model.execute`."""

    status_code: int = number("status_code")
    headers: HeaderMap | None = nullable_list_map("headers")
    body: bytes = data("body", secret=True)


class HostModelStreamReply(Message):
    """`host.model.execute_stream`."""

    status_code: int = number("status_code")
    headers: HeaderMap | None = nullable_list_map("headers")
    stream_id: str = text("stream_id")


class ModelStreamReadReply(Message):
    """`host.model.stream_read`: unlike the HTTP stream's, always all three members."""

    payload: bytes = data("payload", secret=True)
    error: str = text("error")
    done: bool = flag("done")


# --- host.auth.* (5.6) -----------------------------------------------------------------------------------------------


class AuthIndexRequest(Message):
    """`host.auth.get`, `host.auth.get_runtime`."""

    auth_index: str = text("auth_index")


class RequestBucket(Message):
    """Requests of ten minutes. *time* is a local label such as ``09:40-09:50``."""

    time: str = text("time")
    success: int = number("success")
    failed: int = number("failed")


class AuthEntry(Message):
    """A credential as `host.auth.list` and `host.auth.get_runtime` show it. *size* is in bytes."""

    id: str = text("id", omit=True)
    auth_index: str = text("auth_index", omit=True)
    name: str = text("name")
    type: str = text("type", omit=True)
    provider: str = text("provider", omit=True)
    label: str = text("label", omit=True)
    status: str = text("status", omit=True)
    status_message: str = text("status_message", omit=True)
    disabled: bool = flag("disabled", omit=True)
    unavailable: bool = flag("unavailable", omit=True)
    runtime_only: bool = flag("runtime_only", omit=True)
    source: str = text("source", omit=True)
    path: str = text("path", omit=True)
    size: int = number("size", omit=True)
    modtime: datetime = moment("modtime")
    updated_at: datetime = moment("updated_at")
    created_at: datetime = moment("created_at")
    last_refresh: datetime = moment("last_refresh")
    next_retry_after: datetime = moment("next_retry_after")
    email: str = text("email", omit=True)
    project_id: str = text("project_id", omit=True)
    account_type: str = text("account_type", omit=True)
    account: str = text("account", omit=True)
    priority: int = number("priority", omit=True)
    note: str = text("note", omit=True)
    websockets: bool = flag("websockets", omit=True)
    success: int = number("success", omit=True)
    failed: int = number("failed", omit=True)
    recent_requests: tuple[RequestBucket, ...] = structs("recent_requests", RequestBucket, omit=True)


class AuthListReply(Message):
    """`host.auth.list`: entries by lower-case name."""

    files: tuple[AuthEntry, ...] = structs("files", AuthEntry, empty=b"[]")


class AuthGetReply(Message):
    """`host.auth.get`. *json* is the text of the credential file."""

    auth_index: str = text("auth_index")
    name: str = text("name", omit=True)
    path: str = text("path", omit=True)
    json: bytes = embedded("json", secret=True)


class AuthRuntimeReply(Message):
    """`host.auth.get_runtime`."""

    auth: AuthEntry = struct("auth", AuthEntry)


class AuthSaveRequest(Message):
    """`host.auth.save`. *json* is the text of an object, as the plugin wrote it; empty when absent."""

    name: str = text("name")
    json: bytes = embedded("json", secret=True)


class AuthSaveReply(Message):
    """`host.auth.save`."""

    name: str = text("name")
    path: str = text("path")


# --- host.stream.*, host.log (5.7, 5.8) ------------------------------------------------------------------------------


class StreamEmitRequest(Message):
    """`host.stream.emit`. With *error* it is the last one, and the payload is not delivered."""

    stream_id: str = text("stream_id")
    payload: bytes = data("payload", omit=True, secret=True)
    error: str = text("error", omit=True)


class StreamCloseRequest(Message):
    """`host.stream.close`."""

    stream_id: str = text("stream_id")
    error: str = text("error", omit=True)


class LogRequest(Message):
    """`host.log`. *level*: ``trace``, ``info``, ``warn``, ``warning``, ``error``; anything else is debug."""

    level: str = text("level")
    message: str = text("message")
    fields: JsonObject = any_map("fields", omit=True)
    scope_id: str = text("host_callback_id", omit=True)
