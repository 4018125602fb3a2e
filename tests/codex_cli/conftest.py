"""Fixtures of the plugin's tests."""

import pytest

from tests.codex_cli.hosting import Built, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The compiled plugin."""
    return build(tmp_path_factory)
