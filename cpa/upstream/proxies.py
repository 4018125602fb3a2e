"""Which proxy a request takes: the settings' forms, and what the environment says (proxy.md 5.4)."""

import ipaddress
import re
import ssl
from collections.abc import Mapping
from typing import TypeAlias
from urllib.request import getproxies_environment

import attrs
import httpx

from cpa.errors import UpstreamConnectError

DIRECT_VALUES = frozenset({"direct", "none"})
"""Values that mean: no proxy, and the environment is ignored."""

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

_HOST = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+(%\w+)?")
"""Names (also international ones) and addresses; httpx takes more than that."""

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_proxy(value: str, *, setting: str, tls: ssl.SSLContext) -> httpx.Proxy:
    """The proxy that *value* names.

    Args:
      value: ``http``, ``https``, ``socks5`` or ``socks5h`` URL, optionally with ``user:password@``.
      setting: what the value was read from, for the message.
    Raises: UpstreamConnectError, with the password masked; never a silent direct connection.
    """
    try:
        url = httpx.URL(value)
    except httpx.InvalidURL as exc:
        raise _invalid(value, setting, "is not a URL") from exc
    port = _DEFAULT_PORTS.get(url.scheme)
    if port is None:
        raise _invalid(value, setting, "needs one of the schemes http, https, socks5, socks5h")
    if not _HOST.fullmatch(url.host):
        raise _invalid(value, setting, "has no valid host")
    if url.port is not None and not 0 < url.port < 65536:
        raise _invalid(value, setting, "has no valid port")
    # The lower layer knows no default port for socks5h.
    return httpx.Proxy(
        url.copy_with(port=url.port or port, path="/", query=None, fragment=None),
        ssl_context=tls if url.scheme == "https" else None,
    )


def _invalid(value: str, setting: str, problem: str) -> UpstreamConnectError:
    return UpstreamConnectError(f"{setting}: {mask_proxy(value)!r} {problem}", code="invalid_proxy")


def mask_proxy(value: str) -> str:
    """*value* without its password; a user name alone may be a token and is masked as well. Takes any text."""
    head, at, host = value.rpartition("@")
    if not at:
        return value
    scheme, slashes, user_info = head.rpartition("://")
    user, colon, _ = user_info.partition(":")
    return f"{scheme}{slashes}{user + ':' if colon else ''}***@{host}"


_USER_INFO = re.compile(r"(?<=://)[^\s/?#]*@")
_QUERY = re.compile(r"(\w://[^\s?'\"]*)\?[^\s'\"]*")


def redact_urls(text: str) -> str:
    """*text* with the user-info and the query of every URL in it masked: both may carry keys."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1?***", _USER_INFO.sub("***@", text))


@attrs.frozen(kw_only=True)
class NoProxy:
    """``NO_PROXY``, read as Go's programs read it, which is what deployed configurations expect.

    Attributes:
      everything: ``*``.
      networks: addresses and CIDR blocks.
      domains: ``(suffix with a leading dot, the bare name matches as well, port or 0)``.
    """

    everything: bool = False
    networks: tuple[tuple[_Network, int], ...] = ()
    domains: tuple[tuple[str, bool, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "NoProxy":
        """Read a comma-separated list; entries that cannot be read are ignored, as everybody does."""
        networks: list[tuple[_Network, int]] = []
        domains: list[tuple[str, bool, int]] = []
        for raw in text.lower().split(","):
            entry = raw.strip()
            if entry == "*":
                return cls(everything=True)
            host, port = _split_port(entry)
            network = _network(host)
            if network is not None:
                networks.append((network, port))
            elif host:
                bare = host.removeprefix("*")
                domains.append(("." + bare.lstrip("."), not bare.startswith("."), port))
        return cls(networks=tuple(networks), domains=tuple(domains))

    def matches(self, host: str, port: int) -> bool:
        """*host* (lower case, no brackets) is reached directly. Loopback always is."""
        if self.everything or host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            dotted = "." + host
            return any(
                dotted.endswith(suffix) and (bare or dotted != suffix) and only in (0, port)
                for suffix, bare, only in self.domains
            )
        return address.is_loopback or any(address in network and only in (0, port) for network, only in self.networks)


def _split_port(entry: str) -> tuple[str, int]:
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = entry.rpartition(":")
        if not host or ":" in host:  # no port, or a bare IPv6 address
            return entry, 0
    return host, int(port) if port.isdecimal() else 0


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


@attrs.frozen(kw_only=True)
class EnvironmentProxies:
    """What the environment says, as it was when read.

    Attributes:
      urls: scheme of a request to the value of its proxy (secret) and the variable's name.
    """

    urls: Mapping[str, tuple[str, str]] = attrs.field(factory=dict, repr=False)
    no_proxy: NoProxy = NoProxy()

    @classmethod
    def read(cls) -> "EnvironmentProxies":
        """Read ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, also in lower case."""
        values = getproxies_environment()
        urls: dict[str, tuple[str, str]] = {}
        for scheme in ("http", "https"):
            for variable in (scheme, "all"):
                value = values.get(variable, "").strip()
                if value:
                    urls[scheme] = (value if "://" in value else f"http://{value}", f"{variable.upper()}_PROXY")
                    break
        no_proxy = NoProxy.parse(values.get("no", ""))
        return cls(urls={} if no_proxy.everything else urls, no_proxy=no_proxy)
