"""Credentials dropped as files into the folder of a running proxy: used, edited, broken, taken away, renewed."""

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import attrs
import httpx
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cpa.credentials.model import Credential
from tests.e2e.scripted import Answer, Asked, ScriptedProvider
from tests.proxy import PROVIDER_KEY, RunningProxy, running_proxy

FAIL_S = 60
MANAGEMENT_KEY = "management-key-of-the-tests"
EMPTY = """
host: 127.0.0.1
port: 0
proxy-url: direct
auth-dir: {auth_dir}
api-keys: [{client_key}]
remote-management: {{secret-key: management-key-of-the-tests}}
{extra}
"""
"""No credential but those of the folder."""
CHAT = {"messages": [{"role": "user", "content": "x"}]}


@attrs.frozen
class Running:
    """A proxy whose folder is empty, in front of a mock provider."""

    proxy: RunningProxy
    client: httpx.AsyncClient

    @property
    def folder(self) -> Path:
        """Where credentials lie."""
        return self.proxy.directory

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """What is in force."""
        return self.proxy.app.plugins.accounts.snapshot.credentials

    def write(self, name: str, **members: Any) -> Path:
        """A file, replaced whole, as careful programs do."""
        scratch = self.folder / f"{name}.new"
        scratch.write_text(json.dumps(members))
        return scratch.rename(self.folder / name)

    def key(self, name: str, **members: Any) -> Path:
        """A file with a key for the mock behind OpenAI's protocol."""
        return self.write(
            name,
            **{
                "type": "openai-compatible",
                "api_key": PROVIDER_KEY,
                "base_url": f"{self.proxy.mock.url}/v1",
                "models": [{"name": "mock-gpt", "alias": "gpt"}],
                **members,
            },
        )

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until a file was noticed."""
        while not reached():  # noqa: ASYNC110 - from outside there is nothing else to see
            await trio.sleep(0.02)

    async def names(self) -> set[str]:
        """Models that OpenAI clients see."""
        return {model["id"] for model in (await self.client.get("/v1/models")).json()["data"]}

    async def ask(self, model: str) -> httpx.Response:
        """A chat completion."""
        return await self.client.post("/v1/chat/completions", json={**CHAT, "model": model})

    async def manage(self, path: str) -> httpx.Response:
        """An operator's question."""
        async with self.proxy.client(key=MANAGEMENT_KEY) as client:
            return await client.get(f"/v0/management{path}")


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Running]:
    """See `Running`."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(config=EMPTY, **options) as proxy, proxy.client() as client:
            yield Running(proxy, client)


async def test_keys_of_four_protocols_work_without_configuration_and_plugins() -> None:
    """One file each; gone with its file."""
    async with running() as run:
        mock = run.proxy.mock.url
        assert await run.names() == set()
        paths = [
            run.key("compatible.json"),
            run.write(
                "claude.json", type="claude", api_key=PROVIDER_KEY, base_url=mock, models=[{"name": "mock-claude"}]
            ),
            run.write(
                "gem.json",
                **{"type": "Gemini", "api-key": PROVIDER_KEY, "base-url": mock, "models": [{"name": "mock-gemini"}]},
            ),
            run.write(
                "codex.json",
                type="codex",
                api_key=PROVIDER_KEY,
                base_url=f"{mock}/v1",
                models=[{"name": "mock-responses"}],
            ),
        ]
        await run.until(lambda: len(run.credentials) == 4)
        assert await run.names() == {"gpt", "mock-claude", "mock-gemini", "mock-responses"}
        for model in ("gpt", "mock-claude", "mock-gemini", "mock-responses"):
            answer = await run.ask(model)
            assert answer.status_code == 200, (model, answer.text)
        paths[0].unlink()
        await run.until(lambda: len(run.credentials) == 3)
        assert (await run.ask("gpt")).status_code == 400


async def test_what_a_file_says_is_what_happens() -> None:
    """Prefix, aliases, exclusions, headers; an edit counts at once."""
    async with running() as run:
        run.key(
            "k.json",
            prefix="team",
            models=[{"name": "mock-gpt"}, {"name": "mock-gpt-other"}],
            model_aliases=[{"name": "mock-gpt", "alias": "big", "fork": True}],
            excluded_models=["*-other"],
        )
        await run.until(lambda: bool(run.credentials))
        assert await run.names() == {"mock-gpt", "team/mock-gpt", "big", "team/big"}
        assert (await run.ask("team/big")).status_code == 200
        run.key("k.json", disabled=True)
        await run.until(lambda: run.credentials[0].disabled)
        assert await run.names() == set()
        run.key("k.json")
        await run.until(lambda: not run.credentials[0].disabled)
        assert (await run.ask("gpt")).status_code == 200


async def test_a_running_stream_keeps_its_credential() -> None:
    """Whatever becomes of the file."""
    async with running() as run:
        path = run.key("k.json", headers={"X-Mock-Chunks": "3", "X-Mock-Delay": "$X-Mock-Delay"})
        await run.until(lambda: bool(run.credentials))
        body = {**CHAT, "model": "gpt", "stream": True}
        headers = {"x-mock-delay": "300"}
        async with run.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            lines = response.aiter_lines()
            assert (await anext(lines)).startswith("data: {")
            path.unlink()
            await run.until(lambda: not run.credentials)
            rest = [line async for line in lines]
        assert "data: [DONE]" in rest
        assert (await run.ask("gpt")).status_code == 400


async def test_a_file_that_is_written_in_place_stays_in_force() -> None:
    """Empty and half texts are moments of an editor, not wishes."""
    async with running() as run:
        path = run.key("k.json")
        await run.until(lambda: bool(run.credentials))
        whole = path.read_text()
        path.write_text("")
        path.write_text(whole[: len(whole) // 2])
        assert await run.proxy.app.plugins.accounts.synchronise()
        assert (await run.ask("gpt")).status_code == 200
        path.write_text(whole.replace('"alias": "gpt"', '"alias": "gpt-2"'))
        await run.until(lambda: run.credentials[0].models[0].alias == "gpt-2")
        assert (await run.ask("gpt-2")).status_code == 200


async def test_hostile_files_cost_nothing_but_a_warning(tmp_path: Path) -> None:
    """Pipes, links to elsewhere, giants, depths, broken names: the good one works, and nobody waits."""
    async with running() as run:
        folder = run.folder
        outside = tmp_path / "outside.json"
        outside.write_text(json.dumps({"type": "claude", "api_key": "stolen"}))
        os.mkfifo(folder / "pipe.json")
        (folder / "link.json").symlink_to(outside)
        (folder / "loop.json").symlink_to(folder / "loop.json")
        (folder / "device.json").symlink_to("/dev/zero")
        (folder / "folder.json").mkdir()
        (folder / "huge.json").write_bytes(b'{"type":"claude","api_key":"' + b"x" * (2 << 20) + b'"}')
        (folder / "deep.json").write_text('{"type":"claude","api_key":"k","x":' + "[" * 100_000 + "]" * 100_000 + "}")
        (folder / "list.json").write_text("[1]")
        (folder / "latin.json").write_bytes(b'{"type":"claude","api_key":"\xff"}')
        (folder / "bad\nname.json").write_text(json.dumps({"type": "claude", "api_key": "k"}))
        (folder / "proxy.json").write_text(json.dumps({"type": "claude", "api_key": "k", "proxy_url": "ftp://x"}))
        (folder / "off.json").write_text(json.dumps({"type": "claude", "api_key": "k", "disabled": "yes"}))
        (folder / "token.json").write_text(json.dumps({"type": "claude", "access_token": "of-another-program"}))
        (folder / "nothing.json").write_text(json.dumps({"api_key": "k"}))
        run.key("good.json")
        await run.until(lambda: bool(run.credentials))
        assert await run.proxy.app.plugins.accounts.synchronise()
        assert [credential.id for credential in run.credentials] == ["good.json"]
        assert await run.names() == {"gpt"}
        assert (await run.ask("gpt")).status_code == 200


async def test_operators_see_files_and_how_they_fare() -> None:
    """Proxy 6.7; nothing secret."""
    async with running() as run:
        orders = {"X-Mock-Status": "$X-Mock-Status"}
        run.key(
            "b.json", label="B", priority="5", weight=2, note="n", request_retry=0, email="me@x.test", headers=orders
        )
        run.key("A.json", disabled=True)
        run.write("c.json", type="acme", token="t")
        await run.until(lambda: len(run.credentials) == 2)
        assert (await run.ask("gpt")).status_code == 200
        run.client.headers["x-mock-status"] = "401"
        assert (await run.ask("gpt")).status_code == 401
        answer = await run.manage("/auth-files")
        assert answer.status_code == 200
        assert PROVIDER_KEY not in answer.text
        first, second, third = answer.json()["files"]
        assert [entry["name"] for entry in (first, second, third)] == ["A.json", "b.json", "c.json"]
        assert (first["status"], first["disabled"]) == ("disabled", True)
        assert third["status"] == "unknown"
        assert second["id"] == "b.json"
        assert second["provider"] == "openai-compatibility"
        assert (second["label"], second["email"], second["note"]) == ("B", "me@x.test", "n")
        assert (second["priority"], second["weight"], second["request_retry"]) == (5, 2, 0)
        assert (second["success"], second["failed"]) == (1, 1)
        assert len(second["recent_requests"]) == 20
        assert second["recent_requests"][-1]["success"] + second["recent_requests"][-2]["success"] == 1
        assert (second["status"], second["source"]) == ("error", "file")
        assert second["next_retry_after"].endswith("Z")
        assert second["path"] == str(run.folder / "b.json")
        assert second["size"] == (run.folder / "b.json").stat().st_size
        (same,) = (await run.manage(f"/auth-files?auth_index={second['auth_index']}")).json()["files"]
        assert same["id"] == "b.json"
        assert (await run.manage("/auth-files?name=nope")).json() == {"files": []}
        models = (await run.manage("/auth-files/models?name=b.json")).json()["models"]
        assert [model["id"] for model in models] == ["gpt"]
        missing = await run.manage("/auth-files/models")
        assert (missing.status_code, missing.json()) == (400, {"error": "name is required"})


async def test_a_new_key_in_a_file_starts_anew() -> None:
    """What the provider said of the old one does not hold for it; other edits change nothing of it."""
    async with running() as run:
        run.key("k.json", api_key="wrong")
        await run.until(lambda: bool(run.credentials))
        assert (await run.ask("gpt")).status_code == 401
        run.key("k.json", api_key="wrong", note="edited")
        await run.until(lambda: run.credentials[0].note == "edited")

        async def shown() -> Any:
            return (await run.manage("/auth-files")).json()["files"][0]

        assert "next_retry_after" in await shown()
        assert (await shown())["failed"] >= 1
        run.key("k.json")
        await run.until(lambda: run.credentials[0].api_key == PROVIDER_KEY)
        assert (await run.ask("gpt")).status_code == 200
        assert (await shown())["status"] == "active"
        assert (await shown())["failed"] >= 1


# -- service accounts --

PRIVATE_KEY = generate_private_key(65537, 2048)
PEM = PRIVATE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@attrs.define(eq=False)
class Google(ScriptedProvider):
    """Token endpoint and models; a token is good until *revoked*. *refuses*: the account is unknown."""

    issued: int = 0
    revoked: int = 0
    refuses: bool = False
    life_s: int = 3600

    async def _reply(self, connection: Any, stream: trio.abc.Stream) -> bool:
        asked = self.requests[-1]
        self.answer = self._token() if asked.target == "/token" else self._models(asked)
        return await super()._reply(connection, stream)

    def _token(self) -> Answer:
        if self.refuses:
            return said({"error": "invalid_grant", "error_description": "no such account"}, status=400)
        self.issued += 1
        return said({"access_token": f"ya29.{self.issued}", "expires_in": self.life_s, "token_type": "Bearer"})

    def _models(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer ya29.{self.issued}" or self.issued <= self.revoked:
            return said({"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no"}}, status=401)
        text = {"candidates": [{"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}]}
        return said(text)

    @property
    def calls(self) -> list[str]:
        """What was asked for, in order."""
        return [asked.target for asked in self.requests]

    def account(self, **members: Any) -> dict[str, Any]:
        """A file whose account is served here."""
        google = {
            "type": "service_account",
            "client_email": "robot@p.test",
            "private_key": PEM,
            "private_key_id": "kid-1",
            "project_id": "proj",
            "token_uri": f"{self.url}/token",
        }
        return {"type": "vertex", "location": "us-east1", "base_url": self.url, "service_account": google, **members}


def said(value: object, *, status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(body=(json.dumps(value).encode(),), status=status, content_type="application/json")


@asynccontextmanager
async def google() -> AsyncIterator[Google]:
    """See `Google`."""
    made = Google()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, made.serve, listeners)
        yield made
        nursery.cancel_scope.cancel()


MODEL = "gemini-2.5-flash"
CALL = f"/v1/projects/proj/locations/us-east1/publishers/google/models/{MODEL}:generateContent"


async def test_a_service_account_calls_models_of_its_project() -> None:
    """The token is fetched once, signed as the contract says, and neither written nor shown."""
    async with google() as issuer, running() as run:
        path = run.write("v.json", **issuer.account())
        before = path.read_bytes()
        await run.until(lambda: issuer.issued == 1)
        for _ in range(3):
            answer = await run.ask(MODEL)
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["message"]["content"] == "hello"
        assert issuer.calls == ["/token", CALL, CALL, CALL]
        form = parse_qs(issuer.requests[0].body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        assert form["assertion"][0].count(".") == 2
        (credential,) = run.credentials
        assert "ya29" not in repr(credential)
        assert path.read_bytes() == before
        shown = await run.manage("/auth-files")
        assert "PRIVATE KEY" not in shown.text
        assert "ya29" not in shown.text
        assert shown.json()["files"][0]["last_refresh"].endswith("Z")


async def test_a_refused_token_is_replaced_and_the_request_repeated() -> None:
    """Once, for everybody who waits; an edit of the file keeps the token."""
    async with google() as issuer, running() as run:
        run.write("v.json", **issuer.account())
        await run.until(lambda: issuer.issued == 1)
        assert (await run.ask(MODEL)).status_code == 200
        run.write("v.json", **issuer.account(note="edited"))
        await run.until(lambda: run.credentials[0].note == "edited")
        assert (await run.ask(MODEL)).status_code == 200
        assert issuer.issued == 1


async def test_an_account_that_does_not_exist_is_said_to_be_refused() -> None:
    """And not asked for again until its file changes."""
    async with google() as issuer, running() as run:
        issuer.refuses = True
        run.write("v.json", **issuer.account())

        async def entry() -> Any:
            files = (await run.manage("/auth-files")).json()["files"]
            return files[0] if files else {}

        while (await entry()).get("status") != "error":  # noqa: ASYNC110 - seen from outside
            await trio.sleep(0.02)
        shown = await entry()
        assert "invalid_grant" in shown["status_message"]
        assert shown["unavailable"] is True
        assert (await run.ask(MODEL)).status_code in (401, 503)
        assert issuer.calls.count("/token") == 1
        assert not any(call == CALL for call in issuer.calls)


@pytest.mark.parametrize("wrong", ["private_key", "token_uri", "client_email"])
async def test_broken_accounts_are_left_out(wrong: str) -> None:
    """Without a request to anywhere."""
    async with google() as issuer, running() as run:
        members = issuer.account()
        members["service_account"][wrong] = "http://example.test/x"
        run.write("v.json", **members)
        run.key("good.json")
        await run.until(lambda: bool(run.credentials))
        assert await run.proxy.app.plugins.accounts.synchronise()
        assert [credential.id for credential in run.credentials] == ["good.json"]
        assert issuer.calls == []
