"""A proxy that serves a file, for tests of what edits it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx

from cpa.app import App, open_app
from cpa.config.load import load_config
from cpa.starting import Options

KEY = "management-key-of-the-tests"
KEY_HASH = "$2b$04$qToPLNtayeQZEZdbl3vN0.LDkZpbjJWSaTPNdfvivdsyt5ZUms8e2"
"""Of `KEY`; cheap."""
BASE = "/v0/management"
TEXT = """\
# A proxy of the tests
host: 127.0.0.1
port: 0
auth-dir: {folder}/auths
remote-management: {{secret-key: '{secret}'}}  # who may manage
usage: {{ledger: {{enabled: false}}}}
"""


@attrs.frozen(kw_only=True)
class Configured:
    """Made by `configured`."""

    app: App
    file: Path
    client: httpx.AsyncClient

    @property
    def text(self) -> str:
        """The file's."""
        return self.file.read_text()

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> tuple[int, object]:
        """Status and JSON of the answer to a request below `BASE`; *body* as JSON, bytes as they are."""
        reply = await self.send(method, path, body, **query)
        return reply.status_code, reply.json()

    async def send(self, method: str, path: str, body: object = None, **query: str) -> httpx.Response:
        """The answer."""
        named = {name.replace("_", "-"): value for name, value in query.items()}
        if isinstance(body, bytes):
            return await self.client.request(method, f"{BASE}{path}", content=body, params=named)
        return await self.client.request(method, f"{BASE}{path}", json=body, params=named)


@asynccontextmanager
async def configured(folder: Path, extra: str = "", *, secret: str = KEY_HASH) -> AsyncIterator[Configured]:
    """A proxy on *folder*/config.yaml, which is `TEXT` and *extra*, and an operator's client of it."""
    file = folder / "config.yaml"
    file.write_text(TEXT.format(folder=folder, secret=secret) + extra)
    async with open_app(load_config(file), options=Options(config=file, port=0)) as app:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            base_url=app.addresses[0], headers=headers, timeout=None, trust_env=False, verify=False
        ) as client:
            yield Configured(app=app, file=file, client=client)
