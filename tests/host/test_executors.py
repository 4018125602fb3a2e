"""Plugin executors: formats, whole answers, inline and asynchronous streams, failures, cancellation."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from cpa.abi import wire
from cpa.abi.envelope import PluginCallError
from cpa.abi.errors import PluginCrashed
from cpa.abi.kinds import NO_BYTES
from cpa.abi.methods import Method
from cpa.abi.transport import Unwind
from cpa.abi.wire import Capabilities, ExecuteReply, ExecuteRequest, ExecuteStreamReply, StreamChunk
from cpa.credentials.model import Credential
from cpa.errors import CpaError, ExecutorError, RawHeaders, UnknownModel, UnsupportedFormat, UpstreamStatusError
from cpa.formats.names import Format
from cpa.host.executors import PluginExecutor, format_names
from cpa.host.plugin import PluginUnavailable
from cpa.host.scopes import Caller, ScopeRegistry
from cpa.host.streams import ExecutorStreamError, ExecutorStreams
from cpa.pipeline.completions import open_completions
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.runner import open_answer
from cpa.pipeline.stage import InterceptChunkCall, InterceptChunkResult, RouteCall, RouteResult, StageKind, TargetKind
from cpa.testing.fakes import candidate, execution, services
from cpa.types import Candidate, Executor, Operation, PluginId, UpstreamCall, Wire
from tests.pipeline.support import register, request

ACME = PluginId("acme")
CHAT_IO = {"executor_input_formats": ("chat-completions",), "executor_output_formats": ("chat-completions",)}
CHUNK = b'{"choices":[{"index":0,"delta":{"content":"hi"}}]}'


@attrs.define(eq=False)
class FakePlugin:
    """A live plugin whose executor methods are functions."""

    answers: Mapping[str, Callable[[ExecuteRequest, str], Any]]
    capabilities: Capabilities = attrs.field(factory=lambda: Capabilities(executor=True, **CHAT_IO))
    unavailable: bool = False
    id: PluginId = ACME
    generation: int = 7
    calls: list[tuple[str, Any, str, str]] = attrs.field(factory=list)
    holds: int = 0

    @contextmanager
    def hold(self) -> Iterator["FakePlugin"]:
        if self.unavailable:
            raise PluginUnavailable(plugin_id=self.id, state="fused", reason="crashed too often")
        self.holds += 1
        try:
            yield self
        finally:
            self.holds -= 1

    async def call(
        self,
        method: Method[Any, Any],
        request: Any,
        /,
        *,
        scope_id: str = "",
        stream_id: str = "",
        unwind: Unwind | None = None,
    ) -> Any:
        self.calls.append((method.name, request, scope_id, stream_id))
        await trio.lowlevel.checkpoint()
        try:
            answer = self.answers[method.name](request, stream_id)
            if hasattr(answer, "__await__"):
                answer = await answer
        except trio.Cancelled:
            if unwind is not None:
                unwind()
            raise
        return answer


@attrs.frozen
class Bench:
    """An executor over a fake plugin."""

    plugin: FakePlugin
    executor: PluginExecutor
    streams: ExecutorStreams
    scopes: ScopeRegistry

    async def emit(self, stream_id: str, *payloads: bytes, error: str = "", close: bool = True) -> None:
        """What a plugin's own thread does."""
        for payload in payloads:
            await self.streams.emit(stream_id, ACME, payload)
        if close:
            self.streams.close(stream_id, ACME, error)


def bench(scopes: ScopeRegistry, plugin: FakePlugin, *, translates: bool = False) -> Bench:
    """The executor of *plugin*."""
    streams = ExecutorStreams()
    executor = PluginExecutor(
        plugin,  # type: ignore[arg-type]  # a stand-in with the members that are used
        provider="acme",
        scopes=scopes,
        streams=streams,
        translates=lambda: translates,
    )
    return Bench(plugin, executor, streams, scopes)


def call(executor: Executor, *, stream: bool = False, operation: Operation = Operation.GENERATE) -> UpstreamCall:
    """One attempt with a file credential."""
    credential = Credential(
        id="acme-me.json",
        provider="acme",
        label="me",
        storage_json=b'{"type":"acme","token":"t"}',
        metadata={"type": "acme"},
        attributes={"path": "auths/acme-me.json"},
    )
    return UpstreamCall(
        credential=credential,
        execution=execution(),
        wire=executor.wire(Format.OPENAI),
        operation=operation,
        model="acme-1",
        stream=stream,
        body=(b'{"model":"m1",', b'"messages":[]}'),
        original=b'{"model":"m0","messages":[]}',
        client_headers=((b"user-agent", b"demo"),),
        query=b"a=1",
        alt="sse",
    )


