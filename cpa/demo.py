"""``cpa serve --demo``: a shipped configuration, a mock provider behind it, and the example plugins that are built."""

from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import trio

from cpa.config.load import Loaded, parse_config
from cpa.testing.mock import serve_mock

DEMO_PROVIDER = "http://127.0.0.1:8318"
"""Where the demo configuration expects the mock provider; the demo puts its real address there."""


def load_demo(libraries: Path | None = None) -> Loaded:
    """The demo's configuration as it is shipped, with those of its plugins that are there.

    Args:
      libraries: where the example plugins lie; None = where ``make run`` builds them, in the checkout that we run from.
    """
    loaded = parse_config(demo_text(), file="demo.yaml")
    plugins = loaded.config.plugins
    # The file names it as seen from the checkout's root; the demo may be started anywhere.
    folder = libraries or Path(str(files("cpa"))).parent / plugins.dir
    built = {name: entry for name, entry in plugins.configs.items() if (folder / f"{name}.so").is_file()}
    plugins = attrs.evolve(plugins, enabled=bool(built), dir=folder, configs=built)
    return attrs.evolve(loaded, config=attrs.evolve(loaded.config, plugins=plugins))


async def with_demo_provider(loaded: Loaded, stack: AsyncExitStack) -> Loaded:
    """Run a mock provider in *stack* and return the demo's configuration with its address."""
    nursery = await stack.enter_async_context(trio.open_nursery())
    stack.callback(nursery.cancel_scope.cancel)

    async def provider(task_status: trio.TaskStatus[int]) -> None:
        await serve_mock(host="127.0.0.1", port=0, task_status=task_status)

    port: int = await nursery.start(provider)
    text = demo_text().replace(DEMO_PROVIDER, f"http://127.0.0.1:{port}")
    config = parse_config(text, file="demo.yaml").config
    # Not the user's own folder: the demo lets everybody in, and real credentials are somebody's money.
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="cpa-demo-", ignore_cleanup_errors=True)))
    return attrs.evolve(loaded, config=attrs.evolve(config, plugins=loaded.config.plugins, auth_dir=folder))


def demo_text() -> str:
    """The file behind ``--demo``."""
    return files("cpa").joinpath("demo.yaml").read_text(encoding="utf-8")
