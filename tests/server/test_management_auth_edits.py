"""Credential files through the management API: uploaded, edited, switched, fetched, removed; in force when answered."""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import httpx
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cpa.credentials.editing import content_of
from tests.e2e.test_credentials import FAIL_S, MANAGEMENT_KEY, Running, running
from tests.proxy import PROVIDER_KEY
from tests.server.wire import connect

FILES = "/v0/management/auth-files"
ENDPOINTS = (
    ("POST", "/auth-files"),
    ("DELETE", "/auth-files"),
    ("PATCH", "/auth-files/status"),
    ("PATCH", "/auth-files/fields"),
    ("GET", "/auth-files/download"),
    ("GET", "/auth-files"),
    ("GET", "/auth-files/models"),
    ("POST", "/vertex/import"),
)


def key_file(run: Running, **members: Any) -> bytes:
    """A file with a key for the mock."""
    base = {"type": "openai-compatible", "api_key": PROVIDER_KEY, "base_url": f"{run.proxy.mock.url}/v1"}
    return json.dumps({**base, "models": [{"name": "mock-gpt", "alias": "gpt"}], **members}).encode()


def manager(run: Running) -> httpx.AsyncClient:
    """A client with the management key."""
    return run.proxy.client(key=MANAGEMENT_KEY)


def told(reply: httpx.Response) -> tuple[int, Any]:
    """Status and body."""
    return reply.status_code, reply.json()


def form(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """Files of a form, each with a field name of its own."""
    return [(f"field{number}", file) for number, file in enumerate(files)]


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "form"])
async def test_an_upload_serves_the_next_request(raw: bool) -> None:
    """By the time it is answered."""
    async with running() as run, manager(run) as client:
        content = key_file(run)
        if raw:
            reply = await client.post(FILES, params={"name": "k.json"}, content=content)
        else:
            reply = await client.post(FILES, files={"upload": ("k.json", content)})
        assert told(reply) == (200, {"status": "ok"})
        assert (await run.ask("gpt")).status_code == 200
        [entry] = (await client.get(FILES)).json()["files"]
        assert (entry["name"], entry["status"], entry["size"]) == ("k.json", "active", len(content))
        assert len(entry["recent_requests"]) == 20
        listed = (await client.get(f"{FILES}/models?name=k.json")).json()["models"]
        assert [model["id"] for model in listed] == ["gpt"]
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-cpa-version"]


async def test_several_files_and_those_that_are_none() -> None:
    """Each by itself; a bad one replaces nothing and harms no other."""
    async with running() as run, manager(run) as client:
        good = key_file(run)
        reply = await client.post(FILES, files=form(("a.json", good), ("b.json", b"{}")))
        assert told(reply) == (200, {"status": "ok", "uploaded": 2, "files": ["a.json", "b.json"]})
        reply = await client.post(
            FILES,
            files=form(("c.json", good), ("b.txt", b"{}"), ("../d.json", good), ("C:\\e.json", good), ("a.json", b"{")),
        )
        assert reply.status_code == 207
        body = reply.json()
        assert (body["status"], body["uploaded"], body["files"]) == ("partial", 1, ["c.json"])
        errors = {failure["name"]: failure["error"] for failure in body["failed"]}
        assert errors["b.txt"] == "file must be .json"
        assert errors["../d.json"] == errors["C:\\e.json"] == "invalid name"
        assert errors["a.json"].startswith("invalid auth json")
        assert content_of(run.folder, "a.json") == good
        assert sorted(path.name for path in run.folder.iterdir() if path.is_file()) == ["a.json", "b.json", "c.json"]


BAD_UPLOADS: tuple[tuple[Mapping[str, Any], str], ...] = (
    ({"content": b"{}"}, "invalid name"),
    ({"params": {"name": "../x.json"}, "content": b"{}"}, "invalid name"),
    ({"params": {"name": "x.txt"}, "content": b"{}"}, "file must be .json"),
    ({"params": {"name": "x.json"}, "content": b""}, "json is required"),
    ({"params": {"name": "x.json"}, "content": b"[1]"}, "invalid auth json: expected a JSON object"),
    ({"params": {"name": "x.json"}, "content": b"[" * 9999}, "invalid auth json: nested too deeply"),
    ({"files": {"f": ("x.txt", b"{}")}}, "file must be .json"),
    ({"files": {"f": ("x.json", b"{")}}, "invalid auth json: Input data was truncated"),
    ({"files": {"f": (None, b"{}")}}, "file required"),
    ({"headers": {"content-type": "multipart/form-data"}, "content": b"x"}, "invalid multipart body"),
    ({"headers": {"content-type": "multipart/form-data; boundary=a"}, "content": b"--a\r\n"}, "invalid multipart"),
)


