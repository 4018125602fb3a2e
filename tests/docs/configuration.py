"""Makes docs/configuration.md of conf/config.example.yaml, which a test holds against the schema.

``python -m tests.docs.configuration`` writes the page anew; a test fails while it is not what this makes.
"""

import re
from collections.abc import Container, Iterator

import attrs

from tests.docs.page import DOCS
from tests.e2e.program import ROOT

EXAMPLE = ROOT / "conf" / "config.example.yaml"
PAGE = DOCS / "configuration.md"
EXPLAINED = {"providers": "gemini-api-key[].", "payload": "payload.default[]."}
"""The lists whose keys are explained."""
COMMAND = "python -m tests.docs.configuration"

HEAD = f"""\
# Configuration

One YAML file, by default `config.yaml`, else what `$CPA_CONFIG` or `--config` names. It takes the keys of CLIProxyAPI
and some more. `cpa check` names every problem at once; unknown keys are problems.

<!-- file: config.yaml -->
```yaml
port: 8317
api-keys: [choose-a-long-random-key]
claude-api-key:
  - api-key: sk-ant-...
    models: [{{name: claude-sonnet-4-6, alias: sonnet}}]
routing: {{strategy: fill-first}}
```

```sh
cpa check --config config.yaml
```

```text
config.yaml: ok, 1 credentials of 1 providers
```

- Saving the file or `SIGHUP` makes CPA read it again; requests that are under way keep what they began with. Keys whose
  effect begins with *(restart)* are read at the start only. A file with problems changes nothing.
- Durations are texts such as `90s` or `1h30m`; keys that end in `-seconds` take numbers. Patterns know only `*`.
- Values are taken literally: `${{NAME}}` is not replaced. `MANAGEMENT_PASSWORD` in the environment is a management key
  beside the file's, `WRITABLE_PATH` names where logs and the ledger go.
- *No effect yet*: read and checked, but nothing obeys it in this version; `cpa check` warns where one is set.

`[]` in a key stands for every item of a list. The tables and examples below are made of
[conf/config.example.yaml](../conf/config.example.yaml) by `{COMMAND}`.
"""

_RULE = re.compile(r"# -{10,} (?P<title>.+)")
_EXAMPLE = re.compile(r"#(?=[a-z]|  )")
_KEY = re.compile(
    r"(?P<indent> *(?:- )?)(?P<key>[a-z][a-z0-9-]*):"
    r"(?P<value>(?: +(?!#)[^#\n]*?(?:#\([^#]*\)[^#\n]*)*)?)(?: +# *(?P<note>.*))?"
)
_DEFAULT = re.compile(r"\bdefault:? (?P<value>\"[^\"]*\"|[^\s,;.()][^,;.()]*)")


@attrs.frozen(kw_only=True)
class Row:
    """One key.

    Attributes:
      path: ``plugins.configs``, with ``[]`` for items of lists.
      default: what stands for it when it is absent, empty when the effect says so.
    """

    path: str
    default: str
    effect: str


@attrs.frozen(kw_only=True)
class Section:
    """The keys between two rules of the example, and an example of them."""

    title: str
    rows: tuple[Row, ...]
    example: str


def read_sections() -> Iterator[Section]:
    """What the example file says of each key, in its order."""
    pieces = _RULE.split(EXAMPLE.read_text(encoding="utf-8"))[1:]
    for title, body in zip(pieces[::2], pieces[1::2], strict=True):
        yield Section(title=title.strip(), rows=tuple(read_rows(body)), example=example_of(body))


def read_rows(body: str) -> Iterator[Row]:
    """The keys of one section's text."""
    notes: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in body.splitlines():
        example = _EXAMPLE.match(line) is not None
        text = line[1:] if example else line
        found = _KEY.fullmatch(text)
        if found is None:
            comment = text.strip()
            if comment.startswith("#"):
                notes.append(comment.lstrip("# "))
            elif not comment:
                notes.clear()
            continue
        indent, value = found["indent"], found["value"].strip()
        depth = len(indent)
        while parents and parents[-1][0] >= depth:
            parents.pop()
        item = "[]" if "- " in indent else ""
        if item and parents and not parents[-1][1].endswith("[]"):
            parents[-1] = (parents[-1][0], f"{parents[-1][1]}[]")
        path = f"{parents[-1][1]}.{found['key']}" if parents else found["key"]
        parents.append((depth, path))
        effect = " ".join([*notes, found["note"] or ""]).strip()
        notes.clear()
        named = _DEFAULT.search(effect)
        default = value if value and not example else named["value"].strip() if named else ""
        yield Row(path=path, default=default, effect=effect)


def example_of(body: str) -> str:
    """The section as YAML: examples active, without comments."""
    lines = [line[1:] if _EXAMPLE.match(line) else line for line in body.splitlines()]
    kept = [re.sub(r" +# .*$", "", line) for line in lines if line.strip() and not line.strip().startswith("#")]
    return "\n".join(kept) + "\n"


def cell(text: str) -> str:
    """*text* in a cell of a table, as it is."""
    return re.sub(r"([|*<])", r"\\\1", text)


def code(text: str) -> str:
    """*text* as code in a cell; words as they are, and nothing for nothing."""
    return cell(text) if " " in text or not text else f"`{text.replace('|', chr(92) + '|')}`"


def without_default(effect: str, default: str) -> str:
    """*effect* without the words that another cell has."""
    left = re.sub(rf"(?:^|,? )default:? {re.escape(default)}(?=[.;]|$)", "", effect) if default else effect
    return left.strip(" ;")


def effect_of(row: Row, known: Container[str]) -> str:
    """What its cell says. Lists of alike things take the same keys, which the example explains at the first of them."""
    effect = without_default(row.effect, row.default)
    below = row.path.partition("[].")[2]
    first = EXPLAINED["payload" if row.path.startswith("payload.") else "providers"]
    for tail in (below, below.rpartition("[].")[2]):
        if not effect and tail and f"{first}{tail}" in known and not row.path.startswith(first):
            return f"as `{first}{tail}`"
    return cell(effect or "the switch" if row.default in ("true", "false") else effect)


def make_page() -> str:
    """The whole page."""
    parts = [HEAD]
    sections = list(read_sections())
    known = {row.path for section in sections for row in section.rows}
    for section in sections:
        rows = "\n".join(
            f"| {code(row.path)} | {code(row.default)} | {effect_of(row, known)} |" for row in section.rows
        )
        parts.append(f"## {section.title.capitalize()}\n\n| key | default | effect |\n|---|---|---|\n{rows}\n")
        parts.append(f"<!-- example: {section.title} -->\n```yaml\n{section.example}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
