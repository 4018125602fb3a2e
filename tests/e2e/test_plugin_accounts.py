"""A compiled plugin with a provider of its own, in a running proxy: its credentials, its models, its refreshes."""

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from cpa.config.schema import Isolation
from cpa.credentials.model import Credential
from cpa.types import PluginId
from tests.proxy import RunningProxy, running_proxy

FAIL_S = 120
SOURCE = Path(__file__).parent / "plugins" / "accounts.c"
HEADERS = Path("cpa/abi")
BODY = {"messages": [{"role": "user", "content": "x"}]}

both = pytest.mark.parametrize("isolation", list(Isolation), ids=str)


@pytest.fixture(scope="module")
def plugin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin."""
    folder = tmp_path_factory.mktemp("plugins")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-I{HEADERS}", str(SOURCE), "-o", str(folder / "accounts.so")],
        check=True,
    )
    return folder


@attrs.frozen
class Running:
    """A proxy with the plugin."""

    proxy: RunningProxy
    client: httpx.AsyncClient

    def write(self, name: str, **members: Any) -> Path:
        """A credential file of the plugin's, replaced whole."""
        scratch = self.proxy.directory / f"{name}.new"
        scratch.write_text(json.dumps({"type": "acme", **members}))
        return scratch.rename(self.proxy.directory / name)

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """What is in force."""
        return self.proxy.app.plugins.accounts.snapshot.credentials

    async def names(self) -> set[str]:
        """Models that OpenAI clients see, those of the mock aside."""
        listed = (await self.client.get("/v1/models")).json()["data"]
        return {model["id"] for model in listed if "acme" in model["id"] or "pro-of" in model["id"]}

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until a file was noticed."""
        while not reached():  # noqa: ASYNC110 - from outside there is nothing else to see
            await trio.sleep(0.02)

    async def ask(self, model: str) -> httpx.Response:
        """A chat completion."""
        return await self.client.post("/v1/chat/completions", json={**BODY, "model": model})


@asynccontextmanager
async def running(
    plugin_dir: Path, isolation: Isolation = Isolation.PROCESS, *, extra: str = ""
) -> AsyncIterator[Running]:
    """A proxy with the plugin."""
    plugins = f"""
