"""Fixtures of the end-to-end tests."""

import pytest

from tests.native.build import NativeBuilder


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> NativeBuilder:
    """Builds plugins in C, Go and Rust, each once."""
    return NativeBuilder(tmp_path_factory.mktemp("native"))
