"""`host.auth.*` as plugins call them."""

from pathlib import Path

import pytest
import trio

from cpa.abi.wire import Empty
from cpa.abi.wire_host import AuthSaveRequest
from cpa.credentials.from_config import auth_index
from cpa.host.scopes import Caller
from cpa.host.services_auth import AuthService
from tests.host.hosting import ALICE, Host, Refused, open_host

CALLER = Caller(plugin_id=ALICE)
ZERO = "0001-01-01T00:00:00Z"


def directory_of(host: Host) -> Path:
    """The auth-dir."""
    return host.proxy.directory


async def test_save_list_get_and_runtime() -> None:
    """The examples of the contract, in its order of members."""
    async with open_host() as host:
        directory = directory_of(host)
        saved = await host.call("host.auth.save", b'{"name":"acme-me.json","json":{"type":"acme", "token":"t"}}')
        path = str(directory / "acme-me.json")
        assert saved == {"name": "acme-me.json", "path": path}
        index = auth_index(f"acme:{path}")
        (entry,) = (await host.call("host.auth.list"))["files"]
        assert list(entry) == [
            *("id", "auth_index", "name", "type", "provider", "label", "status", "source", "path", "size"),
            *("modtime", "updated_at", "created_at", "last_refresh", "next_retry_after"),
        ]
        assert entry["id"] == entry["name"] == "acme-me.json"
        assert entry["auth_index"] == index
        assert (entry["provider"], entry["label"], entry["status"], entry["source"]) == (
            *("acme", "acme"),
            *("active", "file"),
        )
        assert entry["size"] == len('{"type":"acme", "token":"t"}')
        assert entry["last_refresh"] == entry["next_retry_after"] == ZERO
        assert entry["modtime"] > "2020"
        got = await host.call("host.auth.get", {"auth_index": index})
        assert got == {
            "auth_index": index,
            "name": "acme-me.json",
            "path": path,
            "json": {"type": "acme", "token": "t"},
        }
        assert (await host.call("host.auth.get_runtime", {"AUTH_INDEX": index}))["auth"] == entry


async def test_optional_members_of_entries() -> None:
    """As the file has them."""
    text = (
        b'{"type":"Acme","email":"me@x","disabled":true,"project_id":"p","note":"n","priority":5,"websockets":true,'
        b'"access_token":"secret"}'
    )
    async with open_host() as host:
        await host.call("host.auth.save", b'{"name":"a.json","json":%b}' % text)
        (entry,) = (await host.call("host.auth.list", b""))["files"]
        assert entry["type"] == "Acme"
        assert entry["provider"] == "acme"
        assert (entry["label"], entry["email"], entry["account"], entry["account_type"]) == ("me@x",) * 3 + ("oauth",)
        assert (entry["status"], entry["disabled"], entry["websockets"]) == ("disabled", True, True)
        assert (entry["project_id"], entry["note"], entry["priority"]) == ("p", "n", 5)
        assert "secret" not in str(entry)


async def test_an_empty_directory_is_an_empty_list() -> None:
    """Not null: page scripts iterate it."""
    async with open_host() as host:
        assert await host.services.handle(ALICE, b"host.auth.list", b"") == b'{"ok":true,"result":{"files":[]}}'


@pytest.mark.parametrize(
    ("method", "members", "text", "status"),
    [
        ("host.auth.get", b"{}", "auth_index is required", 400),
        ("host.auth.get_runtime", b"{}", "auth_index is required", 400),
        ("host.auth.get", b'{"auth_index":"00"}', "auth not found for auth_index 00", 404),
        ("host.auth.get_runtime", b'{"auth_index":"00"}', "auth runtime info not found for auth_index 00", 404),
        ("host.auth.save", b'{"name":"a/b.json","json":{}}', "invalid auth file name", 400),
        ("host.auth.save", b'{"name":"x.txt","json":{}}', "auth file name must end with .json", 400),
        ("host.auth.save", b'{"name":"a.json"}', "json is required", 400),
        ("host.auth.save", b'{"name":"a.json","json":[1]}', "invalid auth json: expected a JSON object", 400),
        ("host.auth.save", b'{"name":"a.json","json":{"weight":"x"}}', "invalid auth weight: expected an integer", 400),
        ("host.auth.get", b'{"auth_index":7}', "decode host auth get request: ", 400),
        ("host.auth.save", b'{"name":', "decode host auth save request: ", 400),
    ],
)
async def test_errors(method: str, members: bytes, text: str, status: int) -> None:
    """With the texts of Appendix B; nothing is written."""
    async with open_host() as host:
        with pytest.raises(Refused) as caught:
            await host.call(method, members)
        assert caught.value.error["message"].startswith(text)
        assert caught.value.error["http_status"] == status
        assert not list(directory_of(host).glob("*.json"))


async def test_saves_from_many_threads_at_once() -> None:
    """Each of them arrives."""
    async with open_host() as host:
        async with trio.open_nursery() as nursery:
            for number in range(30):
                payload = b'{"name":"a%d.json","json":{"type":"acme"}}' % number
                nursery.start_soon(host.call, "host.auth.save", payload)
        assert len((await host.call("host.auth.list"))["files"]) == 30
        assert not list(directory_of(host).glob(".*"))


async def test_the_directory_of_the_present_configuration_counts(tmp_path: Path) -> None:
    """A reload may move it."""
    directory = tmp_path / "one"
    service = AuthService(lambda: directory)
    ask = AuthSaveRequest(name="a.json", json=b'{"type":"acme"}')
    await service.save(CALLER, ask)
    assert service.files() is service.files()
    directory = tmp_path / "two"
    assert (await service.list(CALLER, Empty())).files == ()
    saved = await service.save(CALLER, ask)
    assert saved.path == str(directory / "a.json")
    assert [file.path for file in (await service.list(CALLER, Empty())).files] == [saved.path]
