"""Fixtures of the plugin boundary."""

import pytest

from cpa.config.schema import Isolation
from tests.abi.support import Compiler, Harness


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Compiles plugins."""
    return Compiler(tmp_path_factory.mktemp("plugins"))


@pytest.fixture(params=list(Isolation), ids=[item.value for item in Isolation])
def plugin(request: pytest.FixtureRequest) -> Harness:
    """Opens plugins in a process of their own, then inside this one."""
    return Harness(request.param)


@pytest.fixture
def worker() -> Harness:
    """Opens plugins in a process of their own."""
    return Harness(Isolation.PROCESS)
