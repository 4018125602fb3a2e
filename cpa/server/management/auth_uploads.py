"""``POST /auth-files`` and ``POST /vertex/import``: credential files from operators (proxy 6.7)."""

from functools import partial
from typing import Final

import trio

from cpa.credentials.editing import Failed, save_all, save_new
from cpa.credentials.files import CredentialFiles
from cpa.credentials.importing import ImportRefused, imported_account
from cpa.observability.log import get_logger
from cpa.server.management.auth_targets import accounts_of, folder_of
from cpa.server.management.calls import Answer, ManagementCall, coded_error, error_answer, json_answer
from cpa.server.management.multipart import Part, is_form, parse_form
from cpa.types import JsonValue

log = get_logger()

FILES_BYTES: Final = 16 << 20
"""Of all files of one upload; thousands of accounts fit."""


async def upload(call: ManagementCall) -> Answer:
    """A form with files of any field names, or one file as the body with ``?name=``. In force when it is answered.

    Raises: CpaError.
    """
    accounts = accounts_of(call)
    files = CredentialFiles(folder_of(call))
    if not is_form(call.head.header(b"content-type")):
        await trio.to_thread.run_sync(partial(save_new, files, call.query("name"), call.body))
        log.info(
            "management.auth_uploaded",
            client=call.author.client,
            known_by=call.author.known_by,
            files=[call.query("name")],
        )
        await accounts.synchronise()
        return json_answer({"status": "ok"})
    uploads = {part.filename or "": part.data for part in await _form(call) if part.filename}
    if not uploads:
        return error_answer(400, "file required")
    # One piece of work, so that a client that leaves meanwhile has all of it or nothing.
    failed = await trio.to_thread.run_sync(partial(save_all, files, uploads))
    kept = [name for name in uploads if name not in {failure.name for failure in failed}]
    if kept:
        log.info("management.auth_uploaded", client=call.author.client, known_by=call.author.known_by, files=kept)
        await accounts.synchronise()
    return several("uploaded", kept, failed)


def several(did: str, names: list[str], failed: tuple[Failed, ...]) -> Answer:
    """What became of one file or of several. *did*: ``uploaded`` or ``deleted``."""
    if len(names) + len(failed) == 1:
        return error_answer(failed[0].status, failed[0].error) if failed else json_answer({"status": "ok"})
    listed: list[JsonValue] = [*names]
    if not failed:
        return json_answer({"status": "ok", did: len(names), "files": listed})
    told: list[JsonValue] = [{"name": failure.name, "error": failure.error} for failure in failed]
    return json_answer({"status": "partial", did: len(names), "files": listed, "failed": told}, status=207)


async def import_vertex(call: ManagementCall) -> Answer:
    """``POST /vertex/import``: a service account of Google's, as ``file`` of a form, and where its models run.

    Raises: CpaError.
    """
    accounts = accounts_of(call)
    if not is_form(call.head.header(b"content-type")):
        return error_answer(400, "file required")
    parts = await _form(call)
    file = next((part for part in parts if part.name == "file" and part.filename is not None), None)
    if file is None:
        return error_answer(400, "file required")
    location = next((part.data for part in parts if part.name == "location" and part.filename is None), b"")
    try:
        imported = imported_account(file.data, location.decode("utf-8", "replace"))
    except ImportRefused as exc:
        return coded_error(400, exc.message, exc.detail)
    files = CredentialFiles(folder_of(call))
    await trio.to_thread.run_sync(partial(save_new, files, imported.name, imported.content))
    log.info(
        "management.auth_uploaded", client=call.author.client, known_by=call.author.known_by, files=[imported.name]
    )
    await accounts.synchronise()
    return json_answer(
        {
            "status": "ok",
            "auth-file": imported.name,
            "project_id": imported.project,
            "email": imported.email,
            "location": imported.location,
        }
    )


async def _form(call: ManagementCall) -> tuple[Part, ...]:
    """Raises: CpaError."""
    return await trio.to_thread.run_sync(partial(parse_form, call.head.header(b"content-type"), call.body))
