"""Every example client runs as it stands against the demo."""

import sys

import pytest

from tests.e2e.program import ROOT, run, serving

CLIENTS = ROOT / "examples" / "clients"
EXAMPLES = sorted(path.name for path in CLIENTS.iterdir() if path.suffix in (".py", ".sh"))


def test_there_is_an_example_for_every_sdk() -> None:
    """And one without any."""
    assert {"anthropic_messages.py", "curl.sh", "google_genai.py", "openai_chat.py", "openai_responses.py"} <= set(
        EXAMPLES
    )


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_runs(name: str) -> None:
    """It prints the mock's answers, the streamed one the same as the whole one, and goes through its tool round."""
    interpreter = "sh" if name.endswith(".sh") else sys.executable
    async with serving("serve", "--demo", "--port", "0") as demo:
        done = await run(str(CLIENTS / name), command=(interpreter,), env={"CPA_URL": demo.url})
    assert (done.code, done.err) == (0, "")
    if name.endswith(".sh"):
        headings = [line for line in done.out.splitlines() if line.startswith("# ")]
        assert headings == ["# Chat Completions", "# Responses", "# Messages", "# Gemini", "# Models"]
        assert done.out.count("[DONE]") == 1
        return
    said = dict(line.split(": ", 1) for line in done.out.splitlines())
    assert said["whole"] == said["streamed"]
    assert said["whole"].startswith("Mock answer to 29 characters")
    assert said["calls"].startswith("weather ")
    assert "sunny, 24 degrees" in said["with the tool's result"]
