"""Fetches media that a client names by an address, for providers that take bytes only (translation 2.5).

The address is a client's word, and the client must not see through our eyes what it cannot see through its own. So:

* the name is resolved here, once, and the connection goes to the very address that was judged: what a second look-up
  would say (DNS rebinding) does not matter. Host header and certificate are those of the name;
* only addresses of the public internet are public: not private, loopback, link-local (where clouds keep their
  metadata), shared, reserved or multicast ones, nor IPv6 addresses that lead to such an IPv4 address. The operator may
  allow networks;
* a redirect is another address and judged like the first; there are few of them, and none from https to http;
* no proxy is used, which would resolve the name once more;
* time, bytes and the number of fetches at once are limited; what comes has to be media, not a page.

What is wrong is told as a text without the address's path and query, which may hold a secret.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import httpx
import structlog
import trio

from cpa.errors import CpaError
from cpa.types import FetchedMedia
from cpa.upstream.client import UpstreamClients, map_errors

log = structlog.get_logger(__name__)

MAX_MEDIA_BYTES: Final = 20 << 20
"""Of one medium: Gemini's own limit for data inside a request."""
MAX_REQUEST_BYTES: Final = 64 << 20
"""Of all media of one request."""
MAX_MEDIA: Final = 64
"""Of one request; more are not fetched."""
FETCH_S: Final = 20.0
"""For one medium, redirects included."""
MAX_REDIRECTS: Final = 3
MAX_TRIED: Final = 3
"""Addresses of one name that are tried."""
MAX_AT_ONCE: Final = 16
"""Fetches in the whole process: bounds memory (16 times `MAX_MEDIA_BYTES`) and what one client can make us do."""
MAX_AT_ONCE_PER_REQUEST: Final = 4
"""So that one client's slow servers do not take all the places."""
MAX_URL_CHARS: Final = 8192
MAX_PORT: Final = 65535
CLOSE_GRACE_S: Final = 1.0
DIRECT: Final = "direct"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}
_NOT_PUBLIC: Final[tuple[Network, ...]] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15",
            "240.0.0.0/4", "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20",
            "5f00::/16", "fc00::/7", "fec0::/10",
        ),
    )
)  # fmt: skip
"""Beyond what `ipaddress` calls not global, which differs between versions; the odd one is a cloud's host address."""
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
"""NAT64: the last four bytes are an IPv4 address."""
_KINDS: Final = ("image/", "audio/", "video/")
_TYPES: Final = frozenset({"application/pdf", "text/plain", "text/csv", "text/markdown", "application/json"})
_UNSAFE: Final = frozenset({"image/svg+xml"})
_UNSTATED: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_ALIASES: Final = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "application/x-pdf": "application/pdf"}
_MAGIC: Final = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"%PDF-", "application/pdf"),
    (8, b"WAVE", "audio/wav"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftyp", "video/mp4"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
)


class _Refused(Exception):
    """An address that is not fetched, and why, in words for the client."""


def is_public(address: Address, allowed: Iterable[Network] = ()) -> bool:
    """Whether anybody on the internet may be meant by *address*, or the operator has *allowed* it."""
    meant = _meant(address)
    if any(each.version == network.version and each in network for each in meant for network in allowed):
        return True
    return not any(_is_inside(each) for each in meant)


def _is_inside(address: Address) -> bool:
    if address.is_multicast or address.is_reserved or address.is_unspecified or not address.is_global:
        return True
    return any(address.version == network.version and address in network for network in _NOT_PUBLIC)


