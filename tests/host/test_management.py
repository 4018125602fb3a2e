"""Which plugin serves what: judged entries, tables that follow the plugins, and calls within bounds."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from cpa.abi.envelope import PluginCallError
from cpa.abi.methods import DEFAULT_TIMEOUT_S
from cpa.abi.wire import HttpReply, ManagementRegisterReply, ManagementResource, ManagementRoute
from cpa.config.schema import PluginsConfig
from cpa.host.management import (
    MAX_CALLS,
    MAX_ENTRIES,
    MAX_PATH_CHARS,
    BadEntry,
    Endpoint,
    Menu,
    PageRequest,
    PluginBusy,
    PluginManagement,
    build_tables,
    management_route,
    open_plugin_management,
    resource_path,
)
from cpa.host.manager import PluginManager
from cpa.host.plugin import LivePlugin
from cpa.host.scopes import ScopeRegistry
from cpa.types import PluginId
from tests.host.plugin_fakes import ScriptedCopy, live

REGISTER, HANDLE = "management.register", "management.handle"
GET = PageRequest(method="GET", path="/v0/management/x")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/a", ("GET", "/v0/management/a")),
        ("", "a", ("GET", "/v0/management/a")),
        (" post ", " /a/b/ ", ("POST", "/v0/management/a/b")),
        ("purge", "/v0/management/a", ("PURGE", "/v0/management/a")),
        ("GET", "v0/management/a//", ("GET", "/v0/management/a")),
        ("GET", "/v0/managements", ("GET", "/v0/management/v0/managements")),
        ("GET", "/a/../b", ("GET", "/v0/management/a/../b")),
        ("GET", "//a", ("GET", "/v0/management//a")),
        ("G ET", "/a", "method"),
        ("GET\t x", "/a", "method"),
        ("GET", "", "empty"),
        ("GET", " / ", "empty"),
        ("GET", "/v0/management", "empty"),
        ("GET", "/v0/management/", "empty"),
        ("GET", "/a b", "white space"),
        ("GET", "/a\tb", "white space"),
        ("GET", "/a\r\nb", "white space"),
        ("GET", "/:id", "white space"),
        ("GET", "/*rest", "white space"),
        ("GET", "/" + "a" * MAX_PATH_CHARS, "more than"),
    ],
)
def test_management_routes(method: str, path: str, expected: tuple[str, str] | str) -> None:
    """Each rule of the contract, and a bound."""
    if isinstance(expected, tuple):
        assert management_route(method, path) == expected
    else:
        with pytest.raises(BadEntry, match=expected):
            management_route(method, path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "/a"),
        (" a/b/ ", "/a/b"),
        ("/v0/resource/plugins/p.x/a", "/a"),
        ("/plugins/p.x/a", "/a"),
        ("/plugins/other/a", "/plugins/other/a"),
        ("/v0/resource/plugins/p.xy/a", "/v0/resource/plugins/p.xy/a"),
        ("/v0/management/a", "/v0/management/a"),
        ("", None),
        ("/", None),
        ("/plugins/p.x", None),
        ("/plugins/p.x/", None),
        ("/v0/resource/plugins/p.x", None),
        ("/a b", None),
        ("/a\u00a0b", None),
        ("/a:b", None),
        ("/*", None),
        ("/a..b", None),
        ("/../x", None),
    ],
)
def test_resource_paths(path: str, expected: str | None) -> None:
    """Each rule of the contract."""
    if expected is not None:
        assert resource_path("p.x", path) == f"/v0/resource/plugins/p.x{expected}"
    else:
        with pytest.raises(BadEntry):
            resource_path("p.x", path)


def test_dots_in_a_plugins_own_id_are_no_way_out() -> None:
    """Ids may hold them."""
    assert resource_path("a..b", "/c") == "/v0/resource/plugins/a..b/c"


def route(path: str, method: str = "GET", menu: str = "") -> ManagementRoute:
    return ManagementRoute(method=method, path=path, menu=menu)


def tables_of(*plugins: tuple[LivePlugin, ManagementRegisterReply]) -> tuple[Any, list[tuple[str, ...]]]:
    """Tables and complaints."""
    complaints: list[tuple[str, ...]] = []
    tables = build_tables(
        tuple(plugin for plugin, _ in plugins),
        {plugin.id: reply for plugin, reply in plugins},
        reserved=lambda method, path: (method, path) == ("GET", "/v0/management/native"),
        complaints=complaints,
    )
    return tables, complaints


def test_conflicts_reserved_and_broken_entries_cost_only_themselves() -> None:
    """The first in priority order has a route; every other entry counts."""
    first, second = live("a", management_api=True), live("b", management_api=True)
    tables, complaints = tables_of(
        (first, ManagementRegisterReply(routes=(route("/x"), route("/native"), route("/x"), route("/native", "POST")))),
        (second, ManagementRegisterReply(routes=(route("/x"), route("/ /"), route("/y"), route("/x", "PUT")))),
    )
    assert {key: endpoint.plugin.id for key, endpoint in tables.routes.items()} == {
        ("GET", "/v0/management/x"): "a",
        ("POST", "/v0/management/native"): "a",
        ("GET", "/v0/management/y"): "b",
        ("PUT", "/v0/management/x"): "b",
    }
    assert complaints == [
        ("a", "GET /native", "the proxy itself has it"),
        ("a", "GET /x", "plugin a has it"),
        ("b", "GET /x", "plugin a has it"),
        ("b", "GET / /", "white space, : or * in the path"),
    ]


def test_menus_are_of_pages_with_a_name_by_path() -> None:
    """Those of the old way too; the first of two entries for one path counts."""
    plugin = live("a", management_api=True)
    tables, complaints = tables_of(
        (
            plugin,
            ManagementRegisterReply(
                routes=(route("/old", menu="Old"), route("/old", "POST", menu="Old"), route("/z", "", menu=" Z ")),
                resources=(
                    ManagementResource(path="/z", menu="", description="unnamed"),
                    ManagementResource(path="/b", menu=" B ", description=" text "),
                ),
            ),
        )
    )
    base = "/v0/resource/plugins/a"
    assert set(tables.resources) == {f"{base}/z", f"{base}/b", f"{base}/old"}
    assert tables.menus == {
        "a": (
            Menu(path=f"{base}/b", menu="B", description="text"),
            Menu(path=f"{base}/old", menu="Old", description=""),
        )
    }
    assert set(tables.routes) == {("POST", "/v0/management/old")}
    assert complaints == [("a", "/z", "the plugin has it already")]


def test_entries_are_bounded() -> None:
    """A plugin cannot fill memory with routes, and is told."""
    plugin = live("a", management_api=True)
    many = tuple(route(f"/{number}") for number in range(MAX_ENTRIES + 1))
    tables, complaints = tables_of((plugin, ManagementRegisterReply(routes=many)))
    assert len(tables.routes) == MAX_ENTRIES
    assert [reason for _, _, reason in complaints] == [f"more than {MAX_ENTRIES} entries: the rest is left out"]


def test_without_the_capability_nothing_is_served() -> None:
    """A reply of before it was withdrawn does not count."""
    tables, _ = tables_of((live("a", executor="x"), ManagementRegisterReply(routes=(route("/x"),))))
    assert not tables.routes


@attrs.define(eq=False)
class Plugins:
    """A manager whose snapshot the test sets."""

    present: tuple[LivePlugin, ...] = ()

    def snapshot(self) -> tuple[LivePlugin, ...]:
        """See `PluginManager`."""
        return self.present


@asynccontextmanager
async def managing(scopes: ScopeRegistry, *plugins: LivePlugin) -> AsyncIterator[tuple[PluginManagement, Plugins]]:
    """Routes of *plugins*, which were asked."""
    manager = Plugins(plugins)
    async with open_plugin_management(
        cast("PluginManager", manager), scopes=scopes, config=PluginsConfig
    ) as management:
        management.refresh()
        await management.settle()
        yield management, manager


def serving(*paths: str) -> ManagementRegisterReply:
    return ManagementRegisterReply(routes=tuple(route(path) for path in paths))


def paths_of(management: PluginManagement) -> set[str]:
    """Full paths of the routes in force, without their common beginning."""
    return {path.removeprefix("/v0/management") for _, path in management.tables.routes}


async def test_a_plugin_is_asked_once_per_copy_and_settings(
    scopes: ScopeRegistry, autojump_clock: trio.testing.MockClock
) -> None:
    """Not for each change of another one; until the new copy answers, the old answer holds."""
    copy = ScriptedCopy({REGISTER: serving("/one")})
    async with managing(scopes, live("a", copy, management_api=True)) as (management, manager):
        assert paths_of(management) == {"/one"}
        manager.present = (*manager.present, live("b", executor="x"))
        management.refresh()
        manager.present = (live("a", copy, priority=9, management_api=True),)
        management.refresh()
        await management.settle()
        assert copy.count(REGISTER) == 1
        [endpoint] = management.tables.routes.values()
        assert endpoint.plugin.priority == 9
        for number, changed in enumerate(({"generation": 2}, {"generation": 2, "settings": "x"}), 2):
            copy.answers[REGISTER] = serving(f"/{number}")
            before = paths_of(management)
            manager.present = (live("a", copy, management_api=True, **cast("dict[str, Any]", changed)),)
            management.refresh()
            assert paths_of(management) == before
            await management.settle()
            assert paths_of(management) == {f"/{number}"}
            assert copy.count(REGISTER) == number


async def test_the_question_is_the_contracts(scopes: ScopeRegistry) -> None:
    """Without a scope, with the plugin's own base paths."""
    copy = ScriptedCopy()
    async with managing(scopes, live("a", copy, management_api=True)):
        [(method, request, scope_id)] = copy.calls
        assert (method, scope_id) == (REGISTER, "")
        assert request.plugin.name == "Acme"
        assert (request.base_path, request.resource_base_path) == ("/v0/management", "/v0/resource/plugins/a")


