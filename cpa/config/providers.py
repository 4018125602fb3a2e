"""Sections that name providers: key lists, openai-compatibility, models, error rules, OAuth tables."""

from collections.abc import Mapping
from enum import Enum, auto
from functools import partial

import attrs

from cpa.config import kinds
from cpa.config.fields import At, Kind, Section, boolean, integer, list_of, map_of, one_of, section, text
from cpa.config.nodes import ScalarNode, SequenceNode, is_null
from cpa.config.schema import (
    ApiKeyEntry,
    ErrorAction,
    ModelEntry,
    OAuthModelAlias,
    OpenAICompatibility,
    ProviderKeyEntry,
    RequestScopedError,
    ThinkingSpec,
)

MAX_PRIORITY = 1_000_000_000
"""Bound of every priority: more than anybody needs, less than any integer type."""
MAX_RETRIES = 1000
"""Bound of ``request-retry``."""
MAX_TOKENS = 1_000_000_000
"""Bound of budgets and context lengths."""

PRIORITY = integer(-MAX_PRIORITY, MAX_PRIORITY)

_OUT_OF_SCOPE = frozenset(
    {
        *("codex", "xai", "antigravity", "claude-header-defaults", "codex-header-defaults", "claude-code", "cloak"),
        *("disable-claude-cloak-mode", "fingerprint-profile", "experimental-cch-signing", "credential-concurrency"),
        *("credential-in-flight", "gpt-image-2-base-model", "video-result-auth-cache-ttl", "antigravity-credits"),
    }
)


def out_of_scope(key: str) -> bool:
    """True for keys of CLIProxyAPI whose features CPA does not have, in whatever section they stand."""
    return key in _OUT_OF_SCOPE or key.startswith("antigravity-signature-")


class Needs(Enum):
    """What an entry of a provider's list cannot do without."""

    KEY_OR_URL = auto()
    URL = auto()
    KEY = auto()


@attrs.frozen(kw_only=True)
class Family:
    """What the lists of provider keys differ in; *extra* is a key that only this one has."""

    needs: Needs
    extra: str = ""
    model_needs_alias: bool = False


GEMINI = Family(needs=Needs.KEY_OR_URL)
CLAUDE = Family(needs=Needs.KEY_OR_URL, extra="rebuild-mid-system-message")
CODEX = Family(needs=Needs.URL, extra="websockets")
VERTEX = Family(needs=Needs.KEY, model_needs_alias=True)

_LEVELS = {level: level for level in ("none", "auto", "minimal", "low", "medium", "high", "xhigh", "max")}


def _thinking(keys: Section) -> ThinkingSpec:
    low = keys.get("min", integer(0, MAX_TOKENS), 0)
    high = keys.get("max", integer(0, MAX_TOKENS), 0)
    zero = keys.get("zero-allowed", boolean, False)
    dynamic = keys.get("dynamic-allowed", boolean, False)
    levels: tuple[str, ...] = keys.get("levels", list_of(one_of(_LEVELS), "levels"), ())
    if low > high:
        keys.reject("max", f"a budget of at least min ({low})")
    return ThinkingSpec(
        min=low,
        max=high,
        zero_allowed=zero or "none" in levels,
        dynamic_allowed=dynamic or "auto" in levels,
        levels=tuple(level for level in dict.fromkeys(levels) if level not in ("none", "auto")),
    )


def _model(keys: Section, *, needs_alias: bool) -> ModelEntry:
    name_kind = text("a model name", allow_empty=False)
    if needs_alias:
        name = keys.require("name", name_kind, "a model name", "")
        alias = keys.require("alias", name_kind, "a model name", "")
    else:
        if not keys.has("name") and not keys.has("alias"):
            keys.reject("name", "a model name")
        name = keys.get("name", name_kind, "")
        alias = keys.get("alias", text("a model name"), "")
    return ModelEntry(
        name=name or alias,
        alias=alias,
        display_name=keys.get("display-name", text(), ""),
        force_mapping=keys.get("force-mapping", boolean, False),
        thinking=keys.get("thinking", section(_thinking), None),
        max_context_length=keys.get("max-context-length", integer(0, MAX_TOKENS), 0),
        is_compat=keys.get("is-compat", boolean, False),
        image=keys.get("image", boolean, False),
        input_modalities=keys.get("input-modalities", kinds.texts("a modality"), ()),
        output_modalities=keys.get("output-modalities", kinds.texts("a modality"), ()),
    )


def _models(*, needs_alias: bool = False) -> Kind[tuple[ModelEntry, ...]]:
    return list_of(section(partial(_model, needs_alias=needs_alias), ignored=out_of_scope), "models")


def _error_rule(keys: Section) -> RequestScopedError:
    rule = RequestScopedError(
        status=keys.require("status", integer(100, 599), "an HTTP status", 0),
        match=keys.get("match", list_of(_needle, "strings"), ()),
        match_regexr=keys.get("match-regexr", list_of(kinds.regular_expression, "regular expressions"), ()),
        action=keys.require("action", one_of(_ACTIONS), f"one of {', '.join(_ACTIONS)}", ErrorAction.STOP),
    )
    if not any(_has_items(keys, key) for key in ("match", "match-regexr")):
        keys.reject("match", "at least one entry in match or match-regexr")
    return rule


_ACTIONS = {action.value: action for action in ErrorAction}


def _needle(at: At) -> str:
    # Not trimmed: blanks are part of what is searched for. An empty text would be found everywhere.
    if not isinstance(at.node, ScalarNode) or not at.node.text:
        raise at.reject("a text to search for")
    return at.node.text


def _has_items(keys: Section, key: str) -> bool:
    node = keys.node.get(key)
    return isinstance(node, SequenceNode) and bool(node.items)


