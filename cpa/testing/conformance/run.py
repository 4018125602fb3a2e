"""A whole run: one library, one or two isolations, one report."""

from pathlib import Path
from typing import Final

import attrs
import trio

from cpa.abi.transport import TransportLimits
from cpa.config.schema import Isolation
from cpa.host.discovery import split_name
from cpa.host.opening import native_opener
from cpa.testing.conformance.bench import Bench, Observer, Planned, heap_checks
from cpa.testing.conformance.checks import REGISTER, Checks
from cpa.testing.conformance.report import Check, PluginSummary, Report
from cpa.testing.conformance.separate import run_separately

DEFAULT_TIMEOUT_S: Final = 10.0
"""For one call: a plugin that thinks for longer about a made-up request does not answer at all."""
CANCELLED_GRACE_S: Final = 0.5
DEFAULT_CONFIG_YAML: Final = b"enabled: true\npriority: 0\n"
"""What the host sends for a plugin whose entry says no more than that it is enabled."""


@attrs.frozen(kw_only=True)
class Settings:
    """What to test, and how.

    Attributes:
      path: of the library.
      plugin_id: None = as the host would make it of the file's name.
      timeout_s: for one call.
      config_yaml: the plugin's own section.
      config_path: what plugins read from the worker's command line; need not exist.
    """

    path: Path
    plugin_id: str | None = None
    isolations: tuple[Isolation, ...] = (Isolation.PROCESS,)
    timeout_s: float = attrs.field(default=DEFAULT_TIMEOUT_S, validator=attrs.validators.gt(0))
    config_yaml: bytes = attrs.field(default=DEFAULT_CONFIG_YAML, repr=False)
    config_path: Path = Path("config.yaml")

    @property
    def id(self) -> str:
        """The plugin's id; ``plugin`` where the file's name gives none."""
        found = split_name(self.path.stem)
        return self.plugin_id or (found[0] if found else "plugin")


class Silence:
    """An observer who hears nothing."""

    def began(self, planned: Planned, isolation: Isolation) -> None:
        """See `Observer`."""

    def calling(self, method: str) -> None:
        """See `Observer`."""

    def ended(self, check: Check) -> None:
        """See `Observer`."""


async def check_plugin(settings: Settings, *, observer: Observer | None = None) -> Report:
    """Drive everything that the plugin declares, and say what is not as the contract wants it.

    Never raises because of the plugin. While it runs, the environment of this process has glibc's heap checks in it,
    for its children. Cancellation: ends the plugin.
    """
    observer = observer or Silence()
    started = trio.current_time()
    checks: list[Check] = []
    plugin: PluginSummary | None = None
    for isolation in settings.isolations:
        if isolation is Isolation.PROCESS:
            with heap_checks():
                found, summary = await run_here(settings, isolation, observer)
        else:
            found, summary = await run_separately(
                path=settings.path.absolute(),
                plugin_id=settings.id,
                timeout_s=settings.timeout_s,
                config_yaml=settings.config_yaml,
                config_path=settings.config_path.absolute(),
                observer=observer,
            )
        checks += found
        plugin = plugin or summary
    return Report(file=str(settings.path), plugin=plugin, checks=tuple(checks), seconds=trio.current_time() - started)


async def run_here(
    settings: Settings,
    isolation: Isolation,
    observer: Observer,
    *,
    done: frozenset[tuple[str, str]] = frozenset(),
    known_to_fail: frozenset[str] = frozenset(),
) -> tuple[list[Check], PluginSummary | None]:
    """The checks in one isolation, from this process; inline, a crash of the plugin is ours.

    Args:
      done, known_to_fail: what an earlier run found out, see `Bench`; only registration is made again.
    """
    # Checks end their plugins themselves; the grace is for a run that is cancelled.
    limits = TransportLimits(start_s=max(settings.timeout_s, 1.0), close_grace_s=CANCELLED_GRACE_S)
    bench = Bench(
        path=settings.path.absolute(),
        plugin_id=settings.id,
        isolation=isolation,
        timeout_s=settings.timeout_s,
        observer=observer,
        opener=native_opener(settings.config_path, limits),
        done=done,
        known_to_fail=known_to_fail,
    )
    checks = Checks(bench=bench, config_yaml=settings.config_yaml)
    await bench.run(planned for planned in checks.plan() if planned.name == REGISTER or planned.key not in done)
    return bench.results, checks.summary
