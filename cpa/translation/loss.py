"""What a translation could not carry over, said aloud (translation 0.7)."""

from enum import StrEnum

import msgspec

from cpa.errors import RequestError


class LossKind(StrEnum):
    """What happened to it."""

    DEGRADED = "degraded"
    """something close stands in its place"""
    DROPPED = "dropped"
    """it is gone; it only tuned"""


class Loss(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that the target protocol cannot say. A struct, as foreign reasoning makes one in every third turn of a
    session, and it takes a sixth of the time.

    Attributes:
      path: where it stood in the client's body, e.g. ``messages[3].content[1]`` or ``seed``.
      kind: what happened to it.
      note: what the client should know, in a few words; never content.
    """

    path: str
    kind: LossKind
    note: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.kind}" + (f" ({self.note})" if self.note else "")


class Untranslatable(RequestError):
    """A request that cannot be carried over without changing what was asked.

    Attributes:
      param: where, as in `Loss.path`.
    """

    code = "unsupported_parameter"

    def __init__(self, param: str, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, param=param)


class StrictLoss(RequestError):
    """``translation.strict`` refuses what would lose something.

    Attributes:
      losses: all of it.
    """

    code = "translation_loss"

    def __init__(self, losses: tuple[Loss, ...]) -> None:
        named = ", ".join(dict.fromkeys(loss.path for loss in losses))
        super().__init__(f"this provider cannot take: {named}", param=losses[0].path if losses else "")
        self.losses = losses
