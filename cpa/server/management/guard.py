"""Browsers on this machine as somebody else's tool: what names and origins a request may claim.

A foreign site whose name is pointed at 127.0.0.1 (DNS rebinding) talks to the proxy as if both were one site: it could
read every answer, and pages of plugins need no key. Its requests carry its own name in ``Host``, which tells them
apart. The same check keeps a reverse proxy on this machine from making the whole world local.
"""

import re
from ipaddress import ip_address
from typing import Final

from cpa.server.routes import ClientHead

HARMLESS_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
FOREIGN_SITES: Final = frozenset({b"cross-site", b"same-site"})
"""Values of ``Sec-Fetch-Site``; another port of this machine is *same-site*."""
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]*)(?::\d{0,5})?")


def is_loopback(address: str) -> bool:
    """Whether *address* is one of this machine to itself, IPv4 in IPv6 included. False for what is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def foreign_host(head: ClientHead, *, own_name: str) -> bool:
    """A client on this machine says that it talks to some other one.

    Args:
      own_name: the configured listening host, which may be meant as well.

    No ``Host`` is fine: no browser leaves it out.
    """
    if not is_loopback(head.peer):
        return False
    return any(not _is_ours(value, own_name) for name, value in head.headers if name == b"host" and value)


def _is_ours(value: bytes, own_name: str) -> bool:
    match = _HOST.fullmatch(value.decode("latin-1").strip())
    if match is None:
        return False
    name = match["name"].strip("[]").rstrip(".").lower()
    return name == "localhost" or is_loopback(name) or (bool(name) and name == own_name.strip().lower())


def foreign_site(head: ClientHead) -> bool:
    """A page of another site wants to manage.

    It has no key, but its attempts would count, and five of them would lock the operator out. Browsers say so of all
    their requests; older ones at least name the origin of those that change something. Origins are compared by host and
    port only: TLS may end in front of the proxy.
    """
    if head.header(b"sec-fetch-site").lower() in FOREIGN_SITES:
        return True
    if head.method in HARMLESS_METHODS:
        return False
    origin = head.header(b"origin").decode("latin-1").strip().lower()
    if not origin:
        return False
    scheme, _, authority = origin.partition("://")
    return scheme not in ("http", "https") or authority != head.header(b"host").decode("latin-1").strip().lower()
