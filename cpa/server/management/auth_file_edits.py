"""Credential files by name: deleting, switching, changing members, fetching (proxy 6.7). In force when answered."""

from functools import partial
from typing import Final
from urllib.parse import quote

import trio

from cpa.credentials.editing import Failed, content_of, delete_all, delete_each, patch_file
from cpa.credentials.files import CredentialFileError
from cpa.credentials.patching import MAX_FIELDS
from cpa.errors import RawHeaders
from cpa.formats.json import JsonError, decode
from cpa.observability.log import get_logger
from cpa.pipeline.rules import query_map
from cpa.server.management.auth_targets import Targets, accounts_of, find_target, folder_of
from cpa.server.management.auth_uploads import several
from cpa.server.management.calls import Answer, ManagementCall, error_answer, json_answer
from cpa.server.management.config_toggles import EXCLUDED, switch_config_key
from cpa.types import JsonObject, JsonValue

log = get_logger()

ALL: Final = frozenset({"true", "1", "*"})
"""Values of ``all`` that mean every file."""
MAX_NAMES: Final = 5000


async def download(call: ManagementCall) -> Answer:
    """``GET /auth-files/download?name=``: the file as it is. Raises: CpaError."""
    target = find_target(call, call.query("name"))
    content = await trio.to_thread.run_sync(partial(content_of, folder_of(call), target.file))
    return Answer(headers=attachment(target.file, "application/json"), body=content)


def attachment(name: str, content_type: str) -> RawHeaders:
    """The headers of a file that browsers save and do not show; names in ASCII and, better, as they are."""
    plain = name.encode("ascii", "replace").decode("ascii").replace("\\", "_").replace('"', "_").replace("?", "_")
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    return ((b"content-type", content_type.encode()), (b"content-disposition", disposition.encode("ascii")))


async def delete(call: ManagementCall) -> Answer:
    """``DELETE /auth-files`` with names in the query or in a JSON body, or ``?all=true``. Raises: CpaError."""
    accounts = accounts_of(call)
    folder = folder_of(call)
    if call.query("all").lower() in ALL:
        count, failed = await trio.to_thread.run_sync(partial(delete_all, folder))
        log.info(
            "management.auth_deleted",
            client=call.author.client,
            known_by=call.author.known_by,
            files="all",
            count=count,
        )
        await accounts.synchronise()
        told: list[JsonValue] = [{"name": failure.name, "error": failure.error} for failure in failed]
        if told:
            return json_answer({"status": "partial", "deleted": count, "failed": told}, status=207)
        return json_answer({"status": "ok", "deleted": count})
    names = _names(call)
    if not names:
        return error_answer(400, "name is required")
    if len(names) > MAX_NAMES:
        return error_answer(400, f"expected at most {MAX_NAMES} names, got {len(names)}")
    found: dict[str, str] = {}  # file to the name that was given for it
    refused: list[Failed] = []
    targets = Targets(call)
    for name in dict.fromkeys(names):
        try:
            found.setdefault(targets.find(name).file, name)
        except CredentialFileError as exc:
            refused.append(Failed(name=name, error=exc.message, status=exc.http_status))
    failed = await trio.to_thread.run_sync(partial(delete_each, folder, tuple(found)))
    left = {failure.name for failure in failed}
    gone = [name for name in found if name not in left]
    if gone:
        log.info("management.auth_deleted", client=call.author.client, known_by=call.author.known_by, files=gone)
        await accounts.synchronise()
    return several("deleted", gone, (*refused, *failed))


def _names(call: ManagementCall) -> list[str]:
    """Raises: CredentialFileError for a body that makes no sense."""
    asked = [name.strip() for name in query_map(call.head.query).get("name", []) if name.strip()]
    if asked or not call.body.strip():
        return asked
    try:
        body = decode(call.body)
    except JsonError:
        raise CredentialFileError("invalid body") from None
    if isinstance(body, dict):
        body = body["names"] if "names" in body else [body.get("name")]
    if not isinstance(body, list):
        raise CredentialFileError("invalid body")
    names = [name.strip() for name in body if isinstance(name, str)]
    if len(names) != len(body):
        raise CredentialFileError("invalid body")
    return [name for name in names if name]


async def status(call: ManagementCall) -> Answer:
    """``PATCH /auth-files/status``: take a file, or a key of the configuration, out of use or back.

    Raises: CpaError.
    """
    body = object_of(call)
    name, index, disabled = body.get("name"), body.get("auth_index"), body.get("disabled")
    if not isinstance(name, str) or not name.strip():
        return error_answer(400, "name is required")
    if not isinstance(disabled, bool):
        return error_answer(400, "disabled is required")
    if index is not None and not isinstance(index, str):
        return error_answer(400, "invalid body")
    target = find_target(call, name.strip(), (index or "").strip(), with_config=True)
    if not target.file:
        assert target.credential is not None
        await switch_config_key(call, target.credential, disabled=disabled)
        return json_answer(
            {
                "status": "ok",
                "disabled": disabled,
                "via": "config:excluded-models",
                "excluded_pattern": EXCLUDED,
            }
        )
    await _patch(call, target.file, {"disabled": disabled})
    return json_answer({"status": "ok", "disabled": disabled})


async def fields(call: ManagementCall) -> Answer:
    """``PATCH /auth-files/fields``: change members of a file, see `patched_text`. Raises: CpaError."""
    body = object_of(call)
    name, index = body.pop("name", None), body.pop("auth_index", None)
    if not isinstance(name, str) or not name.strip():
        return error_answer(400, "name is required")
    if index is not None and not isinstance(index, str):
        return error_answer(400, "invalid body")
    if not body:
        return error_answer(400, "no fields to update")
    if len(body) > MAX_FIELDS:
        return error_answer(400, f"expected at most {MAX_FIELDS} fields, got {len(body)}")
    target = find_target(call, name.strip(), (index or "").strip())
    await _patch(call, target.file, body)
    return json_answer({"status": "ok"})


async def _patch(call: ManagementCall, file: str, changes: JsonObject) -> None:
    """Raises: CredentialFileError."""
    changed = await trio.to_thread.run_sync(partial(patch_file, folder_of(call), file, changes))
    if changed:
        log.info(
            "management.auth_changed",
            client=call.author.client,
            known_by=call.author.known_by,
            file=file,
            fields=sorted(changes),
        )
        await accounts_of(call).synchronise()


def object_of(call: ManagementCall) -> JsonObject:
    """The body, a JSON object. Raises: CredentialFileError."""
    try:
        body = decode(call.body)
    except JsonError:
        body = None
    if not isinstance(body, dict):
        raise CredentialFileError("invalid body")
    return body
