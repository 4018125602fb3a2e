"""Pages of plugins (plugin-abi 7.4): served without a key, and so kept apart from everything that needs one.

A page that says nothing of its own security gets a policy that treats it as what it is, content of somebody else in
our origin: nothing from other sites, and ``sandbox`` without ``allow-same-origin``. Inline scripts, forms, own scripts,
styles and images work; the page has an opaque origin all the same, so that a hole in it (pages reflect what they are
asked, unescaped) reads neither what the control panel keeps in the browser nor any answer of the management API.
What such a page cannot do is read its own plugin's other resources by script; a plugin that wants that allows it with
``Access-Control-Allow-Origin`` there, or sends a ``Content-Security-Policy`` of its own, which is then the only one:
who writes one has thought of it, and the plugin's native code can do more than its pages anyway.
"""

import codecs
import re
from typing import Final

from cpa.errors import CpaError, RawHeaders
from cpa.formats import headers as http
from cpa.formats.headers import HeaderMap
from cpa.host.management import Endpoint, PageReply, PageRequest, PluginBusy, PluginManagement
from cpa.observability.log import get_logger
from cpa.pipeline.rules import query_map
from cpa.server.management.calls import Answer, text_answer
from cpa.server.routes import ClientHead

log = get_logger()

POLICY: Final = (
    b"default-src 'none'; style-src 'unsafe-inline' 'self'; img-src 'self' data:; font-src 'self' data:; "
    b"media-src 'self' data:; script-src 'unsafe-inline' 'self'; connect-src 'self'; form-action 'self'; "
    b"base-uri 'none'; frame-ancestors 'self'; sandbox allow-scripts allow-forms allow-popups "
    b"allow-popups-to-escape-sandbox allow-modals allow-downloads"
)
FRAMED_BY_US: Final = b"frame-ancestors 'self'"
"""Holds beside a policy of the plugin's own: who may show our pages is not for it to say."""
OPENER_POLICY: Final = (b"cross-origin-opener-policy", b"same-origin-allow-popups")
"""For pages without the sandbox, which keep our origin; with it the origin is nobody's, and browsers differ on whether
both may be said. The control panel has ``same-origin``: of these two neither can reach the other as its opener."""

NOT_FOR_PLUGINS: Final = frozenset({"Authorization", "X-Management-Key", "Cookie", "Host"})
"""Secrets of the operator and of the browser. Go's header maps have no Host either."""
_REACHING_BEYOND: Final = frozenset({b"set-cookie", b"set-cookie2", b"clear-site-data", b"service-worker-allowed"})
"""What a page would do to the whole origin, or to all ports of it."""
_FRAMING: Final = frozenset(
    {
        *(b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"date"),
    }
)
_WITHOUT_BODY: Final = frozenset({204, 205, 304})
_FIRST_STATUS, _LAST_STATUS = 200, 599
_HTML = re.compile(
    rb"\s*<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|body|br|p|b)[\s>]|\s*<!--",
    re.IGNORECASE,
)
_IMAGES: Final = (
    (b"\x89PNG\r\n\x1a\n", b"image/png"),
    (b"\xff\xd8\xff", b"image/jpeg"),
    (b"GIF8", b"image/gif"),
)
_SAMPLE_BYTES: Final = 512
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadReply(CpaError):
    """A plugin's answer that HTTP cannot carry."""

    http_status = 502
    code = "plugin_reply_invalid"


async def serve_resource(management: PluginManagement, endpoint: Endpoint, head: ClientHead) -> Answer:
    """The page at *head*'s path. The body of the request, if any, is none of its business."""
    try:
        reply = await management.handle(endpoint, page_request(head, b""))
        headers = tuple(answer_headers(reply))
        return Answer(
            status=status_of(reply),
            headers=(*headers, *page_headers(headers)),
            body=body_of(reply),
        )
    except PluginBusy as exc:
        return text_answer(exc.message, status=exc.http_status)
    except CpaError as exc:
        log.warning("plugin.resource_failed", plugin=endpoint.plugin.id, path=head.path, error=str(exc))
        return text_answer("plugin resource handler failed", status=502)


def page_request(head: ClientHead, body: bytes) -> PageRequest:
    """*head* as the plugin sees it."""
    given = http.to_map(head.headers)
    return PageRequest(
        method=head.method,
        path=head.path,
        headers={name: values for name, values in given.items() if name not in NOT_FOR_PLUGINS},
        query=query_map(head.query),
        body=body,
    )


def status_of(reply: PageReply) -> int:
    """The status for the client. Raises: BadReply."""
    status = reply.status or 200
    if not _FIRST_STATUS <= status <= _LAST_STATUS:
        raise BadReply(f"status {status}: expected {_FIRST_STATUS} to {_LAST_STATUS}")
    return status


def body_of(reply: PageReply) -> bytes:
    """The body, where the status allows one."""
    return b"" if reply.status in _WITHOUT_BODY else reply.body


def answer_headers(reply: PageReply) -> RawHeaders:
    """The plugin's headers without those that are about the connection or reach beyond its pages.

    Where it names no content type there is one by the look of the body, as Go's server makes one up.
    """
    told = tuple(_kept(reply.headers))
    if any(name == b"content-type" for name, _ in told) or not body_of(reply):
        return told
    return ((b"content-type", _sniffed(reply.body)), *told)


def _kept(headers: HeaderMap) -> RawHeaders:
    listed = {
        name.strip().lower().encode("latin-1", "replace")
        for key, values in headers.items()
        if key.lower() == "connection"
        for value in values
        for name in value.split(",")
    }
    left_out = _FRAMING | _REACHING_BEYOND | listed
    return tuple(
        (name, value) for name, value in http.to_raw(headers) if name not in left_out and not _CONTROL.search(value)
    )


def page_headers(told: RawHeaders) -> RawHeaders:
    """What a plugin's page gets beside the headers that it has."""
    names = {name for name, _ in told}
    own_policy = b"content-security-policy" in names
    added: list[tuple[bytes, bytes]] = [(b"content-security-policy", FRAMED_BY_US if own_policy else POLICY)]
    if own_policy and OPENER_POLICY[0] not in names:
        added.append(OPENER_POLICY)
    for name, value in ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")):
        if name not in names:
            added.append((name, value))
    return tuple(added)


def _sniffed(body: bytes) -> bytes:
    if _HTML.match(body):
        return b"text/html; charset=utf-8"
    for magic, kind in _IMAGES:
        if body.startswith(magic):
            return kind
    sample = body[:_SAMPLE_BYTES]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)  # the sample may end inside of a character
    except UnicodeDecodeError:
        return b"application/octet-stream"
    return b"application/octet-stream" if b"\0" in sample else b"text/plain; charset=utf-8"
