"""May this client use the proxy? Keys of the configuration, then the plugins' providers (proxy 1.2)."""

import hashlib
import secrets
from collections.abc import Iterable
from operator import itemgetter
from urllib.parse import parse_qs

import msgspec

from cpa.errors import RawHeaders, Unauthenticated
from cpa.pipeline.dispatch import first_result
from cpa.pipeline.stage import AuthCall, AuthResult, Registration
from cpa.pipeline.trace import Trace

TEMPLATE_KEYS = frozenset({"your-api-key-1", "your-api-key-2", "your-api-key-3"})
"""Keys of the sample configuration: whoever runs with them serves the whole world."""

HEADER_PLACES = {
    b"authorization": (0, "authorization"),
    b"x-goog-api-key": (1, "x-goog-api-key"),
    b"x-api-key": (2, "x-api-key"),
}
"""Headers that hold a key, with their rank in the documented order and what `Principal.source` calls them."""
QUERY_PLACES = ("key", "auth_token")
DIGEST_BYTES = 32


class Principal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An accepted client.

    Attributes:
      key: what stands for it in records: its key, or what a plugin named it; empty when access is open.
      source: where the key was found.
    """

    key: str = ""
    source: str = ""

    def __repr__(self) -> str:
        return f"Principal(source={self.source!r})"  # never the key


class Access:
    """The client keys of one configuration.

    Candidates are looked up by a keyed digest, so that neither the time nor the number of comparisons tells anything of
    a key, and ten thousand keys cost what one costs.
    """

    def __init__(self, keys: Iterable[str], providers: tuple[Registration, ...] = ()) -> None:
        self._salt = secrets.token_bytes(32)
        self._digests = frozenset(self._digest(key) for key in keys)
        self._providers = providers

    @property
    def open(self) -> bool:
        """There are no keys and no providers: everybody is welcome."""
        return not self._digests and not self._providers

    @property
    def asks_plugins(self) -> bool:
        """Some provider wants to see the whole request, body included."""
        return bool(self._providers)

    def check(self, headers: RawHeaders, query: bytes) -> Principal | None:
        """The principal of the first candidate that is a key, or None. Every candidate is tried: a wrong earlier value
        does not spoil a right later one."""
        digests = self._digests
        if not digests and not self._providers:
            return Principal()
        found: Principal | None = None
        for source, candidate in candidates(headers, query):
            if self._digest(candidate) in digests and found is None:
                found = Principal(key=candidate, source=source)
        return found

    async def ask(self, call: AuthCall) -> Principal | None:
        """The principal that the first willing plugin names, or None."""
        answer = await first_result(self._providers, call, Trace())
        if answer is not None:
            entry, result = answer
            assert isinstance(result, AuthResult)
            return Principal(key=result.principal, source=f"plugin:{entry.plugin_id}")
        return None

    def _digest(self, key: str) -> bytes:
        # BLAKE2 takes a key of its own: a fifth of what HMAC costs.
        text = key.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, key=self._salt, digest_size=DIGEST_BYTES).digest()


def refusal(headers: RawHeaders, query: bytes) -> Unauthenticated:
    """Why a client without a valid key is turned away."""
    if candidates(headers, query):
        return Unauthenticated("Invalid API key")
    return Unauthenticated("Missing API key")


def candidates(headers: RawHeaders, query: bytes) -> list[tuple[str, str]]:
    """Every key that the request carries, in the documented order, with its place."""
    ranked: list[tuple[int, str, str]] = []
    for name, value in headers:
        if name in HEADER_PLACES:
            rank, source = HEADER_PLACES[name]
            text = value.decode("utf-8", "surrogateescape").strip()
            if rank == 0 and text[:7].lower() == "bearer ":
                text = text[7:].strip()
            if text:
                ranked.append((rank, source, text))
    if len(ranked) > 1:
        ranked.sort(key=itemgetter(0))  # those of one place stay in their order
    found = [(source, text) for _, source, text in ranked]
    if query:
        fields = parse_qs(query.decode("latin-1"), errors="surrogateescape")
        for field in QUERY_PLACES:
            found += [(f"query-{field.replace('_', '-')}", text) for text in fields.get(field, [])]
    return found
