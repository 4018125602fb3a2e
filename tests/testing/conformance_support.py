"""The kit's test plugins, compiled."""

import hashlib
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "plugins" / "good.c"
HEADERS = Path(__file__).parents[2] / "cpa" / "abi"


class Compiler:
    """Builds plugins into *folder*, each content once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *switches: str, name: str = "kit") -> Path:
        """Path of the library made of ``good.c`` with the switches of its head, e.g. ``SEGV_ON_BROKEN``, ``A="b"``."""
        digest = hashlib.sha256("\0".join((*switches, name)).encode()).hexdigest()[:12]
        target = self._folder / digest / f"{name}.so"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            defines = [f"-D{switch}" for switch in (*switches, f'NAME="{name}"')]
            command = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-pthread"]
            subprocess.run([*command, *defines, f"-I{HEADERS}", str(SOURCE), "-o", str(target)], check=True)
        return target
