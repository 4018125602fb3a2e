"""Requests that the kit sends: one good one per method, and what can be wrong with it."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import attrs
import msgspec

from cpa.abi import methods, wire
from cpa.abi.envelope import encode_request
from cpa.abi.kinds import B64
from cpa.abi.methods import Method

OVERSIZED_BYTES: Final = 1_572_864
"""1.5 MiB: above every buffer that a plugin might have guessed, in base64 2 MiB."""
STREAM_ID: Final = "kit-stream-1"
SCOPE_ID: Final = "kit-scope-1"

_BODY: Final = B64(b'{"model":"kit-model","messages":[{"role":"user","content":"Gr\xc3\xbc\xc3\x9fe"}]}')
_ANSWER: Final = B64(b'{"id":"kit-1","object":"chat.completion","model":"kit-model","choices":[]}')
_CHUNK: Final = B64(b'{"id":"kit-1","object":"chat.completion.chunk","model":"kit-model","choices":[]}')
_HOST: Final = wire.HostSummary(auth_dir="auths")
_WHEN: Final = datetime(2026, 8, 22, 10, 0, tzinfo=UTC)
_HEADERS: Final = MappingProxyType({"Content-Type": ["application/json"], "User-Agent": ["cpa-conformance"]})
_METADATA: Final = MappingProxyType({"requested_model": "kit-model"})


@attrs.frozen(kw_only=True)
class About:
    """What good requests say of the plugin itself.

    Attributes:
      identifiers: provider keys by ``*.identifier`` method, as far as they are known.
    """

    plugin_id: str
    metadata: wire.PluginMetadata
    config_yaml: bytes = attrs.field(repr=False)
    input_format: str = "openai"
    output_format: str = "openai"
    identifiers: Mapping[str, str] = attrs.field(factory=dict)


def register_request(config_yaml: bytes, schema_version: int) -> bytes:
    """`plugin.register` and `plugin.reconfigure`."""
    request = wire.RegisterRequest(config_yaml=B64(config_yaml), schema_version=schema_version)
    return encode_request(methods.PLUGIN_REGISTER, request)


def good_request(method: Method[Any, Any], about: About, *, stream_id: str = STREAM_ID) -> bytes:
    """What the host would send, with made-up contents."""
    return encode_request(
        method,
        good_value(method, about),
        scope_id=SCOPE_ID if method.scoped else "",
        stream_id=stream_id if method.streamed else "",
    )


def oversized_request(method: Method[Any, Any], about: About) -> bytes:
    """The good request with `OVERSIZED_BYTES` in its bodies; one without a body gets a member that nobody knows."""
    value = good_value(method, about)
    filler = B64(b'{"model":"kit-model","input":"' + b"x" * OVERSIZED_BYTES + b'"}')
    names = [name for name, kind in type(value).__annotations__.items() if kind is B64]
    chosen = next((name for name in ("body", "payload", "raw_json", "storage_json") if name in names), None)
    if chosen is not None:
        value = msgspec.structs.replace(value, **{chosen: filler})
    request = encode_request(
        method,
        value,
        scope_id=SCOPE_ID if method.scoped else "",
        stream_id=STREAM_ID if method.streamed else "",
    )
    if chosen is not None:
        return request
    comma = b"," if len(request) > 2 else b""
    return request[:-1] + comma + b'"Unknown":"' + b"x" * OVERSIZED_BYTES + b'"}'


def broken_requests(good: bytes) -> Iterator[tuple[str, bytes]]:
    """What is no JSON object, with a name each."""
    yield "truncated JSON", good[: max(1, len(good) // 2)]
    yield "an open brace", b"{"
    yield "no JSON at all", b"\xff\xfe\x00 not JSON \x80"
    yield "an array", b"[]"
    yield "null", b"null"
    yield "data behind the object", good + b"}{"
    yield "deep nesting", b'{"Body":' + b"[" * 2000 + b"]" * 2000 + b"}"


def mistyped_requests(good: bytes) -> Iterator[tuple[str, bytes]]:
    """The good request with members of the wrong JSON type: each alone, then all of them."""
    members: dict[str, Any] = json.loads(good)
    wrong = {name: _another_type(value) for name, value in members.items()}
    for name in members:
        yield name, json.dumps({**members, name: wrong[name]}).encode()
    yield "every member", json.dumps(wrong).encode()
    yield (
        "bytes that are not base64",
        json.dumps(
            {name: "%%% not base64 %%%" if isinstance(value, str) else value for name, value in members.items()}
        ).encode(),
    )


def _another_type(value: object) -> object:
    if isinstance(value, bool):
        return "true"
    if isinstance(value, str):
        return 7
    if isinstance(value, int | float):
        return {"a": 1}
    if isinstance(value, list):
        return "list"
    return ["x"]  # for objects and null


def good_value(method: Method[Any, Any], about: About) -> Any:
    """The message of a good request; of the class that *method* names."""
    if method.name in ("plugin.register", "plugin.reconfigure"):
        return wire.RegisterRequest(config_yaml=B64(about.config_yaml), schema_version=3)
    made = _MAKERS.get(method.name)
    return made(about) if made is not None else method.request()


def _provider(about: About, method: str) -> str:
    return about.identifiers.get(method) or about.plugin_id.lower()


def _credential(about: About, method: str) -> dict[str, Any]:
    """Members that name a credential of the plugin's provider."""
    provider = _provider(about, method)
    return {
        "auth_id": f"{provider}-kit.json",
        "auth_provider": provider,
        "storage_json": B64(json.dumps({"token": "kit-token", "type": provider}, separators=(",", ":")).encode()),
    }