# --- formats (4.7.2) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (("chat-completions", "CHAT_COMPLETIONS", " openai "), ("openai",)),
        (("responses", "openai_responses", "anthropic", "gemini"), ("openai-response", "claude", "gemini")),
        (("", " ", "none", "NONE", "Acme-Proto", "acme-proto"), ("Acme-Proto", "acme-proto")),
    ],
)
def test_declared_formats_are_read_by_their_aliases(declared: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Case does not matter for known names, and stays for others."""
    assert format_names(declared) == expected


@pytest.mark.parametrize(
    ("inputs", "outputs", "client", "translates", "expected"),
    [
        (("openai",), ("openai",), Format.OPENAI, False, ("openai", "openai")),
        (("claude", "openai"), ("claude", "openai"), Format.OPENAI, False, ("openai", "openai")),
        (("codex",), ("codex",), Format.OPENAI_RESPONSE, False, ("codex", "codex")),
        (("openai",), ("acme", "openai"), Format.OPENAI, False, ("openai", "openai")),
        (("openai",), ("acme",), Format.OPENAI, True, ("openai", "acme")),
        (("codex",), ("acme", "codex"), Format.OPENAI_RESPONSE, True, ("codex", "codex")),
    ],
)
async def test_formats_are_negotiated(
    scopes: ScopeRegistry,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    client: Format,
    translates: bool,
    expected: tuple[str, str],
) -> None:
    """The client's own first, then what can be translated natively, then what a plugin may translate."""
    can = Capabilities(executor=True, executor_input_formats=inputs, executor_output_formats=outputs)
    made = bench(scopes, FakePlugin({}, capabilities=can), translates=translates)
    assert made.executor.wire(client) == Wire(input=expected[0], output=expected[1], native=False)


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ((), ("openai",), "plugin executor acme declares no input formats"),
        (("acme",), ("openai",), 'plugin executor acme does not support input format "openai"'),
        (("openai",), (), "plugin executor acme declares no output formats"),
        (("openai",), ("acme",), 'plugin executor acme does not support output format "openai"'),
    ],
)
async def test_formats_that_do_not_fit_are_refused_by_name(
    scopes: ScopeRegistry, inputs: tuple[str, ...], outputs: tuple[str, ...], text: str
) -> None:
    """Texts of appendix B."""
    can = Capabilities(executor=True, executor_input_formats=inputs, executor_output_formats=outputs)
    with pytest.raises(UnsupportedFormat) as caught:
        bench(scopes, FakePlugin({}, capabilities=can)).executor.wire(Format.OPENAI)
    assert caught.value.message == text


# --- whole answers ---------------------------------------------------------------------------------------------------


async def test_a_whole_answer_carries_everything_the_contract_names(scopes: ScopeRegistry) -> None:
    """Body in the client's format, credential with its secrets, ids of the call."""
    reply = ExecuteReply(payload=b'{"id":"r1"}', headers={"Content-Type": ["application/json"], "X-A": ["1", "2"]})
    made = bench(scopes, FakePlugin({"executor.execute": lambda request, _: reply}))
    async with made.executor.open(call(made.executor)) as answer:
        assert await answer.read() == b'{"id":"r1"}'
        assert (b"x-a", b"2") in answer.headers
        assert made.plugin.holds == len(scopes) == 1
    assert made.plugin.holds == len(scopes) == len(made.streams) == 0
    [(name, asked, scope_id, stream_id)] = made.plugin.calls
    assert (name, stream_id) == ("executor.execute", "")
    assert len(scope_id) == 32
    assert asked == ExecuteRequest(
        auth_id="acme-me.json",
        auth_provider="acme",
        model="acme-1",
        format="openai",
        alt="sse",
        headers={"User-Agent": ["demo"]},
        query={"a": ["1"]},
        original_request=wire.B64(b'{"model":"m0","messages":[]}'),
        source_format="openai",
        payload=wire.B64(b'{"model":"m1","messages":[]}'),
        storage_json=wire.B64(b'{"type":"acme","token":"t"}'),
        auth_metadata={"type": "acme"},
        auth_attributes={"path": "auths/acme-me.json"},
    )


