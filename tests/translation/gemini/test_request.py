"""Gemini's requests are read whole, in both spellings, and nothing of them vanishes unnoticed."""

import json
from typing import Any

import pytest

from cpa.errors import MalformedRequest
from cpa.translation.gemini import SPOKE
from cpa.translation.ir import (
    Call,
    ChoiceMode,
    Media,
    MediaKind,
    Native,
    OutputKind,
    Provenance,
    Reasoning,
    ReasoningMode,
    Result,
    Role,
    ServerCall,
    ServerResult,
    Sig,
    SigKind,
    Text,
    ToolKind,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.signatures import wrap
from tests.translation.gemini.support import CHAT, CLAUDE, GEM, GEM2, lost, make_ctx, parse

USER = {"role": "user", "parts": [{"text": "hi"}]}
PNG = {"mimeType": "image/png", "data": "iVBORw0KGgo="}


def of_model(*parts: dict[str, Any]) -> list[Any]:
    """The parts of a model turn between two of the user's."""
    request = parse({"contents": [USER, {"role": "model", "parts": list(parts)}, USER]})
    return request.turns[1].parts


@pytest.mark.parametrize("name", ["systemInstruction", "system_instruction"])
@pytest.mark.parametrize("value", [{"role": "model", "parts": [{"text": "a"}, {"text": "b"}]}])
def test_case_12_system_text_is_read_in_both_spellings(name: str, value: object) -> None:
    """Its role means nothing."""
    assert [block.text for block in parse({"contents": [USER], name: value}).system] == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "texts"),
    [("plain", ["plain"]), ({"parts": {"text": "one"}}, ["one"]), ({"parts": ["bare"]}, ["bare"]), (None, [])],
)
def test_system_text_in_other_shapes(value: object, texts: list[str]) -> None:
    """Clients write what proto JSON tolerates."""
    assert [block.text for block in parse({"contents": [USER], "systemInstruction": value}).system] == texts


def test_both_spellings_of_everything_say_the_same() -> None:
    """Proto JSON knows each member in two spellings."""
    camel = {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [
            {"role": "user", "parts": [{"inlineData": PNG}, {"fileData": {"mimeType": "a/b", "fileUri": "files/1"}}]},
            {
                "role": "model",
                "parts": [
                    {"text": "t", "thought": True, "thoughtSignature": GEM},
                    {"functionCall": {"name": "f", "args": {"snake_arg": 1}}, "thoughtSignature": GEM2},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                ],
            },
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]},
        ],
        "tools": [
            {"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]},
            {"googleSearch": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "topP": 0.5,
            "topK": 3,
            "maxOutputTokens": 9,
            "stopSequences": ["X"],
            "candidateCount": 1,
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
            "thinkingConfig": {"thinkingBudget": 100, "includeThoughts": True},
        },
        "safetySettings": [{"category": "C", "threshold": "OFF"}],
        "serviceTier": "flex",
    }
    text = json.dumps(camel)
    for name, snake in {
        "systemInstruction": "system_instruction",
        "inlineData": "inline_data",
        "mimeType": "mime_type",
        "fileData": "file_data",
        "fileUri": "file_uri",
        "thoughtSignature": "thought_signature",
        "functionCall": "function_call",
        "functionCallingConfig": "function_calling_config",
        "executableCode": "executable_code",
        "codeExecutionResult": "code_execution_result",
        "functionResponse": "function_response",
        "functionDeclarations": "function_declarations",
        "parametersJsonSchema": "parameters_json_schema",
        "googleSearch": "google_search",
        "toolConfig": "tool_config",
        "allowedFunctionNames": "allowed_function_names",
        "generationConfig": "generation_config",
        "topP": "top_p",
        "topK": "top_k",
        "maxOutputTokens": "max_output_tokens",
        "stopSequences": "stop_sequences",
        "candidateCount": "candidate_count",
        "responseMimeType": "response_mime_type",
        "responseJsonSchema": "response_json_schema",
        "thinkingConfig": "thinking_config",
        "thinkingBudget": "thinking_budget",
        "includeThoughts": "include_thoughts",
        "safetySettings": "safety_settings",
        "serviceTier": "service_tier",
    }.items():
        text = text.replace(f'"{name}"', f'"{snake}"')
    first, second = parse(camel), parse(json.loads(text))
    for request in (first, second):
        for tool in request.tools:
            tool.config = tool.config.replace(b"google_search", b"googleSearch")
    assert first == second
    assert isinstance(second.turns[1].parts[1], Call)
    assert json.loads(second.turns[1].parts[1].args) == {"snake_arg": 1}  # a tool's own names stay


def test_sampling_and_limits() -> None:
    """Numbers may be strings, as proto JSON writes large ones."""
    config = {
        "temperature": 0.5,
        "topP": "0.9",
        "topK": 40.0,
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "stopSequences": ["a", "b"],
        "maxOutputTokens": "100",
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 3,
    }
    sampling = parse({"contents": [USER], "generationConfig": config}).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.5, 0.9, 40, 7)
    assert (sampling.presence, sampling.frequency, sampling.stop) == (0.1, 0.2, ["a", "b"])
    assert (sampling.max_out, sampling.n, sampling.logprobs, sampling.top_logprobs) == (100, 2, True, 3)


