"""The public names: what `__all__` promises is there, and nothing else looks public."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import cpa

PACKAGES = ["cpa"]
PACKAGES += [
    module.name
    for module in pkgutil.walk_packages(cpa.__path__, "cpa.")
    if module.name != "cpa.__main__" and not module.name.endswith("._native")
]
PUBLIC = ("App", "Chain", "Config", "CpaError", "Options", "__version__", "load_config", "open_app", "parse_config")


@pytest.mark.parametrize("name", PACKAGES)
def test_all_names_what_is_there_once_and_sorted(name: str) -> None:
    """A star import must not fail, and a reader finds a name where the alphabet has it."""
    module = importlib.import_module(name)
    exports = getattr(module, "__all__", [])
    for export in exports:
        assert hasattr(module, export)
    assert len(set(exports)) == len(exports)
    plain = [export for export in exports if not export.startswith("__")]
    assert plain == sorted(plain, key=lambda text: (text.upper() != text, text[0].islower(), text))


def test_the_package_offers_its_public_names() -> None:
    """Embedders rely on these; another one is a decision, not an accident."""
    assert tuple(cpa.__all__) == PUBLIC
    with pytest.raises(AttributeError, match="nothing"):
        cpa.nothing  # noqa: B018 - looking is what is tested


def test_importing_the_package_loads_no_server() -> None:
    """A worker process of a plugin needs one small module of it, a thousand times a day."""
    heavy = {"trio", "quart", "hypercorn", "httpx"}
    code = f"import cpa, sys; print(*({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.split() == []


def test_star_import_gives_exactly_all() -> None:
    """As the language defines it."""
    scope: dict[str, object] = {}
    exec("from cpa import *", scope)
    assert set(scope) - {"__builtins__"} == set(PUBLIC)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_module_says_what_it_is(name: str) -> None:
    """The first thing a reader wants to know."""
    module = importlib.import_module(name)
    if module.__spec__ is not None and module.__spec__.submodule_search_locations is None:
        assert module.__doc__
