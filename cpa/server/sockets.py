"""Listening sockets of the proxy, with TLS or without; needs no server library, so that checks and supervisors may."""

import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

import trio

from cpa.config.schema import Config

BACKLOG: Final = 1024

Listeners = list[Any]
"""Of `trio.SocketListener`, or with TLS of `trio.SSLListener`; trio's type variables cannot say either."""

_CIPHERS: Final = "ECDHE+AESGCM"
"""Of TLS 1.2: with forward secrecy, and none that RFC 9113 (appendix A) forbids for HTTP/2; as Hypercorn has it."""
_PROTOCOLS: Final = ("h2", "http/1.1")


async def open_listeners(config: Config, *, host: str, port: int) -> Listeners:
    """Bound and listening sockets; several when *host* means several addresses. Raises: OSError, ssl.SSLError."""
    context = tls_context(config) if config.tls.enable else None
    return with_tls(await trio.open_tcp_listeners(port, host=host or None, backlog=BACKLOG), context)


def inherited_listeners(config: Config, descriptors: Iterable[int]) -> Listeners:
    """The same over sockets that a supervisor bound. Ownership: takes *descriptors*. Raises: OSError, ssl.SSLError."""
    context = tls_context(config) if config.tls.enable else None
    sockets = [trio.socket.from_stdlib_socket(socket.socket(fileno=fd)) for fd in descriptors]
    return with_tls(map(trio.SocketListener, sockets), context)


def with_tls(plain: Iterable[trio.SocketListener], context: ssl.SSLContext | None) -> Listeners:
    """*plain*, behind TLS if there is a *context*."""
    if context is None:
        return list(plain)
    return [trio.SSLListener(listener, context, https_compatible=True) for listener in plain]


def tls_context(config: Config) -> ssl.SSLContext:
    """A server's context for HTTP/1.1 and HTTP/2, as RFC 9113 9.2 wants it.

    Raises: OSError that names both files, which those of the ssl module do not.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_ciphers(_CIPHERS)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options = ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(_PROTOCOLS)
    try:
        context.load_cert_chain(certfile=str(config.tls.cert), keyfile=str(config.tls.key))
    except OSError as exc:  # ssl.SSLError is one
        raise OSError(f"tls.cert {config.tls.cert} and tls.key {config.tls.key} cannot be used: {exc}") from exc
    return context


def listen_addresses(listeners: Listeners, *, tls: bool) -> tuple[str, ...]:
    """Where *listeners* listen, as URLs."""
    found = []
    for listener in listeners:
        host, bound = address_of(listener)
        found.append(f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{bound}")
    return tuple(found)


def address_of(listener: Any) -> tuple[str, int]:
    """Host and port of a listener with or without TLS."""
    inner: Any = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
    name = inner.socket.getsockname()
    return name[0], name[1]
