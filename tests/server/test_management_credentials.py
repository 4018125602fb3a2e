"""All credentials in one list, keys of the configuration switched off and on, usage by key, models by channel."""

import json
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from cpa.credentials.from_config import ConfigPlace, placed_credentials
from cpa.scheduling.failures import Kind
from cpa.scheduling.health import WHOLE, Health
from cpa.server.management.auth_targets import find_target
from cpa.server.management.calls import ManagementCall
from cpa.server.management.credentials_list import window_of
from cpa.server.routes import ClientHead
from tests.e2e.test_credentials import FAIL_S, MANAGEMENT_KEY, running
from tests.proxy import CLIENT_KEY, CONFIG, PROVIDER_KEY, RunningProxy, running_proxy
from tests.server.sites import KEY, operator

MANAGED = f"remote-management: {{secret-key: {KEY}}}\n"
COOLING = CONFIG.replace("disable-cooling: true", "disable-cooling: false")
ENDPOINTS = ("/credentials", "/api-key-usage", "/model-definitions/claude")


async def credentials(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """What ``GET /credentials`` says."""
    reply = await client.get("/v0/management/credentials")
    assert reply.status_code == 200
    assert PROVIDER_KEY not in reply.text
    found = reply.json()["credentials"]
    assert isinstance(found, list)
    return found


async def test_keys_of_the_configuration_are_listed_with_their_places() -> None:
    """And what became of requests with them, model by model."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(config=COOLING, extra=MANAGED) as proxy, operator(proxy) as client:
            found = {entry["config-path"]: entry for entry in await credentials(client)}
            assert list(found) == [
                "gemini-api-key[0]",
                "claude-api-key[0]",
                "codex-api-key[0]",
                "openai-compatibility[0].api-key-entries[0]",
            ]
            entry = found["claude-api-key[0]"]
            assert (entry["provider"], entry["source"], entry["label"]) == ("claude", "config", "claude-apikey")
            assert entry["name"] == entry["id"]
            assert (entry["disabled"], entry["status"], entry["status-message"]) == (False, "active", "")
            assert (entry["priority"], entry["weight"], entry["success"], entry["failed"]) == (0, 1, 0, 0)
            assert len(entry["recent-requests"]) == 20
            ready = {"state": "ready", "until": None, "reason": None, "kind": None}
            assert entry["models"] == [{"id": name, **ready} for name in ("claude", "mock-claude-unrenamed")]
            async with proxy.client(headers={"x-mock-status": "429", "x-mock-retry-after": "600"}) as anybody:
                body = {"model": "claude", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
                assert (await anybody.post("/v1/messages", json=body)).status_code == 429
            entry = {entry["config-path"]: entry for entry in await credentials(client)}["claude-api-key[0]"]
            assert (entry["failed"], entry["status"]) == (1, "error")
            cooling, other = entry["models"]
            assert (cooling["state"], cooling["kind"]) == ("cooling", "quota")
            assert 500 < cooling["until"] - proxy.app.state.runtime.scheduler.scheduling.health.now() <= 600  # type: ignore[union-attr]
            assert cooling["reason"]
            assert other == {"id": "mock-claude-unrenamed", **ready}


async def test_files_are_listed_too_also_those_that_are_of_no_use() -> None:
    """With what is disabled, what is excluded, and why nobody uses a file."""
    async with running(extra="oauth-excluded-models: {openai-compatibility: ['*-old']}") as run:
        models = [{"name": "mock-gpt", "alias": name} for name in ("gpt", "gpt-old", "gpt-preview")]
        run.key("a.json", models=models, excluded_models=["*-preview"], priority=3, weight=2, label="A")
        run.key("b.json", models=models, disabled=True)
        run.write("c.json", type="acme", token="t", priority=7)
        await run.until(lambda: len(run.credentials) == 2)
        async with run.proxy.client(key=MANAGEMENT_KEY) as client:
            first, second, third = await credentials(client)
        assert (first["name"], first["source"], first["config-path"]) == ("a.json", "file", None)
        assert (first["label"], first["priority"], first["weight"]) == ("A", 3, 2)
        states = {model["id"]: model["state"] for model in first["models"]}
        assert states == {"gpt": "ready", "gpt-old": "excluded", "gpt-preview": "excluded"}
        assert (second["disabled"], second["status"]) == (True, "disabled")
        assert {model["state"] for model in second["models"]} == {"disabled"}
        assert (third["name"], third["status"], third["models"], third["priority"]) == ("c.json", "unknown", [], 7)
        assert third["status-message"].startswith("not used")
        assert set(first) == set(second) == set(third)


async def switch(client: httpx.AsyncClient, name: str, disabled: bool, **more: Any) -> tuple[int, Any]:
    """Status and body of a switch."""
    body = {"name": name, "disabled": disabled, **more}
    reply = await client.patch("/v0/management/auth-files/status", json=body)
    return reply.status_code, reply.json()


async def test_a_key_of_the_configuration_is_switched_off_and_on() -> None:
    """By a star among its exclusions, in the file, which otherwise stays as it was; in force when answered."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=f"# the end\n{MANAGED}", in_file=True) as proxy, operator(proxy) as client:
            before = proxy.config_file.read_text()
            for path, model in (
                ("claude-api-key[0]", "claude"),
                ("openai-compatibility[0].api-key-entries[0]", "gpt"),
            ):
                entry = {entry["config-path"]: entry for entry in await credentials(client)}[path]
                expected = {"status": "ok", "via": "config:excluded-models", "excluded_pattern": "*"}
                for disabled in (True, True, False, False):
                    answer = await switch(client, entry["id"], disabled, auth_index=entry["auth-index"])
                    assert answer == (200, {**expected, "disabled": disabled})
                    assert (model not in await models(proxy)) is disabled
                    shown = {found["id"]: found for found in await credentials(client)}[entry["id"]]
                    assert shown["disabled"] is disabled
                    assert {found["state"] for found in shown["models"]} == {"excluded" if disabled else "ready"}
                assert proxy.config_file.read_text() == before
            refused = await switch(client, entry["id"], True, auth_index="0" * 16)
            assert refused == (404, {"error": "auth file not found"})
            for path in ("/auth-files/fields", "/auth-files/download", "/auth-files"):
                method = {"/auth-files/fields": "PATCH", "/auth-files": "DELETE"}.get(path, "GET")
                reply = await client.request(
                    method,
                    f"/v0/management{path}",
                    params={"name": entry["id"]},
                    json={"name": entry["id"], "note": "x"},
                )
                assert (reply.status_code, reply.json()) == (404, {"error": "auth file not found"}), path


async def models(proxy: RunningProxy) -> set[str]:
    """Names that clients see."""
    async with proxy.client(key=CLIENT_KEY) as anybody:
        return {model["id"] for model in (await anybody.get("/v1/models")).json()["data"]}


async def test_exclusions_of_the_operator_stay() -> None:
    """The star comes to them and goes again; without a file nothing can be switched."""
    listed = """
claude-api-key:
  # the first
  - api-key: one
    excluded-models: ["*haiku*"]   # cheap ones
  - api-key: two
"""
    config = CONFIG[: CONFIG.index("openai-compatibility:")] + "{extra}"
    with trio.fail_after(FAIL_S):
        async with (
            running_proxy(config=config, extra=MANAGED + listed, in_file=True) as proxy,
            operator(proxy) as client,
        ):
            one, two = await credentials(client)
            assert (await switch(client, one["id"], True))[0] == 200
            text = proxy.config_file.read_text()
            assert "# the first" in text
            assert "# cheap ones" in text
            present = proxy.app.state.runtime.config.claude_api_key
            assert [entry.excluded_models for entry in present] == [("*haiku*", "*"), ()]
            assert (await switch(client, two["id"], True))[0] == 200
            assert (await switch(client, one["id"], False))[0] == 200
            present = proxy.app.state.runtime.config.claude_api_key
            assert [entry.excluded_models for entry in present] == [("*haiku*",), ("*",)]
            # Somebody takes the first entry away, and nobody has read the file again yet.
            edited = proxy.config_file.read_text().replace("  - api-key: one\n", "  - api-key: other\n")
            proxy.config_file.write_text(edited)
            status, body = await switch(client, one["id"], True)
            assert status == 409
            assert "try again" in body["error"]
            assert "*haiku*" in proxy.config_file.read_text()
        async with running_proxy(extra=MANAGED) as proxy, operator(proxy) as client:
            [entry, *_] = await credentials(client)
            status, body = await switch(client, entry["id"], True)
            assert (status, body["error"].startswith("the configuration cannot be edited")) == (503, True)


async def test_one_of_several_credentials_of_a_file_cannot_be_edited_alone(tmp_path: Path) -> None:
    """409; the file's own name means all of them."""
    async with running() as run:
        path = run.key("k.json")
        await run.until(lambda: bool(run.credentials))
        [whole] = run.credentials
        children = tuple(
            attrs.evolve(whole, id=f"k#{number}", index=f"{number:016x}", virtual=True) for number in (1, 2)
        )
        accounts = run.proxy.app.plugins.accounts
        accounts.snapshot = attrs.evolve(accounts.snapshot, credentials=children)
        state = run.proxy.app.state
        state.runtime = run.proxy.app._builder.build(state.runtime.config)
        async with run.proxy.client(key=MANAGEMENT_KEY) as client:
            for name, index in (("k#1", ""), ("k.json", children[1].index)):
                body = {"name": name, "auth_index": index, "disabled": True}
                for method, endpoint, sent in (
                    ("PATCH", "/status", body),
                    ("PATCH", "/fields", {"name": name, "auth_index": index, "note": "x"}),
                ):
                    reply = await client.request(method, f"/v0/management/auth-files{endpoint}", json=sent)
                    assert reply.status_code == 409, reply.text
            reply = await client.delete("/v0/management/auth-files", params={"name": "k#2"})
            assert reply.status_code == 409
            assert "one of several" in reply.json()["error"]
            shown = await credentials(client)
            assert [(entry["id"], entry["name"], entry["virtual"]) for entry in shown] == [
                ("k#1", "k.json", True),
                ("k#2", "k.json", True),
            ]
            call = ManagementCall(
                head=ClientHead(method="GET", path="/"), runtime=state.runtime, plugins=run.proxy.app.plugins
            )
            assert find_target(call, "k.json").file == "k.json"
            assert (await switch(client, "k.json", True))[0] == 200
        assert json.loads(path.read_text())["disabled"] is True


async def test_usage_by_key() -> None:
    """By provider and by address and key; equal keys add up. It shows keys, as its contract wants."""
    again = f"""
openai-compatibility:
  - name: Farm
    base-url: {{provider}}/v1
    api-key-entries: [{{{{api-key: {PROVIDER_KEY}}}}}, {{{{api-key: ""}}}}]
    models: [{{{{name: mock-gpt, alias: farm}}}}]
claude-api-key:
  - {{{{api-key: {PROVIDER_KEY}, models: [{{{{name: x}}}}]}}}}
"""
    config = CONFIG[: CONFIG.index("openai-compatibility:")] + again + "{extra}"
    with trio.fail_after(FAIL_S):
        async with running_proxy(config=config, extra=MANAGED) as proxy, operator(proxy) as client:
            async with proxy.client() as anybody:
                body = {"model": "farm", "messages": [{"role": "user", "content": "x"}]}
                answers = [await anybody.post("/v1/chat/completions", json=body) for _ in range(4)]
            served = sum(answer.status_code == 200 for answer in answers)
            usage = (await client.get("/v0/management/api-key-usage")).json()
            assert set(usage) == {"Farm", "claude"}
            assert list(usage["claude"]) == [f"|{PROVIDER_KEY}"]
            [(name, counts)] = usage["Farm"].items()
            assert name == f"{proxy.mock.url}/v1|{PROVIDER_KEY}"
            assert (counts["success"], counts["failed"], len(counts["recent_requests"])) == (served, 0, 20)
            assert set(counts["recent_requests"][-1]) == {"time", "success", "failed"}
            hidden = await client.get("/v0/management/api-key-usage", params={"redact": "1"})
            assert PROVIDER_KEY not in hidden.text
            assert [len(name.rpartition("|")[2]) for name in hidden.json()["Farm"]] == [16]


@pytest.mark.parametrize(("channel", "owner"), [("claude", "anthropic"), ("VERTEX", "google"), ("xai", "openai")])
async def test_models_of_a_channel(channel: str, owner: str) -> None:
    """What is known without asking anybody."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy, operator(proxy) as client:
            reply = await client.get(f"/v0/management/model-definitions/{channel}")
            assert reply.status_code == 200
            body = reply.json()
            assert body["channel"] == channel.lower()
            assert {model["owned_by"] for model in body["models"]} == {owner}
            assert all(model["object"] == "model" and model["display_name"] for model in body["models"])
            refused = await client.get("/v0/management/model-definitions/nobody")
            assert (refused.status_code, refused.json()) == (400, {"error": "unknown channel"})


async def test_nobody_without_the_key_and_nobody_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each endpoint for itself."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy, operator(proxy) as client:
            for path in ENDPOINTS:
                wrong = await client.get(f"/v0/management{path}", headers={"authorization": "Bearer wrong"})
                assert (wrong.status_code, wrong.json()) == (401, {"error": "invalid management key"}), path
            monkeypatch.setattr("cpa.server.management.keys.is_loopback", lambda address: False)
            for path in ENDPOINTS:
                refused = await client.get(f"/v0/management{path}")
                assert (refused.status_code, refused.json()) == (403, {"error": "remote management disabled"}), path


async def test_places_in_the_configuration() -> None:
    """Indexes are those of the file, also behind entries that are no credentials."""
    with trio.fail_after(FAIL_S):
        extra = f"""
openai-compatibility:
  - {{name: off, base-url: "http://h.test", disabled: true, api-key-entries: [{{api-key: x}}]}}
  - {{name: keyless, base-url: "http://h.test"}}
gemini-api-key:
  - {{api-key: same}}
  - {{api-key: same}}
  - {{api-key: other}}
{MANAGED}"""
        config = CONFIG[: CONFIG.index("openai-compatibility:")] + "{extra}"
        async with running_proxy(config=config, extra=extra) as proxy:
            found = [place for _, place in placed_credentials(proxy.app.state.runtime.config)]
            assert found == [
                ConfigPlace(section="gemini-api-key", index=0),
                ConfigPlace(section="gemini-api-key", index=2),
                ConfigPlace(section="openai-compatibility", index=1),
            ]


def health(until: float) -> Health:
    """A window that ends then."""
    return Health(until_unix=until, kind=Kind.QUOTA)


@pytest.mark.parametrize(
    ("windows", "keys", "until"),
    [
        ({}, ["a"], None),
        ({"b": 5.0}, ["a"], None),
        ({"a": 5.0}, ["a"], 5.0),
        ({"a": 5.0, WHOLE: 9.0}, ["a"], 9.0),
        ({"a": 5.0, WHOLE: 3.0}, ["a"], 5.0),
        ({WHOLE: 3.0}, ["a", "b"], 3.0),
        ({"a": 5.0, "b": 7.0}, ["a", "b"], 5.0),
        ({"a": 5.0}, ["a", "b"], None),
        ({"a": 5.0, WHOLE: 4.0}, ["a", "b"], 4.0),
    ],
)
def test_what_keeps_a_credential_from_a_model(windows: dict[str, float], keys: list[str], until: float | None) -> None:
    """The longer of its own window and the credential's; of a pool the model that comes back first."""
    found = window_of({name: health(end) for name, end in windows.items()}, keys)
    assert (None if found is None else found.until_unix) == until
