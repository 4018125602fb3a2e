"""Credentials as plugins see them, and back: `wire.AuthData` to files and to `Credential` (plugin-abi.md 4.0).

Three forms of one thing. A plugin speaks of *storage* (an object of its own), *metadata* and *attributes*. The file
has one object: storage overlaid with metadata, ``type`` on top. A `Credential` carries what the proxy itself needs of
these, and the three for the plugin, where storage is the file's object by then.

What a plugin says is hostile: names are checked before they are paths, ids and texts are bounded, headers are judged.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from cpa.abi import wire
from cpa.abi.kinds import ZERO_TIME, encode_any
from cpa.config.schema import Config
from cpa.credentials.files import (
    MAX_NAME_BYTES,
    MAX_WEIGHT,
    UNKNOWN_PROVIDER,
    CredentialFile,
    CredentialFileError,
    CredentialFiles,
    check_name,
)
from cpa.credentials.from_config import auth_index
from cpa.credentials.members import FileSettings, renamed, settings_of
from cpa.credentials.model import FROM_FILE, OAUTH, Credential
from cpa.credentials.native import NativeParts
from cpa.credentials.refresh_times import EARLIEST
from cpa.credentials.writing import UnfinishedText, read_regular, rewrite
from cpa.formats.json import JsonError, decode
from cpa.formats.redaction import is_secret_header_name
from cpa.types import JsonObject, JsonValue

MAX_ID_CHARS: Final = 512
"""Of ids, provider keys and names of models: they stand in lists, logs and answers. Real ones have some 50."""
MAX_TEXT_CHARS: Final = 16 << 10
"""Of labels, URLs, headers and keys, which may be signed tokens."""
MAX_SECRET_DEPTH: Final = 32
"""Of nested objects that are searched for secrets."""
MIN_SECRET_CHARS: Final = 8
"""``token_type: Bearer`` is no secret, nor is anything else that short worth mangling answers."""
SOURCE_BACKEND: Final = "file"
"""What plugins are told of where credentials are kept."""

OPERATORS_MEMBERS: Final = frozenset(
    {
        *("label", "email", "note", "prefix", "proxy_url", "disabled", "priority", "weight", "headers"),
        *("excluded_models", "model_aliases", "disable_cooling", "request_retry", "request_scoped_errors"),
        *("websockets", "refresh_interval_seconds"),
    }
)
"""Members of a file that say how the proxy shall use it (proxy 3.4). A plugin that gives new storage without them did
not mean to take them away: it does not know them."""

_SUFFIX: Final = ".json"
_NOT_FOR_NAMES = re.compile(r"[^A-Za-z0-9._@+-]+")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_HEADER_ATTRIBUTE: Final = "header:"

KEYS_OF_NATIVE: Final = frozenset({"api_key", "api-key", "service_account", "access_token", "refresh_token", "token"})
"""Members of files that need no plugin which are not in a credential's metadata."""


def host_summary(config: Config) -> wire.HostSummary:
    """The part of *config* that plugins see."""
    return wire.HostSummary(
        auth_dir=str(config.auth_dir),
        proxy_url=config.proxy_url.strip(),
        force_model_prefix=config.force_model_prefix,
        oauth_model_alias={
            channel.lower(): tuple(wire.ModelAlias(name=entry.name, alias=entry.alias) for entry in entries)
            for channel, entries in config.oauth_model_alias.items()
            if entries
        },
        excluded_models={
            provider.lower(): list(patterns) for provider, patterns in config.oauth_excluded_models.items() if patterns
        },
    )


# --- to files ---------------------------------------------------------------------------------------------------------


def merged_storage(storage_json: bytes, metadata: Mapping[str, JsonValue], *, provider: str) -> JsonObject:
    """What is kept of a credential: storage overlaid with metadata, then ``type``; keys sorted.

    Args:
      storage_json: a JSON object; none and ``null`` are empty.

    Raises: CredentialFileError when *storage_json* is anything else.
    """
    members: JsonObject = {}
    if storage_json.strip():
        try:
            stored = decode(storage_json)
        except JsonError as exc:
            raise CredentialFileError(f"invalid auth json: {exc}") from exc
        if stored is not None and not isinstance(stored, dict):
            raise CredentialFileError("invalid auth json: expected a JSON object")
        members = stored or {}
    merged = {**members, **metadata, "type": provider}
    return {name: merged[name] for name in sorted(merged)}


