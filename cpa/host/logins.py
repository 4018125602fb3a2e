"""Sign-in at providers that plugins bring: sessions from the first URL to the saved credential (plugin-abi 4.3.2, 7.6).

Theory of operation. `start` asks the plugin for a URL and remembers a session under the state that the plugin chose.
The browser comes back to `callback` with a code, which goes into a file that the plugin reads; `poll` asks the plugin
how it stands and saves what it returns. Sessions are few, short-lived and in memory: a proxy that restarts forgets
them, and the operator starts again.
"""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

import attrs
import trio

from cpa.abi import methods, wire
from cpa.abi.envelope import PluginCallError
from cpa.config.schema import Config
from cpa.credentials.files import DIRECTORY_MODE, CredentialFileError, CredentialFiles, write_atomically
from cpa.errors import CpaError
from cpa.formats.json import encode
from cpa.host.auth_data import host_summary, save_auth_data
from cpa.host.plugin import LivePlugin
from cpa.host.scopes import ScopeRegistry
from cpa.observability.log import get_logger
from cpa.types import JsonObject

log = get_logger()

SESSION_S: Final = 30 * 60.0
SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
SCRIPTS: Final = ("javascript:", "data:", "vbscript:")
SUCCESS_S: Final = 60.0
"""How long a finished sign-in still says that it has worked."""
MAX_SESSIONS: Final = 100
SAVE_S: Final = 10.0
"""For saving what a sign-in brought, and again for taking it up, when the browser has left meanwhile."""
MAX_CALLBACK_CHARS: Final = 8192
"""Of a code or an error; authorisation codes have some hundred characters."""
AUTH_FAILED: Final = "Authentication failed"
SAVE_FAILED: Final = "Failed to save authentication tokens"

_STATE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PROVIDER = re.compile(r"[a-z0-9-]+")


class LoginError(CpaError):
    """A sign-in cannot go on; the text is for the operator."""

    http_status = 500
    code = "login_failed"


class LoginStatus(StrEnum):
    """As ``get-auth-status`` says it."""

    WAIT = "wait"
    OK = "ok"
    ERROR = "error"


@attrs.frozen(kw_only=True)
class LoginAnswer:
    """How a sign-in stands. *error* is set for errors only."""

    status: LoginStatus
    error: str = ""


@attrs.frozen(kw_only=True)
class LoginStarted:
    """Where the operator signs in."""

    url: str = attrs.field(repr=False)
    state: str = attrs.field(repr=False)


WAITING: Final = LoginAnswer(status=LoginStatus.WAIT)
SUCCEEDED: Final = LoginAnswer(status=LoginStatus.OK)


@attrs.define(eq=False, kw_only=True)
class _Session:
    """One sign-in. Trio clock.

    Attributes:
      file: where its callback goes; known from the start, so that a changed auth-dir strands nothing.
      outcome: None while it is pending.
    """

    state: str = attrs.field(repr=False)
    provider: str
    metadata: JsonObject = attrs.field(repr=False)
    file: Path = attrs.field(repr=False)
    expires: float
    outcome: LoginAnswer | None = None
    polling: bool = False


def is_state(text: str) -> bool:
    """Whether *text* may be the state of a session, and so a part of a file's name."""
    return _STATE.fullmatch(text) is not None and ".." not in text


def is_provider(text: str) -> bool:
    """Whether *text* may name a provider in a path."""
    return _PROVIDER.fullmatch(text) is not None


async def _nobody() -> None:
    await trio.lowlevel.checkpoint()