def _meant(address: Address) -> tuple[Address, ...]:
    """Every address that a packet to *address* may come to: IPv6 addresses may lead to an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _TRANSLATED:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.sixtofour is not None:
        return address, address.sixtofour
    return (address,) if address.teredo is None else (address, *address.teredo)


@attrs.frozen(kw_only=True)
class _Target:
    """Where one request goes: *url* names an address, *host* is what the client wrote."""

    url: httpx.URL
    host: str
    authority: str
    candidates: tuple[str, ...]


class MediaFetcher:
    """Fetches for requests of any client; made once. Opens nothing by itself, has no tasks between calls."""

    def __init__(self, clients: UpstreamClients) -> None:
        self._clients = clients
        self._slots = trio.CapacityLimiter(MAX_AT_ONCE)

    async def fetch(self, urls: Sequence[str], *, allowed: Sequence[str] = ()) -> tuple[FetchedMedia, ...]:
        """What is at each of *urls*, in their order; a failure is a value that says why.

        Args:
          allowed: networks in CIDR form that need not be public.

        Cancellation: ends all that are under way.
        """
        networks = tuple(map(ipaddress.ip_network, allowed))
        distinct = tuple(dict.fromkeys(urls))
        budget = _Budget(MAX_REQUEST_BYTES)
        found: dict[str, FetchedMedia] = dict.fromkeys(
            distinct[MAX_MEDIA:], FetchedMedia(problem=f"more than {MAX_MEDIA} of them in one request")
        )

        places = trio.CapacityLimiter(MAX_AT_ONCE_PER_REQUEST)

        async def one(url: str) -> None:
            async with places, self._slots:
                found[url] = await self._one(url, networks, budget)

        async with trio.open_nursery() as nursery:
            for url in distinct[:MAX_MEDIA]:
                nursery.start_soon(one, url, name="fetch media")
        return tuple(found[url] for url in urls)

    async def _one(self, url: str, allowed: Sequence[Network], budget: "_Budget") -> FetchedMedia:
        try:
            with trio.fail_after(FETCH_S):
                return await self._followed(url, allowed, budget)
        except _Refused as exc:
            problem = str(exc)
        except trio.TooSlowError:
            problem = f"it took more than {FETCH_S:g} s"
        except CpaError as exc:
            # The reason may tell what stands behind the address; clients hear no more than that it failed.
            log.info("media.fetch_failed", error=str(exc))
            problem = "the server could not be reached or broke off"
        return FetchedMedia(problem=problem)

    async def _followed(self, url: str, allowed: Sequence[Network], budget: "_Budget") -> FetchedMedia:
        here = _parsed(url)
        for _ in range(MAX_REDIRECTS + 1):
            target = await _resolved(here, allowed)
            response = await self._ask(target)
            try:
                if response.status_code not in _REDIRECTS:
                    return await _read(response, budget)
                location = response.headers.get("location", "")
            finally:
                with trio.move_on_after(CLOSE_GRACE_S, shield=True), map_errors():
                    await response.aclose()
            try:
                following = here.join(location)
            except (httpx.InvalidURL, ValueError):
                raise _Refused("it redirects to something that is no address") from None
            if here.scheme == "https" and following.scheme == "http":
                raise _Refused("it redirects from https to http")
            here = _parsed(str(following))
        raise _Refused(f"it redirects more than {MAX_REDIRECTS} times")

    async def _ask(self, target: _Target) -> httpx.Response:
        client = self._clients.client_for(DIRECT, "")
        failure: CpaError | None = None
        for address in target.candidates:
            request = httpx.Request(
                "GET",
                target.url.copy_with(host=address),
                headers={"host": target.authority, "accept": "*/*", "accept-encoding": "identity"},
                extensions={"sni_hostname": target.host},
            )
            try:
                with map_errors():
                    return await client.send(request, stream=True)
            except CpaError as exc:
                failure = exc
        assert failure is not None
        raise failure


class _Budget:
    """Bytes that one request may still fetch."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, size: int) -> None:
        """Raises: _Refused when too little is left."""
        self._left -= size
        if self._left < 0:
            raise _Refused(f"the media of one request are larger than {MAX_REQUEST_BYTES >> 20} MB")


def _parsed(url: str) -> httpx.URL:
    if len(url) > MAX_URL_CHARS:
        raise _Refused(f"the address is longer than {MAX_URL_CHARS} characters")
    try:
        found = httpx.URL(url.strip())
        host = found.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):  # of which IDNA errors are
        raise _Refused("it is no address") from None
    if found.scheme not in _PORTS or not host:
        raise _Refused("only http and https addresses are fetched")
    if not 0 < (found.port or 1) <= MAX_PORT:
        raise _Refused("it is no address")
    if found.userinfo:
        raise _Refused("addresses with a user name or password are not fetched")
    return found.copy_with(fragment=None)


async def _resolved(url: httpx.URL, allowed: Sequence[Network]) -> _Target:
    host = url.raw_host.decode("ascii")
    port = url.port or _PORTS[url.scheme]
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _Refused("its host is not known") from None
    addresses = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    public = [text for text in addresses if is_public(ipaddress.ip_address(text), allowed)]
    if not public:
        raise _Refused("its host is not on the public internet")
    authority = f"[{host}]" if ":" in host else host
    if url.port is not None:
        authority = f"{authority}:{url.port}"
    return _Target(url=url, host=host, authority=authority, candidates=tuple(public[:MAX_TRIED]))


async def _read(response: httpx.Response, budget: _Budget) -> FetchedMedia:
    if response.status_code != httpx.codes.OK:
        raise _Refused(f"the server answered with status {response.status_code}")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise _Refused("the server sent it encoded, which was not asked for")
    stated = response.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated[:20]) > MAX_MEDIA_BYTES:
        raise _Refused(f"it is larger than {MAX_MEDIA_BYTES >> 20} MB")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = _ALIASES.get(kind, kind)
    if kind not in _UNSTATED:
        _check_type(kind)
    data = bytearray()
    stream = response.stream  # httpx's own iterators are generators, which a refusal would leave open
    assert isinstance(stream, httpx.AsyncByteStream)
    with map_errors():
        async for piece in stream:
            data += piece
            budget.take(len(piece))
            if len(data) > MAX_MEDIA_BYTES:
                raise _Refused(f"it is larger than {MAX_MEDIA_BYTES >> 20} MB")
    if not data:
        raise _Refused("it is empty")
    if kind in _UNSTATED:
        kind = next((mime for at, magic, mime in _MAGIC if data.startswith(magic, at)), "")
        _check_type(kind)
    return FetchedMedia(mime=kind, data=bytes(data))


def _check_type(kind: str) -> None:
    if kind in _TYPES or (kind.startswith(_KINDS) and kind not in _UNSAFE):
        return
    shown = kind[:64] if kind.isascii() and kind.isprintable() and kind else "unknown"
    raise _Refused(f"it is of type {shown}, which is no media type that is passed on")
