"""The operator's payload rules: the last hand on a body before it goes to a provider (proxy 2.8).

Theory of operation. `payload_of` compiles the section once per configuration. `Payload.select` asks what can be told
without looking at a body: names, protocols, headers. What it gives, `Chosen`, has the rules that are left; mostly there
are none, and then no body is even put together. `Chosen.apply` opens the body once, as a `Document`, and runs over it
in the order of the contract: image tools out, default, default-raw, override, override-raw, filter. Conditions on the
body see what earlier rules have made of it.

A rule that cannot be applied because the body cannot be read ends the request: an operator who filters or overrides
something means it, and a stranger must not get round it by sending odd JSON.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs
import structlog

from cpa.config.schema import Config, FrozenJson, ImageGeneration, PathValue, PayloadMatch, PayloadRules, thaw
from cpa.errors import MalformedRequest, RawHeaders
from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import ALIASES
from cpa.formats.paths import Document, Glob, Path, PathError, compile_path
from cpa.formats.sse import event_data, split_events
from cpa.types import JsonValue

log = structlog.get_logger(__name__)

_IMAGE_SIGNS = (b"image_generation", b"\\u")
"""A body with neither of them does not name the tool, however it spells it."""
_IMAGE_TOOL = "image_generation"
_IMAGE_TOOLS = compile_path('tools.#(type=="image_generation")#')
_IMAGES_CHOSEN = compile_path('tool_choice.tools.#(type=="image_generation")#')
_TOOLS, _CHOICE = compile_path("tools"), compile_path("tool_choice")
_TOOL_MEMBERS = (_TOOLS, _CHOICE, compile_path("parallel_tool_calls"))
_CHOSEN_TOOLS, _CHOICE_TYPE = compile_path("tool_choice.tools"), compile_path("tool_choice.type")
_EMPTY = b"[]"


@attrs.frozen(kw_only=True)
class Facts:
    """What is known of an attempt beside its body.

    Attributes:
      names: of the model, as rules may write it.
      protocol, client_protocol: sent upstream; spoken by the client.
    """

    names: tuple[str, ...]
    protocol: str
    client_protocol: str
    headers: RawHeaders = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Conditions:
    """One item of a rule's ``models``; all that is given must hold."""

    name: Glob
    protocol: str
    client_protocol: str
    headers: tuple[tuple[bytes, Glob], ...]
    match: tuple[tuple[Path, JsonValue], ...]
    not_match: tuple[tuple[Path, JsonValue], ...]
    exist: tuple[Path, ...]
    not_exist: tuple[Path, ...]

    def may_hold(self, facts: Facts) -> bool:
        """They do, as far as *facts* say."""
        return (
            self.protocol in ("", facts.protocol)
            and self.client_protocol in ("", facts.client_protocol)
            and any(self.name.matches(name) for name in facts.names)
            and all(_has_header(facts.headers, name, value) for name, value in self.headers)
        )

    def hold(self, body: Document) -> bool:
        """They do, as far as *body* says."""
        return (
            all(map(body.exists, self.exist))
            and not any(map(body.exists, self.not_exist))
            and all(_is(body.get(path), value) for path, value in self.match)
            and not any(_is(body.get(path), value) for path, value in self.not_match)
        )


@attrs.frozen(kw_only=True)
class Rule:
    """What to do with paths where one of *when* holds. *values*: JSON texts; filters do not look at them."""

    when: tuple[Conditions, ...]
    values: tuple[tuple[Path, bytes], ...]

    def narrowed(self, facts: Facts) -> "Rule | None":
        """What is left of it for *facts*, None when it cannot fire."""
        when = tuple(item for item in self.when if item.may_hold(facts))
        return attrs.evolve(self, when=when) if when else None

    def fires(self, body: Document) -> bool:
        """One of its items holds."""
        return any(item.hold(body) for item in self.when)


