"""The command ``cpa mock-provider``."""

import signal
from collections.abc import Callable

import trio

from cpa.testing.mock.server import base_url, serve_mock


async def main(*, host: str, port: int, announce: Callable[[str], None], require_key: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM. For the main thread only, which is where signals are handled.

    Args:
      announce: called once, with the line that says where, when connections are accepted.
      require_key: as in `serve_mock`.

    Raises: OSError: the address cannot be bound.
    """
    refused: OSError | None = None
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_mock(host=host, port=port, require_key=require_key, task_status=task_status)

        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            try:
                bound: int = await nursery.start(serve)
            except OSError as exc:
                refused = exc
            else:
                announce(f"mock provider listening on {base_url(host, bound)}")
                await anext(signals)
        nursery.cancel_scope.cancel()
    if refused is not None:
        # Out here it is alone; raised inside the nursery it would come in a group.
        raise refused