@pytest.mark.parametrize(
    ("config", "mode", "level", "budget", "visible"),
    [
        ({"thinkingBudget": -1}, ReasoningMode.AUTO, "", 0, None),
        ({"thinkingBudget": 0}, ReasoningMode.OFF, "", 0, None),
        ({"thinkingBudget": 2048, "includeThoughts": True}, ReasoningMode.BUDGET, "", 2048, True),
        ({"thinkingLevel": "HIGH", "includeThoughts": False}, ReasoningMode.LEVEL, "high", 0, False),
        ({"thinkingLevel": "low"}, ReasoningMode.LEVEL, "low", 0, None),
        ({"thinkingLevel": "low", "thinkingBudget": 99}, ReasoningMode.LEVEL, "low", 99, None),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, ReasoningMode.UNSET, "", 0, None),
        ({"includeThoughts": True}, ReasoningMode.UNSET, "", 0, True),
    ],
)
def test_thinking(config: dict[str, Any], mode: ReasoningMode, level: str, budget: int, visible: bool | None) -> None:
    """Whether to think and whether to show it are two wishes."""
    intent = parse({"contents": [USER], "generationConfig": {"thinkingConfig": config}}).reasoning
    assert (intent.mode, intent.level, intent.budget, intent.visible) == (mode, level, budget, visible)


def test_a_budget_below_minus_one_is_refused() -> None:
    """By name of the member."""
    with pytest.raises(Untranslatable) as caught:
        parse({"contents": [USER], "generationConfig": {"thinkingConfig": {"thinkingBudget": -2}}})
    assert caught.value.param == "generationConfig.thinkingConfig.thinkingBudget"


@pytest.mark.parametrize(
    ("config", "kind", "openapi", "enum"),
    [
        ({"responseMimeType": "application/json"}, OutputKind.JSON_OBJECT, False, False),
        ({"responseMimeType": "text/plain"}, OutputKind.TEXT, False, False),
        ({"responseMimeType": "application/json", "responseSchema": {}}, OutputKind.JSON_SCHEMA, True, False),
        ({"responseMimeType": "application/json", "responseJsonSchema": {}}, OutputKind.JSON_SCHEMA, False, False),
        ({"_responseJsonSchema": {}}, OutputKind.JSON_SCHEMA, False, False),
        ({"responseMimeType": "text/x.enum", "responseSchema": {}}, OutputKind.JSON_SCHEMA, True, True),
    ],
)
def test_structured_output(config: dict[str, Any], kind: OutputKind, openapi: bool, enum: bool) -> None:
    """All spellings that SDKs have used."""
    output = parse({"contents": [USER], "generationConfig": config}).output
    assert (output.kind, output.schema_openapi, output.enum_text) == (kind, openapi, enum)


def test_tools_of_several_entries_are_one_list() -> None:
    """Functions in both schema dialects, and Google's own tools."""
    tools = parse(
        {
            "contents": [USER],
            "tools": [
                {"functionDeclarations": [{"name": "a", "description": "A", "parameters": {"type": "OBJECT"}}]},
                {"googleSearch": {"excludeDomains": ["x.y"]}, "codeExecution": {}},
                {"functionDeclarations": [{"name": "b", "parametersJsonSchema": {"type": "object"}}, {"name": "c"}]},
                {"urlContext": {}, "googleMaps": {}},
            ],
        }
    ).tools
    functions = [(t.name, t.description, t.schema, t.schema_openapi) for t in tools if t.kind is ToolKind.FUNCTION]
    assert functions == [
        ("a", "A", b'{"type": "OBJECT"}', True),
        ("b", "", b'{"type": "object"}', False),
        ("c", "", b"", False),
    ]
    servers = [(t.name, t.server) for t in tools if t.kind is ToolKind.SERVER]
    assert servers == [
        ("googleSearch", "web_search"),
        ("codeExecution", "code"),
        ("urlContext", "web_fetch"),
        ("googleMaps", "other"),
    ]


