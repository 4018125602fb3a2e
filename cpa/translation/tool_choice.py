"""Which tools a request may use (2.7)."""

from cpa.translation.ir import ChoiceMode, IRRequest, Tool, ToolKind
from cpa.translation.loss import Untranslatable


def allowed_tools(request: IRRequest) -> list[Tool]:
    """The tools to send to a target without subsets: those of a subset choice, else all."""
    choice = request.tool_choice
    if choice is None or choice.mode is not ChoiceMode.SUBSET:
        return request.tools
    wanted = set(choice.names)
    return [tool for tool in request.tools if wanted & _known_as(tool)]


def check_choice(request: IRRequest) -> None:
    """What a choice names must exist. A bare name that only one namespace has is completed in place.

    Raises: Untranslatable.
    """
    choice = request.tool_choice
    if choice is None or choice.mode not in (ChoiceMode.NAMED, ChoiceMode.SUBSET, ChoiceMode.SERVER):
        return
    if not choice.names:
        raise Untranslatable("tool_choice", "tool_choice names no tool")
    known = {key for tool in request.tools for key in _known_as(tool)}
    for place, (namespace, name) in enumerate(choice.names):
        if (namespace, name) in known:
            continue
        inside = [key for key in known if not namespace and key[0] and key[1] == name]
        if len(inside) != 1:
            spelled = f"{namespace}.{name}" if namespace else name
            raise Untranslatable("tool_choice", f"tool_choice names a tool that is not in tools: {spelled[:200]}")
        choice.names[place] = inside[0]


def _known_as(tool: Tool) -> set[tuple[str, str]]:
    if tool.kind is ToolKind.SERVER:
        return {("", tool.server), ("", tool.name)} - {("", "")}
    return {(tool.namespace, tool.name)}