def _auth(about: About) -> dict[str, Any]:
    provider = _provider(about, "auth.identifier")
    return {
        **_credential(about, "auth.identifier"),
        "metadata": {"token": "kit-token", "type": provider},
        "attributes": {"path": f"auths/{provider}-kit.json"},
    }


def _execute(about: About, *, stream: bool) -> wire.ExecuteRequest:
    return wire.ExecuteRequest(
        **_credential(about, "executor.identifier"),
        model="kit-model",
        format=about.output_format,
        stream=stream,
        headers=dict(_HEADERS),
        original_request=_BODY,
        source_format=about.input_format,
        payload=_BODY,
        metadata=dict(_METADATA),
        auth_metadata={"type": _provider(about, "executor.identifier")},
    )


def _http(about: About) -> wire.ExecutorHttpRequest:
    return wire.ExecutorHttpRequest(
        **_credential(about, "executor.identifier"), method="GET", url="http://kit.invalid/ping"
    )


def _request_transform(_: About) -> wire.RequestTransformRequest:
    return wire.RequestTransformRequest(from_format="openai", to_format="claude", model="kit-model", body=_BODY)


def _response_transform(_: About) -> wire.ResponseTransformRequest:
    return wire.ResponseTransformRequest(
        from_format="claude",
        to_format="openai",
        model="kit-model",
        original_request=_BODY,
        translated_request=_BODY,
        body=_ANSWER,
    )


def _intercept(to_format: str) -> wire.InterceptRequest:
    return wire.InterceptRequest(
        request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
        trace_id="9c01ab3f",
        source_format="openai",
        to_format=to_format,
        model="kit-model",
        requested_model="kit-model",
        headers=dict(_HEADERS),
        body=_BODY,
        metadata=dict(_METADATA),
    )


def _flag(name: str) -> dict[str, wire.FlagValue]:
    return {name: wire.FlagValue(name=name, type="bool", value="true", set=True)}


def _parse(about: About) -> wire.AuthParseRequest:
    provider = _provider(about, "auth.identifier")
    name = f"{provider}-kit.json"
    return wire.AuthParseRequest(
        provider=provider,
        path=f"auths/{name}",
        file_name=name,
        raw_json=_auth(about)["storage_json"],
        host=_HOST,
    )


