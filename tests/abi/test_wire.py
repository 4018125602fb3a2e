"""The messages: every example of the contract, and what values promise beyond bytes."""

import pytest

from cpa.abi import wire
from cpa.abi.codec import codec
from cpa.abi.envelope import decode_reply, decode_request, encode_reply, encode_request
from cpa.abi.kinds import B64
from cpa.abi.methods import PLUGIN_METHODS
from tests.abi.examples import REPLIES, REQUESTS, Example


def _name(example: Example) -> str:
    return f"{example.section}-{example.method.name}"


@pytest.mark.parametrize("example", REQUESTS, ids=_name)
def test_requests_are_written_exactly(example: Example) -> None:
    """Byte for byte: plugins in C depend on order and spelling."""
    ids = example.ids
    assert encode_request(example.method, example.value, scope_id=ids.scope_id, stream_id=ids.stream_id) == example.text


@pytest.mark.parametrize("example", REQUESTS, ids=_name)
def test_requests_are_read_back(example: Example) -> None:
    """By those who play the plugin."""
    assert decode_request(example.method, example.text) == example.value
    assert codec(wire.CallIds).read(example.text) == example.ids


@pytest.mark.parametrize("example", REPLIES, ids=_name)
def test_replies_are_understood(example: Example) -> None:
    """As plugins write them, and as we write them for fakes."""
    assert decode_reply(example.method, 0, example.text) == example.value
    assert decode_reply(example.method, 0, encode_reply(example.method, example.value)) == example.value


def test_every_sent_method_has_an_example() -> None:
    """Identifier methods share one; reconfigure is register."""
    shown = {example.method.request for example in REQUESTS}
    assert {row.request for row in PLUGIN_METHODS if row.sent} == shown


def test_switches_are_the_twenty_capabilities() -> None:
    """Modifiers do not count."""
    assert len(wire.SWITCHES) == 20
    assert wire.Capabilities(executor=True, scheduler=True, executor_model_scope="both").declared() == {
        "executor",
        "scheduler",
    }
    assert not wire.Capabilities(frontend_auth_provider_exclusive=True).declared()


def test_secrets_stay_out_of_reprs() -> None:
    """Values end up in logs and tracebacks."""
    request = wire.ExecuteRequest(
        headers={"Authorization": ["Bearer sk-1"]},
        storage_json=B64(b"sk-2"),
        auth_metadata={"token": "sk-3"},
        auth_attributes={"api_key": "sk-4"},
        payload=B64(b"sk-5"),
    )
    auth = wire.AuthData(
        storage_json=b"sk-6", metadata={"a": "sk-7"}, attributes={"a": "sk-8"}, proxy_url="http://u:sk-9@p"
    )
    usage = wire.UsageRequest(api_key="sk-10", failure=wire.UsageFailure(body="sk-11"))
    assert "sk-" not in repr((request, auth, usage, wire.BodyReply(body=b"sk-12")))
    assert "sk-" not in repr([message.__rich_repr__() for message in (request, auth, usage)])
    assert repr(wire.ModelAlias(name="a")) == "ModelAlias(name='a', alias='')"


def test_values_are_frozen() -> None:
    """They are shared between plugins."""
    with pytest.raises(AttributeError):
        wire.BodyReply().body = b"x"
