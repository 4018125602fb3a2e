"""The ``payload`` section: rules that rewrite the body sent upstream."""

import json
from collections.abc import Mapping
from types import MappingProxyType

from cpa.config import kinds
from cpa.config.fields import At, Section, any_key, json_value, list_of, map_of, section, text
from cpa.config.nodes import MappingNode, ScalarNode, SequenceNode, to_json
from cpa.config.schema import (
    FrozenJson,
    PathValue,
    PayloadFilterRule,
    PayloadMatch,
    PayloadRawRule,
    PayloadRule,
    PayloadRules,
    thaw,
)

_RESPONSES = {"responses", "response", "openai-response", "openai-responses"}


def _from_protocol(at: At) -> str:
    name = text("a protocol")(at).lower()
    return "openai-response" if name in _RESPONSES else name


def _protocol(at: At) -> str:
    return text("a protocol")(at).lower()


def _conditions(at: At) -> tuple[PathValue, ...]:
    if not isinstance(at.node, SequenceNode | MappingNode):
        raise at.reject("a list of mappings from path to value", secret=True)
    pairs = map_of(json_value, "paths to values", key=any_key)
    groups = (pairs(at),) if isinstance(at.node, MappingNode) else list_of(pairs, "mappings")(at)
    return tuple(PathValue(path=path, value=value) for group in groups for path, value in group.items())


def _match(keys: Section) -> PayloadMatch:
    if not keys.has("name"):
        keys.at.warn("an item without name never matches")
    return PayloadMatch(
        name=keys.get("name", text("a model pattern"), ""),
        protocol=keys.get("protocol", _protocol, ""),
        from_protocol=keys.get("from-protocol", _from_protocol, ""),
        headers=keys.get("headers", kinds.lower_headers, {}),
        match=keys.get("match", _conditions, ()),
        not_match=keys.get("not-match", _conditions, ()),
        exist=keys.get("exist", kinds.texts("a path"), ()),
        not_exist=keys.get("not-exist", kinds.texts("a path"), ()),
    )


_MATCHES = list_of(section(_match), "mappings")


def _params(at: At) -> Mapping[str, FrozenJson]:
    # Not map_of: a null is a value here, unlike anywhere else in the file.
    if not isinstance(at.node, MappingNode):
        raise at.reject("a mapping of paths to values", secret=True)
    return MappingProxyType({entry.key: to_json(entry.node) for entry in at.node.entries})


def _rule(keys: Section) -> PayloadRule:
    return PayloadRule(models=keys.get("models", _MATCHES, ()), params=keys.get("params", _params, {}))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _raw_params(at: At) -> Mapping[str, str] | None:
    """Path to JSON text; None when one of the texts is no JSON, which costs the whole rule."""
    if not isinstance(at.node, MappingNode):
        raise at.reject("a mapping of paths to JSON texts", secret=True)
    values: dict[str, str] = {}
    for entry in at.node.entries:
        place = at.member(entry)
        if not isinstance(entry.node, ScalarNode) or not isinstance(entry.node.value, str):
            values[entry.key] = json.dumps(thaw(to_json(entry.node)), ensure_ascii=False)
            continue
        try:
            json.loads(entry.node.text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            place.warn("not valid JSON; the whole rule is left out")
            return None
        values[entry.key] = entry.node.text
    return MappingProxyType(values)


def _raw_rule(keys: Section) -> PayloadRawRule | None:
    models: tuple[PayloadMatch, ...] = keys.get("models", _MATCHES, ())
    nothing: Mapping[str, str] | None = MappingProxyType({})
    params = keys.get("params", _raw_params, nothing)
    return None if params is None else PayloadRawRule(models=models, params=params)


def _raw_rules(at: At) -> tuple[PayloadRawRule, ...]:
    return tuple(rule for rule in list_of(section(_raw_rule), "rules")(at) if rule is not None)


def _filter_rule(keys: Section) -> PayloadFilterRule:
    return PayloadFilterRule(
        models=keys.get("models", _MATCHES, ()), params=keys.get("params", kinds.texts("a path"), ())
    )


def read_payload(keys: Section) -> PayloadRules:
    """The whole section."""
    rules = list_of(section(_rule), "rules")
    return PayloadRules(
        default=keys.get("default", rules, ()),
        default_raw=keys.get("default-raw", _raw_rules, ()),
        override=keys.get("override", rules, ()),
        override_raw=keys.get("override-raw", _raw_rules, ()),
        filter=keys.get("filter", list_of(section(_filter_rule), "rules"), ()),
    )
