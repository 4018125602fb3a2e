"""What plugins serve over HTTP: tables of their management routes and resources, and the calls behind them.

Theory of operation. Each plugin with the capability is asked once per loaded copy and settings what it serves
(`management.register`), by a task of its own, never by a request. From the answers and the plugins that take part a
frozen `Tables` is made and swapped in one step, whenever either changes. While a new copy has not answered yet, the
answer of the one before it holds; a plugin that takes part no more has no routes at once.

The entries are hostile: they are judged one by one (plugin-abi 7.3–7.5), what is refused is logged once.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs
import trio

from cpa.abi import wire
from cpa.abi.kinds import B64
from cpa.abi.methods import DEFAULT_TIMEOUT_S, MANAGEMENT_HANDLE, MANAGEMENT_REGISTER
from cpa.config.schema import OnError, PluginEntry, PluginsConfig
from cpa.errors import CpaError
from cpa.formats.headers import HeaderMap
from cpa.host.discovery import PluginFile
from cpa.host.manager import PluginManager, find_plugins
from cpa.host.paths import MANAGEMENT, RESOURCES
from cpa.host.plugin import LivePlugin, PluginState, PluginStatus
from cpa.host.scopes import InboundContext, ScopeRegistry
from cpa.observability.log import get_logger
from cpa.types import PluginId

log = get_logger()

MAX_ENTRIES: Final = 1024
"""Routes and resources of one plugin, each."""
MAX_PATH_CHARS: Final = 1024
MAX_CALLS: Final = 64
"""Requests to one plugin's routes and pages that run at once. Pages need no key, yet each call holds a thread of the
plugin and may cost money."""
RESOURCE_METHOD: Final = "GET"

_WHITE_SPACE = re.compile(r"\s")
_NOT_IN_ROUTES = re.compile(r"[ \t\r\n:*]")
_NOT_IN_RESOURCES = re.compile(r"\s|[:*]|\.\.")

ReservedRoute: TypeAlias = Callable[[str, str], bool]
"""``reserved(method, full path)``: a native route has it."""


class PluginBusy(CpaError):
    """As many calls of the plugin's routes and pages run as may."""

    http_status = 503
    code = "plugin_busy"
    retryable = True
    default_message = f"more than {MAX_CALLS} requests to this plugin at once"


class BadEntry(ValueError):
    """A route or resource that cannot be served; the text says why."""


@attrs.frozen(kw_only=True)
class Menu:
    """A page that the control panel offers. *path* is the full one."""

    path: str
    menu: str
    description: str


@attrs.frozen(kw_only=True)
class Endpoint:
    """What serves one path: a plugin that took part when the tables were made."""

    plugin: LivePlugin