async def test_bad_uploads() -> None:
    """400, and there is no file."""
    async with running() as run, manager(run) as client:
        for sent, error in BAD_UPLOADS:
            reply = await client.post(FILES, **sent)
            assert reply.status_code == 400
            assert reply.json()["error"].startswith(error), sent
        assert not [path for path in run.folder.iterdir() if path.is_file()]


async def test_uploads_are_bounded() -> None:
    """413 for more than a form of files may have; a single file is a megabyte."""
    async with running() as run, manager(run) as client:
        reply = await client.post(FILES, params={"name": "x.json"}, content=b" " * (17 << 20))
        assert reply.status_code == 413
        reply = await client.post(FILES, params={"name": "x.json"}, content=b'{"a":"' + b"x" * (1 << 20) + b'"}')
        assert reply.status_code == 400
        assert "larger than" in reply.json()["error"]


async def test_a_client_that_leaves_in_the_middle_leaves_nothing() -> None:
    """Half of a body is not half of a file."""
    async with running() as run:
        content = key_file(run)
        head = f"POST {FILES}?name=k.json HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {MANAGEMENT_KEY}\r\n"
        async with connect(run.proxy.url) as wire:
            await wire.send(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content[:-5])
        server = run.proxy.app.server
        while server.connections:  # noqa: ASYNC110 - until the server has seen it
            await trio.sleep(0.01)
        assert not [path for path in run.folder.iterdir() if path.is_file()]


async def test_fetching_a_file() -> None:
    """As an attachment, byte for byte; under names that need quoting; also one that is broken."""
    async with running() as run, manager(run) as client:
        content = b'{ "type":"x" , "a":1.50}\n'
        for name in ("plain.json", 'a "quoted" ü.json'):
            (run.folder / name).write_bytes(content)
            reply = await client.get(f"{FILES}/download", params={"name": name})
            assert (reply.status_code, reply.content) == (200, content)
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["content-disposition"].startswith("attachment; filename=")
            assert reply.headers["x-content-type-options"] == "nosniff"
        assert "filename*=UTF-8''a%20%22quoted%22%20%C3%BC.json" in reply.headers["content-disposition"]
        (run.folder / "broken.json").write_bytes(b"{")
        assert (await client.get(f"{FILES}/download?name=broken.json")).content == b"{"
        for name, answer in (
            ("gone.json", (404, {"error": "auth file not found"})),
            ("../x.json", (400, {"error": "invalid name"})),
            ("a\\b.json", (400, {"error": "invalid name"})),
            ("C:x.json", (400, {"error": "invalid name"})),
            ("/etc/x.json", (400, {"error": "invalid name"})),
            ("", (400, {"error": "invalid name"})),
        ):
            assert told(await client.get(f"{FILES}/download", params={"name": name})) == answer


async def test_deleting_files() -> None:
    """By query, by body, by id, by full path, several, all; gone from the models when answered."""
    async with running() as run, manager(run) as client:

        async def fill() -> None:
            files = form(*((f"{name}.json", key_file(run)) for name in "abcd"))
            assert (await client.post(FILES, files=files)).status_code == 200

        async def delete(**sent: Any) -> tuple[int, Any]:
            return told(await client.request("DELETE", FILES, **sent))

        await fill()
        assert await delete(params={"name": "a.json"}) == (200, {"status": "ok"})
        assert await delete(params={"name": "a.json"}) == (404, {"error": "auth file not found"})
        assert await delete(json={"name": "b"}) == (200, {"status": "ok"})
        assert await delete(json={"name": "b"}) == (404, {"error": "auth file not found"})
        assert await delete(json=["c.json", str(run.folder / "d.json")]) == (
            200,
            {"status": "ok", "deleted": 2, "files": ["c.json", "d.json"]},
        )
        assert await run.names() == set()
        await fill()
        assert await delete(params=[("name", "a.json"), ("name", "gone.json"), ("name", "../x.json")]) == (
            207,
            {
                "status": "partial",
                "deleted": 1,
                "files": ["a.json"],
                "failed": [
                    {"name": "../x.json", "error": "invalid name"},
                    {"name": "gone.json", "error": "auth file not found"},
                ],
            },
        )
        assert await delete(json={"names": ["b.json", "b.json"]}) == (200, {"status": "ok"})
        for value in ("true", "1", "*"):
            await fill()
            assert await delete(params={"all": value}) == (200, {"status": "ok", "deleted": 4})
        assert await run.names() == set()
        assert await delete() == (400, {"error": "name is required"})
        assert await delete(params={"all": "no"}) == (400, {"error": "name is required"})
        for body in (b"{", b'"x"', b"[1]", b'{"names": "x"}', b'{"names": [null]}'):
            assert await delete(content=body) == (400, {"error": "invalid body"})


