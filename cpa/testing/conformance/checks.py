"""The checks themselves: what is driven, what is expected, what is said of what came."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from cpa.abi import wire
from cpa.abi.envelope import PluginCallError
from cpa.abi.errors import PluginCrashed, PluginError
from cpa.abi.methods import PLUGIN_METHODS, PLUGIN_RECONFIGURE, PLUGIN_REGISTER, Direction, Method, methods_of
from cpa.abi.transport import PluginReply
from cpa.config.schema import Isolation
from cpa.host.registration import RegistrationRefused, greet
from cpa.testing.conformance import requests
from cpa.testing.conformance.bench import (
    ENDED,
    GOOD_REQUEST,
    Bench,
    Finding,
    Planned,
    Subject,
    failed,
    passed,
    skipped,
    unusual,
)
from cpa.testing.conformance.judge import Judged, Kind, judge
from cpa.testing.conformance.report import LIFECYCLE, PluginSummary, Verdict

UNKNOWN: Final = Method(
    name="cpa.conformance.unknown",
    direction=Direction.PLUGIN_CALL,
    request=wire.Empty,
    reply=wire.Empty,
)
"""No plugin has this method, so that any may be asked for it at any time."""
REGISTER: Final = "register"
"""Name of the check without which there are no others."""
AT_ONCE: Final = 8
"""Calls that overlap in the checks of concurrency."""
REPLIES_TO_FREE: Final = 20
NESTED_CALLS: Final = 32
"""Calls into the plugin from its own host calls, in one check."""
IDENTIFIER_CALLS: Final = 3
SETTLE_S: Final = 0.3
"""In which a plugin that a reply's freeing kills is dead."""
GONE_S: Final = 2.0
"""For processes that the plugin started to end after it."""

_GOOD_ANSWER = "an envelope with a result of the right type, or a decline; an error envelope is unusual"
_ANY_ANSWER = "a well-formed reply (mostly an error envelope); no crash, no hang"
_IDENTIFIERS: Final = tuple(row for row in PLUGIN_METHODS if row.name.endswith(".identifier"))


