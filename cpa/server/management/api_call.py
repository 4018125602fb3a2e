"""``POST /api-call``: one call to any URL, with a credential's key or token in its headers (proxy 6.8).

It is a tool to reach whatever the proxy can reach, so nobody has it without the management key. The token stands only
in headers that the operator wrote it into, never in a log, and how the call ends says nothing of the credential.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import trio

from cpa.credentials.model import Credential
from cpa.credentials.refresh_times import expires_at
from cpa.errors import CpaError, RawHeaders, UpstreamError
from cpa.formats.headers import to_map
from cpa.formats.json import JsonError, decode
from cpa.observability.log import get_logger
from cpa.server.management.auth_targets import accounts_of
from cpa.server.management.calls import Answer, ManagementCall, coded_error, error_answer, json_answer
from cpa.types import JsonObject, JsonValue
from cpa.upstream.outbound import OutboundCall, OutboundReply

log = get_logger()

TOKEN: Final = "$TOKEN$"
REFRESH_EARLY: Final = timedelta(seconds=60)
"""A token that ends so soon is renewed first."""
REFRESH_S: Final = 30.0
"""How long that may take; afterwards the old one is tried."""
MAX_HEADERS: Final = 200

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9-]{0,31}")


class Refused(CpaError):
    """The call makes no sense; the text is the contract's."""

    http_status = 400


@attrs.frozen(kw_only=True)
class Asked:
    """The body of the request, judged."""

    method: str
    url: str = attrs.field(repr=False)
    index: str
    proxy_url: str = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    @property
    def wants_token(self) -> bool:
        """A header holds the place of a token."""
        return any(TOKEN in value for _, value in self.headers)


async def api_call(call: ManagementCall) -> Answer:
    """Make the call and tell what came back. Raises: CpaError."""
    if call.outbound is None:
        return error_answer(503, "there are no connections to providers")
    asked = parse(call.body)
    credential = _credential(call, asked.index)
    token = ""
    if asked.wants_token:
        token = "" if credential is None else await _token(call, credential)
        if not token:
            raise Refused("auth token not found")
    outgoing = OutboundCall(
        method=asked.method,
        url=asked.url,
        headers=_filled(asked, token),
        body=asked.body,
        proxy_url=asked.proxy_url,
        credential_proxy="" if credential is None else credential.proxy_url,
        global_proxy=call.runtime.config.proxy_url,
    )
    author = call.author
    log.info(
        "management.api_call",
        client=author.client,
        known_by=author.known_by,
        method=asked.method,
        url=asked.url,
        credential="" if credential is None else credential.index,
    )
    try:
        return json_answer(told(await call.outbound.send(outgoing)))
    except UpstreamError as exc:
        return coded_error(502, "request failed", exc.message.replace(token, TOKEN) if token else exc.message)


def parse(body: bytes) -> Asked:
    """The wish in *body*. Raises: Refused."""
    try:
        wish = decode(body)
    except JsonError:
        wish = None
    if not isinstance(wish, dict):
        raise Refused("invalid body")
    method, url = _text(wish, "method").upper(), _text(wish, "url")
    if not method:
        raise Refused("missing method")
    if not url:
        raise Refused("missing url")
    if not _METHOD.fullmatch(method) or method == "CONNECT":
        raise Refused("invalid method")
    data = wish.get("data")
    if data is not None and not isinstance(data, str):
        raise Refused("invalid body: data must be a text")
    return Asked(
        method=method,
        url=url,
        index=_text(wish, "auth_index"),
        proxy_url=_text(wish, "proxy_url"),
        headers=tuple(_headers(wish.get("header"))),
        body=(data or "").encode("utf-8", "replace"),
    )


def _text(wish: JsonObject, name: str) -> str:
    """Raises: Refused."""
    value = wish.get(name)
    if value is not None and not isinstance(value, str):
        raise Refused(f"invalid body: {name} must be a text")
    return (value or "").strip()


def _headers(value: JsonValue) -> list[tuple[str, str]]:
    """Raises: Refused."""
    if value is None:
        return []
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Refused("invalid body: header must be an object of texts")
    if len(value) > MAX_HEADERS:
        raise Refused(f"invalid body: at most {MAX_HEADERS} headers")
    return [(name.strip(), str(text)) for name, text in value.items()]


def _filled(asked: Asked, token: str) -> RawHeaders:
    """The headers with the token in its places, and nowhere else."""
    return tuple(
        (name.encode("utf-8", "replace"), value.replace(TOKEN, token).strip().encode("utf-8", "replace"))
        for name, value in asked.headers
    )


def _credential(call: ManagementCall, index: str) -> Credential | None:
    """The credential of *index*. Raises: Refused for an index of nobody: the call would go another way than meant."""
    if not index:
        return None
    found = next((credential for credential in call.runtime.credentials if credential.index == index), None)
    if found is None:
        raise Refused("auth token not found")
    return found


async def _token(call: ManagementCall, credential: Credential) -> str:
    """Its key, or its token, renewed first when it is about to end and somebody can renew it; empty = none."""
    token, expires = token_of(credential), expires_at(credential)
    ending = expires is not None and expires - datetime.now(UTC) < REFRESH_EARLY
    if (token and not ending) or call.plugins is None:
        return token
    accounts = accounts_of(call)
    with trio.move_on_after(REFRESH_S):
        await accounts.refresh_now(credential.id)
    renewed = accounts.snapshot.credential(credential.id)
    return token if renewed is None else token_of(renewed) or token


def token_of(credential: Credential) -> str:
    """What proves to its provider who calls; empty = it has no such thing, or keeps it where nobody knows."""
    if credential.api_key:
        return credential.api_key
    nested = credential.metadata.get("token")
    places = (credential.metadata, nested if isinstance(nested, dict) else {})
    found = [place.get(name) for place in places for name in ("access_token", "api_key")]
    texts = [text.strip() for text in (*found, nested) if isinstance(text, str)]
    return next((text for text in texts if text), "")


def told(reply: OutboundReply) -> JsonObject:
    """The answer as the contract has it, and `truncated` where the body is not all of it."""
    headers: JsonObject = {name: [*values] for name, values in to_map(reply.headers).items()}
    shown: JsonObject = {
        "status_code": reply.status,
        "header": headers,
        "body": reply.body.decode("utf-8", "replace"),
    }
    if reply.cut:
        shown["truncated"] = True
        shown["truncated_at_bytes"] = len(reply.body)
    return shown
