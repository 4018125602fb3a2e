"""The files of a new plugin, and writing them.

A plugin is its language's ``plugin.*`` or ``main.go`` template with pieces put in: of each capability one from
``capabilities/``, and of ``parts/`` those that these need. A piece begins with a line that says what it needs::

    // needs: identifier say; imports: encoding/json

Each method of a capability is a function of the piece, by the method's name: ``request.complete`` is
``request_complete``, in Go ``requestComplete``. ``@WORDS@`` in templates are replaced.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from errno import ENOENT
from pathlib import Path
from types import MappingProxyType
from typing import Final

import attrs

from cpa.abi.methods import PLUGIN_RECONFIGURE, PLUGIN_REGISTER, methods_of
from cpa.errors import CpaError
from cpa.host.discovery import split_name
from cpa.scaffold.capabilities import DESCRIPTIONS

HERE: Final = Path(__file__).parent
TEMPLATES: Final = HERE / "templates"
HELPERS: Final = HERE / "helpers"
NAME_RULE: Final = "a letter or digit, then up to 127 of letters, digits, '.', '_' and '-'"

_MARK: Final = re.compile(r"@([A-Z]+)@")
_NEEDS: Final = re.compile(r"// needs:(?P<parts>[ a-z_]*)(?:; imports:(?P<imports>[ a-z0-9/]*))?\n")


class ScaffoldError(CpaError):
    """A plugin cannot be made as it was asked for; nothing was written."""

    code = "scaffold_error"


class Language(StrEnum):
    """What plugins can be made in."""

    C = "c"
    RUST = "rust"
    GO = "go"


@attrs.frozen(kw_only=True)
class Form:
    """How a language has it.

    Attributes:
      source: the template that pieces go into; also its place in the plugin's folder.
      suffix: of pieces.
      route: a line of the table of methods, with fields ``method``, which ends with *colon*, and ``function``.
      aligned: functions stand below each other.
      capability: a line of the JSON that says what the plugin can, with a field ``member``.
      between: routes.
      escaped: the JSON stands in a string with escapes.
      camel: names of functions in ``camelCase``.
      helpers: pattern of files in ``helpers/<language>``, and the folder of the plugin's that they are copied to.
    """

    source: str
    suffix: str
    route: str
    capability: str
    between: str = ""
    escaped: bool = False
    camel: bool = False
    colon: str = ","
    aligned: bool = False
    helpers: tuple[str, str]


FORMS: Final[Mapping[Language, Form]] = MappingProxyType(
    {
        Language.C: Form(
            source="plugin.c",
            suffix=".c",
            route="           {{{method} {function}}}",
            capability='                                                  "{member}"',
            between=",",
            escaped=True,
            helpers=("*.h", "."),
        ),
        Language.RUST: Form(
            source="src/lib.rs",
            suffix=".rs",
            route="    ({method} {function}),",
            capability="    {member}",
            helpers=("*.rs", "src"),
        ),
        Language.GO: Form(
            source="main.go",
            suffix=".go",
            route="\t\t{method} plugin.Reading({function}),",
            colon=":",
            aligned=True,
            capability="\t{member}",
            camel=True,
            helpers=("*.go", "plugin"),
        ),
    }
)
_OF_HELPERS_TESTS: Final = re.compile(r"_test\.go$|^tests?\.rs$")


@attrs.frozen(kw_only=True)
class Scaffold:
    """A plugin that can be made. Raises: ScaffoldError, when it is checked."""

    name: str
    language: Language
    capabilities: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        found = split_name(self.name)
        if found is None:
            raise ScaffoldError(f"name: expected {NAME_RULE}, got {self.name!r}")
        if found[1]:
            text = f"{self.name!r}, which hosts read as version {found[1]} of a plugin called {found[0]!r}"
            raise ScaffoldError(f"name: expected one that does not end in a version, got {text}")
        if not self.capabilities:
            raise ScaffoldError("capabilities: expected at least one, got none")

    @property
    def provider(self) -> str:
        """The key of providers, which hosts compare in lower case."""
        return self.name.lower()

    def files(self) -> Mapping[str, bytes]:
        """Path in the plugin's folder to contents, for every file. Reads templates and helpers.

        Raises: ScaffoldError: this installation lacks some of them.
        """
        try:
            return {**self._templates(), **self._helpers()}
        except OSError as exc:
            raise ScaffoldError(f"{exc.filename}: expected a file of this installation, got {exc.strerror}") from exc

    def _templates(self) -> dict[str, bytes]:
        form, folder = FORMS[self.language], TEMPLATES / self.language
        words = self._words(form, folder)
        made: dict[str, bytes] = {}
        for path in sorted(folder.rglob("*")):
            place = path.relative_to(folder).as_posix()
            if path.is_file() and place.split("/")[0] not in ("parts", "capabilities"):
                made[place] = _filled(path, words).encode()
        made["README.md"] = _filled(TEMPLATES / "README.md", words).encode()
        made[".gitignore"] = made.pop("gitignore")
        return made

    def _helpers(self) -> dict[str, bytes]:
        pattern, into = FORMS[self.language].helpers
        found = [path for path in (HELPERS / self.language).glob(pattern) if not _OF_HELPERS_TESTS.search(path.name)]
        if not found:  # links of a checkout may lead nowhere
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(HELPERS / self.language / pattern))
        return {path.name if into == "." else f"{into}/{path.name}": path.read_bytes() for path in found}

    def _words(self, form: Form, folder: Path) -> Mapping[str, str]:
        """What stands for ``@WORDS@``."""
        pieces = [_Piece.read(folder / "capabilities" / f"{key}{form.suffix}") for key in self.capabilities]
        names = sorted({name for piece in pieces for name in piece.parts})
        parts = [_Piece.read(folder / "parts" / f"{name}{form.suffix}") for name in names]
        methods = [row.name for key in self.capabilities for row in methods_of(key)]
        functions = {PLUGIN_REGISTER.name: PLUGIN_REGISTER.name, PLUGIN_RECONFIGURE.name: PLUGIN_REGISTER.name}
        functions |= {method: method for method in methods}
        width = max(map(len, functions)) + len('"":') if form.aligned else 0
        routes = [
            form.route.format(method=f'"{method}"{form.colon}'.ljust(width), function=_function(name, camel=form.camel))
            for method, name in functions.items()
        ]
        imports = sorted({"encoding/json", *(name for piece in (*pieces, *parts) for name in piece.imports)})
        words = {
            "NAME": self.name,
            "PROVIDER": self.provider,
            "LANGUAGE": {Language.C: "C", Language.RUST: "Rust", Language.GO: "Go"}[self.language],
            "SOURCE": form.source,
            "CAPABILITIES": _lines(self._members(), form),
            "ROUTES": f"{form.between}\n".join(routes),
            "IMPORTS": "\n".join(f'\t"{name}"' for name in imports),
            "LIST": "\n".join(f"| `{key}` | {DESCRIPTIONS[key]} |" for key in self.capabilities),
        }
        handlers = "\n".join(piece.text for piece in (*parts, *pieces))
        return {**words, "HANDLERS": _replaced(handlers, words)}

    def _members(self) -> list[str]:
        """Of the JSON object of capabilities."""
        members = [f'"{key}":true' for key in self.capabilities]
        if "executor" in self.capabilities:
            formats = '["openai"]'
            members += ['"executor_model_scope":"both"']
            members += [f'"executor_{side}_formats":{formats}' for side in ("input", "output")]
        return members


@attrs.frozen(kw_only=True)
class _Piece:
    """A part of a source file, without its first line, and what that asks for."""

    text: str
    parts: tuple[str, ...]
    imports: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "_Piece":
        text = path.read_text(encoding="utf-8")
        found = _NEEDS.match(text)
        if found is None:
            return cls(text=text, parts=(), imports=())
        return cls(
            text=text[found.end() :],
            parts=tuple(found["parts"].split()),
            imports=tuple((found["imports"] or "").split()),
        )


def _function(method: str, *, camel: bool) -> str:
    words = re.split(r"[._]", method)
    return words[0] + "".join(word.title() for word in words[1:]) if camel else "_".join(words)


def _lines(members: Sequence[str], form: Form) -> str:
    commas = [f"{member}," for member in members[:-1]] + [members[-1]]
    shown = [member.replace('"', '\\"') if form.escaped else member for member in commas]
    return "\n".join(form.capability.format(member=member) for member in shown)


def _replaced(text: str, words: Mapping[str, str]) -> str:
    return _MARK.sub(lambda mark: words[mark[1]], text)


def _filled(path: Path, words: Mapping[str, str]) -> str:
    return _replaced(path.read_text(encoding="utf-8"), words)


def parse_capabilities(text: str) -> tuple[str, ...]:
    """A comma list of capabilities, or ``all``, without repeats and in the contract's order. Raises: ScaffoldError."""
    wanted = [word.strip() for word in text.split(",")]
    if wanted == ["all"]:
        return tuple(DESCRIPTIONS)
    for word in wanted:
        if word not in DESCRIPTIONS:
            close = difflib.get_close_matches(word, DESCRIPTIONS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ScaffoldError(f"capabilities: expected some of {', '.join(DESCRIPTIONS)}, or all, got {word!r}{hint}")
    return tuple(key for key in DESCRIPTIONS if key in wanted)


def write_plugin(scaffold: Scaffold, directory: Path) -> Path:
    """Write the plugin into a new folder of its name in *directory*, which has to exist. Returns: the folder.

    Nothing that exists is ever changed. Raises: ScaffoldError.
    """
    folder = directory / scaffold.name
    files = scaffold.files()
    try:
        folder.mkdir()
    except FileExistsError as exc:
        raise ScaffoldError(f"{folder}: expected a folder that does not exist yet, got one that does") from exc
    except OSError as exc:
        raise ScaffoldError(f"{folder}: expected a place for a new folder, got {exc.strerror}") from exc
    for place, data in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
    return folder
