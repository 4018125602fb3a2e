"""Every JSON example of plugin-abi.md chapters 3 to 5, with what it stands for."""

# ruff: noqa: E501, RUF009 - a wire text stays in one piece; values are frozen, so they can be defaults

from datetime import UTC, datetime
from typing import Any

import attrs

from cpa.abi import methods, wire, wire_host
from cpa.abi.kinds import B64


def utc(*parts: int) -> datetime:
    """A time in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


ACME = wire.PluginMetadata(name="acme", version="1.0.0", author="Acme Ltd", repository="https://example.org/acme")
HOST = wire.HostSummary(auth_dir="auths")


@attrs.frozen
class Example:
    """One message; *ids* are those of the call."""

    section: str
    method: methods.Method[Any, Any]
    text: bytes
    value: Any
    ids: wire.CallIds = wire.CallIds()


REQUESTS = (
    Example(
        "3.1",
        methods.PLUGIN_REGISTER,
        b'{"config_yaml":"ZW5hYmxlZDogdHJ1ZQpwcmlvcml0eTogNQptb2RlOiBzYWZlCg==","schema_version":3}',
        wire.RegisterRequest(config_yaml=B64(b"enabled: true\npriority: 5\nmode: safe\n"), schema_version=3),
    ),
    Example("4.1", methods.EXECUTOR_IDENTIFIER, b"{}", wire.Empty()),
    Example(
        "4.2.1",
        methods.MODEL_REGISTER,
        b'{"Plugin":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":null}}',
        wire.PluginRequest(plugin=ACME),
    ),
    Example(
        "4.2.2",
        methods.MODEL_STATIC,
        b'{"Plugin":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":null},"Host":{"AuthDir":"auths","ProxyURL":"","ForceModelPrefix":false,"OAuthModelAlias":null,"ExcludedModels":null}}',
        wire.StaticModelsRequest(plugin=ACME, host=HOST),
    ),
    Example(
        "4.2.3",
        methods.MODEL_FOR_AUTH,
        b'{"Plugin":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":null},"AuthID":"acme-me.json","AuthProvider":"acme","StorageJSON":"eyJ0eXBlIjoiYWNtZSIsInRva2VuIjoidCJ9","Metadata":{"token":"t","type":"acme"},"Attributes":{"path":"auths/acme-me.json"},"Host":{"AuthDir":"auths","ProxyURL":"","ForceModelPrefix":false,"OAuthModelAlias":null,"ExcludedModels":null},"host_callback_id":"17"}',
        wire.AuthModelsRequest(
            plugin=ACME,
            auth_id="acme-me.json",
            auth_provider="acme",
            storage_json=B64(b'{"type":"acme","token":"t"}'),
            metadata={"token": "t", "type": "acme"},
            attributes={"path": "auths/acme-me.json"},
            host=HOST,
        ),
        wire.CallIds(scope_id="17"),
    ),
    Example(
        "4.3.1",
        methods.AUTH_PARSE,
        b'{"Provider":"acme","Path":"auths/acme-me.json","FileName":"acme-me.json","RawJSON":"eyJ0eXBlIjoiYWNtZSIsInRva2VuIjoidCJ9","Host":{"AuthDir":"auths","ProxyURL":"","ForceModelPrefix":false,"OAuthModelAlias":null,"ExcludedModels":null}}',
        wire.AuthParseRequest(
            provider="acme",
            path="auths/acme-me.json",
            file_name="acme-me.json",
            raw_json=B64(b'{"type":"acme","token":"t"}'),
            host=HOST,
        ),
    ),
    Example(
        "4.3.2",
        methods.AUTH_LOGIN_START,
        b'{"Provider":"acme","BaseURL":"http://127.0.0.1:8317/v0/management/oauth-callback","Host":{"AuthDir":"auths","ProxyURL":"","ForceModelPrefix":false,"OAuthModelAlias":null,"ExcludedModels":null},"Metadata":null,"host_callback_id":"21"}',
        wire.LoginStartRequest(
            provider="acme", base_url="http://127.0.0.1:8317/v0/management/oauth-callback", host=HOST
        ),
        wire.CallIds(scope_id="21"),
    ),
    Example(
        "4.3.3",
        methods.AUTH_LOGIN_POLL,
        b'{"Provider":"acme","State":"abc","Host":{"AuthDir":"auths","ProxyURL":"","ForceModelPrefix":false,"OAuthModelAlias":null,"ExcludedModels":null},"Metadata":{"verifier":"v1"},"host_callback_id":"22"}',
        wire.LoginPollRequest(provider="acme", state="abc", host=HOST, metadata={"verifier": "v1"}),
        wire.CallIds(scope_id="22"),
    ),
    Example(
        "4.3.4",
        methods.AUTH_REFRESH,
        b'{"AuthID":"acme-me.json","AuthProvider":"acme","StorageJSON":"eyJ0eXBlIjoiYWNtZSIsInRva2VuIjoidCJ9","Metadata":{"token":"t","type":"acme"},"Attributes":{"path":"auths/acme-me.json"},"Host":{"AuthDir":"auths","ProxyURL":"","ForceModelPrefix":false,"OAuthModelAlias":null,"ExcludedModels":null},"host_callback_id":"30"}',
        wire.RefreshRequest(
            auth_id="acme-me.json",
            auth_provider="acme",
            storage_json=B64(b'{"type":"acme","token":"t"}'),
            metadata={"token": "t", "type": "acme"},
            attributes={"path": "auths/acme-me.json"},
            host=HOST,
        ),
        wire.CallIds(scope_id="30"),
    ),
    Example(
        "4.4",
        methods.FRONTEND_AUTH_AUTHENTICATE,
        b'{"Method":"POST","Path":"/v1/chat/completions","Headers":{"X-Demo":["1"]},"Query":null,"Body":"eyJtb2RlbCI6Im0xIn0="}',
        wire.FrontendAuthRequest(
            method="POST", path="/v1/chat/completions", headers={"X-Demo": ["1"]}, body=B64(b'{"model":"m1"}')
        ),
    ),
    Example(
        "4.5",
        methods.SCHEDULER_PICK,
        b'{"Plugin":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":null},"Provider":"acme","Providers":["acme"],"Model":"acme-1","Stream":false,"Options":{"Headers":{"User-Agent":["demo"]},"Metadata":{"requested_model":"acme-1"}},"Candidates":[{"ID":"a.json","Provider":"acme","Priority":0,"Status":"active","Attributes":{"path":"auths/a.json"},"Metadata":null}]}',
        wire.PickRequest(
            plugin=ACME,
            provider="acme",
            providers=("acme",),
            model="acme-1",
            options=wire.PickOptions(headers={"User-Agent": ["demo"]}, metadata={"requested_model": "acme-1"}),
            candidates=(
                wire.PickCandidate(id="a.json", provider="acme", status="active", attributes={"path": "auths/a.json"}),
            ),
        ),
    ),
    Example(
        "4.6",
        methods.MODEL_ROUTE,
        b'{"Plugin":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":null},"PluginID":"acme","SourceFormat":"claude","RequestedModel":"m1","Stream":false,"Headers":{"User-Agent":["demo"]},"Query":null,"Body":"eyJtb2RlbCI6Im0xIn0=","Metadata":{"request_path":"/v1/messages","requested_model":"m1"},"AvailableProviders":["claude","codex"],"host_callback_id":"40"}',
        wire.RouteRequest(
            plugin=ACME,
            plugin_id="acme",
            source_format="claude",
            requested_model="m1",
            headers={"User-Agent": ["demo"]},
            body=B64(b'{"model":"m1"}'),
            metadata={"request_path": "/v1/messages", "requested_model": "m1"},
            available_providers=(
                "claude",
                "codex",
            ),
        ),
        wire.CallIds(scope_id="40"),
    ),
    Example(
        "4.7.3",
        methods.EXECUTOR_EXECUTE,
        b'{"AuthID":"acme-me.json","AuthProvider":"acme","Model":"acme-1","Format":"openai","Stream":false,"Alt":"","Headers":{"User-Agent":["demo"]},"Query":null,"OriginalRequest":"eyJtb2RlbCI6Im0xIiwibWVzc2FnZXMiOltdfQ==","SourceFormat":"openai","Payload":"eyJtb2RlbCI6Im0xIiwibWVzc2FnZXMiOltdfQ==","Metadata":{"generate":true,"requested_model":"m1","service_tier":"auto"},"StorageJSON":"eyJ0eXBlIjoiYWNtZSIsInRva2VuIjoidCJ9","AuthMetadata":{"type":"acme"},"AuthAttributes":{"path":"auths/acme-me.json"},"host_callback_id":"51"}',
        wire.ExecuteRequest(
            auth_id="acme-me.json",
            auth_provider="acme",
            model="acme-1",
            format="openai",
            headers={"User-Agent": ["demo"]},
            original_request=B64(b'{"model":"m1","messages":[]}'),
            source_format="openai",
            payload=B64(b'{"model":"m1","messages":[]}'),
            metadata={"generate": True, "requested_model": "m1", "service_tier": "auto"},
            storage_json=B64(b'{"type":"acme","token":"t"}'),
            auth_metadata={"type": "acme"},
            auth_attributes={"path": "auths/acme-me.json"},
        ),
        wire.CallIds(scope_id="51"),
    ),
    Example(
        "4.7.4",
        methods.EXECUTOR_EXECUTE_STREAM,
        b'{"AuthID":"","AuthProvider":"","Model":"m1","Format":"claude","Stream":true,"Alt":"","Headers":null,"Query":null,"OriginalRequest":"eyJtb2RlbCI6Im0xIn0=","SourceFormat":"claude","Payload":"eyJtb2RlbCI6Im0xIn0=","Metadata":{"requested_model":"m1"},"StorageJSON":null,"AuthMetadata":null,"AuthAttributes":null,"stream_id":"3","host_callback_id":"52"}',
        wire.ExecuteRequest(
            model="m1",
            format="claude",
            stream=True,
            original_request=B64(b'{"model":"m1"}'),
            source_format="claude",
            payload=B64(b'{"model":"m1"}'),
            metadata={"requested_model": "m1"},
        ),
        wire.CallIds(stream_id="3", scope_id="52"),
    ),
    Example(
        "4.7.5",
        methods.EXECUTOR_COUNT_TOKENS,
        b'{"AuthID":"","AuthProvider":"","Model":"m1","Format":"claude","Stream":false,"Alt":"","Headers":null,"Query":null,"OriginalRequest":"eyJtb2RlbCI6Im0xIn0=","SourceFormat":"claude","Payload":"eyJtb2RlbCI6Im0xIn0=","Metadata":{"requested_model":"m1"},"StorageJSON":null,"AuthMetadata":null,"AuthAttributes":null,"host_callback_id":"53"}',
        wire.ExecuteRequest(
            model="m1",
            format="claude",
            original_request=B64(b'{"model":"m1"}'),
            source_format="claude",
            payload=B64(b'{"model":"m1"}'),
            metadata={"requested_model": "m1"},
        ),
        wire.CallIds(scope_id="53"),
    ),
    Example(
        "4.7.6",
        methods.EXECUTOR_HTTP_REQUEST,
        b'{"AuthID":"acme-me.json","AuthProvider":"acme","Method":"GET","URL":"https://api.example.org/ping","Headers":null,"Body":null,"StorageJSON":"eyJ0eXBlIjoiYWNtZSIsInRva2VuIjoidCJ9","Metadata":{"type":"acme"},"Attributes":null,"host_callback_id":"54"}',
        wire.ExecutorHttpRequest(
            auth_id="acme-me.json",
            auth_provider="acme",
            method="GET",
            url="https://api.example.org/ping",
            storage_json=B64(b'{"type":"acme","token":"t"}'),
            metadata={"type": "acme"},
        ),
        wire.CallIds(scope_id="54"),
    ),
    Example(
        "4.8.1",
        methods.REQUEST_TRANSLATE,
        b'{"FromFormat":"openai","ToFormat":"acme-proto","Model":"acme-1","Stream":false,"Body":"eyJtb2RlbCI6Im0xIn0="}',
        wire.RequestTransformRequest(
            from_format="openai", to_format="acme-proto", model="acme-1", body=B64(b'{"model":"m1"}')
        ),
    ),
    Example(
        "4.8.2",
        methods.REQUEST_NORMALIZE,
        b'{"FromFormat":"openai","ToFormat":"codex","Model":"gpt-5.5","Stream":true,"Body":"eyJpbnB1dCI6W119"}',
        wire.RequestTransformRequest(
            from_format="openai", to_format="codex", model="gpt-5.5", stream=True, body=B64(b'{"input":[]}')
        ),
    ),
    Example(
        "4.8.3",
        methods.RESPONSE_NORMALIZE_BEFORE,
        b'{"FromFormat":"codex","ToFormat":"openai","Model":"gpt-5.5","Stream":false,"OriginalRequest":"eyJtb2RlbCI6Im0xIn0=","TranslatedRequest":"eyJpbnB1dCI6W119","Body":"eyJpZCI6InIxIn0="}',
        wire.ResponseTransformRequest(
            from_format="codex",
            to_format="openai",
            model="gpt-5.5",
            original_request=B64(b'{"model":"m1"}'),
            translated_request=B64(b'{"input":[]}'),
            body=B64(b'{"id":"r1"}'),
        ),
    ),
    Example(
        "4.8.4",
        methods.RESPONSE_TRANSLATE,
        b'{"FromFormat":"acme-proto","ToFormat":"openai","Model":"acme-1","Stream":false,"OriginalRequest":"eyJtb2RlbCI6Im0xIn0=","TranslatedRequest":"eyJpbnB1dCI6W119","Body":"eyJvayI6dHJ1ZX0="}',
        wire.ResponseTransformRequest(
            from_format="acme-proto",
            to_format="openai",
            model="acme-1",
            original_request=B64(b'{"model":"m1"}'),
            translated_request=B64(b'{"input":[]}'),
            body=B64(b'{"ok":true}'),
        ),
    ),
    Example(
        "4.8.5",
        methods.RESPONSE_NORMALIZE_AFTER,
        b'{"FromFormat":"codex","ToFormat":"openai","Model":"gpt-5.5","Stream":true,"OriginalRequest":"eyJtb2RlbCI6Im0xIn0=","TranslatedRequest":"eyJpbnB1dCI6W119","Body":"ZGF0YTogaGkKCg=="}',
        wire.ResponseTransformRequest(
            from_format="codex",
            to_format="openai",
            model="gpt-5.5",
            stream=True,
            original_request=B64(b'{"model":"m1"}'),
            translated_request=B64(b'{"input":[]}'),
            body=B64(b"data: hi\n\n"),
        ),
    ),
    Example(
        "4.9.1",
        methods.REQUEST_INTERCEPT_BEFORE,
        b'{"RequestID":"7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11","TraceID":"9c01ab3f","SourceFormat":"openai","ToFormat":"","Model":"gpt-5.5","RequestedModel":"fast","Stream":false,"Headers":{"User-Agent":["demo"]},"Body":"eyJtb2RlbCI6Im0xIn0=","Metadata":{"requested_model":"fast"},"host_callback_id":"60"}',
        wire.InterceptRequest(
            request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
            trace_id="9c01ab3f",
            source_format="openai",
            model="gpt-5.5",
            requested_model="fast",
            headers={"User-Agent": ["demo"]},
            body=B64(b'{"model":"m1"}'),
            metadata={"requested_model": "fast"},
        ),
        wire.CallIds(scope_id="60"),
    ),
    Example(
        "4.9.2",
        methods.REQUEST_INTERCEPT_AFTER,
        b'{"RequestID":"7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11","TraceID":"9c01ab3f","SourceFormat":"openai","ToFormat":"codex","Model":"gpt-5.5","RequestedModel":"fast","Stream":false,"Headers":{"User-Agent":["demo"]},"Body":"eyJtb2RlbCI6Im0xIn0=","Metadata":{"requested_model":"fast","selected_auth_id":"a.json"},"host_callback_id":"61"}',
        wire.InterceptRequest(
            request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
            trace_id="9c01ab3f",
            source_format="openai",
            to_format="codex",
            model="gpt-5.5",
            requested_model="fast",
            headers={"User-Agent": ["demo"]},
            body=B64(b'{"model":"m1"}'),
            metadata={"requested_model": "fast", "selected_auth_id": "a.json"},
        ),
        wire.CallIds(scope_id="61"),
    ),
    Example(
        "4.9.3",
        methods.RESPONSE_INTERCEPT_AFTER,
        b'{"RequestID":"7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11","SourceFormat":"openai","Model":"gpt-5.5","RequestedModel":"fast","Stream":false,"RequestHeaders":{"User-Agent":["demo"]},"ResponseHeaders":{"Content-Type":["application/json"]},"OriginalRequest":"eyJtb2RlbCI6Im0xIn0=","RequestBody":"eyJtb2RlbCI6Im0xIn0=","Body":"eyJpZCI6InIxIn0=","StatusCode":200,"Metadata":{"requested_model":"fast"},"host_callback_id":"62"}',
        wire.InterceptResponseRequest(
            request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
            source_format="openai",
            model="gpt-5.5",
            requested_model="fast",
            request_headers={"User-Agent": ["demo"]},
            response_headers={"Content-Type": ["application/json"]},
            original_request=B64(b'{"model":"m1"}'),
            request_body=B64(b'{"model":"m1"}'),
            body=B64(b'{"id":"r1"}'),
            status_code=200,
            metadata={"requested_model": "fast"},
        ),
        wire.CallIds(scope_id="62"),
    ),
    Example(
        "4.9.4",
        methods.RESPONSE_INTERCEPT_STREAM_CHUNK,
        b'{"RequestID":"7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11","SourceFormat":"openai","Model":"gpt-5.5","RequestedModel":"fast","RequestHeaders":{"User-Agent":["demo"]},"ResponseHeaders":{"Content-Type":["text/event-stream"]},"OriginalRequest":null,"RequestBody":null,"Body":"ZGF0YTogdHdvCgo=","HistoryChunks":["ZGF0YTogb25lCgo="],"ChunkIndex":1,"Metadata":{"requested_model":"fast"},"host_callback_id":"63"}',
        wire.InterceptChunkRequest(
            request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
            source_format="openai",
            model="gpt-5.5",
            requested_model="fast",
            request_headers={"User-Agent": ["demo"]},
            response_headers={"Content-Type": ["text/event-stream"]},
            body=B64(b"data: two\n\n"),
            history=(B64(b"data: one\n\n"),),
            chunk_index=1,
            metadata={"requested_model": "fast"},
        ),
        wire.CallIds(scope_id="63"),
    ),
    Example(
        "4.10",
        methods.REQUEST_COMPLETE,
        b'{"RequestID":"7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11","TraceID":"9c01ab3f","SourceFormat":"openai","Model":"gpt-5.5","RequestedModel":"fast","Stream":false,"Outcome":"succeeded","StatusCode":200,"Error":"","StartedAt":"2026-08-22T10:00:00.1Z","CompletedAt":"2026-08-22T10:00:02Z","Metadata":{"requested_model":"fast"},"host_callback_id":"64"}',
        wire.CompletionRequest(
            request_id="7b1f4a52-5a0e-4c49-9a0a-0f6f0d7a1c11",
            trace_id="9c01ab3f",
            source_format="openai",
            model="gpt-5.5",
            requested_model="fast",
            outcome="succeeded",
            status_code=200,
            started_at=utc(2026, 8, 22, 10, 0, 0, 100000),
            completed_at=utc(2026, 8, 22, 10, 0, 2),
            metadata={"requested_model": "fast"},
        ),
        wire.CallIds(scope_id="64"),
    ),
    Example(
        "4.11",
        methods.THINKING_APPLY,
        b'{"Provider":"acme","Model":{"ID":"acme-1","Object":"model","Created":0,"OwnedBy":"acme","Type":"","DisplayName":"","Name":"","Version":"","Description":"","InputTokenLimit":0,"OutputTokenLimit":0,"SupportedGenerationMethods":null,"ContextLength":32768,"MaxCompletionTokens":0,"SupportedParameters":null,"SupportedInputModalities":null,"SupportedOutputModalities":null,"Thinking":{"Min":0,"Max":8192,"ZeroAllowed":true,"DynamicAllowed":false,"Levels":null},"UserDefined":false},"Config":{"Mode":"budget","Budget":1024,"Level":""},"Body":"eyJtb2RlbCI6Im0xIn0=","host_callback_id":"70"}',
        wire.ThinkingRequest(
            provider="acme",
            model=wire.ModelInfo(
                id="acme-1",
                object="model",
                owned_by="acme",
                context_length=32768,
                thinking=wire.ThinkingSupport(max=8192, zero_allowed=True),
            ),
            config=wire.ThinkingConfig(mode="budget", budget=1024),
            body=B64(b'{"model":"m1"}'),
        ),
        wire.CallIds(scope_id="70"),
    ),
    Example(
        "4.12",
        methods.USAGE_HANDLE,
        b'{"Provider":"codex","ExecutorType":"codex","Model":"gpt-5.5","Alias":"fast","APIKey":"team-a","AuthID":"a.json","AuthIndex":"0f3a9c77d1e2b845","AuthType":"oauth","Source":"me@example.org","ReasoningEffort":"","ServiceTier":"auto","Generate":true,"RequestedAt":"2026-08-22T10:00:00Z","Latency":1900000000,"TTFT":400000000,"Failed":false,"Failure":{"StatusCode":0,"Body":""},"Detail":{"InputTokens":10,"OutputTokens":5,"ReasoningTokens":0,"CachedTokens":0,"CacheReadTokens":0,"CacheCreationTokens":0,"TotalTokens":15},"ResponseHeaders":null}',
        wire.UsageRequest(
            provider="codex",
            executor_type="codex",
            model="gpt-5.5",
            alias="fast",
            api_key="team-a",
            auth_id="a.json",
            auth_index="0f3a9c77d1e2b845",
            auth_type="oauth",
            source="me@example.org",
            service_tier="auto",
            generate=True,
            requested_at=utc(2026, 8, 22, 10, 0, 0),
            latency_ns=1900000000,
            ttft_ns=400000000,
            detail=wire.UsageDetail(input_tokens=10, output_tokens=5, total_tokens=15),
        ),
    ),
    Example(
        "4.13.1",
        methods.COMMAND_LINE_REGISTER,
        b'{"Plugin":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":null}}',
        wire.PluginRequest(plugin=ACME),
    ),
    Example(
        "4.13.2",
        methods.COMMAND_LINE_EXECUTE,
        b'{"Plugin":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":null},"Program":"proxy","Args":["-acme-login"],"ConfigPath":"config.yaml","Host":{"AuthDir":"auths","ProxyURL":"","ForceModelPrefix":false,"OAuthModelAlias":null,"ExcludedModels":null},"Flags":{"acme-login":{"Name":"acme-login","Type":"bool","Value":"true","Set":true},"config":{"Name":"config","Type":"","Value":"config.yaml","Set":false}},"TriggeredFlags":{"acme-login":{"Name":"acme-login","Type":"bool","Value":"true","Set":true}}}',
        wire.CommandLineRequest(
            plugin=ACME,
            program="proxy",
            args=("-acme-login",),
            config_path="config.yaml",
            host=HOST,
            flags={
                "acme-login": wire.FlagValue(name="acme-login", type="bool", value="true", set=True),
                "config": wire.FlagValue(name="config", value="config.yaml"),
            },
            triggered_flags={"acme-login": wire.FlagValue(name="acme-login", type="bool", value="true", set=True)},
        ),
    ),
    Example(
        "4.14.1",
        methods.MANAGEMENT_REGISTER,
        b'{"Plugin":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":null},"BasePath":"/v0/management","ResourceBasePath":"/v0/resource/plugins/acme"}',
        wire.ManagementRegisterRequest(
            plugin=ACME, base_path="/v0/management", resource_base_path="/v0/resource/plugins/acme"
        ),
    ),
    Example(
        "4.14.2",
        methods.MANAGEMENT_HANDLE,
        b'{"Method":"GET","Path":"/v0/resource/plugins/acme/status","Headers":{"Accept":["text/html"]},"Query":{"q":["1"]},"Body":null,"host_callback_id":"80"}',
        wire.ManagementRequest(
            method="GET", path="/v0/resource/plugins/acme/status", headers={"Accept": ["text/html"]}, query={"q": ["1"]}
        ),
        wire.CallIds(scope_id="80"),
    ),
)
"""Host to plugin."""

REPLIES = (
    Example(
        "3.2",
        methods.PLUGIN_REGISTER,
        b"""{"ok":true,"result":{"schema_version":3,
 "metadata":{"Name":"acme","Version":"1.0.0","Author":"Acme Ltd","GitHubRepository":"https://example.org/acme","Logo":"","ConfigFields":[{"Name":"mode","Type":"enum","EnumValues":["slow","quick"],"Description":"How careful to be"}]},
 "capabilities":{"request_normalizer":true}}}""",
        wire.RegisterReply(
            schema_version=3,
            metadata=wire.PluginMetadata(
                name="acme",
                version="1.0.0",
                author="Acme Ltd",
                repository="https://example.org/acme",
                config_fields=(
                    wire.ConfigField(
                        name="mode",
                        type="enum",
                        enum_values=(
                            "slow",
                            "quick",
                        ),
                        description="How careful to be",
                    ),
                ),
            ),
            capabilities=wire.Capabilities(request_normalizer=True),
        ),
    ),
    Example(
        "4.1",
        methods.EXECUTOR_IDENTIFIER,
        b'{"ok":true,"result":{"identifier":"acme"}}',
        wire.IdentifierReply(identifier="acme"),
    ),
    Example(
        "4.2.1",
        methods.MODEL_REGISTER,
        b'{"ok":true,"result":{"Provider":"acme","Models":[{"ID":"acme-1","Object":"model","OwnedBy":"acme","DisplayName":"Acme One","ContextLength":32768}]}}',
        wire.RegisteredModelsReply(
            provider="acme",
            models=(
                wire.ModelInfo(
                    id="acme-1", object="model", owned_by="acme", display_name="Acme One", context_length=32768
                ),
            ),
        ),
    ),
    Example(
        "4.2.2",
        methods.MODEL_STATIC,
        b'{"ok":true,"result":{"Provider":"acme","Models":[{"ID":"acme-1","Object":"model"}]}}',
        wire.ModelsReply(provider="acme", models=(wire.ModelInfo(id="acme-1", object="model"),)),
    ),
    Example(
        "4.2.3",
        methods.MODEL_FOR_AUTH,
        b'{"ok":true,"result":{"Provider":"acme","Models":[{"ID":"acme-pro"}],"AuthUpdate":{"Label":"me@example.org"}}}',
        wire.ModelsReply(
            provider="acme", models=(wire.ModelInfo(id="acme-pro"),), auth_update=wire.AuthData(label="me@example.org")
        ),
    ),
    Example(
        "4.3.1",
        methods.AUTH_PARSE,
        b'{"ok":true,"result":{"Handled":true,"Auth":{"Provider":"acme","Label":"me","StorageJSON":"eyJ0eXBlIjoiYWNtZSIsInRva2VuIjoidCJ9"}}}',
        wire.AuthParseReply(
            handled=True, auth=wire.AuthData(provider="acme", label="me", storage_json=b'{"type":"acme","token":"t"}')
        ),
    ),
    Example(
        "4.3.2",
        methods.AUTH_LOGIN_START,
        b'{"ok":true,"result":{"Provider":"acme","URL":"https://login.example.org/?s=abc","State":"abc","ExpiresAt":"2026-08-22T12:00:00Z","Metadata":{"verifier":"v1"}}}',
        wire.LoginStartReply(
            provider="acme",
            url="https://login.example.org/?s=abc",
            state="abc",
            expires_at=utc(2026, 8, 22, 12, 0, 0),
            metadata={"verifier": "v1"},
        ),
    ),
    Example(
        "4.3.3",
        methods.AUTH_LOGIN_POLL,
        b'{"ok":true,"result":{"Status":"success","Message":"signed in","Auth":{"Provider":"acme","FileName":"acme-me.json","StorageJSON":"eyJ0eXBlIjoiYWNtZSIsInRva2VuIjoidCJ9"}}}',
        wire.LoginPollReply(
            status="success",
            message="signed in",
            auth=wire.AuthData(provider="acme", file_name="acme-me.json", storage_json=b'{"type":"acme","token":"t"}'),
        ),
    ),
    Example(
        "4.3.4",
        methods.AUTH_REFRESH,
        b'{"ok":true,"result":{"Auth":{"StorageJSON":"eyJ0eXBlIjoiYWNtZSIsInRva2VuIjoidDIifQ==","Metadata":{"token":"t2"}},"NextRefreshAfter":"2026-08-22T13:00:00Z"}}',
        wire.RefreshReply(
            auth=wire.AuthData(storage_json=b'{"type":"acme","token":"t2"}', metadata={"token": "t2"}),
            next_refresh_after=utc(2026, 8, 22, 13, 0, 0),
        ),
    ),
    Example(
        "4.4",
        methods.FRONTEND_AUTH_AUTHENTICATE,
        b'{"ok":true,"result":{"Authenticated":true,"Principal":"team-a","Metadata":{"tenant":"a"}}}',
        wire.FrontendAuthReply(authenticated=True, principal="team-a", metadata={"tenant": "a"}),
    ),
    Example(
        "4.5",
        methods.SCHEDULER_PICK,
        b'{"ok":true,"result":{"AuthID":"a.json","Handled":true}}',
        wire.PickReply(auth_id="a.json", handled=True),
    ),
    Example(
        "4.6",
        methods.MODEL_ROUTE,
        b'{"ok":true,"result":{"Handled":true,"TargetKind":"provider","Target":"claude","TargetModel":"m9","Reason":"demo"}}',
        wire.RouteReply(handled=True, target_kind="provider", target="claude", model="m9", reason="demo"),
    ),
    Example(
        "4.7.3",
        methods.EXECUTOR_EXECUTE,
        b'{"ok":true,"result":{"Payload":"eyJpZCI6InIxIn0=","Headers":{"Content-Type":["application/json"]}}}',
        wire.ExecuteReply(payload=b'{"id":"r1"}', headers={"Content-Type": ["application/json"]}),
    ),
    Example(
        "4.7.4",
        methods.EXECUTOR_EXECUTE_STREAM,
        b'{"ok":true,"result":{"headers":{"Content-Type":["text/event-stream"]},"chunks":[{"Payload":"ZGF0YTogb25lCgo="},{"Payload":"ZGF0YTogdHdvCgo="}]}}',
        wire.ExecuteStreamReply(
            headers={"Content-Type": ["text/event-stream"]},
            chunks=(
                wire.StreamChunk(payload=b"data: one\n\n"),
                wire.StreamChunk(payload=b"data: two\n\n"),
            ),
        ),
    ),
    Example(
        "4.7.4",
        methods.EXECUTOR_EXECUTE_STREAM,
        b'{"ok":true,"result":{"headers":{"Content-Type":["text/event-stream"]}}}',
        wire.ExecuteStreamReply(headers={"Content-Type": ["text/event-stream"]}),
    ),
    Example(
        "4.7.5",
        methods.EXECUTOR_COUNT_TOKENS,
        b'{"ok":true,"result":{"Payload":"eyJ0b3RhbF90b2tlbnMiOjd9"}}',
        wire.ExecuteReply(payload=b'{"total_tokens":7}'),
    ),
    Example(
        "4.7.6",
        methods.EXECUTOR_HTTP_REQUEST,
        b'{"ok":true,"result":{"StatusCode":200,"Headers":{"Content-Type":["text/plain"]},"Body":"cG9uZw=="}}',
        wire.HttpReply(status_code=200, headers={"Content-Type": ["text/plain"]}, body=b"pong"),
    ),
    Example(
        "4.8.1",
        methods.REQUEST_TRANSLATE,
        b'{"ok":true,"result":{"Body":"eyJpbnB1dCI6W119"}}',
        wire.BodyReply(body=b'{"input":[]}'),
    ),
    Example(
        "4.8.2",
        methods.REQUEST_NORMALIZE,
        b'{"ok":true,"result":{"Body":"eyJpbnB1dCI6W119"}}',
        wire.BodyReply(body=b'{"input":[]}'),
    ),
    Example(
        "4.8.3",
        methods.RESPONSE_NORMALIZE_BEFORE,
        b'{"ok":true,"result":{"Body":"eyJpZCI6InIxIiwieCI6dHJ1ZX0="}}',
        wire.BodyReply(body=b'{"id":"r1","x":true}'),
    ),
    Example(
        "4.8.4",
        methods.RESPONSE_TRANSLATE,
        b'{"ok":true,"result":{"Body":"eyJpZCI6InIxIn0="}}',
        wire.BodyReply(body=b'{"id":"r1"}'),
    ),
    Example(
        "4.8.5",
        methods.RESPONSE_NORMALIZE_AFTER,
        b'{"ok":true,"result":{"Body":"ZGF0YTogaGkKCg=="}}',
        wire.BodyReply(body=b"data: hi\n\n"),
    ),
    Example(
        "4.9.1",
        methods.REQUEST_INTERCEPT_BEFORE,
        b'{"ok":true,"result":{"Headers":{"X-Team":["a"]},"ClearHeaders":["X-Debug"]}}',
        wire.InterceptReply(headers={"X-Team": ["a"]}, clear_headers=("X-Debug",)),
    ),
    Example(
        "4.9.1",
        methods.REQUEST_INTERCEPT_BEFORE,
        b'{"ok":true,"result":{"Terminate":true,"StatusCode":429,"ResponseHeaders":{"Retry-After":["1"]},"ResponseBody":"eyJlcnJvciI6eyJtZXNzYWdlIjoibm8ifX0="}}',
        wire.InterceptReply(
            terminate=True,
            status_code=429,
            response_headers={"Retry-After": ["1"]},
            response_body=b'{"error":{"message":"no"}}',
        ),
    ),
    Example("4.9.2", methods.REQUEST_INTERCEPT_AFTER, b'{"ok":true,"result":{}}', wire.InterceptReply()),
    Example(
        "4.9.3",
        methods.RESPONSE_INTERCEPT_AFTER,
        b'{"ok":true,"result":{"Body":"eyJpZCI6InIxIiwieCI6dHJ1ZX0=","Headers":{"X-Seen":["1"]}}}',
        wire.InterceptResponseReply(headers={"X-Seen": ["1"]}, body=b'{"id":"r1","x":true}'),
    ),
    Example(
        "4.9.4",
        methods.RESPONSE_INTERCEPT_STREAM_CHUNK,
        b'{"ok":true,"result":{"DropChunk":true}}',
        wire.InterceptChunkReply(drop=True),
    ),
    Example("4.10", methods.REQUEST_COMPLETE, b'{"ok":true,"result":{}}', wire.Empty()),
    Example(
        "4.11",
        methods.THINKING_APPLY,
        b'{"ok":true,"result":{"Body":"eyJpZCI6InIxIn0="}}',
        wire.BodyReply(body=b'{"id":"r1"}'),
    ),
    Example("4.12", methods.USAGE_HANDLE, b'{"ok":true,"result":{}}', wire.Empty()),
    Example(
        "4.13.1",
        methods.COMMAND_LINE_REGISTER,
        b'{"ok":true,"result":{"Flags":[{"Name":"acme-login","Usage":"Sign in to Acme","Type":"bool"}]}}',
        wire.FlagsReply(flags=(wire.FlagSpec(name="acme-login", usage="Sign in to Acme", type="bool"),)),
    ),
    Example(
        "4.13.2",
        methods.COMMAND_LINE_EXECUTE,
        b'{"ok":true,"result":{"Stdout":"ZG9uZQo=","Stderr":null,"Auths":null,"ExitCode":0}}',
        wire.CommandLineReply(stdout=b"done\n"),
    ),
    Example(
        "4.14.1",
        methods.MANAGEMENT_REGISTER,
        b'{"ok":true,"result":{"routes":[{"Method":"POST","Path":"/acme/reset"}],"resources":[{"Path":"/status","Menu":"Acme","Description":"Acme status page"}]}}',
        wire.ManagementRegisterReply(
            routes=(wire.ManagementRoute(method="POST", path="/acme/reset"),),
            resources=(wire.ManagementResource(path="/status", menu="Acme", description="Acme status page"),),
        ),
    ),
    Example(
        "4.14.2",
        methods.MANAGEMENT_HANDLE,
        b'{"ok":true,"result":{"StatusCode":200,"Headers":{"Content-Type":["text/html; charset=utf-8"]},"Body":"PHA+b2s8L3A+"}}',
        wire.HttpReply(status_code=200, headers={"Content-Type": ["text/html; charset=utf-8"]}, body=b"<p>ok</p>"),
    ),
)
"""Plugin to host."""

HOST_REQUESTS = (
    Example(
        "5.3",
        methods.HOST_HTTP_DO,
        b'{"method":"POST","url":"https://api.example.org/v1","headers":{"Content-Type":["application/json"]},"body":"eyJxIjoxfQ==","host_callback_id":"51"}',
        wire_host.HostHttpRequest(
            method="POST",
            url="https://api.example.org/v1",
            headers={"Content-Type": ["application/json"]},
            body=b'{"q":1}',
            scope_id="51",
        ),
    ),
    Example(
        "5.4",
        methods.HOST_HTTP_DO_STREAM,
        b'{"url":"https://api.example.org/events","host_callback_id":"51"}',
        wire_host.HostHttpRequest(url="https://api.example.org/events", scope_id="51"),
    ),
    Example(
        "5.5.1",
        methods.HOST_MODEL_EXECUTE,
        b'{"entry_protocol":"openai","exit_protocol":"claude","model":"acme-1","stream":false,"body":"eyJtb2RlbCI6Im0xIiwibWVzc2FnZXMiOltdfQ==","headers":{},"query":{},"alt":"","host_callback_id":"80"}',
        wire_host.HostModelRequest(
            entry_protocol="openai",
            exit_protocol="claude",
            model="acme-1",
            body=b'{"model":"m1","messages":[]}',
            scope_id="80",
        ),
    ),
    Example(
        "5.5.2",
        methods.HOST_MODEL_EXECUTE_STREAM,
        b'{"entry_protocol":"claude","exit_protocol":"claude","model":"m1","stream":true,"body":"eyJtb2RlbCI6Im0xIn0=","host_callback_id":"80"}',
        wire_host.HostModelRequest(
            entry_protocol="claude",
            exit_protocol="claude",
            model="m1",
            stream=True,
            body=b'{"model":"m1"}',
            scope_id="80",
        ),
    ),
    Example(
        "5.6",
        methods.HOST_AUTH_GET,
        b'{"auth_index":"0f3a9c77d1e2b845"}',
        wire_host.AuthIndexRequest(auth_index="0f3a9c77d1e2b845"),
    ),
    Example(
        "5.6",
        methods.HOST_AUTH_SAVE,
        b'{"name":"acme-new.json","json":{"type":"acme","token":"t"}}',
        wire_host.AuthSaveRequest(name="acme-new.json", json=b'{"type":"acme","token":"t"}'),
    ),
    Example(
        "5.7",
        methods.HOST_STREAM_EMIT,
        b'{"stream_id":"3","payload":"ZGF0YTogaGkKCg=="}',
        wire_host.StreamEmitRequest(stream_id="3", payload=b"data: hi\n\n"),
    ),
    Example(
        "5.7",
        methods.HOST_STREAM_EMIT,
        b'{"stream_id":"3","error":"backend vanished"}',
        wire_host.StreamEmitRequest(stream_id="3", error="backend vanished"),
    ),
    Example(
        "5.8",
        methods.HOST_LOG,
        b'{"level":"info","message":"ready","fields":{"models":3}}',
        wire_host.LogRequest(level="info", message="ready", fields={"models": 3}),
    ),
)
"""Plugin to host."""

HOST_REPLIES = (
    Example(
        "5.3",
        methods.HOST_HTTP_DO,
        b'{"ok":true,"result":{"StatusCode":200,"Headers":{"Content-Type":["application/json"]},"Body":"eyJvayI6dHJ1ZX0="}}',
        wire_host.HostHttpReply(status_code=200, headers={"Content-Type": ["application/json"]}, body=b'{"ok":true}'),
    ),
    Example(
        "5.4",
        methods.HOST_HTTP_DO_STREAM,
        b'{"ok":true,"result":{"status_code":200,"headers":{"Content-Type":["text/event-stream"]},"stream_id":"1"}}',
        wire_host.HostHttpStreamReply(status_code=200, headers={"Content-Type": ["text/event-stream"]}, stream_id="1"),
    ),
    Example(
        "5.4",
        methods.HOST_HTTP_STREAM_READ,
        b'{"ok":true,"result":{"payload":"ZGF0YTogaGkKCg=="}}',
        wire_host.HttpStreamReadReply(payload=b"data: hi\n\n"),
    ),
    Example(
        "5.4",
        methods.HOST_HTTP_STREAM_READ,
        b'{"ok":true,"result":{"done":true}}',
        wire_host.HttpStreamReadReply(done=True),
    ),
    Example(
        "5.5.1",
        methods.HOST_MODEL_EXECUTE,
        b'{"ok":true,"result":{"status_code":200,"headers":null,"body":"eyJpZCI6InIxIn0="}}',
        wire_host.HostModelReply(status_code=200, body=b'{"id":"r1"}'),
    ),
    Example(
        "5.5.2",
        methods.HOST_MODEL_EXECUTE_STREAM,
        b'{"ok":true,"result":{"status_code":200,"headers":{},"stream_id":"4"}}',
        wire_host.HostModelStreamReply(status_code=200, headers={}, stream_id="4"),
    ),
    Example(
        "5.5.2",
        methods.HOST_MODEL_STREAM_READ,
        b'{"ok":true,"result":{"payload":"ZGF0YTogaGkKCg==","error":"","done":false}}',
        wire_host.ModelStreamReadReply(payload=b"data: hi\n\n"),
    ),
    Example(
        "5.5.2",
        methods.HOST_MODEL_STREAM_READ,
        b'{"ok":true,"result":{"payload":null,"error":"upstream closed","done":true}}',
        wire_host.ModelStreamReadReply(error="upstream closed", done=True),
    ),
    Example(
        "5.5.2",
        methods.HOST_MODEL_STREAM_READ,
        b'{"ok":true,"result":{"payload":null,"error":"","done":true}}',
        wire_host.ModelStreamReadReply(done=True),
    ),
    Example(
        "5.6",
        methods.HOST_AUTH_GET,
        b'{"ok":true,"result":{"auth_index":"0f3a9c77d1e2b845","name":"acme-me.json","path":"/srv/auths/acme-me.json","json":{"type":"acme","token":"t"}}}',
        wire_host.AuthGetReply(
            auth_index="0f3a9c77d1e2b845",
            name="acme-me.json",
            path="/srv/auths/acme-me.json",
            json=b'{"type":"acme","token":"t"}',
        ),
    ),
    Example(
        "5.6",
        methods.HOST_AUTH_LIST,
        b'{"ok":true,"result":{"files":[{"id":"acme-me.json","auth_index":"0f3a9c77d1e2b845","name":"acme-me.json","type":"acme","provider":"acme","label":"me","status":"active","source":"file","path":"/srv/auths/acme-me.json","size":27,"modtime":"2026-08-22T09:00:00Z","updated_at":"2026-08-22T09:00:00Z","created_at":"2026-08-22T09:00:00Z","last_refresh":"0001-01-01T00:00:00Z","next_retry_after":"0001-01-01T00:00:00Z"}]}}',
        wire_host.AuthListReply(
            files=(
                wire_host.AuthEntry(
                    id="acme-me.json",
                    auth_index="0f3a9c77d1e2b845",
                    name="acme-me.json",
                    type="acme",
                    provider="acme",
                    label="me",
                    status="active",
                    source="file",
                    path="/srv/auths/acme-me.json",
                    size=27,
                    modtime=utc(2026, 8, 22, 9, 0, 0),
                    updated_at=utc(2026, 8, 22, 9, 0, 0),
                    created_at=utc(2026, 8, 22, 9, 0, 0),
                ),
            )
        ),
    ),
    Example(
        "5.6",
        methods.HOST_AUTH_SAVE,
        b'{"ok":true,"result":{"name":"acme-new.json","path":"/srv/auths/acme-new.json"}}',
        wire_host.AuthSaveReply(name="acme-new.json", path="/srv/auths/acme-new.json"),
    ),
)
"""Host to plugin."""
