"""Codes of errors inside a Responses stream (translation 5.3)."""

from typing import Final

from cpa.formats.errors import WireError, stream_code

_TYPED_CODES: Final = frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "invalid_prompt",
        "data_residency_mismatch",
        "bio_policy",
        "misalignment_policy_violation",
        "vector_store_timeout",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
        # Not among the vendor's typed values, but sent by it: agents compact or give up when they see them.
        "context_length_exceeded",
        "insufficient_quota",
    }
)
_CONTENT_CODES: Final = frozenset({"content_policy_violation", "content_filter", "cyber_policy_violation"})


def typed_code(error: WireError) -> str:
    """``response.error.code``, one that the vendor's clients know (5.3)."""
    code = error.code or stream_code(error)
    if code in _TYPED_CODES:
        return code
    if error.status == 429 or code.startswith("rate_limit"):
        return "rate_limit_exceeded"
    return "invalid_prompt" if code in _CONTENT_CODES or code.startswith("cyber_policy") else "server_error"
