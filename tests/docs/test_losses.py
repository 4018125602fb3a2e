"""The table of losses in docs/protocols.md is what translation does."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from cpa.cli_translate import Job, translated_request
from cpa.config.schema import Config
from cpa.errors import CpaError
from cpa.formats.names import Format
from cpa.pipeline.chains import standard
from cpa.pipeline.plan import Plan
from cpa.pipeline.trace import Trace
from tests.docs.page import DOCS

ROW = re.compile(r"^\| `(?P<source>[\w-]+)` \| `(?P<target>[\w-]+)` \| (?P<lost>.*) \|$", re.MULTILINE)

BODIES: Mapping[str, Mapping[str, Any]] = {
    "openai": {
        "model": "m",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "stop": ["x"],
        "seed": 5,
        "presence_penalty": 1,
        "frequency_penalty": 1,
        "logit_bias": {"1": 2},
        "logprobs": True,
        "top_logprobs": 2,
        "user": "u",
        "metadata": {"a": "b"},
        "prediction": {"type": "content", "content": "x"},
        "response_format": {"type": "json_object"},
        "service_tier": "auto",
        "verbosity": "low",
    },
    "openai-response": {
        "model": "m",
        "input": "hi",
        "max_output_tokens": 100,
        "metadata": {"a": "b"},
        "truncation": "auto",
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "tools": [{"type": "file_search", "vector_store_ids": ["a"]}, {"type": "web_search"}],
        "max_tool_calls": 2,
    },
    "claude": {
        "model": "m",
        "max_tokens": 100,
        "top_k": 5,
        "stop_sequences": ["x"],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
        ],
        "container": "c",
        "context_management": {"edits": []},
        "mcp_servers": [{"type": "url", "url": "https://example.org", "name": "a"}],
        "tools": [
            {"type": "computer_20250124", "name": "computer", "display_width_px": 1, "display_height_px": 1},
        ],
    },
    "gemini": {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {
            "seed": 3,
            "topK": 5,
            "stopSequences": ["x"],
            "presencePenalty": 1,
            "frequencyPenalty": 1,
            "responseLogprobs": True,
            "responseModalities": ["TEXT", "IMAGE"],
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
        },
    },
}
"""With everything in them that the table speaks of."""

PAIRS = [(source, target) for source in BODIES for target in BODIES if source != target]


def rows() -> dict[tuple[str, str], set[str]]:
    """Of the page's table: pair of protocols to members that are lost."""
    page = (DOCS / "protocols.md").read_text(encoding="utf-8")
    return {
        (found["source"], found["target"]): set(re.findall(r"`([\w.]+)`", found["lost"])) - {"json_object"}
        for found in ROW.finditer(page)
    }


async def lost(source: str, target: str, body: Mapping[str, Any]) -> set[str]:
    """What translation says; places in lists by the member that they are in or at."""
    job = Job(
        config=Config(),
        chain=standard(Format(source), Format(target)),
        client=Format(source),
        provider=Format(target),
        response=False,
        stream=False,
        model="claude-sonnet-4-5" if target == "claude" else "some-model",
        body=json.dumps(body).encode(),
        plan=Plan.build(),
        trace=Trace(),
    )
    done = await translated_request(job)
    paths = {loss.path for context in done.contexts for loss in context.losses}
    return {re.sub(r"^messages.*\.|\[\d+\]$", "", path) for path in paths}


@pytest.mark.parametrize(("source", "target"), PAIRS)
async def test_losses_are_those_of_the_page(source: str, target: str) -> None:
    assert await lost(source, target, BODIES[source]) == rows()[source, target]


def test_the_table_has_all_pairs() -> None:
    assert sorted(rows()) == sorted(PAIRS)


@pytest.mark.parametrize(
    ("source", "target", "more"),
    [
        ("openai", "claude", {"n": 2}),
        ("gemini", "claude", {"cachedContent": "cachedContents/x"}),
        ("gemini", "openai", {"cachedContent": "cachedContents/x"}),
    ],
    ids=["choices", "cached content to claude", "cached content to openai"],
)
async def test_what_is_refused(source: str, target: str, more: Mapping[str, Any]) -> None:
    with pytest.raises(CpaError) as caught:
        await lost(source, target, {**BODIES[source], **more})
    assert caught.value.http_status == 400
