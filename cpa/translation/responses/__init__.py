"""The Responses protocol, and by ``ModelProfile.codex`` its dialect."""

from typing import Final

from cpa.translation.responses.emit import emit_request
from cpa.translation.responses.emitter import END_MARK as END_MARK
from cpa.translation.responses.emitter import emit_full, open_emitter
from cpa.translation.responses.parser import open_parser, parse_full
from cpa.translation.responses.request import parse_request
from cpa.translation.spoke import Spoke

SPOKE: Final = Spoke(
    parse_request=parse_request,
    emit_request=emit_request,
    parse_full=parse_full,
    emit_full=emit_full,
    open_parser=open_parser,
    open_emitter=open_emitter,
)