@pytest.mark.parametrize(
    ("config", "mode", "names", "required"),
    [
        ({"mode": "AUTO"}, ChoiceMode.AUTO, [], False),
        ({"mode": "none"}, ChoiceMode.NONE, [], False),
        ({"mode": "ANY"}, ChoiceMode.REQUIRED, [], False),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, ChoiceMode.NAMED, [("", "f")], False),
        ({"mode": "ANY", "allowedFunctionNames": ["f", "g"]}, ChoiceMode.SUBSET, [("", "f"), ("", "g")], True),
        ({"mode": "VALIDATED"}, ChoiceMode.AUTO, [], False),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["f"]}, ChoiceMode.SUBSET, [("", "f")], False),
    ],
)
def test_tool_choice(config: dict[str, Any], mode: ChoiceMode, names: list[tuple[str, str]], required: bool) -> None:
    """Table 2.7, read from the right."""
    choice = parse({"contents": [USER], "toolConfig": {"functionCallingConfig": config}}).tool_choice
    assert choice is not None
    assert (choice.mode, choice.names, choice.required) == (mode, names, required)


@pytest.mark.parametrize("config", [None, {}, {"functionCallingConfig": {}}])
def test_no_tool_choice(config: object) -> None:
    """Silence stays silence."""
    assert parse({"contents": [USER], "toolConfig": config}).tool_choice is None


# --- contents --------------------------------------------------------------------------------------------------------


def test_case_34_thoughts_never_become_text() -> None:
    """Also unsigned ones."""
    assert of_model({"text": "secret", "thought": True}, {"text": "said"}) == [
        Reasoning(texts=["secret"]),
        Text(text="said"),
    ]


def test_pieces_of_streams_are_put_together_up_to_the_signature() -> None:
    """SDKs keep each chunk as a content of its own; a signature covers the whole thought."""
    request = parse(
        {
            "contents": [
                USER,
                {"role": "model", "parts": [{"text": "Let ", "thought": True}]},
                {"role": "model", "parts": [{"text": "me", "thought": True}]},
                {"role": "model", "parts": [{"text": "", "thought": True, "thoughtSignature": GEM}]},
                {"role": "model", "parts": [{"text": "Hel"}]},
                {"role": "model", "parts": [{"text": "lo"}, {"text": ""}]},
                USER,
            ]
        }
    )
    sig = Sig(provenance=Provenance.GEMINI, kind=SigKind.THINKING, data=GEM)
    assert [turn.role for turn in request.turns] == [Role.USER, Role.ASSISTANT, Role.USER]
    assert request.turns[1].parts == [Reasoning(texts=["Let me"], sigs=[sig]), Text(text="Hello")]


def test_signatures_stay_on_their_parts() -> None:
    """Text with one is not joined to text without."""
    parts = of_model(
        {"text": "a"},
        {"text": "b", "thoughtSignature": GEM},
        {"text": "c"},
        {"functionCall": {"name": "f"}, "thoughtSignature": GEM2},
        {"text": "", "thoughtSignature": GEM},
    )
    assert [type(part) for part in parts] == [Text, Text, Text, Call, Text]
    assert [[sig.data for sig in part.sigs] for part in parts] == [[], [GEM], [], [GEM2], [GEM]]
    assert parts[3].sigs[0].of_call


@pytest.mark.parametrize(
    ("kind", "redacted"), [(SigKind.THINKING, False), (SigKind.REDACTED, True), (SigKind.ENCRYPTED, False)]
)
def test_envelopes_are_opened(kind: SigKind, redacted: bool) -> None:
    """Another vendor's state comes back as what it was, also in the alphabet that Google's SDK sends."""
    claude = Sig(provenance=Provenance.CLAUDE, kind=kind, data="EqQBCkYIBhgCKkCsig")
    envelope = wrap(claude).replace("+", "-").replace("/", "_")
    parts = of_model({"text": "" if redacted else "why", "thought": True, "thoughtSignature": envelope})
    assert parts == [Reasoning(texts=[] if redacted else ["why"], sigs=[claude], redacted=redacted)]


