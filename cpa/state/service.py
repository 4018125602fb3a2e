"""What is shared through Redis, put together. Importing this takes the time of the client library."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time

import trio

from cpa.scheduling.affinity import AFFINITY
from cpa.scheduling.health import HEALTH
from cpa.scheduling.store import StateStore
from cpa.state.limits import SharedLimits
from cpa.state.link import RedisLink
from cpa.state.store import SharedStore
from cpa.usage.limit_store import MemoryLimitStore

PREFIX = "cpa"


@asynccontextmanager
async def open_shared_state(url: str, limits: MemoryLimitStore | None) -> AsyncIterator[StateStore]:
    """A store for scheduling that others share, while the block runs; with it, the counters of *limits*.

    Whether Redis is there or not makes no difference to whoever uses them; the log tells.
    """
    link = RedisLink(url, prefix=PREFIX)
    store = SharedStore(clock=time, prefix=PREFIX, spaces=(HEALTH, AFFINITY), changed=link.changed)
    if limits is not None:
        counters = SharedLimits(limits, clock=time, prefix=PREFIX, changed=link.changed)
        limits.tell(counters.charged)
        link.parts.append(counters)
    link.parts.append(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        yield store
        nursery.cancel_scope.cancel()
