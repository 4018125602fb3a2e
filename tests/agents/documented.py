"""The commands and files of docs/clients.md: what users type is what the tests run."""

import re
from collections.abc import Iterator

import attrs

from tests.e2e.program import ROOT

PAGE = ROOT / "docs" / "clients.md"
URL = "http://127.0.0.1:8317"
PROVIDER_URL = "http://127.0.0.1:8318"
KEY = "my-client-key"
PROVIDER_KEY = "my-provider-key"
MODEL = "my-model"
PROMPT = "What does note.txt say?"
REHEARSAL = "Rehearse without a provider"

_FENCED = re.compile(r"^## (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@attrs.frozen(kw_only=True)
class Block:
    """A fenced block.

    Attributes:
      section: the heading of the second level that it stands under, empty before the first one.
    """

    section: str
    language: str
    text: str


def parse_blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown *page*, in order."""
    section = ""
    for found in _FENCED.finditer(page):
        if found["heading"] is not None:
            section = found["heading"]
        else:
            yield Block(section=section, language=found["language"], text=found["text"])


def documented(section: str, language: str) -> str:
    """The text of the one block of *language* in *section*. Raises: ValueError: there are none or several."""
    (block,) = (
        block for block in parse_blocks(PAGE.read_text()) if (block.section, block.language) == (section, language)
    )
    return block.text


def page_config(*, mock: str = "mock") -> str:
    """The page's configuration with fields for `running_proxy`; *mock* begins the names of the provider's models."""
    text = documented(REHEARSAL, "yaml").replace("{", "{{").replace("}", "}}")
    for old, new in ((PROVIDER_URL, "{provider}"), (PROVIDER_KEY, "{provider_key}"), (KEY, "{client_key}")):
        assert old in text
        text = text.replace(old, new)
    return text.replace("name: mock-", f"name: {mock}-") + "auth-dir: {auth_dir}\n{extra}\n"
