"""What asyncio's fast parts can do: uvicorn on uvloop with httptools, aiohttp's client, forwarding and nothing else.

Runs in the environment of the peers, so it imports nothing that only CPA's has. Checks nothing, as the floor.
"""

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp  # type: ignore[import-not-found, unused-ignore]  # the peers' environment has it
import uvicorn  # type: ignore[import-not-found, unused-ignore]  # as above

from tests.bench import serving

PATH = "/v1/chat/completions"
HEADERS = {"authorization": "Bearer bench-provider-key", "content-type": "application/json"}
"""payloads.py has the same ones; it needs a library that peers do not."""
Message = dict[str, Any]


class Forwarder:
    """The ASGI application."""

    def __init__(self, provider_port: int) -> None:
        self._url = f"http://127.0.0.1:{provider_port}{PATH}"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Serve one request."""
        pieces: list[bytes] = []
        more = True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, timeout=aiohttp.ClientTimeout()
            )
        async with self._session.post(self._url, data=b"".join(pieces), headers=HEADERS) as answer:
            kept = [
                (name.encode(), answer.headers[name].encode())
                for name in ("content-type", "content-length")
                if name in answer.headers
            ]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            if answer.content_length is not None:
                await send({"type": "http.response.body", "body": await answer.read()})
                return
            async for data in answer.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serve on a free port until killed."""
    logging.disable()
    port = serving.provider_port()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        serving.announce(*listener.getsockname())
        config = uvicorn.Config(
            Forwarder(port),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            backlog=4096,
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
