"""Who asks, where proxies that the operator trusts stand in between (proxy 6.1)."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from cpa.errors import RawHeaders

FORWARDED_FOR: Final = b"x-forwarded-for"
UNKNOWN: Final = "unknown"
"""A trusted proxy named its client in a way that is no address: certainly not this machine."""
MAX_HOPS: Final = 32
"""Of one request; what is farther away is not looked at."""


def client_of(peer: str, headers: RawHeaders, trusted: tuple[str, ...]) -> str:
    """The address of the client: *peer*, or whom the trusted proxies between say they serve.

    ``X-Forwarded-For`` is read from its end, where each proxy adds whom it saw, up to the first address that is not
    trusted: what stands before that may be anybody's invention.

    Args:
      peer: address of the connection's other side.
      trusted: addresses and networks; usually none, and then no header is looked at.
    """
    if not trusted:
        return peer
    networks = _networks(trusted)
    named = b",".join(value for name, value in headers if name == FORWARDED_FOR)
    hops = [hop.strip() for hop in named.decode("latin-1").split(",")[-MAX_HOPS:]] if named else []
    client = peer
    while hops and _is_in(client, networks):
        client = _address(hops.pop())
    return client


def _address(text: str) -> str:
    """The address in ``1.2.3.4``, ``1.2.3.4:5``, ``2001:db8::1`` or ``[2001:db8::1]:5``; `UNKNOWN` without one."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    found = _parsed(text)
    return UNKNOWN if found is None else str(found)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _is_in(text: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    found = _parsed(text)
    return found is not None and any(found in network for network in networks)


@lru_cache(maxsize=8)
def _networks(trusted: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in trusted)
