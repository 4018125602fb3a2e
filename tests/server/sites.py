"""A proxy with compiled plugins that serve what a test says: `site.c` and the header that tells it."""

import base64
import json
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx

from tests.proxy import RunningProxy, running_proxy

KEY = "management-key-of-the-tests"
SOURCE = Path(__file__).parent / "plugins" / "site.c"
HEADERS = Path("cpa/abi").absolute()


def envelope(result: Mapping[str, Any]) -> str:
    """A plugin's reply."""
    return json.dumps({"ok": True, "result": result})


def page(body: bytes, *, status: int = 0, **headers: str) -> str:
    """A reply of management.handle; underscores in names of headers are hyphens."""
    named = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return envelope({"StatusCode": status, "Headers": named, "Body": base64.b64encode(body).decode()})


@attrs.frozen(kw_only=True)
class Site:
    """One plugin.

    Attributes:
      pages: full path to its reply, or an order of ``site.c``.
    """

    id: str
    priority: int = 0
    routes: Sequence[Mapping[str, Any]] = ()
    resources: Sequence[Mapping[str, Any]] = ()
    pages: Mapping[str, str] = {}
    metadata: Mapping[str, Any] = {}
    login: bool = False
    isolation: str = "process"

    def served(self) -> str:
        """The header file."""
        metadata = {"Name": self.id, "Version": "1.0.0", "Author": "Acme Ltd", "GitHubRepository": "none"}
        capabilities = {"management_api": True, "auth_provider": self.login}
        registered = {
            "schema_version": 3,
            "metadata": metadata | dict(self.metadata),
            "capabilities": capabilities,
        }
        pages = "".join(f"{{{literal(path)}, {literal(reply)}}}, " for path, reply in self.pages.items())
        return (
            f"#define REGISTERED {literal(envelope(registered))}\n"
            f"#define SERVED {literal(envelope({'routes': list(self.routes), 'Resources': list(self.resources)}))}\n"
            f"#define PAGES {pages}\n"
        )


def literal(text: str) -> str:
    """A C string literal of ASCII text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def build(folder: Path, site: Site) -> None:
    """Compile *site* into *folder*."""
    headers = folder / f"{site.id}.h"
    headers.mkdir(parents=True)
    (headers / "served.h").write_text(site.served())
    subprocess.run(
        [
            *("gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-Wall", "-Werror", f"-I{HEADERS}", f"-I{headers}"),
            *(str(SOURCE), "-o", str(folder / f"{site.id}.so")),
        ],
        check=True,
        timeout=60,
    )


@asynccontextmanager
async def proxy_with(
    folder: Path,
    *sites: Site,
    secret: str = KEY,
    remote: str = "",
    extra: str = "",
    enabled: bool = True,
    in_file: bool = False,
) -> AsyncIterator[RunningProxy]:
    """A proxy with *sites*, built before; *secret* empty = management is off."""
    configs = "".join(
        f"    {site.id}: {{enabled: true, priority: {site.priority}, isolation: {site.isolation}}}\n" for site in sites
    )
    configuration = f"""
remote-management: {{secret-key: '{secret}'{remote}}}
plugins:
  enabled: {str(enabled).lower()}
  dir: {folder}
  configs:
{configs or "    nobody: {enabled: false}"}
{extra}
"""
    async with running_proxy(extra=configuration, in_file=in_file) as proxy:
        yield proxy


def operator(proxy: RunningProxy, *, key: str = KEY) -> httpx.AsyncClient:
    """A client with the management key."""
    return proxy.client(key=key)
