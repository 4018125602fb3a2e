"""CPA, an LLM API proxy on Trio. For embedders: load a configuration, then ``async with open_app(loaded) as app``.

Names are imported when they are first used: a worker process that needs one small module must not load the server.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cpa.version import VERSION as __version__

if TYPE_CHECKING:
    from cpa.app import App, open_app
    from cpa.config.load import load_config, parse_config
    from cpa.config.schema import Config
    from cpa.errors import CpaError
    from cpa.pipeline.chains import Chain
    from cpa.starting import Options

__all__ = ["App", "Chain", "Config", "CpaError", "Options", "__version__", "load_config", "open_app", "parse_config"]

_HOMES = {
    "App": "cpa.app",
    "Chain": "cpa.pipeline.chains",
    "Config": "cpa.config.schema",
    "CpaError": "cpa.errors",
    "Options": "cpa.starting",
    "load_config": "cpa.config.load",
    "open_app": "cpa.app",
    "parse_config": "cpa.config.load",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cpa' has no attribute {name!r}")
    return getattr(import_module(home), name)
