"""Names, capabilities and files of new plugins; whether they build is tested with the command."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from cpa.abi import wire
from cpa.abi.methods import PLUGIN_METHODS, methods_of
from cpa.host.discovery import split_name
from cpa.scaffold import plugin
from cpa.scaffold.capabilities import DESCRIPTIONS
from cpa.scaffold.plugin import (
    FORMS,
    HELPERS,
    TEMPLATES,
    Language,
    Scaffold,
    ScaffoldError,
    parse_capabilities,
    write_plugin,
)

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugin" / "lib"
CALLED = frozenset(row.name for row in PLUGIN_METHODS)
SOURCES = {Language.C: "plugin.c", Language.RUST: "src/lib.rs", Language.GO: "main.go"}


def files_of(language: Language, *capabilities: str, name: str = "acme") -> Mapping[str, bytes]:
    return Scaffold(name=name, language=language, capabilities=capabilities or wire.SWITCHES).files()


def test_every_capability_is_described_in_the_contracts_order() -> None:
    assert tuple(DESCRIPTIONS) == wire.SWITCHES
    assert all(0 < len(text) < 70 for text in DESCRIPTIONS.values())


@pytest.mark.parametrize("language", list(Language))
def test_every_capability_has_a_piece(language: Language) -> None:
    """And no piece is nobody's."""
    pieces = {path.stem for path in (TEMPLATES / language / "capabilities").iterdir()}
    assert pieces == set(wire.SWITCHES)


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize("capability", wire.SWITCHES)
def test_routes_are_the_methods_of_the_capability(language: Language, capability: str) -> None:
    """Each once, with the two of every plugin in front of them."""
    source = files_of(language, capability)[SOURCES[language]].decode()
    routed = [name for name in re.findall(r'"([a-z_]+(?:\.[a-z_]+)+)"[:,]', source) if name in CALLED]
    assert routed == ["plugin.register", "plugin.reconfigure", *(row.name for row in methods_of(capability))]
    assert f'"{capability}":true'.replace('"', '\\"' if language is Language.C else '"') in source


@pytest.mark.parametrize("language", list(Language))
def test_no_mark_is_left_and_the_name_is_everywhere(language: Language) -> None:
    files = files_of(language, name="Acme.2")
    ours = {
        place: data.decode() for place, data in files.items() if not place.endswith(("cpa_helper.h", "cpa_plugin.rs"))
    }
    assert [place for place, text in ours.items() if re.search(r"@[A-Z]+@", text)] == []
    assert "Acme.2.so" in ours["Makefile"]
    assert "Acme.2: {enabled: true}" in ours["README.md"]
    assert '"acme.2"' in ours[SOURCES[language]]
    assert ".gitignore" in ours


@pytest.mark.parametrize("language", list(Language))
def test_parts_come_once_and_only_when_they_are_needed(language: Language) -> None:
    source = files_of(language)[SOURCES[language]].decode()
    alone = files_of(language, "response_stream_interceptor")[SOURCES[language]].decode()
    for path in (TEMPLATES / language / "parts").iterdir():
        piece = path.read_text().partition("\n")[2] if path.read_text().startswith("// needs:") else path.read_text()
        assert source.count(piece) == 1, path.name
    assert "host.log" in source
    assert "host.log" not in alone
    assert len(alone) < len(source) / 5


def test_helpers_are_those_of_the_examples() -> None:
    """There is one source of each: what is in here are links to it, or, in an installed wheel, copies."""
    assert files_of(Language.C)["cpa_helper.h"] == (EXAMPLES / "c" / "cpa_helper.h").read_bytes()
    assert files_of(Language.C)["cpa_plugin.h"] == (HELPERS.parents[1] / "abi" / "cpa_plugin.h").read_bytes()
    assert files_of(Language.RUST)["src/cpa_plugin.rs"] == (EXAMPLES / "rust" / "src" / "lib.rs").read_bytes()
    helper = {
        place.removeprefix("plugin/"): data for place, data in files_of(Language.GO).items() if "plugin/" in place
    }
    wanted = {path.name: path.read_bytes() for path in (EXAMPLES / "go").glob("*.go") if "_test" not in path.name}
    assert helper == wanted
    assert all((HELPERS / language).exists() for language in FORMS)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "''"),
        ("-x", "'-x'"),
        ("a b", "'a b'"),
        ("../x", "'../x'"),
        ("a/b", "'a/b'"),
        ("ä", "'ä'"),
        ("a\n", r"'a\n'"),
        ("x" * 129, "'xxx"),
        ("acme-v2", "version 2 of a plugin called 'acme'"),
    ],
    ids=["empty", "dash", "blank", "parent", "slash", "umlaut", "line", "long", "version"],
)
def test_names_that_hosts_would_not_take(name: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError, match=r"^name: expected ") as caught:
        write_plugin(Scaffold(name=name, language=Language.C, capabilities=("executor",)), tmp_path)
    assert what in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A-1", "acme.so", "x" * 128, "acme-vision"])
def test_names_that_hosts_take(name: str) -> None:
    assert Scaffold(name=name, language=Language.GO, capabilities=("executor",)).name == name
    assert split_name(name) == (name, "")


def test_capabilities_are_a_list_in_the_contracts_order_without_repeats() -> None:
    assert parse_capabilities("executor, model_provider,executor") == ("model_provider", "executor")
    assert parse_capabilities("all") == wire.SWITCHES


@pytest.mark.parametrize("text", ["", ",", "executor,", "all,executor", "Executor", "exeuctor"])
def test_capabilities_that_are_none(text: str) -> None:
    with pytest.raises(ScaffoldError, match=r"^capabilities: expected some of model_registrar, ") as caught:
        parse_capabilities(text)
    assert ("did you mean 'executor'" in caught.value.message) == (text in ("Executor", "exeuctor"))


def test_a_place_that_is_none(tmp_path: Path) -> None:
    scaffold = Scaffold(name="acme", language=Language.C, capabilities=("executor",))
    with pytest.raises(ScaffoldError, match="expected a place for a new folder, got No such file or directory"):
        write_plugin(scaffold, tmp_path / "nowhere")
    assert write_plugin(scaffold, tmp_path) == tmp_path / "acme"
    with pytest.raises(ScaffoldError, match="expected a folder that does not exist yet"):
        write_plugin(scaffold, tmp_path)


@pytest.mark.parametrize("language", list(Language))
def test_helpers_that_are_missing(language: Language, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a checkout without links; half a plugin would be worse."""
    monkeypatch.setattr(plugin, "HELPERS", tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "cpa_helper.h").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ScaffoldError, match="expected a file of this installation, got No such file or directory"):
        write_plugin(Scaffold(name="acme", language=language, capabilities=("executor",)), tmp_path)
    assert not (tmp_path / "acme").exists()