MODEL = section(partial(_model, needs_alias=False), ignored=out_of_scope)
"""One item of ``models``."""
ERROR_RULE = section(_error_rule)
"""One item of ``request-scoped-errors``."""
ERROR_RULES = list_of(ERROR_RULE, "error rules")
"""``request-scoped-errors``."""


def _retries(at: At) -> int | None:
    # Negative = inherit, as for an absent key.
    retries = integer(-MAX_RETRIES, MAX_RETRIES)(at)
    return retries if retries >= 0 else None


def _provider_key(keys: Section, *, family: Family) -> ProviderKeyEntry:
    entry = ProviderKeyEntry(
        api_key=keys.get("api-key", text("a key", secret=True), ""),
        base_url=keys.get("base-url", kinds.base_url, ""),
        priority=keys.get("priority", PRIORITY, 0),
        weight=keys.get("weight", kinds.weight, 1),
        prefix=keys.get("prefix", kinds.prefix, ""),
        proxy_url=keys.get("proxy-url", kinds.proxy_url, ""),
        headers=keys.get("headers", kinds.headers, {}),
        models=keys.get("models", _models(needs_alias=family.model_needs_alias), ()),
        excluded_models=keys.get("excluded-models", kinds.excluded_models, ()),
        disable_cooling=keys.get("disable-cooling", boolean, None),
        request_retry=keys.get("request-retry", _retries, None),
        request_scoped_errors=keys.get("request-scoped-errors", ERROR_RULES, ()),
        rebuild_mid_system_message=_only(keys, "rebuild-mid-system-message", family),
        websockets=_only(keys, "websockets", family),
    )
    has_key, has_url = not is_blank(keys, "api-key"), not is_blank(keys, "base-url")
    if family.needs is Needs.URL and not has_url:
        keys.reject("base-url", "an http or https URL with a host")
    if family.needs is Needs.KEY and not has_key:
        keys.reject("api-key", "a key")
    if family.needs is Needs.KEY_OR_URL and not has_key and not has_url:
        raise keys.at.reject("api-key or base-url", got="neither")
    return entry


def _only(keys: Section, key: str, family: Family) -> bool:
    return keys.get(key, boolean, False) if key == family.extra else False


def is_blank(keys: Section, key: str) -> bool:
    """True when *key* is absent, null or an empty text: judged by what stands there, usable or not."""
    node = keys.node.get(key)
    return node is None or (isinstance(node, ScalarNode) and not node.text.strip()) or is_null(node)


def provider_keys(family: Family) -> Kind[tuple[ProviderKeyEntry, ...]]:
    """One of the ``*-api-key`` lists."""
    return list_of(section(partial(_provider_key, family=family), ignored=out_of_scope), "mappings")


def _key_entry(keys: Section) -> ApiKeyEntry:
    return ApiKeyEntry(
        api_key=keys.get("api-key", text("a key", secret=True), ""),
        weight=keys.get("weight", kinds.weight, 1),
        proxy_url=keys.get("proxy-url", kinds.proxy_url, ""),
    )


def _compatible(keys: Section) -> OpenAICompatibility:
    entry = OpenAICompatibility(
        name=keys.get("name", text("a name"), ""),
        priority=keys.get("priority", PRIORITY, 0),
        disabled=keys.get("disabled", boolean, False),
        prefix=keys.get("prefix", kinds.prefix, ""),
        base_url=keys.get("base-url", kinds.base_url, ""),
        headers=keys.get("headers", kinds.headers, {}),
        api_key_entries=keys.get("api-key-entries", list_of(section(_key_entry, ignored=out_of_scope), "mappings"), ()),
        models=keys.get("models", _models(), ()),
        excluded_models=keys.get("excluded-models", kinds.excluded_models, ()),
        support_prompt_cache_key=keys.get("support-prompt-cache-key", boolean, False),
        disable_cooling=keys.get("disable-cooling", boolean, None),
        request_retry=keys.get("request-retry", _retries, None),
        request_scoped_errors=keys.get("request-scoped-errors", ERROR_RULES, ()),
    )
    if not entry.disabled and is_blank(keys, "base-url"):
        keys.reject("base-url", "an http or https URL with a host")
    return entry


OPENAI_COMPATIBILITY = list_of(section(_compatible, ignored=out_of_scope), "mappings")
"""``openai-compatibility``."""


def _alias(keys: Section) -> OAuthModelAlias:
    name_kind = text("a model name", allow_empty=False)
    return OAuthModelAlias(
        name=keys.require("name", name_kind, "a model name", ""),
        alias=keys.require("alias", name_kind, "a model name", ""),
        fork=keys.get("fork", boolean, False),
        display_name=keys.get("display-name", text(), ""),
        force_mapping=keys.get("force-mapping", boolean, False),
    )


ALIAS = section(_alias)
"""One item of ``oauth-model-alias.<channel>``."""


def _aliases(at: At) -> tuple[OAuthModelAlias, ...]:
    entries = list_of(ALIAS, "mappings")(at)
    seen: set[str] = set()
    for entry in entries:
        folded = entry.alias.lower()
        if folded and folded in seen:
            raise at.reject("every alias once in a channel", got=f"{entry.alias!r} twice")
        seen.add(folded)
    return entries


OAUTH_MODEL_ALIAS: Kind[Mapping[str, tuple[OAuthModelAlias, ...]]] = map_of(_aliases, "aliases", key=kinds.channel)
"""``oauth-model-alias``."""
OAUTH_EXCLUDED_MODELS = map_of(kinds.excluded_models, "model patterns", key=kinds.channel)
"""``oauth-excluded-models``."""
OAUTH_REQUEST_SCOPED_ERRORS = map_of(ERROR_RULES, "error rules", key=kinds.channel)
"""``oauth-request-scoped-errors``."""