@attrs.define(eq=False, kw_only=True)
class Logins:
    """The sign-ins of all plugins' providers.

    *saved* is awaited after credentials were saved, so that they can be used at once.
    """

    _plugins: Callable[[], tuple[LivePlugin, ...]]
    _scopes: ScopeRegistry
    _config: Callable[[], Config]
    _saved: Callable[[], Awaitable[object]] = _nobody
    _sessions: OrderedDict[str, _Session] = attrs.field(factory=OrderedDict, init=False)

    def __len__(self) -> int:
        """Sessions that are remembered."""
        return len(self._sessions)

    def offers(self, provider: str) -> bool:
        """Whether a plugin signs in at *provider*."""
        return self._plugin(provider) is not None

    async def start(self, provider: str, *, callback_url: str) -> LoginStarted:
        """Begin a sign-in.

        Args:
          provider: one that `offers`; ``[a-z0-9-]``.
          callback_url: where the provider shall send the browser.

        Raises: LoginError, with the status for HTTP.
        """
        plugin = self._plugin(provider)
        if plugin is None or not is_provider(provider):
            raise LoginError(f"no plugin signs in at {provider}", http_status=404)
        config = self._config()
        request = wire.LoginStartRequest(
            provider=plugin.identifiers.auth.lower(), base_url=callback_url, host=host_summary(config)
        )
        try:
            async with self._scopes.open(plugin.id) as scope:
                reply = await plugin.call(methods.AUTH_LOGIN_START, request, scope_id=scope.id, unwind=scope.unwind)
        except CpaError as exc:
            log.warning("login.start_failed", plugin=plugin.id, provider=provider, error=str(exc))
            raise LoginError("failed to generate authorization url") from exc
        present = self._sessions.get(reply.state)
        if not is_state(reply.state) or (present is not None and present.provider != provider):
            raise LoginError("invalid oauth state", http_status=502)
        url = reply.url.strip()
        if not SCHEME.match(url) or url.lower().startswith(SCRIPTS):  # pages make a link of it
            log.warning("login.start_failed", plugin=plugin.id, provider=provider, error="no URL to open")
            raise LoginError("failed to generate authorization url")
        await self._remember(
            _Session(
                state=reply.state,
                provider=provider,
                metadata=reply.metadata,
                file=config.auth_dir.absolute() / f".oauth-{provider}-{reply.state}.oauth",
                expires=trio.current_time() + SESSION_S,
            )
        )
        return LoginStarted(url=url, state=reply.state)

    async def poll(self, state: str) -> LoginAnswer | None:
        """How the sign-in *state* stands; None when there is none.

        One poll at a time asks the plugin; others are told to wait. Cancellation: what the plugin returned by then is
        saved all the same.
        """
        await trio.lowlevel.checkpoint()
        session = self._find(state)
        if session is None or session.outcome is not None:
            return session.outcome if session is not None else None
        if session.polling:
            return WAITING
        session.polling = True
        try:
            return await self._poll(session)
        finally:
            session.polling = False

    async def callback(self, *, state: str, code: str, error: str) -> bool:
        """The browser came back: leave what it brought to the plugin. False: no pending sign-in of that *state*.

        Raises: LoginError when the file cannot be written.
        """
        session = self._find(state) if is_state(state) else None
        if session is None or session.outcome is not None or max(len(code), len(error)) > MAX_CALLBACK_CHARS:
            await trio.lowlevel.checkpoint()
            return False
        content = encode({"code": code, "state": state, "error": error})
        try:
            await trio.to_thread.run_sync(_write, session.file, content)
        except OSError as exc:
            log.error("login.callback_lost", provider=session.provider, error=str(exc))
            raise LoginError("failed to store the callback") from exc
        return True

    async def forget(self, state: str) -> bool:
        """End the sign-in *state*; the plugin is not told. False: there was none."""
        session = self._sessions.pop(state, None)
        await self._discard(() if session is None else (session,))
        return session is not None

    # ---- inside ----

    def _plugin(self, provider: str) -> LivePlugin | None:
        """Who signs in at *provider*; the snapshot is in priority order."""
        for plugin in self._plugins():
            if plugin.capabilities.auth_provider and plugin.identifiers.auth.lower() == provider.lower() != "":
                return plugin
        return None

    def _find(self, state: str) -> _Session | None:
        session = self._sessions.get(state)
        return session if session is not None and trio.current_time() < session.expires else None

    async def _remember(self, session: _Session) -> None:
        now = trio.current_time()
        dropped = [old for old in self._sessions.values() if old.expires <= now or old.state == session.state]
        for old in dropped:
            del self._sessions[old.state]
        while len(self._sessions) >= MAX_SESSIONS:
            dropped.append(self._sessions.popitem(last=False)[1])
        self._sessions[session.state] = session
        await self._discard(dropped)

    async def _discard(self, sessions: "tuple[_Session, ...] | list[_Session]") -> None:
        """Codes are secrets: their files go with the sessions."""
        for session in sessions:
            await trio.to_thread.run_sync(_remove, session.file)
        await trio.lowlevel.checkpoint()

    async def _poll(self, session: _Session) -> LoginAnswer:
        plugin = self._plugin(session.provider)
        if plugin is None:  # it may come back
            return LoginAnswer(status=LoginStatus.ERROR, error=f"no plugin signs in at {session.provider} any more")
        request = wire.LoginPollRequest(
            provider=plugin.identifiers.auth.lower(),
            state=session.state,
            host=host_summary(self._config()),
            metadata=session.metadata,
        )
        try:
            async with self._scopes.open(plugin.id) as scope:
                reply = await plugin.call(methods.AUTH_LOGIN_POLL, request, scope_id=scope.id, unwind=scope.unwind)
        except PluginCallError as exc:
            log.warning("login.failed", plugin=plugin.id, provider=session.provider, error=exc.message)
            return await self._end(session, exc.message)
        except CpaError as exc:  # crashed, starting again, too slow: nothing that the plugin has decided
            log.warning("login.poll_failed", plugin=plugin.id, provider=session.provider, error=str(exc))
            return WAITING
        if self._sessions.get(session.state) is not session:
            return LoginAnswer(status=LoginStatus.ERROR, error="the sign-in was given up")
        match reply.status.strip().lower():
            case "success":
                return await self._succeeded(session, reply)
            case "error":
                return await self._end(session, reply.message.strip() or AUTH_FAILED)
            case _:
                return WAITING

    async def _succeeded(self, session: _Session, reply: wire.LoginPollReply) -> LoginAnswer:
        """Nothing in here must be lost with the browser that asked."""
        problem = SAVE_FAILED
        with trio.move_on_after(SAVE_S, shield=True):
            problem = await self._save(session, reply)
        answer = await self._end(session, problem)
        if not problem:
            with trio.move_on_after(SAVE_S, shield=True) as scope:
                await self._saved()
            if scope.cancelled_caught:  # it is on disk, and taken up whenever that is possible again
                log.warning("login.not_taken_up_yet", provider=session.provider)
        return answer

    async def _save(self, session: _Session, reply: wire.LoginPollReply) -> str:
        """Save what a sign-in brought. Returns: why not, empty when it is saved."""
        found = [data for data in (reply.auths or (reply.auth,)) if data.storage_json.strip() or data.metadata]
        if not found:
            return AUTH_FAILED
        files = CredentialFiles(self._config().auth_dir)

        def save() -> None:
            for data in found:
                save_auth_data(files, data, provider=session.provider)

        try:
            await trio.to_thread.run_sync(save)
        except CredentialFileError as exc:
            log.error("login.not_saved", provider=session.provider, error=str(exc))
            return SAVE_FAILED
        log.info("login.succeeded", provider=session.provider, credentials=len(found))
        return ""

    async def _end(self, session: _Session, error: str) -> LoginAnswer:
        """The session has its outcome; an empty *error* is success."""
        session.outcome = LoginAnswer(status=LoginStatus.ERROR, error=error) if error else SUCCEEDED
        if not error:
            session.expires = min(session.expires, trio.current_time() + SUCCESS_S)
        with trio.CancelScope(shield=True):
            await self._discard((session,))
        return session.outcome


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    write_atomically(path, content)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
