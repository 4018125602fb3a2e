"""Where requests go and what stands in their heads, per kind of provider. Pure: no sockets."""

from collections.abc import Mapping
from urllib.parse import unquote

import attrs
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cpa.config.load import parse_config
from cpa.credentials.from_config import credentials_from_config
from cpa.credentials.model import Credential
from cpa.errors import MalformedRequest, UnknownRoute
from cpa.formats.json import decode, splice_model
from cpa.formats.names import Format
from cpa.testing.fakes import execution
from cpa.types import Operation, UpstreamCall, Wire
from cpa.upstream.dialects import DIALECTS, Dialect, HeaderDict, OpenAIDialect, configured_headers

OPENAI = OpenAIDialect()
CLAUDE = DIALECTS["claude"]
GEMINI = DIALECTS["gemini"]
ANTHROPIC = "https://api.anthropic.com"
KEY = "sk-key-0123"


def call(
    base_url: str = "",
    *,
    key: str = KEY,
    model: str = "m",
    stream: bool = False,
    operation: Operation = Operation.GENERATE,
    body: tuple[bytes, ...] = (b"{}",),
    client: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> UpstreamCall:
    """A call with a credential for *base_url*; *client* are the client's headers, *headers* the operator's."""
    return UpstreamCall(
        credential=Credential(id="c", provider="p", label="l", api_key=key, base_url=base_url, headers=headers or {}),
        execution=execution(),
        wire=Wire(input=Format.CLAUDE, output=Format.CLAUDE),
        operation=operation,
        model=model,
        stream=stream,
        body=body,
        client_headers=tuple((name.lower().encode(), value.encode()) for name, value in (client or {}).items()),
    )


def head_and_body(request: UpstreamCall) -> tuple[HeaderDict, bytes]:
    """What the Claude dialect makes of *request*."""
    headers = CLAUDE.headers(request)
    body = CLAUDE.body(request, headers)
    return headers, b"".join(body)


# -- URLs --


@pytest.mark.parametrize(
    ("dialect", "base_url", "operation", "stream", "expected"),
    [
        (OPENAI, "https://gw.test/v1", Operation.GENERATE, False, "https://gw.test/v1/chat/completions"),
        (OPENAI, "http://[::1]:8080", Operation.GENERATE, True, "http://[::1]:8080/chat/completions"),
        (DIALECTS["codex"], "https://gw.test/v1", Operation.GENERATE, True, "https://gw.test/v1/responses"),
        (DIALECTS["xai"], "", Operation.GENERATE, False, "https://api.x.ai/v1/responses"),
        (DIALECTS["xai"], "https://gw.test", Operation.GENERATE, False, "https://gw.test/responses"),
        (CLAUDE, "", Operation.GENERATE, True, "https://api.anthropic.com/v1/messages"),
        (CLAUDE, "https://gw.test/a", Operation.GENERATE, False, "https://gw.test/a/v1/messages"),
        (CLAUDE, "", Operation.COUNT_TOKENS, False, "https://api.anthropic.com/v1/messages/count_tokens"),
        (CLAUDE, "https://gw.test", Operation.COUNT_TOKENS, False, "https://gw.test/v1/messages/count_tokens"),
        (
            GEMINI,
            "",
            Operation.GENERATE,
            False,
            "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
        ),
        (
            GEMINI,
            "https://gw.test/g",
            Operation.GENERATE,
            True,
            "https://gw.test/g/v1beta/models/m:streamGenerateContent?alt=sse",
        ),
        (GEMINI, "https://gw.test", Operation.COUNT_TOKENS, False, "https://gw.test/v1beta/models/m:countTokens"),
        (
            DIALECTS["vertex"],
            "",
            Operation.GENERATE,
            True,
            "https://aiplatform.googleapis.com/v1/publishers/google/models/m:streamGenerateContent?alt=sse",
        ),
        (
            DIALECTS["vertex"],
            "https://gw.test",
            Operation.COUNT_TOKENS,
            False,
            "https://gw.test/v1/publishers/google/models/m:countTokens",
        ),
    ],
)
def test_url_of_each_operation(
    dialect: Dialect, base_url: str, operation: Operation, stream: bool, expected: str
) -> None:
    """Appendix A: paths and default addresses."""
    assert dialect.url(call(base_url, operation=operation, stream=stream)) == expected


@pytest.mark.parametrize("slashes", ["", "/", "///"])
@pytest.mark.parametrize(
    ("text", "provider", "expected"),
    [
        ("openai-compatibility: [{{name: f, base-url: '{}'}}]", "", "https://gw.test/v1/chat/completions"),
        ("codex-api-key: [{{api-key: k, base-url: '{}'}}]", "codex", "https://gw.test/v1/responses"),
        ("claude-api-key: [{{api-key: k, base-url: '{}'}}]", "claude", "https://gw.test/v1/v1/messages"),
        (
            "gemini-api-key: [{{api-key: k, base-url: '{}'}}]",
            "gemini",
            "https://gw.test/v1/v1beta/models/m:generateContent",
        ),
    ],
)
def test_slashes_at_the_end_of_a_configured_address_do_not_double(
    slashes: str, text: str, provider: str, expected: str
) -> None:
    """People write them either way."""
    config = parse_config(text.format("https://gw.test/v1" + slashes), file="test.yaml").config
    (credential,) = credentials_from_config(config)
    dialect = DIALECTS.get(provider, OPENAI)
    assert dialect.url(attrs.evolve(call(), credential=credential)) == expected


@pytest.mark.parametrize(
    ("dialect", "operation"),
    [
        (OPENAI, Operation.COUNT_TOKENS),
        (OPENAI, Operation.COMPACT),
        *((DIALECTS[name], Operation.EMBED) for name in ("codex", "xai", "claude", "gemini", "vertex")),
        *((DIALECTS[name], Operation.COMPACT) for name in ("claude", "gemini", "vertex")),
    ],
)
def test_what_a_provider_cannot_do_is_refused(dialect: Dialect, operation: Operation) -> None:
    """Not sent somewhere in the hope that it means the same there."""
    with pytest.raises(UnknownRoute) as caught:
        dialect.url(call("https://gw.test", operation=operation))
    assert caught.value.http_status == 501
    assert caught.value.code == "not_implemented"


@pytest.mark.parametrize(
    ("dialect", "operation", "path"),
    [
        (OPENAI, Operation.EMBED, "/embeddings"),
        (DIALECTS["codex"], Operation.COMPACT, "/responses/compact"),
        (DIALECTS["xai"], Operation.COMPACT, "/responses/compact"),
        (DIALECTS["codex"], Operation.COUNT_TOKENS, "/responses/input_tokens"),
        (CLAUDE, Operation.COUNT_TOKENS, "/v1/messages/count_tokens"),
        (GEMINI, Operation.COUNT_TOKENS, "/v1beta/models/m:countTokens"),
    ],
)
def test_where_providers_do_other_things_than_generate(dialect: Dialect, operation: Operation, path: str) -> None:
    """Each has endpoints of its own for that."""
    assert dialect.url(call("https://gw.test", operation=operation)) == f"https://gw.test{path}"


@given(st.text(st.characters(codec="utf-8"), min_size=1))
@example("..")
@example("../../secret")
@example("a/b")
@example("models/m:generateContent?alt=x#y")
@example("%2e%2e%2f")
@example("a:b(c)")
@example("ü 漢 \r\n")
@example("https://evil.test/x")
@example("@evil.test")
def test_model_cannot_leave_its_place_in_the_path(model: str) -> None:
    """Also after httpx has normalised the URL: one segment, which decodes to exactly that name."""
    for dialect, start in (
        (GEMINI, "/base/v1beta/models/"),
        (DIALECTS["vertex"], "/base/v1/publishers/google/models/"),
    ):
        url = httpx.URL(dialect.url(call("https://gw.test/base", model=model, stream=True)))
        assert (url.scheme, url.host, url.query, url.fragment) == ("https", "gw.test", b"alt=sse", "")
        path = url.raw_path.decode("ascii").removesuffix("?alt=sse")
        assert path.startswith(start)
        segment = path.removeprefix(start).removesuffix(":streamGenerateContent")
        assert "/" not in segment
        assert unquote(segment, errors="strict") == model


# -- authentication --


@pytest.mark.parametrize("base_url", ["", ANTHROPIC, "https://API.Anthropic.com", "https://api.anthropic.com:443"])
def test_anthropic_itself_takes_its_own_key_header(base_url: str) -> None:
    """However the operator spelled the host; a bearer token there means an OAuth login."""
    headers = CLAUDE.headers(call(base_url))
    assert headers[b"x-api-key"] == KEY.encode()
    assert b"authorization" not in headers


@pytest.mark.parametrize(
    "base_url",
    [
        "https://gw.test",
        "https://api.anthropic.com.evil.test",
        "https://evil.test/api.anthropic.com",
        "https://xapi.anthropic.com",
    ],
)
def test_other_hosts_of_the_anthropic_protocol_take_a_bearer_token(base_url: str) -> None:
    """Appendix A."""
    headers = CLAUDE.headers(call(base_url))
    assert headers[b"authorization"] == b"Bearer " + KEY.encode()
    assert b"x-api-key" not in headers


@pytest.mark.parametrize("dialect", [OPENAI, DIALECTS["codex"], DIALECTS["xai"]])
def test_openai_protocols_take_a_bearer_token(dialect: Dialect) -> None:
    """And nothing else about the credential."""
    headers = dialect.headers(call("https://gw.test"))
    assert headers == {b"authorization": b"Bearer " + KEY.encode()}


@pytest.mark.parametrize("dialect", [GEMINI, DIALECTS["vertex"]])
def test_google_takes_its_own_key_header(dialect: Dialect) -> None:
    """Not the query parameter, which would end in logs."""
    assert dialect.headers(call()) == {b"x-goog-api-key": KEY.encode()}
    assert KEY not in dialect.url(call())


@pytest.mark.parametrize("dialect", [OPENAI, *DIALECTS.values()])
@pytest.mark.parametrize("base_url", ["https://gw.test", ANTHROPIC])
def test_credential_without_key_sends_no_key_header(dialect: Dialect, base_url: str) -> None:
    """An empty one would be refused by servers that want none."""
    headers = dialect.headers(call(base_url, key=""))
    assert not headers.keys() & {b"authorization", b"x-api-key", b"x-goog-api-key"}
    assert b"" not in headers.values()


def test_streams_of_openai_compatible_providers_ask_caches_to_stay_away() -> None:
    """Appendix A."""
    assert OPENAI.headers(call("https://gw.test", stream=True))[b"cache-control"] == b"no-cache"
    assert b"cache-control" not in OPENAI.headers(call("https://gw.test"))


def test_formats_are_those_of_the_protocols() -> None:
    """The runner translates to them."""
    assert OPENAI.format is Format.OPENAI
    assert {name: dialect.format for name, dialect in DIALECTS.items()} == {
        "claude": Format.CLAUDE,
        "codex": Format.CODEX,
        "gemini": Format.GEMINI,
        "vertex": Format.GEMINI,
        "xai": Format.CODEX,
    }


# -- Anthropic's protocol headers --


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_version_of_the_client_is_kept(version: str) -> None:
    """New SDKs write bodies for 2026-10-21: another version would read them otherwise."""
    assert CLAUDE.headers(call(client={"anthropic-version": version}))[b"anthropic-version"] == version.encode()


def test_client_without_version_gets_the_default() -> None:
    """The API demands one, and clients of other protocols have none."""
    headers = CLAUDE.headers(call())
    assert headers[b"anthropic-version"] == b"2023-06-01"
    assert b"anthropic-beta" not in headers
    assert b"user-agent" not in headers


def test_betas_and_user_agent_of_the_client_are_kept() -> None:
    """Bodies use what the betas allow; lists come as one header or several."""
    names = "claude-code-20250219,interleaved-thinking-2025-05-14, context-management-2025-06-27"
    headers = CLAUDE.headers(call(client={"Anthropic-Beta": names, "User-Agent": "claude-cli/2.1.329 (external, cli)"}))
    assert headers[b"anthropic-beta"] == names.encode()
    assert headers[b"user-agent"] == b"claude-cli/2.1.329 (external, cli)"
    repeated = attrs.evolve(call(), client_headers=((b"anthropic-beta", b"a"), (b"anthropic-beta", b"b")))
    assert CLAUDE.headers(repeated)[b"anthropic-beta"] == b"a,b"


def test_betas_in_the_body_move_to_the_header() -> None:
    """The API knows no such member; all others keep their bytes and their order."""
    body = b'{"model": "m", "z":1.50, "betas":["x-1", "y-2"], "big":123456789012345678901234567890,"\\u00e9":"\\u00e9"}'
    headers, sent = head_and_body(call(body=(body,), client={"anthropic-beta": "a-1"}))
    assert headers[b"anthropic-beta"] == b"a-1,x-1,y-2"
    assert list(decode(sent)) == ["model", "z", "big", "é"]
    for kept in (b"1.50", b"123456789012345678901234567890", b'"\\u00e9"'):
        assert kept in sent


def test_betas_are_found_in_a_body_whose_model_was_renamed() -> None:
    """Such a body comes in three pieces, none of which is JSON by itself."""
    for text in (b'{"betas":["x-1"],"model":"alias","a":1}', b'{"model":"alias","betas":["x-1"],"a":1}'):
        pieces = splice_model(text, "renamed")
        assert len(pieces) == 3
        headers, sent = head_and_body(call(body=pieces))
        assert headers[b"anthropic-beta"] == b"x-1"
        assert decode(sent) == {"model": "renamed", "a": 1}


def test_beta_that_both_name_is_sent_once() -> None:
    """The union of both lists, in order."""
    headers, _ = head_and_body(call(body=(b'{"betas":["b","c","c"]}',), client={"anthropic-beta": "a, b"}))
    assert headers[b"anthropic-beta"] == b"a, b,c"


@pytest.mark.parametrize("text", [b'{"betas":[]}', b'{"betas":[""]}', b'{"betas":["  "]}'])
def test_empty_betas_make_no_header(text: bytes) -> None:
    """An empty header is a malformed list to some servers."""
    headers, sent = head_and_body(call(body=(text,)))
    assert b"anthropic-beta" not in headers
    assert sent == b"{}"


@pytest.mark.parametrize(
    "value", [b'"x"', b"1", b"null", b"{}", b"[1]", b'["a",null]', b'[["a"]]', b"true", b'["\\ud800"]']
)
def test_betas_of_another_type_are_the_clients_mistake(value: bytes) -> None:
    """Not the provider's, who would complain about an unknown member."""
    with pytest.raises(MalformedRequest) as caught:
        head_and_body(call(body=(b'{"betas":' + value + b"}",)))
    assert (caught.value.http_status, caught.value.param) == (400, "betas")


@pytest.mark.parametrize("beta", ["a\\r\\nX-Evil: 1", "a\\nb", "a\\u0000", "a\\u007f", "\\u00fc", "a b", "a\\tb"])
def test_betas_that_do_not_fit_a_header_are_the_clients_mistake(beta: str) -> None:
    """They come from a JSON body, which can hold line breaks, into a head, which they would end."""
    with pytest.raises(MalformedRequest) as caught:
        head_and_body(call(body=(b'{"betas":["ok","' + beta.encode() + b'"]}',)))
    assert caught.value.param == "betas"


@pytest.mark.parametrize(
    "body",
    [
        (b'{"b":1, "a" : [ 1.0 ],"model":"m"}',),
        (b'{"messages":[{"content":"\\"betas\\" and \\u00e9"}],"x":{"betas":["no"]}}',),
        (b'{"a":1,"model":', b'"renamed"', b',"metadata":{"betas":1}}'),
        (b"not json",),
        (b'"betas"',),
    ],
)
def test_body_without_betas_is_passed_as_it_is(body: tuple[bytes, ...]) -> None:
    """Byte for byte and uncopied, whatever else it holds."""
    request = call(body=body)
    assert CLAUDE.body(request, {}) is body


@pytest.mark.parametrize("dialect", [OPENAI, DIALECTS["codex"], GEMINI])
def test_other_protocols_pass_bodies_as_they_are(dialect: Dialect) -> None:
    """A member ``betas`` is nobody's business there."""
    request = call(body=(b'{"betas":["x"]}',))
    headers: HeaderDict = {}
    assert dialect.body(request, headers) is request.body
    assert headers == {}


# -- headers of client and operator --


@pytest.mark.parametrize("dialect", [OPENAI, *DIALECTS.values()])
def test_nothing_else_of_the_client_is_forwarded(dialect: Dialect) -> None:
    """Its key is ours to check, its cookies and addresses are nobody's business."""
    client = {
        "Authorization": "Bearer client-secret",
        "X-Api-Key": "client-secret",
        "X-Goog-Api-Key": "client-secret",
        "Cookie": "client-secret",
        "X-Forwarded-For": "client-secret",
        "Forwarded": "for=client-secret",
        "Host": "client-secret",
        "OpenAI-Organization": "client-secret",
        "X-Stainless-Lang": "client-secret",
        "Traceparent": "client-secret",
    }
    headers = dialect.headers(call("https://gw.test", client=client))
    assert not any(b"client-secret" in value for value in headers.values())


def test_operators_values_may_copy_headers_of_the_client() -> None:
    """Names in any case; one that the client has not sent is left out."""
    request = call(
        client={"X-Team": "blue", "X-Empty": ""},
        headers={"X-Group": "$x-tEAM", "X-Fixed": "1", "X-None": "$X-Absent", "X-Blank": "$X-Empty", "X-Odd": "$"},
    )
    assert configured_headers(request) == {b"x-group": b"blue", b"x-fixed": b"1"}


def test_repeated_header_of_the_client_is_copied_whole() -> None:
    """As HTTP joins them."""
    request = call(headers={"X-All": "$X-Tag"})
    repeated = attrs.evolve(request, client_headers=((b"x-tag", b"a"), (b"other", b"z"), (b"x-tag", b"b")))
    assert configured_headers(repeated) == {b"x-all": b"a,b"}


def test_operators_values_are_text_in_utf8() -> None:
    """Names of teams are not ASCII everywhere."""
    assert configured_headers(call(headers={"X-Team": "größe"})) == {b"x-team": "größe".encode()}


def test_another_alt_of_a_gemini_client_goes_on_under_its_unambiguous_name() -> None:
    """Streams are always events, whatever the client's alt; the rest is the provider's to judge, safely quoted."""
    for query, expected in (
        (b"alt=json&key=k", "?$alt=json"),
        (b"%24alt=media%26x", "?$alt=media%26x"),
        (b"key=k", ""),
    ):
        asked = attrs.evolve(call("https://gw.test"), query=query)
        assert GEMINI.url(asked).endswith(f":generateContent{expected}")
        assert GEMINI.url(attrs.evolve(asked, stream=True)).endswith("?alt=sse")