@attrs.frozen(kw_only=True)
class Chosen:
    """The rules that may concern one attempt."""

    strips_images: bool
    default: tuple[Rule, ...]
    override: tuple[Rule, ...]
    filter: tuple[Rule, ...]

    def apply(self, body: bytes, *, original: bytes) -> bytes:
        """*body* after the rules; the same object when none has changed anything.

        Args:
          original: as it was translated, before thinking settings: what it lacks is what defaults fill in.

        Raises: MalformedRequest when rules may concern a body that cannot be read as a JSON object.
        """
        rules = self.default or self.override or self.filter
        if not rules and not any(sign in body for sign in _IMAGE_SIGNS):
            return body
        try:
            document = Document(body)
            if self.strips_images:
                strip_images(document)
            self._fill_in(document, original)
            for rule in self.override:
                if rule.fires(document):
                    for path, value in rule.values:
                        document.set(path, value)
            for rule in self.filter:
                if rule.fires(document):
                    for path, _ in rule.values:
                        document.delete(path)
            return document.dump()
        except JsonError as exc:
            raise MalformedRequest("the request body is not a JSON object") from exc

    def _fill_in(self, document: Document, original: bytes) -> None:
        """``default`` and ``default-raw``: of several rules for one path the first that fires counts."""
        # Not the document at hand: it changes, and defaults must not see each other.
        before: Document | None = None
        done: set[str] = set()
        for rule in self.default:
            if not rule.fires(document):
                continue
            for path, value in rule.values:
                if path.text in done:
                    continue
                done.add(path.text)
                before = before or Document(original)
                for place in document.places(path):
                    if not before.has(place):
                        document.put(place, value)


@attrs.frozen(kw_only=True)
class Payload:
    """A compiled ``payload`` section, with ``disable-image-generation``. Falsy when it never does anything."""

    images: ImageGeneration = ImageGeneration.ALLOW
    default: tuple[Rule, ...] = ()
    override: tuple[Rule, ...] = ()
    filter: tuple[Rule, ...] = ()

    def __bool__(self) -> bool:
        strips = self.images in (ImageGeneration.DISABLE, ImageGeneration.CHAT)
        return strips or bool(self.default or self.override or self.filter)

    def select(
        self,
        *,
        upstream_model: str,
        requested_model: str,
        requested_full: str,
        protocol: str,
        client_protocol: str,
        headers: RawHeaders = (),
        image_route: bool = False,
    ) -> Chosen | None:
        """The rules that may concern an attempt; None when none can.

        Args:
          upstream_model, requested_model: without suffixes; requested_full: as the client wrote it.
          headers: the client's, lower-case names.
          image_route: the client came by ``/v1/images/*``.
        """
        facts = Facts(
            names=tuple(dict.fromkeys((upstream_model, requested_model, requested_full))),
            protocol=protocol,
            client_protocol=client_protocol,
            headers=headers,
        )
        chosen = Chosen(
            strips_images=self.images is ImageGeneration.DISABLE
            or (self.images is ImageGeneration.CHAT and not image_route),
            default=_narrowed(self.default, facts),
            override=_narrowed(self.override, facts),
            filter=_narrowed(self.filter, facts),
        )
        concerned = chosen.strips_images or chosen.default or chosen.override or chosen.filter
        return chosen if concerned else None

    def apply(
        self,
        body: bytes,
        *,
        original: bytes,
        upstream_model: str,
        requested_model: str,
        requested_full: str,
        protocol: str,
        client_protocol: str,
        headers: RawHeaders = (),
    ) -> bytes:
        """`select` and `Chosen.apply` in one. Raises: MalformedRequest."""
        chosen = self.select(
            upstream_model=upstream_model,
            requested_model=requested_model,
            requested_full=requested_full,
            protocol=protocol,
            client_protocol=client_protocol,
            headers=headers,
        )
        return body if chosen is None else chosen.apply(body, original=original)


def _narrowed(rules: Iterable[Rule], facts: Facts) -> tuple[Rule, ...]:
    return tuple(left for rule in rules if (left := rule.narrowed(facts)) is not None)


# --- image generation -------------------------------------------------------------------------------------------------


def strip_images(body: Document) -> None:
    """Take the image tool out of *body*: from its tools, and from what it wants to be chosen of them.

    Members that mean something beside tools only go with the last tool: providers refuse them alone.
    """
    if body.get(_IMAGE_TOOLS) is not None:
        body.delete(_IMAGE_TOOLS)
        if body.get(_TOOLS) == _EMPTY:
            for path in _TOOL_MEMBERS:
                body.delete(path)
    chosen = body.get(_IMAGES_CHOSEN) is not None
    if chosen:
        body.delete(_IMAGES_CHOSEN)
    if _is(body.get(_CHOICE_TYPE), _IMAGE_TOOL) or (chosen and body.get(_CHOSEN_TOOLS) == _EMPTY):
        body.delete(_CHOICE)


# --- names in answers -------------------------------------------------------------------------------------------------

_MODEL_PLACES = (
    ("model",),
    ("modelVersion",),
    ("response", "model"),
    ("response", "modelVersion"),
    ("message", "model"),
)
"""Where protocols name the model that answers."""
_MODEL_SIGN = b'"model'


