"""Every error that CPA raises on purpose.

::

    CpaError                 code, http_status, retryable: class attributes, overridable per instance
    ├ ConfigError            every problem of one file; the command line exits with 2
    ├ EditError              the configuration file cannot be edited, or not in this way; the status says whose fault
    ├ StartError             the program cannot start: address in use, unreadable certificate; it exits with 1
    ├ RequestError 400       the client asked wrongly
    │ ├ MalformedRequest     body, path or header that cannot be read
    │ ├ Unauthenticated 401
    │ ├ UnknownModel         no provider serves the model (400, as deployed clients expect)
    │ ├ UnknownRoute 404
    │ ├ RequestTooLarge 413
    │ ├ RequestTimeout 408   the client took too long to send
    │ ├ LimitExceeded 429    the client's key has used up a limit of the operator's; retry_after_s may be set
    │ └ Rejected             ended by an interceptor, with the answer that it gave
    ├ PipelineError 500
    │ ├ StageError           a stage failed: which one, of which plugin
    │ ├ RequiredPluginDown 503 a chain cannot do without a plugin that is not there
    │ ├ IllegalTransition    an exchange was driven against its state table
    │ ├ UnsupportedFormat 501 a plugin's executor speaks nothing that could be carried to the client
    │ └ NoTranslator 501     nothing can carry this client's protocol to that provider's
    ├ CredentialError 503
    │ └ NoCredential         all are disabled or cooling down; retry_after_s may be set
    └ UpstreamError 502
      ├ UpstreamConnectError
      ├ UpstreamTimeout 504
      ├ UpstreamStatusError  the provider's own status, headers and body
      ├ ExecutorError        a plugin's executor failed, with the status that it chose
      ├ UpstreamStreamError  the provider reported an error inside a stream that had begun
      └ UpstreamProtocolError the provider broke its protocol (truncated, empty, unparsable)
        └ UpstreamHungUp     it closed or reset the connection before its answer was complete

Our misuse and a peer's misbehaviour never share a class. `trio.Cancelled` is never a `CpaError`.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from cpa.jsontypes import JsonValue

RawHeaders = Sequence[tuple[bytes, bytes]]
"""HTTP headers as on the wire: lower-case names, in order, repeats kept."""


class CpaError(Exception):
    """Base of all errors above.

    Attributes:
      code: short machine-readable name that reaches clients, e.g. ``model_not_found``; may be empty.
      http_status: status that a client should see.
      retryable: another credential or a later try may succeed.
    """

    code: str = ""
    http_status: int = 500
    retryable: bool = False
    as_said: ClassVar[bool] = False
    """Its status, and a message that is JSON, reach the client as they are: somebody chose them for it."""
    default_message: ClassVar[str] = "internal error"
    public_message: ClassVar[str] = ""
    """What clients are told instead of the message; empty = the message."""

    def __init__(self, message: str = "", *, code: str | None = None, http_status: int | None = None) -> None:
        super().__init__(message or self.default_message)
        self.message = message or self.default_message
        if code is not None:
            self.code = code
        if http_status is not None:
            self.http_status = http_status


class StartError(CpaError):
    """The program cannot start: address in use, unreadable certificate, …"""


class ConfigProblem(NamedTuple):
    """One problem of a configuration file.

    Attributes:
      line: 1-based.
      path: of the key, ``claude-api-key[0].weight``; empty for the document itself.
      text: ``expected …, got …``, never with a secret.
      column: 1-based, where one is known.
    """

    line: int
    path: str
    text: str
    column: int | None = None


class ConfigError(CpaError):
    """Every problem of one configuration file.

    Attributes:
      problems: complete lines ``file:line: key.path: expected …, got …``, in file order.
      details: the same in parts; empty when there was nothing to read.
    """

    default_message = "invalid configuration"

    def __init__(self, problems: Sequence[str], details: Sequence[ConfigProblem] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.details = tuple(details)


class EditError(CpaError):
    """The configuration file cannot be edited: 500 when it cannot be read or written, 409 when others edit it as well,
    412 when it is not what the client knows, 4xx when the edit itself is wrong. The file is as it was.
    """

    code = "write_failed"


class RequestError(CpaError):
    """The client asked wrongly; no provider was at fault."""

    http_status = 400
    code = "invalid_request"
    default_message = "invalid request"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        http_status: int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, code=code, http_status=http_status)
        self.param = param


class MalformedRequest(RequestError):
    """The request cannot be read."""


class Unauthenticated(RequestError):
    """No client key, or a wrong one."""

    http_status = 401
    code = "invalid_api_key"
    default_message = "Missing API key"


class UnknownModel(RequestError):
    """No provider serves the model."""

    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"unknown provider for model {model}", param="model")
        self.model = model


class UnknownRoute(RequestError):
    """The path or the action in it does not exist."""

    http_status = 404
    code = "not_found"
    default_message = "not found"


class RequestTooLarge(RequestError):
    """Body larger than `limits`, as sent or after decompression."""

    http_status = 413
    code = "request_too_large"


class RequestTimeout(RequestError):
    """The client did not send its body in time."""

    http_status = 408
    code = "request_timeout"
    retryable = True


class LimitExceeded(RequestError):
    """A limit of the client's key is used up (``limits.clients``).

    Attributes:
      retry_after_s: seconds until something is left again, > 0, or None when it never will be.
    """

    http_status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s
        self.retryable = retry_after_s is not None


class Rejected(RequestError):
    """An interceptor ended the exchange with an answer of its own.

    Attributes:
      headers: already filtered; ``content-type`` is always there.
      body: raw bytes for the client, without SSE framing even on streams.
      plugin_id: who ended it.
    """

    def __init__(self, *, status: int, headers: RawHeaders, body: bytes, plugin_id: str) -> None:
        super().__init__(f"rejected by {plugin_id}", code="rejected", http_status=status)
        self.headers = tuple(headers)
        self.body = body
        self.plugin_id = plugin_id


class PipelineError(CpaError):
    """The pipeline itself failed."""


class StageError(PipelineError):
    """A stage raised.

    Attributes:
      stage: wire name of the stage, e.g. ``request.normalize``.
      plugin_id: who owns it.
    """

    def __init__(self, *, stage: str, plugin_id: str, detail: str = "") -> None:
        super().__init__(f"{stage} of plugin {plugin_id} failed" + (f": {detail}" if detail else ""))
        self.stage = stage
        self.plugin_id = plugin_id


class RequiredPluginDown(PipelineError):
    """A chain requires a plugin that is absent or does not work."""

    http_status = 503
    code = "plugin_unavailable"
    retryable = True

    def __init__(self, plugin_id: str) -> None:
        super().__init__(f"plugin {plugin_id} is required and not available")
        self.plugin_id = plugin_id


class IllegalTransition(PipelineError):
    """An exchange was driven against its state table: a bug in CPA."""

    def __init__(self, *, state: str, event: str) -> None:
        super().__init__(f"no transition from state {state} on event {event}")
        self.state = state
        self.event = event


class UnsupportedFormat(PipelineError):
    """A plugin's executor does not speak what the client needs, nor anything that could be translated to it."""

    http_status = 501
    code = "not_implemented"


