"""The management key: who has it, who tried too often (proxy 6.1).

Theory of operation. A key is compared with the configured one and with that of the environment by keyed digests, so
that time tells nothing. A bcrypt hash costs 50 ms and more for each comparison, on purpose: they run one at a time on a
thread, few may wait, and whoever was banned while waiting is not served. The digest of the last good key is kept for
as long as the hash is the configured one, so that only the first request of an operator pays.

Addresses are those of sockets. What headers say of forwarding plays no part.
"""

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import Final

import attrs
import bcrypt
import trio

from cpa.config.schema import RemoteManagementConfig
from cpa.config.sealing import HASH_PREFIXES, MAX_BCRYPT_BYTES
from cpa.observability.log import get_logger
from cpa.server.management.guard import is_loopback
from cpa.server.routes import ClientHead

log = get_logger()

MAX_FAILURES: Final = 5
BAN_S: Final = 30 * 60.0
FORGET_S: Final = 2 * 3600.0
"""Failures this old do not count any more."""
MAX_ADDRESSES: Final = 4096
"""Whoever has more addresses than this gets to try again; the table must end somewhere."""
MAX_WAITING: Final = 16
"""Keys that may wait for their comparison with a hash: less than a second's work."""
MAX_HASH_COST: Final = 16
"""Four seconds on a thread that nothing can stop. Usual are 10 to 12."""
LOOPBACK_BUCKET: Final = "loopback"
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")


@attrs.frozen(kw_only=True)
class Refusal:
    """Why a client may not manage; *text* is the contract's."""

    status: int
    text: str
    retry_after_s: int | None = None


class _Busy(Exception):
    """Too many keys wait to be compared."""


class _Banned(Exception):
    """The address was banned while its key waited."""


@attrs.define(eq=False)
class _Record:
    """Of one address. Trio clock."""

    count: int = 0
    last: float = 0.0
    banned_until: float = 0.0


class Bans:
    """Failed attempts by address; bounded. Times are Trio's clock."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()  # least recently failed first

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._records)

    def remaining_s(self, address: str) -> float:
        """Seconds until *address* may try again; 0 = now."""
        record = self._records.get(address)
        return max(0.0, record.banned_until - trio.current_time()) if record is not None else 0.0

    def failed(self, address: str) -> None:
        """Count a failure; the fifth in a row bans."""
        now = trio.current_time()
        self._forget(now)
        record = self._records.setdefault(address, _Record())
        self._records.move_to_end(address)
        record.last = now
        record.count += 1
        if record.count >= MAX_FAILURES:
            record.count, record.banned_until = 0, now + BAN_S
            log.warning("management.banned", client=address, minutes=BAN_S / 60)
        if len(self._records) > MAX_ADDRESSES:
            self._records.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget what *address* did."""
        self._records.pop(address, None)

    def _forget(self, now: float) -> None:
        while self._records and next(iter(self._records.values())).last + FORGET_S < now:
            self._records.popitem(last=False)


