"""Credentials from files and models of plugins, as they come to be in force: real files, scripted plugins."""

import json
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from cpa.abi import wire
from cpa.abi.envelope import PluginCallError
from cpa.config.schema import Config
from cpa.credentials.model import API_KEY, FROM_FILE, Credential
from cpa.host.accounts import PATIENCE_S, Accounts, open_accounts
from cpa.host.plugin import LivePlugin, PluginUnavailable
from cpa.host.plugin_models import Native
from cpa.host.scopes import open_scopes
from tests.host.plugin_fakes import ScriptedCopy, live, models

FAIL_S = 120


@attrs.define(eq=False)
class World:
    """Accounts, and what they are made of."""

    directory: Path
    config: Config
    plugins: list[LivePlugin]
    native: Native = attrs.field(factory=Native)
    accounts: Accounts = attrs.field(init=False)
    changes: int = 0
    changed: trio.Event = attrs.field(factory=trio.Event)
    seen_by_native: Sequence[Credential] = ()
    ahead: timedelta = timedelta()

    def write(self, name: str, **members: Any) -> Path:
        """A credential file, replaced whole, as editors do."""
        scratch = self.directory / f"{name}.new"
        scratch.write_text(json.dumps(members))
        return scratch.rename(self.directory / name)

    async def sync(self) -> list[Credential]:
        """What is in force when all is known."""
        assert await self.accounts.synchronise()
        return list(self.accounts.snapshot.credentials)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for a change after which it holds."""
        while not reached():
            await self.changed.wait()

    def note(self) -> None:
        """`on_change`."""
        self.changes += 1
        self.changed.set()
        self.changed = trio.Event()

    def judge(self, config: Config, credentials: Sequence[Credential]) -> Native:
        """`native`."""
        self.seen_by_native = credentials
        return self.native


@asynccontextmanager
async def world(directory: Path, *plugins: LivePlugin, **config: Any) -> AsyncIterator[World]:
    """Accounts of *plugins* over *directory*."""
    made = World(directory, Config(auth_dir=directory, **config), list(plugins))
    with trio.fail_after(FAIL_S):
        async with (
            open_scopes() as scopes,
            open_accounts(
                plugins=lambda: tuple(made.plugins),
                scopes=scopes,
                config=lambda: made.config,
                native=made.judge,
                on_change=made.note,
                clock=lambda: datetime.now(UTC) + made.ahead,
            ) as accounts,
        ):
            made.accounts = accounts
            yield made


def parsing(*records: wire.AuthData, handled: bool = True) -> wire.AuthParseReply:
    """An answer to `auth.parse`."""
    if len(records) == 1:
        return wire.AuthParseReply(handled=handled, auth=records[0])
    return wire.AuthParseReply(handled=handled, auths=records)


def parser(*records: wire.AuthData, handled: bool = True, answers: Mapping[str, Any] | None = None) -> ScriptedCopy:
    """A plugin that answers every file so."""
    return ScriptedCopy({"auth.parse": parsing(*records, handled=handled), **(answers or {})})


# -- files --


async def test_files_of_known_providers_need_no_plugin(tmp_path: Path) -> None:
    """The folder is made, read and watched in any case."""
    folder = tmp_path / "auths"
    async with world(folder, live("a", request_interceptor=True)) as made:
        assert await made.sync() == []
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        made.write("k.json", type="Claude", api_key="sk-1", base_url="https://gw.test/", email="me@x.test")
        await made.until(lambda: bool(made.accounts.snapshot.credentials))
        (credential,) = made.accounts.snapshot.credentials
        assert (credential.id, credential.provider, credential.label) == ("k.json", "claude", "me@x.test")
        assert (credential.api_key, credential.base_url) == ("sk-1", "https://gw.test")
        assert (credential.kind, credential.source) == (API_KEY, FROM_FILE)
        assert "sk-1" not in repr(credential)
        assert "api_key" not in credential.metadata


async def test_the_owner_of_the_type_parses_the_file(tmp_path: Path) -> None:
    """Nobody else is asked; of two owners, the first."""
    other, owner, late = ScriptedCopy(), parser(wire.AuthData(label="me")), ScriptedCopy()
    plugins = [live("other", other, auth="x"), live("owner", owner, auth="ACME"), live("late", late, auth="acme")]
    async with world(tmp_path, *plugins) as made:
        path = made.write("me.json", type="Acme", token="t")
        (credential,) = await made.sync()
        assert (credential.id, credential.provider, credential.label) == ("me.json", "acme", "me")
        assert credential.path == str(path)
        ((_, request, scope_id),) = [call for call in owner.calls if call[0] == "auth.parse"]
        assert (request.provider, request.path, request.file_name) == ("acme", str(path), "me.json")
        assert json.loads(request.raw_json.data) == {"type": "Acme", "token": "t"}
        assert request.host.auth_dir == str(tmp_path)
        assert scope_id == ""
        assert json.loads(credential.storage_json) == {"type": "acme", "token": "t"}
        assert other.count("auth.parse") == late.count("auth.parse") == 0


async def test_files_without_type_are_offered_in_turn(tmp_path: Path) -> None:
    """Until one handles it or fails."""
    first, second, third = parser(handled=False), parser(wire.AuthData(id="x")), ScriptedCopy()
    plugins = [live("a", first, auth="one"), live("b", second, auth="two"), live("c", third, auth="three")]
    async with world(tmp_path, *plugins) as made:
        made.write("x.json", token="t")
        (credential,) = await made.sync()
        assert (credential.provider, credential.id) == ("two", "x")
        assert [request.provider for _, request, _ in first.calls] == ["one"]
        assert third.count("auth.parse") == 0
        first.answers["auth.parse"] = PluginCallError(method="auth.parse", message="no")
        made.write("x.json", token="t2")
        assert await made.sync() == []


async def test_gemini_is_presented_as_plugins_know_it(tmp_path: Path) -> None:
    """Historical name of the command line's credentials."""
    copy = parser(wire.AuthData())
    async with world(tmp_path, live("a", copy, auth="gemini-cli")) as made:
        made.write("g.json", type="gemini")
        (credential,) = await made.sync()
        assert credential.provider == "gemini-cli"


