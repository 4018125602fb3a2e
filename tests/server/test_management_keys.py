"""Who has the management key, and who tried too often."""

import threading

import bcrypt
import pytest
import trio
import trio.testing

from cpa.config.schema import RemoteManagementConfig
from cpa.server.management import keys as module
from cpa.server.management.keys import (
    BAN_S,
    FORGET_S,
    MAX_ADDRESSES,
    MAX_FAILURES,
    MAX_WAITING,
    Bans,
    ManagementKeys,
    Refusal,
    bucket,
    given_keys,
    go_duration,
)
from cpa.server.routes import ClientHead

SECRET = "the-secret"
HASH = bcrypt.hashpw(SECRET.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()
"""With a fixed salt: tests are named after it, and names are the same in every process."""
LOCAL, REMOTE = "127.0.0.1", "203.0.113.9"
MISSING = Refusal(status=401, text="missing management key")
INVALID = Refusal(status=401, text="invalid management key")
NOT_FROM_THERE = Refusal(status=403, text="remote management disabled")


def head(key: str = "", *, peer: str = LOCAL, **headers: str) -> ClientHead:
    named = {"authorization": f"Bearer {key}"} if key else {}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    raw = tuple((name.encode(), value.encode()) for name, value in named.items())
    return ClientHead(method="GET", path="/v0/management/plugins", headers=raw, peer=peer)


def config(secret: str = SECRET, *, remote: bool = False) -> RemoteManagementConfig:
    return RemoteManagementConfig(secret_key=secret, allow_remote=remote)


@pytest.mark.parametrize(
    ("headers", "keys"),
    [
        ({}, []),
        ({"authorization": "Bearer abc"}, ["abc"]),
        ({"authorization": "bearer   abc  "}, ["abc"]),
        ({"authorization": "abc"}, ["abc"]),
        ({"authorization": "Bearer "}, ["Bearer"]),
        ({"x_management_key": "abc"}, ["abc"]),
        ({"authorization": "Bearer a", "x_management_key": "b"}, ["a", "b"]),
        ({"authorization": "", "x_management_key": "  "}, []),
        ({"x_api_key": "abc", "cookie": "key=abc"}, []),
    ],
)
def test_where_keys_are_looked_for(headers: dict[str, str], keys: list[str]) -> None:
    """Two headers and no other place."""
    assert list(given_keys(head(**headers))) == keys


@pytest.mark.parametrize("secret", [SECRET, HASH, HASH.replace("$2b$", "$2a$"), HASH.replace("$2b$", "$2y$")])
@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        (head(SECRET), None),
        (head(authorization=SECRET), None),
        (head(x_management_key=SECRET), None),
        (head("wrong", x_management_key=SECRET), None),
        (head(SECRET, x_management_key="wrong"), None),
        (head(), MISSING),
        (head("wrong"), INVALID),
        (head(SECRET + "x"), INVALID),
        (head(SECRET[:-1]), INVALID),
        (head(HASH), INVALID),
        (head("schlüssel"), INVALID),
        (head("x" * 4000), INVALID),
    ],
    ids=str,
)
async def test_plain_and_hashed_keys_are_checked_alike(secret: str, given: ClientHead, refusal: Refusal | None) -> None:
    """All spellings of bcrypt's prefix, and the hash is no key."""
    assert await ManagementKeys().refusal(config(secret), given) == refusal


@pytest.mark.parametrize(
    ("peer", "remote", "password", "refusal"),
    [
        ("127.0.0.1", False, "", None),
        ("::1", False, "", None),
        ("::ffff:127.0.0.1", False, "", None),
        (REMOTE, False, "", NOT_FROM_THERE),
        ("2001:db8::1", False, "", NOT_FROM_THERE),
        ("", False, "", NOT_FROM_THERE),
        ("localhost", False, "", NOT_FROM_THERE),
        (REMOTE, True, "", None),
        (REMOTE, False, "of-the-environment", None),
    ],
)
async def test_the_remote_rule(peer: str, remote: bool, password: str, refusal: Refusal | None) -> None:
    """The socket's peer decides, with a right key; a password of the environment lets everybody try."""
    keys = ManagementKeys(password)
    assert await keys.refusal(config(remote=remote), head(SECRET, peer=peer)) == refusal


