"""Steps of server tools as text for other providers (2.15).

A provider's own tools leave items in the history that no other provider can read. The model is told in a few lines what
was done and what came of it; encrypted contents go.
"""

import re
from collections.abc import Iterator
from typing import Final

from cpa.formats.json import JsonError, decode
from cpa.translation.ir import Native, ServerCall, ServerResult
from cpa.types import JsonObject, JsonValue

MAX_SOURCES: Final = 50
"""Pages that a search is told to have found."""
MAX_TEXT_CHARS: Final = 20_000
"""Of what a tool printed or fetched; it was read in its turn, now it is only remembered."""


_BACKTICKS = re.compile("`+")


def summary(part: ServerCall | ServerResult | Native) -> str:
    """What the step did or gave, in a few lines; empty if there is nothing to tell."""
    try:
        item = decode(part.raw)
    except JsonError:
        return ""
    if not isinstance(item, dict):
        return ""
    kind = _string(item, "type")
    lines = _by_type(kind, item) if kind else _gemini(item)
    return "\n".join(line for line in lines if line)


def _by_type(kind: str, item: JsonObject) -> Iterator[str]:
    match kind:
        case "web_search_call":
            yield from _responses_search(item)
        case "server_tool_use" | "mcp_tool_use":
            yield from _claude_call(item)
        case "web_search_tool_result":
            yield from _sources(item.get("content"))
        case "web_fetch_tool_result":
            yield from _claude_page(_object(item, "content"))
        case _ if kind.endswith("code_execution_tool_result"):
            yield from _output(_object(item, "content"))
        case "mcp_tool_result":
            yield _fenced(_joined(item.get("content")), "")
        case "file_search_call":
            yield f"[file search: {', '.join(_strings(item.get('queries')))}]"
            yield from _sources(item.get("results"))
        case "code_interpreter_call":
            yield _fenced(_string(item, "code"), "python")
            for output in _objects(item.get("outputs")):
                yield _fenced(_string(output, "logs"), "")
        case "mcp_call":
            yield f"[tool {_string(item, 'server_label')}.{_string(item, 'name')}: {_cut(_string(item, 'arguments'))}]"
            yield _fenced(_string(item, "output") or _string(item, "error"), "")
        case "local_shell_call":
            yield _fenced(" ".join(_strings(_object(item, "action").get("command"))), "sh")
        case "shell_call":
            yield _fenced("\n".join(_strings(_object(item, "action").get("commands"))), "sh")
        case "apply_patch_call":
            operation = _object(item, "operation")
            yield f"[{_string(operation, 'type') or 'patch'}: {_string(operation, 'path')}]"
            yield _fenced(_string(operation, "diff"), "diff")
        case "computer_call":
            yield f"[computer: {_string(_object(item, 'action'), 'type')}]"
        case "tool_search_call":
            yield "[tool search]"
        case "local_shell_call_output" | "shell_call_output" | "apply_patch_call_output":
            yield _fenced(_string(item, "output") or _joined(item.get("output")), "")


def _gemini(item: JsonObject) -> Iterator[str]:
    """Parts of Gemini have no type, only one member that says what they are."""
    code = _object(item, "executableCode") or _object(item, "executable_code")
    result = _object(item, "codeExecutionResult") or _object(item, "code_execution_result")
    if not code and not result:  # the part's inner object alone
        code = item if "code" in item else {}
        result = item if "outcome" in item else {}
    if code:
        language = _string(code, "language").lower()
        yield _fenced(_string(code, "code"), "" if language.startswith("language_") else language)
    if result:
        outcome = _string(result, "outcome").removeprefix("OUTCOME_").lower()
        if outcome not in ("", "ok", "unspecified"):
            yield f"[code execution: {outcome}]"
        yield _fenced(_string(result, "output"), "")


def _responses_search(item: JsonObject) -> Iterator[str]:
    action = _object(item, "action")
    queries = [_string(action, "query")] if _string(action, "query") else _strings(action.get("queries"))
    match _string(action, "type"):
        case "open_page":
            yield f"[web page: {_string(action, 'url')}]"
        case "find" | "find_in_page":
            yield f"[web page: {_string(action, 'url')}, searched for: {_string(action, 'pattern')}]"
        case _:
            yield f"[web search: {', '.join(queries)}]"
    yield from _sources(action.get("sources"))


def _claude_call(item: JsonObject) -> Iterator[str]:
    name = _string(item, "name")
    given = _object(item, "input")
    if name == "web_search":
        yield f"[web search: {_string(given, 'query')}]"
    elif name == "web_fetch":
        yield f"[web page: {_string(given, 'url')}]"
    elif "code" in given:
        yield _fenced(_string(given, "code"), "python")
    elif "command" in given and name.startswith("bash"):
        yield _fenced(_string(given, "command"), "sh")
    else:
        told = ", ".join(f"{key}: {value}" for key, value in given.items() if isinstance(value, str))
        yield f"[tool {name}: {_cut(told)}]"


def _claude_page(content: JsonObject) -> Iterator[str]:
    if "error_code" in content:
        yield f"[web page not available: {_string(content, 'error_code')}]"
        return
    document = _object(content, "content")
    source = _object(document, "source")
    heading = " — ".join(filter(None, (_string(document, "title"), _string(content, "url"))))
    yield heading
    if _string(source, "type") == "text":
        yield _fenced(_string(source, "data"), "")


def _output(content: JsonObject) -> Iterator[str]:
    if "error_code" in content:
        yield f"[code execution: {_string(content, 'error_code')}]"
    printed = "\n".join(filter(None, (_string(content, "stdout"), _string(content, "stderr"))))
    yield _fenced(printed or _string(content, "content"), "")
    code = content.get("return_code")
    if isinstance(code, int) and code:
        yield f"[exit code {code}]"


def _sources(found: JsonValue) -> Iterator[str]:
    """``title — url`` lines."""
    if isinstance(found, dict) and "error_code" in found:
        yield f"[web search failed: {_string(found, 'error_code')}]"
    for source in _objects(found)[:MAX_SOURCES]:
        title = _string(source, "title") or _string(source, "filename")
        yield " — ".join(filter(None, (title, _string(source, "url") or _cut(_string(source, "text")))))


def _joined(content: JsonValue) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for part in _objects(content):
        printed = "\n".join(filter(None, (_string(part, "stdout"), _string(part, "stderr"))))
        texts.append(_string(part, "text") or printed)
    return "\n".join(filter(None, texts))


def _fenced(text: str, language: str) -> str:
    """A code block whose fence does not occur in it; nothing for nothing."""
    if not text.strip():
        return ""
    longest = max(map(len, _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{_cut(text.rstrip(chr(10)))}\n{fence}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + "…"


def _string(item: JsonObject, key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""


def _object(item: JsonObject, key: str) -> JsonObject:
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def _objects(value: JsonValue) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _strings(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
