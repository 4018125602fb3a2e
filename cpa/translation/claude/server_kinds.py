"""What Claude's server tools are called, and what they do (translation 2.15)."""

from typing import Final

_WORDS: Final = (
    ("web_search", "web_search"),
    ("web_fetch", "web_fetch"),
    ("code_execution", "code"),
    ("bash_code_execution", "code"),
    ("text_editor_code_execution", "code"),
    ("mcp", "mcp"),
)

SEARCH_TYPE: Final = "web_search_20250305"
SEARCH_NAME: Final = "web_search"
CODE_TYPE: Final = "code_execution_20250825"
CODE_NAME: Final = "code_execution"
RESULT_SUFFIX: Final = "_tool_result"
CALL_TYPES: Final = frozenset({"server_tool_use", "mcp_tool_use"})


def server_kind(word: str) -> str:
    """`ir.ServerCall.kind` of the name of a tool, or of the type of a tool or of a result."""
    return next((kind for prefix, kind in _WORDS if word.startswith(prefix)), "other")


def call_kind(block_type: str, name: str) -> str:
    """The same of a call's block."""
    return "mcp" if block_type == "mcp_tool_use" else server_kind(name)


def is_result(block_type: str) -> bool:
    """Whether a block is the result of a server tool."""
    return block_type.endswith(RESULT_SUFFIX) and block_type != "tool_result"