async def test_one_file_may_hold_several_credentials(tmp_path: Path) -> None:
    """Virtual ones, with ids and indexes of their own; broken ones are left out."""
    records = (
        wire.AuthData(id="p1", metadata={"project": 1}),
        wire.AuthData(metadata={"project": 2}),
        wire.AuthData(id="p1"),
        wire.AuthData(id="x" * 1_000_000),
        wire.AuthData(id="p5", storage_json=b"[]"),
        wire.AuthData(id="p6", provider="\n"),
    )
    async with world(tmp_path, live("a", parser(*records), auth="acme")) as made:
        made.write("many.json", type="acme")
        found = await made.sync()
        assert [credential.id for credential in found] == ["p1", "many.json#2", "p6"]
        assert len({credential.index for credential in found}) == 3
        assert all(credential.virtual for credential in found)


async def test_a_handled_file_without_credential_is_suppressed(tmp_path: Path) -> None:
    """The plugin has said what it is: nothing to be used."""
    async with world(
        tmp_path, live("a", parser(wire.AuthData(storage_json=b"1")), executor="acme", auth="acme")
    ) as made:
        made.write("a.json", type="acme")
        assert await made.sync() == []


@pytest.mark.parametrize("answer", [parsing(handled=False), PluginCallError(method="auth.parse", message="no")])
async def test_the_host_parses_what_the_plugin_does_not(tmp_path: Path, answer: Any) -> None:
    """For providers that a plugin executes; others' files are left alone."""
    async with world(tmp_path, live("a", ScriptedCopy({"auth.parse": answer}), auth="acme", executor="acme")) as made:
        made.write("a.json", type="acme", label="L", prefix="p", disabled=True)
        made.write("b.json", type="other", api_key="k")
        made.write("c.json", token="t")
        (credential,) = await made.sync()
        assert (credential.id, credential.label, credential.prefix, credential.disabled) == ("a.json", "L", "p", True)
        assert credential.metadata["label"] == "L"


