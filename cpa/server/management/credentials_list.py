"""All credentials with what each may serve now, and how keys fared: ``GET /credentials``, ``GET /api-key-usage``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
import trio

from cpa.credentials.activity import Bucket, Counts
from cpa.credentials.from_config import placed_credentials, provider_key
from cpa.credentials.model import API_KEY, FROM_CONFIG, FROM_FILE, Credential
from cpa.host.account_snapshot import AccountState
from cpa.models.shapes import excluded, offers
from cpa.scheduling.health import WHOLE, Health
from cpa.server.management.auth_files import SLICE, cooldowns, described, status
from cpa.server.management.calls import Answer, ManagementCall, json_answer
from cpa.types import JsonObject, JsonValue

EVERYTHING: Final = "*"
_COMPATIBLE: Final = provider_key("x").removesuffix("x")


async def list_credentials(call: ManagementCall) -> Answer:
    """``GET /credentials``: those of the configuration in its order, then those of files by name; nothing secret."""
    places = {credential.id: str(place) for credential, place in placed_credentials(call.runtime.config)}
    shown: list[JsonValue] = []
    for number, credential in enumerate(call.runtime.credentials):
        shown.append(_shown(call, credential, places.get(credential.id)))
        if number % SLICE == 0:  # thousands of them must not keep everybody else waiting
            await trio.lowlevel.checkpoint()
    shown.extend(_unused(call))
    return json_answer({"credentials": shown})


def _shown(call: ManagementCall, credential: Credential, place: str | None) -> JsonObject:
    state = AccountState(status="active")
    if credential.source == FROM_FILE and call.plugins is not None:
        state = call.plugins.accounts.state(credential)
    off = credential.disabled or EVERYTHING in credential.excluded_models
    known = status(call, credential, state)
    counts = call.runtime.activity.of(credential.id)
    return {
        "id": credential.id,
        "auth-index": credential.index,
        "label": credential.label,
        "provider": credential.provider,
        "source": credential.source,
        # By which `PATCH /auth-files/status` knows it.
        "name": credential.id if credential.source == FROM_CONFIG else credential.path.rpartition("/")[2],
        "config-path": place,
        "virtual": credential.virtual,
        "disabled": off,
        "status": "disabled" if off else known["status"],
        "status-message": known["status_message"],
        "priority": credential.priority,
        "weight": credential.weight,
        "models": [*_models(call, credential)],
        **_counted(counts),
    }


def _unused(call: ManagementCall) -> Iterator[JsonObject]:
    """Files that nobody makes a credential of: operators look for them where the others are."""
    if call.plugins is None:
        return
    accounts = call.plugins.accounts
    used = {credential.path for credential in accounts.snapshot.credentials}
    for file in accounts.listed:
        if str(file.path) in used:
            continue
        known = described(file)
        yield {
            "id": file.name,
            "auth-index": file.index,
            "label": known["label"],
            "provider": file.provider,
            "source": FROM_FILE,
            "name": file.name,
            "config-path": None,
            "virtual": False,
            "disabled": file.disabled,
            "status": known["status"],
            "status-message": known["status_message"],
            "priority": file.settings.priority,
            "weight": file.settings.weight,
            "models": [],
            **_counted(call.runtime.activity.of("")),
        }


def _counted(counts: Counts) -> JsonObject:
    recent: list[JsonValue] = [_bucket(bucket) for bucket in counts.recent]
    return {"success": counts.success, "failed": counts.failed, "recent-requests": recent}


def _bucket(bucket: Bucket) -> JsonObject:
    return {"time": bucket.label, "success": bucket.success, "failed": bucket.failed}


# ---- models ----------------------------------------------------------------------------------------------------------


def _models(call: ManagementCall, credential: Credential) -> Iterator[JsonObject]:
    """What it serves under clients' names, and what it would serve if nobody had taken that out."""
    windows = cooldowns(call, credential)
    names = call.runtime.models.names_of(credential)
    for name in sorted(names):
        keys = [name] if len(names[name]) == 1 else [offer.upstream_name for offer in names[name]]
        window = window_of(windows, keys)
        if window is None:
            yield _model(name, "ready")
        else:
            yield _model(name, "cooling", window)
    patterns = list(credential.excluded_models)
    if credential.source == FROM_FILE:
        patterns += call.runtime.config.oauth_excluded_models.get(credential.provider, ())
    for identifier in sorted({offer.id for offer in offers(attrs.evolve(credential, excluded_models=()))} - set(names)):
        if credential.disabled:
            yield _model(identifier, "disabled")
        elif excluded(identifier, patterns):
            yield _model(identifier, "excluded")


def _model(name: str, state: str, window: Health | None = None) -> JsonObject:
    return {
        "id": name,
        "state": state,
        "until": None if window is None else round(window.until_unix, 3),
        "reason": None if window is None else window.message or window.kind.value,
        "kind": None if window is None else window.kind.value,
    }


def window_of(windows: Mapping[str, Health], keys: Sequence[str]) -> Health | None:
    """What keeps the credential from a model that is any of *keys*: of a pool the one that comes back first."""
    whole = windows.get(WHOLE)
    first: Health | None = None
    for key in keys:
        both = [window for window in (whole, windows.get(key)) if window is not None]
        if not both:
            return None
        longest = max(both, key=lambda window: window.until_unix)
        if first is None or longest.until_unix < first.until_unix:
            first = longest
    return first


# ---- keys ------------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Sum:
    """Of all credentials with one key at one address."""

    success: int = 0
    failed: int = 0
    recent: list[Bucket] = attrs.field(factory=list)

    def add(self, counts: Counts) -> None:
        self.success += counts.success
        self.failed += counts.failed
        if not self.recent:
            self.recent = list(counts.recent)
            return
        self.recent = [
            attrs.evolve(mine, success=mine.success + theirs.success, failed=mine.failed + theirs.failed)
            for mine, theirs in zip(self.recent, counts.recent, strict=True)
        ]


async def api_key_usage(call: ManagementCall) -> Answer:
    """``GET /api-key-usage``: by provider, then by ``<base-url>|<api-key>``. **Shows keys**, as its contract wants.

    ``?redact=1`` puts the ``auth_index`` in the place of a key.
    """
    hidden = call.query("redact").lower() in ("1", "true")
    sums: dict[str, dict[str, _Sum]] = {}
    for number, credential in enumerate(call.runtime.credentials):
        if number % SLICE == 0:
            await trio.lowlevel.checkpoint()
        if credential.kind != API_KEY or not credential.api_key:
            continue
        name = f"{credential.base_url}|{credential.index if hidden else credential.api_key}"
        of_provider = sums.setdefault(provider_name(credential), {})
        of_provider.setdefault(name, _Sum()).add(call.runtime.activity.of(credential.id))
    told: JsonObject = {}
    for provider, keys in sorted(sums.items()):
        shown: JsonObject = {}
        for number, (name, found) in enumerate(keys.items()):
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
            recent: list[JsonValue] = [_bucket(bucket) for bucket in found.recent]
            shown[name] = {"success": found.success, "failed": found.failed, "recent_requests": recent}
        told[provider] = shown
    return json_answer(told)


def provider_name(credential: Credential) -> str:
    """The provider's key; of endpoints that speak OpenAI's protocol the name that the operator gave them."""
    if credential.source == FROM_CONFIG and credential.id.startswith("openai-compatibility:"):
        return credential.label
    return credential.provider.removeprefix(_COMPATIBLE)
