"""What holds for every test."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# How fast a machine makes examples says nothing about the code that is tested with them.
settings.register_profile("cpa", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cpa")


@pytest.fixture(autouse=True, scope="session")
def loggers_are_not_kept() -> Iterator[None]:
    """Loggers of modules are bound at each use.

    Under a program's configuration they are bound once: the first test that configures the log would have the lines of
    all later tests of its process.
    """
    configure = structlog.configure

    def configure_uncached(**settings: object) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", configure_uncached)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the files, whatever order sets have in this process: the processes that share the tests compare."""
    items.sort(key=lambda item: (item.path, item.location[1] or 0, item.nodeid))
