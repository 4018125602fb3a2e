"""Edits of the configuration file by the program itself: one at a time, judged, atomic, in force before they are told.

Theory of operation. An edit is a function that changes a tree (`cpa.config.tree`) of what the file says right now. What
it changed is spliced into the file's text (`cpa.config.splicing`), so that comments, order and spelling of everything
else stay; the result is read by the loader and has to be what was wanted, and without problems. It then takes the
file's place if nobody else has changed that meanwhile (`cpa.config.replacing`), and the application reads the file
again. All of it is done by one task of the editor's: a client that leaves in the middle leaves no half of an edit.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs
import structlog
import trio

from cpa.config.changes import describe_changes, restart_needed
from cpa.config.document import parse_document
from cpa.config.load import Loaded, digest_of, parse_config
from cpa.config.nodes import Findings, is_null
from cpa.config.replacing import held, read_file, replace_file
from cpa.config.schema import Config
from cpa.config.sealing import seal, unsealed
from cpa.config.sections import read_config
from cpa.config.splicing import respelled
from cpa.config.tree import ConfigTree, checked, same, tree_of
from cpa.errors import ConfigError, EditError

__all__ = ["Author", "Change", "ConfigEditor", "ConfigTree", "Edited", "open_editor"]

log = structlog.get_logger(__name__)

T = TypeVar("T")
Change: TypeAlias = Callable[[ConfigTree], T]
"""Changes a tree in place and returns whatever its caller wants to know.

Runs in a worker thread and maybe twice, each time on a fresh tree, so it touches nothing else. To refuse, it raises
`EditError` (with ``http_status``) or any other `CpaError`; nothing is written then.
"""

MAX_TRIES: Final = 2
"""Times that an edit is made on a file that others change at the same moment."""


@attrs.frozen(kw_only=True)
class Author:
    """Who edits, for the audit line.

    Attributes:
      client: address of the peer; empty = the program itself.
      known_by: where the management key was from, ``configuration`` or ``environment``; never the key itself.
      endpoint: ``PUT /v0/management/debug``, or what else led to the edit.
    """

    client: str = ""
    known_by: str = ""
    endpoint: str = ""


@attrs.frozen(kw_only=True)
class Edited(Generic[T]):
    """An edit that is in force.

    Attributes:
      value: what the change returned.
      written: the file has another content now.
      changes: what differs, without secrets; may be empty although something was written (comments, unknown keys).
      restart: keys that take effect only after a restart.
      digest: SHA-256 of the file's content, hexadecimal.
    """

    value: T
    written: bool
    changes: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    digest: str


@attrs.frozen(kw_only=True)
class _Rewritten:
    """What was done to the file."""

    value: Any
    written: bool
    before: Config
    after: Loaded


_Rewrite: TypeAlias = Callable[[bytes | None], tuple[bytes, Any, Config]]
"""From the file's content, None = no file, to the one it shall have, the value for whoever asked, and what it says."""


@attrs.define(eq=False)
class _Job:
    """One edit on its way to the editor's task."""

    work: Callable[[], Awaitable[Edited[Any]]]
    done: trio.Event = attrs.field(factory=trio.Event)
    result: Edited[Any] | None = None
    error: Exception | None = None
    left: bool = False
    """Whoever asked for it is gone."""


