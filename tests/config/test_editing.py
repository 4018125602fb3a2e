"""One edit at a time: judged, atomic, in force before it is told, and finished whoever leaves."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import bcrypt
import pytest
import structlog
import trio

from cpa.config import editing
from cpa.config.editing import Author, ConfigEditor, ConfigTree, open_editor
from cpa.config.load import Loaded, digest_of, parse_config
from cpa.config.sealing import hashed
from cpa.config.tree import text_of
from cpa.errors import ConfigError, EditError

FAIL_S = 60
ME = Author(client="192.0.2.7", known_by="configuration", endpoint="PUT /v0/management/debug")
TEXT = "# mine\ndebug: false  # quiet\napi-keys: [a]\n"


@attrs.define(eq=False)
class Rig:
    """An editor of a file, and what it put in force."""

    file: Path
    editor: ConfigEditor
    loaded: list[Loaded]

    @property
    def text(self) -> str:
        """The file's."""
        return self.file.read_bytes().decode()


@asynccontextmanager
async def rig(
    folder: Path, text: str | bytes = TEXT, *, apply: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[Rig]:
    """An editor whose application is a list."""
    file = folder / "config.yaml"
    data = text.encode() if isinstance(text, str) else text
    file.write_bytes(data)
    try:
        loaded = [parse_config(data, file="config.yaml")]
    except ConfigError:
        loaded = [parse_config(b"", file="config.yaml")]

    async def take() -> None:
        await trio.lowlevel.checkpoint()
        loaded.append(parse_config(file.read_bytes(), file="config.yaml"))

    with trio.fail_after(FAIL_S):
        async with open_editor(file, current=lambda: loaded[-1], apply=apply or take) as editor:
            yield Rig(file=file, editor=editor, loaded=loaded)


def debug(value: bool) -> Callable[[ConfigTree], None]:
    """Sets one key."""
    return lambda tree: tree.update(debug=value)


async def test_an_edit_is_written_and_in_force(tmp_path: Path) -> None:
    """Comments stay; the answer says what changed."""
    async with rig(tmp_path) as found:
        edited = await found.editor.edit(lambda tree: (tree.update(debug=True, port=1), "told")[1], author=ME)
        assert edited.value == "told"
        assert edited.written
        assert edited.changes == ("port: 8317 -> 1", "debug: false -> true")
        assert edited.restart == ("port",)
        assert edited.digest == digest_of(found.file.read_bytes())
        assert found.text == "# mine\ndebug: true  # quiet\napi-keys: [a]\nport: 1\n"
        assert found.loaded[-1].config.debug


async def test_an_edit_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    """But what somebody else wrote a moment ago is in force then, too."""
    async with rig(tmp_path) as found:
        before = found.file.stat().st_mtime_ns, found.file.stat().st_ino
        edited = await found.editor.edit(debug(False), author=ME)
        assert not edited.written
        assert edited.changes == ()
        assert (found.file.stat().st_mtime_ns, found.file.stat().st_ino) == before
        assert len(found.loaded) == 2


async def test_the_audit_line_names_who_and_what_and_no_secret(tmp_path: Path) -> None:
    """Nothing is logged of edits that are refused or change nothing."""
    async with rig(tmp_path) as found:
        with structlog.testing.capture_logs() as lines:
            await found.editor.edit(lambda tree: tree.update({"api-keys": ["a", "brand-new-key"]}), author=ME)
            await found.editor.edit(debug(False), author=ME)
            with pytest.raises(ConfigError):
                await found.editor.edit(lambda tree: tree.update(port="x"), author=ME)
        assert lines == [
            {
                "event": "config.edited",
                "log_level": "info",
                "endpoint": ME.endpoint,
                "client": ME.client,
                "known_by": ME.known_by,
                "changes": ["api-keys: 1 added"],
            }
        ]


async def test_what_the_loader_does_not_take_is_refused_in_its_words(tmp_path: Path) -> None:
    """And nothing is written."""
    async with rig(tmp_path) as found:
        with pytest.raises(ConfigError) as caught:
            await found.editor.edit(lambda tree: tree.update(port="x", nonsense=1), author=ME)
        lines = [f"{found.file}:4: port: expected an integer from 0 to 65535, got 'x' (str)"]
        assert list(caught.value.problems[:1]) == lines
        assert [(problem.line, problem.path) for problem in caught.value.details] == [(4, "port"), (5, "")]
        assert found.text == TEXT
        assert len(found.loaded) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.update(a={1: 2}), "keys of at most"),
        (lambda tree: tree.update({"k" * 600: 2}), "keys of at most"),
        (lambda tree: tree.update(a="\ud800"), "surrogate"),
        (lambda tree: tree.update(a=object()), "JSON's values"),
        (lambda tree: tree.update(a=[[]] * 300_000), "fewer values"),
    ],
)
async def test_values_that_no_file_can_hold(tmp_path: Path, change: Callable[[ConfigTree], None], message: str) -> None:
    """A 400: the client's."""
    async with rig(tmp_path) as found:
        with pytest.raises(EditError, match=message) as caught:
            await found.editor.edit(change, author=ME)
        assert caught.value.http_status == 400
        assert found.text == TEXT


