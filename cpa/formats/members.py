"""What is read of a request's body, whatever its protocol, when its head is read: one pass serves all who ask."""

from typing import Final

import msgspec

NONE: Final = msgspec.Raw(b"")


class Members(msgspec.Struct, gc=False):
    """All members that matter, of a body and of the objects in it; one class does for both."""

    service_tier: msgspec.Raw = NONE
    generate: msgspec.Raw = NONE
    reasoning_effort: msgspec.Raw = NONE
    reasoning: msgspec.Raw = NONE
    effort: msgspec.Raw = NONE
    thinking: msgspec.Raw = NONE
    type: msgspec.Raw = NONE
    budget_tokens: msgspec.Raw = NONE
    output_config: msgspec.Raw = NONE
    generationConfig: msgspec.Raw = NONE
    generation_config: msgspec.Raw = NONE
    thinkingConfig: msgspec.Raw = NONE
    thinking_config: msgspec.Raw = NONE
    thinkingLevel: msgspec.Raw = NONE
    thinking_level: msgspec.Raw = NONE
    thinkingBudget: msgspec.Raw = NONE
    thinking_budget: msgspec.Raw = NONE