async def test_ids_are_unique_whatever_plugins_say(tmp_path: Path) -> None:
    """Neither those of other files nor those of configured keys can be taken."""
    async with world(tmp_path, live("a", parser(wire.AuthData(id="same")), auth="acme")) as made:
        made.native = Native(credential_ids=frozenset({"claude:apikey:1"}))
        made.write("a.json", type="acme")
        made.write("b.json", type="acme")
        assert [credential.path for credential in await made.sync()] == [str(tmp_path / "a.json")]
        made.plugins = [live("a", parser(wire.AuthData(id="claude:apikey:1")), auth="acme", generation=2)]
        assert await made.sync() == []


async def test_files_are_watched(tmp_path: Path) -> None:
    """New, changed and removed ones, without anybody saying so; the rest is not asked about again."""
    copy = ScriptedCopy()

    async def echo(request: wire.AuthParseRequest) -> wire.AuthParseReply:
        await trio.lowlevel.checkpoint()
        return parsing(wire.AuthData(storage_json=request.raw_json.data))

    copy.answers["auth.parse"] = echo
    async with world(tmp_path, live("a", copy, auth="acme")) as made:
        made.write("a.json", type="acme", token="1")
        (kept,) = await made.sync()
        made.write("b.json", type="acme", token="2")
        await made.until(lambda: len(made.accounts.snapshot.credentials) == 2)
        made.write("b.json", type="acme", token="3")
        await made.until(lambda: b'"3"' in made.accounts.snapshot.credentials[-1].storage_json)
        (tmp_path / "b.json").unlink()
        await made.until(lambda: len(made.accounts.snapshot.credentials) == 1)
        assert made.accounts.snapshot.credentials[0] is kept
        assert copy.count("auth.parse") == 3


async def test_another_folder_is_read_and_watched(tmp_path: Path) -> None:
    """The old one no longer; a missing one is made, for us alone."""
    one, two = tmp_path / "one", tmp_path / "two"
    async with world(one, live("a", executor="acme")) as made:
        await made.sync()
        assert one.stat().st_mode & 0o777 == 0o700
        made.write("a.json", type="acme")
        assert [credential.id for credential in await made.sync()] == ["a.json"]
        made.config, made.directory = attrs.evolve(made.config, auth_dir=two), two
        assert await made.sync() == []
        made.write("b.json", type="acme")
        await made.until(lambda: bool(made.accounts.snapshot.credentials))
        (one / "c.json").write_text('{"type":"acme"}')
        assert [credential.id for credential in await made.sync()] == ["b.json"]


# -- models --


async def test_static_models_and_executors(tmp_path: Path) -> None:
    """Asked once per loaded copy, settings and summary; `model.static` before `model.register`."""
    copy = ScriptedCopy(
        {
            "model.static": wire.ModelsReply(provider="Acme", models=models("acme-1")),
            "model.register": wire.RegisteredModelsReply(provider="old", models=models("old")),
        }
    )
    registrar = ScriptedCopy({"model.register": wire.RegisteredModelsReply(provider="reg", models=models("reg-1"))})
    plugin = live("a", copy, executor="x", model_provider=True, model_registrar=True)
    async with world(tmp_path, plugin, live("b", registrar, model_registrar=True)) as made:
        await made.sync()
        snapshot = made.accounts.snapshot
        assert snapshot.executors == {"acme": "a"}
        assert [(group.plugin_id, group.provider) for group in snapshot.models] == [("a", "acme"), ("b", "reg")]
        info = snapshot.info("acme", "acme-1")
        assert info is not None
        assert info.id == "acme-1"
        assert snapshot.info("acme", "other") is None
        assert copy.count("model.register") == 0
        await made.sync()
        made.plugins[0] = attrs.evolve(plugin, priority=5)
        await made.sync()
        assert copy.count("model.static") == registrar.count("model.register") == 1
        made.plugins[0] = attrs.evolve(plugin, settings="others")
        await made.sync()
        assert copy.count("model.static") == 2
        made.config = attrs.evolve(made.config, force_model_prefix=True)
        await made.sync()
        assert copy.count("model.static") == 3
        made.plugins.clear()
        await made.sync()
        assert made.accounts.snapshot.same(type(snapshot)())