async def test_errors_of_a_change_reach_whoever_asked(tmp_path: Path) -> None:
    """Those that are meant and those that are bugs; the editor goes on."""

    def refuse(_: ConfigTree) -> None:
        raise EditError("item not found", http_status=404)

    async with rig(tmp_path) as found:
        with pytest.raises(EditError, match="item not found"):
            await found.editor.edit(refuse, author=ME)
        with pytest.raises(KeyError):
            await found.editor.edit(lambda tree: tree["nowhere"], author=ME)
        assert (await found.editor.edit(debug(True), author=ME)).written


async def test_a_file_with_problems_is_not_edited_but_replaced(tmp_path: Path) -> None:
    """An edit of half a file would be a guess."""
    async with rig(tmp_path, "port: x\n") as found:
        with pytest.raises(EditError, match=r"problems of its own: .*:1: port: expected") as caught:
            await found.editor.edit(debug(True), author=ME)
        assert caught.value.http_status == 500
        await found.editor.write(b"debug: true\n", author=ME)
        assert found.text == "debug: true\n"


@pytest.mark.parametrize("content", [None, b"", b" \n"])
async def test_a_file_that_is_gone_is_not_edited_but_replaced(tmp_path: Path, content: bytes | None) -> None:
    """Everything else of the configuration would be lost."""
    async with rig(tmp_path) as found:
        found.file.unlink()
        if content is not None:
            found.file.write_bytes(content)
        with pytest.raises(EditError, match="write the whole file"):
            await found.editor.edit(debug(True), author=ME)
        await found.editor.write(TEXT.encode(), author=ME)
        assert found.text == TEXT


async def test_a_file_that_was_always_empty_is_edited(tmp_path: Path) -> None:
    """A proxy of defaults, or with only its management key in the environment."""
    async with rig(tmp_path, b"") as found:
        await found.editor.edit(debug(True), author=ME)
        assert found.text == "debug: true\n"


async def test_a_byte_order_mark_stays(tmp_path: Path) -> None:
    """Some editors look for it."""
    async with rig(tmp_path, b"\xef\xbb\xbfdebug: false\r\n") as found:
        await found.editor.edit(lambda tree: tree.update(debug=True, port=1), author=ME)
        assert found.file.read_bytes() == b"\xef\xbb\xbfdebug: true\r\nport: 1\r\n"


