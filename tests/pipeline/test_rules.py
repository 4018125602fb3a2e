"""The runner's decisions that need no waiting."""

import pytest

from cpa.credentials.model import Credential
from cpa.errors import UpstreamProtocolError, UpstreamStatusError
from cpa.formats.names import Format
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.rules import base_metadata, check_answer
from cpa.types import Operation

CREDENTIAL = Credential(id="a", provider="p", label="a", api_key="provider-key-of-the-tests")


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"1","choices":[]}',
        b' \n{"id":"1"}',
        b'[{"error":{}}]',
        b'{"id":"1","error":{"message":"said in the answer"}}',
        b'{"object":"response","error":null}',
        b'{"error":null,"output":[]}',
        b'{"text":"an \\"error\\":{ in a text"}',
        b"{" + b" " * 300 + b'"error":{}}',
    ],
)
def test_answers_are_answers(body: bytes) -> None:
    """Whatever is not surely an error passes as it came."""
    check_answer(Format.OPENAI, body, CREDENTIAL)


@pytest.mark.parametrize(
    "body", [b'{"error":{"message":"no","code":429}}', b'\n{ "error" : {"message":"no"}}', b'{"error":"no"}']
)
def test_errors_with_status_200_are_errors(body: bytes) -> None:
    """Some gateways do so; another credential may do better."""
    with pytest.raises(UpstreamStatusError):
        check_answer(Format.OPENAI, body, CREDENTIAL)


@pytest.mark.parametrize("body", [b"", b" \r\n", b"<html>", b'"text"', b"data: {}"])
def test_anything_else_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        check_answer(Format.OPENAI, body, CREDENTIAL)


def test_metadata_is_what_plugins_are_promised() -> None:
    """And what a nested execution adds of its own."""
    request = ModelRequest(
        format=Format.OPENAI,
        operation=Operation.GENERATE,
        model="m",
        stream=False,
        body=b"{}",
        headers=((b"idempotency-key", b"i1"), (b"accept", b"*/*")),
        path="/v1/x",
    )
    told = {"requested_model": "m", "request_path": "/v1/x", "idempotency_key": "i1"}
    assert base_metadata(request) == told
    nested = ModelRequest(**{**request.__dict__, "extra_metadata": {"request_path": "/nested", "more": 1}})
    assert base_metadata(nested) == {**told, "request_path": "/nested", "more": 1}