async def test_a_plugin_that_is_gone_serves_nothing_at_once(scopes: ScopeRegistry) -> None:
    """Nor does its answer come back with another plugin of that name."""
    copy = ScriptedCopy({REGISTER: serving("/one")})
    async with managing(scopes, live("a", copy, management_api=True)) as (management, manager):
        manager.present = ()
        management.refresh()
        assert paths_of(management) == set()
        manager.present = (live("a", copy, management_api=True),)
        management.refresh()
        assert paths_of(management) == set()
        await management.settle()
        assert paths_of(management) == {"/one"}
    assert paths_of(management) == set()
    management.refresh()  # the end of the manager tells of changes too
    assert copy.count(REGISTER) == 2


async def test_a_plugin_that_fails_to_say_serves_nothing(scopes: ScopeRegistry) -> None:
    """And is not asked again and again."""
    bad = ScriptedCopy({REGISTER: PluginCallError(method=REGISTER, message="no")})
    good = ScriptedCopy({REGISTER: serving("/good")})
    async with managing(scopes, live("bad", bad, management_api=True), live("good", good, management_api=True)) as (
        management,
        _,
    ):
        assert paths_of(management) == {"/good"}
        management.refresh()
        await management.settle()
        assert bad.count(REGISTER) == 1


async def test_a_plugin_that_hangs_delays_nobody_for_ever(
    scopes: ScopeRegistry, autojump_clock: trio.testing.MockClock
) -> None:
    """Others are served at once, readiness waits as long as for any call; a new copy ends the waiting."""

    async def hang(request: Any) -> Any:
        await trio.sleep_forever()

    stuck = ScriptedCopy({REGISTER: hang})
    good = ScriptedCopy({REGISTER: serving("/good")})
    started = trio.current_time()
    async with managing(scopes, live("bad", stuck, management_api=True), live("good", good, management_api=True)) as (
        management,
        manager,
    ):
        assert trio.current_time() - started == pytest.approx(DEFAULT_TIMEOUT_S)
        assert paths_of(management) == {"/good"}
        stuck.answers[REGISTER] = serving("/better")
        manager.present = (live("bad", stuck, generation=2, management_api=True), *manager.present[1:])
        management.refresh()
        await management.settle()
        assert trio.current_time() - started == pytest.approx(DEFAULT_TIMEOUT_S)
        assert paths_of(management) == {"/good", "/better"}