class NoTranslator(PipelineError):
    """Nothing can carry the client's protocol to the provider's."""

    http_status = 501
    code = "not_implemented"

    def __init__(self, *, source: str, target: str, model: str) -> None:
        super().__init__(
            f"model {model} is served by a provider that speaks {target}; nothing translates {source} to that"
        )
        self.source = source
        self.target = target
        self.model = model


class CredentialError(CpaError):
    """No credential could be used."""

    http_status = 503
    code = "auth_unavailable"
    retryable = True


class NoCredential(CredentialError):
    """All candidates are disabled or cooling down.

    Attributes:
      retry_after_s: seconds until the first one recovers, > 0, or None when unknown.
      details: what else OpenAI's shape of the error has room for (proxy 1.15, the cooldown body). JSON values.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        details: Mapping[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(message, code=code, http_status=http_status)
        self.retry_after_s = retry_after_s
        self.details: Mapping[str, JsonValue] = {} if details is None else details


class UpstreamError(CpaError):
    """A provider failed; the client and CPA did nothing wrong."""

    http_status = 502
    code = "upstream_error"
    retryable = True


class UpstreamConnectError(UpstreamError):
    """No connection: refused, unresolved, TLS failure, proxy failure. Nothing was processed.

    The message names hosts and settings, which are the operator's business: clients get `public_message`.
    """

    public_message = "the provider cannot be reached"


class UpstreamTimeout(UpstreamError):
    """The provider did not answer in time."""

    http_status = 504
    code = "timeout"


class UpstreamProtocolError(UpstreamError):
    """The provider broke its protocol or hung up early."""


class UpstreamHungUp(UpstreamProtocolError):
    """The provider's connection ended before the answer was complete. That says nothing of the credential."""


class UpstreamStatusError(UpstreamError):
    """The provider answered with an error.

    Attributes:
      status: 300..599 as the provider sent it, or as read from an in-stream error.
      headers: the provider's response headers, lower-case names.
      body: the provider's body, byte for byte, at most `limits.error-body-bytes`.
      provider_format: protocol of *body*.
    """

    def __init__(self, *, status: int, headers: RawHeaders, body: bytes, provider_format: str) -> None:
        super().__init__(f"provider answered {status}", http_status=status)
        self.provider_format = provider_format
        self.status = status
        self.headers = tuple(headers)
        self.body = body

    def header(self, name: bytes) -> bytes | None:
        """Value of the first header of that lower-case *name*."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class ExecutorError(UpstreamError):
    """A plugin's executor failed."""

    as_said = True
    http_status = 500
    code = "plugin_executor_error"

    def __init__(self, message: str, *, http_status: int | None = None) -> None:
        super().__init__(message, http_status=http_status)


class UpstreamStreamError(UpstreamError):
    """The provider reported an error inside a stream that had begun.

    Attributes:
      frame: its event as it came, whole, in its own protocol; empty when it was no event.
    """

    def __init__(self, message: str, *, status: int, code: str, frame: bytes) -> None:
        super().__init__(message, code=code, http_status=status)
        self.frame = frame


ErrorMap = Mapping[type[BaseException], type[CpaError]]
"""Foreign exception classes and what they mean to us."""