def encode_members(members: Mapping[str, JsonValue]) -> bytes:
    """The text of a file, keys sorted; equal members give equal bytes. Raises: CredentialFileError if too deep."""
    try:
        return encode_any(members)
    except RecursionError as exc:
        raise CredentialFileError("invalid auth json: nested too deeply") from exc


def provider_of(data: wire.AuthData, default: str = "") -> str:
    """Provider key of *data*, lower case. Raises: CredentialFileError without one, or for a senseless one."""
    provider = data.provider.strip().lower() or default.strip().lower()
    if not provider:
        raise CredentialFileError("auth provider is required")
    if not sensible(provider):
        raise CredentialFileError("invalid auth provider")
    return provider


def file_name_of(data: wire.AuthData, provider: str) -> str:
    """The file that *data* is kept in: as it says, else made of its id or provider. Raises: CredentialFileError."""
    if data.file_name:
        check_name(data.file_name)
        return data.file_name
    stem = data.id.strip() or provider
    if stem.lower().endswith(_SUFFIX):
        stem = stem[: -len(_SUFFIX)]
    stem = _NOT_FOR_NAMES.sub("-", stem).strip(".-") or _NOT_FOR_NAMES.sub("-", provider).strip(".-") or "auth"
    return stem[: MAX_NAME_BYTES - len(_SUFFIX)] + _SUFFIX


def save_auth_data(files: CredentialFiles, data: wire.AuthData, *, provider: str = "") -> Path:
    """Keep what a plugin returned: a sign-in's credential, for instance. Blocking.

    Nothing is written when the file holds equal JSON already. *provider* is the default for *data*'s.

    Returns: where it is. Raises: CredentialFileError; nothing was changed then.
    """
    provider = provider_of(data, provider)
    name = file_name_of(data, provider)
    content = encode_members(merged_storage(data.storage_json, data.metadata, provider=provider))
    path = files.directory / name
    if holds(path, content):
        return path
    return files.save(name, content)


def merged_refresh(
    now: Mapping[str, JsonValue],
    *,
    before: Mapping[str, JsonValue],
    old: Mapping[str, JsonValue],
    new: Mapping[str, JsonValue],
) -> JsonObject:
    """What a file shall hold after a refresh that turned *old* into *new*, keys sorted.

    Only what the refresh changed is taken over, so that what somebody else did to the file meanwhile stays.

    Args:
      now, before: the file's object now, and when the credential was read from it.
      old, new: what the plugin knew of the credential before and after: the file's object and what it added itself.
    """
    merged = dict(now)
    for name, value in new.items():
        changed = name not in old or encode_any(old[name]) != encode_any(value)
        if changed or (name not in now and name not in before):
            merged[name] = value
    for name in old.keys() - new.keys():
        merged.pop(name, None)
    return {name: merged[name] for name in sorted(merged)}


def save_refreshed(path: Path, *, before: Mapping[str, JsonValue], old: bytes, new: bytes) -> bytes:
    """Keep in the file at *path* what a refresh changed, see `merged_refresh`. Blocking.

    Edits that somebody makes at the same time stay: see `cpa.credentials.writing`.

    Args:
      before: the file's object when the credential was read.
      old, new: the credential's storage before and after.

    Returns: the file's content now. Raises: CredentialFileError when it is gone or cannot be read or written.
    """
    known, renewed = _object(old), _object(new)

    def change(data: bytes) -> bytes:
        try:
            now = decode(data)
        except JsonError as exc:
            raise UnfinishedText(f"failed to write auth file: {exc}", http_status=500) from exc
        if not isinstance(now, dict):
            raise CredentialFileError("invalid auth file: expected a JSON object")
        content = encode_members(merged_refresh(now, before=before, old=known, new=renewed))
        return data if content == encode_members(now) else content

    try:
        return rewrite(path, change)
    except OSError as exc:
        raise CredentialFileError(f"failed to write auth file: {exc.strerror}", http_status=500) from exc


def _object(text: bytes) -> JsonObject:
    value = decode(text) if text else {}
    return value if isinstance(value, dict) else {}


def holds(path: Path, content: bytes) -> bool:
    """Whether the file at *path* says the same as *content*, which `encode_members` made. Blocking."""
    try:
        present = decode(read_regular(path)[0])
        return isinstance(present, dict) and encode_any(present) == content
    except (OSError, CredentialFileError, JsonError, RecursionError):
        return False


