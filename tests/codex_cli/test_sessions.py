"""Which thread of the agent a request goes on with, and what may be taken out of a thread's record."""

import json
import os
import signal
from collections.abc import Mapping, Sequence

import pytest
import trio

from tests.codex_cli.hosting import TURN, Built, Codex, codex_proxy, said
from tests.proxy import CLIENT_KEY

THREAD = "0199aaaa-0000-7000-8000-00000000000"
MUTATE = "plugins/codex-cli/sessions/mutate"
SESSIONS = "plugins/codex-cli/sessions"


def resumed(codex: Codex) -> list[str]:
    """The last digit of the thread that each run resumed; empty where it began one."""
    return [run["argv"][-2][-1] if "resume" in run["argv"] else "" for run in codex.seen()]


async def test_a_history_that_matches_resumes(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only that: other words, or none that we know, begin a thread, which is told what was said before."""
    async with codex_proxy(built, monkeypatch) as codex:
        one = said(await codex.chat("one"))
        two = said(await codex.chat("one", one, "two"))
        three = said(await codex.chat("one", one, "two", two, "three", stream=False))
        assert (two, three) == ("you said: two", "you said: three")
        await codex.chat("one", one, "two", "you said: something else", "three")
        await codex.chat("one", one, "again")  # the thread is further than that
        await codex.chat("one", f"  {one}\n", "two", two, "three", three, "four")
        assert resumed(codex) == ["", "0", "0", "", "", "0"]
        prompts = [run["prompt"] for run in codex.seen()]
        assert prompts[:3] == ["one", "two", "three"]
        assert "<assistant>\nyou said: something else\n</assistant>" in prompts[3]
        assert prompts[3].endswith("</conversation>\n\nthree")
        assert prompts[5] == "four"


async def test_other_protocols_resume(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Translations change how a history is written, not what it says."""
    async with codex_proxy(built, monkeypatch) as codex:
        post = codex.client.post
        first: list[object] = [{"role": "user", "content": "one"}]
        answer = (await post("/v1/messages", json={"model": "codex", "max_tokens": 9, "messages": first})).json()
        more = [*first, {"role": "assistant", "content": answer["content"]}, {"role": "user", "content": "two"}]
        await post("/v1/messages", json={"model": "codex", "max_tokens": 9, "messages": more})
        begun: list[object] = [{"role": "user", "parts": [{"text": "uno"}]}]
        said_ = (await post("/v1beta/models/codex:generateContent", json={"contents": begun})).json()
        next_ = [*begun, said_["candidates"][0]["content"], {"role": "user", "parts": [{"text": "due"}]}]
        await post("/v1beta/models/codex:generateContent", json={"contents": next_})
        answered = (await post("/v1/responses", json={"model": "codex", "input": "eins"})).json()
        follow = {"model": "codex", "input": "zwei", "previous_response_id": answered["id"]}
        await post("/v1/responses", json=follow)
        assert resumed(codex) == ["", "0", "", "2", "", "4"]


async def test_a_session_header_resumes_without_history(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """For clients that leave the conversation to us; a history that does not match begins a thread all the same."""
    async with codex_proxy(built, monkeypatch) as codex:
        for session, words in (("a", ("x",)), ("b", ("x",)), ("a", ("x",)), ("a", ("x", "no such answer", "y"))):
            await codex.chat(*words, headers={"X-Session-ID": session})
        assert resumed(codex) == ["", "", "0", ""]
        await codex.chat("z", headers={"X-Session-ID": "a"})  # the latest of that name
        assert resumed(codex)[-1] == "3"


async def test_sessions_outlive_the_plugin_and_are_of_one_client(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    async with codex_proxy(built, monkeypatch) as codex:
        one = said(await codex.chat("one"))
        files = list((codex.home.parent / "state").rglob("sessions.json"))
        [stored] = json.loads(files[0].read_text())
        assert stored["thread_id"] == THREAD + "0"
        assert CLIENT_KEY not in files[0].read_text()
        assert files[0].stat().st_mode & 0o077 == 0
        pid = (await codex.entry())["pid"]
        os.kill(pid, signal.SIGKILL)
        while (entry := await codex.entry())["state"] != "registered" or entry["pid"] == pid:  # noqa: ASYNC110 - no event
            await trio.sleep(0.01)
        assert said(await codex.chat("one", one, "two")) == "you said: two"
        assert resumed(codex) == ["", "0"]


async def test_a_failed_turn_is_not_resumed(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread holds what the client never saw."""
    async with codex_proxy(built, monkeypatch) as codex:
        codex.script(TURN, ({"thread": None}, {"exit": 1}), TURN)
        one = said(await codex.chat("one"))
        assert (await codex.chat("one", one, "two")).status_code == 502
        assert said(await codex.chat("one", one, "two")).endswith("two")
        assert resumed(codex) == ["", "0", ""]


def call(call_id: str, arguments: str, output: object) -> Sequence[Mapping[str, object]]:
    """A call and its output as the agent records them."""
    payload = {"type": "function_call", "name": "shell", "arguments": arguments, "call_id": call_id}
    result = {"type": "function_call_output", "call_id": call_id, "output": output}
    return ({"type": "response_item", "payload": payload}, {"type": "response_item", "payload": result})


ODD = (
    '{ "type" : "response_item", "n": 12345678901234567890, "payload": '
    '{"call_id":"call_c","output" :"secret","type":"function_call_output"} }\n'
)
NOTE = '{"type":"event_msg","payload":{"type":"agent_message","message":"call_a said secret"}}\n'
CUT = '{"type":"response_item","payload":{"type":"function_call_output","call_id":"call_a"'


async def test_events_and_mutations_of_a_thread(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked entries change, all else stays byte for byte, and the thread goes on."""
    async with codex_proxy(built, monkeypatch) as codex:
        lines = [*call("call_a", '{"cmd":"cat"}', "secret"), NOTE, *call("call_b", '{"cmd":"ls"}', ["b"]), ODD, CUT]
        codex.script(({"thread": None}, {"rollout": lines}, {"say": "ok"}, {"done": {}}), TURN)
        await codex.chat("one")
        [session] = (await codex.manage("GET", SESSIONS)).json()["sessions"]
        events = [(event["type"], event["block_id"]) for event in session["events"]]
        assert events == [
            ("tool_call", "call_a"),
            ("tool_result", "call_a"),
            ("tool_call", "call_b"),
            ("tool_result", "call_b"),
            ("tool_result", "call_c"),
        ]
        [path] = codex.home.rglob("rollout-*.jsonl")
        path.chmod(0o640)
        before = path.read_text().splitlines(keepends=True)
        mutations = [
            {"block_id": "call_a", "op": "heavy"},
            {"block_id": "call_b", "op": "light"},
            {"block_id": "call_c", "op": "light"},
            {"block_id": "call_unknown", "op": "heavy"},
        ]
        done = await codex.manage("POST", MUTATE, {"workspace": str(codex.workspace), "mutations": mutations})
        assert done.status_code == 200, done.text
        assert (done.json()["asked"], done.json()["touched"]) == (4, 3)
        after = path.read_text().splitlines(keepends=True)
        assert len(after) == len(before)
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert [json.loads(new)["payload"] for _, new in changed] == [
            {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "call_a"},
            {"type": "function_call_output", "call_id": "call_a", "output": "...(tool called)"},
            {"type": "function_call_output", "call_id": "call_b", "output": "...(tool called)"},
            {"call_id": "call_c", "output": "...(tool called)", "type": "function_call_output"},
        ]
        assert changed[3] == (ODD, ODD.replace('"secret"', '"...(tool called)"'))
        assert path.stat().st_mode & 0o777 == 0o640
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        # Threads that only the agent knows, here and elsewhere.
        for place, call_id in ((codex.workspace, "call_d"), (codex.home, "call_e")):
            meta = {"type": "session_meta", "payload": {"cwd": str(place)}}
            content = [json.dumps(entry) for entry in (meta, *call(call_id, "{}", "secret"))]
            (path.parent / f"rollout-x-{call_id}.jsonl").write_text("\n".join(content))
        strangers = [{"block_id": "call_d", "op": ""}, {"block_id": "call_e", "op": ""}]
        found = await codex.manage("POST", MUTATE, {"workspace": f"{codex.workspace}/", "mutations": strangers})
        assert (found.json()["asked"], found.json()["touched"]) == (2, 1)
        assert "secret" not in (path.parent / "rollout-x-call_d.jsonl").read_text()
        again = await codex.manage("POST", MUTATE, {"workspace": str(codex.workspace), "mutations": mutations})
        assert again.json()["touched"] == 3
        assert path.read_text() == "".join(after)
        await codex.chat("one", "ok", "two")
        assert resumed(codex) == ["", "0"]


async def test_mutations_that_cannot_be_done(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say why, and change nothing."""
    async with codex_proxy(built, monkeypatch) as codex:
        running = ({"thread": None}, {"rollout": call("call_a", "{}", "x")}, {"hang": None})
        codex.script(running)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: codex.chat("one", stream=True))
            await codex.appears("hangs")
            asked = {"workspace": str(codex.workspace), "mutations": [{"block_id": "call_a", "op": "heavy"}]}
            busy = await codex.manage("POST", MUTATE, asked)
            assert (busy.status_code, busy.json()["error"]) == (409, "busy")
            nursery.cancel_scope.cancel()
        for body, status, word in (
            ({"workspace": "/no/such/place", "mutations": [{"block_id": "x"}]}, 404, "unknown_workspace"),
            ({"mutations": [{"op": "heavy"}]}, 400, "mutations[0].block_id"),
            ({"mutations": 7}, 400, "invalid_body"),
            ({"mutations": []}, 200, "touched"),
        ):
            answer = await codex.manage("POST", MUTATE, body)
            assert (answer.status_code, word in answer.text) == (status, True), answer.text
        async with codex.proxy.client(key=None) as anybody:
            assert (await anybody.post(f"/v0/management/{MUTATE}", json=asked)).status_code == 401