@attrs.define(eq=False, kw_only=True)
class Checks:
    """Makes the checks of one plugin on one bench.

    Attributes:
      about: None until it has registered.
      summary: likewise.
    """

    bench: Bench
    config_yaml: bytes = attrs.field(repr=False)
    about: requests.About | None = None
    summary: PluginSummary | None = None
    _reply: wire.RegisterReply | None = None
    _offered: int = 3

    # ---- plans ----

    def plan(self) -> Iterator[Planned]:
        """All checks; those that need a registration come only if there is one by then."""
        for planned in self.first():
            yield planned
            if any(check.verdict is Verdict.FAIL for check in self.bench.results):
                return
        if self.about is not None:
            yield from self.rest()

    def first(self) -> list[Planned]:
        """What must succeed before anything else makes sense."""
        return [
            Planned(
                name="load",
                capability=LIFECYCLE,
                method="",
                expected="the library opens, cliproxy_plugin_init returns 0 and fills in ABI 1, call and free_buffer",
                run=self._loaded,
                registered=False,
                opens=True,
            ),
            Planned(
                name=REGISTER,
                capability=LIFECYCLE,
                method=PLUGIN_REGISTER.name,
                expected="schema version 0 to 3, Name, Version, Author, GitHubRepository, at least one capability",
                run=self._register,
                registered=False,
                opens=True,
            ),
        ]

    def rest(self) -> Iterator[Planned]:
        """Everything else, once the plugin has registered."""
        yield from self._lifecycle()
        for row in self._declared():
            yield from self._of_method(row)
        yield self._plan(
            "re-entrancy",
            "",
            f"answers {UNKNOWN.name} while it waits for a host call, on any thread",
            self._reentrancy,
            why_not=lambda: "" if self.bench.host_calls else "the plugin made no host calls",
        )
        yield self._plan(
            "host calls",
            "",
            "known methods with well-formed requests",
            self._host_calls,
            why_not=lambda: "" if self.bench.host_calls else "the plugin made no host calls",
        )
        yield self._plan(
            "mixed concurrency",
            "",
            f"{AT_ONCE} different calls at once, plugin.reconfigure among them, are answered as each alone",
            self._mixed,
        )
        yield self._plan(
            "nothing left over",
            "",
            "worker process and all processes that it started are gone after shutdown()",
            self._leftovers,
            ends=True,
            why_not=lambda: self._inline() and "an inline plugin has no process of its own",
        )

        yield self._plan(
            "shutdown",
            "",
            f"shutdown() returns, and the worker ends, within {self.bench.timeout_s:g} s",
            self._shutdown,
            ends=True,
        )

    def _lifecycle(self) -> Iterator[Planned]:
        same = "the same answer as before, for the same settings"
        yield self._plan("register again", PLUGIN_REGISTER.name, same, partial(self._again, PLUGIN_REGISTER))
        yield self._plan("reconfigure", PLUGIN_RECONFIGURE.name, same, partial(self._again, PLUGIN_RECONFIGURE))
        yield self._plan("unknown method", UNKNOWN.name, "an error envelope", self._unknown)
        yield self._plan(
            "freed once",
            PLUGIN_RECONFIGURE.name,
            _FREED,
            partial(self._freed, PLUGIN_RECONFIGURE),
        )
        yield from self._bad_requests(PLUGIN_RECONFIGURE, LIFECYCLE)
        for row in _IDENTIFIERS:
            if row in self._declared():
                yield self._plan(
                    "identifier stable",
                    row.name,
                    "the same identifier, not blank, every time",
                    partial(self._identifier, row),
                    capability=row.capability,
                )

    def _of_method(self, row: Method[Any, Any]) -> Iterator[Planned]:
        capability = row.capability
        expected = _GOOD_ANSWER
        if row.streamed:
            expected += "; without chunks, host.stream.close in time"
        yield self._plan(GOOD_REQUEST, row.name, expected, partial(self._good, row), capability=capability)
        yield from self._bad_requests(row, capability)
        yield self._plan(
            "oversized request",
            row.name,
            f"as for the good request, with {requests.OVERSIZED_BYTES} bytes in it",
            partial(self._oversized, row),
            capability=capability,
        )
        yield self._plan(
            "concurrent requests",
            row.name,
            f"{AT_ONCE} calls at once are answered as one alone",
            partial(self._concurrent, row),
            capability=capability,
            why_not=partial(self._failed_alone, row),
        )
        yield self._plan(
            "freed once",
            row.name,
            _FREED,
            partial(self._freed, row),
            capability=capability,
            why_not=partial(self._failed_alone, row),
        )

    def _bad_requests(self, row: Method[Any, Any], capability: str) -> Iterator[Planned]:
        good = requests.good_request(row, self._known())
        kinds: tuple[tuple[str, Callable[[], Iterable[tuple[str, bytes]]]], ...] = (
            ("empty request", lambda: [("{}", b"{}")]),
            ("broken request", partial(requests.broken_requests, good)),
            ("wrong types", partial(requests.mistyped_requests, good)),
        )
        for name, variants in kinds:
            yield self._plan(name, row.name, _ANY_ANSWER, partial(self._survives, row, variants), capability=capability)

    def _plan(
        self,
        name: str,
        method: str,
        expected: str,
        run: Callable[[Subject], Any],
        *,
        capability: str = LIFECYCLE,
        ends: bool = False,
        why_not: Callable[[], str] = lambda: "",
    ) -> Planned:
        return Planned(
            name=name,
            capability=capability,
            method=method,
            expected=expected,
            run=run,
            ends=ends,
            why_not=why_not,
        )

    # ---- what is known ----

    def _known(self) -> requests.About:
        assert self.about is not None, "only after registration"
        return self.about

    def _declared(self) -> tuple[Method[Any, Any], ...]:
        """Methods of the capabilities that the plugin declares, in the order of the contract."""
        assert self._reply is not None, "only after registration"
        declared = self._reply.capabilities.declared()
        return tuple(row for switch in wire.SWITCHES if switch in declared for row in methods_of(switch))

    def _inline(self) -> str:
        return "inline" if self.bench.isolation is Isolation.INLINE else ""

    def _failed_alone(self, row: Method[Any, Any]) -> str:
        return "the good request failed already" if row.name in self.bench.failed_methods() else ""

    # ---- lifecycle ----

    async def _loaded(self, subject: Subject) -> Finding:
        await trio.lowlevel.checkpoint()
        return passed("loaded")

    async def _register(self, subject: Subject) -> Finding:
        replies: list[PluginReply] = []

        async def call(method: Method[Any, Any], request: Any, /) -> Any:
            payload = requests.good_request(method, self.about) if self.about else b"{}"
            if isinstance(request, wire.RegisterRequest):
                payload = requests.register_request(request.config_yaml.data, request.schema_version)
            reply = await subject.call(method.name, payload)
            judged = judge(method, reply)
            if judged.kind is not Kind.RESULT:
                raise PluginCallError(method=method.name, message=judged.text.removeprefix("error: "))
            if method is PLUGIN_REGISTER:
                replies.append(reply)
                self._reply = judged.value
            return judged.value

        try:
            registration = await greet(call, PLUGIN_REGISTER, self.config_yaml, plugin_id=self.bench.plugin_id)
        except RegistrationRefused as exc:
            self._reply = None
            return failed(exc.message)
        self._offered = registration.offered
        capabilities = registration.capabilities
        keys = registration.identifiers
        self.about = requests.About(
            plugin_id=self.bench.plugin_id,
            metadata=registration.metadata,
            config_yaml=self.config_yaml,
            input_format=next(iter(capabilities.executor_input_formats), "openai"),
            output_format=next(iter(capabilities.executor_output_formats), "openai"),
            identifiers={
                "auth.identifier": keys.auth,
                "frontend_auth.identifier": keys.frontend_auth,
                "executor.identifier": keys.executor,
                "thinking.identifier": keys.thinking,
            },
        )
        declared = tuple(switch for switch in wire.SWITCHES if switch in capabilities.declared())
        self.summary = PluginSummary(
            id=self.bench.plugin_id,
            name=registration.metadata.name,
            version=registration.metadata.version,
            author=registration.metadata.author,
            schema_version=registration.schema_version,
            capabilities=declared,
        )
        self.bench.greet = self._greet
        if capabilities.executor and not (capabilities.executor_input_formats and capabilities.executor_output_formats):
            return unusual("an executor without executor_input_formats or executor_output_formats can never be used")
        return passed(f"schema {registration.schema_version}: {', '.join(declared)}")

    async def _greet(self, subject: Subject) -> None:
        """Register one more copy, as the first was. Raises: PluginError."""
        reply = await subject.call(PLUGIN_REGISTER.name, self._register_request())
        judged = judge(PLUGIN_REGISTER, reply)
        if judged.kind is not Kind.RESULT:
            raise PluginError(f"a fresh copy does not register: {judged.text}", plugin_id=self.bench.plugin_id)

    def _register_request(self) -> bytes:
        return requests.register_request(self.config_yaml, self._offered)

    async def _again(self, row: Method[Any, Any], subject: Subject) -> Finding:
        judged = judge(row, await subject.call(row.name, self._register_request()))
        if judged.kind is Kind.RESULT:
            return passed("the same") if judged.value == self._reply else failed(self._difference(judged.value))
        if row is PLUGIN_REGISTER and judged.kind is Kind.ERROR:
            return unusual(judged.text)  # the host itself registers a copy once
        return failed(judged.text)

    def _difference(self, reply: wire.RegisterReply) -> str:
        before = self._reply
        assert before is not None, "only after registration"
        if reply.schema_version != before.schema_version:
            return f"schema version {before.schema_version} became {reply.schema_version}"
        if reply.metadata != before.metadata:
            names = [
                name
                for name in wire.PluginMetadata.declared_members
                if getattr(reply.metadata, name) != getattr(before.metadata, name)
            ]
            return f"other metadata: {', '.join(names)}"
        changed = reply.capabilities.declared() ^ before.capabilities.declared()
        return f"other capabilities: {', '.join(sorted(changed)) or 'modifiers'}"

    async def _unknown(self, subject: Subject) -> Finding:
        judged = judge(UNKNOWN, await subject.call(UNKNOWN.name, b"{}"))
        match judged.kind:
            case Kind.ERROR:
                return passed(judged.text)
            case Kind.RESULT:
                return unusual("success: the host cannot tell what the plugin does not have")
            case Kind.RETURNED:
                return unusual(judged.text)
            case Kind.MALFORMED:
                return failed(judged.text)

    async def _identifier(self, row: Method[Any, Any], subject: Subject) -> Finding:
        found: list[str] = []
        for _ in range(IDENTIFIER_CALLS):
            judged = judge(row, await subject.call(row.name, b"{}"))
            if judged.kind is Kind.MALFORMED:
                return failed(judged.text)
            found.append(judged.value.identifier.strip() if judged.kind is Kind.RESULT else "")
        if len(set(found)) > 1:
            return failed(f"changes: {', '.join(map(repr, found))}")
        return passed(found[0]) if found[0] else unusual("none: the capability counts as absent")

    async def _shutdown(self, subject: Subject) -> Finding:
        await subject.call(UNKNOWN.name, b"{}")
        if self.bench.shutdown_death:
            # Something was wrong with the end before: if it is freeing the replies, then it comes now.
            with trio.move_on_after(SETTLE_S):
                await subject.transport.died.wait()
                return failed(f"{subject.transport.death} before shutdown(), after a reply{subject.last_words()}")
        death = await subject.end(self.bench.timeout_s)
        if death == ENDED:
            return passed("ended in order")
        self.bench.shutdown_death = death
        if death.startswith("did not end"):
            return failed(f"shutdown() did not return within {self.bench.timeout_s:g} s")
        return failed(f"{death} in shutdown(){subject.last_words()}")

    async def _leftovers(self, subject: Subject) -> Finding:
        skip = self.bench.failed_methods()
        for row in self._declared():
            if row.name not in skip:
                await self._ask(row, subject)
        pid = subject.transport.pid
        children = descendants(pid)
        await subject.end(self.bench.timeout_s)
        left = [child for child in (pid, *children) if not await gone(child)]
        if left:
            return failed(f"still running: {', '.join(f'process {child}' for child in left)}")
        return passed(f"gone, with {len(children)} processes that it started" if children else "gone")

    # ---- methods ----

    async def _ask(self, row: Method[Any, Any], subject: Subject, *, stream_id: str = requests.STREAM_ID) -> Judged:
        """One good request, with its stream if it has one."""
        if not row.streamed:
            return judge(row, await subject.call(row.name, requests.good_request(row, self._known())))
        closed = subject.host.streams[stream_id] = trio.Event()
        try:
            payload = requests.good_request(row, self._known(), stream_id=stream_id)
            judged = judge(row, await subject.call(row.name, payload))
            if judged.kind is not Kind.RESULT:
                return judged
            if judged.value.chunks:
                return attrs.evolve(judged, text=f"{len(judged.value.chunks)} chunks inline")
            with trio.move_on_after(subject.timeout_s):
                await closed.wait()
            chunks = subject.host.chunks.get(stream_id, 0)
            if closed.is_set():
                return attrs.evolve(judged, text=f"{chunks} chunks emitted, then closed")
            text = f"{chunks} chunks emitted, but the stream was not closed within {subject.timeout_s:g} s"
            return Judged(kind=Kind.MALFORMED, text=text)
        finally:
            subject.host.streams.pop(stream_id, None)

    async def _good(self, row: Method[Any, Any], subject: Subject) -> Finding:
        return _verdict(await self._ask(row, subject))

    async def _oversized(self, row: Method[Any, Any], subject: Subject) -> Finding:
        return _verdict(judge(row, await subject.call(row.name, requests.oversized_request(row, self._known()))))

    async def _survives(
        self, row: Method[Any, Any], variants: Callable[[], Iterable[tuple[str, bytes]]], subject: Subject
    ) -> Finding:
        errors = count = 0
        for name, payload in variants():
            try:
                reply = await subject.call(row.name, payload)
            except PluginCrashed as exc:
                raise PluginCrashed(
                    plugin_id=exc.plugin_id, reason=exc.reason, method=f"{exc.method} (request: {name})"
                ) from exc
            except PluginError as exc:
                raise PluginError(f"{exc.message} (request: {name})", plugin_id=exc.plugin_id) from exc
            judged = judge(row, reply)
            if judged.kind is Kind.MALFORMED:
                return failed(f"{judged.text} (request: {name})")
            errors += judged.kind is not Kind.RESULT
            count += 1
        return passed(f"{errors} of {count} refused" if count > 1 else "refused" if errors else "answered")

    async def _concurrent(self, row: Method[Any, Any], subject: Subject) -> Finding:
        jobs = [partial(self._ask, row, subject, stream_id=f"kit-stream-{number}") for number in range(AT_ONCE)]
        return await together(jobs)

    async def _mixed(self, subject: Subject) -> Finding:
        skip = self.bench.failed_methods()
        rows = [row for row in self._declared() if row.name not in skip]
        if not rows:
            return skipped("no method whose good request is answered")

        async def reconfigure() -> Judged:
            return judge(PLUGIN_RECONFIGURE, await subject.call(PLUGIN_RECONFIGURE.name, self._register_request()))

        for start in range(0, len(rows), AT_ONCE - 1):
            part = rows[start : start + AT_ONCE - 1]
            jobs = [
                partial(self._ask, part[number % len(part)], subject, stream_id=f"kit-stream-{number}")
                for number in range(AT_ONCE - 1)
            ]
            finding = await together([*jobs, reconfigure])
            if finding.verdict is Verdict.FAIL:
                return finding
        return finding

    async def _freed(self, row: Method[Any, Any], subject: Subject) -> Finding:
        """What matters comes at the orderly end, which waits for the last buffer: see `bench`."""
        payload = requests.good_request(row, self._known(), stream_id="kit-stream-of-nobody" if row.streamed else "")
        for _ in range(REPLIES_TO_FREE):
            await subject.call(row.name, payload)
        return passed(f"{REPLIES_TO_FREE} replies, and the plugin lives")

    # ---- host calls ----

    async def _reentrancy(self, subject: Subject) -> Finding:
        """Every host call of the plugin is answered only after a call into the plugin has come back."""
        made = 0
        trouble: list[PluginError] = []

        async def nested() -> None:
            nonlocal made
            if made >= NESTED_CALLS:
                return
            made += 1
            try:
                await subject.call(UNKNOWN.name, b"{}")
            except PluginError as exc:  # the host call is answered in any case
                trouble.append(exc)

        callers = {call.during for call in self.bench.host_calls} - self.bench.failed_methods()
        subject.host.nested = nested
        # The outer call waits for the inner one, so it gets its time on top.
        subject.timeout_s, inner = subject.timeout_s * 2, subject.timeout_s
        try:
            for row in self._declared():
                if row.name in callers:
                    subject.host.during = row.name
                    await self._ask(row, subject)
                    if trouble:
                        raise trouble[0]
        finally:
            subject.timeout_s = inner
            subject.host.nested = None
        return passed(f"{made} nested calls answered") if made else skipped("the plugin made no host calls this time")

    async def _host_calls(self, subject: Subject) -> Finding:
        await trio.lowlevel.checkpoint()
        calls = self.bench.host_calls
        complaints = [f"{call.method}: {call.complaint}" for call in calls if call.complaint]
        if complaints:
            return failed(f"{len(complaints)} of {len(calls)} refused: {'; '.join(dict.fromkeys(complaints))}")
        return passed(f"{len(calls)}: {', '.join(sorted({call.method for call in calls}))}")


