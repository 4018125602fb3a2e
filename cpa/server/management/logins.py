"""Sign-in endpoints for the providers of plugins (plugin-abi 7.6)."""

import re
from typing import Final
from urllib.parse import parse_qs

from cpa.formats.json import decode
from cpa.host.logins import LoginError, LoginStatus, is_state
from cpa.host.paths import MANAGEMENT
from cpa.server.management.calls import Answer, ManagementCall, error_answer, json_answer
from cpa.server.management.paths import CALLBACK
from cpa.server.management.plugin_list import NO_HOST
from cpa.types import JsonValue

MAX_FORM_FIELDS: Final = 32
_AUTH_URL = re.compile(re.escape(MANAGEMENT) + r"/(?P<provider>[a-z0-9-]+)-auth-url")
_PAGE_HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    "<style>body{{font:16px sans-serif;margin:4em auto;max-width:30em}}</style>"
    "<h1>{title}</h1><p>{text}</p></html>\n"
)


def login_provider(call: ManagementCall) -> str:
    """The provider whose sign-in page the path asks for, if a plugin offers it; else empty. Any method will do."""
    match = _AUTH_URL.fullmatch(call.head.path)
    if match is None or call.plugins is None or not call.plugins.logins.offers(match["provider"]):
        return ""
    return match["provider"]


async def start(call: ManagementCall, provider: str) -> Answer:
    """``/<provider>-auth-url``: where to sign in."""
    if call.plugins is None:
        return NO_HOST
    scheme = "https" if call.runtime.config.tls.enable else "http"
    url = f"{scheme}://127.0.0.1:{call.server_port or call.runtime.config.port}{CALLBACK}"
    try:
        started = await call.plugins.logins.start(provider, callback_url=url)
    except LoginError as exc:
        return error_answer(exc.http_status, exc.message)
    return json_answer({"status": "ok", "url": started.url, "state": started.state})


async def status(call: ManagementCall) -> Answer:
    """``GET /get-auth-status?state=``: how the sign-in stands."""
    state = call.query("state")
    if not is_state(state):
        return json_answer({"status": "error", "error": "invalid state"}, status=400)
    found = await call.plugins.logins.poll(state) if call.plugins is not None else None
    if found is None:
        return json_answer({"status": "error", "error": "unknown or expired state"}, status=404)
    told = {"status": found.status.value}
    return json_answer(told | {"error": found.error} if found.status is LoginStatus.ERROR else told)


async def forget(call: ManagementCall) -> Answer:
    """``DELETE /oauth-session?state=``: give a sign-in up. One that is gone already is no error."""
    state = call.query("state")
    if not is_state(state):
        return error_answer(400, "invalid state")
    if call.plugins is not None:
        await call.plugins.logins.forget(state)
    return json_answer({"status": "ok"})


async def callback(call: ManagementCall) -> Answer:
    """``GET``, ``POST /oauth-callback``: the provider sent the browser back. Without key: the state is the secret."""
    given = {name: call.query(name) for name in ("code", "state", "error")}
    if call.head.method == "POST":
        given |= _body_members(call)
    if not is_state(given["state"]) or not (given["code"] or given["error"]):
        return _told(call, 400, "invalid callback: state and code or error are required")
    try:
        known = call.plugins is not None and await call.plugins.logins.callback(**given)
    except LoginError as exc:
        return _told(call, exc.http_status, exc.message)
    if not known:
        return _told(call, 404, "unknown or expired state")
    return _told(call, 200, "You can close this page and go back to where you started the sign-in.")


def _body_members(call: ManagementCall) -> dict[str, str]:
    """Those of a JSON object or of a form, as far as they are there and texts."""
    try:
        if call.head.header(b"content-type").startswith(b"application/x-www-form-urlencoded"):
            form = parse_qs(call.body.decode("utf-8", "replace"), max_num_fields=MAX_FORM_FIELDS)
            members: JsonValue = {name: values[0] for name, values in form.items()}
        else:
            members = decode(call.body)
    except ValueError:  # JsonError is one
        return {}
    if not isinstance(members, dict):
        return {}
    found = {name: members.get(name) for name in ("code", "state", "error")}
    return {name: value.strip() for name, value in found.items() if isinstance(value, str) and value.strip()}


def _told(call: ManagementCall, code: int, text: str) -> Answer:
    """A page for browsers, JSON for programs that post it."""
    wants_page = call.head.method == "GET" or b"text/html" in call.head.header(b"accept")
    if not wants_page:
        return json_answer({"status": "ok"}) if code == 200 else error_answer(code, text)
    title = "Sign-in received" if code == 200 else "Sign-in failed"
    return Answer(status=code, headers=_PAGE_HEADERS, body=_PAGE.format(title=title, text=text).encode())
