"""Changing members of a credential file as operators ask for it (``PATCH /auth-files/fields``, proxy 6.7). Pure.

A file is edited member by member, on the text of each: what is not named keeps its bytes, so that a number with forty
digits, the order of members and the way in which they are laid out survive an edit of something else.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from cpa.credentials.files import check_weight
from cpa.credentials.members import LEGACY_NAMES, renamed, settings_of
from cpa.credentials.writing import MAX_FILE_BYTES, CredentialFileError, UnfinishedText
from cpa.types import JsonObject, JsonValue

Members: TypeAlias = dict[str, msgspec.Raw]
"""An object of which each value is the text that stands in the file."""

MAX_PARTS: Final = 16
"""Of a dotted name; a model's ``thinking`` is the deepest that means something."""
MAX_NAME_CHARS: Final = 256
MAX_FIELDS: Final = 200
"""Of one request; there are some twenty that mean something."""
HEADERS: Final = "headers"

_MEMBERS = msgspec.json.Decoder(Members)
_PRETTY = re.compile(rb"\s*\{[ \t]*\r?\n([ \t]*)\"")
_SPACED = re.compile(rb"\s*\{\s*\"[^\"]*\":[ ]")
MAX_INDENT: Final = 8


def patched_text(text: bytes, fields: Mapping[str, JsonValue]) -> bytes:
    """*text*, that of a credential file, with *fields* changed; *text* itself when they say nothing new.

    Args:
      fields: member to its new value; None removes it. ``a.b`` is member ``b`` of the object ``a``. ``headers`` is
        merged header by header, an empty value removes one.

    Raises: CredentialFileError for fields that make no sense, or that would make the file unusable; UnfinishedText when
      *text* is no JSON object.
    """
    try:
        members = _MEMBERS.decode(text)
    except (ValueError, RecursionError) as exc:
        raise UnfinishedText("the file holds no whole JSON object", http_status=409) from exc
    before = dict(members)
    touched = {_apply(members, name, value) for name, value in fields.items()}
    if {name: bytes(value) for name, value in members.items()} == {n: bytes(v) for n, v in before.items()}:
        return text
    _judge(members, touched)
    changed = laid_out(members, like=text)
    if len(changed) > MAX_FILE_BYTES:
        raise CredentialFileError(f"expected a file of at most {MAX_FILE_BYTES} bytes, got {len(changed)}")
    return changed


def laid_out(members: Members, *, like: bytes) -> bytes:
    """The text of *members*, with line breaks and indentation as in *like*."""
    text = msgspec.json.encode(members)
    pretty = _PRETTY.match(like)
    if pretty is not None:
        width = 2 if b"\t" in pretty[1] else min(max(len(pretty[1]), 1), MAX_INDENT)
        text = msgspec.json.format(text, indent=width)
    elif _SPACED.match(like):
        text = msgspec.json.format(text, indent=0)
    return text + b"\n" if like.endswith(b"\n") else text


def _apply(members: Members, name: str, value: JsonValue) -> str:
    """Change one field. Returns: the member that is concerned. Raises: CredentialFileError."""
    path = _path(name)
    top = path[0]
    old = top.replace("_", "-")
    if old != top and old in LEGACY_NAMES and old in members:
        members.setdefault(top, members.pop(old))  # or it would come back with the removal of today's name
    if top == HEADERS:
        _apply_headers(members, path[1:], value)
        return top
    if len(path) == 1:
        if top == "weight":
            value = _weight(value)
        elif top == "request_retry" and value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise CredentialFileError("request_retry: expected an integer or null")
    _set(members, path, value)
    return top


def _path(name: str) -> Sequence[str]:
    """The members that *name* leads through, with the names of today. Raises: CredentialFileError."""
    if not name.isprintable() or len(name) > MAX_NAME_CHARS:
        raise CredentialFileError("invalid field name")
    top, dot, rest = name.partition(".")
    if top in LEGACY_NAMES:
        top = top.replace("-", "_")
    # A header's name may have dots of its own.
    inner = [rest] if top == HEADERS else rest.split(".")
    path = [top, *inner] if dot else [top]
    if not all(part.strip() for part in path) or len(path) > MAX_PARTS:
        raise CredentialFileError(f"invalid field name {name!r}: expected names, with dots between them")
    return path


def _weight(value: JsonValue) -> JsonValue:
    """Raises: CredentialFileError."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise CredentialFileError("weight: expected an integer or null")
    check_weight(value)
    return max(0, value) if isinstance(value, int) else None


def _set(members: Members, path: Sequence[str], value: JsonValue) -> None:
    """Put *value* at *path*; None removes what is there. Objects on the way are made if missing."""
    name, rest = path[0], path[1:]
    if not rest:
        if value is None:
            members.pop(name, None)
        else:
            members[name] = _raw(value)
        return
    present = members.get(name)
    if present is None or bytes(present) == b"null":
        if value is None:
            return
        inner: Members = {}
    else:
        inner = _object(present, name)
    _set(inner, rest, value)
    members[name] = msgspec.Raw(msgspec.json.encode(inner))


def _object(value: msgspec.Raw, name: str) -> Members:
    """Raises: CredentialFileError."""
    try:
        return _MEMBERS.decode(value)
    except (ValueError, RecursionError):
        raise CredentialFileError(f"{name}: expected an object, got something else") from None


def _apply_headers(members: Members, rest: Sequence[str], value: JsonValue) -> None:
    """Merge, names of headers compared without case: two spellings would both be sent."""
    if not rest and value is None:
        members.pop(HEADERS, None)
        return
    changes = {rest[0]: value} if rest else value
    if not isinstance(changes, dict):
        raise CredentialFileError("headers: expected an object of texts")
    present = members.get(HEADERS)
    headers = {} if present is None or bytes(present) == b"null" else _object(present, HEADERS)
    for name, text in changes.items():
        if text is not None and not isinstance(text, str):
            raise CredentialFileError(f"headers.{name}: expected a text")
        for known in [known for known in headers if known.lower() == name.strip().lower() and known != name]:
            del headers[known]
        if text is None or not text.strip():
            headers.pop(name, None)
        else:
            headers[name] = _raw(text)
    if headers:
        members[HEADERS] = msgspec.Raw(msgspec.json.encode(headers))
    else:
        members.pop(HEADERS, None)


def _raw(value: JsonValue) -> msgspec.Raw:
    """Raises: CredentialFileError."""
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except (ValueError, OverflowError, RecursionError):  # lone surrogates, numbers without end, or depth
        raise CredentialFileError("expected values that a JSON file can hold") from None


def _judge(members: Members, touched: set[str]) -> None:
    """Refuse values of *touched* members that nobody could use. Raises: CredentialFileError.

    What was wrong before, elsewhere in the file, is not this edit's fault.
    """
    plain: JsonObject = {name: msgspec.json.decode(members[name]) for name in touched if name in members}
    problems = settings_of(renamed(plain)).problems
    if problems:
        raise CredentialFileError("; ".join(map(str, problems)))