class ConfigEditor:
    """The one door to the configuration file; made by `open_editor`."""

    def __init__(
        self,
        path: Path,
        *,
        current: Callable[[], Loaded],
        apply: Callable[[], Awaitable[None]],
        jobs: trio.MemorySendChannel[_Job],
    ) -> None:
        self.path = path
        self._current = current
        self._apply = apply
        self._jobs = jobs

    def __repr__(self) -> str:
        return f"ConfigEditor({str(self.path)!r})"

    async def edit(self, change: Change[T], *, author: Author) -> Edited[T]:
        """Apply *change* to what the file says, write the file and put it in force.

        A change that changes nothing writes nothing. A plaintext management key in the file is hashed on the way.

        Raises: ConfigError when the result has problems, with the lines of ``cpa check``; EditError when the file
          cannot be edited; CpaError of *change*. The file is as it was then, but for an EditError with the code
          ``reload_failed``.
        Cancellation: an edit that has begun is finished all the same.
        """
        rewrite = partial(self._changed, change)
        return await self._ask(partial(self._perform, rewrite, author))

    async def write(
        self, data: bytes, *, author: Author, wanted: Callable[[bytes | None], bool] = lambda _: True
    ) -> Edited[None]:
        """Replace the whole file, as `edit`, also one that is missing or has problems.

        Args:
          wanted: asked with the content that would be lost, None = no file; False refuses with 412.
        """
        rewrite = partial(self._replaced, data, wanted)
        return await self._ask(partial(self._perform, rewrite, author))

    async def seal(self) -> bool:
        """Replace a plaintext management key in the file by its hash. Returns: whether there was one.

        Raises: as `edit`.
        """
        return (await self.edit(lambda _tree: None, author=Author(endpoint="bcrypt at rest"))).written

    async def read(self) -> bytes | None:
        """The file's content, None = no file. Raises: EditError."""
        return await trio.to_thread.run_sync(read_file, self.path)

    async def _ask(self, work: Callable[[], Awaitable[Edited[Any]]]) -> Edited[Any]:
        job = _Job(work)
        try:
            await self._jobs.send(job)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise EditError("the proxy is about to end", http_status=503) from None
        try:
            await job.done.wait()
        except trio.Cancelled:
            job.left = True
            raise
        if job.error is not None:
            raise job.error
        if job.result is None:
            raise EditError("the proxy is about to end", http_status=503)
        return job.result

    async def _perform(self, rewrite: _Rewrite, author: Author) -> Edited[Any]:
        done: _Rewritten = await trio.to_thread.run_sync(self._rewrite, rewrite)
        changes = tuple(describe_changes(done.before, done.after.config))
        if done.written:
            who = {"client": author.client, "known_by": author.known_by} if author.client else {}
            log.info("config.edited", endpoint=author.endpoint, changes=list(changes), **who)
        try:
            # Also without a change: what somebody else wrote a moment ago is then in force as well.
            await self._apply()
        except ConfigError as exc:
            raise EditError(f"reload failed: {exc.problems[0]}", code="reload_failed") from exc
        return Edited(
            value=done.value,
            written=done.written,
            changes=changes,
            restart=restart_needed(done.before, done.after.config),
            digest=done.after.digest,
        )

    def _rewrite(self, rewrite: _Rewrite) -> _Rewritten:
        """Read, judge, replace; again when somebody else did so meanwhile. Blocking. Raises: CpaError."""
        with held(self.path):
            for _ in range(MAX_TRIES):
                before = read_file(self.path)
                data, value, old = rewrite(before)
                after = parse_config(data, file=str(self.path))
                if data == before or replace_file(self.path, expected=before, data=data):
                    return _Rewritten(value=value, written=data != before, before=old, after=after)
        raise EditError(f"{self.path} is being changed by somebody else, try again", code="conflict", http_status=409)

    def _changed(self, change: Change[T], before: bytes | None) -> tuple[bytes, T, Config]:
        before = self._known(before)
        findings = Findings(file=str(self.path))
        document = parse_document(before, findings)
        old = read_config(document, findings) if document is not None else Config()
        if document is None or findings.problems:
            raise EditError(f"the file has problems of its own: {findings.problems[0]}")
        root = document.root if document.root is not None and not is_null(document.root) else None
        tree = {} if root is None else tree_of(root)
        assert isinstance(tree, dict)  # or there would be problems
        value = change(tree)
        wanted = seal(checked(tree))
        if same({} if root is None else tree_of(root), wanted):
            return before, value, old
        return _encoded(before, respelled(document.text, wanted)), value, old

    def _known(self, before: bytes | None) -> bytes:
        """*before* unless editing it would make the running configuration forget nearly everything."""
        if before is not None and (before.strip() or self._current().digest == digest_of(before)):
            return before
        kind = "missing" if before is None else "empty"
        raise EditError(f"{self.path} is {kind}, while the configuration in force is not: write the whole file")

    def _replaced(
        self, data: bytes, wanted: Callable[[bytes | None], bool], before: bytes | None
    ) -> tuple[bytes, None, Config]:
        if not wanted(before):
            raise EditError("the file is not what it was when you read it", code="precondition_failed", http_status=412)
        parse_config(data, file=str(self.path))
        findings = Findings(file=str(self.path))
        document = parse_document(data, findings)
        tree = tree_of(document.root) if document is not None else None
        if document is None or not isinstance(tree, dict) or not unsealed(tree):
            return data, None, _config_of(before)
        return _encoded(data, respelled(document.text, seal(tree))), None, _config_of(before)


@asynccontextmanager
async def open_editor(
    path: Path, *, current: Callable[[], Loaded], apply: Callable[[], Awaitable[None]]
) -> AsyncIterator[ConfigEditor]:
    """An editor of *path* while the block runs.

    Args:
      current: the configuration in force.
      apply: reads the file and puts it in force before it returns; called by the editor's task. May raise ConfigError.

    At the end an edit whose file was replaced already is not put in force any more.
    """
    send, receive = trio.open_memory_channel[_Job](0)
    with send, receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_work, receive, name="config:edits")
            try:
                yield ConfigEditor(path, current=current, apply=apply, jobs=send)
            finally:
                nursery.cancel_scope.cancel()


async def _work(jobs: trio.MemoryReceiveChannel[_Job]) -> None:
    """Do one job after the other."""
    async for job in jobs:
        try:
            job.result = await job.work()
        except Exception as exc:  # noqa: BLE001 - a supervisor's edge: who asked for this edit hears of it
            job.error = exc
            if job.left:
                log.error("config.edit_failed", error=str(exc), hint="the client that wanted it is gone")
        finally:
            job.done.set()


def _config_of(data: bytes | None) -> Config:
    """What *data* says; the defaults for what says nothing or has problems."""
    try:
        return parse_config(data or b"", file="").config
    except ConfigError:
        return Config()


def _encoded(before: bytes, text: str) -> bytes:
    """*text* as bytes; a byte order mark stays."""
    return (b"\xef\xbb\xbf" if before.startswith(b"\xef\xbb\xbf") else b"") + text.encode()
