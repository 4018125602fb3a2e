"""What the tests of host calls share: a real runtime in front of a mock provider, and calls as plugins make them."""

import base64
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from cpa.host.services import HostServices, open_host_services
from cpa.pipeline.stage import Registration
from cpa.types import PluginId
from tests.proxy import RunningProxy, running_proxy

ALICE = PluginId("alice")
BOB = PluginId("bob")


def b64(data: bytes) -> str:
    """As bytes travel."""
    return base64.b64encode(data).decode()


def unb64(text: str | None) -> bytes:
    """The way back; none is empty."""
    return base64.b64decode(text or "")


class Refused(Exception):
    """An error envelope; *error* is its object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


@attrs.frozen(kw_only=True)
class Host:
    """Host services over a running proxy."""

    services: HostServices
    proxy: RunningProxy

    async def call(self, method: str, members: Any = None, *, plugin: PluginId = ALICE, generation: int = 0) -> Any:
        """The result of a host call of *plugin*. Raises: Refused."""
        payload = members if isinstance(members, bytes) else json.dumps({} if members is None else members).encode()
        return result(await self.services.handle(plugin, method.encode(), payload, generation=generation))

    @property
    def open_streams(self) -> int:
        """Of all kinds."""
        services = self.services
        return len(services.http_streams) + len(services.model_streams) + len(services.executor_streams)


def result(envelope: bytes) -> Any:
    """What an envelope says. Raises: Refused."""
    reply = json.loads(envelope)
    if not reply["ok"]:
        assert "result" not in reply
        assert reply["error"]["code"] == "host_call_failed"
        raise Refused(reply["error"])
    assert "error" not in reply
    return reply["result"]


@asynccontextmanager
async def open_host(*, extra: str = "", registrations: Iterable[Registration] = ()) -> AsyncIterator[Host]:
    """A proxy with a mock provider behind it, and the host services of it; nothing may be left open at the end."""
    async with running_proxy(extra=extra, registrations=registrations) as proxy:
        app = proxy.app
        async with open_host_services(
            clients=app._clients,
            config=lambda: app.loaded.config,
            current=lambda: app.state.runtime.services,
        ) as services:
            host = Host(services=services, proxy=proxy)
            yield host
            assert len(services.scopes) == 0
            assert not services.scopes._background
            assert not services._running
