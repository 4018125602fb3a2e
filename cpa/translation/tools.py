"""Rules for tools that exist once: names, arguments, choice, results, repair of the history (2.6 to 2.8).

What spokes import; the rules themselves live in the modules ``tool_*``.
"""

from cpa.translation.tool_args import (
    EMPTY_SCHEMA,
    args_object,
    args_string,
    repair_arguments,
    unwrap_custom,
    wrapped_schema,
    written_object,
    written_string,
)
from cpa.translation.tool_choice import allowed_tools, check_choice
from cpa.translation.tool_names import NameRule, build_names, descriptions, flat_name, merge_tools
from cpa.translation.tool_repair import repair
from cpa.translation.tool_results import error_text, media_intro, result_text, split_result_media
from cpa.translation.tool_survey import RepairTarget, survey, without_reasoning

__all__ = [
    "EMPTY_SCHEMA",
    "NameRule",
    "RepairTarget",
    "allowed_tools",
    "args_object",
    "args_string",
    "build_names",
    "check_choice",
    "descriptions",
    "error_text",
    "flat_name",
    "media_intro",
    "merge_tools",
    "repair",
    "repair_arguments",
    "result_text",
    "split_result_media",
    "survey",
    "unwrap_custom",
    "without_reasoning",
    "wrapped_schema",
    "written_object",
    "written_string",
]
