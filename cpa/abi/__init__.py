"""The C boundary: plugins as compiled libraries, and nothing above that.

`transport.py` is the door: a `PluginTransport` made by `open_process` or `open_inline` takes a method and bytes and
gives a return code and bytes. Linux only: workers are tied to the proxy by a parent-death signal, and libraries are
opened from memory files.
"""
