"""What the benchmark asks the operating system: cores, CPU time and memory of a process. Linux only."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import attrs

PACKAGES = ("trio", "httptools", "httpx", "hypercorn", "quart", "quart-trio", "h11")


@attrs.frozen(kw_only=True)
class Cores:
    """Where processes run; None = not pinned, because there is only one core.

    Attributes:
      subject: for the system under test alone.
      others: for load generator and provider.
    """

    subject: int | None
    others: int | None


def pick_cores() -> Cores:
    """The last two cores that this process may use: the first ones serve most interrupts."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return Cores(subject=None, others=None)
    return Cores(subject=allowed[-1], others=allowed[-2])


def cpu_seconds(pid: int) -> float:
    """CPU time that all threads of *pid* have used, in nanosecond steps, where /proc/PID/stat has 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) computes


def memory_kb(pid: int) -> int:
    """Proportional set size of *pid*, or its resident set where the kernel does not tell. Kibibytes."""
    try:
        return field_kb(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss:")
    except (OSError, LookupError):
        return field_kb(Path(f"/proc/{pid}/status").read_text(), "VmRSS:")


@attrs.frozen(kw_only=True)
class Memory:
    """Of a process, in kibibytes; None where the kernel does not tell.

    Attributes:
      rss: resident, pages shared with others included.
      pss: shared pages divided by the number of those who share them.
      uss: what its end would give back.
    """

    rss: int
    pss: int | None = None
    uss: int | None = None


def memory_of(pid: int) -> Memory:
    """All that is known of *pid*."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        private = field_kb(text, "Private_Clean:") + field_kb(text, "Private_Dirty:")
        return Memory(rss=field_kb(text, "Rss:"), pss=field_kb(text, "Pss:"), uss=private)
    except (OSError, LookupError):
        return Memory(rss=field_kb(Path(f"/proc/{pid}/status").read_text(), "VmRSS:"))


def field_kb(text: str, name: str) -> int:
    """The number of a ``Name:   123 kB`` line. Raises: LookupError."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == name:
            return int(words[1])
    raise LookupError(name)


def describe() -> dict[str, object]:
    """The machine's kind and the versions that matter; nothing that identifies the machine."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "packages": {name: version(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    """Name of the processor as the kernel shows it, else the architecture."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
