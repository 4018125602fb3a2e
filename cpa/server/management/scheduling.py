"""What operators see and do of cooldowns: why, the list, the reset (proxy 4.5, 6.8, 10.1)."""

from collections.abc import Sequence
from datetime import UTC, datetime

from cpa.credentials.model import Credential
from cpa.errors import CredentialError, UnknownModel
from cpa.formats.json import JsonError, decode
from cpa.scheduling.health import Health
from cpa.scheduling.why import explain
from cpa.server.management.calls import Answer, ManagementCall, error_answer, json_answer
from cpa.types import Candidate, JsonObject, JsonValue


async def why(call: ManagementCall) -> Answer:
    """``GET /credentials/{id}/why?model=``: is the credential of that id or ``auth_index`` used for the model?"""
    scheduler = call.runtime.scheduler
    credential = _credential(call, call.params["id"])
    if credential is None or scheduler is None:
        return error_answer(404, "auth not found")
    model = call.query("model")
    health = scheduler.scheduling.health
    told: JsonObject = {"id": credential.id, "auth_index": credential.index, "provider": credential.provider}
    if not model:
        windows = health.of(credential.id)
        told |= {
            "disabled": credential.disabled,
            "cooldowns": [_window(n, r, health.now()) for n, r in windows.items()],
        }
        return json_answer(told)
    found = explain(scheduler, credential, _candidates(call, model), model)
    window = found.window
    told |= {
        "model": found.model,
        "requested_model": model,
        "used": found.used,
        "state": found.state.value,
        "reason": found.reason,
        "next": found.next,
        "until": None if window is None else timestamp(window.until_unix),
        "cooldown": None if window is None else _window(found.model, window, health.now()),
        "cooldowns": [_window(name, record, health.now()) for name, record in found.windows.items()],
    }
    return json_answer(told)


async def cooldowns(call: ManagementCall) -> Answer:
    """``GET /cooldowns``: every open window, those that end first first."""
    scheduler = call.runtime.scheduler
    if scheduler is None:
        return json_answer({"cooldowns": []})
    health = scheduler.scheduling.health
    indexes = {credential.id: credential.index for credential in call.runtime.credentials}
    windows = sorted(health.open_windows(), key=lambda window: (window[2].until_unix, window[0], window[1]))
    listed: list[JsonValue] = [
        {"id": credential_id, "auth_index": indexes.get(credential_id, ""), **_window(model, record, health.now())}
        for credential_id, model, record in windows
    ]
    return json_answer({"cooldowns": listed, "sessions": scheduler.scheduling.bindings.count()})


async def reset_quota(call: ManagementCall) -> Answer:
    """``POST /reset-quota`` with ``auth_index``: forget all cooldowns of a credential, and say of which models."""
    try:
        body = decode(call.body)
    except JsonError:
        return error_answer(400, "invalid body")
    index = body.get("auth_index") if isinstance(body, dict) else None
    if not isinstance(index, str) or not index.strip():
        return error_answer(400, "auth_index is required")
    scheduler = call.runtime.scheduler
    ids = [credential.id for credential in call.runtime.credentials if credential.index == index.strip()]
    if not ids or scheduler is None:
        return error_answer(404, "auth not found")
    models = sorted(
        {name for credential_id in ids for name in scheduler.scheduling.health.reset(credential_id) if name}
    )
    return json_answer({"status": "ok", "auth_index": index.strip(), "models": models})


def _credential(call: ManagementCall, name: str) -> Credential | None:
    """The credential of that id, or of that index."""
    found = [credential for credential in call.runtime.credentials if name in (credential.id, credential.index)]
    return next((credential for credential in found if credential.id == name), found[0] if found else None)


def _candidates(call: ManagementCall, model: str) -> Sequence[Candidate]:
    try:
        return call.runtime.models.resolve(model)
    except (UnknownModel, CredentialError):
        return ()


def _window(model: str, record: Health, now_unix: float) -> JsonObject:
    """One window. An empty *model* is the whole credential."""
    return {
        "model": model or "*",
        "reason": record.kind.value,
        "status": record.status,
        "message": record.message,
        "since": timestamp(record.updated_unix),
        "until": timestamp(record.until_unix),
        "seconds": max(0, -int(-(record.until_unix - now_unix) // 1)),
        "backoff_level": record.level,
        "by_rule": record.forced,
    }


def timestamp(unix: float) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
