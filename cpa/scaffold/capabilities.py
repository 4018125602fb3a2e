"""The 20 capabilities of plugins, each with a line for people."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

DESCRIPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model_registrar": "models for a provider that something else executes",
        "model_provider": "models of a provider, and of each of its credentials",
        "auth_provider": "credential files of a provider, signing in, refreshing tokens",
        "frontend_auth_provider": "which clients are let in",
        "scheduler": "which credential serves an attempt",
        "model_router": "which provider or executor serves a request",
        "executor": "answers in the place of a provider, streamed or not",
        "request_translator": "requests between formats that CPA cannot translate",
        "request_normalizer": "changes requests in the provider's format, last of all",
        "request_interceptor": "changes or refuses requests of clients",
        "request_lifecycle_plugin": "is told of every request that is over, and how it ended",
        "response_translator": "answers between formats that CPA cannot translate",
        "response_before_translator": "changes answers in the provider's format",
        "response_after_translator": "changes answers in the client's format",
        "response_interceptor": "changes whole answers on their way to the client",
        "response_stream_interceptor": "changes or drops chunks of streamed answers",
        "thinking_applier": "reasoning settings of requests for a provider of its own",
        "usage_plugin": "is told what every attempt cost",
        "command_line_plugin": "flags of the command line",
        "management_api": "pages in the browser, and routes of the management API",
    }
)
"""Switch of the contract (plugin-abi 3.5), in its order, to what it does."""
