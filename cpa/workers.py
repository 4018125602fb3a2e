"""One of several processes that serve one port: what it inherits, and how it stays in touch with its supervisor."""

import socket
from contextlib import suppress

import attrs
import trio

READY = b"r"


@attrs.frozen(kw_only=True)
class Place:
    """Where a worker stands; all of it is inherited.

    Attributes:
      number: from 1.
      control: descriptor of a stream socket to the supervisor; its end of file says that the supervisor is gone.
      listening: descriptors of bound and listening TCP sockets, which all workers share.
    """

    number: int
    control: int
    listening: tuple[int, ...]

    def text(self) -> str:
        """For the command line; `parse` reads it."""
        return ":".join(map(str, (self.number, self.control, *self.listening)))

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises: ValueError."""
        number, control, *listening = (int(part) for part in text.split(":"))
        if not listening or min(number, control, *listening) < 0:
            raise ValueError(f"expected NUMBER:CONTROL:LISTENING…, got {text!r}")
        return cls(number=number, control=control, listening=tuple(listening))


async def follow_supervisor(place: Place) -> None:
    """Tell the supervisor that requests are served, then wait until it has ended, however it did.

    Ownership: takes the control descriptor.
    """
    async with trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=place.control))) as stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(READY)
            while await stream.receive_some(64):
                pass
