"""CPA, an LLM API proxy on Trio. For embedders: load a configuration, then ``async with open_app(loaded) as app``."""

from cpa.app import App, open_app
from cpa.config.load import load_config, parse_config
from cpa.config.schema import Config
from cpa.errors import CpaError
from cpa.version import VERSION as __version__

__all__ = ["App", "Config", "CpaError", "__version__", "load_config", "open_app", "parse_config"]
