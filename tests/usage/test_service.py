"""What is opened with the program: where the ledger is, who hears of attempts, what a reload changes."""

from pathlib import Path

import pytest
import trio

from cpa.config.load import parse_config
from cpa.config.schema import Config
from cpa.usage.limit_store import Span
from cpa.usage.service import FILE, UsageServices, ledger_settings, open_usage
from tests.usage.support import record

FAIL_S = 30
LIMITED = "limits: {clients: [{requests-per-day: 1}]}\n"


def config(folder: Path, text: str = "") -> Config:
    """With its files in *folder*."""
    return parse_config(f"auth-dir: {folder}\n{text}", file="c.yaml").config


def names(services: UsageServices) -> list[str]:
    """Of those who hear of attempts."""
    return [tap.__qualname__ for tap in services.taps]


def test_the_file_is_below_what_cpa_may_write(tmp_path: Path) -> None:
    """The configured path, else the writable one, else the auth directory."""
    assert ledger_settings(config(tmp_path), {}).path == tmp_path / FILE
    assert ledger_settings(config(tmp_path), {"WRITABLE_PATH": "/w"}).path == Path("/w") / FILE
    named = config(tmp_path, "usage: {ledger: {path: ~/x.sqlite3, retention-days: 7, max-megabytes: 9}}")
    found = ledger_settings(named, {"WRITABLE_PATH": "/w"})
    assert (found.path, found.retention_days, found.max_megabytes) == (Path.home() / "x.sqlite3", 7, 9)


async def test_who_hears_of_attempts_follows_the_configuration(tmp_path: Path) -> None:
    """Nobody is told for nothing; limits hear first."""
    off = "usage: {ledger: {enabled: false}}\n"
    with trio.fail_after(FAIL_S):
        async with open_usage(config(tmp_path, off), managed=True, env={}) as services:
            assert services.current_taps() == ()
            await services.configure(config(tmp_path, "usage-statistics-enabled: true"), managed=False)
            assert names(services) == []  # nobody could ask
            await services.configure(config(tmp_path, "usage-statistics-enabled: true"), managed=True)
            assert names(services) == ["UsageQueue.append"]
        async with open_usage(config(tmp_path, LIMITED), managed=True, env={}) as services:
            assert names(services) == ["Limiter.record", "Ledger.append"]
            await services.configure(config(tmp_path, "usage: {ledger: {retention-days: 3}}"), managed=True)
            assert names(services) == ["Ledger.append"]
            assert services.ledger is not None
            assert services.ledger.settings.retention_days == 3


async def test_limits_that_a_reload_brings_know_what_was_used(tmp_path: Path) -> None:
    """Of earlier runs of the program, read when the first limit is configured."""
    with trio.fail_after(FAIL_S):
        async with open_usage(config(tmp_path, LIMITED), managed=False, env={}) as services:
            with services.limiter.admit("k", b"{}"):
                services.taps[0](record(1, principal="k"))
        async with open_usage(config(tmp_path), managed=False, env={}) as services:
            assert services.limiter.admit("k", b"{}").__enter__() is None
            await services.configure(config(tmp_path, LIMITED), managed=False)
            [client] = services.limiter.store._clients  # type: ignore[attr-defined]
            assert services.limiter.store.count(client, Span.TOTAL, 0).requests == 1


@pytest.mark.parametrize("broken", ["directory", "text"])
async def test_a_ledger_that_cannot_be_read_stops_nobody(tmp_path: Path, broken: str) -> None:
    """Limits begin anew, and the program starts."""
    path = trio.Path(tmp_path / FILE)
    await path.parent.mkdir()
    if broken == "directory":
        await path.mkdir()
    else:
        await path.write_text("no database" * 1000)
    with trio.fail_after(FAIL_S):
        async with open_usage(config(tmp_path, LIMITED), managed=False, env={}) as services:
            with services.limiter.admit("k", b"{}"):
                assert services.limiter.active
