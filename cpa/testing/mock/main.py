"""The command ``cpa mock-provider``."""

from collections.abc import Callable

import trio

from cpa.testing.mock.server import base_url, serve_mock


async def main(*, host: str, port: int, announce: Callable[[str], None], require_key: str | None = None) -> None:
    """Serve until cancelled.

    Args:
      announce: called once, with the line that says where, when connections are accepted.
      require_key: as in `serve_mock`.

    Raises: OSError: the address cannot be bound.
    """
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_mock(host=host, port=port, require_key=require_key, task_status=task_status)

        bound: int = await nursery.start(serve)
        announce(f"mock provider listening on {base_url(host, bound)}")
