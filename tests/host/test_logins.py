"""Sign-in sessions: what a plugin may say, how long they live, and that nothing gets lost or is done twice."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from cpa.abi.envelope import PluginCallError
from cpa.abi.errors import PluginCrashed
from cpa.abi.wire import AuthData, LoginPollReply, LoginStartReply
from cpa.config.schema import Config
from cpa.host.logins import (
    MAX_SESSIONS,
    SESSION_S,
    SUCCEEDED,
    SUCCESS_S,
    WAITING,
    LoginAnswer,
    LoginError,
    Logins,
    LoginStatus,
    is_state,
)
from cpa.host.plugin import LivePlugin
from cpa.host.scopes import ScopeRegistry
from tests.host.plugin_fakes import ScriptedCopy, live

START, POLL = "auth.login.start", "auth.login.poll"
URL = "https://login.example.org/"
BACK = "http://127.0.0.1:8317/v0/management/oauth-callback"
AUTH = AuthData(provider="acme", file_name="me.json", storage_json=b'{"token":"t"}')


def failed(text: str) -> LoginAnswer:
    return LoginAnswer(status=LoginStatus.ERROR, error=text)


def started(state: str = "s1", **members: Any) -> LoginStartReply:
    return LoginStartReply(**{"url": URL, "state": state, "metadata": {"verifier": "v"}} | members)


class Desk:
    """Sign-ins in *folder* at one scripted plugin."""

    def __init__(self, folder: Path, scopes: ScopeRegistry, *, auth: str = "acme") -> None:
        self.copy = ScriptedCopy({START: started()})
        self.plugins: tuple[LivePlugin, ...] = (live("a", self.copy, auth=auth),)
        self.folder = folder
        self.told = 0
        self.logins = Logins(
            plugins=lambda: self.plugins, scopes=scopes, config=lambda: Config(auth_dir=folder), saved=self.saved
        )

    async def saved(self) -> None:
        """Counts."""
        await trio.lowlevel.checkpoint()
        self.told += 1

    async def start(self, state: str = "s1") -> None:
        """A pending session."""
        self.copy.answers[START] = started(state)
        assert (await self.logins.start("acme", callback_url=BACK)).state == state

    async def poll(self, reply: Any, state: str = "s1") -> LoginAnswer | None:
        """What a poll says when the plugin answers *reply*."""
        self.copy.answers[POLL] = reply
        return await self.logins.poll(state)

    @property
    def polls(self) -> int:
        """How often the plugin was asked."""
        return self.copy.count(POLL)


@pytest.fixture
def desk(tmp_path: Path, scopes: ScopeRegistry) -> Desk:
    """With an empty folder."""
    return Desk(tmp_path / "auths", scopes)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("abc", True),
        ("A.b_c-9", True),
        ("a" * 128, True),
        (".", True),
        ("", False),
        ("a" * 129, False),
        ("a..b", False),
        ("a/b", False),
        ("a b", False),
        ("a\n", False),
        ("ä", False),
        ("a\x00", False),
    ],
)
def test_states(text: str, good: bool) -> None:
    """They become parts of file names."""
    assert is_state(text) is good


async def test_what_the_plugin_is_told(desk: Desk) -> None:
    """The contract's requests, each in a scope; poll gets back what start left."""
    await desk.start()
    assert await desk.poll(LoginPollReply(status="pending")) == WAITING
    (first, start, start_scope), (second, poll, poll_scope) = desk.copy.calls
    assert (first, second) == (START, POLL)
    assert start_scope != poll_scope
    assert min(len(start_scope), len(poll_scope)) > 0
    assert (start.provider, start.base_url, start.metadata) == ("acme", BACK, {})
    assert (poll.provider, poll.state, poll.metadata) == ("acme", "s1", {"verifier": "v"})
    assert start.host.auth_dir == poll.host.auth_dir == str(desk.folder)


async def test_who_offers_what(tmp_path: Path, scopes: ScopeRegistry) -> None:
    """By identifier in any case; the first in priority order; blank ones never."""
    desk = Desk(tmp_path, scopes, auth="Acme")
    assert desk.logins.offers("acme")
    assert not desk.logins.offers("other")
    assert not desk.logins.offers("")
    desk.plugins = (live("x", executor="acme"), live("y", auth=""))
    assert not desk.logins.offers("acme")
    with pytest.raises(LoginError) as info:
        await desk.logins.start("acme", callback_url=BACK)
    assert info.value.http_status == 404