async def test_models_of_a_credential(tmp_path: Path) -> None:
    """With all that the contract hands over, in a scope; the answer may change the credential."""
    copy = parser(
        wire.AuthData(storage_json=b'{"token":"t"}', metadata={"m": 1}, attributes={"k": "v"}),
        answers={
            "model.for_auth": wire.ModelsReply(
                models=models("pro"), auth_update=wire.AuthData(label="named", metadata={"n": 2})
            )
        },
    )
    async with world(tmp_path, live("a", copy, auth="acme", executor="acme", model_provider=True)) as made:
        made.write("a.json", type="acme")
        (credential,) = await made.sync()
        ((_, request, scope_id),) = [call for call in copy.calls if call[0] == "model.for_auth"]
        assert scope_id
        assert (request.auth_id, request.auth_provider) == ("a.json", "acme")
        assert json.loads(request.storage_json.data) == {"m": 1, "token": "t", "type": "acme"}
        assert request.metadata == {"m": 1, "type": "acme"}
        assert request.attributes["k"] == "v"
        assert (credential.label, credential.metadata) == ("named", {"m": 1, "n": 2, "type": "acme"})
        (group,) = made.accounts.snapshot.models
        assert (group.credential_id, [card.id for card in group.cards]) == ("a.json", ["pro"])
        assert made.accounts.snapshot.info("acme", "pro") is not None
        changes = made.changes
        assert await made.sync() == [credential]
        assert (copy.count("model.for_auth"), made.changes) == (1, changes)


async def test_the_first_plugin_that_knows_the_credential_answers(tmp_path: Path) -> None:
    """Another provider in the answer passes it over; a failure does not."""
    over = ScriptedCopy({"model.for_auth": wire.ModelsReply(provider="else", models=models("x"))})
    fails = ScriptedCopy({"model.for_auth": PluginCallError(method="model.for_auth", message="no")})
    never = ScriptedCopy({"model.for_auth": wire.ModelsReply(models=models("never"))})
    plugins = [
        live("a", over, executor="acme", model_provider=True),
        live("b", fails, executor="acme", model_provider=True),
        live("c", never, executor="acme", model_provider=True),
    ]
    async with world(tmp_path, *plugins) as made:
        made.write("a.json", type="acme")
        await made.sync()
        (group,) = made.accounts.snapshot.models
        assert (group.plugin_id, group.credential_id, group.cards) == ("b", "a.json", ())
        assert (over.count("model.for_auth"), never.count("model.for_auth")) == (1, 0)


async def test_disabled_credentials_cost_no_calls(tmp_path: Path) -> None:
    """They are known all the same."""
    copy = ScriptedCopy()
    async with world(tmp_path, live("a", copy, executor="acme", model_provider=True)) as made:
        made.write("a.json", type="acme", disabled=True)
        (credential,) = await made.sync()
        assert credential.disabled
        assert made.accounts.state(credential).status == "disabled"
        assert copy.count("model.for_auth") == 0


async def test_the_host_is_told_of_native_credentials_that_plugins_read(tmp_path: Path) -> None:
    """Their models have an executor, and are not to be claimed."""
    copy = parser(wire.AuthData(provider="claude"))
    async with world(tmp_path, live("a", copy, auth="mine")) as made:
        made.write("a.json", type="mine")
        assert [credential.provider for credential in await made.sync()] == ["claude"]
        assert [credential.provider for credential in made.seen_by_native] == ["claude"]


# -- plugins that hang, fail and go --


async def test_a_plugin_that_hangs_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """What is known is in force after a moment; the rest follows when it comes."""
    gate = trio.Event()

    async def hang(request: object) -> wire.ModelsReply:
        await gate.wait()
        return wire.ModelsReply(provider="slow", models=models("slow-1"))

    slow = ScriptedCopy({"model.static": hang})
    fast = ScriptedCopy({"model.static": wire.ModelsReply(provider="fast", models=models("fast-1"))})
    plugins = [
        live("slow", slow, executor="slow", model_provider=True),
        live("fast", fast, executor="fast", model_provider=True),
    ]
    async with world(tmp_path, *plugins) as made:
        begun = trio.current_time()
        assert not await made.accounts.synchronise(wait_s=PATIENCE_S * 2)
        assert trio.current_time() - begun < PATIENCE_S * 4
        assert [group.plugin_id for group in made.accounts.snapshot.models] == ["fast"]
        gate.set()
        await made.until(lambda: len(made.accounts.snapshot.models) == 2)
        assert [group.plugin_id for group in made.accounts.snapshot.models] == ["slow", "fast"]


