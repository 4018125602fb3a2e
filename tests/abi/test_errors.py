"""The errors of plugins."""

import pytest

from cpa.abi import errors
from cpa.abi.errors import AbiMismatch, PluginClosed, PluginCrashed, PluginError, PluginLoadError
from cpa.errors import CpaError

ALL = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, PluginError)]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_the_plugins_fault(error: type[PluginError]) -> None:
    """A client sees a bad gateway, and the tree in the docstring is complete."""
    assert issubclass(error, CpaError)
    assert error.http_status == 502
    assert error.__name__ in (errors.__doc__ or "")


def test_errors_carry_data_and_the_texts_of_the_contract() -> None:
    """Tests and managers match on attributes, people read."""
    crash = PluginCrashed(plugin_id="acme", reason="exited with status 3", method="auth.parse")
    assert str(crash) == "plugin acme crashed in auth.parse: exited with status 3"
    assert (crash.plugin_id, crash.reason, crash.method) == ("acme", "exited with status 3", "auth.parse")
    assert str(PluginClosed(plugin_id="acme")) == "plugin client is closed"
    assert issubclass(AbiMismatch, PluginLoadError)
