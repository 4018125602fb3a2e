"""Management routes that plugins own (plugin-abi 7.3): behind the key, which the plugin never sees."""

from typing import Final

import trio

from cpa.errors import CpaError, RawHeaders
from cpa.host.management import Endpoint, PluginBusy, PluginManagement
from cpa.observability.log import get_logger
from cpa.server.management.calls import Answer, coded_error, text_answer
from cpa.server.management.escaping import escape_json
from cpa.server.management.pages import answer_headers, body_of, page_headers, page_request, status_of
from cpa.server.routes import ClientHead

log = get_logger()

SMALL_JSON_BYTES: Final = 32 << 10
"""Escaped in a millisecond or two; larger bodies go to a thread, so that streams keep flowing meanwhile."""


async def serve_route(management: PluginManagement, endpoint: Endpoint, head: ClientHead, body: bytes) -> Answer:
    """The plugin's answer, its JSON escaped."""
    try:
        reply = await management.handle(endpoint, page_request(head, body))
        status = status_of(reply)
    except PluginBusy as exc:
        return coded_error(exc.http_status, exc.code, exc.message)
    except CpaError as exc:
        log.warning("plugin.management_failed", plugin=endpoint.plugin.id, path=head.path, error=str(exc))
        return text_answer("plugin management handler failed", status=502)
    headers = tuple(pair for pair in answer_headers(reply) if not _is_ours(pair[0]))
    told = body_of(reply)
    if _is_json(headers, told):
        if len(told) <= SMALL_JSON_BYTES:
            told = escape_json(told)
        else:
            told = await trio.to_thread.run_sync(escape_json, told, abandon_on_cancel=True)
    return Answer(status=status, headers=(*headers, *page_headers(headers)), body=told)


def _is_ours(name: bytes) -> bool:
    """Management is closed to other sites, and says itself what answers."""
    return name.startswith((b"access-control-", b"x-cpa-"))


def _is_json(headers: RawHeaders, body: bytes) -> bool:
    """By its type, or by its first character."""
    for name, value in headers:
        if name == b"content-type":
            kind = value.split(b";")[0].strip().lower()
            if kind == b"application/json" or kind.endswith(b"+json"):
                return True
    return body.lstrip()[:1] in (b"{", b"[")
