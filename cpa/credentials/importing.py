"""A service account as Google gives it, as a credential file of ours (proxy 6.7, ``/vertex/import``). Pure."""

import re
from typing import Final

import attrs
import msgspec

from cpa.credentials.members import FileSettings
from cpa.credentials.native import VERTEX, NativeParts, native_parts
from cpa.credentials.service_account import DEFAULT_LOCATION
from cpa.credentials.writing import CredentialFileError
from cpa.types import JsonObject, JsonValue

_NOT_FOR_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")


class ImportRefused(CredentialFileError):
    """It is no account that could be used; the message is the contract's. *detail* says more, nothing secret."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


@attrs.frozen(kw_only=True)
class ImportedAccount:
    """Attributes:
    name: of the file that it belongs into. content: of that file.
    """

    name: str
    content: bytes = attrs.field(repr=False)
    project: str
    email: str
    location: str


def imported_account(data: bytes, location: str = "") -> ImportedAccount:
    """The credential file for the account in *data*, Google's JSON. *location*: empty = the usual one.

    Raises: ImportRefused.
    """
    try:
        account: JsonValue = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        account = None
    if not isinstance(account, dict):
        raise ImportRefused("invalid json", "expected Google's JSON object")
    project = account.get("project_id")
    project = project.strip() if isinstance(project, str) else ""
    email = account.get("client_email")
    members: JsonObject = {
        "type": VERTEX,
        "project_id": project,
        "email": email,
        "location": location.strip() or DEFAULT_LOCATION,
        "service_account": account,
    }
    judged = native_parts(VERTEX, members, FileSettings())
    problems = () if isinstance(judged, NativeParts) else judged
    if any(problem.member.startswith("service_account") for problem in problems):
        raise ImportRefused("invalid service account", "; ".join(map(str, problems)))
    if not project:
        raise ImportRefused("project_id missing", "expected the project in the account's own JSON")
    if not isinstance(judged, NativeParts):
        raise ImportRefused("invalid project or location", "; ".join(map(str, problems)))
    stem = _NOT_FOR_NAMES.sub("-", project).strip(".-") or "project"
    return ImportedAccount(
        name=f"vertex-{stem}.json",
        content=msgspec.json.format(msgspec.json.encode(members), indent=2) + b"\n",
        project=project,
        email=str(email),
        location=judged.location,
    )