def test_case_98_forged_envelopes_are_dropped() -> None:
    """Input is hostile."""
    assert of_model({"text": "a", "thought": True, "thoughtSignature": "AFRTUDEA!!!"}) == [Reasoning(texts=["a"])]
    assert of_model({"text": "b", "thoughtSignature": "AFRTUDEA"}) == [Text(text="b")]


def test_calls_and_responses() -> None:
    """Ids are optional; arguments stay as they are."""
    body = (
        b'{"contents":[{"role":"model","parts":[{"functionCall":{"id":"1","name":"f","args":{"n":12345678901234567890123}}},'
        b'{"functionCall":{"name":"g"}}]},{"role":"function","parts":[{"functionResponse":{"id":"1","name":"f",'
        b'"response":{"output":"ok"}}},{"functionResponse":{"name":"g","response":{"a":1}}}]}]}'
    )
    request = SPOKE.parse_request(body, make_ctx(provider=CLAUDE))
    assert request.turns[0].parts == [
        Call(call_id="1", name="f", args=b'{"n":12345678901234567890123}'),
        Call(call_id="", name="g"),
    ]
    assert request.turns[1].role is Role.USER
    assert request.turns[1].parts == [
        Result(call_id="1", name="f", parts=[Text(text="ok")]),
        Result(call_id="", name="g", json=b'{"a":1}'),
    ]


@pytest.mark.parametrize(
    ("response", "text", "is_error"),
    [
        ({"output": "o"}, "o", False),
        ({"result": "r"}, "r", False),
        ({"content": "c"}, "c", False),
        ({"error": "e"}, "e", True),
        ({"output": "o", "error": None}, "o", False),
        (None, "", False),
        ("bare", "bare", False),
    ],
)
def test_a_response_that_is_only_text_is_text(response: object, text: str, is_error: bool) -> None:
    """The keys that vendors and SDKs wrap it in."""
    part = {"functionResponse": {"name": "f", "response": response}}
    result = parse({"contents": [{"role": "user", "parts": [part]}]}).turns[0].parts[0]
    assert result == Result(call_id="", name="f", parts=[Text(text=text)], is_error=is_error)


@pytest.mark.parametrize(
    ("response", "is_error"),
    [({"output": {"a": 1}}, False), ({"x": "y"}, False), ({"error": {"code": 5}}, True), ([1], False)],
)
def test_any_other_response_is_its_json(response: object, is_error: bool) -> None:
    """Nothing of it is lost."""
    part = {"functionResponse": {"name": "f", "response": response}}
    result = parse({"contents": [{"role": "user", "parts": [part]}]}).turns[0].parts[0]
    assert isinstance(result, Result)
    assert json.loads(result.json) == response
    assert (result.is_error, result.parts) == (is_error, [])


def test_media_in_a_response() -> None:
    """Beside its text."""
    part = {"functionResponse": {"name": "f", "response": {"output": "see"}, "parts": [{"inlineData": PNG}]}}
    result = parse({"contents": [{"role": "user", "parts": [part]}]}).turns[0].parts[0]
    assert isinstance(result, Result)
    assert result.parts == [Text(text="see"), Media(media=MediaKind.IMAGE, mime="image/png", b64=PNG["data"])]


