"""What is going on: the last requests, one in full, and a stream of what begins, comes on and ends."""

from typing import Final

import msgspec
import trio

from cpa.observability.live import MAX_ENDED, Live, Reader
from cpa.observability.live_detail import detail
from cpa.server.management.calls import JSON_TYPE, Answer, ManagementCall, Write, coded_error, error_answer, json_answer
from cpa.server.responder import STREAM_HEADERS

DEFAULT_LIMIT: Final = 100
MAX_READERS: Final = 32
"""Each costs a connection and a share of the processor; a panel has one."""
PING_S: Final = 15.0
"""Less than what proxies in between wait for a sign of life."""
GAP_S: Final = 0.2
"""Between two writes: a busy proxy tells a hundred things in one write, and nobody reads faster."""
THREAD_BYTES: Final = 64 << 10
"""More than that is compared in a thread, so that streams keep flowing meanwhile."""
HELLO: Final = b": watching\n\n"
PING: Final = b": ping\n\n"


async def requests(call: ManagementCall) -> Answer:
    """``GET /requests?limit=&after=``: the last requests, those that run included, newest last.

    ``after``: ``cursor`` of the answer before, for what has changed since.
    """
    limit = call.query("limit") or str(DEFAULT_LIMIT)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= MAX_ENDED):
        return error_answer(400, f"limit must be from 1 to {MAX_ENDED}")
    found, cursor = call.live.recent(limit=int(limit), after=call.query("after"))
    summaries = b",".join(msgspec.json.encode(request.summary()) for request in found)
    return Answer(headers=(JSON_TYPE,), body=b'{"requests":[%b],"cursor":"%b"}' % (summaries, cursor.encode()))


async def request(call: ManagementCall) -> Answer:
    """``GET /requests/{id}``: its stages, what they changed, what translation lost, and its attempts.

    What stages change is noted while somebody watches: a reader of the stream, or whoever asked this within half a
    minute.
    """
    live = call.live
    found = live.look(call.params["id"])
    if found is None:
        return coded_error(404, "request_not_found", "no such request among the last ones")
    if found.trace.kept_bytes <= THREAD_BYTES or found.duration_s is None:
        return json_answer(detail(found, live.redact))
    # It has ended: nobody changes it any more while the thread looks at it, but for forgetting its bodies.
    return json_answer(await trio.to_thread.run_sync(detail, found, live.redact, abandon_on_cancel=True))


async def stream(call: ManagementCall) -> Answer:
    """``GET /requests/stream``: an event ``request`` with a summary whenever one begins, gets a first byte or ends."""
    live = call.live
    if live.readers >= MAX_READERS:
        return coded_error(503, "too_many_readers", f"{MAX_READERS} readers of this stream are there already")

    async def feed(write: Write) -> None:
        await tell(live, write)

    return Answer(headers=STREAM_HEADERS, feed=feed)


async def tell(live: Live, write: Write) -> None:
    """Tell a reader of *live*, until cancelled."""
    with live.read() as reader:
        await write(HELLO)
        while True:
            with trio.move_on_after(PING_S):
                await reader.wait()
            await write(events(reader) or PING)
            await trio.sleep(GAP_S)


def events(reader: Reader) -> bytes:
    """What waits for *reader* as events."""
    summaries, lost = reader.take()
    told = b'event: lost\ndata: {"count":%d}\n\n' % lost if lost else b""
    return told + b"".join(b"event: request\ndata: %b\n\n" % summary for summary in summaries)
