"""Back-off and fuse as arithmetic; `test_manager.py` has them at work."""

from cpa.host.restarts import FUSE_CRASHES, MAX_BACKOFF_S, Restarts


def test_back_off_doubles_up_to_a_limit() -> None:
    """For any number of attempts."""
    restarts = Restarts()
    delays = [restarts.back_off(0) for _ in range(5000)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == MAX_BACKOFF_S
    restarts.forgive()
    assert restarts.due == 0


def test_old_crashes_do_not_count() -> None:
    """Only those within the window blow the fuse."""
    restarts = Restarts()
    assert not any(restarts.crashed(at * 15.0) for at in range(100))
    assert [restarts.crashed(2000.0 + at) for at in range(FUSE_CRASHES)] == [False] * (FUSE_CRASHES - 1) + [True]