async def test_token_counts_have_a_method_of_their_own(scopes: ScopeRegistry) -> None:
    """Request and answer are those of an execution."""
    reply = ExecuteReply(payload=b'{"total_tokens":7}')
    made = bench(scopes, FakePlugin({"executor.count_tokens": lambda request, _: reply}))
    async with made.executor.open(call(made.executor, operation=Operation.COUNT_TOKENS)) as answer:
        assert await answer.read() == b'{"total_tokens":7}'


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (PluginCallError(method="m", message="quota used up", http_status=429), 429, "quota used up"),
        (PluginCallError(method="m", message="no"), 500, "no"),
        (PluginCallError(method="m", message="odd", http_status=204), 500, "odd"),
        (PluginCrashed(plugin_id="acme", reason="killed", method="m"), 502, "plugin acme crashed in m: killed"),
    ],
)
async def test_a_failure_has_the_plugins_words_and_status(
    scopes: ScopeRegistry, error: CpaError, status: int, text: str
) -> None:
    """The status decides whether another credential is tried."""

    def fail(request: ExecuteRequest, stream_id: str) -> None:
        raise error

    made = bench(scopes, FakePlugin({"executor.execute": fail, "executor.execute_stream": fail}))
    for stream in (False, True):
        with pytest.raises(ExecutorError) as caught:
            async with made.executor.open(call(made.executor, stream=stream)):
                pass
        assert (caught.value.http_status, caught.value.message) == (status, text)
    assert made.plugin.holds == len(scopes) == len(made.streams) == 0


async def test_an_error_that_is_json_is_a_providers_answer(scopes: ScopeRegistry) -> None:
    """It reaches the client as it is (plugin-abi 4.7.3)."""

    def fail(request: ExecuteRequest, stream_id: str) -> None:
        raise PluginCallError(method="m", message='{"error":{"message":"no"}}', http_status=402)

    made = bench(scopes, FakePlugin({"executor.execute": fail}))
    with pytest.raises(UpstreamStatusError) as caught:
        async with made.executor.open(call(made.executor)):
            pass
    assert (caught.value.status, caught.value.body) == (402, b'{"error":{"message":"no"}}')


async def test_a_plugin_that_is_down_says_so(scopes: ScopeRegistry) -> None:
    """With the contract's words first."""
    made = bench(scopes, FakePlugin({}, unavailable=True))
    with pytest.raises(ExecutorError, match=r"^plugin executor acme is unavailable: plugin acme is fused") as caught:
        async with made.executor.open(call(made.executor)):
            pass
    assert caught.value.http_status == 503


# --- streams (4.7.4) -------------------------------------------------------------------------------------------------


async def read(answer: Any) -> list[bytes]:
    """All chunks."""
    return [chunk async for chunk in answer.chunks()]


async def test_inline_chunks_end_stream_and_scope_at_once(scopes: ScopeRegistry) -> None:
    """Later emits fail; empty chunks are none."""
    reply = ExecuteStreamReply(
        headers={"X-A": ["1"]}, chunks=(StreamChunk(payload=b"one"), StreamChunk(), StreamChunk(payload=b"two"))
    )
    made = bench(scopes, FakePlugin({"executor.execute_stream": lambda request, _: reply}))
    async with made.executor.open(call(made.executor, stream=True)) as answer:
        [(_, asked, scope_id, stream_id)] = made.plugin.calls
        assert scopes.find(scope_id, ACME) is None
        with pytest.raises(CpaError, match=f"stream {stream_id} is not open"):
            await made.emit(stream_id, b"late")
        assert answer.headers == ((b"x-a", b"1"),)
        assert await read(answer) == [b"one", b"two"]
        assert asked.stream


@pytest.mark.parametrize("before", [(), (b"one", b"two")])
async def test_inline_chunks_may_end_with_an_error(scopes: ScopeRegistry, before: tuple[bytes, ...]) -> None:
    """After those before it; what it carries itself and what follows is nothing."""
    chunks = (
        *(StreamChunk(payload=payload) for payload in before),
        StreamChunk(payload=b"no", err="backend vanished"),
        StreamChunk(payload=b"nor this"),
        StreamChunk(err="later"),
    )
    made = bench(scopes, FakePlugin({"executor.execute_stream": lambda *_: ExecuteStreamReply(chunks=chunks)}))
    async with made.executor.open(call(made.executor, stream=True)) as answer:
        assert tuple([await anext(answer) for _ in before]) == before
        with pytest.raises(ExecutorStreamError, match=r"^backend vanished$"):
            await anext(answer)
        assert await read(answer) == []


