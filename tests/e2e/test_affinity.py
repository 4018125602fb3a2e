"""Sessions stay with their credential: over reloads, and with the next one when theirs fails."""

from pathlib import Path

import trio

from tests.e2e.test_lifecycle import FAIL_S, Program, program
from tests.server.wire import connect, head

KEYS = """
routing: {{session-affinity: true}}
max-retry-interval: 0
claude-api-key:
  - {{api-key: first, priority: {first}, base-url: '{provider}', headers: {{X-Mock-Status: $X-Fail-First}},
      models: [{{name: mock-claude, alias: pool}}]}}
  - {{api-key: second, priority: {second}, base-url: '{provider}', models: [{{name: mock-claude, alias: pool}}]}}
"""
BODY = b'{"model":"pool","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}'


async def served_by(running: Program, *, fail_first: str = "", session: str = "s") -> str:
    """The key of the credential that answers."""
    headers = ["authorization: Bearer first", f"x-session-id: {session}"]
    if fail_first:
        headers.append(f"x-fail-first: {fail_first}")
    async with connect(running.url) as wire:
        await wire.send(head(path="/v1/messages", headers=headers, length=len(BODY), key=False) + BODY)
        assert (await wire.reply()).status == 200
    found: str = running.mock.requests[-1].header(b"authorization").decode().removeprefix("Bearer ")
    return found


def keys(running: Program, *, first: int, second: int) -> str:
    """The two credentials with these priorities."""
    return KEYS.format(provider=running.mock.url, first=first, second=second)


async def test_a_session_moves_when_its_credential_fails_and_stays_over_reloads(tmp_path: Path) -> None:
    """What the provider has cached is worth more than an order among credentials; a failure ends that."""
    async with program(tmp_path, fail_s=FAIL_S) as running:
        running.write(extra=keys(running, first=2, second=1))
        await running.lines_with("config.reloaded", count=1)
        assert await served_by(running) == "first"
        # A new order: new sessions follow it, the old one stays.
        running.write(extra=keys(running, first=1, second=2))
        await running.lines_with("config.reloaded", count=2)
        assert await served_by(running) == "first"
        assert await served_by(running, session="other") == "second"
        # Its credential fails once: the client does not notice, and the session has moved for good.
        assert await served_by(running, fail_first="500") == "second"
        running.write(extra=keys(running, first=3, second=2))
        await running.lines_with("config.reloaded", count=3)
        for _ in range(3):
            assert await served_by(running) == "second"
            await trio.lowlevel.checkpoint()
