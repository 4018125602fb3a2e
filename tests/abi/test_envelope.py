"""Envelopes: Appendix D's rows, return codes, errors, and the quick way through."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.abi import envelope, methods, wire, wire_host
from cpa.abi.codec import Message, codec, flag, number, optional, text
from cpa.abi.envelope import (
    EMPTY_RESULT,
    MAX_ERROR_TEXT,
    NO_REQUEST,
    HostCallError,
    PluginCallError,
    PluginReplyError,
    decode_host_request,
    decode_reply,
    encode_error,
    encode_host_error,
    encode_host_reply,
    encode_reply,
    encode_request,
    find_host_method,
    prepare_request,
)
from cpa.abi.gojson import parse
from cpa.abi.kinds import B64
from cpa.errors import CpaError
from tests.abi import go_reference
from tests.abi.strategies import TEXTS

NORMALIZE = methods.REQUEST_NORMALIZE
HTTP = methods.MANAGEMENT_HANDLE


# --- replies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b'{"ok":true}',
        b'{"ok":true,"result":null}',
        b'{"ok":true,"result":{}}',
        b' { "OK" : true , "Result" : { } } ',
        b'{"ok":true,"error":{"message":"ignored","http_status":500}}',
        b'{"ok":true,"error":null,"other":[1]}',
        b'{"ok":false,"ok":true}',
        b'{"ok":true,"result":{"Body":"YQ=="},"result":{}}',
        b'{"ok":true,"result":5,"result":null}',
    ],
)
def test_success_with_the_zero_result(text: bytes) -> None:
    """Absent, null and empty are one."""
    assert decode_reply(NORMALIZE, 0, text) == wire.BodyReply()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"ok":false}', "plugin call failed"),
        (b"{}", "plugin call failed"),
        (b"null", "plugin call failed"),
        (b'{"ok":null,"result":{}}', "plugin call failed"),
        (b'{"ok":false,"error":null}', "plugin call failed"),
        (b'{"ok":false,"error":{}}', "plugin call failed"),
        (b'{"ok":false,"error":{"code":"x","message":" \\n "}}', "plugin call failed"),
        (b'{"ok":false,"error":{"message":"  no quota\\n"}}', "no quota"),
        (b'{"error":{"Message":"no quota"},"result":5}', "no quota"),
        (b'{"ok":false,"error":{"message":"a"},"error":{"code":"b"}}', "a"),
    ],
)
@pytest.mark.parametrize("status", [0, 1, -1])
def test_failures_by_the_plugin(text: bytes, message: str, status: int) -> None:
    """The text is the error's, trimmed; a non-zero return code needs an error object to be told apart."""
    with pytest.raises(PluginCallError) as caught:
        decode_reply(NORMALIZE, status, text)
    has_error = b'"error":{' in text
    assert caught.value.message == (
        message if status == 0 or has_error else f"plugin call request.normalize returned {status}: {text.decode()}"
    )
    assert caught.value.method == "request.normalize"
    assert caught.value.reported_status == 0
    assert caught.value.http_status == 500


@pytest.mark.parametrize(
    ("reported", "status"),
    [(429, 429), (200, 200), (599, 599), (0, 500), (-5, 500), (199, 500), (600, 500), (99999, 500)],
)
def test_status_of_a_failure(reported: int, status: int) -> None:
    """Only what HTTP can carry reaches a client."""
    with pytest.raises(PluginCallError) as caught:
        decode_reply(NORMALIZE, 0, encode_error("no", http_status=reported))
    assert not isinstance(caught.value, PluginReplyError)
    assert (caught.value.reported_status, caught.value.http_status) == (reported, status)


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b" ",
            b"x",
            b"{",
            b"[]",
            b"1",
            b'{"ok":"true"}',
            b'{"ok":1}',
            b'{"ok":true} x',
            b'{"ok":true}{"ok":true}',
        ),
        *(b'{"ok":true}\x00', b'{"ok":true,"error":"x"}', b'{"ok":true,"error":{"message":5}}', b"\xef\xbb\xbf{}"),
        *(b'{"ok":true,"error":{"http_status":"429"}}', b'{"ok":1,"ok":true}', b'{"ok":true,"result":{}'),
    ],
)
def test_not_an_envelope(text: bytes) -> None:
    """Types of ignored members count, too."""
    with pytest.raises(PluginReplyError, match=r"^decode plugin envelope request\.normalize: "):
        decode_reply(NORMALIZE, 0, text)