@attrs.frozen(kw_only=True)
class Tables:
    """Who serves what.

    Attributes:
      routes: by method and full path; behind the management key.
      resources: by full path; GET, without key.
      menus: of each plugin, by path.
    """

    routes: Mapping[tuple[str, str], Endpoint] = MappingProxyType({})
    resources: Mapping[str, Endpoint] = MappingProxyType({})
    menus: Mapping[PluginId, tuple[Menu, ...]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class PageRequest:
    """A browser's or operator's request. *headers* without what is none of the plugin's business; *path* in full."""

    method: str
    path: str
    headers: HeaderMap = attrs.field(factory=dict, repr=False)
    query: HeaderMap = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen(kw_only=True)
class PageReply:
    """What the plugin said, unjudged but for its types. *status* 0 means 200."""

    status: int
    headers: HeaderMap
    body: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class PluginOverview:
    """One line of the operator's list.

    Attributes:
      live: None unless it takes part.
      effective: it is switched on, as all plugins are, and takes part.
    """

    status: PluginStatus
    configured: bool
    on_error: OnError
    effective: bool
    live: LivePlugin | None
    menus: tuple[Menu, ...]


@attrs.frozen(kw_only=True)
class _Known:
    """What a plugin answered last. *key* tells the copy and the settings."""

    key: tuple[int, str] = attrs.field(repr=False)
    reply: wire.ManagementRegisterReply


@attrs.define(eq=False)
class _Asking:
    key: tuple[int, str] = attrs.field(repr=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False, kw_only=True)
class PluginManagement:
    """See `open_plugin_management`.

    Attributes:
      tables: in force; replaced as a whole.
    """

    _manager: PluginManager
    _scopes: ScopeRegistry
    _config: Callable[[], PluginsConfig]
    _reserved: ReservedRoute
    _nursery: trio.Nursery
    tables: Tables = Tables()
    _known: dict[PluginId, _Known] = attrs.field(factory=dict)
    _asking: dict[PluginId, _Asking] = attrs.field(factory=dict)
    _settled: trio.Event = attrs.field(factory=trio.Event)
    _complaints: frozenset[tuple[str, ...]] = frozenset()
    _running: Counter[PluginId] = attrs.field(factory=Counter)
    _closed: bool = False

    def refresh(self) -> None:
        """The plugins have changed: make new tables, and ask those whose answer is not known. Never blocks."""
        if self._closed:
            return
        wanted = {plugin.id: plugin for plugin in self._manager.snapshot() if plugin.capabilities.management_api}
        for plugin_id in set(self._known) - set(wanted):
            del self._known[plugin_id]
        for plugin_id in set(self._asking) - set(wanted):
            self._asking.pop(plugin_id).scope.cancel()
        for plugin in wanted.values():
            self._ask_if_needed(plugin)
        self._rebuild()

    async def settle(self) -> None:
        """Wait until every plugin has said what it serves, `DEFAULT_TIMEOUT_S` at most: one that hangs is not waited
        for longer than any call of it would be."""
        with trio.move_on_after(DEFAULT_TIMEOUT_S):
            while self._asking:
                await self._settled.wait()
        await trio.lowlevel.checkpoint()

    async def handle(self, endpoint: Endpoint, request: PageRequest) -> PageReply:
        """Let the plugin behind *endpoint* answer.

        Raises: PluginBusy; CpaError when the plugin is down, fails or takes too long.
        Cancellation: the plugin's host calls end with an error, then it has half a second to return.
        """
        plugin = endpoint.plugin
        if self._running[plugin.id] >= MAX_CALLS:
            raise PluginBusy
        message = wire.ManagementRequest(
            method=request.method,
            path=request.path,
            headers=request.headers,
            query=request.query,
            body=B64(request.body),
        )
        # No trace id: that is for the model API's paths (plugin-abi 6.12).
        context = InboundContext(headers=request.headers, query=request.query, path=request.path)
        self._running[plugin.id] += 1
        try:
            async with self._scopes.open(plugin.id, context) as scope:
                reply = await plugin.call(MANAGEMENT_HANDLE, message, scope_id=scope.id, unwind=scope.unwind)
        finally:
            self._running[plugin.id] -= 1
            if not self._running[plugin.id]:
                del self._running[plugin.id]
        return PageReply(status=reply.status_code, headers=reply.headers, body=reply.body)

    def running(self, plugin_id: PluginId) -> int:
        """Calls of that plugin's routes and pages that run."""
        return self._running.get(plugin_id, 0)

    async def overview(self) -> tuple[PluginOverview, ...]:
        """Every plugin that is found now, configured or loaded, by id. A folder that cannot be read has none."""
        config = self._config()
        found = await find_plugins(config.dir, config.configs)
        live = {plugin.id: plugin for plugin in self._manager.snapshot()}
        statuses = {status.id: status for status in self._manager.states()}
        for file in found.selected:
            statuses.setdefault(file.id, _not_loaded(file, config))
        menus = self.tables.menus
        return tuple(
            PluginOverview(
                status=status,
                configured=status.id in config.configs,
                on_error=config.configs.get(status.id, PluginEntry()).on_error,
                effective=config.enabled and status.enabled and status.id in live,
                live=live.get(status.id),
                menus=menus.get(status.id, ()) if status.id in live else (),
            )
            for _, status in sorted(statuses.items())
        )

    def rearm(self, plugin_id: str) -> bool:
        """Start a fused, failed or waiting plugin now, without waiting for it. False: no such plugin."""
        return self._manager.rearm(plugin_id)

    # ---- inside ----

    def _ask_if_needed(self, plugin: LivePlugin) -> None:
        key = (plugin.generation, plugin.settings)
        known, asking = self._known.get(plugin.id), self._asking.get(plugin.id)
        if asking is not None:
            if asking.key == key:
                return
            asking.scope.cancel()
            del self._asking[plugin.id]
        if known is not None and known.key == key:
            return
        self._asking[plugin.id] = fresh = _Asking(key)
        self._nursery.start_soon(self._ask, plugin, fresh, name=f"management.register of {plugin.id}")

    async def _ask(self, plugin: LivePlugin, asking: _Asking) -> None:
        request = wire.ManagementRegisterRequest(
            plugin=plugin.metadata, base_path=MANAGEMENT, resource_base_path=f"{RESOURCES}/{plugin.id}"
        )
        try:
            with asking.scope:
                try:
                    reply = await plugin.call(MANAGEMENT_REGISTER, request)
                except CpaError as exc:
                    log.warning(
                        "plugin serves nothing", plugin=plugin.id, method=MANAGEMENT_REGISTER.name, error=str(exc)
                    )
                    reply = wire.ManagementRegisterReply()
                if self._asking.get(plugin.id) is asking:
                    self._known[plugin.id] = _Known(key=asking.key, reply=reply)
                    self._rebuild()
        finally:
            if self._asking.get(plugin.id) is asking:
                del self._asking[plugin.id]
            settled, self._settled = self._settled, trio.Event()
            settled.set()

    def _rebuild(self) -> None:
        complaints: list[tuple[str, ...]] = []
        known = {plugin_id: known.reply for plugin_id, known in self._known.items()}
        self.tables = build_tables(self._manager.snapshot(), known, reserved=self._reserved, complaints=complaints)
        for complaint in complaints:
            if complaint not in self._complaints:
                plugin_id, what, reason = complaint
                log.warning("plugin route is not served", plugin=plugin_id, route=what, reason=reason)
        self._complaints = frozenset(complaints)


def build_tables(
    plugins: tuple[LivePlugin, ...],
    known: Mapping[PluginId, wire.ManagementRegisterReply],
    *,
    reserved: ReservedRoute,
    complaints: list[tuple[str, ...]],
) -> Tables:
    """The tables of *plugins*, which are in priority order: the first to want a route has it.

    *complaints* gets (plugin id, entry, reason) of each entry that is left out.
    """
    routes: dict[tuple[str, str], Endpoint] = {}
    resources: dict[str, Endpoint] = {}
    menus: dict[PluginId, tuple[Menu, ...]] = {}
    for plugin in plugins:
        reply = known.get(plugin.id)
        if reply is None or not plugin.capabilities.management_api:
            continue
        endpoint = Endpoint(plugin=plugin)
        pages: dict[str, Menu] = {}
        for entry in _resources(reply):
            try:
                path = resource_path(plugin.id, entry.path)
                if path in pages:
                    raise BadEntry("the plugin has it already")
                pages[path] = Menu(path=path, menu=entry.menu.strip(), description=entry.description.strip())
                resources[path] = endpoint
            except BadEntry as exc:
                complaints.append((plugin.id, entry.path[:MAX_PATH_CHARS], str(exc)))
        for route in reply.routes[:MAX_ENTRIES]:
            if _is_legacy(route):
                continue
            try:
                key = management_route(route.method, route.path)
                if reserved(*key):
                    raise BadEntry("the proxy itself has it")
                if key in routes:
                    raise BadEntry(f"plugin {routes[key].plugin.id} has it")
                routes[key] = endpoint
            except BadEntry as exc:
                complaints.append((plugin.id, f"{route.method} {route.path}"[:MAX_PATH_CHARS], str(exc)))
        if len(reply.routes) > MAX_ENTRIES or len(reply.resources) > MAX_ENTRIES:
            complaints.append((plugin.id, "all", f"more than {MAX_ENTRIES} entries: the rest is left out"))
        menus[plugin.id] = tuple(pages[path] for path in sorted(pages) if pages[path].menu)
    return Tables(routes=MappingProxyType(routes), resources=MappingProxyType(resources), menus=MappingProxyType(menus))


def management_route(method: str, path: str) -> tuple[str, str]:
    """Method and full path of an entry of ``routes`` (plugin-abi 7.3). Raises: BadEntry."""
    method = method.strip().upper() or "GET"
    if _WHITE_SPACE.search(method):
        raise BadEntry("white space in the method")
    path = f"{MANAGEMENT}{_tail(path, MANAGEMENT)}"
    if _NOT_IN_ROUTES.search(path):
        raise BadEntry("white space, : or * in the path")
    return method, path


def resource_path(plugin_id: str, path: str) -> str:
    """Full path of a resource (plugin-abi 7.4). Raises: BadEntry."""
    base = f"{RESOURCES}/{plugin_id}"
    path = f"{base}{_tail(path, base, f'/plugins/{plugin_id}')}"
    if _NOT_IN_RESOURCES.search(path.removeprefix(base)):
        raise BadEntry("white space, :, * or .. in the path")
    return path


def _tail(path: str, *prefixes: str) -> str:
    """*path* with a slash before and none behind, without the first of *prefixes* that it has. Raises: BadEntry."""
    path = path.strip()
    if len(path) > MAX_PATH_CHARS:
        raise BadEntry(f"path of more than {MAX_PATH_CHARS} characters")
    if path and not path.startswith("/"):
        path = f"/{path}"
    for prefix in prefixes:
        if path == prefix or path.startswith(f"{prefix}/"):
            path = path.removeprefix(prefix)
            break
    path = path.rstrip("/")
    if not path:
        raise BadEntry("empty path")
    return path


def _is_legacy(route: wire.ManagementRoute) -> bool:
    """An entry of ``routes`` that means a page (plugin-abi 7.5)."""
    return (route.method.strip().upper() or RESOURCE_METHOD) == RESOURCE_METHOD and bool(route.menu.strip())


def _resources(reply: wire.ManagementRegisterReply) -> Iterator[wire.ManagementResource]:
    """The pages of a plugin, then those that it declares the old way."""
    yield from reply.resources[:MAX_ENTRIES]
    for route in reply.routes[:MAX_ENTRIES]:
        if _is_legacy(route):
            yield wire.ManagementResource(path=route.path, menu=route.menu, description=route.description)


def _not_loaded(file: PluginFile, config: PluginsConfig) -> PluginStatus:
    """The status of a library that the manager has not been told of."""
    entry = config.configs.get(file.id)
    if not config.enabled:
        reason = "plugins.enabled is false"
    elif entry is None:
        reason = f"plugins.configs.{file.id} is missing"
    else:
        reason = "not looked at yet"
    return PluginStatus(
        id=file.id,
        path=str(file.path),
        version=file.version,
        state=PluginState.DISABLED,
        reason=reason,
        generation=0,
        isolation=(entry.isolation if entry is not None else None) or config.isolation,
        pid=0,
        priority=entry.priority if entry is not None else 0,
        enabled=entry.enabled if entry is not None else False,
        metadata=None,
        schema_version=0,
    )


@asynccontextmanager
async def open_plugin_management(
    manager: PluginManager,
    *,
    scopes: ScopeRegistry,
    config: Callable[[], PluginsConfig],
    reserved: ReservedRoute = lambda method, path: False,
) -> AsyncIterator[PluginManagement]:
    """The routes and pages of *manager*'s plugins while the block runs.

    Call `PluginManagement.refresh` after each change of its snapshot. Ownership: the tasks that ask
    plugins end with the block.
    """
    async with trio.open_nursery() as nursery:
        management = PluginManagement(manager=manager, scopes=scopes, config=config, reserved=reserved, nursery=nursery)
        try:
            yield management
        finally:
            management._closed = True
            management.tables = Tables()
            nursery.cancel_scope.cancel()
