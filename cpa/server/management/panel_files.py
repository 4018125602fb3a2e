"""The files of the control panel, as ``make panel`` builds them from ``panel/`` into ``cpa/server/panel``."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

import attrs
import trio

from cpa.observability.log import get_logger
from cpa.server.management.paths import PANEL_BELOW, PANEL_PAGE

log = get_logger()

TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".woff2": b"font/woff2",
}
PACKED: Final = ".gz"


@attrs.frozen(kw_only=True)
class PanelFile:
    """One file; *packed* is the same with gzip, empty where that is no shorter."""

    kind: bytes
    plain: bytes = attrs.field(repr=False)
    packed: bytes = attrs.field(default=b"", repr=False)


@attrs.define(eq=False)
class PanelFiles:
    """Those in *folder*, read when they are first asked for, and anew when the page was built anew.

    Only what was found then is served: no path of a request ever meets the file system.
    """

    folder: Path = attrs.field(factory=lambda: Path(str(files("cpa.server") / "panel")))
    _found: Mapping[str, PanelFile] = attrs.field(factory=dict, repr=False)
    _built_ns: int = 0

    async def get(self, path: str) -> PanelFile | None:
        """The file that is served at *path*. One checkpoint or more."""
        page = trio.Path(self.folder) / PANEL_PAGE.lstrip("/")
        try:
            built_ns = (await page.stat()).st_mtime_ns
            if built_ns != self._built_ns:
                self._found = await trio.to_thread.run_sync(read_files, self.folder)
                self._built_ns = built_ns
        except OSError as exc:
            # Being built just now, or never: what was there before is of no use without its page.
            if not isinstance(exc, FileNotFoundError):
                log.warning("panel.unreadable", folder=str(self.folder), error=str(exc))
            self._found, self._built_ns = {}, 0
        return self._found.get(path)


def read_files(folder: Path) -> Mapping[str, PanelFile]:
    """The files in *folder* by the paths at which they are served. Blocking. Raises: OSError."""
    found: dict[str, PanelFile] = {}
    for path in sorted(folder.rglob("*")):
        kind = TYPES.get(path.suffix)
        if kind is None or not path.is_file():
            continue
        packed = path.with_name(path.name + PACKED)
        name = path.relative_to(folder).as_posix()
        found[PANEL_PAGE if f"/{name}" == PANEL_PAGE else PANEL_BELOW + name] = PanelFile(
            kind=kind, plain=path.read_bytes(), packed=packed.read_bytes() if packed.is_file() else b""
        )
    return found