async def test_an_asynchronous_stream_outlives_its_call(scopes: ScopeRegistry) -> None:
    """Emitted before and after the return; the scope stays open until the stream has ended."""
    made = bench(scopes, FakePlugin({}))

    async def start(asked: ExecuteRequest, stream_id: str) -> ExecuteStreamReply:
        await made.emit(stream_id, *(b"early %d" % number for number in range(20)), close=False)
        return ExecuteStreamReply()

    made.plugin.answers = {"executor.execute_stream": start}
    async with made.executor.open(call(made.executor, stream=True)) as answer, trio.open_nursery() as nursery:
        [(_, _, scope_id, stream_id)] = made.plugin.calls
        nursery.start_soon(made.emit, stream_id, b"late 1", b"late 2")
        assert scopes.find(scope_id, ACME) is not None
        chunks = await read(answer)
        assert chunks == [*(b"early %d" % number for number in range(20)), b"late 1", b"late 2"]
    assert made.plugin.holds == len(scopes) == len(made.streams) == 0


async def test_an_asynchronous_stream_may_end_with_an_error(scopes: ScopeRegistry) -> None:
    """After what was emitted."""
    made = bench(scopes, FakePlugin({"executor.execute_stream": lambda request, _: ExecuteStreamReply()}))
    async with made.executor.open(call(made.executor, stream=True)) as answer:
        await made.emit(made.plugin.calls[0][3], b"one", error="backend vanished")
        chunks = answer.chunks()
        assert await anext(chunks) == b"one"
        with pytest.raises(CpaError, match="backend vanished"):
            await anext(chunks)


async def test_a_dying_copy_ends_its_streams_only(scopes: ScopeRegistry) -> None:
    """The stream is opened for the copy that took the call."""
    made = bench(scopes, FakePlugin({"executor.execute_stream": lambda request, _: ExecuteStreamReply()}))
    async with made.executor.open(call(made.executor, stream=True)) as answer:
        made.streams.close_owner(Caller(plugin_id=ACME, generation=8), "another copy")
        made.streams.close_owner(Caller(plugin_id=ACME, generation=7), "plugin acme has ended: killed")
        with pytest.raises(CpaError, match="plugin acme has ended: killed"):
            await read(answer)


async def test_a_client_that_leaves_wakes_emitters_and_closes_the_scope(scopes: ScopeRegistry) -> None:
    """Nothing of a cancelled stream is left, whatever the plugin does."""
    made = bench(scopes, FakePlugin({"executor.execute_stream": lambda request, _: ExecuteStreamReply()}))
    failed: list[str] = []

    async def emit_for_ever() -> None:
        try:
            while True:
                await made.streams.emit(made.plugin.calls[0][3], ACME, b"x")
        except CpaError as exc:
            failed.append(exc.message)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as client:
            async with made.executor.open(call(made.executor, stream=True)) as answer:
                chunks = answer.chunks()
                nursery.start_soon(emit_for_ever)
                assert await anext(chunks) == b"x"
                await trio.testing.wait_all_tasks_blocked()
                client.cancel()
                await trio.sleep_forever()
    assert failed == [f"stream {made.plugin.calls[0][3]} is not open"]
    assert made.plugin.holds == len(scopes) == len(made.streams) == 0


async def test_a_call_that_is_cancelled_lets_the_plugin_unwind(scopes: ScopeRegistry) -> None:
    """Its scope closes while the plugin is inside the call."""
    asked = trio.Event()

    async def hang(request: ExecuteRequest, stream_id: str) -> None:
        asked.set()
        await trio.sleep_forever()

    made = bench(scopes, FakePlugin({"executor.execute": hang}))
    async with trio.open_nursery() as nursery:

        async def execute() -> None:
            async with made.executor.open(call(made.executor)):
                pass

        nursery.start_soon(execute)
        await asked.wait()
        assert len(scopes) == 1
        nursery.cancel_scope.cancel()
    assert made.plugin.holds == len(scopes) == 0


