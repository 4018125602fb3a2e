"""The test bench: loads the library, drives one check on it, ends it, and says what became of it.

Theory of operation. In `process` isolation every check has a worker of its own, which is ended in order afterwards:
what a check finds is its own doing, and the orderly end waits until the plugin has taken back every buffer, so that a
heap that `free_buffer` breaks is noticed in the check that broke it. In `inline` isolation libraries cannot be
unloaded, and runtimes such as Go's cannot be had in any number, so the checks share one copy until something goes wrong
with it. A crash ends the process then: see `separate.py`, which runs that in a process of its own.
"""

import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import attrs
import trio

from cpa.abi.errors import PluginCrashed, PluginError
from cpa.abi.transport import LogStream, PluginReply, PluginTransport
from cpa.config.schema import Isolation
from cpa.host.generation import TransportOpener
from cpa.testing.conformance.host import HostCall, KitHost
from cpa.testing.conformance.report import Check, Verdict

KEPT_LINES: Final = 8
"""Of the plugin's last output: what an allocator or a runtime says before it aborts."""
KILLED_S: Final = 0.02
"""Grace for a plugin of which it is known that it does not end in time."""
ENDED: Final = "closed"
"""What a transport calls an orderly end."""
GOOD_REQUEST: Final = "good request"
"""Name of the check without which others of the same method make no sense."""
_LATE: Final = "did not end"
_HUNG: Final = "hung in a check"


class CallHung(PluginError):
    """A call did not return in the time of the kit."""

    def __init__(self, *, plugin_id: str, method: str, timeout_s: float) -> None:
        super().__init__(f"{method} did not return within {timeout_s:g} s", plugin_id=plugin_id)
        self.method = method


@attrs.frozen(kw_only=True)
class Finding:
    """What a check came to."""

    verdict: Verdict
    got: str


def passed(got: str) -> Finding:
    """As it should be."""
    return Finding(verdict=Verdict.PASS, got=got)


def unusual(got: str) -> Finding:
    """The host can live with it."""
    return Finding(verdict=Verdict.WARN, got=got)


def failed(got: str) -> Finding:
    """Against the contract."""
    return Finding(verdict=Verdict.FAIL, got=got)


def skipped(got: str) -> Finding:
    """Could not be found out."""
    return Finding(verdict=Verdict.SKIP, got=got)


class Observer(Protocol):
    """Hears how a run goes on; must not block."""

    def began(self, planned: "Planned", isolation: Isolation) -> None:
        """A check begins."""
        ...

    def calling(self, method: str) -> None:
        """The plugin is about to be called; ``cliproxy_plugin_init`` and ``shutdown()`` count too."""
        ...

    def ended(self, check: Check) -> None:
        """A check has its verdict."""
        ...


@attrs.define(eq=False, kw_only=True)
class Subject:
    """One loaded copy.

    Attributes:
      last_method: the call that began last.
      spoiled: something went wrong: not to be used for another check.
    """

    transport: PluginTransport
    host: KitHost
    timeout_s: float
    _calling: Callable[[str], None]
    output: deque[str] = attrs.field(factory=lambda: deque(maxlen=KEPT_LINES))
    last_method: str = ""
    spoiled: bool = False

    async def call(self, method: str, payload: bytes) -> PluginReply:
        """One call. Raises: CallHung, PluginCrashed, PluginError."""
        self.last_method = method
        self._calling(method)
        with trio.move_on_after(self.timeout_s):
            return await self.transport.call(method, payload)
        self.spoiled = True
        raise CallHung(plugin_id=self.transport.plugin_id, method=method, timeout_s=self.timeout_s)

    async def end(self, grace_s: float) -> str:
        """End the plugin in order, or not. Returns: how it ended."""
        self._calling("shutdown()")
        if self.spoiled:
            self.transport.kill(_HUNG)
            grace_s = KILLED_S
        await self.transport.aclose(grace_s)
        return self.transport.death or ENDED

    def last_words(self) -> str:
        """What the plugin printed last, for people; begins with a blank unless empty."""
        return f" ({'; '.join(self.output)})" if self.output else ""


