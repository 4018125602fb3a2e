"""The baseline: Hypercorn and Quart-Trio forwarding through httpx's client over our own transport, and nothing else."""

from collections.abc import AsyncIterator

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

from cpa.upstream.transport import TrioTransport
from tests.bench import serving
from tests.bench.payloads import PATH, PROVIDER_KEY

HEADERS = {"authorization": f"Bearer {PROVIDER_KEY}", "content-type": "application/json"}


def make_app(client: httpx.AsyncClient, url: str) -> QuartTrio:
    """Forward `PATH` to *url*."""
    app = QuartTrio("baseline")

    @app.post(PATH)
    async def forward() -> Response:
        outgoing = client.build_request("POST", url, headers=HEADERS, content=await request.get_data())
        answer = await client.send(outgoing, stream=True)
        content_type = answer.headers["content-type"]
        if not content_type.startswith("text/event-stream"):
            try:
                body = await answer.aread()
            finally:
                await answer.aclose()
            return Response(body, answer.status_code, content_type=content_type)

        async def relay() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                with trio.CancelScope(shield=True):
                    await answer.aclose()

        response = Response(relay(), answer.status_code, content_type=content_type)
        response.timeout = None
        return response

    return app


async def main(provider_port: int) -> None:
    """Serve on a free port until killed."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.keep_alive_max_requests = 1 << 62
    config.errorlog = None
    config.backlog = 1024
    url = f"http://127.0.0.1:{provider_port}{PATH}"
    async with httpx.AsyncClient(transport=TrioTransport()) as client, trio.open_nursery() as nursery:
        (bound,) = await nursery.start(serve, make_app(client, url), config)
        serving.announce("127.0.0.1", int(bound.rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main, serving.provider_port())
