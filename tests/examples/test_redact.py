"""The example that a user would want: secrets stay out of what providers get, and come back in answers."""

import hmac
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import structlog
import trio

from cpa.abi import methods
from cpa.abi.kinds import B64
from cpa.abi.wire import InterceptRequest
from cpa.config.schema import Isolation
from cpa.formats.names import Format
from tests.e2e.scripted import ScriptedProvider, scripted_provider
from tests.e2e.wire import WIRES, Wire
from tests.examples.building import Example, Library
from tests.examples.hosting import Run, example, running
from tests.examples.redact_answers import events_of, read_stream, read_whole, streamed, whole
from tests.proxy import CONFIG

KEY = "key of the tests' placeholders"
SECRET = "sk-proj-0kanarie1kanarie2kanarie3"
PASSWORD = 'kanarie "quoted\\and\nbroken"'
"""Looks different in each of the places that it gets to."""
PEM = "-----BEGIN PRIVATE KEY-----\nMIIkanarieKANARIE0123456789+/=\nAAAA\n-----END PRIVATE KEY-----"
SECRETS = {
    "api_key": SECRET,
    "aws_key": "AKIAKANARIEKANARIE00",
    "card": "4111 1111 1111 1111",
    "custom": "EMP-424242",
    "email": "kanarie@mail.example.org",
    "jwt": "eyJrYW5hcmllIjoxfQ.eyJrYW5hcmllIjoyfQ.a2FuYXJpZQ",
    "private_key": PEM,
}
SETTINGS = f"""\
detectors: [api_key, aws_key, card, email, jwt, private_key]
literals:
    - "kanarie \\"quoted\\\\and\\nbroken\\""
patterns: ['EMP-[0-9]{{6}}']
key: "{KEY}"
"""


def placeholder(secret: str, kind: str = "api_key") -> str:
    """What stands for a secret, as the plugin's README describes it."""
    label = kind.upper()
    digest = hmac.new(KEY.encode(), label.encode() + b"\0" + secret.encode(), sha256)
    return f"REDACTED_{label}_{digest.hexdigest()[:16]}"


@asynccontextmanager
async def scripted(
    library: Library, plugin: Example, isolation: Isolation, *, extra: str = ""
) -> AsyncIterator[tuple[Run, ScriptedProvider]]:
    """A proxy with the plugin in front of a provider that says what it is told to."""
    async with scripted_provider() as provider:
        config = CONFIG.replace("{provider}", provider.url)
        async with running(library, plugin, isolation, settings=SETTINGS, config=config, extra=extra) as running_:
            yield running_, provider


async def ask(run: Run, wire: Wire, text: str, *, to: Wire | None = None, stream: bool = False) -> httpx.Response:
    """One question of a client, to the model of another protocol if wanted."""
    model = (to or wire).name
    url = wire.url(stream=stream, model=model)
    answer = await run.client.post(url, content=wire.body(stream=stream, model=model, text=text))
    assert answer.status_code == 200, answer.text
    return answer


def consistent(fmt: Format, stream: str) -> None:
    """What holds for streams whatever is done to them."""
    events = events_of(stream)
    assert events
    if fmt is Format.OPENAI_RESPONSE:
        numbers = [event["sequence_number"] for event in events]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# --- answers ---------------------------------------------------------------------------------------------------------


@example("redact")
async def test_a_secret_that_is_cut_anywhere_comes_back(
    library: Library, plugin: Example, isolation: Isolation
) -> None:
    """At every position, in each protocol; what only begins like a placeholder comes back at the end."""
    stand_in = placeholder(SECRET)
    text = f"Ü {stand_in}! {stand_in} REDACTED_AP"
    step = 1 if isolation is Isolation.PROCESS else 7
    async with scripted(library, plugin, isolation) as (run, provider):
        for wire in WIRES:
            for at in range(2, 2 + len(stand_in) + 1, step):
                provider.says(streamed(wire.format, [text[:at], text[at:]]))
                answer = await ask(run, wire, f"My key is {SECRET}.", stream=True)
                consistent(wire.format, answer.text)
                assert read_stream(wire.format, answer.text) == text.replace(stand_in, SECRET), (wire.name, at)
                assert stand_in not in answer.text
        assert provider.requests
        assert all(SECRET not in asked.body.decode() and stand_in in asked.body.decode() for asked in provider.requests)


