"""Loads a library again and again inside one process: ``python -m tests.native.generations LIBRARY TIMES``.

Exits with 0 if each copy began with a state of its own and none left a descriptor open. A process of its own, because
libraries stay in it for ever.
"""

import base64
import json
import os
import sys

from cpa.abi.native import NativeLibrary


def ask(library: NativeLibrary, method: bytes, members: dict[str, str]) -> str:
    """The text of a reply; requests are compact, as plugins without a parser need them."""
    rc, reply = library.call(method, json.dumps(members, separators=(",", ":")).encode())
    assert rc == 0, reply
    return reply.decode()


def normalized(library: NativeLibrary) -> str:
    """A body ``{}`` with the mark that the copy has now; libraries without settings have a mark too."""
    body = base64.b64encode(b'{"a":1}').decode()
    reply = json.loads(ask(library, b"request.normalize", {"Body": body}))
    return base64.b64decode(reply["result"]["Body"]).decode()


def configure(library: NativeLibrary, marker: str) -> None:
    """Give the copy another mark."""
    settings = base64.b64encode(f"marker: {marker}\n".encode()).decode()
    ask(library, b"plugin.register", {"config_yaml": settings})


def load(path: str, number: int) -> str:
    """One more copy: what it did before it had settings."""
    library = NativeLibrary(plugin_id=f"p{number}", max_body=1 << 20)
    library.load(path.encode())
    first = normalized(library)
    configure(library, f"mark_{number}")
    assert f'"mark_{number}"' in normalized(library)
    library.end()
    return first


def main(path: str, times: int) -> None:
    """See above. Raises: AssertionError."""
    first = load(path, 0)
    before = os.listdir("/proc/self/fd")
    for number in range(1, times):
        assert load(path, number) == first
    assert os.listdir("/proc/self/fd") == before


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
