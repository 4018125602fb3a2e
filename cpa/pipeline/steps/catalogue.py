"""All built-in steps, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cpa.config.schema import FrozenJson
from cpa.formats.names import Format
from cpa.pipeline.steps import answers, dials, fields, messages, tools
from cpa.pipeline.steps.values import (
    BOTH_SIDES,
    EVERY_FORMAT,
    REQUEST_ONLY,
    RESPONSE_ONLY,
    BuiltIn,
    Definition,
    Side,
    StepContext,
    for_formats,
)


def _strip_reasoning(_setting: FrozenJson) -> BuiltIn:
    request, response = for_formats(dials.strip_reasoning), for_formats(answers.strip_reasoning)

    def step(body: bytes, context: StepContext) -> bytes:
        return (request if context.side is Side.REQUEST else response)(body, context)

    return step


_ALL: Final = (
    Definition(
        name="strip-cache-control",
        sides=REQUEST_ONLY,
        formats=frozenset({Format.OPENAI, Format.CLAUDE}),
        setting="",
        make=lambda _setting: messages.strip_cache_control,
        summary="remove Claude's cache markers",
    ),
    Definition(
        name="cap-output-tokens",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting=dials.LIMIT,
        make=dials.make_cap,
        summary="lower the limit of output tokens, or set one",
    ),
    Definition(
        name="set",
        sides=BOTH_SIDES,
        formats=EVERY_FORMAT,
        setting=fields.VALUES,
        make=fields.make_set,
        summary="put values at paths",
    ),
    Definition(
        name="default",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting=fields.VALUES,
        make=fields.make_default,
        summary="put values at paths where nothing is",
    ),
    Definition(
        name="strip",
        sides=BOTH_SIDES,
        formats=EVERY_FORMAT,
        setting=fields.PATHS,
        make=fields.make_strip,
        summary="remove what is at paths",
    ),
    Definition(
        name="map-roles",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting=messages.ROLES,
        make=messages.make_map_roles,
        summary="rename roles of messages",
    ),
    Definition(
        name="drop-parameters",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting=fields.NAMES,
        make=fields.make_drop_parameters,
        summary="remove parameters that a provider does not take",
    ),
    Definition(
        name="keep-known-parameters",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting="",
        make=fields.make_keep_known,
        summary="remove parameters that the protocol does not have",
    ),
    Definition(
        name="system-prompt",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting=messages.PROMPT,
        make=messages.make_system_prompt,
        summary="add to the system prompt, or replace it",
    ),
    Definition(
        name="force-tool-choice",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting=tools.CHOICE,
        make=tools.make_force_tool_choice,
        summary="say whether and which tool has to be called",
    ),
    Definition(
        name="only-tools",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting=tools.PATTERNS,
        make=tools.make_only_tools,
        summary="remove all other tools",
    ),
    Definition(
        name="strip-images",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting="",
        make=lambda _setting: messages.strip_images,
        summary="replace images by a note",
    ),
    Definition(
        name="strip-reasoning",
        sides=BOTH_SIDES,
        formats=EVERY_FORMAT,
        setting="",
        make=_strip_reasoning,
        summary="remove settings of reasoning and thoughts in the history; of answers, the thoughts",
    ),
    Definition(
        name="strip-identity",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting="",
        make=lambda _setting: messages.strip_identity,
        summary="remove what tells users apart",
    ),
    Definition(
        name="reasoning",
        sides=REQUEST_ONLY,
        formats=EVERY_FORMAT,
        setting=dials.EFFORT,
        make=dials.make_reasoning,
        summary="set how much a model thinks",
    ),
    Definition(
        name="replace-text",
        sides=RESPONSE_ONLY,
        formats=EVERY_FORMAT,
        setting=answers.PAIRS,
        make=answers.make_replace_text,
        summary="replace plain strings in what the model says",
    ),
)
STEPS: Final[Mapping[str, Definition]] = MappingProxyType({definition.name: definition for definition in _ALL})
"""Name to step, in the order of the documentation."""