_FREED: Final = f"{REPLIES_TO_FREE} replies go back through free_buffer, once each; the heap stays whole"


def _verdict(judged: Judged) -> Finding:
    match judged.kind:
        case Kind.RESULT:
            return passed(judged.text)
        case Kind.ERROR | Kind.RETURNED:
            return unusual(judged.text)
        case Kind.MALFORMED:
            return failed(judged.text)


async def together(jobs: Iterable[Callable[[], Any]]) -> Finding:
    """Run *jobs*, each giving a `Judged`, at once. Raises: the first PluginError of one, when all are done."""
    results: list[Judged] = []
    errors: list[PluginError] = []

    async def run(job: Callable[[], Any]) -> None:
        try:
            results.append(await job())
        except PluginError as exc:  # not to end the others: their fate is asked for as well
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(run, job)
    if errors:
        raise errors[0]
    for kind in (Kind.MALFORMED, Kind.RETURNED, Kind.ERROR):
        for judged in results:
            if judged.kind is kind:
                return _verdict(judged)
    return passed(f"{len(results)} answered")


def descendants(pid: int) -> tuple[int, ...]:
    """Processes that *pid* started, and theirs; empty where the kernel does not tell."""
    found: list[int] = []
    pending = [pid]
    while pending:
        parent = pending.pop()
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(word) for word in listing.read_text().split()]
            except OSError:  # the thread has ended
                continue
            found += children
            pending += children
    return tuple(found)


async def gone(pid: int) -> bool:
    """Wait a little for the end of process *pid*, which need not be a child of ours."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        await trio.lowlevel.checkpoint()
        return True
    try:
        with trio.move_on_after(GONE_S) as waiting:
            await trio.lowlevel.wait_readable(pidfd)
        return not waiting.cancelled_caught
    finally:
        os.close(pidfd)
