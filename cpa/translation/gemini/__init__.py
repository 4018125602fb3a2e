"""The Gemini protocol.

Streams are server-sent events for clients that ask for ``alt=sse`` (`open_emitter`), and a JSON array for all others
(`array_frames`); neither has an end mark of its own (`END_MARK`), an array closes itself.
"""

from typing import Final

from cpa.translation.gemini.emit import emit_request
from cpa.translation.gemini.emitter import END_MARK as END_MARK
from cpa.translation.gemini.emitter import array_frames as array_frames
from cpa.translation.gemini.emitter import emit_full, open_emitter
from cpa.translation.gemini.frames import ARRAY_END as ARRAY_END
from cpa.translation.gemini.frames import array_error as array_error
from cpa.translation.gemini.parser import open_parser, parse_full
from cpa.translation.gemini.request import parse_request
from cpa.translation.spoke import Spoke

SPOKE: Final = Spoke(
    parse_request=parse_request,
    emit_request=emit_request,
    parse_full=parse_full,
    emit_full=emit_full,
    open_parser=open_parser,
    open_emitter=open_emitter,
)