plugins:
  enabled: true
  dir: {plugin_dir}
  configs:
    accounts: {{enabled: true, isolation: {isolation}}}
{extra}
"""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=plugins) as proxy, proxy.client() as client:
            yield Running(proxy, client)


@both
async def test_models_of_plugins_are_listed_in_all_shapes(plugin_dir: Path, isolation: Isolation) -> None:
    """Before there is any credential; a name that a native provider serves stays native, and payment is asked for."""
    async with running(plugin_dir, isolation) as run:
        listed = {model["id"]: model for model in (await run.client.get("/v1/models")).json()["data"]}
        assert listed["acme-1"]["owned_by"] == "Acme Ltd"
        assert listed["acme-1"]["context_length"] == 32768
        assert listed["gpt"]["owned_by"] != "accounts"
        answer = await run.client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
        (claude,) = [model for model in answer.json()["data"] if model["id"] == "acme-1"]
        assert (claude["display_name"], claude["created_at"]) == ("Acme One", "2026-01-01T12:00:00Z")
        gemini = await run.client.get("/v1beta/models")
        assert "models/acme-1" in {model["name"] for model in gemini.json()["models"]}
        answer = await run.ask("acme-1")
        assert answer.status_code == 503
        assert "auth_not_found: no auth available (providers=acme, model=acme-1)" in answer.text
        assert (await run.ask("gpt")).status_code == 200


@both
async def test_a_file_opens_its_models_at_once_and_closes_them_again(plugin_dir: Path, isolation: Isolation) -> None:
    """Dropped into the folder of a running proxy, edited there, and taken away."""
    async with running(plugin_dir, isolation) as run:
        path = run.write("acme-me.json", token="fine")
        await run.until(lambda: len(run.credentials) == 1)
        (credential,) = run.credentials
        assert (credential.id, credential.provider, credential.label) == ("acme-me.json", "acme", "parsed")
        assert await run.names() == {"acme-1", "pro-of-acme-me.json"}
        assert (await run.ask("acme-1")).json()["choices"][0]["message"]["content"] == "hi"
        assert (await run.ask("pro-of-acme-me.json")).status_code == 200
        run.write("acme-me.json", token="fine", prefix="team")
        await run.until(lambda: run.credentials[0].prefix == "team")
        assert await run.names() == {"acme-1", "pro-of-acme-me.json", "team/acme-1", "team/pro-of-acme-me.json"}
        run.write("acme-me.json", token="fine", disabled=True)
        await run.until(lambda: run.credentials[0].disabled)
        assert await run.names() == {"acme-1"}
        assert (await run.ask("acme-1")).status_code == 503
        path.unlink()
        await run.until(lambda: not run.credentials)
        assert (await run.ask("pro-of-acme-me.json")).status_code == 400


async def test_one_file_gives_several_credentials(plugin_dir: Path) -> None:
    """Each with its models; the disabled one without."""
    async with running(plugin_dir) as run:
        run.write("many.json")
        await run.until(lambda: len(run.credentials) == 3)
        assert [credential.id for credential in run.credentials] == ["one", "two", "many.json#3"]
        assert await run.names() == {"acme-1", "pro-of-one", "pro-of-many.json#3"}


async def test_operators_upload_and_edit_files_of_plugins(plugin_dir: Path) -> None:
    """In force when answered; one of several credentials of a file is not edited alone; tokens go into calls."""
    extra = "remote-management: {secret-key: management-key-of-the-tests}"
    async with running(plugin_dir, extra=extra) as run, run.proxy.client(key="management-key-of-the-tests") as operator:
        files = "/v0/management/auth-files"
        one, many = b'{"type": "acme", "access_token": "tok-123456"}', b'{"type": "acme"}'
        sent = [("a", ("acme-me.json", one)), ("b", ("many.json", many))]
        assert (await operator.post(files, files=sent)).json() == {
            "status": "ok",
            "uploaded": 2,
            "files": ["acme-me.json", "many.json"],
        }
        assert [credential.id for credential in run.credentials] == ["acme-me.json", "one", "two", "many.json#3"]
        assert (await run.ask("pro-of-acme-me.json")).status_code == 200
        index = run.credentials[1].index
        for endpoint, body in (
            ("status", {"name": "one", "disabled": True}),
            ("status", {"name": "many.json", "auth_index": index, "disabled": True}),
            ("fields", {"name": "many.json#3", "note": "x"}),
        ):
            assert (await operator.patch(f"{files}/{endpoint}", json=body)).status_code == 409
        assert (await operator.delete(files, params={"name": "two"})).status_code == 409
        off = {"name": "many.json", "disabled": True}
        assert (await operator.patch(f"{files}/status", json=off)).status_code == 200
        assert [credential.disabled for credential in run.credentials] == [False, True, True, True]
        assert await run.names() == {"acme-1", "pro-of-acme-me.json"}
        fields = {"name": "acme-me.json", "prefix": "team"}
        assert (await operator.patch(f"{files}/fields", json=fields)).status_code == 200
        assert "team/acme-1" in await run.names()
        listed = (await operator.get(files)).json()["files"]
        assert [file["id"] for file in listed] == ["acme-me.json", "one", "two", "many.json#3"]
        assert {file["name"] for file in listed[1:]} == {"many.json"}
        call = {"auth_index": run.credentials[0].index, "method": "GET", "header": {"Authorization": "Bearer $TOKEN$"}}
        reply = await operator.post("/v0/management/api-call", json={**call, "url": f"{run.proxy.mock.url}/v1/models"})
        assert (reply.status_code, reply.json()["status_code"]) == (200, 401)  # it is no key of the mock's
        assert (await operator.delete(files, params={"all": "true"})).json() == {"status": "ok", "deleted": 2}
        assert run.credentials == ()


async def test_hostile_answers_cost_their_file_only(plugin_dir: Path) -> None:
    """Ids of a megabyte, wrong types, names that lead elsewhere."""
    async with running(plugin_dir) as run:
        run.write("huge.json")
        run.write("path.json")
        run.write("wrong.json", label="built in")
        run.write("declined.json", label="built in", token="x")
        run.write("good.json", token="x")
        await run.until(lambda: len(run.credentials) == 4)
        by_id = {credential.id: credential for credential in run.credentials}
        assert set(by_id) == {"path.json", "wrong.json", "declined.json", "good.json"}
        assert (
            by_id["path.json"].path == by_id["path.json"].attributes["path"] == str(run.proxy.directory / "path.json")
        )
        assert by_id["wrong.json"].label == by_id["declined.json"].label == "built in"
        assert not list(run.proxy.directory.parent.glob("evil*"))
        assert (await run.ask("acme-1")).status_code == 200


async def test_a_file_that_crashes_the_plugin_does_not_stop_the_rest(plugin_dir: Path) -> None:
    """What the plugin said of other files holds while it starts again."""
    async with running(plugin_dir) as run:
        run.write("good.json", token="x")
        await run.until(lambda: len(run.credentials) == 1)
        (good,) = run.credentials
        run.write("xcrash.json")
        await run.until(lambda: run.proxy.app.plugins.manager.states()[0].state != "registered")
        assert good in run.credentials
        assert "pro-of-good.json" in await run.names()
        assert (await run.ask("gpt")).status_code == 200


async def test_a_refresh_is_kept(plugin_dir: Path) -> None:
    """In force and on disk; the file's other members stay."""
    async with running(plugin_dir) as run:
        path = run.write("acme-me.json", token="old-token", note="mine")
        await run.until(lambda: len(run.credentials) == 1)
        assert await run.proxy.app.plugins.accounts.refresh_now("acme-me.json")
        assert b"new-token" in run.credentials[0].storage_json
        held = json.loads(path.read_text())
        assert held == {"note": "mine", "refresh_interval": 3600, "token": "new-token", "type": "acme"}


