"""Stand-ins for what an execution needs, for tests of stages and of the runner without sockets."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from cpa.credentials.model import Credential
from cpa.errors import CpaError, RawHeaders, UnknownModel
from cpa.formats.names import Format
from cpa.pipeline.completions import Completions
from cpa.pipeline.plan import Plan
from cpa.pipeline.services import Services
from cpa.pipeline.stage import Registration
from cpa.scheduling.scheduler import Scheduling
from cpa.scheduling.settings import SchedulingSettings
from cpa.types import Candidate, Execution, PluginId, RequestId, TraceId, UpstreamCall, Wire

ONE_ROUND = SchedulingSettings(request_retry=0, max_retry_interval_s=0, disable_cooling=True)
"""Each credential once, nothing remembered: what tests of other things want."""


@attrs.define(eq=False)
class FakeAnswer:
    """A provider's answer by script; see `cpa.types.UpstreamAnswer`.

    A `CpaError` among the pieces is raised where it stands; a `trio.Event` is waited for.
    """

    pieces: Sequence[bytes | CpaError | trio.Event]
    headers: RawHeaders = ((b"content-type", b"application/json"),)
    status: int = 200
    drained: bool = False
    _next: int = 0

    async def read(self) -> bytes:
        """All pieces."""
        return b"".join([piece async for piece in self])

    def chunks(self) -> "FakeAnswer":
        """Itself."""
        return self

    def __aiter__(self) -> "FakeAnswer":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while self._next < len(self.pieces):
            piece = self.pieces[self._next]
            self._next += 1
            if isinstance(piece, CpaError):
                raise piece
            if isinstance(piece, trio.Event):
                await piece.wait()
            else:
                return piece
        raise StopAsyncIteration

    async def drain(self) -> None:
        """Nothing follows a script."""
        self.drained = True
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class FakeExecutor:
    """An executor that records calls and answers by script.

    Attributes:
      native: see `cpa.types.Wire`.
      answer: makes the answer of a call, or raises what the provider would.
      open_answers: answers that were opened and not closed yet.
    """

    format: str
    answer: Callable[[UpstreamCall], FakeAnswer]
    native: bool = True
    calls: list[UpstreamCall] = attrs.field(factory=list)
    open_answers: int = 0

    def wire(self, client: Format) -> Wire:
        """Its one format, whoever asks."""
        return Wire(input=self.format, output=self.format, native=self.native)

    @asynccontextmanager
    async def open(self, call: UpstreamCall) -> AsyncIterator[FakeAnswer]:
        """See `cpa.types.Executor`."""
        self.calls.append(call)
        await trio.lowlevel.checkpoint()
        answer = self.answer(call)
        self.open_answers += 1
        try:
            yield answer
        finally:
            self.open_answers -= 1


@attrs.define(eq=False)
class FakeModels:
    """A resolver over a fixed list."""

    candidates: Sequence[Candidate]

    def resolve(self, model: str, *, provider: str = "") -> tuple[Candidate, ...]:
        """All candidates of *provider* whatever the model, except one that is called ``unknown``."""
        found = tuple(c for c in self.candidates if provider in ("", c.credential.provider))
        if model == "unknown" or not found:
            raise UnknownModel(model)
        return found

    def providers(self) -> tuple[str, ...]:
        """Sorted keys."""
        return tuple(sorted({c.credential.provider for c in self.candidates}))


def candidate(
    executor: FakeExecutor, *, name: str = "one", provider: str = "fake", model: str = "m1", priority: int = 0
) -> Candidate:
    """A way to serve *model* by *executor*."""
    credential = Credential(id=name, provider=provider, label=name, priority=priority, index=f"index-{name}")
    return Candidate(credential=credential, model=model, executor=executor)


def execution() -> Execution:
    """What calls belong to that no runner made."""
    return Execution(request_id=RequestId("request"), trace_id=TraceId("00000000"))


def services(
    candidates: Sequence[Candidate],
    completions: Completions,
    registrations: Iterable[Registration] = (),
    *,
    passthrough_headers: bool = False,
    direct: Mapping[PluginId, Candidate] | None = None,
    scheduling: Scheduling | None = None,
    settings: SchedulingSettings = ONE_ROUND,
) -> Services:
    """Services over fakes, with a real plan and a real scheduler."""
    return Services(
        plan=Plan.build(registrations),
        models=FakeModels(candidates),
        scheduler=(scheduling or Scheduling()).configured(settings),
        completions=completions,
        passthrough_headers=passthrough_headers,
        direct=direct or {},
    )