async def test_a_refused_credential_is_renewed_once(scopes: ScopeRegistry) -> None:
    """Then the attempt is made again with what came; a second refusal is the end (plugin-abi 4.3.4)."""
    used: list[str] = []

    def refuse(asked: ExecuteRequest, stream_id: str) -> ExecuteReply:
        used.append(asked.auth_metadata["token"])
        if asked.auth_metadata["token"] != "fresh":
            raise PluginCallError(method="executor.execute", message="expired", http_status=401)
        return ExecuteReply(payload=b"{}")

    made = bench(scopes, FakePlugin({"executor.execute": refuse}))
    tokens = iter(["fresh", "stale"])

    async def renew(credential: Credential) -> Credential | None:
        await trio.lowlevel.checkpoint()
        token = next(tokens, None)
        return None if token is None else attrs.evolve(credential, metadata={"token": token})

    asked = attrs.evolve(
        call(made.executor), credential=Credential(id="c", provider="acme", label="", metadata={"token": "old"})
    )
    made.executor._renew = renew
    async with made.executor.open(asked) as answer:
        assert await answer.read() == b"{}"
    for _ in range(2):
        with pytest.raises(ExecutorError, match="expired"):
            async with made.executor.open(asked):
                pass
    assert used == ["old", "fresh", "old", "stale", "old"]


# --- through the pipeline --------------------------------------------------------------------------------------------


@attrs.frozen
class Delivered:
    """What a client would have got."""

    body: bytes
    headers: RawHeaders


@asynccontextmanager
async def opened(bench: Bench, ask: ModelRequest, *stages: Any) -> AsyncIterator[Any]:
    """An execution that a router sends to the plugin's executor, without a credential."""
    direct = Candidate(credential=Credential(id="", provider="acme", label="acme"), model="", executor=bench.executor)
    router = register(StageKind.MODEL_ROUTE, "acme", lambda call: RouteResult(target_kind=TargetKind.SELF))
    async with open_completions() as completions:
        made = services([], completions, [router, *stages], direct={ACME: direct})
        async with open_answer(ask, made) as answer:
            yield answer


async def delivered(bench: Bench, ask: ModelRequest, *stages: Any) -> Delivered:
    """The whole of it."""
    async with opened(bench, ask, *stages) as answer:
        frames = b"" if answer.stream is None else b"".join([frame async for frame in answer.stream])
        return Delivered(answer.body + frames, answer.headers)


def inline(*payloads: bytes) -> FakePlugin:
    """A plugin that streams *payloads* at once."""
    reply = ExecuteStreamReply(chunks=tuple(StreamChunk(payload=payload) for payload in payloads))
    can = Capabilities(
        executor=True,
        executor_input_formats=("openai", "claude", "gemini", "responses"),
        executor_output_formats=("openai", "claude", "gemini", "responses"),
    )
    return FakePlugin({"executor.execute_stream": lambda request, _: reply}, capabilities=can)


EVENT = b'event: message_start\ndata: {"type":"message_start"}\n\n'
CREATED = b'data: {"type":"response.created","sequence_number":0}\n\n'


@pytest.mark.parametrize(
    ("fmt", "payloads", "expected"),
    [
        (Format.OPENAI, (CHUNK, CHUNK), b"data: " + CHUNK + b"\n\ndata: " + CHUNK + b"\n\ndata: [DONE]\n\n"),
        (Format.OPENAI, (b'"data: x\\n\\n"',), b'data: "data: x\\n\\n"\n\ndata: [DONE]\n\n'),
        (Format.OPENAI, (b"data: " + CHUNK + b"\n\n",), b"data: " + CHUNK + b"\n\ndata: [DONE]\n\n"),
        (Format.CLAUDE, (EVENT, b"data: one\n\n"), EVENT + b"data: one\n\n"),
        (Format.GEMINI, (b'{"candidates":[]}',), b'data: {"candidates":[]}\n\n'),
        (Format.OPENAI_RESPONSE, (CREATED[:20], CREATED[20:]), CREATED),
    ],
)
async def test_units_of_the_clients_format_are_framed_for_it(
    scopes: ScopeRegistry, fmt: Format, payloads: tuple[bytes, ...], expected: bytes
) -> None:
    """plugin-abi 6.16; a clean end needs no sign of the protocol's."""
    made = bench(scopes, inline(*payloads))
    with trio.fail_after(5):
        result = await delivered(made, request(format=fmt, stream=True))
    assert result.body.rstrip(b"\n") == expected.rstrip(b"\n")
    [(_, asked, _, _)] = made.plugin.calls
    assert (asked.auth_id, asked.auth_provider, asked.model) == ("", "", "m1")
    assert asked.storage_json == NO_BYTES


