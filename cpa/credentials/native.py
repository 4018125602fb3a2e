"""Credential files that need no plugin: keys of known providers, one file each (proxy 3.4, the better way). Pure.

What the proxy does not take are the tokens that vendors' own programs keep in such files: they are not for others.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from cpa.credentials.from_config import provider_key
from cpa.credentials.members import FileSettings, Problem
from cpa.credentials.model import API_KEY, OAUTH
from cpa.credentials.service_account import DEFAULT_LOCATION, ServiceAccount, parse_service_account
from cpa.types import JsonValue

COMPATIBLE: Final = "openai-compatible"
"""``type`` of a file for an endpoint that speaks OpenAI's protocol; ``name`` says which, as in the configuration."""
KEY_OR_URL: Final = frozenset({"gemini", "gemini-interactions", "claude"})
URL: Final = frozenset({"codex"})
KEY: Final = frozenset({"xai"})
VERTEX: Final = "vertex"
"""What they cannot do without (proxy 3.2)."""


@attrs.frozen(kw_only=True)
class NativeParts:
    """What of a file is for the executor.

    Attributes:
      provider: provider key.
      kind: `API_KEY` or `OAUTH`.
      service_account: makes the tokens of a credential without key.
    """

    provider: str
    kind: str = API_KEY
    project: str = ""
    location: str = ""
    service_account: ServiceAccount | None = attrs.field(default=None, repr=False)


def native_parts(
    kind: str, members: Mapping[str, JsonValue], settings: FileSettings
) -> NativeParts | tuple[Problem, ...]:
    """What is for the executor in a file of type *kind*, or why there is nothing.

    Args:
      kind: in lower case.
      members: with the names of today.

    Returns: problems when the file cannot be used. None of them: its type is none that the proxy serves by itself, or
      its content belongs to a vendor's own program.
    """
    if is_compatible(kind):
        return _needs_url(settings) or NativeParts(provider=compatible_provider(kind, members))
    if kind == VERTEX and members.get("service_account") is not None:
        return _vertex(members)
    if kind not in KEY_OR_URL | URL | KEY | {VERTEX}:
        return ()
    if not settings.api_key and not settings.base_url:
        if members.get("access_token") is not None or members.get("token") is not None or kind == "gemini":
            return ()
        return (Problem("api_key", "expected a key, got nothing"),)
    if kind in URL and not settings.base_url:
        return _needs_url(settings)
    if kind in KEY | {VERTEX} and not settings.api_key:
        return (Problem("api_key", "expected a key, got nothing"),)
    return NativeParts(provider=kind)


def is_native(kind: str) -> bool:
    """Whether files of type *kind*, in lower case, are such that the proxy serves without a plugin."""
    return is_compatible(kind) or kind in KEY_OR_URL | URL | KEY | {VERTEX}


def is_compatible(kind: str) -> bool:
    """Whether *kind* is an endpoint of OpenAI's protocol."""
    return kind in (COMPATIBLE, provider_key("")) or kind.startswith(f"{COMPATIBLE}-")


def compatible_provider(kind: str, members: Mapping[str, JsonValue]) -> str:
    """Provider key: as the type says, else made of ``name`` as that of the configuration's entries."""
    if kind.startswith(f"{COMPATIBLE}-"):
        return kind
    name = members.get("name")
    return provider_key(name.strip() if isinstance(name, str) and name.isprintable() and len(name) <= 128 else "")


def _needs_url(settings: FileSettings) -> tuple[Problem, ...]:
    if settings.base_url:
        return ()
    return (Problem("base_url", "expected an http or https URL with a host, got nothing"),)


def _vertex(members: Mapping[str, JsonValue]) -> NativeParts | tuple[Problem, ...]:
    parsed = parse_service_account(members["service_account"])
    if isinstance(parsed, Problem):
        return (parsed,)
    project = members.get("project_id") or parsed.project
    location = members.get("location") or DEFAULT_LOCATION
    for name, value in (("project_id", project), ("location", location)):
        if not isinstance(value, str) or not value or len(value) > 128 or not set(value) <= _IN_PATHS:
            what = "a project" if name == "project_id" else "a location"
            return (Problem(name, f"expected {what} of Google's cloud (letters, digits and . : _ -)"),)
    return NativeParts(
        provider=VERTEX, kind=OAUTH, project=str(project), location=str(location), service_account=parsed
    )


_IN_PATHS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_-")
"""A location becomes part of a host name: nothing in it may lead elsewhere."""