@example("redact")
async def test_whole_answers_and_single_characters(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Also with everything in one chunk, and in whole answers."""
    stand_in = placeholder(SECRET)
    text = f"It is {stand_in}, and not REDACTED_API_KEY_0123456789abcdef."
    expected = text.replace(stand_in, SECRET)
    async with scripted(library, plugin, isolation) as (run, provider):
        for wire in WIRES:
            provider.says(whole(wire.format, text), content_type="application/json")
            assert read_whole(wire.format, (await ask(run, wire, SECRET)).json()) == expected
            for pieces in ([text], list(text)):
                provider.says(streamed(wire.format, pieces))
                answer = (await ask(run, wire, SECRET, stream=True)).text
                consistent(wire.format, answer)
                assert read_stream(wire.format, answer) == expected, wire.name


@example("redact")
async def test_arguments_of_tools_stay_json(library: Library, plugin: Example, isolation: Isolation) -> None:
    """They are JSON within JSON; a secret with quotes and line breaks in it has to be escaped twice."""
    stand_in = placeholder(PASSWORD, "custom")
    arguments = json.dumps({"path": "/tmp/ü", "password": f"<{stand_in}>"}, ensure_ascii=False)
    expected = {"path": "/tmp/ü", "password": f"<{PASSWORD}>"}
    async with scripted(library, plugin, isolation) as (run, provider):
        for wire in WIRES:
            provider.says(whole(wire.format, arguments, tool=True), content_type="application/json")
            answer = (await ask(run, wire, f"It is {PASSWORD}")).json()
            assert json.loads(read_whole(wire.format, answer, tool=True)) == expected
            provider.says(streamed(wire.format, list(arguments), tool=True))
            stream = (await ask(run, wire, f"It is {PASSWORD}", stream=True)).text
            consistent(wire.format, stream)
            assert json.loads(read_stream(wire.format, stream, tool=True)) == expected, wire.name


@example("redact")
async def test_translated_answers(library: Library, plugin: Example, isolation: Isolation) -> None:
    """In the twelve directions between different protocols: the plugin sees the client's side of the translation."""
    stand_in = placeholder(SECRET)
    text = f"It is {stand_in}!"
    size = 1 if isolation is Isolation.PROCESS else 9
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    async with scripted(library, plugin, isolation) as (run, provider):
        for client in WIRES:
            for other in WIRES:
                if client is other:
                    continue
                provider.says(streamed(other.format, pieces))
                stream = (await ask(run, client, SECRET, to=other, stream=True)).text
                consistent(client.format, stream)
                assert read_stream(client.format, stream) == f"It is {SECRET}!", (client.name, other.name)
                if other.format is not Format.OPENAI_RESPONSE:  # is always asked for a stream then
                    provider.says(whole(other.format, text), content_type="application/json")
                answer = (await ask(run, client, SECRET, to=other)).json()
                assert read_whole(client.format, answer) == f"It is {SECRET}!", (client.name, other.name)
        assert all(SECRET not in asked.body.decode() for asked in provider.requests)


# --- requests --------------------------------------------------------------------------------------------------------


def spellings(secrets: Iterable[str]) -> Iterable[bytes]:
    """How secrets may stand in files and bodies."""
    for secret in secrets:
        once = json.dumps(secret)[1:-1]
        yield from {text.encode() for text in (secret, once, json.dumps(once)[1:-1])}


@example("redact")
async def test_nothing_of_a_secret_gets_anywhere(
    library: Library, plugin: Example, isolation: Isolation, tmp_path: Path
) -> None:
    """Not to the provider, not into logs, not into the ledger: of every kind, in every protocol, wherever it stands."""
    everything = "\n".join([*SECRETS.values(), PASSWORD])
    arguments = json.dumps({"nested": everything})
    told: Mapping[str, Mapping[str, Any]] = {
        "gpt": {
            "tools": [{"type": "function", "function": {"name": "f", "description": everything}}],
            "messages": [
                {"role": "system", "content": everything},
                {"role": "user", "content": [{"type": "text", "text": everything}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": everything},
            ],
        },
        "claude": {"system": everything},
        "responses": {"instructions": everything},
        "gemini": {"systemInstruction": {"parts": [{"text": everything}]}},
    }
    extra = f"debug: true\nusage: {{ledger: {{path: {tmp_path / 'ledger.sqlite3'}}}}}"
    async with running(library, plugin, isolation, settings=SETTINGS, extra=extra) as run:
        with structlog.testing.capture_logs() as lines:
            for wire in WIRES:
                body = {**json.loads(wire.body(text=everything)), **told[wire.name]}
                answer = await run.client.post(wire.url(stream=False), json=body)
                assert answer.status_code == 200, answer.text
                await ask(run, wire, everything, stream=True)
            await forgotten(lines, 2 * len(WIRES))
        bodies = run.sent()
        while len((await run.manage("GET", "usage/attempts")).json()["attempts"]) < len(bodies):  # noqa: ASYNC110
            await trio.sleep(0.02)
        folders = (tmp_path, run.proxy.directory)
        files = [path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()]
        entry = json.dumps(await run.entry()).encode()
    assert len(bodies) == 2 * len(WIRES)
    assert any(b"mock-gpt" in text for text in files)  # the ledger is among them
    for kind, secret in SECRETS.items():
        assert all(placeholder(secret, kind).encode() in body for body in bodies), kind
    written = [*bodies, *files, repr(lines).encode(), entry]
    for spelling in spellings([*SECRETS.values(), PASSWORD]):
        assert all(spelling not in text for text in written), spelling
    masked = [line for line in lines if line.get("message") == "redact: masked"]
    assert {line["fields"]["secrets"] for line in masked} == {len(SECRETS) + 1}


async def forgotten(lines: list[Any], number: int) -> None:
    """Wait until the plugin has said of so many requests that it forgot them, and that none is left."""
    while True:
        said = [line["fields"]["open"] for line in lines if line.get("message") == "redact: forgotten"]
        if len(said) == number:
            assert min(said) == 0
            return
        await trio.sleep(0.02)


@example("redact")
async def test_exchanges_do_not_meet(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Each client gets its own secret back, in the arguments that its text orders of the mock, and is forgotten."""
    secrets = [f"sk-proj-kanarie{number:020d}" for number in range(20)]
    tool = {"type": "function", "function": {"name": "save", "parameters": {"type": "object"}}}

    async def one(run: Run, secret: str) -> None:
        text = f'[mock:call save {{"key": "{secret}"}}]'
        body = {"model": "gpt", "stream": True, "tools": [tool], "messages": [{"role": "user", "content": text}]}
        answer = await run.client.post("/v1/chat/completions", json=body)
        assert json.loads(read_stream(Format.OPENAI, answer.text, tool=True)) == {"key": secret}

    async with running(library, plugin, isolation, settings=SETTINGS, extra="debug: true") as run:
        with structlog.testing.capture_logs() as lines:
            async with trio.open_nursery() as nursery:
                for secret in secrets:
                    nursery.start_soon(one, run, secret)
            await forgotten(lines, len(secrets))
        sent = b"".join(run.sent())
        assert all(placeholder(secret).encode() in sent and secret.encode() not in sent for secret in secrets)


@example("redact")
async def test_clients_that_leave_are_forgotten(library: Library, plugin: Example, isolation: Isolation) -> None:
    """In the middle of a stream, while something is held back."""
    async with scripted(library, plugin, isolation, extra="debug: true") as (run, provider):
        [chat] = [wire for wire in WIRES if wire.format is Format.OPENAI]
        begun, _, _ = streamed(chat.format, ["It is ", placeholder(SECRET)[:20]]).rpartition(b"data: {")
        provider.says(begun, held=True)
        with structlog.testing.capture_logs() as lines:
            async with trio.open_nursery() as nursery:
                await nursery.start(read_on, run.client, chat)
                nursery.cancel_scope.cancel()
            await provider.left.wait()
            await forgotten(lines, 1)


async def read_on(client: httpx.AsyncClient, wire: Wire, task_status: trio.TaskStatus[None]) -> None:
    """Read a stream that does not end; begins with its first word."""
    body = wire.body(stream=True, text=SECRET)
    async with client.stream("POST", wire.url(stream=True), content=body) as answer:
        async for line in answer.aiter_lines():
            if "It is " in line:
                task_status.started()


@example("redact", isolations=[Isolation.PROCESS])
async def test_requests_are_looked_at_again_or_refused(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Before each attempt, whatever happened until then; one that cannot be told from others goes nowhere."""
    async with running(library, plugin, isolation, settings=SETTINGS) as run:
        [found] = [item for item in run.proxy.app.plugins.manager.snapshot() if item.id == plugin.id]
        body = B64(json.dumps({"prompt": SECRET}).encode())
        reply = await found.call(methods.REQUEST_INTERCEPT_AFTER, InterceptRequest(request_id="r1", body=body))
        assert json.loads(reply.body) == {"prompt": placeholder(SECRET)}
        for method in (methods.REQUEST_INTERCEPT_BEFORE, methods.REQUEST_INTERCEPT_AFTER):
            refusal = await found.call(method, InterceptRequest(body=body))
            assert (refusal.terminate, refusal.status_code) == (True, 500)
            assert b"could not be checked for secrets" in refusal.response_body


@example("redact")
async def test_conversations_keep_their_placeholders(library: Library, plugin: Example, isolation: Isolation) -> None:
    """So that a longer history begins with the bytes of the shorter one, which providers' caches want."""
    async with running(library, plugin, isolation, settings="") as run:
        history = [{"role": "user", "content": f"key {SECRET}"}]
        await run.client.post("/v1/chat/completions", json={"model": "gpt", "messages": history})
        history += [{"role": "assistant", "content": f"Your {SECRET}."}, {"role": "user", "content": "Again!"}]
        await run.client.post("/v1/chat/completions", json={"model": "gpt", "messages": history})
        first, second = (json.loads(body)["messages"] for body in run.sent())
        assert second[0] == first[0]
        [word] = [word for word in first[0]["content"].split() if word.startswith("REDACTED_API_KEY_")]
        assert second[1]["content"] == f"Your {word}."
        assert word != placeholder(SECRET)  # a key of its own


@example("redact")
async def test_everything_else_stays_as_it_is(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Byte for byte: other parts of a request with a secret, and requests without one."""
    async with running(library, plugin, isolation, settings=SETTINGS) as run:
        text = '{"model":"mock-gpt-unrenamed",  "n":1.0,"messages":[{"role":"user","content":"gr\\u00fc\\/ %s"}] }'
        for said in ("nothing", SECRET):
            body = (text % said).encode()
            assert (await run.client.post("/v1/chat/completions", content=body)).status_code == 200
        plain, masked = run.sent()
        assert plain == (text % "nothing").encode()
        prefix = text.partition('"gr')[0].encode()
        assert masked.startswith(prefix)
        assert json.loads(masked) == json.loads(text % placeholder(SECRET))


@example("redact", isolations=[Isolation.PROCESS])
async def test_wrong_settings_are_refused(library: Library, plugin: Example, isolation: Isolation) -> None:
    """With a line number, and without what stands there."""
    with structlog.testing.capture_logs() as lines:
        async with running(library, plugin, isolation, settings="literals: [kanarie1, abc]") as run:
            entry = json.dumps(await run.entry())
            assert (await run.entry())["registered"] is False
    assert "literals: expected strings of at least 4 characters" in entry + repr(lines)
    assert "kanarie1" not in entry + repr(lines)
