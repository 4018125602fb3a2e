"""What compiled plugins are opened with."""

from pathlib import Path

import pytest
import trio

from cpa.abi.errors import PluginRequestTooLarge
from cpa.abi.frames import MAX_BODY_BYTES
from cpa.abi.transport import TransportLimits, largest_message
from cpa.config.schema import Isolation, LimitsConfig
from cpa.host.opening import native_opener
from tests.abi.support import Compiler, echo

MIB = 1024 * 1024


@pytest.mark.parametrize("isolation", list(Isolation))
@pytest.mark.parametrize(
    ("body_bytes", "expected"), [(MIB, largest_message(MIB)), (None, 1000)], ids=["configured", "limits"]
)
async def test_the_largest_request_of_clients_reaches_plugins(
    tmp_path: Path, isolation: Isolation, body_bytes: int | None, expected: int
) -> None:
    """Two bodies in base64 and room for the rest; more is refused."""
    opener = native_opener(tmp_path / "config.yaml", TransportLimits(max_body_bytes=1000), body_bytes=body_bytes)
    with trio.fail_after(20):
        async with (
            trio.open_nursery() as nursery,
            opener(
                Compiler(tmp_path)("behave"),
                plugin_id="a",
                isolation=isolation,
                handler=echo,
                nursery=nursery,
                log_line=lambda stream, text: None,
            ) as plugin,
        ):
            assert (await plugin.call("echo", b"x" * expected)).body == b"x" * expected
            with pytest.raises(PluginRequestTooLarge) as caught:
                await plugin.call("echo", b"x" * (expected + 1))
            assert caught.value.limit_bytes == expected


def test_messages_hold_two_bodies_as_far_as_frames_can() -> None:
    """The default is that of the server; nothing exceeds what Go plugins can count."""
    body_bytes = LimitsConfig().body_bytes
    assert TransportLimits().max_body_bytes == largest_message(body_bytes)
    assert 2 * 4 * (body_bytes + 2) // 3 + 16 * MIB <= largest_message(body_bytes) < MAX_BODY_BYTES
    assert largest_message(0) == 16 * MIB
    assert largest_message(2**40) == MAX_BODY_BYTES
