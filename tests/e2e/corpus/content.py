"""7.2: images, files, audio, thoughts and code, rows 23 to 35."""

import json
from typing import Any

from tests.e2e.corpus.rig import Rig
from tests.e2e.corpus.table import contents, g, items, row, said, text, tool_result, tool_use, u

PNG = "iVBORw0KGgo="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
INLINE = {"inlineData": {"mimeType": "image/png", "data": PNG}}


def chat_image(url: str, **more: Any) -> dict[str, Any]:
    """An image of Chat."""
    return {"type": "image_url", "image_url": {"url": url, **more}}


def chat_file(**file: str) -> dict[str, Any]:
    """A file of Chat."""
    return {"type": "file", "file": file}


IMAGE_RESULT = said(
    u(),
    {"role": "assistant", "content": [tool_use("t1", "shot"), tool_use("t2", "other")]},
    u([tool_result("t1", [text("see"), IMAGE]), tool_result("t2"), text("and?")]),
)


@row(23)
def jpg(rig: Rig) -> None:
    """An alias of image/jpeg."""
    [turn] = rig.sent("chat", "claude", said(u([chat_image("data:image/jpg;base64,/9j/")])))["messages"]
    assert turn["content"][0]["source"] == {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}


@row(24)
def an_address_to_gemini(rig: Rig) -> None:
    """With the type that its ending names."""
    [turn] = rig.sent("chat", "gemini", said(u([chat_image("https://x.test/a.png")])))["contents"]
    assert turn["parts"] == [{"fileData": {"fileUri": "https://x.test/a.png", "mimeType": "image/png"}}]


@row(25)
def bare_base64(rig: Rig) -> None:
    """Both spellings occur."""
    for data in ("JVBERi0=", "data:application/pdf;base64,JVBERi0="):
        body = said(u([chat_file(filename="a.pdf", file_data=data)]))
        [turn] = rig.sent("chat", "claude", body)["messages"]
        [block] = turn["content"]
        assert block["source"] == {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
        assert (block["type"], block["title"]) == ("document", "a.pdf")
        [message] = rig.sent("chat", "responses", body)["input"]
        [part] = message["content"]
        assert part["file_data"] == "data:application/pdf;base64,JVBERi0="
        [turn] = rig.sent("chat", "gemini", body)["contents"]
        assert turn["parts"] == [{"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}}]


@row(26)
def docx_to_claude(rig: Rig) -> None:
    """Documents are PDF or text."""
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    body = said(u([chat_file(filename="a.docx", file_data=f"data:{kind};base64,UEsDBA==")]))
    [turn] = rig.sent("chat", "claude", body)["messages"]
    assert turn["content"] == [text(f"[attachment not available to this model: {kind}]")]
    assert rig.losses


@row(27)
def audio_to_claude(rig: Rig) -> None:
    """Never dropped in silence."""
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    [turn] = rig.sent("chat", "claude", said(u([part])))["messages"]
    assert turn["content"] == [text("[attachment not available to this model: audio/wav]")]
    assert rig.losses
    [turn] = rig.sent("chat", "gemini", said(u([part])))["contents"]
    assert turn["parts"] == [{"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}]


@row(28)
def image_in_a_result_to_chat(rig: Rig) -> None:
    """Behind all results of the group, in the user's name."""
    sent = rig.sent("claude", "gpt", IMAGE_RESULT)["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user", "user"]
    assert (sent[2]["content"], sent[3]["content"]) == ("see", "done")
    introduction, image = sent[4]["content"]
    assert introduction == text("[media returned by tool call t1]")
    assert image["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    assert sent[5] == u("and?")


@row(29)
def image_in_a_result_to_responses(rig: Rig) -> None:
    """At home there."""
    sent = rig.sent("claude", "responses", IMAGE_RESULT)["input"]
    [output] = [item for item in sent if item.get("call_id") == "t1" and item["type"] == "function_call_output"]
    image = {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PNG}"}
    assert output["output"] == [{"type": "input_text", "text": "see"}, image]


@row(30)
def image_in_a_result_to_gemini(rig: Rig) -> None:
    """Within the response, since the counts must be equal."""
    [_, model, user] = rig.sent("claude", "gemini", IMAGE_RESULT)["contents"]
    assert len(model["parts"]) == 2
    first, second, follows = user["parts"]
    assert first["functionResponse"]["response"] == {"output": "see"}
    assert first["functionResponse"]["parts"] == [INLINE]
    assert second["functionResponse"]["response"] == {"output": "done"}
    assert follows == {"text": "and?"}


@row(31)
def images_as_text(rig: Rig) -> None:
    """Megabytes of base64 are no text."""
    listed = json.dumps([{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}])
    body = items(
        u(),
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": listed},
    )
    sent = rig.sent("responses", "claude", body)["messages"]
    assert sent[2]["content"] == [{"type": "tool_result", "tool_use_id": "c1", "content": [IMAGE]}]
    body["input"][2]["output"] = '[{"type":"input_image","image_url":"data:x"},{"type":"thing"}]'
    sent = rig.sent("responses", "claude", body)["messages"]
    assert sent[2]["content"][0]["content"] in (body["input"][2]["output"], [text(body["input"][2]["output"])])


@row(32)
def detail_original(rig: Rig) -> None:
    """Older hosts know three."""
    part = {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "original"}
    [message] = rig.sent("responses", "gpt", items(u([part])))["messages"]
    assert message["content"][0]["image_url"]["detail"] == "high"


@row(33)
def foreign_files(rig: Rig) -> None:
    """Ids mean something to their issuer only."""
    [turn] = rig.sent("chat", "claude", said(u([chat_file(file_id="file-1"), text("hi")])))["messages"]
    assert turn["content"][0]["text"].startswith("[attachment not available to this model")
    assert "file-1" not in turn["content"][0]["text"]
    assert rig.losses


@row(34)
def thoughts_stay_hidden(rig: Rig) -> None:
    """In a history, without a signature."""
    body = contents(
        g("user", {"text": "hi"}), g("model", {"text": "hm", "thought": True}, {"text": "yo"}), g("user", {"text": "?"})
    )
    for model in ("gpt", "claude", "responses"):
        assert '"hm"' not in json.dumps(rig.sent("gemini", model, body))
    assert rig.sent("gemini", "gpt", body)["messages"][1] == {"role": "assistant", "content": "yo"}


@row(35)
def code(rig: Rig) -> None:
    """Fenced text."""
    ran = g(
        "model",
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
    )
    sent = rig.sent("gemini", "claude", contents(g("user", {"text": "hi"}), ran, g("user", {"text": "?"})))
    told_so = "\n".join(part["text"] for part in sent["messages"][1]["content"])
    assert "```python\nprint(1)\n```" in told_so
    assert "```\n1\n```" in told_so
