"""Imports go one way, each foreign library has one door, and no module needs itself (style.md 1, design.md 3)."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import cpa

ROOT = Path(cpa.__file__).parent

BASE = frozenset(
    {
        "cpa.errors",
        "cpa.jsontypes",
        "cpa.types",
        "cpa.version",
        "cpa.config.schema",
        "cpa.credentials.model",
        "cpa.translation.profile",
        "cpa.formats.names",
        "cpa.formats.headers",
        "cpa.formats.members",
    }
)
"""Whoever needs these may have them; they need each other at most."""
ANYTHING = frozenset({"*"})
LAYERS: Mapping[str, frozenset[str]] = {
    "cpa.__main__": frozenset({"cli"}),
    "cpa.__init__": frozenset({"app", "config", "pipeline", "starting"}),
    "cpa.cli": ANYTHING,
    "cpa.cli_check": ANYTHING,
    "cpa.cli_arguments": frozenset(),
    "cpa.cli_flags": ANYTHING,
    "cpa.cli_mcp": frozenset({"mcp"}),  # agents start it for every turn
    "cpa.cli_mock": ANYTHING,
    "cpa.cli_plan": ANYTHING,
    "cpa.cli_serve": ANYTHING,
    "cpa.cli_new": frozenset({"scaffold"}),
    "cpa.cli_plugin": ANYTHING,
    "cpa.cli_translate": ANYTHING,
    "cpa.supervisor": ANYTHING,
    "cpa.app": ANYTHING,
    "cpa.demo": ANYTHING,
    "cpa.masking": ANYTHING,
    "cpa.runtime": ANYTHING,
    "cpa.starting": ANYTHING,
    "cpa.garbage": frozenset(),
    "cpa.workers": frozenset(),
    "cpa.server": frozenset({"host", "pipeline", "formats", "models", "observability", "scheduling", "usage"})
    | {"credentials", "config"}  # management shows and edits their files
    | {"upstream"},  # and calls providers for operators
    "cpa.host": frozenset({"abi", "pipeline", "upstream", "usage", "models", "scheduling", "credentials", "config"})
    | {"formats", "observability"},
    "cpa.abi": frozenset({"formats"}),
    "cpa.pipeline": frozenset({"translation", "formats"}),
    "cpa.translation": frozenset({"formats"}),
    "cpa.upstream": frozenset({"credentials", "formats"}),
    "cpa.mcp": frozenset(),
    "cpa.models": frozenset({"credentials", "formats"}),
    "cpa.scheduling": frozenset({"credentials", "formats"}),  # errors and requests are read by what they say
    "cpa.scaffold": frozenset({"abi", "host"}),  # names of methods, and what may be a plugin's id
    "cpa.state": frozenset({"scheduling", "usage", "observability"}),
    "cpa.usage": frozenset({"credentials", "formats"}),
    "cpa.credentials": frozenset({"config"}),
    "cpa.observability": frozenset({"formats", "pipeline"}),  # the live view shows what executions note
    "cpa.config": frozenset({"pipeline"}),  # which steps there are and what they take, whoever runs them knows
    "cpa.formats": frozenset(),
    "cpa.testing": ANYTHING,
}
"""Package to the packages that it may import, beside its own and `BASE`."""
NOT_ABOVE = {
    "cli": {"cpa.__main__"},
    "cli_arguments": {"cpa.cli", "cpa.cli_flags"},
    "cli_flags": {"cpa.cli"},
    "cli_new": {"cpa.cli_plugin"},
    "cli_plugin": {"cpa.cli", "cpa.cli_flags", "cpa.cli_plan", "cpa.cli_translate"},
    "cli_translate": {"cpa.cli", "cpa.cli_plan"},
    "cli_check": set(),
    "cli_mcp": set(),
    "cli_mock": set(),
    "cli_plan": set(),
    "cli_serve": set(),
    "supervisor": {"cpa.cli_serve"},
    "demo": {"cpa.app", "cpa.cli_plan", "cpa.cli_serve"},
    "masking": {"cpa.app"},
    "runtime": {"cpa.app"},
    "garbage": {"cpa.app"},
    "starting": {"cpa.__init__", "cpa.cli_serve", "cpa.supervisor", "cpa.app"},
    "app": {"cpa.__main__", "cpa.__init__", "cpa.cli_serve", "cpa.testing"},
}
"""What stands at the top is imported from there only."""
TESTING_USERS = frozenset({"cpa.demo", "cpa.cli_mock", "cpa.cli_plugin"})
"""The demo, `cpa mock-provider` and `cpa plugin check`."""

DOORS: Mapping[str, tuple[str, ...]] = {
    "cffi": ("cpa.abi",),
    "httpx": ("cpa.upstream", "cpa.host.services_http"),
    "httpcore": ("cpa.upstream",),
    "socksio": ("cpa.upstream",),
    "quart": ("cpa.server", "cpa.app"),
    "quart_trio": ("cpa.server", "cpa.app"),
    "hypercorn": ("cpa.server", "cpa.app"),
    "h2": ("cpa.server",),
    "h11": ("cpa.server",),
    "werkzeug": ("cpa.server",),
    "wsproto": ("cpa.server",),
    "httptools": ("cpa.upstream", "cpa.server", "cpa.testing.mock"),
    "yaml": ("cpa.config",),
    "watchfiles": ("cpa.config",),
    "bcrypt": ("cpa.server.management.keys", "cpa.config.sealing"),
    "prometheus_client": ("cpa.observability",),
    "brotli": ("cpa.formats.coding",),
    "zstandard": ("cpa.formats.coding",),
    "sqlite3": ("cpa.usage",),
    "coredis": ("cpa.state",),
    "asyncio": (),
    "anyio": ("cpa.state",),
    "requests": (),
    "aiohttp": (),
    "threading": ("cpa.abi", "cpa.observability"),
}
"""Foreign library to the packages or modules that may import it."""
WITHOUT_TRIO = (
    "cpa.formats",
    "cpa.translation",
    "cpa.abi",
    "cpa.pipeline",
    "cpa.config.schema",
    "cpa.errors",
    "cpa.jsontypes",
    "cpa.mcp",
    "cpa.types",
)
TRIO_ALLOWED = frozenset(
    {
        "cpa.pipeline.runner",
        "cpa.pipeline.answer",
        "cpa.pipeline.asking",
        "cpa.pipeline.attempts",
        "cpa.pipeline.completions",
        "cpa.abi.transport",
        "cpa.abi.process",
        "cpa.abi.inline",
        "cpa.abi.worker",
    }
)
"""Who drives the logic, and the transports of plugin calls."""
ASYNC_ALLOWED = TRIO_ALLOWED | {
    "cpa.pipeline.applying",
    "cpa.pipeline.dispatch",
    "cpa.pipeline.running",
    "cpa.pipeline.services",
    "cpa.pipeline.stream",
    "cpa.pipeline.stage",
    "cpa.pipeline.unfolding",
    "cpa.types",
}
"""Where coroutines are without an event loop: they only await what they are given."""


def name_of(path: Path) -> str:
    """Dotted name of a module; that of a package's own file is the package's."""
    parts = ["cpa", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[str]:
    """Every module that *name* imports, wherever in it; for ``from a import b`` it is a.b where that is a module."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def within(name: str, place: str) -> bool:
    """*name* is the module or package *place*, or in it."""
    return name == place or name.startswith(f"{place}.")