async def test_a_plugin_that_restarts_keeps_its_credentials(tmp_path: Path) -> None:
    """A crash is no reason to forget what it said; a removed plugin is."""
    copy = parser(wire.AuthData(id="x"), answers={"model.for_auth": wire.ModelsReply(models=models("m"))})
    plugin = live("a", copy, auth="acme", executor="acme", model_provider=True)
    async with world(tmp_path, plugin) as made:
        made.write("a.json", type="acme")
        (before,) = await made.sync()
        down = PluginUnavailable(plugin_id="a", state="restarting", reason="crashed")
        copy.answers = dict.fromkeys(("auth.parse", "model.for_auth", "model.static"), down)
        made.plugins = [attrs.evolve(plugin, generation=2)]
        (after,) = await made.sync()
        assert after is before
        assert [[card.id for card in group.cards] for group in made.accounts.snapshot.models] == [["m"]]
        made.write("a.json", type="acme", disabled=True)
        assert await made.sync() == []
        made.plugins = []
        assert await made.sync() == []
        assert made.accounts.snapshot.models == ()


async def test_the_end_ends_calls(tmp_path: Path) -> None:
    """Nobody waits for a plugin that hangs."""
    left = []

    async def hang(request: object) -> object:
        try:
            await trio.sleep_forever()
        finally:
            left.append(1)
        raise AssertionError

    plugin = live("a", ScriptedCopy({"auth.parse": hang}), auth="acme")
    async with world(tmp_path, plugin) as made:
        made.write("a.json", type="acme")
        assert not await made.accounts.synchronise(wait_s=0.3)
    assert left == [1]


# -- refreshing --


def refreshing(**answers: Any) -> ScriptedCopy:
    """A plugin that takes files as they are."""
    copy = ScriptedCopy(answers)

    async def echo(request: wire.AuthParseRequest) -> wire.AuthParseReply:
        await trio.lowlevel.checkpoint()
        label = json.loads(request.raw_json.data).get("label", "")
        return parsing(
            wire.AuthData(storage_json=request.raw_json.data, label=label, metadata={"refresh_interval": 60})
        )

    copy.answers.setdefault("auth.parse", echo)
    return copy


def renewed(**fields: Any) -> wire.RefreshReply:
    """A new token."""
    return wire.RefreshReply(auth=wire.AuthData(storage_json=b'{"type":"acme","token":"new-token"}', **fields))


async def test_refresh_now(tmp_path: Path) -> None:
    """The new credential is in force when the answer is yes, and on disk; the plugin is not asked to read it back."""
    copy = refreshing(**{"auth.refresh": renewed(label="fresh", attributes={"k": "v"})})
    async with world(tmp_path, live("a", copy, auth="acme", executor="acme", model_provider=True)) as made:
        path = made.write("a.json", type="acme", token="old-token")
        (before,) = await made.sync()
        assert await made.accounts.refresh_now("a.json")
        (after,) = made.accounts.snapshot.credentials
        assert (after.id, after.index, after.label, after.attributes["k"]) == ("a.json", before.index, "fresh", "v")
        assert json.loads(path.read_bytes()) == {"refresh_interval": 60, "token": "new-token", "type": "acme"}
        assert path.read_bytes() == after.storage_json
        assert (await made.sync()) == [after]
        assert copy.count("auth.parse") == 1
        assert copy.count("model.for_auth") == 2  # the changed credential may have other models
        ((_, request, scope_id),) = [call for call in copy.calls if call[0] == "auth.refresh"]
        assert (request.auth_id, request.auth_provider, bool(scope_id)) == ("a.json", "acme", True)
        assert json.loads(request.storage_json.data)["token"] == "old-token"
        state = made.accounts.state(after)
        assert (state.status, state.message) == ("active", "")
        assert state.last_refresh is not None


async def test_nobody_refreshes_what_no_plugin_can(tmp_path: Path) -> None:
    """Unknown, disabled, or of a provider without `auth_provider`."""
    async with world(tmp_path, live("a", executor="acme")) as made:
        made.write("a.json", type="acme")
        await made.sync()
        assert not await made.accounts.refresh_now("a.json")
        assert not await made.accounts.refresh_now("b.json")