_MAKERS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "model.register": lambda about: wire.PluginRequest(plugin=about.metadata),
        "model.static": lambda about: wire.StaticModelsRequest(plugin=about.metadata, host=_HOST),
        "model.for_auth": lambda about: wire.AuthModelsRequest(plugin=about.metadata, **_auth(about), host=_HOST),
        "auth.parse": _parse,
        "auth.login.start": lambda about: wire.LoginStartRequest(
            provider=_provider(about, "auth.identifier"),
            base_url="http://127.0.0.1:8317/v0/management/oauth-callback",
            host=_HOST,
        ),
        "auth.login.poll": lambda about: wire.LoginPollRequest(
            provider=_provider(about, "auth.identifier"), state="kit-state", host=_HOST
        ),
        "auth.refresh": lambda about: wire.RefreshRequest(**_auth(about), host=_HOST),
        "frontend_auth.authenticate": lambda _: wire.FrontendAuthRequest(
            method="POST", path="/v1/chat/completions", headers=dict(_HEADERS), body=_BODY
        ),
        "scheduler.pick": lambda about: wire.PickRequest(
            plugin=about.metadata,
            provider="kit",
            providers=("kit",),
            model="kit-model",
            options=wire.PickOptions(headers=dict(_HEADERS), metadata=dict(_METADATA)),
            candidates=tuple(
                wire.PickCandidate(id=name, provider="kit", status="active", attributes={"path": f"auths/{name}"})
                for name in ("a.json", "b.json")
            ),
        ),
        "model.route": lambda about: wire.RouteRequest(
            plugin=about.metadata,
            plugin_id=about.plugin_id,
            source_format="openai",
            requested_model="kit-model",
            headers=dict(_HEADERS),
            body=_BODY,
            metadata=dict(_METADATA),
            available_providers=("claude", "openai"),
        ),
        "executor.execute": lambda about: _execute(about, stream=False),
        "executor.execute_stream": lambda about: _execute(about, stream=True),
        "executor.count_tokens": lambda about: _execute(about, stream=False),
        "executor.http_request": _http,
        "request.translate": _request_transform,
        "request.normalize": _request_transform,
        "response.normalize_before": _response_transform,
        "response.translate": _response_transform,
        "response.normalize_after": _response_transform,
        "request.intercept_before": lambda _: _intercept(""),
        "request.intercept_after": lambda _: _intercept("claude"),
        "request.complete": lambda _: wire.CompletionRequest(
            request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
            source_format="openai",
            model="kit-model",
            requested_model="kit-model",
            outcome="succeeded",
            status_code=200,
            started_at=_WHEN,
            completed_at=_WHEN,
            metadata=dict(_METADATA),
        ),
        "response.intercept_after": lambda _: wire.InterceptResponseRequest(
            request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
            source_format="openai",
            model="kit-model",
            requested_model="kit-model",
            request_headers=dict(_HEADERS),
            response_headers={"Content-Type": ["application/json"]},
            original_request=_BODY,
            request_body=_BODY,
            body=_ANSWER,
            status_code=200,
            metadata=dict(_METADATA),
        ),
        "response.intercept_stream_chunk": lambda _: wire.InterceptChunkRequest(
            request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
            source_format="openai",
            model="kit-model",
            requested_model="kit-model",
            request_headers=dict(_HEADERS),
            response_headers={"Content-Type": ["text/event-stream"]},
            body=_CHUNK,
            history=(_CHUNK,),
            chunk_index=1,
            metadata=dict(_METADATA),
        ),
        "thinking.apply": lambda about: wire.ThinkingRequest(
            provider=_provider(about, "thinking.identifier"),
            model=wire.ModelInfo(id="kit-model", object="model", thinking=wire.ThinkingSupport(max=8192)),
            config=wire.ThinkingConfig(mode="budget", budget=1024),
            body=_BODY,
        ),
        "usage.handle": lambda _: wire.UsageRequest(
            provider="kit",
            executor_type="kit",
            model="kit-model",
            auth_id="a.json",
            generate=True,
            requested_at=_WHEN,
            latency_ns=1_900_000_000,
            detail=wire.UsageDetail(input_tokens=10, output_tokens=5, total_tokens=15),
        ),
        "command_line.register": lambda about: wire.PluginRequest(plugin=about.metadata),
        "command_line.execute": lambda about: wire.CommandLineRequest(
            plugin=about.metadata,
            program="cpa",
            args=("-kit-flag",),
            config_path="config.yaml",
            host=_HOST,
            flags=_flag("kit-flag"),
            triggered_flags=_flag("kit-flag"),
        ),
        "management.register": lambda about: wire.ManagementRegisterRequest(
            plugin=about.metadata,
            base_path="/v0/management",
            resource_base_path=f"/v0/resource/plugins/{about.plugin_id}",
        ),
        "management.handle": lambda about: wire.ManagementRequest(
            method="GET", path=f"/v0/resource/plugins/{about.plugin_id}/status", headers={"Accept": ["text/html"]}
        ),
    }
)
"""Method name to the maker of its good message; methods without one are told nothing."""
