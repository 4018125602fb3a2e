"""What a client hears of failures, and what the operator's counters say of them."""

import json

import pytest
import trio

from tests.e2e.wire import CHAT, RESPONSES, WIRES, Wire
from tests.proxy import running_proxy
from tests.server.wire import FAIL_S
from tests.upstream.scripted import Peer, open_server


async def test_models_may_have_colons_in_their_names() -> None:
    """Only POST means an action behind a colon."""
    config = """
api-keys: [{client_key}]
proxy-url: direct
auth-dir: {auth_dir}
openai-compatibility:
  - name: m
    base-url: {provider}/v1
    api-key-entries: [{{api-key: {provider_key}}}]
    models: [{{name: "mock:free"}}]
"""
    async with running_proxy(config=config) as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            assert (await client.get("/v1/models/mock:free")).json()["id"] == "mock:free"
            assert (await client.get("/v1beta/models/mock:free")).json()["name"] == "models/mock:free"


EVENTS = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"r"}}\n\n'
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","sequence_number":1,"delta":"x"}\n\n'
)
FAILURE = b'event: error\ndata: {"type":"error","code":"server_error","message":"late","sequence_number":2}\n\n'


async def late_failure(peer: Peer) -> None:
    """A provider whose stream ends in an `error` event."""
    while await peer.request() is not None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
        await peer.send(head % len(EVENTS + FAILURE) + EVENTS + FAILURE)


async def test_codex_clients_hear_of_a_late_failure_by_the_only_event_they_act_on() -> None:
    """The provider's own `error` event means nothing to them; others get it as it came."""
    async with (
        open_server(late_failure) as server,
        running_proxy(provider_url=server.url("")) as proxy,
        proxy.client() as client,
    ):
        with trio.fail_after(FAIL_S):
            plain = await RESPONSES.post(client, stream=True, headers={})
            codex = await RESPONSES.post(client, stream=True, headers={"originator": "codex_cli_rs"})
    assert plain.content == EVENTS + FAILURE
    assert codex.content.startswith(EVENTS + b"event: response.failed\n")
    told = json.loads(codex.content.rpartition(b"data: ")[2])
    assert (told["sequence_number"], told["response"]["status"]) == (2, "failed")
    assert told["response"]["error"]["message"] == "late"


@pytest.mark.parametrize("passthrough", [True, False])
async def test_request_ids_of_failures_always_pass_and_other_headers_when_asked(passthrough: bool) -> None:
    """A vendor's support asks for the id; everything else is the operator's choice."""
    extra = f"passthrough-headers: {str(passthrough).lower()}"
    async with running_proxy(extra=extra) as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            answer = await CHAT.post(client, headers={"X-Mock-Status": "500"})
    assert answer.status_code == 500
    assert len(answer.headers.get_list("date")) == 1
    assert ("server" in answer.headers) == passthrough


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_clients_do_not_hear_where_providers_live(wire: Wire) -> None:
    """Hosts and ports of unreachable providers are the operator's business."""
    async with running_proxy(provider_url="http://127.0.0.1:1") as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            answer = await wire.post(client, headers={})
    assert answer.status_code in (502, 503)
    assert wire.error_of(answer.content)["message"] == "the provider cannot be reached"


async def test_a_stream_that_broke_is_no_success_in_the_counters() -> None:
    """Its head said 200, but metrics, access line and error log go by what became of it."""
    async with running_proxy(extra="metrics: {enabled: true}") as proxy, proxy.client() as client:
        with trio.fail_after(FAIL_S):
            fault = {"X-Mock-Fault": "cut", "X-Mock-At": "3", "X-Mock-Chunks": "6"}
            answer = await CHAT.post(client, stream=True, headers=fault)
            assert answer.status_code == 200
            metrics = (await client.get("/metrics")).text
    [line] = [line for line in metrics.splitlines() if line.startswith("cpa_requests_total{")]
    assert 'status="502"' in line
