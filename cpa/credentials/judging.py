"""What `cpa check` says of the credential folder: every problem of every file. Blocking."""

from pathlib import Path

import attrs

from cpa.credentials.files import CredentialFile, CredentialFileError, CredentialFiles
from cpa.credentials.members import renamed
from cpa.credentials.native import NativeParts, is_native, native_parts


@attrs.frozen(kw_only=True)
class Judgement:
    """Attributes:
    problems, warnings: lines ``file: member: expected …, got …``, by file.
    usable: files that are used without a plugin.
    """

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    usable: int = 0


def judge_folder(directory: Path) -> Judgement:
    """Judge the files of *directory*; one that is missing has none. Files for plugins are judged by their settings."""
    files = CredentialFiles(directory)
    try:
        found = files.list()
    except CredentialFileError as exc:
        return Judgement(problems=(f"{directory}: expected a readable folder, got: {exc.message}",))
    problems = [f"{directory / skipped.name}: {skipped.reason}" for skipped in files.skipped]
    warnings: list[str] = []
    usable = 0
    for file in found:
        wrong = [f"{file.path}: {problem}" for problem in file.settings.problems]
        problems += wrong
        parts = _parts(file)
        if isinstance(parts, NativeParts):
            usable += not file.settings.unusable
        elif parts:
            problems += [f"{file.path}: {problem}" for problem in parts if f"{file.path}: {problem}" not in wrong]
        else:
            warnings.append(f"{file.path}: {_unused(file)}")
    return Judgement(problems=tuple(problems), warnings=tuple(warnings), usable=usable)


def _parts(file: CredentialFile) -> NativeParts | tuple[object, ...]:
    return native_parts(file.type.lower(), renamed(file.members), file.settings)


def _unused(file: CredentialFile) -> str:
    """Why nobody but a plugin uses *file*."""
    if not file.type:
        return "type: expected a provider's key, got nothing; only plugins can use it"
    if is_native(file.type.lower()):
        return "api_key: expected a key, got tokens of a vendor's own program; only plugins can use it"
    return f"type: only a plugin can use {file.type[:64]!r}"