@pytest.mark.parametrize(
    "value",
    [
        *("yes", "no", "1:30", "0123", "a\nb\n", "*x", "😀", "\x07\x85", "", " a ", "null", "2024-01-01", "0x1F"),
        *("- a", "# a", "a: b", "\ufeff", "'", '"', "\\", "%", "@", "<<", "=", "!!str x", "|", "a\tb", "1e3", "1_0"),
    ],
)
async def test_texts_come_back_as_they_were(tmp_path: Path, value: str) -> None:
    """Whatever another reader would take them for."""
    async with rig(tmp_path) as found:
        settings = {"p": {"value": value, value: [value]}}
        await found.editor.edit(lambda tree: tree.update(plugins={"configs": settings}), author=ME)
        raw = found.loaded[-1].config.plugins.configs["p"].raw
        assert raw == {"value": value, value: (value,)}


# --- others who edit ----------------------------------------------------------------------------------------------


async def test_an_edit_of_somebody_else_is_not_lost(tmp_path: Path) -> None:
    """The change is made again on what they wrote."""
    async with rig(tmp_path) as found:
        seen = []

        def slow(tree: ConfigTree) -> None:
            seen.append(text_of(tree.get("proxy-url")))
            if len(seen) == 1:
                found.file.write_text(TEXT + "proxy-url: direct  # theirs\n")
            tree["debug"] = True

        edited = await found.editor.edit(slow, author=ME)
        assert seen == ["", "direct"]
        assert found.text == TEXT.replace("debug: false", "debug: true") + "proxy-url: direct  # theirs\n"
        assert edited.changes == ("debug: false -> true",)


async def test_whoever_never_stops_editing_wins(tmp_path: Path) -> None:
    """409 after two tries; their content is in place."""
    async with rig(tmp_path) as found:
        count = []

        def beaten(tree: ConfigTree) -> None:
            count.append(1)
            found.file.write_text(f"{TEXT}# {len(count)}\n")
            tree["debug"] = True

        with pytest.raises(EditError) as caught:
            await found.editor.edit(beaten, author=ME)
        assert (caught.value.http_status, caught.value.code) == (409, "conflict")
        assert len(count) == editing.MAX_TRIES
        assert found.text == f"{TEXT}# 2\n"


async def test_edits_come_one_after_the_other(tmp_path: Path) -> None:
    """Each sees what the one before did."""
    async with rig(tmp_path) as found:

        async def add(number: int) -> None:
            def change(tree: ConfigTree) -> None:
                keys = tree["api-keys"]
                assert isinstance(keys, list)
                keys.append(f"k{number}")

            await found.editor.edit(change, author=ME)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(add, number)
        assert set(found.loaded[-1].config.api_keys) == {"a", *(f"k{number}" for number in range(8))}


async def test_editors_of_several_processes_wait_for_each_other(tmp_path: Path) -> None:
    """Workers of one port share a file; none of their edits is refused, none is lost."""
    async with rig(tmp_path) as one, rig(tmp_path) as other:

        async def add(found: Rig, name: str) -> None:
            for number in range(5):

                def change(tree: ConfigTree, key: str = f"{name}{number}") -> None:
                    keys = tree["api-keys"]
                    assert isinstance(keys, list)
                    keys.append(key)

                await found.editor.edit(change, author=ME)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, one, "one")
            nursery.start_soon(add, other, "other")
        keys = {f"{name}{number}" for name in ("one", "other") for number in range(5)}
        assert set(parse_config(one.text, file="a").config.api_keys) == {"a", *keys}


async def test_a_write_only_over_what_the_client_knows(tmp_path: Path) -> None:
    """412 otherwise."""
    async with rig(tmp_path) as found:
        with pytest.raises(EditError) as caught:
            await found.editor.write(b"port: 1\n", author=ME, wanted=lambda data: data == b"other")
        assert caught.value.http_status == 412
        assert found.text == TEXT
        edited = await found.editor.write(b"port: 1\n", author=ME, wanted=lambda data: data == TEXT.encode())
        assert edited.digest == digest_of(b"port: 1\n")
        with pytest.raises(ConfigError):
            await found.editor.write(b"port: x\n", author=ME)