def test_empty_reply_has_the_contracts_text() -> None:
    """1.13, word for word."""
    with pytest.raises(PluginReplyError) as caught:
        decode_reply(NORMALIZE, 0, b"")
    assert caught.value.message == "decode plugin envelope request.normalize: unexpected end of JSON input"


@pytest.mark.parametrize(
    "result",
    [
        *(b"[]", b"1", b'"x"', b"true", b'{"StatusCode":"200"}', b'{"StatusCode":200.0}', b'{"StatusCode":true}'),
        *(b'{"Headers":{"A":"b"}}', b'{"Body":"YQ"}', b'{"body":"Y-Q="}', b'{"Body":5}'),
    ],
)
def test_wrong_results(result: bytes) -> None:
    """The whole call fails."""
    with pytest.raises(PluginReplyError, match=r"^decode plugin result management\.handle: "):
        decode_reply(HTTP, 0, b'{"ok":true,"result":%b}' % result)


def test_names_of_results() -> None:
    """Appendix D: `statuscode` accepted, `status_code` ignored, lists of strings needed."""
    text = b'{"ok":true,"result":{"statuscode":201,"status_code":"x","headers":{"A":["b"]},"BODY":"YQ=="}}'
    assert decode_reply(HTTP, 0, text) == wire.HttpReply(status_code=201, headers={"A": ["b"]}, body=b"a")


def test_stream_errors_are_strings() -> None:
    """More than 2.4 has, where only null fits; what Go makes of an error (an object) fails the call."""
    good = b'{"ok":true,"result":{"chunks":[{"Payload":"YQ==","Err":null}]}}'
    reply = decode_reply(methods.EXECUTOR_EXECUTE_STREAM, 0, good)
    assert reply.chunks == (wire.StreamChunk(payload=b"a"),)
    reply = decode_reply(methods.EXECUTOR_EXECUTE_STREAM, 0, good.replace(b"null", b'"gone"'))
    assert reply.chunks == (wire.StreamChunk(payload=b"a", err="gone"),)
    assert codec(wire.StreamChunk).encode(wire.StreamChunk(payload=b"a")) == b'{"Payload":"YQ==","Err":null}'
    assert codec(wire.StreamChunk).encode(wire.StreamChunk(err="gone")) == b'{"Payload":null,"Err":"gone"}'
    for err in (b"1", b"{}"):
        with pytest.raises(PluginReplyError, match=r"result executor\.execute_stream: chunks: Err"):
            decode_reply(methods.EXECUTOR_EXECUTE_STREAM, 0, good.replace(b'Err":null', b'Err":' + err))


def test_both_spellings_of_resources() -> None:
    """Plugins send the list twice; the last counts."""
    text = b'{"ok":true,"result":{"resources":[{"Path":"/a"}],"Resources":[{"Path":"/b","Handler":null}]}}'
    reply = decode_reply(methods.MANAGEMENT_REGISTER, 0, text)
    assert reply.resources == (wire.ManagementResource(path="/b"),)


@pytest.mark.parametrize(
    "body", [b"", b"oops", b"\xff", b'{"ok":true,"result":{}}', b'{"ok":false}', b'{"ok":false,"error":"x"}']
)
def test_return_codes_with_anything_else(body: bytes) -> None:
    """The raw body is the message."""
    with pytest.raises(PluginReplyError) as caught:
        decode_reply(NORMALIZE, 3, body)
    assert caught.value.message == f"plugin call request.normalize returned 3: {body.decode('utf-8', 'replace')}"