@pytest.mark.parametrize(
    ("reply", "status", "text"),
    [
        (PluginCallError(method=START, message="secret"), 500, "failed to generate authorization url"),
        (PluginCrashed(plugin_id="a", reason="r", method=START), 500, "failed to generate authorization url"),
        (started(url=""), 500, "failed to generate authorization url"),
        (started(url="javascript:alert(1)"), 500, "failed to generate authorization url"),
        (started(url="/v0/management"), 500, "failed to generate authorization url"),
        (started(""), 502, "invalid oauth state"),
        (started("a/../b"), 502, "invalid oauth state"),
        (started("x" * 129), 502, "invalid oauth state"),
    ],
    ids=str,
)
async def test_sign_ins_that_cannot_begin(desk: Desk, reply: Any, status: int, text: str) -> None:
    """The plugin's own words stay in the log; nothing is remembered."""
    desk.copy.answers[START] = reply
    with pytest.raises(LoginError) as info:
        await desk.logins.start("acme", callback_url=BACK)
    assert (info.value.http_status, info.value.message) == (status, text)
    assert len(desk.logins) == 0


async def test_another_providers_state_cannot_be_taken_over(desk: Desk) -> None:
    """Else one plugin would get the code that is meant for another."""
    await desk.start("s1")
    thief = ScriptedCopy({START: started("s1")})
    desk.plugins = (*desk.plugins, live("b", thief, auth="other"))
    with pytest.raises(LoginError, match="invalid oauth state"):
        await desk.logins.start("other", callback_url=BACK)
    assert len(desk.logins) == 1


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (LoginPollReply(), WAITING),
        (LoginPollReply(status="pending"), WAITING),
        (LoginPollReply(status="whatever"), WAITING),
        (LoginPollReply(status=" SUCCESS ", auth=AUTH), SUCCEEDED),
        (LoginPollReply(status="success"), failed("Authentication failed")),
        (LoginPollReply(status="success", auth=AuthData(provider="acme")), failed("Authentication failed")),
        (
            LoginPollReply(status="success", auth=AuthData(storage_json=b"[]")),
            failed("Failed to save authentication tokens"),
        ),
        (
            LoginPollReply(status="success", auth=AuthData(storage_json=b"{}", file_name="../x.json")),
            failed("Failed to save authentication tokens"),
        ),
        (LoginPollReply(status="error"), failed("Authentication failed")),
        (LoginPollReply(status="error", message="denied"), failed("denied")),
        (PluginCallError(method=POLL, message="broken"), failed("broken")),
        (PluginCrashed(plugin_id="a", reason="r", method=POLL), WAITING),
    ],
    ids=str,
)
async def test_what_polls_say(desk: Desk, reply: Any, answer: LoginAnswer) -> None:
    """Everything final is repeated without asking; a crash decides nothing."""
    await desk.start()
    assert await desk.poll(reply) == answer
    assert await desk.poll(reply) == answer
    assert desk.polls == (2 if answer is WAITING else 1)
    assert desk.told == (answer == SUCCEEDED)
    assert not list(desk.folder.parent.glob("*.json"))


async def test_several_credentials_of_one_sign_in_are_all_saved(desk: Desk) -> None:
    """And then the single one does not count; providers default to the session's."""
    await desk.start()
    several = tuple(AuthData(file_name=f"{name}.json", metadata={"name": name}) for name in ("one", "two"))
    assert await desk.poll(LoginPollReply(status="success", auth=AUTH, auths=several)) == SUCCEEDED
    assert {path.name: json.loads(path.read_bytes()) for path in desk.folder.iterdir()} == {
        "one.json": {"name": "one", "type": "acme"},
        "two.json": {"name": "two", "type": "acme"},
    }
    assert desk.told == 1


async def test_sessions_end_by_the_clock(desk: Desk, mock_clock: trio.testing.MockClock) -> None:
    """Pending ones after half an hour, finished ones after a minute."""
    await desk.start("pending")
    await desk.start("done")
    assert await desk.poll(LoginPollReply(status="success", auth=AUTH), "done") == SUCCEEDED
    mock_clock.jump(SUCCESS_S + 1)
    assert await desk.logins.poll("done") is None
    assert await desk.poll(LoginPollReply(), "pending") == WAITING
    mock_clock.jump(SESSION_S)
    assert await desk.logins.poll("pending") is None
    assert not await desk.logins.callback(state="pending", code="c", error="")
    await desk.start("new")
    assert len(desk.logins) == 1


