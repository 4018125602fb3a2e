"""Chat Completions, of the vendor and of compatible hosts."""

from cpa.translation.chat.emit import emit_request
from cpa.translation.chat.emitter import END_MARK as END_MARK
from cpa.translation.chat.emitter import ChatEmitter
from cpa.translation.chat.full import emit_full
from cpa.translation.chat.parser import ChatParser, parse_full
from cpa.translation.chat.request import parse_request
from cpa.translation.spoke import Spoke

SPOKE = Spoke(
    parse_request=parse_request,
    emit_request=emit_request,
    parse_full=parse_full,
    emit_full=emit_full,
    open_parser=ChatParser,
    open_emitter=ChatEmitter,
)