def test_error_texts_are_bounded() -> None:
    """Plugins put whole bodies into them."""
    for status, reply in ((3, b"x" * 10**6), (0, encode_error("x" * 10**6))):
        with pytest.raises(PluginCallError) as caught:
            decode_reply(NORMALIZE, status, reply)
        assert len(caught.value.message) == MAX_ERROR_TEXT + 1


def test_errors_are_ours() -> None:
    """One tree; a reply that cannot be read is a call that failed."""
    assert issubclass(PluginReplyError, PluginCallError)
    assert issubclass(PluginCallError, CpaError)
    assert issubclass(HostCallError, CpaError)


# --- the quick way ---------------------------------------------------------------------------------------------------


class _Error(Message):
    code: str = text("code")
    message: str = text("message")
    retryable: bool = flag("retryable")
    http_status: int = number("http_status")


class _Head(Message):
    ok: bool = flag("ok")
    error: _Error | None = optional("error", _Error)


REPLY_TEXTS = st.one_of(
    TEXTS,
    TEXTS.map(lambda text: b'{"ok":true,"result":' + text + b"}"),
    st.builds(
        lambda start, body, end: start + body + end,
        st.sampled_from(
            [b'{"ok":true,"result":{"Body":"', b'{"ok":true,"result":{"body":"', b'{"ok": true,"result":{"Body":"']
        ),
        st.sampled_from(
            [
                b"",
                b"YQ==",
                b"YR==",
                b"YQ",
                b"Y-Q=",
                b"YQ\\n==",
                b"YQ\n==",
                b'YQ==","Body":"',
                b'YQ==","X":"',
                b"Y\\u0051==",
            ]
        ),
        st.sampled_from(
            [b'"}}', b'"}} ', b'"}', b'"}}}', b'","Headers":null}}', b'","StatusCode":200}}', b'","ok":1}}']
        ),
    ),
    st.sampled_from([b'{"ok":true,"result":{}}', b'{"ok":true}', b'{"ok":true,"result":null}', b'{"ok":false}', b""]),
)


@settings(max_examples=300)
@given(st.sampled_from([methods.REQUEST_NORMALIZE, methods.MANAGEMENT_HANDLE, methods.USAGE_HANDLE]), REPLY_TEXTS)
def test_quick_and_proper_decoding_agree(method: methods.Method[object, object], text: bytes) -> None:
    """Same result or the same class of error as the codec without short cuts, for any bytes."""
    try:
        got: object = decode_reply(method, 0, text)
    except PluginCallError as exc:
        got = type(exc)
    assert got == _without_shortcuts(method, text)


def _without_shortcuts(method: methods.Method[object, object], text: bytes) -> object:
    try:
        pairs = go_reference.Parser(text).document()
        if pairs is None:
            return PluginCallError
        ok, result = False, None
        go_reference.decode_struct(_Head, pairs, None)  # types of the members other than the result
        for name, item in pairs:
            if go_reference.fold(name) == "ok" and item is not None:
                ok = item
            elif go_reference.fold(name) == "result":
                result = item
        return go_reference.decode_as(method.reply, result, None) if ok else PluginCallError
    except go_reference.Refused:
        return PluginReplyError


@given(st.integers(-2, 2), st.binary(max_size=80))
def test_any_bytes_give_a_result_or_an_error(status: int, text: bytes) -> None:
    """No other exception leaves."""
    both: tuple[methods.Method[Any, Any], ...] = (NORMALIZE, methods.PLUGIN_REGISTER)
    for method in both:
        with suppress(PluginCallError):
            decode_reply(method, status, text)