@pytest.mark.parametrize(
    ("part", "media"),
    [
        (
            {"inlineData": {"mimeType": "image/jpg", "data": "/9j/"}},
            Media(media=MediaKind.IMAGE, mime="image/jpeg", b64="/9j/"),
        ),
        ({"inlineData": {"data": "JVBERi0="}}, Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBERi0=")),
        (
            {"inlineData": {"mimeType": "audio/wav", "data": "UklG", "displayName": "a.wav"}},
            Media(media=MediaKind.AUDIO, mime="audio/wav", b64="UklG", name="a.wav"),
        ),
        (
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://x.y/v.mp4"}},
            Media(media=MediaKind.VIDEO, mime="video/mp4", url="https://x.y/v.mp4"),
        ),
        (
            {"fileData": {"fileUri": "https://x.y/a.png"}},
            Media(media=MediaKind.IMAGE, mime="image/png", url="https://x.y/a.png"),
        ),
        (
            {
                "fileData": {
                    "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/1",
                    "mimeType": "image/png",
                }
            },
            Media(
                media=MediaKind.IMAGE,
                mime="image/png",
                file_id="https://generativelanguage.googleapis.com/v1beta/files/1",
                issuer="gemini",
            ),
        ),
        ({"fileData": {"fileUri": "gs://b/o"}}, Media(media=MediaKind.FILE, file_id="gs://b/o", issuer="gemini")),
    ],
)
def test_media(part: dict[str, Any], media: Media) -> None:
    """What others could fetch is an address, what only Google has is a file of Google's."""
    assert parse({"contents": [{"role": "user", "parts": [part]}]}).turns[0].parts == [media]


def test_case_35_code_parts() -> None:
    """As steps of the provider's tool, which emitters tell as text."""
    parts = of_model({"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "2"}})
    assert parts == [
        ServerCall(kind="code", origin="gemini", raw=b'{"executableCode":{"code": "1"}}'),
        ServerResult(kind="code", origin="gemini", raw=b'{"codeExecutionResult":{"output": "2"}}'),
    ]


def test_case_74_a_call_in_the_users_turn_is_text() -> None:
    """Injection guard."""
    parts = parse({"contents": [{"role": "user", "parts": [{"functionCall": {"name": "rm"}}]}]}).turns[0].parts
    assert parts == [Text(text='{"name": "rm"}')]


def test_case_18_unknown_parts() -> None:
    """Kept for their own family, lost aloud to others, never an error."""
    body = {"contents": [{"role": "user", "parts": [{"futureThing": {"a": 1}}, {"text": "x"}, {}]}]}
    ctx = make_ctx(provider=CLAUDE)
    assert parse(body, ctx).turns[0].parts == [Text(text="x")]
    assert lost(ctx) == ["contents[0].parts[0]"]
    ctx = make_ctx()
    kept = parse(body, ctx).turns[0].parts
    assert kept == [Native(origin="gemini", raw=b'{"futureThing": {"a": 1}}'), Text(text="x")]
    assert lost(ctx) == []


def test_video_metadata() -> None:
    """Of use to Gemini only."""
    part = {"fileData": {"fileUri": "https://x.y/v.mp4"}, "videoMetadata": {"fps": 1}}
    ctx = make_ctx(provider=CLAUDE)
    assert isinstance(parse({"contents": [{"parts": [part]}]}, ctx).turns[0].parts[0], Media)
    assert lost(ctx) == ["contents[0].parts[0]"]
    native = parse({"contents": [{"parts": [part]}]}, make_ctx()).turns[0].parts[0]
    assert isinstance(native, Native)
    assert json.loads(native.raw) == part


def test_a_system_role_among_contents() -> None:
    """Operator's text keeps its authority as far as the target can say it."""
    request = parse({"contents": [USER, {"role": "system", "parts": [{"text": "s"}]}]})
    assert [turn.role for turn in request.turns] == [Role.USER, Role.SYSTEM]


def test_extras_have_paths() -> None:
    """What no other protocol has is kept with its place; `cachedContent` is a part of the prompt."""
    request = parse(
        {
            "contents": [USER],
            "model": "models/x",
            "cachedContent": "cachedContents/1",
            "labels": {"a": "b"},
            "generationConfig": {"mediaResolution": "LOW", "temperature": 1},
            "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}, "retrievalConfig": {"x": 1}},
            "store": False,
            "service_tier": "priority",
        }
    )
    assert request.extras["gemini"] == {
        "cachedContent": b'"cachedContents/1"',
        "labels": b'{"a": "b"}',
        "generationConfig.mediaResolution": b'"LOW"',
        "toolConfig.functionCallingConfig.mode": b'"VALIDATED"',
        "toolConfig.retrievalConfig": b'{"x": 1}',
    }
    assert request.state.store is False
    assert request.tier == "priority"


def test_output_modalities_and_safety_are_kept() -> None:
    """Raw, for their own family."""
    request = parse(
        {
            "contents": [USER],
            "generationConfig": {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"aspectRatio": "1:1"}},
            "safetySettings": [{"category": "A", "threshold": "OFF"}],
        }
    )
    assert request.output.modalities == ["TEXT", "IMAGE"]
    assert request.output.image == b'{"aspectRatio": "1:1"}'
    assert request.safety == b'[{"category": "A", "threshold": "OFF"}]'


def test_a_token_count_holds_its_request_one_level_down() -> None:
    """Part 6: tools and system text count too."""
    inner = {"model": "models/x", "contents": [USER], "systemInstruction": {"parts": [{"text": "s"}]}}
    request = parse({"generateContentRequest": inner})
    assert request.turns[0].parts == [Text(text="hi")]
    assert request.system[0].text == "s"
    assert request.extras == {}


@pytest.mark.parametrize(
    ("contents", "texts"),
    [
        ({"role": "user", "parts": [{"text": "x"}]}, ["x"]),
        ([{"parts": {"text": "x"}}], ["x"]),
        ([{"parts": ["x", {"text": "y"}]}], ["x", "y"]),
        ([{"role": "user", "parts": None}], []),
        ([{"role": 5, "parts": [{"text": 7}]}], ["7"]),
        ([{"parts": [{"text": "x", "thought": "no", "thoughtSignature": 4}]}], ["x"]),
    ],
)
def test_sloppy_contents(contents: object, texts: list[str]) -> None:
    """Proto JSON takes one element for a list; odd values cost nobody their text."""
    turns = parse({"contents": contents}).turns
    assert [part.text for turn in turns for part in turn.parts if isinstance(part, Text)] == texts


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[]", None),
        (b"nonsense", None),
        (b'{"contents":"hi"}', "contents"),
        (b'{"contents":[1]}', "contents[0]"),
        (b'{"contents":[{"parts":5}]}', "contents[0].parts"),
        (b'{"contents":[{"parts":[{"text":"a"},5]}]}', "contents[0].parts[1]"),
        (b'{"contents":[{"role":"model","parts":[{"functionCall":{}}]}]}', "contents[0].parts[0]"),
        (b'{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png"}}]}]}', "contents[0].parts[0]"),
        (b'{"contents":[{"parts":[{"fileData":{}}]}]}', "contents[0].parts[0]"),
        (b'{"contents":[],"systemInstruction":5}', "systemInstruction"),
        (b'{"contents":[],"tools":"x"}', "tools"),
        (b'{"contents":[],"tools":[{"functionDeclarations":[{}]}]}', "tools[0].functionDeclarations[0]"),
        (
            b'{"contents":[],"toolConfig":{"functionCallingConfig":{"mode":"SOMETIMES"}}}',
            "toolConfig.functionCallingConfig.mode",
        ),
        (b'{"contents":[],"generationConfig":[]}', "generationConfig"),
        (b'{"contents":[],"generationConfig":{"temperature":"hot"}}', "generationConfig.temperature"),
        (b'{"contents":[],"generationConfig":{"maxOutputTokens":1.5}}', "generationConfig.maxOutputTokens"),
        (b'{"contents":[],"generationConfig":{"stopSequences":[1]}}', "generationConfig.stopSequences"),
        (
            b'{"contents":[],"generationConfig":{"thinkingConfig":{"thinkingBudget":"x"}}}',
            "generationConfig.thinkingConfig.thinkingBudget",
        ),
    ],
)
def test_what_cannot_be_read_is_named(body: bytes, param: str | None) -> None:
    """A 400 says where."""
    with pytest.raises(MalformedRequest) as caught:
        SPOKE.parse_request(body, make_ctx(provider=CHAT))
    assert caught.value.param == param


def test_case_20_byte_order_marks_and_lone_surrogates() -> None:
    """JavaScript clients cut emoji in half."""
    body = b'\xef\xbb\xbf{"contents":[{"role":"user","parts":[{"text":"a\\ud83d"}]}]}'
    assert SPOKE.parse_request(body, make_ctx(provider=CLAUDE)).turns[0].parts == [Text(text="a\ufffd")]


def test_a_part_that_says_two_things() -> None:
    """Against the vendor's rule, but nothing of it is lost."""
    assert of_model({"text": "a", "functionCall": {"name": "f"}}) == [Text(text="a"), Call(call_id="", name="f")]


def test_calls_of_odd_types() -> None:
    """What cannot be used counts as absent, arguments that are no object are kept."""
    call = {"id": 5, "name": "f", "args": [1], "willContinue": "no"}
    assert of_model({"functionCall": call}) == [Call(call_id="", name="f", args=b"[1]")]
    request = parse({"contents": {"parts": {"functionCall": {"name": "f"}}}})
    assert request.turns[0].parts == [Text(text='{"name": "f"}')]