async def test_a_failed_refresh_changes_nothing(tmp_path: Path) -> None:
    """And is shown."""
    copy = refreshing(**{"auth.refresh": PluginCallError(method="auth.refresh", message="issuer is down")})
    async with world(tmp_path, live("a", copy, auth="acme")) as made:
        path = made.write("a.json", type="acme", token="old-token")
        (before,) = await made.sync()
        text = path.read_bytes()
        assert not await made.accounts.refresh_now("a.json")
        assert made.accounts.snapshot.credentials == (before,)
        assert path.read_bytes() == text
        state = made.accounts.state(before)
        assert (state.status, state.message) == ("error", "issuer is down")
        assert state.next_retry_after is not None


@pytest.mark.parametrize("auth", [{"provider": "claude"}, {"storage_json": b"[1]"}])
async def test_a_senseless_answer_is_a_failure(tmp_path: Path, auth: dict[str, Any]) -> None:
    """The old credential may still be good."""
    copy = refreshing(**{"auth.refresh": wire.RefreshReply(auth=wire.AuthData(**auth))})
    async with world(tmp_path, live("a", copy, auth="acme")) as made:
        made.write("a.json", type="acme", token="old-token")
        (before,) = await made.sync()
        assert not await made.accounts.refresh_now("a.json")
        assert made.accounts.snapshot.credentials == (before,)


async def test_an_edit_during_a_refresh_survives(tmp_path: Path) -> None:
    """The operator's members and the plugin's tokens (proxy 3.6)."""
    gate = trio.Event()

    async def slow(request: object) -> wire.RefreshReply:
        made.write("a.json", type="acme", token="old-token", note="mine", label="edited")
        gate.set()
        await trio.lowlevel.checkpoint()
        return renewed()

    copy = refreshing(**{"auth.refresh": slow})
    async with world(tmp_path, live("a", copy, auth="acme")) as made:
        path = made.write("a.json", type="acme", token="old-token")
        await made.sync()
        assert await made.accounts.refresh_now("a.json")
        (credential,) = await made.sync()
        held = json.loads(path.read_bytes())
        assert held == {"label": "edited", "note": "mine", "refresh_interval": 60, "token": "new-token", "type": "acme"}
        assert json.loads(credential.storage_json)["token"] == "new-token"
        assert credential.label == "edited"


async def test_a_removed_file_does_not_come_back(tmp_path: Path) -> None:
    """Who deletes a credential wants it gone."""

    async def remove(request: object) -> wire.RefreshReply:
        await trio.lowlevel.checkpoint()
        path.unlink()
        return renewed()

    copy = refreshing(**{"auth.refresh": remove})
    async with world(tmp_path, live("a", copy, auth="acme")) as made:
        path = made.write("a.json", type="acme", token="old-token")
        await made.sync()
        await made.accounts.refresh_now("a.json")
        assert await made.sync() == []
        assert not path.exists()


async def test_virtual_credentials_are_refreshed_in_memory(tmp_path: Path) -> None:
    """Their file belongs to all of them."""
    copy = parser(wire.AuthData(id="p1"), wire.AuthData(id="p2"), answers={"auth.refresh": renewed()})
    async with world(tmp_path, live("a", copy, auth="acme")) as made:
        path = made.write("many.json", type="acme")
        text = path.read_bytes()
        await made.sync()
        assert await made.accounts.refresh_now("p2")
        one, two = await made.sync()
        assert json.loads(two.storage_json)["token"] == "new-token"
        assert "token" not in json.loads(one.storage_json)
        assert path.read_bytes() == text


async def test_due_credentials_are_refreshed_unasked(tmp_path: Path) -> None:
    """By the wall clock."""
    copy = refreshing(**{"auth.refresh": renewed()})
    async with world(tmp_path, live("a", copy, auth="acme")) as made:
        made.write("a.json", type="acme", token="old-token")
        await made.sync()
        assert copy.count("auth.refresh") == 0
        made.ahead = timedelta(seconds=61)
        made.write("b.json", type="acme", token="another")  # a change makes it look at the clock
        await made.until(lambda: all(b"new-token" in c.storage_json for c in made.accounts.snapshot.credentials))
        assert copy.count("auth.refresh") >= 1