def test_frequent_replies_take_the_short_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither "nothing" nor a lone body is parsed."""
    monkeypatch.setattr(envelope, "_read_envelope", None)
    body = b"x" * 100_000
    assert decode_reply(NORMALIZE, 0, encode_reply(NORMALIZE, wire.BodyReply(body=body))).body == body
    assert decode_reply(methods.RESPONSE_INTERCEPT_STREAM_CHUNK, 0, EMPTY_RESULT) == wire.InterceptChunkReply()
    assert decode_reply(methods.USAGE_HANDLE, 0, b'{"ok":true}') == wire.Empty()
    payload = b'{"ok":true,"result":{"Payload":"YQ=="}}'
    assert decode_reply(methods.EXECUTOR_EXECUTE, 0, payload) == wire.ExecuteReply(payload=b"a")


def test_results_are_not_shared() -> None:
    """A caller may fill the map of its own result."""
    first = decode_reply(HTTP, 0, EMPTY_RESULT)
    first.headers["A"] = ["b"]
    assert decode_reply(HTTP, 0, EMPTY_RESULT).headers == {}


# --- requests --------------------------------------------------------------------------------------------------------


def test_ids_come_last() -> None:
    """`stream_id`, then `host_callback_id`; neither without a call that has it."""
    request = wire.ExecuteRequest(model="m")
    text = encode_request(methods.EXECUTOR_EXECUTE_STREAM, request, scope_id='a"b', stream_id="3")
    assert text.endswith(b',"AuthAttributes":null,"stream_id":"3","host_callback_id":"a\\"b"}')
    assert encode_request(methods.EXECUTOR_EXECUTE, request).endswith(b',"AuthAttributes":null}')
    with pytest.raises(ValueError, match=r"request\.normalize carries no such id"):
        encode_request(NORMALIZE, wire.RequestTransformRequest(), scope_id="1")
    with pytest.raises(ValueError, match=r"executor\.execute carries no such id"):
        encode_request(methods.EXECUTOR_EXECUTE, request, stream_id="1")


def test_methods_without_request_say_so() -> None:
    """`{}`, never nothing."""
    assert encode_request(methods.EXECUTOR_IDENTIFIER, wire.Empty()) == NO_REQUEST


def test_first_occurrence_of_a_name_is_the_member() -> None:
    """2.6: maps that hold the same key come later; free-form metadata is after the body."""
    request = wire.InterceptRequest(model="right", headers={"X": ["1"]}, metadata={"Model": "wrong", "Body": "wrong"})
    text = encode_request(methods.REQUEST_INTERCEPT_BEFORE, request)
    assert text.index(b'"Model":"right"') < text.index(b'"Model":"wrong"')
    assert text.index(b'"Body":null') < text.index(b'"Body":"wrong"')


def test_zero_time_and_raw_text() -> None:
    """Appendix D: zero time, empty body null, non-ASCII raw."""
    request = wire.CompletionRequest(error="größer", completed_at=datetime(2026, 8, 22, 10, 0, 2, tzinfo=UTC))
    text = encode_request(methods.REQUEST_COMPLETE, request)
    assert '"Error":"größer","StartedAt":"0001-01-01T00:00:00Z","CompletedAt":"2026-08-22T10:00:02Z"'.encode() in text
    assert b'"Body":null' in encode_request(NORMALIZE, wire.RequestTransformRequest())


def test_a_body_is_encoded_once_for_all_calls() -> None:
    """Its text is the same object in every request."""
    body = B64(b"x" * 1000)
    text = body.text
    for model in ("a", "b"):
        assert text in encode_request(NORMALIZE, wire.RequestTransformRequest(model=model, body=body))
    assert body.text is text


def test_prepared_requests() -> None:
    """Same bytes as an ordinary request, scope included."""
    chunk = wire.InterceptChunkRequest(request_id="r", model="m", body=B64(b"a"), history=(B64(b"b"),), chunk_index=3)
    method = methods.RESPONSE_INTERCEPT_STREAM_CHUNK
    prepared = prepare_request(method, chunk, ["body", "history", "chunk_index"])
    text = prepared.encode(scope_id="s", body=chunk.body, history=chunk.history, chunk_index=3)
    assert text == encode_request(method, chunk, scope_id="s")


# --- host calls ------------------------------------------------------------------------------------------------------


def test_unknown_host_calls() -> None:
    """5.1."""
    with pytest.raises(HostCallError, match=r"^unsupported host callback host\.nothing$"):
        find_host_method("host.nothing")
    with pytest.raises(HostCallError, match=r"^unsupported host callback plugin\.register$"):
        find_host_method("plugin.register")
    assert find_host_method("host.log") is methods.HOST_LOG


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (methods.HOST_HTTP_DO, "decode host http request: "),
        (methods.HOST_HTTP_DO_STREAM, "decode host http request: "),
        (methods.HOST_HTTP_STREAM_READ, "decode host http stream read request: "),
        (methods.HOST_HTTP_STREAM_CLOSE, "decode host http stream close request: "),
        (methods.HOST_MODEL_EXECUTE, "decode host model execution request: "),
        (methods.HOST_MODEL_EXECUTE_STREAM, "decode host model execution stream request: "),
        (methods.HOST_STREAM_EMIT, "decode stream emit request: "),
        (methods.HOST_STREAM_CLOSE, "decode stream close request: "),
        (methods.HOST_LOG, "decode host log request: "),
        (methods.HOST_AUTH_SAVE, "decode host auth save request: "),
    ],
)
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1"])
def test_undecodable_host_requests(method: methods.Method[object, object], complaint: str, data: bytes) -> None:
    """The prefixes of Appendix B; a null request is no request."""
    with pytest.raises(HostCallError) as caught:
        decode_host_request(method, data)
    assert caught.value.message.startswith(complaint)


def test_listing_needs_no_request() -> None:
    """5.6: `{}` or empty."""
    for data in (b"", b"{}", b"null", b'{"extra":1}'):
        assert decode_host_request(methods.HOST_AUTH_LIST, data) == wire.Empty()


def test_host_requests_follow_gos_rules() -> None:
    """Case ignored, unknown members ignored, wrong types refused."""
    request = decode_host_request(methods.HOST_HTTP_DO, b'{"URL":"a","Host_Callback_ID":"1","x":1}')
    assert request == wire_host.HostHttpRequest(url="a", scope_id="1")
    with pytest.raises(HostCallError, match="headers"):
        decode_host_request(methods.HOST_HTTP_DO, b'{"headers":{"A":"b"}}')


def test_host_errors() -> None:
    """Code and text as upstream; more only when there is more."""
    assert encode_host_error('no "x"') == b'{"ok":false,"error":{"code":"host_call_failed","message":"no \\"x\\""}}'
    assert encode_host_error("é\ud800", http_status=429, retryable=True) == (
        '{"ok":false,"error":{"code":"host_call_failed","message":"é\ufffd","retryable":true,"http_status":429}}'.encode()
    )


def test_host_results() -> None:
    """An empty object where nothing is to be said."""
    assert encode_host_reply(methods.HOST_LOG, wire.Empty()) == EMPTY_RESULT


def test_plugin_side_errors_are_read_back() -> None:
    """What fakes write is what the host understands."""
    assert parse(encode_error("m", code="c", http_status=400))["error"] == {
        "code": "c",
        "message": "m",
        "http_status": 400,
    }
    with pytest.raises(PluginCallError, match=r"^m$"):
        decode_reply(NORMALIZE, 1, encode_error("m"))


def test_identifier_examples() -> None:
    """2.1, both shapes."""
    reply = decode_reply(methods.EXECUTOR_IDENTIFIER, 0, b'{"ok":true,"result":{"identifier":"acme"}}')
    assert reply == wire.IdentifierReply(identifier="acme")
    with pytest.raises(PluginCallError) as caught:
        decode_reply(
            methods.EXECUTOR_IDENTIFIER,
            0,
            b'{"ok":false,"error":{"code":"quota","message":"daily quota used up","http_status":429}}',
        )
    assert (caught.value.message, caught.value.http_status) == ("daily quota used up", 429)


def test_ids_of_a_call() -> None:
    """For those who play the plugin."""
    ids = codec(wire.CallIds).read(b'{"Model":"m","stream_id":"3","host_callback_id":"x"}')
    assert ids == wire.CallIds(stream_id="3", scope_id="x")
