"""The usage endpoints: what one may ask, and what is said to questions that make no sense."""

import pytest
import trio

from cpa.usage.identity import client_id
from tests.e2e.test_usage import FAIL_S, MANAGED, attempts, managed, usage
from tests.e2e.wire import CHAT
from tests.proxy import CLIENT_KEY, running_proxy


async def test_sums_by_key_model_credential_and_day() -> None:
    """One question or several; ranges by date, time and Unix seconds; keys by themselves or their digests."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy:
            async with proxy.client() as client:
                for _ in range(3):
                    assert (await CHAT.post(client, headers={})).status_code == 200
            [row, *_] = await attempts(proxy, 3)
            day, digest = row["timestamp"][:10], row["key"]
            found = await usage(proxy, f"?by=day,key&from={day}&to={day}")
            assert set(found) == {"from", "to", "totals", "by_day", "by_key", "ledger"}
            assert found["by_day"][0]["day"] == day
            assert (found["totals"]["attempts"], found["ledger"]) == (3, {"written": 3, "waiting": 0, "lost": 0})
            assert found["to"] > found["from"] == f"{day}T00:00:00.000Z"
            for query in (
                *("from=0", f"from={row['timestamp']}", "to=4000000000", f"key={CLIENT_KEY}", f"key={digest}"),
                *("model=mock-gpt", "provider=openai-compatible-mock", f"credential={row['credential']}", ""),
            ):
                assert (await usage(proxy, f"?{query}"))["totals"]["attempts"] == 3, query
            for query in ("from=4000000000", "to=2020-01-01", "key=another", "model=gpt"):
                found = await usage(proxy, f"?{query}")
                assert (found["totals"]["attempts"], found["by_key"]) == (0, []), query


async def test_records_come_in_pages() -> None:
    """Newest first; each once."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy:
            async with proxy.client() as client:
                for _ in range(3):
                    await CHAT.post(client, headers={})
            rows = await attempts(proxy, 3)
            first = (await managed(proxy, "/usage/attempts?limit=2")).json()
            second = (await managed(proxy, f"/usage/attempts?limit=2&cursor={first['next-cursor']}")).json()
            assert [*first["attempts"], *second["attempts"]] == rows[::-1]
            assert "next-cursor" not in second


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("from=yesterday", "from must be a date, an RFC 3339 time or Unix seconds"),
        ("to=99999999999999", "to must be a date, an RFC 3339 time or Unix seconds"),
        ("to=9999-12-31", "to must be a date, an RFC 3339 time or Unix seconds"),
        ("from=2026-13-01", "from must be a date, an RFC 3339 time or Unix seconds"),
        ("limit=0", "limit must be from 1 to 1000"),
        ("limit=1001", "limit must be from 1 to 1000"),
        ("limit=x", "limit must be a whole number of at least 0"),
        ("offset=-1", "offset must be a whole number of at least 0"),
        ("by=key,colour", "by must be some of key, day, model, provider, credential"),
    ],
)
async def test_questions_that_make_no_sense_are_told_why(query: str, text: str) -> None:
    """400, and what was expected."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy:
            refused = await managed(proxy, f"/usage?{query}")
    assert (refused.status_code, refused.json()) == (400, {"error": text})


async def test_without_a_ledger_there_is_nothing_to_ask() -> None:
    """400, as for logs that go nowhere; no file is made."""
    extra = MANAGED + "usage: {ledger: {enabled: false}}\n"
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=extra) as proxy:
            async with proxy.client() as client:
                assert (await CHAT.post(client, headers={})).status_code == 200
            for path in ("/usage", "/usage/attempts"):
                refused = await managed(proxy, path)
                assert (refused.status_code, refused.json()) == (400, {"error": "usage ledger disabled"})
            assert proxy.app.state.usage.taps == ()
            assert not await trio.Path(proxy.directory / "usage").exists()


async def test_a_ledger_that_cannot_be_read_says_so() -> None:
    """503; requests are served all the same."""
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED) as proxy:
            await trio.Path(proxy.directory / "usage").write_text("in the way")
            async with proxy.client() as client:
                assert (await CHAT.post(client, headers={})).status_code == 200
            refused = await managed(proxy, "/usage")
            assert refused.status_code == 503
            assert refused.json()["error"].startswith("the usage ledger cannot be read")


async def test_what_is_used_up_of_a_clients_limits() -> None:
    """By key, with the time of the reset; clients without limits are not listed."""
    limits = "limits: {clients: [{keys: ['*'], requests-per-day: 9, tokens-total: 100000, max-concurrent: 4}]}\n"
    with trio.fail_after(FAIL_S):
        async with running_proxy(extra=MANAGED + limits) as proxy:
            async with proxy.client() as client:
                assert (await CHAT.post(client, headers={})).status_code == 200
            await attempts(proxy, 1)
            [listed] = (await managed(proxy, "/limits")).json()["clients"]
            assert (listed["client"], CLIENT_KEY in str(listed)) == (client_id(CLIENT_KEY).id, False)
            day, total, running = listed["limits"]
            assert (day["limit"], day["used"], day["allowed"]) == ("requests-per-day", 1, 9)
            assert day["resets-at"] % 86400 == 0
            assert (total["limit"], total["allowed"], total["resets-at"]) == ("tokens-total", 100000, None)
            assert total["used"] > 0
            assert running == {"limit": "max-concurrent", "used": 0, "allowed": 4, "resets-at": None}
        async with running_proxy(extra=MANAGED) as proxy:
            assert (await managed(proxy, "/limits")).json() == {"clients": []}