async def test_headers_do_not_say_where_a_client_is() -> None:
    """Neither from nearer nor from further."""
    claims = {"x_forwarded_for": "127.0.0.1", "x_real_ip": "127.0.0.1", "forwarded": "for=127.0.0.1"}
    assert await ManagementKeys().refusal(config(), head(SECRET, peer=REMOTE, **claims)) == NOT_FROM_THERE
    claims = dict.fromkeys(claims, REMOTE)
    assert await ManagementKeys().refusal(config(), head(SECRET, **claims)) is None


async def test_the_password_of_the_environment_is_a_key_beside_the_configured_one() -> None:
    """With either, with and without a hash."""
    keys = ManagementKeys("of-the-environment")
    for secret in ("", SECRET, HASH):
        assert keys.enabled(config(secret))
        assert await keys.refusal(config(secret), head("of-the-environment", peer=REMOTE)) is None
        assert (await keys.refusal(config(secret), head(SECRET)) is None) == bool(secret)
    assert "of-the-environment" not in repr(keys)


async def test_without_any_key_nobody_manages() -> None:
    """An empty key is no key, not one that everybody has."""
    keys = ManagementKeys()
    assert not keys.enabled(config(""))
    for given in (head(), head("x"), head(authorization="Bearer ")):
        refusal = await keys.refusal(config(""), given)
        assert refusal == Refusal(status=403, text="remote management key not set")


async def test_five_failures_ban_for_half_an_hour(autojump_clock: trio.testing.MockClock) -> None:
    """Missing keys count too; a right key is of no use meanwhile; other addresses are not concerned."""
    keys = ManagementKeys("password")
    assert MAX_FAILURES == 5
    for given in (head(peer=REMOTE), *[head("wrong", peer=REMOTE)] * 4):
        refusal = await keys.refusal(config(), given)
        assert refusal is not None
        assert refusal.status == 401
    banned = await keys.refusal(config(), head(SECRET, peer=REMOTE))
    assert banned == Refusal(
        status=403,
        text="IP banned due to too many failed attempts. Try again in 30m0s",
        retry_after_s=1800,
    )
    assert await keys.refusal(config(), head(SECRET, peer="203.0.113.10")) is None
    await trio.sleep(30)
    banned = await keys.refusal(config(), head(SECRET, peer=REMOTE))
    assert banned is not None
    assert banned.text.endswith("Try again in 29m30s")
    await trio.sleep(BAN_S - 30)
    assert await keys.refusal(config(), head("wrong", peer=REMOTE)) == INVALID  # counting begins anew
    assert await keys.refusal(config(), head(SECRET, peer=REMOTE)) is None


async def test_loopback_is_banned_too_as_one() -> None:
    """Any program of this machine can use any of its addresses."""
    keys = ManagementKeys()
    for peer in ("127.0.0.1", "127.0.0.2", "::1", "::ffff:127.9.9.9", "127.0.0.1"):
        assert await keys.refusal(config(), head("wrong", peer=peer)) == INVALID
    refusal = await keys.refusal(config(), head(SECRET, peer="127.0.0.3"))
    assert refusal is not None
    assert refusal.status == 403


async def test_success_forgets_failures() -> None:
    """Four typing errors a day are no attack."""
    keys = ManagementKeys()
    for _ in range(3):
        for _ in range(MAX_FAILURES - 1):
            assert await keys.refusal(config(), head("wrong")) == INVALID
        assert await keys.refusal(config(), head(SECRET)) is None
    assert len(keys.bans) == 0


async def test_refused_places_do_not_count() -> None:
    """Who may not come from there learns nothing of keys, and locks nobody out."""
    keys = ManagementKeys()
    for _ in range(2 * MAX_FAILURES):
        assert await keys.refusal(config(), head("wrong", peer=REMOTE)) == NOT_FROM_THERE
    assert len(keys.bans) == 0


async def test_the_table_of_failures_is_bounded_and_forgets(autojump_clock: trio.testing.MockClock) -> None:
    """The least recent go first, and all after a while."""
    bans = Bans()
    for number in range(MAX_ADDRESSES + 10):
        bans.failed(f"a{number}")
    assert len(bans) == MAX_ADDRESSES
    await trio.sleep(FORGET_S + 1)
    bans.failed("b")
    assert len(bans) == 1


