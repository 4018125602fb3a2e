"""The one builder of a session, for the packages whose tests need compiled plugins."""

import pytest

from tests.native.build import NativeBuilder

_builders: dict[pytest.Config, NativeBuilder] = {}


@pytest.fixture(scope="session")
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NativeBuilder:
    """Builds plugins in C, Go and Rust, each once."""
    config = request.config
    if config not in _builders:  # a fixture that two packages import is two fixtures
        _builders[config] = NativeBuilder(tmp_path_factory.mktemp("native"))
    return _builders[config]
