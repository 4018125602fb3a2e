"""What tools returned, as text and media (2.8)."""

from cpa.translation.ir import Media, Result, Text
from cpa.translation.media import document_text, placeholder

ERROR_PREFIX = "Error: "
SEPARATOR = "\n"


def result_text(result: Result, *, mark_error: bool = False) -> str:
    """All of a result as text; media become placeholders.

    Args:
      mark_error: the target has no flag for errors (Chat, Responses): the text begins with ``Error: ``.
    """
    if result.json:
        text = result.json.decode("utf-8", "replace")
    else:
        text = SEPARATOR.join(filter(None, (_part_text(part) for part in result.parts)))
    return error_text(text) if mark_error and result.is_error else text


def error_text(text: str) -> str:
    """*text* marked as an error's, once."""
    return text if text.startswith(ERROR_PREFIX) else ERROR_PREFIX + text


def split_result_media(result: Result, *, mark_error: bool = False) -> tuple[str, list[Media]]:
    """(text, media) of a result, for targets that take text only in it. Text documents are text."""
    if result.json:
        return result_text(result, mark_error=mark_error), []
    media = [part for part in result.parts if isinstance(part, Media) and not part.text]
    texts = [_part_text(part) for part in result.parts if isinstance(part, Text) or part.text]
    text = SEPARATOR.join(filter(None, texts))
    return (error_text(text) if mark_error and result.is_error else text), media


def media_intro(result: Result) -> Text:
    """What introduces the media of *result* in the user message after it (Chat)."""
    return Text(text=f"[media returned by tool call {result.call_id}]")


def _part_text(part: Text | Media) -> str:
    if isinstance(part, Text):
        return part.text
    if part.text:
        return document_text(part)
    return placeholder(part.mime or part.media.value).text
