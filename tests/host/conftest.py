"""Fixtures of the plugin host's tests."""

from collections.abc import AsyncIterator

import pytest

from cpa.host.scopes import ScopeRegistry, open_scopes


@pytest.fixture
async def scopes() -> AsyncIterator[ScopeRegistry]:
    """An empty registry."""
    async with open_scopes() as registry:
        yield registry
