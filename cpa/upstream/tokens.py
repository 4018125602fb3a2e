"""Getting tokens for service accounts from their issuer (proxy 3.4, vertex)."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs
import httpx
import trio

from cpa.config.schema import Config
from cpa.credentials.model import Credential
from cpa.credentials.service_account import ServiceAccount, Token, token_of, token_request
from cpa.errors import UpstreamProtocolError
from cpa.upstream.client import CLOSE_GRACE_S, UpstreamClients, map_errors
from cpa.upstream.dialects import USER_AGENT
from cpa.upstream.executor import HttpAnswer, UpstreamSettings, deadline
from cpa.upstream.heads import refuse_line_breaks

ANSWER_S: Final = 30.0
"""From sending to the end of the answer; issuers take some 100 ms."""
ANSWER_BYTES: Final = 64 << 10


@attrs.frozen(kw_only=True)
class TokenIssuers:
    """Asks issuers. *config*: what is in force, for its proxy."""

    clients: UpstreamClients
    config: Callable[[], Config]

    async def issue(self, account: ServiceAccount, credential: Credential) -> Token:
        """A new token for *account*, through the proxy of *credential*.

        Raises: TokenError; UpstreamError. Cancellation: closes the connection.
        """
        asked = datetime.now(UTC)
        form = await trio.to_thread.run_sync(partial(token_request, account, now=asked))
        client = self.clients.client_for(credential.proxy_url, self.config().proxy_url)
        headers = {
            b"user-agent": USER_AGENT,
            b"content-type": b"application/x-www-form-urlencoded",
            b"accept": b"application/json",
            b"accept-encoding": b"identity",
        }
        refuse_line_breaks(headers)
        with map_errors(), deadline(ANSWER_S, "did not answer"):
            request = httpx.Request("POST", account.token_uri, headers=list(headers.items()), content=form)
            response = await client.send(request, stream=True)
            try:
                body = b""
                settings = UpstreamSettings(response_bytes=ANSWER_BYTES)
                async for piece in HttpAnswer.of(response, settings):
                    body += piece
                    if len(body) > ANSWER_BYTES:
                        raise UpstreamProtocolError(f"token endpoint's answer is larger than {ANSWER_BYTES} bytes")
            finally:
                with trio.move_on_after(CLOSE_GRACE_S, shield=True):
                    await response.aclose()
        return token_of(response.status_code, body, now=asked)
