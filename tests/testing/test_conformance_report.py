"""Reports of the conformance kit: what scripts and people read."""

import json

import pytest

from cpa.config.schema import Isolation
from cpa.testing.conformance import Check, PluginSummary, Report, Verdict
from cpa.testing.conformance.report import MAX_GOT_CHARS, clean

PLUGIN = PluginSummary(
    id="acme", name="Acme", version="1", author="A", schema_version=3, capabilities=("executor", "usage_plugin")
)


def check(verdict: Verdict, got: str = "an answer", isolation: Isolation = Isolation.PROCESS) -> Check:
    return Check(
        isolation=isolation,
        name="good request",
        capability="executor",
        method="executor.execute",
        verdict=verdict,
        expected="an envelope",
        got=got,
        seconds=0.5,
    )


def report(*checks: Check, plugin: PluginSummary | None = PLUGIN) -> Report:
    return Report(file="acme.so", plugin=plugin, checks=checks, seconds=1.25)


def test_the_members_of_the_json_report_are_these() -> None:
    """Scripts rely on them; see the module's documentation."""
    made = report(check(Verdict.PASS), check(Verdict.WARN), check(Verdict.SKIP)).as_json()
    assert json.loads(json.dumps(made)) == {
        "file": "acme.so",
        "plugin": {
            "id": "acme",
            "name": "Acme",
            "version": "1",
            "author": "A",
            "schema_version": 3,
            "capabilities": ["executor", "usage_plugin"],
        },
        "ok": True,
        "seconds": 1.25,
        "counts": {"pass": 1, "warn": 1, "fail": 0, "skip": 1},
        "checks": [
            {
                "isolation": "process",
                "name": "good request",
                "capability": "executor",
                "method": "executor.execute",
                "verdict": verdict,
                "expected": "an envelope",
                "got": "an answer",
                "seconds": 0.5,
            }
            for verdict in ("pass", "warn", "skip")
        ],
    }


def test_checks_and_plugins_come_back_from_json() -> None:
    """That is how they come from the process of inline checks."""
    made = check(Verdict.FAIL, "killed", Isolation.INLINE)
    assert Check.from_json(json.loads(json.dumps(made.as_json()))) == made
    assert PluginSummary.from_json(json.loads(json.dumps(PLUGIN.as_json()))) == PLUGIN


@pytest.mark.parametrize("members", [{}, {"isolation": "elsewhere"}])
def test_what_is_no_check_is_refused(members: dict[str, str]) -> None:
    """A plugin may write anywhere, also into that file."""
    with pytest.raises((KeyError, ValueError)):
        Check.from_json(members)


@pytest.mark.parametrize(("verdict", "ok"), [(Verdict.PASS, True), (Verdict.WARN, True), (Verdict.FAIL, False)])
def test_only_failures_make_a_report_fail(verdict: Verdict, ok: bool) -> None:
    """What is merely unusual does not."""
    assert report(check(verdict)).ok is ok


def test_the_table_explains_what_is_not_right() -> None:
    """One line per check, and what was expected where something else came."""
    text = report(check(Verdict.PASS), check(Verdict.FAIL, "killed", Isolation.INLINE)).as_text()
    assert "plugin:  acme: Acme 1 by A\n" in text
    assert "isolation: process\n  pass  executor.execute  good request    0.500 s  an answer\n" in text
    assert "isolation: inline\n  fail  executor.execute  good request    0.500 s  killed\n" in text
    assert text.count("expected: an envelope") == 1
    assert text.endswith("FAILED: 1 pass, 0 warn, 1 fail, 0 skip in 1.2 s\n")


def test_a_library_that_never_registered_has_a_table_too() -> None:
    """Without a plugin in it."""
    assert "plugin:" not in report(check(Verdict.FAIL), plugin=None).as_text()
    assert report(plugin=None).as_json()["plugin"] is None


def test_texts_of_plugins_cannot_drive_a_terminal() -> None:
    """Nor fill it."""
    assert clean("a\x1b[2Jb\nc\u202ed") == "a·[2Jb c·d"
    assert len(clean("x" * 10_000)) == MAX_GOT_CHARS
    assert "\x1b" not in check(Verdict.FAIL, "\x1b]0;title\x07").got