async def test_switching_a_file_off_and_on() -> None:
    """Written into the file; models go and come."""
    async with running() as run, manager(run) as client:
        await client.post(FILES, params={"name": "k.json"}, content=key_file(run))
        [entry] = (await client.get(FILES)).json()["files"]

        async def switch(**body: Any) -> tuple[int, Any]:
            return told(await client.patch(f"{FILES}/status", json=body))

        off = {"name": "k.json", "disabled": True}
        assert await switch(**off, auth_index=entry["auth_index"]) == (200, {"status": "ok", "disabled": True})
        assert json.loads(content_of(run.folder, "k.json"))["disabled"] is True
        assert await run.names() == set()
        assert (await client.get(FILES, params={"name": "k.json"})).json()["files"][0]["status"] == "disabled"
        assert await switch(name="k.json", disabled=False) == (200, {"status": "ok", "disabled": False})
        assert (await run.ask("gpt")).status_code == 200
        assert await switch(**off, auth_index="0" * 16) == (404, {"error": "auth file not found"})
        assert await switch(name="gone.json", disabled=True) == (404, {"error": "auth file not found"})
        assert await switch(name="../k.json", disabled=True) == (400, {"error": "invalid name"})
        assert await switch(name="k.json") == (400, {"error": "disabled is required"})
        assert await switch(name="k.json", disabled="yes") == (400, {"error": "disabled is required"})
        assert await switch(disabled=True) == (400, {"error": "name is required"})
        assert await switch(**off, auth_index=5) == (400, {"error": "invalid body"})
        assert told(await client.patch(f"{FILES}/status", content=b"[]")) == (400, {"error": "invalid body"})
        assert (await run.ask("gpt")).status_code == 200


async def test_changing_members() -> None:
    """In force at once; the file keeps what was not named."""
    async with running() as run, manager(run) as client:
        await client.post(FILES, params={"name": "k.json"}, content=key_file(run, own=[1]))

        async def change(**body: Any) -> tuple[int, Any]:
            return told(await client.patch(f"{FILES}/fields", json=body))

        changes = {"prefix": "team", "priority": 5, "headers.X-Team": "blue", "note": "till March", "a.b": {"c": 1}}
        assert await change(name="k.json", **changes) == (200, {"status": "ok"})
        kept = json.loads(content_of(run.folder, "k.json"))
        assert kept == json.loads(key_file(run, own=[1])) | {
            "prefix": "team",
            "priority": 5,
            "headers": {"X-Team": "blue"},
            "note": "till March",
            "a": {"b": {"c": 1}},
        }
        assert await run.names() == {"gpt", "team/gpt"}
        [entry] = (await client.get(FILES)).json()["files"]
        assert (entry["priority"], entry["note"]) == (5, "till March")
        assert await change(name="k.json", priority=None, note=None, a=None, **{"headers.X-Team": ""}) == (
            200,
            {"status": "ok"},
        )
        assert json.loads(content_of(run.folder, "k.json")) == json.loads(key_file(run, own=[1])) | {"prefix": "team"}
        assert await change(name="k.json") == (400, {"error": "no fields to update"})
        assert await change(note="x") == (400, {"error": "name is required"})
        assert await change(name="gone.json", note="x") == (404, {"error": "auth file not found"})
        assert (await change(name="k.json", weight="1"))[0] == 400
        assert (await change(name="k.json", **{f"f{n}": n for n in range(201)}))[0] == 400
        (run.folder / "list.json").write_bytes(b"[]")
        assert (await change(name="list.json", note="x"))[0] == 409