# --- to credentials ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Origin:
    """Where a credential was read.

    Attributes:
      provider: as the file says it, lower case; the default for what a plugin leaves out.
      id: relative path in the credential folder.
      index: by which the file is known to plugins and management calls.
      disabled: the file is out of use, and with it all that was read from it.
    """

    id: str
    index: str
    provider: str
    path: str
    disabled: bool = False

    @classmethod
    def of(cls, file: CredentialFile) -> "Origin":
        """Of a file in the credential folder."""
        provider = "" if file.provider == UNKNOWN_PROVIDER and not file.type else file.provider
        return cls(id=file.name, index=file.index, provider=provider, path=str(file.path), disabled=file.disabled)

    def attributes(self) -> dict[str, str]:
        """What the host adds for file-backed records."""
        return {"path": self.path, "source": self.path, "source_backend": SOURCE_BACKEND}


def credential_of(data: wire.AuthData, origin: Origin, *, virtual: bool = False) -> Credential:
    """The credential that a plugin made of a file.

    Args:
      virtual: one of several of the same file: its index is made of its own id.

    Raises: CredentialFileError when nothing can be made of it.
    """
    provider = provider_of(data, origin.provider)
    identifier = data.id.strip() or origin.id
    if not sensible(identifier):
        raise CredentialFileError("invalid auth id")
    members = merged_storage(data.storage_json, data.metadata, provider=provider)
    place = attrs.evolve(origin, id=identifier, index=auth_index(f"id:{identifier}") if virtual else origin.index)
    return _credential(data, members, provider, place, virtual=virtual)


def credential_of_file(file: CredentialFile, parts: NativeParts | None = None) -> Credential:
    """The credential of a file that no plugin parses: metadata = its object.

    Args:
      parts: what the proxy makes of it by itself; None = a plugin executes the provider that its type names.

    Raises: CredentialFileError for a file without type, or with settings that cannot be understood.
    """
    origin = Origin.of(file)
    provider = provider_of(wire.AuthData(), parts.provider if parts is not None else origin.provider)
    members: JsonObject = {**file.members, "type": provider}
    if parts is None:
        data = wire.AuthData(metadata=members)
        return _credential(data, members, provider, origin, virtual=False, settings=file.settings)
    if file.settings.unusable:
        raise CredentialFileError("; ".join(map(str, file.settings.problems)))
    # Nobody needs the secrets of such a file but the executor.
    shown = {name: value for name, value in members.items() if name not in KEYS_OF_NATIVE}
    found = _credential(wire.AuthData(metadata=shown), members, provider, origin, virtual=False, settings=file.settings)
    return attrs.evolve(
        found,
        api_key="" if parts.service_account is not None else file.settings.api_key,
        base_url=file.settings.base_url,
        kind=parts.kind,
        models=file.settings.models,
        project=parts.project,
        location=parts.location,
        next_refresh_after=EARLIEST if parts.service_account is not None else None,
    )


def updated(old: Credential, data: wire.AuthData, *, merge: bool) -> Credential:
    """*old* as *data* (of `auth.refresh` or `model.for_auth`) changes it: what is empty there stays as it was.

    Args:
      merge: metadata and attributes of *data* lie over the old ones; else they take their place as a whole.

    Id, index and file stay in any case. Raises: CredentialFileError when *data* makes no sense.
    """
    provider = provider_of(data, old.provider)
    if provider != old.provider:
        raise CredentialFileError("a credential cannot change its provider")
    metadata = data.metadata
    if not metadata:
        # New storage must not vanish below what the old metadata say of the same members.
        stored = merged_storage(data.storage_json, {}, provider=provider) if data.storage_json.strip() else {}
        metadata = {name: stored.get(name, value) for name, value in old.metadata.items()}
    attributes: Mapping[str, str] = data.attributes or old.attributes
    if merge:
        metadata = {**old.metadata, **metadata}
        attributes = {**old.attributes, **data.attributes}
    full = msgspec.structs.replace(
        data,
        label=data.label or old.label,
        prefix=data.prefix or old.prefix,
        proxy_url=data.proxy_url or old.proxy_url,
        disabled=data.disabled or old.disabled,
        metadata=metadata,
        attributes=dict(attributes),
    )
    place = Origin(id=old.id, index=old.index, provider=provider, path=old.path)
    kept = {name: value for name, value in _object(old.storage_json).items() if name in OPERATORS_MEMBERS}
    members = kept | merged_storage(data.storage_json or old.storage_json, metadata, provider=provider)
    return _credential(full, members, provider, place, virtual=old.virtual)


