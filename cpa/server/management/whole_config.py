"""The whole configuration (proxy 6.3): in force as JSON, and its file as it is."""

from collections.abc import Sequence
from typing import Final

import trio

from cpa.config.changes import describe_changes, restart_needed
from cpa.config.document import MAX_DOCUMENT_BYTES
from cpa.config.encoding import config_json
from cpa.config.load import digest_of, parse_config, syntax_problems
from cpa.errors import ConfigError, ConfigProblem, EditError
from cpa.server.management.calls import Answer, ManagementCall, coded_error, json_answer
from cpa.server.management.saving import listed, spoken
from cpa.server.sockets import tls_context

BODY_BYTES: Final = MAX_DOCUMENT_BYTES + 1
"""One more than a file may have: the answer then says so, as that of a file would."""
YAML_TYPE: Final = (b"content-type", b"application/yaml; charset=utf-8")
NO_FILE: Final = coded_error(404, "not_found", "this proxy runs without a configuration file")
_YES: Final = frozenset({"1", "true", "yes", "on"})


async def get_config(call: ManagementCall) -> Answer:
    """``GET /config``: what is in force, with the keys of the file. ``?redact=1``: without secrets."""
    redact = call.query("redact").lower() in _YES
    return json_answer(config_json(call.runtime.config, redact=redact))


async def get_file(call: ManagementCall) -> Answer:
    """``GET /config.yaml``: the file's bytes, and an ``ETag`` for `put_file`."""
    if call.editor is None:
        return NO_FILE
    try:
        data = await call.editor.read()
    except EditError as exc:
        return coded_error(500, "read_failed", exc.message)
    if data is None:
        return NO_FILE
    if not wanted(call, data):
        return STALE
    return Answer(headers=(YAML_TYPE, (b"etag", etag(digest_of(data)))), body=data)


async def put_file(call: ManagementCall) -> Answer:
    """``PUT /config.yaml`` with the whole file; judged, written and in force when the answer goes out.

    ``If-Match``: only if the file is still the one of that ``ETag``.
    """
    if call.editor is None:
        return coded_error(500, "write_failed", "this proxy runs without a configuration file")
    refusal = await _judge(call, str(call.editor.path))
    if refusal is not None:
        return refusal
    try:
        edited = await call.editor.write(call.body, author=call.author, wanted=lambda data: wanted(call, data))
    except ConfigError as exc:
        return _invalid(exc.details)
    except EditError as exc:
        return STALE if exc.http_status == STALE.status else coded_error(exc.http_status, exc.code, exc.message)
    answer = json_answer({"ok": True, "changed": ["config"]})
    return Answer(headers=(*answer.headers, (b"etag", etag(edited.digest))), body=answer.body)


async def check(call: ManagementCall) -> Answer:
    """``POST /config.yaml/check`` with a whole file: what is wrong with it, or what it would change; writes nothing."""
    file = "config.yaml" if call.editor is None else str(call.editor.path)
    refusal = await trio.to_thread.run_sync(_problems, call.body, file)
    if refusal:
        return json_answer({"ok": False, "problems": listed(refusal), "changes": [], "restart": []})
    changes, restart = await trio.to_thread.run_sync(_differences, call, file)
    return json_answer({"ok": True, "problems": [], "changes": changes, "restart": restart})


async def latest_version(_call: ManagementCall) -> Answer:
    """``GET /latest-version``: CPA asks nobody on the network on its own, and says so."""
    return coded_error(502, "request_failed", "this program does not look for newer versions")


def etag(digest: str) -> bytes:
    """A strong entity tag of a file's digest."""
    return f'"{digest}"'.encode()


def wanted(call: ManagementCall, data: bytes | None) -> bool:
    """Whether *data*, None = no file, is what ``If-Match`` names; without that header anything is."""
    given = [tag.strip() for value in call.head.headers if value[0] == b"if-match" for tag in value[1].split(b",")]
    if not given:
        return True
    return data is not None and (b"*" in given or etag(digest_of(data)) in given)


STALE: Final = coded_error(412, "precondition_failed", "the file is not what it was when you read it")


async def _judge(call: ManagementCall, file: str) -> Answer | None:
    syntax = await trio.to_thread.run_sync(lambda: syntax_problems(call.body, file=file))
    if syntax:
        return _told(400, "invalid_yaml", syntax)
    problems = await trio.to_thread.run_sync(_problems, call.body, file)
    return _invalid(problems) if problems else None


def _problems(data: bytes, file: str) -> Sequence[ConfigProblem]:
    """All that ``cpa check`` says of the text *data*. Blocking."""
    syntax = syntax_problems(data, file=file)
    if syntax:
        return syntax
    try:
        config = parse_config(data, file=file).config
    except ConfigError as exc:
        return exc.details
    if config.tls.enable:
        try:
            tls_context(config)
        except OSError as exc:
            text = f"expected a certificate and its key, got files that do not do: {exc}"
            return (ConfigProblem(_line_of(data, b"tls"), "tls", text),)
    return ()


def _line_of(data: bytes, key: bytes) -> int:
    """Where a top-level *key* stands, for a problem that is not the loader's."""
    lines = data.splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith(key + b":")), 1)


def _differences(call: ManagementCall, file: str) -> tuple[list[str], list[str]]:
    new = parse_config(call.body, file=file).config
    old = call.runtime.config
    return describe_changes(old, new), list(restart_needed(old, new))


def _invalid(problems: Sequence[ConfigProblem]) -> Answer:
    return _told(422, "invalid_config", problems)


def _told(status: int, code: str, problems: Sequence[ConfigProblem]) -> Answer:
    message = "; ".join(f"line {problem.line}: {spoken(problem)}" for problem in problems[:8])
    return json_answer({"error": code, "message": message, "problems": listed(problems)}, status=status)
