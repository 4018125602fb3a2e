"""What every process of the proxy begins with: options, sockets, a log. Apart from the rest, so that the supervisor of
several workers, which serves nobody, is a small process.
"""

import os
import sys
from pathlib import Path
from typing import Final

import attrs

from cpa.config.schema import Config
from cpa.errors import StartError
from cpa.observability.log import configure_logging
from cpa.observability.redact import KnownSecrets
from cpa.observability.sink import FileDestination, LogSink, StreamDestination, log_directory
from cpa.server.sockets import Listeners, inherited_listeners, open_listeners
from cpa.workers import Place

FORCED_EXIT: Final = 130
"""Exit code when a second signal ended the program at once."""


@attrs.frozen(kw_only=True)
class Options:
    """What the command line may override.

    Attributes:
      config: the file to serve and to watch; None = the demo.
      place: among the workers of one port; None = alone.
    """

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    place: Place | None = None


DEFAULTS: Final = Options()


async def bind(config: Config, options: Options) -> Listeners:
    """Listening sockets for *config*, as *options* override it. Raises: StartError."""
    host = config.host if options.host is None else options.host
    port = config.port if options.port is None else options.port
    try:
        if options.place is not None:
            return inherited_listeners(config, options.place.listening)
        return await open_listeners(config, host=host, port=port)
    except OSError as exc:  # ssl.SSLError is one
        raise StartError(f"cannot listen on {host or '*'}:{port}: {exc}") from exc


def apply_logging(config: Config, sink: LogSink, secrets: KnownSecrets) -> None:
    """Point the application log where *config* wants it. Raises: StartError when no file can be written there."""
    total_bytes = config.logs_max_total_size_mb << 20
    present = sink.destination
    if not config.logging_to_file:
        if isinstance(present, FileDestination):
            sink.redirect(StreamDestination(sys.stdout.fileno()))
    elif isinstance(present, FileDestination):
        present.max_total_bytes = total_bytes
    else:
        directory = log_directory(os.environ, config.auth_dir)
        try:
            sink.redirect(FileDestination(directory, max_total_bytes=total_bytes))
        except OSError as exc:
            raise StartError(f"logging-to-file: cannot write to {directory}: {exc}") from exc
    configure_logging(format=config.logging.format.value, debug=config.debug, sink=sink, secrets=secrets)
