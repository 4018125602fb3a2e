"""Claude's protocol, Messages, as source and as target (translation Parts 2 to 4)."""

from cpa.translation.claude.emit import emit_request
from cpa.translation.claude.emitter import END_MARK, Emitter, emit_full
from cpa.translation.claude.parser import Parser, parse_full
from cpa.translation.claude.request import parse_request
from cpa.translation.spoke import Spoke

__all__ = ["END_MARK", "SPOKE"]

SPOKE = Spoke(
    parse_request=parse_request,
    emit_request=emit_request,
    parse_full=parse_full,
    emit_full=emit_full,
    open_parser=Parser,
    open_emitter=Emitter,
)
