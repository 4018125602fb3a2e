"""`cpa.abi._native` with Python values: one library inside this process. Only bytes and numbers leave this module."""

import threading

from cpa.abi._native import ffi, lib
from cpa.abi.errors import AbiMismatch, PluginClosed, PluginError, PluginLoadError, PluginReplyTooLarge

ERROR_BYTES = 1024
"""Room for one text; the same as CPA_ERROR_BYTES in shim.h."""


_loaded = False


def loaded_here() -> bool:
    """Whether a plugin's code, which can never be taken out again, is part of this process."""
    return _loaded


class NativeLibrary:
    """A library and its queue of host calls.

    What is in C memory is never freed, because the plugin may use it at any time (less than 2 KB); `end` closes the one
    descriptor.
    """

    def __init__(self, *, plugin_id: str, max_body: int) -> None:
        """Raises: PluginLoadError: no memory or no descriptors."""
        self.plugin_id = plugin_id
        self._max_body = max_body
        self._ended = threading.Event()
        self._self = lib.cpa_inline_new(max_body)
        if self._self == ffi.NULL:
            raise PluginLoadError(f"cannot prepare a plugin: errno {ffi.errno}", plugin_id=plugin_id)
        self.wake_fd = lib.cpa_inline_wake_fd(self._self)
        """Readable when `next_host_call` has something or the last call has left; never read it."""

    def load(self, path: bytes) -> None:
        """Open and initialise; blocks for as long as the library likes, while host calls are served elsewhere.

        Raises: PluginLoadError, AbiMismatch.
        """
        global _loaded  # a fact about the process
        _loaded = True
        error = ffi.new("char[]", ERROR_BYTES)
        result = lib.cpa_inline_load(self._self, path, error, ERROR_BYTES)
        if result == lib.CPA_LOADED:
            if self._ended.is_set():  # came too late: nobody will use it
                lib.cpa_inline_shutdown(self._self)
            return
        cause = AbiMismatch if result == lib.CPA_ABI_MISMATCH else PluginLoadError
        raise cause(ffi.string(error).decode("utf-8", "replace"), plugin_id=self.plugin_id)

    def call(self, method: bytes, payload: bytes) -> tuple[int, bytes]:
        """Return code and body; blocks, for worker threads only. Raises: PluginClosed, PluginReplyTooLarge."""
        reply = ffi.new("cpa_reply *")
        lib.cpa_inline_call(self._self, method, ffi.from_buffer(payload), len(payload), reply)
        try:
            if reply.state != lib.CPA_CALL_DONE:
                raise self._refusal(reply.state, method, reply.len)
            return reply.status, (bytes(ffi.buffer(reply.ptr, reply.len)) if reply.ptr != ffi.NULL else b"")
        finally:
            lib.cpa_inline_release(self._self, reply)

    def _refusal(self, state: int, method: bytes, size: int) -> PluginError:
        if state == lib.CPA_CALL_TOO_LARGE:
            return PluginReplyTooLarge(
                plugin_id=self.plugin_id, method=method.decode(), size_bytes=size, limit_bytes=self._max_body
            )
        return PluginClosed(plugin_id=self.plugin_id)

    def next_host_call(self) -> tuple[int, bytes, bytes] | None:
        """Id, method and request of the next host call; None when there is none left."""
        request = lib.cpa_inline_next(self._self)
        if request == ffi.NULL:
            return None
        try:
            method = bytes(ffi.buffer(request.method, request.method_len))
            return request.id, method, bytes(ffi.buffer(request.body, request.len))
        finally:
            lib.cpa_inline_drop(request)

    def answer(self, call_id: int, status: int, body: bytes) -> None:
        """Let a host call return *status*, with *body* when that is 0. No effect when it was failed before."""
        lib.cpa_inline_answer(self._self, call_id, status, ffi.from_buffer(body), len(body))

    def close(self) -> None:
        """Refuse new calls; `wake_fd` tells when the last one has left."""
        lib.cpa_inline_close(self._self)

    @property
    def in_flight(self) -> int:
        """Calls inside the plugin."""
        return lib.cpa_inline_in_flight(self._self)

    def shutdown(self) -> None:
        """The plugin's shutdown(), once; blocks. Only after `close`, with nothing in flight."""
        lib.cpa_inline_shutdown(self._self)

    def fail_host_calls(self) -> None:
        """Let all waiting host calls return 1."""
        lib.cpa_inline_fail_all(self._self)

    def end(self) -> None:
        """Refuse calls in both directions for ever and close `wake_fd`."""
        self._ended.set()
        lib.cpa_inline_end(self._self)
