"""What a reply amounts to, by the rules that the host has for it (plugin-abi 1.13 and 2.2)."""

from enum import Enum, auto
from typing import Any

import attrs

from cpa.abi.envelope import PluginCallError, PluginReplyError, decode_reply
from cpa.abi.methods import Method
from cpa.abi.transport import PluginReply


class Kind(Enum):
    """Of replies."""

    RESULT = auto()
    """an envelope with a result of the right type"""
    ERROR = auto()
    """an error envelope, whatever the return code"""
    RETURNED = auto()
    """a return code other than 0, without an envelope"""
    MALFORMED = auto()
    """return code 0 and something that the host cannot read"""


@attrs.frozen(kw_only=True)
class Judged:
    """A reply, understood. *text* is for people; *value* the message of a `Kind.RESULT`."""

    kind: Kind
    text: str
    value: Any = None


def judge(method: Method[Any, Any], reply: PluginReply) -> Judged:
    """Understand *reply* as an answer to *method*."""
    try:
        value = decode_reply(method, reply.rc, reply.body)
    except PluginReplyError as exc:
        # With another return code than 0 the host goes by the code: that is failing, not lying.
        return Judged(kind=Kind.RETURNED if reply.rc != 0 else Kind.MALFORMED, text=exc.message)
    except PluginCallError as exc:
        return Judged(kind=Kind.ERROR, text=f"error: {exc.message}" if exc.message else "error without a message")
    return Judged(kind=Kind.RESULT, text=f"a {method.reply.__name__} of {len(reply.body)} bytes", value=value)