def force_model(body: bytes, name: str) -> bytes:
    """The JSON answer or unit *body* with *name* wherever it names its model (``force-mapping``, proxy 2.4).

    The same object when it names none; also when it cannot be read: that is for others to judge.
    """
    if _MODEL_SIGN not in body:
        return body
    try:
        document = Document(body)
        for place in _MODEL_PLACES:
            if document.has(place):
                document.put(place, encode(name))
    except JsonError:
        return body
    return document.dump()


def force_model_events(block: bytes, name: str) -> bytes:
    """The same for whole events of a stream; comments, event names and end marks stay."""
    if _MODEL_SIGN not in block:
        return block
    return b"".join(_forced(event, name) for event in split_events(block))


def _forced(event: bytes, name: str) -> bytes:
    data = event_data(event)
    forced = b"" if data is None else force_model(data, name)
    if data is None or forced is data:
        return event
    # Line breaks are only between the tokens of JSON; within one line of data there may be none.
    forced = forced.replace(b"\r", b" ").replace(b"\n", b" ")
    if data in event:
        return event.replace(data, forced, 1)
    others = [line + b"\n" for line in event.splitlines() if line and not line.startswith(b"data")]
    return b"".join(others) + b"data: " + forced + b"\n\n"


# --- conditions -------------------------------------------------------------------------------------------------------


def _has_header(headers: RawHeaders, name: bytes, value: Glob) -> bool:
    return any(key == name and value.matches(text.decode("latin-1")) for key, text in headers)


def _is(text: bytes | None, value: JsonValue) -> bool:
    """The JSON *text* stands for *value*. Large texts are decoded only to be compared with what is large itself."""
    if text is None or (text[:1] in (b"{", b"[")) != isinstance(value, dict | list):
        return False
    return equal(decode(text), value)


def equal(one: JsonValue, other: JsonValue) -> bool:
    """Deep equality as JSON has it: ``1`` is ``1.0``, but never ``true``."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


# --- compiling --------------------------------------------------------------------------------------------------------


def payload_of(config: Config) -> Payload:
    """What *config* says of bodies for providers."""
    return compile_rules(config.payload, images=config.disable_image_generation)


def compile_rules(rules: PayloadRules, *, images: ImageGeneration = ImageGeneration.ALLOW) -> Payload:
    """Read all paths and values. What makes no sense is left out, loudly: one path, or one item of conditions."""
    return Payload(
        images=images,
        default=(
            *(_rule("default", rule.models, _values(rule.params)) for rule in rules.default),
            *(_rule("default-raw", rule.models, _texts(rule.params)) for rule in rules.default_raw),
        ),
        override=(
            *(_rule("override", rule.models, _values(rule.params)) for rule in rules.override),
            *(_rule("override-raw", rule.models, _texts(rule.params)) for rule in rules.override_raw),
        ),
        filter=tuple(_rule("filter", rule.models, ((path, _DELETED) for path in rule.params)) for rule in rules.filter),
    )


def _rule(section: str, models: Iterable[PayloadMatch], values: Iterable[tuple[str, bytes]]) -> Rule:
    """One rule as far as it makes sense: items without a name never match anyway."""
    when = []
    for item in models:
        try:
            if item.name:
                when.append(_conditions(item))
        except PathError as exc:
            log.warning("payload.item_ignored", section=f"payload.{section}", name=item.name, problem=str(exc))
    readable = []
    for path, value in values:
        try:
            decode(value)
            readable.append((compile_path(path), value))
        except (PathError, JsonError) as exc:
            log.warning("payload.path_ignored", section=f"payload.{section}", path=path, problem=str(exc))
    return Rule(when=tuple(when), values=tuple(readable))


def _conditions(item: PayloadMatch) -> Conditions:
    """Raises: PathError."""
    return Conditions(
        name=Glob(item.name),
        protocol=ALIASES.get(item.protocol, item.protocol),
        client_protocol=ALIASES.get(item.from_protocol, item.from_protocol),
        headers=tuple((name.lower().encode("latin-1", "replace"), Glob(v)) for name, v in item.headers.items()),
        match=_pairs(item.match),
        not_match=_pairs(item.not_match),
        exist=tuple(map(compile_path, item.exist)),
        not_exist=tuple(map(compile_path, item.not_exist)),
    )


def _pairs(given: Iterable[PathValue]) -> tuple[tuple[Path, JsonValue], ...]:
    return tuple((compile_path(pair.path), thaw(pair.value)) for pair in given)


def _values(params: Mapping[str, FrozenJson]) -> Iterator[tuple[str, bytes]]:
    return ((path, encode(thaw(value))) for path, value in params.items())


def _texts(params: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    return ((path, text.encode("utf-8", "surrogatepass")) for path, text in params.items())


_DELETED: Final = b"null"
"""Stands where a rule has no value."""
