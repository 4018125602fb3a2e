"""Values as YAML text that our loader, Go's and YAML 1.1's read alike.

What any of them might take for something else than text (``yes``, ``1:30``, ``0123``, dates, ``*x``) is quoted, and
quoted text is one line of printable characters.
"""

import math
import re
from collections.abc import Iterator
from typing import Final

import yaml

from cpa.config.document import plain_value
from cpa.config.tree import WrittenFloat, WrittenInt
from cpa.jsontypes import JsonValue

_PLAIN: Final = re.compile(r"[A-Za-z0-9_/](?:[A-Za-z0-9_./@%+$*~=-]|:(?=[A-Za-z0-9_/])| (?=[A-Za-z0-9_/]))*")
_ESCAPED: Final = re.compile('["\\\\]|[^ -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]')
_SHORT: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_STR_TAG: Final = "tag:yaml.org,2002:str"
_RESOLVER: Final = yaml.resolver.Resolver()


def spelled_text(text: str, *, style: str = "") -> str:
    """*text* as a scalar of one line, in the quoting *style* of what it replaces where that will do."""
    if style not in ("'", '"') and _may_be_plain(text):
        return text
    if style == "'" and not _ESCAPED.search(text.replace('"', "").replace("\\", "")):
        return "'" + text.replace("'", "''") + "'"
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _may_be_plain(text: str) -> bool:
    if not _PLAIN.fullmatch(text) or plain_value(text) is not text:
        return False
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return bool(tag == _STR_TAG)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"


def spelled(value: JsonValue, *, style: str = "") -> str:
    """*value* on one line; lists and mappings in brackets."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case WrittenInt() | WrittenFloat():
            return value.text
        case int():
            return str(int(value))
        case float():
            return _spelled_float(value)
        case str():
            return spelled_text(value, style=style)
        case list():
            return "[" + ", ".join(spelled(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{spelled_text(key)}: {spelled(item)}" for key, item in value.items()) + "}"


def _spelled_float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return repr(value)


def lines_of(value: JsonValue, *, step: int, offset: int) -> Iterator[str]:
    """*value*, a list or mapping that is not empty, in block style.

    Args:
      step: columns by which mappings in mappings are indented.
      offset: columns by which the dashes of a list are indented below its key.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from entry_lines(key, item, step=step, offset=offset)
    elif isinstance(value, list):
        for item in value:
            yield from item_lines(item, step=step, offset=offset)


def entry_lines(key: str, value: JsonValue, *, step: int, offset: int) -> Iterator[str]:
    """One entry of a mapping."""
    name = spelled_text(key)
    if not isinstance(value, list | dict) or not value:
        yield f"{name}: {spelled(value)}"
        return
    yield f"{name}:"
    pad = " " * (offset if isinstance(value, list) else step)
    yield from (pad + line for line in lines_of(value, step=step, offset=offset))


def item_lines(value: JsonValue, *, step: int, offset: int) -> Iterator[str]:
    """One item of a list."""
    if not isinstance(value, dict) or not value:
        yield f"- {spelled(value)}"
        return
    for number, line in enumerate(lines_of(value, step=step, offset=offset)):
        yield f"{'  ' if number else '- '}{line}"