# --- the management key at rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["typed", "0123", "x" * 100])
async def test_a_typed_key_becomes_a_hash(tmp_path: Path, key: str) -> None:
    """With its remark, whatever the edit was for."""
    text = f"remote-management:\n  secret-key: {key}  # typed\n  allow-remote: false\n"
    async with rig(tmp_path, text) as found:
        assert await found.editor.seal()
        secret = found.loaded[-1].config.remote_management.secret_key
        assert secret.startswith("$2a$10$")
        assert bcrypt.checkpw(key.encode()[:72], secret.encode())
        assert found.text == text.replace(f": {key}", f': "{secret}"')
        before = found.text
        assert not await found.editor.seal()
        assert found.text == before


async def test_a_typed_key_of_a_whole_file_becomes_a_hash(tmp_path: Path) -> None:
    """It never reaches the disk."""
    async with rig(tmp_path) as found:
        await found.editor.write(b"# c\nremote-management: {secret-key: typed}\n", author=ME)
        assert "typed" not in found.text
        assert found.text.startswith('# c\nremote-management: {secret-key: "$2a$10$')


async def test_a_hash_stays(tmp_path: Path) -> None:
    """A salted one would change at every edit."""
    secret = hashed("typed")
    text = f"remote-management: {{secret-key: '{secret}'}}\n"
    async with rig(tmp_path, text) as found:
        await found.editor.edit(debug(True), author=ME)
        assert found.text == text + "debug: true\n"


# --- who leaves, what ends ------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_does_not_stop_its_edit(tmp_path: Path) -> None:
    """The file is written: it has to be in force as well."""
    applying, go_on, applied = trio.Event(), trio.Event(), trio.Event()

    async def apply() -> None:
        applying.set()
        await go_on.wait()
        applied.set()

    async with rig(tmp_path, apply=apply) as found, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                await found.editor.edit(debug(True), author=ME)

        nursery.start_soon(ask)
        await applying.wait()
        scope.cancel()
        go_on.set()
        await applied.wait()
    assert scope.cancelled_caught
    assert "debug: true" in found.text


async def test_a_client_that_leaves_the_queue_leaves_nothing(tmp_path: Path) -> None:
    """Its edit had not begun."""
    applying, go_on = trio.Event(), trio.Event()

    async def apply() -> None:
        applying.set()
        await go_on.wait()

    async with rig(tmp_path, apply=apply) as found, trio.open_nursery() as nursery:

        async def ask() -> None:
            await found.editor.edit(debug(True), author=ME)

        nursery.start_soon(ask)
        await applying.wait()
        with trio.move_on_after(0.05) as scope:
            await found.editor.edit(lambda tree: tree.update(port=1), author=ME)
        assert scope.cancelled_caught
        go_on.set()
    assert "port" not in found.text


async def test_the_end_of_the_editor_ends_what_waits(tmp_path: Path) -> None:
    """503, also for an edit whose application hangs."""
    errors = []
    applying = trio.Event()

    async def apply() -> None:
        applying.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery, rig(tmp_path, apply=apply) as found:

        async def ask() -> None:
            with pytest.raises(EditError) as caught:
                await found.editor.edit(debug(True), author=ME)
            errors.append(caught.value.http_status)

        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await applying.wait()
    assert errors == [503, 503]
    with pytest.raises(EditError):
        await found.editor.edit(debug(True), author=ME)


async def test_an_application_that_refuses_is_told(tmp_path: Path) -> None:
    """Somebody broke the file between the edit and its application."""

    async def apply() -> None:
        await trio.lowlevel.checkpoint()
        raise ConfigError(["config.yaml:1: broken"])

    async with rig(tmp_path, apply=apply) as found:
        with pytest.raises(EditError, match=r"reload failed: config\.yaml:1: broken") as caught:
            await found.editor.edit(debug(True), author=ME)
        assert caught.value.code == "reload_failed"
