"""May this client use the proxy? Keys of the configuration, then the plugins' providers (proxy 1.2)."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qs

import attrs

from cpa.errors import RawHeaders, Unauthenticated
from cpa.pipeline.dispatch import first_result
from cpa.pipeline.stage import AuthCall, AuthResult, Registration
from cpa.pipeline.trace import Trace

TEMPLATE_KEYS = frozenset({"your-api-key-1", "your-api-key-2", "your-api-key-3"})
"""Keys of the sample configuration: whoever runs with them serves the whole world."""

HEADER_PLACES = (b"authorization", b"x-goog-api-key", b"x-api-key")
QUERY_PLACES = ("key", "auth_token")


@attrs.frozen(kw_only=True)
class Principal:
    """An accepted client.

    Attributes:
      key: what stands for it in records: its key, or what a plugin named it; empty when access is open.
      source: where the key was found.
    """

    key: str = attrs.field(default="", repr=False)
    source: str = ""


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
        if self.open:
            return Principal()
        found: Principal | None = None
        for source, candidate in candidates(headers, query):
            if self._digest(candidate) in self._digests and found is None:
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
        return hmac.digest(self._salt, key.encode("utf-8", "surrogateescape"), hashlib.sha256)


def refusal(headers: RawHeaders, query: bytes) -> Unauthenticated:
    """Why a client without a valid key is turned away."""
    if any(True for _ in candidates(headers, query)):
        return Unauthenticated("Invalid API key")
    return Unauthenticated("Missing API key")


def candidates(headers: RawHeaders, query: bytes) -> Iterator[tuple[str, str]]:
    """Every key that the request carries, in the documented order, with its place."""
    for place in HEADER_PLACES:
        for name, value in headers:
            if name == place:
                text = value.decode("utf-8", "surrogateescape").strip()
                if place == b"authorization" and text[:7].lower() == "bearer ":
                    text = text[7:].strip()
                if text:
                    yield place.decode(), text
    if query:
        fields = parse_qs(query.decode("latin-1"), errors="surrogateescape")
        for field in QUERY_PLACES:
            for text in fields.get(field, []):
                yield f"query-{field.replace('_', '-')}", text