async def test_an_empty_stream_ends_cleanly(scopes: ScopeRegistry) -> None:
    """The plugin closed it without a word: no error of ours."""
    made = bench(scopes, FakePlugin({}))

    def start(asked: ExecuteRequest, stream_id: str) -> ExecuteStreamReply:
        made.streams.close(stream_id, ACME)
        return ExecuteStreamReply()

    made.plugin.answers = {"executor.execute_stream": start}
    with trio.fail_after(5):
        assert (await delivered(made, request(stream=True))).body == b"data: [DONE]\n\n"


async def test_interceptors_see_units_and_transforms_see_nothing(scopes: ScopeRegistry) -> None:
    """A plugin that answers in the client's format bypasses translators and normalizers, not interceptors."""
    seen: list[Any] = []

    def change(call: InterceptChunkCall) -> InterceptChunkResult:
        if call.chunk_index == -1:
            return InterceptChunkResult(headers={"X-Seen": ["1"]})
        return InterceptChunkResult(body=call.body.replace(b"hi", b"HI"))

    stages = [
        register(StageKind.INTERCEPT_CHUNK, "beta", change),
        register(StageKind.RESPONSE_NORMALIZE_AFTER, "beta", seen=seen),
        register(StageKind.RESPONSE_NORMALIZE_BEFORE, "beta", seen=seen),
        register(StageKind.REQUEST_NORMALIZE, "beta", seen=seen),
    ]
    result = await delivered(bench(scopes, inline(CHUNK)), request(stream=True), *stages)
    assert result.body == b"data: " + CHUNK.replace(b"hi", b"HI") + b"\n\ndata: [DONE]\n\n"
    assert result.headers == ((b"x-seen", b"1"),)
    assert not seen


async def test_another_plugin_translates_each_unit_and_the_end(scopes: ScopeRegistry) -> None:
    """As the plugin emitted them."""
    seen: list[Any] = []
    can = Capabilities(executor=True, executor_input_formats=("openai",), executor_output_formats=("acme-proto",))
    plugin = inline(b"one", b"two")
    plugin.capabilities = can
    translator = register(StageKind.RESPONSE_TRANSLATE, "beta", lambda call: b'{"t":"%s"}' % call.body, seen=seen)
    result = await delivered(bench(scopes, plugin, translates=True), request(stream=True), translator)
    assert result.body == b'data: {"t":"one"}\n\ndata: {"t":"two"}\n\ndata: [DONE]\n\n'
    assert [(call.from_format, call.to_format) for _, call in seen] == [("acme-proto", "openai")] * 2


async def test_a_router_that_chooses_what_does_not_fit_is_passed_over(scopes: ScopeRegistry) -> None:
    """Formats are checked before the choice counts."""
    can = Capabilities(executor=True, executor_input_formats=("acme",), executor_output_formats=("acme",))
    plugin = inline(CHUNK)
    plugin.capabilities = can
    with pytest.RaisesGroup(UnknownModel):
        await delivered(bench(scopes, plugin), request(stream=True))
    assert not plugin.calls


async def test_routers_are_told_of_other_executors_by_id(scopes: ScopeRegistry) -> None:
    """``executor`` names a plugin; an unknown one is passed over."""
    asked: list[RouteCall] = []

    def elsewhere(call: RouteCall) -> RouteResult:
        asked.append(call)
        return RouteResult(target_kind=TargetKind.EXECUTOR, target="nobody")

    other = register(StageKind.MODEL_ROUTE, "beta", elsewhere, priority=9)
    result = await delivered(bench(scopes, inline(CHUNK)), request(stream=True), other)
    assert CHUNK in result.body
    assert len(asked) == 1


async def test_a_credential_of_the_plugins_provider_fails_over(scopes: ScopeRegistry) -> None:
    """The status that the plugin gave decides; the other credential is told to the plugin."""
    tried: list[str] = []

    def execute(asked: ExecuteRequest, stream_id: str) -> ExecuteReply:
        tried.append(asked.auth_id)
        if len(tried) == 1:
            raise PluginCallError(method="executor.execute", message="used up", http_status=429)
        return ExecuteReply(payload=b'{"id":"r"}')

    made = bench(scopes, FakePlugin({"executor.execute": execute}))
    candidates = [
        attrs.evolve(candidate(made.executor, name=name, provider="acme"), executor=made.executor)  # type: ignore[arg-type]
        for name in ("a.json", "b.json")
    ]
    async with (
        open_completions() as completions,
        open_answer(request(), services(candidates, completions)) as answer,
    ):
        assert answer.body == b'{"id":"r"}'
    assert sorted(tried) == ["a.json", "b.json"]
    assert made.plugin.calls[1][1].metadata["selected_auth_id"] == tried[1]
