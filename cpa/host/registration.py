"""The greeting: what the host tells a plugin first, and what must come back (plugin-abi.md 3.1–3.5, 4.1)."""

from collections.abc import Awaitable
from typing import Any, Final, Protocol, TypeVar

import attrs

from cpa.abi import methods
from cpa.abi.envelope import PluginCallError, PluginReplyError
from cpa.abi.errors import PluginError
from cpa.abi.kinds import B64
from cpa.abi.methods import Method
from cpa.abi.wire import Capabilities, Empty, IdentifierReply, PluginMetadata, RegisterReply, RegisterRequest
from cpa.observability.log import get_logger

Q = TypeVar("Q")
R = TypeVar("R")

log = get_logger()

SCHEMA_VERSIONS: Final = (3, 2, 1)
"""Offered in this order; the first is the highest that we speak."""

_MANDATORY: Final = {
    "name": "Name",
    "version": "Version",
    "author": "Author",
    "repository": "GitHubRepository",
}


class RegistrationRefused(PluginError):
    """The plugin answered `plugin.register` or `plugin.reconfigure` with an error, or with what is no registration."""

    code = "plugin_registration_refused"


@attrs.frozen(kw_only=True)
class Identifiers:
    """Provider keys, trimmed and otherwise as the plugin spells them; empty = it has none, the capability is absent."""

    auth: str = ""
    frontend_auth: str = ""
    executor: str = ""
    thinking: str = ""


_IDENTIFIED: Final[tuple[tuple[str, str, Method[Empty, IdentifierReply]], ...]] = (
    ("auth", "auth_provider", methods.AUTH_IDENTIFIER),
    ("frontend_auth", "frontend_auth_provider", methods.FRONTEND_AUTH_IDENTIFIER),
    ("executor", "executor", methods.EXECUTOR_IDENTIFIER),
    ("thinking", "thinking_applier", methods.THINKING_IDENTIFIER),
)
"""Field above, capability, method."""


@attrs.frozen(kw_only=True)
class Registration:
    """What a plugin said of itself, judged.

    Attributes:
      schema_version: 1 to 3; the plugin's choice.
      offered: with which version it accepted; `plugin.reconfigure` starts there.
    """

    metadata: PluginMetadata
    capabilities: Capabilities
    schema_version: int
    offered: int
    identifiers: Identifiers


class Caller(Protocol):
    """``await call(method, request)`` on the plugin that is being greeted."""

    def __call__(self, method: Method[Q, R], request: Q, /) -> Awaitable[R]:
        """See `generation.Generation.call`."""
        ...


async def greet(
    call: Caller,
    method: Method[RegisterRequest, RegisterReply],
    config_yaml: bytes,
    *,
    plugin_id: str,
    highest: int = SCHEMA_VERSIONS[0],
) -> Registration:
    """Register or reconfigure a plugin and ask it for its identifiers.

    A plugin that refuses and names the schema in its reason is offered the next lower one.

    Args:
      highest: schema version to begin with.

    Raises:
      RegistrationRefused: what it answered does not do.
      PluginError: it crashed, or did not answer in time.
    """
    reply, offered = await _negotiate(call, method, config_yaml, plugin_id, highest)
    schema = reply.schema_version or 1
    if not 1 <= schema <= SCHEMA_VERSIONS[0]:
        raise RegistrationRefused(f"plugin schema version {schema} is not supported", plugin_id=plugin_id)
    blank = [wire for name, wire in _MANDATORY.items() if not getattr(reply.metadata, name).strip()]
    if blank:
        raise RegistrationRefused(f"plugin metadata are invalid: {', '.join(blank)} blank", plugin_id=plugin_id)
    declared = reply.capabilities.declared()
    if not declared:
        raise RegistrationRefused("plugin declares no capability", plugin_id=plugin_id)
    keys = {field: await _identifier(call, row, plugin_id) for field, switch, row in _IDENTIFIED if switch in declared}
    return Registration(
        metadata=reply.metadata,
        capabilities=reply.capabilities,
        schema_version=schema,
        offered=offered,
        identifiers=Identifiers(**keys),
    )


async def _negotiate(
    call: Caller, method: Method[RegisterRequest, RegisterReply], config_yaml: bytes, plugin_id: str, highest: int
) -> tuple[RegisterReply, int]:
    text = B64(config_yaml)
    offers = [version for version in SCHEMA_VERSIONS if version <= highest]
    for version in offers:
        try:
            return await call(method, RegisterRequest(config_yaml=text, schema_version=version)), version
        except PluginCallError as exc:
            if version == offers[-1] or not _names_the_schema(exc):
                raise RegistrationRefused(f"{method.name}: {exc.message}", plugin_id=plugin_id) from exc
            log.info("plugin refuses a schema version", plugin=plugin_id, schema=version, reason=exc.message)
    raise AssertionError("there is always version 1 to offer")


def _names_the_schema(error: PluginCallError) -> bool:
    return not isinstance(error, PluginReplyError) and "schema" in error.message.lower()


async def _identifier(call: Caller, method: Method[Any, IdentifierReply], plugin_id: str) -> str:
    try:
        key = (await call(method, Empty())).identifier.strip()
    except PluginCallError as exc:
        log.warning("plugin gives no identifier", plugin=plugin_id, method=method.name, reason=exc.message)
        return ""
    if not key:
        log.warning("plugin gives no identifier", plugin=plugin_id, method=method.name, reason="blank")
    return key