def package_of(name: str) -> str:
    """``cpa.x`` of ``cpa.x.y.z``."""
    return ".".join(name.split(".")[:2])


def wrong_arrows(name: str) -> Iterator[str]:
    """Imports of our own modules that the layers forbid."""
    package = package_of(name)
    allowed = LAYERS.get(package, frozenset())
    for target in imports(name):
        if not within(target, "cpa") or target in BASE or package_of(target) == package:
            continue
        short = target.split(".")[1] if "." in target else "__init__"
        users = NOT_ABOVE.get(short)
        if short == "__init__" or (users is not None and package not in users):
            yield f"{name} imports {target} from below"
        elif short == "testing" and package not in TESTING_USERS:
            yield f"{name} imports {target}, which is for tests"
        elif name in BASE:
            yield f"{name} is a base module and imports {target}"
        elif users is None and short != "testing" and not allowed & {"*", short}:
            yield f"{name} imports {target}"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    """What is below knows nothing of what is above, so that it can be read, tested and replaced alone."""
    assert package_of(name) in LAYERS or name in BASE, f"{name}: say in this test what it may import"
    assert not list(wrong_arrows(name))


def test_every_foreign_library_has_its_door() -> None:
    """A library that is imported in one place can be changed in one place."""
    found = [
        f"{name} imports {target}"
        for name in MODULES
        for target in imports(name)
        if (places := DOORS.get(target.split(".")[0])) is not None and not any(within(name, place) for place in places)
    ]
    assert not found


def test_logic_does_without_the_event_loop() -> None:
    """Codecs and stages take values and return values; only who drives them waits."""
    found = [
        f"{name} imports trio"
        for name in MODULES
        for target in imports(name)
        if target.split(".")[0] == "trio"
        and any(within(name, place) for place in WITHOUT_TRIO)
        and name not in TRIO_ALLOWED
    ]
    assert not found


def test_coroutines_are_where_they_are_said_to_be() -> None:
    """Sans-I/O is a promise about whole packages."""
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = [
        name
        for name, tree in TREES.items()
        if any(within(name, place) for place in WITHOUT_TRIO)
        and name not in ASYNC_ALLOWED
        and any(isinstance(node, kinds) for node in ast.walk(tree))
    ]
    assert not found


def test_there_are_no_cycles() -> None:
    """Modules in a cycle are one module in disguise. Imports for types and inside functions count too."""
    graph = {name: {target for target in imports(name) if target in MODULES and target != name} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            pytest.fail(" -> ".join((*path[path.index(name) :], name)))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_packages_do_not_need_each_other() -> None:
    """The same one level up: of two packages at most one imports the other, base modules and the mock aside."""
    pairs = {
        (package_of(name), package_of(target))
        for name in MODULES
        if name not in BASE
        for target in imports(name)
        if target in MODULES and target not in BASE and package_of(target) != package_of(name)
    }
    assert not [pair for pair in pairs if pair[::-1] in pairs and "cpa.testing" not in pair]