@attrs.frozen
class Account:
    """What Google gives."""

    members: dict[str, Any]

    @classmethod
    def new(cls) -> "Account":
        """With a key that was just made; small, as nobody signs with it."""
        key = generate_private_key(public_exponent=65537, key_size=1024)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        members = {"type": "service_account", "project_id": "acme-1", "client_email": "a@b.example", "private_key": pem}
        return cls({**members, "token_uri": "http://127.0.0.1:9/token"})


async def test_importing_a_service_account() -> None:
    """The file says what the proxy needs; refusals are the contract's."""
    async with running() as run, manager(run) as client:
        account = Account.new().members

        async def send(data: bytes, **fields: str) -> httpx.Response:
            return await client.post("/v0/management/vertex/import", files={"file": ("sa.json", data)}, data=fields)

        reply = await send(json.dumps(account).encode(), location="europe-west4")
        assert told(reply) == (
            200,
            {
                "status": "ok",
                "auth-file": "vertex-acme-1.json",
                "project_id": "acme-1",
                "email": "a@b.example",
                "location": "europe-west4",
            },
        )
        kept = json.loads(content_of(run.folder, "vertex-acme-1.json"))
        assert kept["service_account"] == account
        assert (kept["type"], kept["location"], kept["email"]) == ("vertex", "europe-west4", "a@b.example")
        [credential] = run.credentials
        assert (credential.provider, credential.project) == ("vertex", "acme-1")
        assert (await send(json.dumps(account).encode())).json()["location"] == "us-central1"
        for data, error in (
            (b"{", "invalid json"),
            (b"[]", "invalid json"),
            (b"{}", "invalid service account"),
            (json.dumps({**account, "private_key": "none"}).encode(), "invalid service account"),
            (json.dumps({**account, "project_id": ""}).encode(), "project_id missing"),
            (json.dumps({**account, "project_id": "../.."}).encode(), "invalid project or location"),
        ):
            reply = await send(data)
            assert (reply.status_code, reply.json()["error"]) == (400, error)
            assert account["private_key"] not in reply.text
        for sent in ({"content": b"{}"}, {"files": {"other": ("sa.json", b"{}")}}):
            reply = await client.post("/v0/management/vertex/import", **sent)
            assert told(reply) == (400, {"error": "file required"})
        assert (await send(json.dumps(account).encode(), location="eu/../x")).status_code == 400


async def test_keys_and_other_sites() -> None:
    """Wrong key, no key, a page of another site: none of these does anything."""
    async with running() as run, run.proxy.client(key=None) as client:
        run.key("k.json")
        right = {"authorization": f"Bearer {MANAGEMENT_KEY}"}
        for method, path in ENDPOINTS:
            url = f"/v0/management{path}?name=k.json&all=true"
            wrong = await client.request(method, url, headers={"authorization": "Bearer wrong"})
            assert told(wrong) == (401, {"error": "invalid management key"}), path
            foreign = await client.request(method, url, headers={"sec-fetch-site": "cross-site", **right})
            assert foreign.status_code == 403
            assert (await client.get(FILES, headers=right)).status_code == 200  # or the fifth wrong one would ban
        assert content_of(run.folder, "k.json")


async def test_remote_clients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without allow-remote nobody from elsewhere gets in, with the right key either."""
    monkeypatch.setattr("cpa.server.management.keys.is_loopback", lambda address: False)
    async with running() as run, manager(run) as client:
        for method, path in ENDPOINTS:
            reply = await client.request(method, f"/v0/management{path}?name=k.json")
            assert told(reply) == (403, {"error": "remote management disabled"}), path


async def test_the_list_can_be_filtered() -> None:
    """By name and by index."""
    with trio.fail_after(FAIL_S):
        async with running() as run, manager(run) as client:
            await client.post(
                FILES, files=form(("b.json", key_file(run)), ("A.json", key_file(run)), ("c.json", b"{}"))
            )
            files = (await client.get(FILES)).json()["files"]
            assert [file["name"] for file in files] == ["A.json", "b.json", "c.json"]
            for query in ({"name": "b.json"}, {"auth_index": files[1]["auth_index"]}):
                assert (await client.get(FILES, params=query)).json() == {"files": [files[1]]}
            assert (await client.get(FILES, params={"name": "none.json"})).json() == {"files": []}
            assert files[2]["status"] == "unknown"
            assert told(await client.get(f"{FILES}/models")) == (400, {"error": "name is required"})
