"""A proxy to be operated: a configuration in a file, two plugins, a provider that does as it is told."""

import json
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.panel.browser import KEY
from tests.proxy import CLIENT_KEY, RunningProxy, running_proxy
from tests.server.sites import HEADERS, literal, page

SOURCE = Path(__file__).parent / "plugins" / "notes.c"
CONFIG = """# The operator's notes stay.
host: 127.0.0.1
port: 0
proxy-url: direct
auth-dir: {auth_dir}
api-keys: [{client_key}]
remote-management: {{secret-key: 'MANAGEMENT_KEY'}}
request-retry: 0
max-retry-interval: 0  # a cooldown is not waited for
claude-api-key:
  - api-key: {provider_key}
    base-url: {provider}
    headers: {headers}
    models:
      - {{name: mock-claude, alias: claude}}
plugins:
  enabled: true
  dir: PLUGINS
  configs:
    first: {{enabled: true, priority: 20}}
    second: {{enabled: false, priority: 10}}  # not yet
{extra}
""".replace("MANAGEMENT_KEY", KEY)
FIELDS = (
    {"Name": "mode", "Type": "enum", "EnumValues": ["slow", "quick"], "Description": "How careful to be"},
    {"Name": "words", "Type": "array", "Description": "What to look for"},
    {"Name": "most", "Type": "integer", "Description": "Most notes"},
    {"Name": "loud", "Type": "boolean"},
)


def build(target: Path, *, menu: str = "Notes", fields: Sequence[Mapping[str, Any]] = FIELDS, html: str = "") -> None:
    """Compile a plugin with a page of *html*."""
    headers = target.with_suffix(".d")
    headers.mkdir(parents=True)
    served = page(html.encode(), Content_Type="text/html; charset=utf-8")
    # Names stand inside of JSON inside of a C literal.
    told = {"MENU": literal(json.dumps(menu)), "FIELDS": literal(json.dumps(list(fields))), "PAGE": literal(served)}
    (headers / "notes.h").write_text("".join(f"#define {name} {value}\n" for name, value in told.items()))
    command = ("gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-Wall", "-Werror", f"-I{HEADERS}", f"-I{headers}")
    subprocess.run([*command, str(SOURCE), "-o", str(target)], check=True, timeout=60)


@asynccontextmanager
async def operated(plugins: Path) -> AsyncIterator[RunningProxy]:
    """A proxy with the plugins in that folder."""
    async with running_proxy(config=CONFIG.replace("PLUGINS", str(plugins)), in_file=True) as proxy:
        yield proxy


def ask(url: str, model: str = "claude", **orders: str) -> httpx.Response:
    """One chat completion, from the browser's thread; *orders* for the mock provider, ``status="429"``."""
    headers = {f"x-mock-{name.replace('_', '-')}": value for name, value in orders.items()}
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return httpx.post(
        f"{url}/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {CLIENT_KEY}", **headers},
        timeout=60,
        trust_env=False,
    )
