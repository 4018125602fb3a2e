"""The conformance kit for authors of plugins: `check_plugin` drives a library and gives a `Report`.

``cpa plugin check FILE.so`` prints it. The members of the JSON report are documented in `report`.
"""

from cpa.testing.conformance.bench import Observer, Planned
from cpa.testing.conformance.report import Check, PluginSummary, Report, Verdict
from cpa.testing.conformance.run import DEFAULT_CONFIG_YAML, DEFAULT_TIMEOUT_S, Settings, check_plugin

__all__ = [
    "DEFAULT_CONFIG_YAML",
    "DEFAULT_TIMEOUT_S",
    "Check",
    "Observer",
    "Planned",
    "PluginSummary",
    "Report",
    "Settings",
    "Verdict",
    "check_plugin",
]