async def test_a_refused_credential_is_refreshed_once_and_the_request_succeeds(plugin_dir: Path) -> None:
    """The client never hears of it."""
    async with running(plugin_dir) as run:
        run.write("acme-me.json", token="old-token")
        await run.until(lambda: len(run.credentials) == 1)
        answer = await run.ask("acme-1")
        assert answer.status_code == 200
        assert b"new-token" in run.credentials[0].storage_json


async def test_plugins_see_the_state_of_credentials(plugin_dir: Path) -> None:
    """Each of several in a file, with the file's content behind its index; a saved file is taken up."""
    async with running(plugin_dir) as run:
        services = run.proxy.app.plugins.services

        async def call(method: str, **members: Any) -> Any:
            reply = await services.handle(PluginId("other"), method.encode(), json.dumps(members).encode())
            return json.loads(reply)["result"]

        await call("host.auth.save", name="many.json", json={"type": "acme"})
        await run.until(lambda: len(run.credentials) == 3)
        files = (await call("host.auth.list"))["files"]
        assert [(entry["id"], entry["name"], entry["status"]) for entry in files] == [
            ("one", "many.json", "active"),
            ("two", "many.json", "disabled"),
            ("many.json#3", "many.json", "active"),
        ]
        assert [entry["auth_index"] for entry in files] == [credential.index for credential in run.credentials]
        assert files[0]["label"] == "One"
        got = await call("host.auth.get", auth_index=files[1]["auth_index"])
        assert (got["auth_index"], got["json"]) == (files[1]["auth_index"], {"type": "acme"})
        shown = await call("host.auth.get_runtime", auth_index=files[1]["auth_index"])
        assert shown["auth"] == files[1]
        assert await run.proxy.app.plugins.accounts.refresh_now("one")
        shown = await call("host.auth.get_runtime", auth_index=files[0]["auth_index"])
        assert shown["auth"]["last_refresh"] > "2020"


async def test_excluded_models_are_hidden(plugin_dir: Path) -> None:
    """By the operator, for all files of a provider."""
    async with running(plugin_dir, extra='oauth-excluded-models: {acme: ["pro-*"]}') as run:
        run.write("acme-me.json")
        await run.until(lambda: len(run.credentials) == 1)
        assert await run.names() == {"acme-1"}


async def test_models_are_there_when_the_server_says_that_it_is_ready(plugin_dir: Path, tmp_path: Path) -> None:
    """Credentials of the folder included."""
    (tmp_path / "acme-me.json").write_text('{"type":"acme","token":"t"}')
    async with running(plugin_dir) as run:
        run.write("acme-me.json")
        await run.until(lambda: len(run.credentials) == 1)
        loaded = run.proxy.app.loaded
        config = attrs.evolve(loaded.config, auth_dir=tmp_path)
        run.proxy.app.state.runtime = attrs.evolve(run.proxy.app.state.runtime, config=config)
        await run.proxy.app.plugins.apply(config.plugins)
        assert [credential.path for credential in run.credentials] == [str(tmp_path / "acme-me.json")]
        assert "pro-of-acme-me.json" in await run.names()
