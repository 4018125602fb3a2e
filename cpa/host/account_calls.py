"""The four calls that make credentials and models of what plugins say: messages to values and back.

Each raises what the plugin's call raises (`CpaError`); what an answer says that makes no sense is left out and logged.
"""

from datetime import datetime
from typing import Final

import attrs
import msgspec

from cpa.abi import methods, wire
from cpa.abi.kinds import B64, ZERO_TIME
from cpa.abi.wire import ModelInfo
from cpa.credentials.files import CredentialFile, CredentialFileError
from cpa.credentials.model import Credential
from cpa.host.auth_data import Origin, credential_of, updated
from cpa.host.plugin import LivePlugin
from cpa.host.plugin_models import StaticModels, sensible_models, static_models
from cpa.host.scopes import ScopeRegistry
from cpa.observability.log import get_logger

log = get_logger()

MAX_AUTHS: Final = 1000
"""Credentials of one file."""
PRESENTED_AS: Final = {"gemini": "gemini-cli"}
"""File types that plugins know by another name."""
NO_DATA: Final = wire.AuthData()


@attrs.frozen(kw_only=True, eq=False)
class Parsed:
    """What a plugin made of a file of that *digest*. Not *handled*: it is none of the plugin's."""

    digest: str
    handled: bool
    credentials: tuple[Credential, ...] = ()


@attrs.frozen(kw_only=True, eq=False)
class OwnModels:
    """The models of one credential.

    Attributes:
      asked: the credential as it was when the plugin was asked.
      credential: the same as the plugin changed it.
      infos: None = the plugin has nothing to do with this credential.
    """

    asked: Credential
    credential: Credential
    infos: tuple[ModelInfo, ...] | None


@attrs.frozen(kw_only=True, eq=False)
class Refreshed:
    """A credential as a plugin renewed it. *wanted*: when the plugin wants to be asked next, None = as usual."""

    credential: Credential
    wanted: datetime | None


async def parse(plugin: LivePlugin, file: CredentialFile, host: wire.HostSummary) -> Parsed:
    """`auth.parse` of *file*."""
    origin = Origin.of(file)
    origin = attrs.evolve(
        origin, provider=PRESENTED_AS.get(origin.provider, origin.provider) or plugin.identifiers.auth.lower()
    )
    reply = await plugin.call(
        methods.AUTH_PARSE,
        wire.AuthParseRequest(
            provider=origin.provider,
            path=str(file.path),
            file_name=file.name,
            raw_json=B64(file.raw),
            host=host,
        ),
    )
    if not reply.handled:
        return Parsed(digest=file.digest, handled=False)
    records = reply.auths[:MAX_AUTHS] or (reply.auth,)
    virtual = len(records) > 1
    found: dict[str, Credential] = {}
    for number, record in enumerate(records, 1):
        identifier = record.id.strip() or (f"{origin.id}#{number}" if virtual else origin.id)
        data = msgspec.structs.replace(record, id=identifier)
        if not virtual and not data.storage_json.strip() and not data.metadata:
            data = msgspec.structs.replace(data, storage_json=file.raw)
        try:
            credential = credential_of(data, origin, virtual=virtual)
        except CredentialFileError as exc:
            log.warning("plugin makes no credential of a file", plugin=plugin.id, file=file.name, reason=exc.message)
            continue
        if credential.id in found:
            log.warning("plugin repeats a credential", plugin=plugin.id, file=file.name, auth_id=credential.id)
        found.setdefault(credential.id, credential)
    return Parsed(digest=file.digest, handled=True, credentials=tuple(found.values()))


async def ask_static(plugin: LivePlugin, host: wire.HostSummary) -> StaticModels:
    """`model.static`, or `model.register` of a plugin that does not have the former."""
    if plugin.capabilities.model_provider:
        static = await plugin.call(methods.MODEL_STATIC, wire.StaticModelsRequest(plugin=plugin.metadata, host=host))
        return static_models(static.provider, static.models)
    registered = await plugin.call(methods.MODEL_REGISTER, wire.PluginRequest(plugin=plugin.metadata))
    return static_models(registered.provider, registered.models)


async def ask_own(
    plugin: LivePlugin, scopes: ScopeRegistry, credential: Credential, host: wire.HostSummary
) -> OwnModels:
    """`model.for_auth` of *credential*."""
    async with scopes.open(plugin.id) as scope:
        reply = await plugin.call(
            methods.MODEL_FOR_AUTH,
            wire.AuthModelsRequest(
                plugin=plugin.metadata,
                auth_id=credential.id,
                auth_provider=credential.provider,
                storage_json=B64(credential.storage_json),
                metadata=credential.metadata,
                attributes=dict(credential.attributes),
                host=host,
            ),
            scope_id=scope.id,
            unwind=scope.unwind,
        )
    if reply.provider.strip().lower() not in ("", credential.provider):
        return OwnModels(asked=credential, credential=credential, infos=None)
    changed = credential
    if reply.auth_update != NO_DATA:
        try:
            changed = updated(credential, reply.auth_update, merge=True)
        except CredentialFileError as exc:
            log.warning("plugin's update of a credential is ignored", plugin=plugin.id, reason=exc.message)
    return OwnModels(asked=credential, credential=changed, infos=sensible_models(reply.models))


async def ask_refresh(
    plugin: LivePlugin, scopes: ScopeRegistry, credential: Credential, host: wire.HostSummary
) -> Refreshed:
    """`auth.refresh` of *credential*. Raises: also CredentialFileError, when the answer makes no sense."""
    async with scopes.open(plugin.id) as scope:
        reply = await plugin.call(
            methods.AUTH_REFRESH,
            wire.RefreshRequest(
                auth_id=credential.id,
                auth_provider=credential.provider,
                storage_json=B64(credential.storage_json),
                metadata=credential.metadata,
                attributes=dict(credential.attributes),
                host=host,
            ),
            scope_id=scope.id,
            unwind=scope.unwind,
        )
    data = msgspec.structs.replace(reply.auth, next_refresh_after=ZERO_TIME)  # only the one beside it counts
    wanted = None if reply.next_refresh_after == ZERO_TIME else reply.next_refresh_after
    return Refreshed(credential=updated(credential, data, merge=False), wanted=wanted)
