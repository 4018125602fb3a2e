"""Fixtures of the examples' tests."""

import pytest

from tests.examples.building import Library, session_library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The compiled examples."""
    return session_library(tmp_path_factory)