class ManagementKeys:
    """The check of keys, with what it has to remember; one for the life of the server."""

    def __init__(self, password: str = "") -> None:
        """*password*: of the environment, ``MANAGEMENT_PASSWORD``; empty = none."""
        self._salt = secrets.token_bytes(32)
        self._password = self._digest(password) if password else b""
        self._good: tuple[str, bytes] | None = None  # hash, digest of the key that matched it
        self._waiting = 0
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._broken_hash = ""
        self.bans = Bans()

    def __repr__(self) -> str:
        return "ManagementKeys()"

    def enabled(self, config: RemoteManagementConfig) -> bool:
        """There is a key; without one there is no management."""
        return bool(config.secret_key or self._password)

    def reachable(self, config: RemoteManagementConfig, head: ClientHead) -> bool:
        """The sender of *head* is on this machine, or machines elsewhere may manage too."""
        return config.allow_remote or bool(self._password) or is_loopback(head.peer)

    async def refusal(self, config: RemoteManagementConfig, head: ClientHead) -> Refusal | None:
        """Why the sender of *head* may not manage, or None when it may.

        Failures count towards a ban of its address. Cancellation: nothing is counted then.
        """
        await trio.lowlevel.checkpoint()
        address = bucket(head.peer)
        if self.bans.remaining_s(address):
            return self._ban(address)
        if not self.reachable(config, head):
            return Refusal(status=403, text="remote management disabled")
        if not self.enabled(config):
            return Refusal(status=403, text="remote management key not set")
        keys = tuple(dict.fromkeys(given_keys(head)))
        try:
            accepted = await self._accepts(config.secret_key, keys, address)
        except _Busy:
            return Refusal(status=503, text="too many keys are being checked, try again", retry_after_s=1)
        except _Banned:
            return self._ban(address)
        if accepted:
            self.bans.succeeded(address)
            return None
        self.bans.failed(address)
        return Refusal(status=401, text="invalid management key" if keys else "missing management key")

    def origin(self, head: ClientHead) -> str:
        """Where the key that let *head* in comes from: ``environment`` or ``configuration``."""
        given = (self._digest(key) for key in given_keys(head))
        ours = any(hmac.compare_digest(digest, self._password) for digest in given)
        return "environment" if ours else "configuration"

    def _ban(self, address: str) -> Refusal:
        seconds = -int(-self.bans.remaining_s(address) // 1)
        return Refusal(
            status=403,
            text=f"IP banned due to too many failed attempts. Try again in {go_duration(seconds)}",
            retry_after_s=seconds,
        )

    async def _accepts(self, secret: str, keys: tuple[str, ...], address: str) -> bool:
        """Whether one of *keys* is right. Raises: _Busy, _Banned."""
        digests = [self._digest(key) for key in keys]
        if any(hmac.compare_digest(digest, self._password) for digest in digests):
            return True
        if not secret:
            return False
        if not secret.startswith(HASH_PREFIXES):
            expected = self._digest(secret)
            return any(hmac.compare_digest(digest, expected) for digest in digests)
        for key, digest in zip(keys, digests, strict=True):
            if await self._matches(secret, key, digest, address):
                return True
        return False

    async def _matches(self, hashed: str, key: str, digest: bytes, address: str) -> bool:
        """Whether *key* is the one behind *hashed*. Raises: _Busy, _Banned."""
        if self._known(hashed, digest):
            return True
        if not self._usable(hashed):
            return False
        if self._waiting >= MAX_WAITING:
            raise _Busy
        self._waiting += 1
        try:
            async with self._turn:
                if self._known(hashed, digest):  # whoever came before had the same key
                    return True
                if self.bans.remaining_s(address):
                    raise _Banned
                # The limiter counts threads that were abandoned too: there is never more than one.
                right = await trio.to_thread.run_sync(
                    bcrypt.checkpw,
                    key.encode("utf-8", "surrogateescape")[:MAX_BCRYPT_BYTES],
                    hashed.encode(),
                    limiter=self._thread,
                    abandon_on_cancel=True,
                )
                # Counted before the next one's turn, so that a flood from one address costs five comparisons.
                if right:
                    self._good = (hashed, digest)
                return right
        finally:
            self._waiting -= 1

    def _known(self, hashed: str, digest: bytes) -> bool:
        good = self._good
        return good is not None and good[0] == hashed and hmac.compare_digest(good[1], digest)

    def _usable(self, hashed: str) -> bool:
        match = _HASH.fullmatch(hashed)
        if match is not None and 4 <= int(match[1]) <= MAX_HASH_COST:
            return True
        if self._broken_hash != hashed:
            self._broken_hash = hashed
            log.error(
                "management.hash_unusable",
                hint=f"remote-management.secret-key looks like a bcrypt hash and is none of cost 4 to {MAX_HASH_COST}: "
                "nobody can sign in with it",
            )
        return False

    def _digest(self, key: str) -> bytes:
        return hmac.digest(self._salt, key.encode("utf-8", "surrogateescape"), hashlib.sha256)


def given_keys(head: ClientHead) -> Iterator[str]:
    """The keys in *head*: of ``Authorization`` (bearer, or the bare value), then of ``X-Management-Key``."""
    for name in (b"authorization", b"x-management-key"):
        text = head.header(name).decode("utf-8", "surrogateescape").strip()
        if name == b"authorization" and text[:7].lower() == "bearer ":
            text = text[7:].strip()
        if text:
            yield text


def bucket(peer: str) -> str:
    """Under which name failures of *peer* are counted: a machine's loopback, an IPv4 address, an IPv6 network.

    Who has one address of an IPv6 /64 has all of them.
    """
    if is_loopback(peer):
        return LOOPBACK_BUCKET
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)


def go_duration(seconds: int) -> str:
    """Whole seconds as Go writes them: ``29m30s``, ``1h0m0s``, ``5s``."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
