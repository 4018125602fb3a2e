"""Libraries inside the proxy and the signals of its process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.native.build import ROOT, NativeBuilder

RUNTIMES = 48
"""More than the chain of SIGPIPE handlers that a small alternate signal stack, as faulthandler's, has room for."""

PROGRAM = """
import faulthandler, gc, os, signal, sys, threading
from cpa.abi.native import NativeLibrary

faulthandler.enable()
caught = []
signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
libraries = []
for path in sys.argv[1:]:
    libraries.append(NativeLibrary(plugin_id="p", max_body=1 << 20))
    thread = threading.Thread(target=libraries[-1].load, args=(path.encode(),))
    thread.start()
    thread.join()
for _ in range(20):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGPIPE)
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGCHLD)
gc.collect()
print(len(libraries), caught, flush=True)
os._exit(0)
"""


def load_all(*libraries: Path) -> subprocess.CompletedProcess[str]:
    """A program that loads them all into itself, and then gets signals."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, libraries)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_library_cannot_keep_the_hosts_signals(native: NativeBuilder) -> None:
    """Those that it takes while it is loaded are put back: SIGTERM drains the proxy, children are its own affair."""
    done = load_all(native.c("refused", "-DSTEALS"))
    assert (done.returncode, done.stdout) == (0, f"1 [{int(signal.SIGTERM)}]\n"), done.stderr


def test_many_go_runtimes_do_not_pile_up_signal_handlers(native: NativeBuilder) -> None:
    """A write to a closed socket, which every proxy does, must not run through the handlers of all of them."""
    done = load_all(*[native.go("tagger")] * RUNTIMES)
    assert (done.returncode, done.stdout) == (0, f"{RUNTIMES} [{int(signal.SIGTERM)}]\n"), done.stderr