Body = Callable[[Subject], Awaitable[Finding]]


@attrs.frozen(kw_only=True)
class Planned:
    """A check that is to be made.

    Attributes:
      registered: needs a plugin that has registered.
      ends: ends the plugin itself.
      opens: one of the first, after which it is not known yet how the plugin ends: what its end is like is remembered.
      why_not: asked right before: a reason not to make it, or empty.
    """

    name: str
    capability: str
    method: str
    expected: str
    run: Body = attrs.field(repr=False)
    registered: bool = True
    ends: bool = False
    opens: bool = False
    why_not: Callable[[], str] = attrs.field(default=lambda: "", repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """Names it within one isolation."""
        return (self.name, self.method)


@attrs.define(eq=False)
class _Pending:
    """Checks to come, the next of which can be looked at."""

    _plan: Iterator[Planned]
    _next: Planned | None = None

    def peek(self) -> Planned | None:
        """The next one; None at the end."""
        if self._next is None:
            self._next = next(self._plan, None)
        return self._next

    def pop(self) -> Planned:
        """Take the next one, which must be there."""
        planned = self.peek()
        assert planned is not None, "peek before"
        self._next = None
        return planned


@attrs.define(eq=False, kw_only=True)
class Bench:
    """Where one library is tested in one isolation.

    Attributes:
      timeout_s: for one call, and for the end.
      greet: registers a new copy; set as soon as it is known how.
      done: keys of checks whose verdict is known already; they are not told of again unless they fail this time.
      known_to_fail: methods as of `failed_methods`, from a run before.
      shutdown_death: how the plugin ends when it does not end as it should; known after the first checks.
    """

    path: Path
    plugin_id: str
    isolation: Isolation
    timeout_s: float
    observer: Observer
    opener: TransportOpener
    greet: Callable[[Subject], Awaitable[None]] | None = None
    shutdown_death: str = ""
    host_calls: list[HostCall] = attrs.field(factory=list)
    results: list[Check] = attrs.field(factory=list)
    done: frozenset[tuple[str, str]] = frozenset()
    known_to_fail: frozenset[str] = frozenset()

    def failed_methods(self) -> frozenset[str]:
        """Methods whose good request alone was answered badly."""
        return self.known_to_fail | {
            check.method for check in self.results if check.verdict is Verdict.FAIL and check.name == GOOD_REQUEST
        }

    async def run(self, plan: Iterable[Planned]) -> None:
        """Make the checks of *plan* in order, on as few or as many copies as the isolation wants.

        *plan* is asked for the next check when the one before is done: it may depend on what that found.
        """
        pending = _Pending(iter(plan))
        while self._after_skipped(pending):
            await self._with_copy(pending)

    def _after_skipped(self, pending: "_Pending") -> bool:
        """Report the next checks as far as they cannot be made; whether one is left that can."""
        while (planned := pending.peek()) is not None:
            reason = planned.why_not()
            if not reason:
                return True
            self._begin(pending.pop())
            self._report(planned, skipped(reason), trio.current_time())
        return False

    def _begin(self, planned: Planned) -> None:
        if planned.key not in self.done:
            self.observer.began(planned, self.isolation)

    async def _with_copy(self, pending: "_Pending") -> None:
        """Take checks from *pending*, at least one, and make them on one new copy."""
        planned = pending.pop()
        self._begin(planned)
        self.observer.calling("cliproxy_plugin_init")
        started, finding, death = trio.current_time(), skipped("not made"), ENDED
        subject: Subject | None = None
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        reported = False

        def log_line(stream: LogStream, text: str) -> None:
            lines.append(text)

        host = KitHost(during=planned.method, calls=self.host_calls)
        async with trio.open_nursery() as host_tasks:
            try:
                async with self.opener(
                    str(self.path),
                    plugin_id=self.plugin_id,
                    isolation=self.isolation,
                    handler=host.handle,
                    nursery=host_tasks,
                    log_line=log_line,
                ) as transport:
                    subject = Subject(
                        transport=transport,
                        host=host,
                        timeout_s=self.timeout_s,
                        calling=self.observer.calling,
                        output=lines,
                    )
                    finding = await self._guarded(
                        subject, self._greeted(planned) if planned.registered else planned.run
                    )
                    while self.isolation is Isolation.INLINE:
                        # Nothing that comes later is told apart from this check, so it is over.
                        self._report(planned, finding, started)
                        reported = True
                        if planned.ends or subject.spoiled or not self._after_skipped(pending):
                            break
                        planned, started, reported = pending.pop(), trio.current_time(), False
                        self._begin(planned)
                        host.during = planned.method
                        finding = await self._guarded(subject, planned.run)
                    death = await subject.end(KILLED_S if self.shutdown_death else self.timeout_s)
            except PluginError as exc:  # from opening; what the block does is guarded
                finding = failed("; ".join([exc.message, *lines]))
            host_tasks.cancel_scope.cancel()
        if not reported:
            if subject is not None:
                finding = self._with_end(finding, planned, subject, death)
            self._report(planned, finding, started)

    def _greeted(self, planned: Planned) -> Body:
        async def run(subject: Subject) -> Finding:
            if self.greet is not None:
                await self.greet(subject)
            return await planned.run(subject)

        return run

    async def _guarded(self, subject: Subject, body: Body) -> Finding:
        """Run *body*; what the plugin does instead of answering becomes a finding."""
        try:
            return await body(subject)
        except CallHung as exc:
            subject.spoiled = True
            return failed(exc.message)
        except PluginCrashed as exc:
            subject.spoiled = True
            # Its last output is read before the transport says that it died.
            return failed(f"{exc.reason} in {exc.method}{subject.last_words()}")
        except PluginError as exc:
            subject.spoiled = True
            return failed(exc.message)

    def _with_end(self, finding: Finding, planned: Planned, subject: Subject, death: str) -> Finding:
        """*finding*, or that the plugin died of what came after it: freeing the replies, or its own threads."""
        if planned.opens and death not in (ENDED, _HUNG):
            self.shutdown_death = death  # is it the fault of shutdown()? The check of that finds out
        if planned.ends or finding.verdict is Verdict.FAIL or death in (ENDED, _HUNG, self.shutdown_death):
            return finding
        if death.startswith(_LATE):
            return finding  # the check of the end says so
        return failed(f"{death} after the reply to {subject.last_method}{subject.last_words()}")

    def _report(self, planned: Planned, finding: Finding, started: float) -> None:
        check = Check(
            isolation=self.isolation,
            name=planned.name,
            capability=planned.capability,
            method=planned.method,
            verdict=finding.verdict,
            expected=planned.expected,
            got=finding.got,
            seconds=trio.current_time() - started,
        )
        if planned.key in self.done and finding.verdict is not Verdict.FAIL:
            return
        self.results.append(check)
        self.observer.ended(check)


HEAP_CHECKS: Final = "libc_malloc_debug.so.0"
"""glibc's checking allocator; comes with glibc itself and lies beside it."""


@contextmanager
def heap_checks() -> Iterator[bool]:
    """Let processes that are started in the block check their heap: wrong and double frees abort, freed memory is
    overwritten. True when glibc's checking allocator is there; else only what glibc always checks is.

    Changes this process's environment while the block runs.
    """
    library = _beside_libc(HEAP_CHECKS)
    changes = {"MALLOC_PERTURB_": "165"}  # any byte that is neither 0 nor text
    if library is not None:
        preloaded = os.environ.get("LD_PRELOAD")
        changes |= {"MALLOC_CHECK_": "3", "LD_PRELOAD": f"{library}:{preloaded}" if preloaded else str(library)}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield library is not None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _beside_libc(name: str) -> Path | None:
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in maps.splitlines():
        mapped = Path(line.split(maxsplit=5)[-1])
        if mapped.name == "libc.so.6" and (mapped.parent / name).is_file():
            return mapped.parent / name
    return None
