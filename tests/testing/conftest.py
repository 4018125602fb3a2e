"""Fixtures of the conformance kit."""

import pytest

from tests.testing.conformance_support import Compiler


@pytest.fixture(scope="session")
def kit_plugin(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Compiles the kit's test plugins."""
    return Compiler(tmp_path_factory.mktemp("kit"))