async def test_sessions_are_bounded_and_take_their_files_with_them(desk: Desk) -> None:
    """The oldest go."""
    await desk.start("first")
    assert await desk.logins.callback(state="first", code="c", error="")
    file = desk.folder / ".oauth-acme-first.oauth"
    assert json.loads(file.read_bytes()) == {"code": "c", "state": "first", "error": ""}
    for number in range(MAX_SESSIONS):
        await desk.start(f"s{number}")
    assert len(desk.logins) == MAX_SESSIONS
    assert await desk.logins.poll("first") is None
    assert not file.exists()


async def test_unknown_states_have_no_sign_in(desk: Desk) -> None:
    """Nothing is written for them."""
    assert await desk.logins.poll("x") is None
    for state in ("x", "", "../x", "a" * 500):
        assert not await desk.logins.callback(state=state, code="c", error="")
        assert not await desk.logins.forget(state)
    assert not desk.folder.exists()


async def test_a_callback_that_cannot_be_kept_is_an_error(tmp_path: Path, scopes: ScopeRegistry) -> None:
    """The operator is told; the session goes on."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    desk = Desk(blocked, scopes)
    await desk.start()
    with pytest.raises(LoginError, match="failed to store"):
        await desk.logins.callback(state="s1", code="c", error="")
    assert len(desk.logins) == 1


async def test_one_poll_at_a_time_asks_the_plugin(desk: Desk) -> None:
    """A panel polls every second, whether the last answer came or not; success must not be saved twice."""
    gate = trio.Event()

    async def slowly(request: Any) -> LoginPollReply:
        await gate.wait()
        return LoginPollReply(status="success", auth=AUTH)

    await desk.start()
    found: list[LoginAnswer | None] = []

    async def poll() -> None:
        found.append(await desk.poll(slowly))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await trio.testing.wait_all_tasks_blocked()
        assert await desk.logins.poll("s1") == WAITING
        gate.set()
    assert found == [SUCCEEDED]
    assert (desk.polls, desk.told) == (1, 1)


async def test_success_is_saved_though_the_browser_left(desk: Desk) -> None:
    """The plugin says it once; the one who asked is cancelled in that very moment."""

    async def success(request: Any) -> LoginPollReply:
        nursery.cancel_scope.cancel()
        return LoginPollReply(status="success", auth=AUTH)

    await desk.start()
    async with trio.open_nursery() as nursery:
        await desk.poll(success)
    assert (desk.folder / "me.json").exists()
    assert desk.told == 1
    assert await desk.logins.poll("s1") == SUCCEEDED


async def test_a_cancelled_poll_can_be_repeated(desk: Desk, scopes: ScopeRegistry) -> None:
    """The session is pending still."""

    async def hang(request: Any) -> Any:
        await trio.sleep_forever()

    await desk.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.poll, hang)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(scopes) == 0
    assert await desk.poll(LoginPollReply(status="success", auth=AUTH)) == SUCCEEDED


async def test_a_sign_in_that_was_given_up_meanwhile_saves_nothing(desk: Desk) -> None:
    """What the operator does not want any more must not appear."""

    async def late(request: Any) -> LoginPollReply:
        assert await desk.logins.forget("s1")
        return LoginPollReply(status="success", auth=AUTH)

    await desk.start()
    assert await desk.poll(late) == failed("the sign-in was given up")
    assert desk.told == 0
    assert not desk.folder.exists()


async def test_a_provider_without_plugin_is_no_final_error(desk: Desk) -> None:
    """It may come back with the next reload."""
    await desk.start()
    plugins, desk.plugins = desk.plugins, ()
    assert await desk.logins.poll("s1") == failed("no plugin signs in at acme any more")
    desk.plugins = plugins
    assert await desk.poll(LoginPollReply()) == WAITING


async def test_nothing_secret_is_in_reprs(desk: Desk) -> None:
    """States and verifiers are as good as keys while a sign-in is pending."""
    await desk.start("canary-state")
    answer = await desk.logins.start("acme", callback_url=BACK)
    assert "canary" not in repr(answer)
    [session] = desk.logins._sessions.values()
    assert "canary" not in repr(session)
    assert "verifier" not in repr(session)
