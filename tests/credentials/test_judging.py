"""What `cpa check` says of credential files."""

import json
from pathlib import Path
from typing import Any

from cpa.credentials.judging import Judgement, judge_folder


def write(folder: Path, name: str, **members: Any) -> Path:
    """A file."""
    path = folder / name
    path.write_text(json.dumps(members))
    return path


def test_a_missing_folder_has_no_problems(tmp_path: Path) -> None:
    """It is made at the start."""
    assert judge_folder(tmp_path / "none") == Judgement()


def test_every_problem_of_every_file_is_named(tmp_path: Path) -> None:
    """File, member, what was expected, what came; a good file is only counted."""
    write(tmp_path, "good.json", type="claude", api_key="k", weight="3")
    write(tmp_path, "url.json", type="codex", api_key="k")
    write(tmp_path, "many.json", type="claude", api_key="k", priority="high", proxy_url="ftp://x", models="gpt")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    (tmp_path / "bad\nname.json").write_text("{}")
    found = judge_folder(tmp_path)
    assert found.usable == 1
    assert found.warnings == ()
    lines = sorted(found.problems)
    assert lines[0].startswith(f"{tmp_path}/bad\\nname.json: expected a name without control characters")
    assert lines[1].startswith(f"{broken}: expected a JSON object, got: ")
    assert lines[2].startswith(f"{tmp_path}/many.json: models: expected a list of models")
    assert lines[3].startswith(f"{tmp_path}/many.json: priority: expected an integer from ")
    assert lines[3].endswith("got 'high' (str)")
    assert lines[4].startswith(f"{tmp_path}/many.json: proxy_url: expected ")
    assert lines[5:] == [f"{tmp_path}/url.json: base_url: expected an http or https URL with a host, got nothing"]


def test_files_for_plugins_are_mentioned(tmp_path: Path) -> None:
    """Whether one will take them is known only when it runs."""
    write(tmp_path, "acme.json", type="acme", token="t")
    write(tmp_path, "none.json", token="t")
    write(tmp_path, "vendor.json", type="claude", access_token="secret-token")
    found = judge_folder(tmp_path)
    assert found.problems == ()
    assert [line.rpartition("/")[2].partition(":")[0] for line in found.warnings] == [
        "acme.json",
        "none.json",
        "vendor.json",
    ]
    assert "secret-token" not in "".join(found.warnings)


def test_a_folder_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    """Somebody wrote the wrong path."""
    path = tmp_path / "x"
    path.write_text("{}")
    (line,) = judge_folder(path).problems
    assert line.startswith(f"{path}: expected a readable folder, got: ")
