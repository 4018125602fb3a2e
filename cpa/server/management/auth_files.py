"""``GET /auth-files`` and ``/auth-files/models``: credential files and how they fare (proxy 6.7). Nothing secret."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

import trio

from cpa.credentials.files import CredentialFile
from cpa.credentials.model import FROM_FILE, Credential
from cpa.host.account_snapshot import AccountState
from cpa.host.accounts import Accounts
from cpa.scheduling.health import WHOLE, Health
from cpa.server.management.calls import Answer, ManagementCall, error_answer, json_answer
from cpa.types import JsonObject, JsonValue

OAUTH_KIND: Final = "oauth"
SLICE: Final = 50
"""Entries between two checkpoints; one takes some 50 µs."""


async def list_files(call: ManagementCall) -> Answer:
    """``GET /auth-files``, optionally ``?name=`` and ``?auth_index=``."""
    accounts = call.plugins.accounts if call.plugins is not None else None
    if accounts is None:
        return json_answer({"files": []})
    name, index = call.query("name"), call.query("auth_index")
    files: list[JsonValue] = []
    for number, found in enumerate(entries(call, accounts)):
        if name in ("", found["name"], found["id"]) and index in ("", found["auth_index"]):
            files.append(found)
        if number % SLICE == 0:  # thousands of files must not keep everybody else waiting
            await trio.lowlevel.checkpoint()
    return json_answer({"files": files})


async def models(call: ManagementCall) -> Answer:
    """``GET /auth-files/models?name=``: what the credentials of a file serve, or the one of an id (also a key's)."""
    name = call.query("name")
    if not name:
        return error_answer(400, "name is required")
    found = {
        card.id: card
        for credential in call.runtime.credentials
        if name == credential.id or (credential.source == FROM_FILE and name == credential.path.rpartition("/")[2])
        for card in call.runtime.models.models_of(credential)
    }
    listed: list[JsonValue] = [
        {"id": card.id, "display_name": card.title, "type": card.type, "owned_by": card.owned_by}
        for _, card in sorted(found.items())
    ]
    return json_answer({"models": listed})


def entries(call: ManagementCall, accounts: Accounts) -> Iterator[JsonObject]:
    """One for each credential of a file, and one for each file that is used for none, by name, case not counting."""
    by_path: dict[str, list[Credential]] = {}
    for credential in accounts.snapshot.credentials:
        by_path.setdefault(credential.path, []).append(credential)
    for file in accounts.listed:
        of_file = by_path.get(str(file.path), [])
        if not of_file:
            yield {**described(file), **counters(call, ""), **details(file)}
        for credential in of_file:
            shown = described(file) | identity(credential) | status(call, credential, accounts.state(credential))
            yield {**shown, **counters(call, credential.id), **details(file), **settings(credential)} | times(
                call, credential, accounts.state(credential)
            )


def described(file: CredentialFile) -> JsonObject:
    """What the file alone says."""
    return {
        "id": file.name,
        "auth_index": file.index,
        "name": file.name,
        "type": file.type or file.provider,
        "provider": file.provider,
        "label": file.settings.label or file.provider,
        "status": "disabled" if file.disabled else "unknown",
        "status_message": "" if file.disabled else "not used: no plugin and no built-in provider takes it",
        "disabled": file.disabled,
        "unavailable": False,
        "runtime_only": False,
        "source": "file",
        "size": file.size_bytes,
    }


def identity(credential: Credential) -> JsonObject:
    """Who the credential is."""
    return {
        "id": credential.id,
        "auth_index": credential.index,
        "provider": credential.provider,
        "label": credential.label,
        "disabled": credential.disabled,
    }


def status(call: ManagementCall, credential: Credential, known: AccountState) -> JsonObject:
    """How it is: refreshes first, then what providers said."""
    window = longest(cooldowns(call, credential))
    if credential.disabled or known.message or window is None:
        return {"status": known.status, "status_message": known.message, "unavailable": known.unavailable}
    whole = WHOLE in cooldowns(call, credential)
    return {
        "status": "error",
        "status_message": window.message or window.kind.value,
        "unavailable": known.unavailable or whole,
    }


def cooldowns(call: ManagementCall, credential: Credential) -> Mapping[str, Health]:
    """Its open windows by model."""
    scheduler = call.runtime.scheduler
    return {} if scheduler is None else scheduler.scheduling.health.of(credential.id)


def longest(windows: Mapping[str, Health]) -> Health | None:
    """The one of the whole credential, else the one that ends last."""
    return windows.get(WHOLE) or max(windows.values(), key=lambda window: window.until_unix, default=None)


def counters(call: ManagementCall, credential_id: str) -> JsonObject:
    """Totals, and `BUCKETS` steps of the last hours."""
    counts = call.runtime.activity.of(credential_id)
    recent: list[JsonValue] = [
        {"time": bucket.label, "success": bucket.success, "failed": bucket.failed} for bucket in counts.recent
    ]
    return {"success": counts.success, "failed": counts.failed, "recent_requests": recent}


def details(file: CredentialFile) -> JsonObject:
    """What else the file says, as far as it does."""
    email = file.text("email")
    found: JsonObject = {}
    if email:
        found["email"] = email
    project = file.text("project_id")
    if project:
        found["project_id"] = project
    if email:
        found |= {"account_type": OAUTH_KIND, "account": email}
    written = timestamp(file.modified)
    found |= {"created_at": written, "modtime": written, "updated_at": written, "path": str(file.path)}
    if "websockets" in file.members:
        found["websockets"] = file.members["websockets"] is True
    return found


def settings(credential: Credential) -> JsonObject:
    """What the operator asks for, where it is not the default."""
    found: JsonObject = {}
    if credential.priority:
        found["priority"] = credential.priority
    if credential.note:
        found["note"] = credential.note
    if credential.weight != 1:
        found["weight"] = credential.weight
    if credential.request_retry is not None:
        found["request_retry"] = credential.request_retry
    return found


def times(call: ManagementCall, credential: Credential, known: AccountState) -> JsonObject:
    """When it was renewed, and when it is tried again, as far as there is anything to say."""
    found: JsonObject = {}
    if known.last_refresh is not None:
        found["last_refresh"] = timestamp(known.last_refresh)
    window = longest(cooldowns(call, credential))
    again = known.next_retry_after
    if window is not None:
        until = datetime.fromtimestamp(window.until_unix, UTC)
        again = until if again is None else max(again, until)
    if again is not None and not credential.disabled:
        found["next_retry_after"] = timestamp(again)
    return found


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
