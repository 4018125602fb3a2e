"""Renewing credentials: for requests that were refused, for several processes at once, by service accounts."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from cpa.abi import wire
from cpa.config.schema import Config
from cpa.credentials.model import Credential
from cpa.credentials.refresh_lock import LOCK_NAME, RefreshLocks
from cpa.credentials.service_account import ServiceAccount, Token, TokenError
from cpa.host.account_renewal import no_tokens, same_token
from cpa.host.accounts import Accounts, open_accounts
from cpa.host.scopes import open_scopes
from tests.host.plugin_fakes import ScriptedCopy, live
from tests.host.test_accounts import FAIL_S, refreshing, renewed, world

GOOGLE = {"client_email": "a@b.test", "private_key": "PRIVATE KEY", "project_id": "p"}


def acme(**answers: Any) -> tuple[ScriptedCopy, Any]:
    """A plugin whose refreshes bring a new token."""
    copy = refreshing(**{"auth.refresh": renewed(), **answers})
    return copy, live("a", copy, auth="acme", executor="acme")


async def test_a_refused_credential_comes_back_with_another_token(tmp_path: Path) -> None:
    """Same id; the caller tries it once more."""
    _, plugin = acme()
    async with world(tmp_path, plugin) as made:
        made.write("a.json", type="acme", token="old")
        (before,) = await made.sync()
        after = await made.accounts.refresh(before)
        assert after is not None
        assert (after.id, json.loads(after.storage_json)["token"]) == ("a.json", "new-token")
        assert made.accounts.snapshot.credential("a.json") is after


async def test_a_token_that_changed_meanwhile_is_reused(tmp_path: Path) -> None:
    """Whoever comes later with the old one gets the new one without another refresh."""
    copy, plugin = acme()
    async with world(tmp_path, plugin) as made:
        made.write("a.json", type="acme", token="old")
        (before,) = await made.sync()
        first = await made.accounts.refresh(before)
        assert await made.accounts.refresh(before) is first
        assert copy.count("auth.refresh") == 1
        assert first is not None
        assert await made.accounts.refresh(first) is None  # renewed a moment ago, and refused all the same


async def test_many_refused_requests_share_one_refresh(tmp_path: Path) -> None:
    """A per-credential lock: the one that leaves takes nothing from the others."""
    go = trio.Event()

    async def slow(request: object) -> wire.RefreshReply:
        await go.wait()
        return renewed()

    copy, plugin = acme(**{"auth.refresh": slow})
    found: list[Credential | None] = []
    async with world(tmp_path, plugin) as made:
        made.write("a.json", type="acme", token="old")
        (before,) = await made.sync()

        async def ask() -> None:
            found.append(await made.accounts.refresh(before))

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as gone:
                nursery.start_soon(ask)
                nursery.start_soon(ask)
                async with trio.open_nursery() as leaving:
                    leaving.start_soon(made.accounts.refresh, before)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    gone.cancel()
            go.set()
        assert copy.count("auth.refresh") == 1
        assert len(found) == 2
        assert found[0] is found[1] is not None


async def test_keys_disabled_ones_and_strangers_are_not_renewed(tmp_path: Path) -> None:
    """A key is for ever, even where a plugin signs in at the same provider."""
    copy = refreshing(**{"auth.refresh": renewed(), "auth.parse": wire.AuthParseReply(handled=False)})
    async with world(tmp_path, live("a", copy, auth="claude")) as made:
        made.write("k.json", type="claude", api_key="k")
        made.write("off.json", type="claude", api_key="k", disabled=True)
        key, off = await made.sync()
        assert await made.accounts.refresh(key) is None
        assert await made.accounts.refresh(off) is None
        assert await made.accounts.refresh(attrs.evolve(key, id="unknown")) is None
        assert copy.count("auth.refresh") == 0


async def test_what_another_process_renewed_is_not_renewed_again(tmp_path: Path) -> None:
    """Providers that rotate refresh tokens take the second use of one for theft."""
    copy, plugin = acme()
    async with world(tmp_path, plugin) as made:
        path = made.write("a.json", type="acme", token="old")
        (before,) = await made.sync()
        other = RefreshLocks(tmp_path)
        script = (
            "import sys; from pathlib import Path; from cpa.credentials.refresh_lock import RefreshLocks;"
            "locks = RefreshLocks(Path(sys.argv[1])); print(locks.take('a.json'), flush=True); sys.stdin.readline()"
        )
        process = await trio.to_thread.run_sync(
            lambda: subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            assert await trio.to_thread.run_sync(process.stdout.readline) == "True\n"
            found: list[Credential | None] = []

            async def ask() -> None:
                found.append(await made.accounts.refresh(before))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked(0.02)
                path.write_text(json.dumps({"type": "acme", "token": "theirs", "refresh_interval": 60}))
                process.stdin.write("\n")
                process.stdin.flush()
            assert copy.count("auth.refresh") == 0
            assert found[0] is not None
            assert json.loads(found[0].storage_json)["token"] == "theirs"
        finally:
            process.kill()
            await trio.to_thread.run_sync(process.communicate)
            other.close()


def test_locks_are_by_name_and_end_with_their_owner(tmp_path: Path) -> None:
    """One process never stands in its own way; a folder that cannot be written keeps nobody from anything."""
    locks = RefreshLocks(tmp_path)
    assert locks.take("a")
    assert locks.take("b")
    locks.give("a")
    locks.close()
    locks.close()
    locks.give("a")
    assert RefreshLocks(tmp_path / "missing").take("a")
    assert (tmp_path / LOCK_NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / LOCK_NAME).stat().st_size == 0


# -- service accounts --


@attrs.define
class Issuer:
    """Gives tokens that live for *life_s*."""

    asked: int = 0
    life_s: float = 3600
    error: TokenError | None = None

    async def issue(self, account: ServiceAccount, credential: Credential) -> Token:
        """See `TokenIssue`."""
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Token(value=f"token-{self.asked}", expires_unix=datetime.now(UTC).timestamp() + self.life_s)


@asynccontextmanager
async def accounts_of(folder: Path, issuer: Issuer, ahead: list[timedelta]) -> AsyncIterator[Accounts]:
    """Without plugins. *ahead*: how far the wall clock is ahead."""
    with trio.fail_after(FAIL_S):
        async with (
            open_scopes() as scopes,
            open_accounts(
                plugins=lambda: (),
                scopes=scopes,
                config=lambda: Config(auth_dir=folder),
                native=lambda config, credentials: 1 / 0,  # type: ignore[arg-type,return-value]  # nobody to claim
                on_change=lambda: None,
                issue=issuer.issue,
                clock=lambda: datetime.now(UTC) + ahead[0],
            ) as accounts,
        ):
            assert await accounts.synchronise()
            yield accounts


async def until_token(accounts: Accounts, token: str) -> Credential:
    """The credential as soon as it has that token."""
    await accounts.synchronise()
    while True:
        (credential,) = accounts.snapshot.credentials
        if credential.api_key == token:
            return credential
        await trio.sleep(0.01)


async def test_the_first_token_comes_unasked_and_outlives_edits(tmp_path: Path) -> None:
    """A note in the file is no reason for a new one; another account is."""
    path = tmp_path / "v.json"
    path.write_text(json.dumps({"type": "vertex", "service_account": GOOGLE}))
    issuer = Issuer()
    async with accounts_of(tmp_path, issuer, [timedelta()]) as accounts:
        first = await until_token(accounts, "token-1")
        path.write_text(json.dumps({"type": "vertex", "service_account": GOOGLE, "note": "n"}))
        assert await accounts.synchronise()
        (edited,) = accounts.snapshot.credentials
        assert (edited.note, edited.api_key) == ("n", first.api_key)
        path.write_text(json.dumps({"type": "vertex", "service_account": {**GOOGLE, "client_email": "c@d.test"}}))
        await until_token(accounts, "token-2")
        assert issuer.asked == 2
        state = accounts.state(accounts.snapshot.credentials[0])
        assert (state.status, state.unavailable) == ("active", False)


async def test_a_token_is_replaced_before_its_end(tmp_path: Path) -> None:
    """And on demand."""
    (tmp_path / "v.json").write_text(json.dumps({"type": "vertex", "service_account": GOOGLE}))
    issuer, ahead = Issuer(), [timedelta()]
    async with accounts_of(tmp_path, issuer, ahead) as accounts:
        first = await until_token(accounts, "token-1")
        ahead[0] = timedelta(seconds=3600 - 299)
        accounts._refresher.wake()
        second = await until_token(accounts, "token-2")
        assert not same_token(first, second)
        assert await accounts.refresh(first) is second


async def test_a_refused_account_is_left_alone_until_it_changes(tmp_path: Path) -> None:
    """401 and invalid_grant stop; what is out of order for a moment is tried again."""
    path = tmp_path / "v.json"
    path.write_text(json.dumps({"type": "vertex", "service_account": GOOGLE}))
    issuer = Issuer(error=TokenError("the token endpoint refuses: invalid_grant", http_status=401))
    ahead = [timedelta()]
    async with accounts_of(tmp_path, issuer, ahead) as accounts:
        (credential,) = accounts.snapshot.credentials
        while not accounts.state(credential).message:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
        assert accounts.state(credential).unavailable
        ahead[0] = timedelta(days=1)
        assert await accounts.refresh(credential) is None
        assert issuer.asked == 1
        issuer.error = None
        path.write_text(json.dumps({"type": "vertex", "service_account": GOOGLE, "note": "fixed"}))
        await until_token(accounts, "token-2")


async def test_without_a_way_out_there_are_no_tokens() -> None:
    """For whoever opens accounts without one."""
    account = ServiceAccount(email="a@b.test", private_key="x")
    with pytest.raises(TokenError, match="cannot be had"):
        await no_tokens(account, Credential(id="x", provider="vertex", label="x"))