def _credential(
    data: wire.AuthData,
    members: JsonObject,
    provider: str,
    origin: Origin,
    *,
    virtual: bool,
    settings: FileSettings | None = None,
) -> Credential:
    """*settings*: of *members*, where they were read already. Raises: CredentialFileError when they limit the
    credential's use in a way that cannot be understood."""
    settings = settings or settings_of(renamed(members))
    _refuse_unclear(settings)
    attributes = data.attributes | (origin.attributes() if origin.path else {})
    proxy_url = _text(data.proxy_url)
    if data.proxy_url.strip() and not proxy_url:
        raise CredentialFileError("invalid proxy_url")
    return Credential(
        id=origin.id,
        provider=provider,
        label=_text(data.label) or settings.label or provider,
        # Native executors that serve a plugin's provider use what upstream's use.
        api_key=_text(attributes.get("api_key", "")) or _member(members, "access_token"),
        base_url=_text(attributes.get("base_url", "")).rstrip("/"),
        prefix=prefix_of(data.prefix) or settings.prefix,
        proxy_url=proxy_url or settings.proxy_url,
        priority=_integer(attributes.get("priority"), default=settings.priority),
        weight=max(0, min(_integer(attributes.get("weight"), default=settings.weight), MAX_WEIGHT)),
        headers={**settings.headers, **dict(_headers(attributes))},
        excluded_models=tuple(dict.fromkeys((*settings.excluded_models, *_excluded(attributes)))),
        aliases=settings.aliases,
        disable_cooling=settings.disable_cooling,
        request_retry=settings.request_retry,
        error_rules=settings.error_rules,
        disabled=origin.disabled or data.disabled or settings.disabled,
        index=origin.index,
        source=FROM_FILE,
        kind=OAUTH,
        note=settings.note,
        path=origin.path,
        virtual=virtual,
        storage_json=encode_members(members),
        metadata={**data.metadata, "type": provider},
        attributes=attributes,
        next_refresh_after=None if data.next_refresh_after == ZERO_TIME else data.next_refresh_after,
        hidden=tuple(secrets_in(members)) + tuple(secrets_in(dict(attributes))),
    )


def _refuse_unclear(settings: FileSettings) -> None:
    """Raises: CredentialFileError. What else is wrong with a plugin's file is the plugin's affair."""
    unclear = [problem for problem in settings.problems if problem.member in ("disabled", "proxy_url")]
    if unclear:
        raise CredentialFileError("; ".join(map(str, unclear)))


def secrets_in(value: "JsonValue | Mapping[str, str]", *, secret: bool = False, depth: int = 0) -> Iterator[str]:
    """The strings inside *value* whose names say that nobody may see them; *secret* = that of *value* does."""
    if depth > MAX_SECRET_DEPTH:
        return
    if isinstance(value, str):
        if secret and len(value) >= MIN_SECRET_CHARS and "://" not in value:
            yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from secrets_in(item, secret=secret or is_secret_header_name(name), depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from secrets_in(item, secret=secret, depth=depth + 1)


def sensible(name: str) -> bool:
    """Whether *name* may stand in lists and logs: not empty, bounded, without control characters."""
    return len(name) <= MAX_ID_CHARS and _PLAIN.fullmatch(name) is not None


def prefix_of(text: str) -> str:
    """A model prefix without blanks and slashes around it; one that has slashes inside, or makes no sense, is none."""
    prefix = text.strip().strip("/").strip()
    return prefix if sensible(prefix) and "/" not in prefix else ""


def _text(text: str) -> str:
    """A bounded text without blanks around it and without control characters; else none."""
    text = text.strip()
    return text if len(text) <= MAX_TEXT_CHARS and _PLAIN.fullmatch(text) else ""


def _member(members: Mapping[str, JsonValue], name: str) -> str:
    value = members.get(name)
    return _text(value) if isinstance(value, str) else ""


def _integer(value: Any, *, default: int) -> int:
    """An integer, also written as a string."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = int(value.strip())
        except ValueError:
            return default
    if isinstance(value, bool) or not isinstance(value, int):
        return default
    return value if abs(value) < 2**63 else default


def _headers(attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Extra headers for providers that a plugin asks for, as far as they are headers."""
    for attribute, value in attributes.items():
        name = attribute.removeprefix(_HEADER_ATTRIBUTE)
        if name != attribute and _HEADER_NAME.fullmatch(name) and (_text(value) or not value.strip()):
            yield name, value.strip()


def _excluded(attributes: Mapping[str, str]) -> Iterator[str]:
    """Patterns of models that a plugin takes out, lower case."""
    for pattern in attributes.get("excluded_models", "").split(","):
        if pattern.strip() and sensible(pattern.strip()):
            yield pattern.strip().lower()