async def test_complaints_are_logged_once(scopes: ScopeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables are made anew all the time."""
    copy = ScriptedCopy({REGISTER: serving("/a b")})
    async with managing(scopes, live("a", copy, management_api=True)) as (management, _):
        for _ in range(3):
            management.refresh()
        await management.settle()
    assert capsys.readouterr().out.count("plugin route is not served") == 1


async def handled(
    management: PluginManagement, plugin: LivePlugin, request: PageRequest, report: Callable[[Any], None]
) -> None:
    """Report what comes of a call."""
    try:
        report(await management.handle(Endpoint(plugin=plugin), request))
    except PluginBusy as exc:
        report(exc)


async def test_calls_carry_a_scope_with_the_pages_context(scopes: ScopeRegistry) -> None:
    """Host calls inherit headers and query; the trace id is empty outside of the model API."""
    seen: list[Any] = []
    plugin_id = PluginId("a")

    async def answer(request: Any) -> HttpReply:
        scope = scopes.find(copy.calls[-1][2], plugin_id)
        assert scope is not None
        seen.append(scope.context)
        await trio.lowlevel.checkpoint()
        return HttpReply(status_code=201, headers={"A": ["b"]}, body=b"c")

    copy = ScriptedCopy({HANDLE: answer})
    plugin = live("a", copy, management_api=True)
    async with managing(scopes, plugin) as (management, _):
        request = PageRequest(
            method="POST", path="/v0/management/x", headers={"X": ["1"]}, query={"q": ["2"]}, body=b"body"
        )
        reply = await management.handle(Endpoint(plugin=plugin), request)
    assert (reply.status, reply.headers, reply.body) == (201, {"A": ["b"]}, b"c")
    [context] = seen
    assert (context.headers, context.query, context.path) == ({"X": ["1"]}, {"q": ["2"]}, "/v0/management/x")
    assert (context.trace_id, context.request_id, context.principal, context.callers) == ("", "", "", ())
    sent = copy.calls[-1][1]
    assert (sent.method, sent.path, sent.headers, sent.query) == (
        "POST",
        "/v0/management/x",
        {"X": ["1"]},
        {"q": ["2"]},
    )
    assert sent.body.data == b"body"
    assert len(scopes) == 0


async def test_calls_are_bounded_per_plugin(scopes: ScopeRegistry) -> None:
    """One too many is refused, not queued; other plugins are not concerned; what ends makes room."""
    gate = trio.Event()

    async def wait(request: Any) -> HttpReply:
        await gate.wait()
        return HttpReply()

    busy, idle = live("busy", ScriptedCopy({HANDLE: wait})), live("idle", ScriptedCopy())
    found: list[Any] = []
    async with managing(scopes) as (management, _), trio.open_nursery() as nursery:
        for _ in range(MAX_CALLS):
            nursery.start_soon(handled, management, busy, GET, found.append)
        await trio.testing.wait_all_tasks_blocked()
        assert management.running(busy.id) == MAX_CALLS
        with pytest.raises(PluginBusy) as info:
            await management.handle(Endpoint(plugin=busy), GET)
        assert info.value.http_status == 503
        assert (await management.handle(Endpoint(plugin=idle), GET)).status == 0
        gate.set()
    assert len(found) == MAX_CALLS
    assert not any(isinstance(item, Exception) for item in found)
    assert (management.running(busy.id), management.running(idle.id)) == (0, 0)


async def test_a_failed_or_cancelled_call_leaves_nothing(scopes: ScopeRegistry) -> None:
    """Neither a scope nor a place."""

    async def hang(request: Any) -> Any:
        await trio.sleep_forever()

    copy = ScriptedCopy({HANDLE: PluginCallError(method=HANDLE, message="no")})
    plugin = live("a", copy)
    async with managing(scopes) as (management, _):
        with pytest.raises(PluginCallError):
            await management.handle(Endpoint(plugin=plugin), GET)
        copy.answers[HANDLE] = hang
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handled, management, plugin, GET, lambda item: None)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert management.running(plugin.id) == 0
        assert len(scopes) == 0