async def test_old_failures_do_not_count(autojump_clock: trio.testing.MockClock) -> None:
    """Four yesterday and one today are one."""
    bans = Bans()
    for _ in range(MAX_FAILURES - 1):
        bans.failed("a")
    await trio.sleep(FORGET_S + 1)
    bans.failed("a")
    assert bans.remaining_s("a") == 0


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("somewhere", "somewhere"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(peer: str, name: str) -> None:
    """A network of IPv6 is what one customer gets."""
    assert bucket(peer) == name


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (5, "5s"), (60, "1m0s"), (1770, "29m30s"), (3600, "1h0m0s"), (3725, "1h2m5s")]
)
def test_durations_are_written_as_the_original_writes_them(seconds: int, text: str) -> None:
    """Clients show the text as it is."""
    assert go_duration(seconds) == text


class Hasher:
    """Stands in for bcrypt and counts; *gate* holds the thread."""

    def __init__(self) -> None:
        self.calls = 0

    def checkpw(self, password: bytes, hashed: bytes) -> bool:
        """Never a real comparison."""
        self.calls += 1
        return password == SECRET.encode()


async def test_a_good_key_is_compared_once_per_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each request of the panel would cost 50 ms; a new hash starts anew."""
    hasher = Hasher()
    monkeypatch.setattr(module, "bcrypt", hasher)
    keys = ManagementKeys()
    for _ in range(5):
        assert await keys.refusal(config(HASH), head(SECRET)) is None
    assert hasher.calls == 1
    other = HASH.replace("$04$", "$05$")
    assert await keys.refusal(config(other), head(SECRET)) is None
    assert await keys.refusal(config(other), head("wrong")) == INVALID
    assert hasher.calls == 3


async def test_a_burst_with_the_same_good_key_costs_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """A panel opens with a dozen requests at once."""
    hasher = Hasher()
    monkeypatch.setattr(module, "bcrypt", hasher)
    keys = ManagementKeys()
    found: list[Refusal | None] = []

    async def ask() -> None:
        found.append(await keys.refusal(config(HASH), head(SECRET)))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_WAITING):
                nursery.start_soon(ask)
    assert found == [None] * MAX_WAITING
    assert hasher.calls == 1


async def test_a_flood_of_wrong_keys_costs_five_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, before any of them could be banned: who waited is banned, who came too late is told to wait."""
    hasher = Hasher()
    monkeypatch.setattr(module, "bcrypt", hasher)
    keys = ManagementKeys()
    found: list[int] = []

    async def ask(number: int) -> None:
        refusal = await keys.refusal(config(HASH), head(f"wrong-{number}"))
        assert refusal is not None
        found.append(refusal.status)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
    assert hasher.calls == MAX_FAILURES
    assert found.count(401) == MAX_FAILURES
    assert found.count(403) + found.count(503) == 100 - MAX_FAILURES
    assert found.count(503) == 100 - MAX_WAITING
    assert keys._waiting == 0


async def test_being_cancelled_while_a_key_is_compared_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a place in the queue nor a failure; the one thread is given back when it is done."""
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()
    release = threading.Event()

    class Slow(Hasher):
        def checkpw(self, password: bytes, hashed: bytes) -> bool:
            token.run_sync_soon(started.set)
            assert release.wait(10)
            return super().checkpw(password, hashed)

    monkeypatch.setattr(module, "bcrypt", Slow())
    keys = ManagementKeys()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keys.refusal, config(HASH), head("wrong"))
            await started.wait()
            nursery.cancel_scope.cancel()
        assert keys._waiting == 0
        assert len(keys.bans) == 0
        release.set()
        assert await keys.refusal(config(HASH), head(SECRET)) is None


@pytest.mark.parametrize("broken", ["$2b$", "$2a$10$short", HASH[:-1], HASH.replace("$04$", "$31$"), HASH + "x"])
async def test_a_broken_hash_lets_nobody_in(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even who gives it as a key; and it is not computed, whatever it asks for."""
    hasher = Hasher()
    monkeypatch.setattr(module, "bcrypt", hasher)
    for key in (SECRET, broken):
        assert await ManagementKeys().refusal(config(broken), head(key)) == INVALID
    assert hasher.calls == 0


async def test_keys_longer_than_bcrypt_looks_are_compared_by_their_beginning() -> None:
    """As every implementation does that made such hashes."""
    long = "k" * 100
    hashed = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode()
    assert await ManagementKeys().refusal(config(hashed), head(long)) is None


def test_where_a_key_is_from() -> None:
    """Audit lines say which of the two it was, never the key itself."""
    keys = ManagementKeys("key-of-the-environment")
    assert keys.origin(head("key-of-the-environment")) == "environment"
    assert keys.origin(head(x_management_key="another")) == "configuration"
    assert ManagementKeys().origin(head("any")) == "configuration"
