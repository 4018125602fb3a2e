"""Chains: which steps a request and its answer go through, and in which order (design 5).

Theory of operation. A `Chain` is what somebody has written, in YAML or in code; `compiling` judges it and makes a
`Compiled` one, a frozen value that a `Plan` holds. What runs where nobody has written anything is a compiled chain too,
`STANDARD` or `BY_PLUGINS`, so that there is one way through the pipeline. Plugins are named in chains and looked up
when a request comes: they come and go while the proxy runs.

Steps before ``translate`` see the protocol that the body comes in, those behind it the one that it leaves in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias

import attrs

from cpa.config.schema import ChainConfig, ChainMatch, FrozenJson
from cpa.errors import ConfigError
from cpa.formats.names import SAME_WIRE, Format, translates
from cpa.formats.paths import Glob
from cpa.pipeline.stage import StageKind
from cpa.pipeline.steps.values import StepFunction, shown
from cpa.types import PluginId

NATIVE_IDENTITY: Final = SAME_WIRE - {(Format.CLAUDE, Format.CLAUDE)}
"""Same-format pairs that count as natively translated; for Claude the contract asks the plugins (plugin-abi 6.3)."""
TRANSLATE, PLUGINS, PLUGIN, PAYLOAD = "translate", "plugins", "plugin", "payload"
"""Names of steps that are no normalizers."""
NATIVE: Final = "native"
NO_PLUGIN: Final = PluginId("")

GivenStep: TypeAlias = "str | Mapping[str, Any] | StepFunction"
"""A step as people write it: a name, a name with its setting, or a function ``(body, StepContext) -> body``."""


# --- compiled steps --------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Edit:
    """A normalizer, built in or an embedder's function. *formats*: where it can do anything; None = anywhere."""

    label: str
    call: StepFunction = attrs.field(eq=False)
    formats: frozenset[Format] | None = None


@attrs.frozen(kw_only=True)
class PayloadStep:
    """The operator's payload rules."""

    label: str = PAYLOAD


@attrs.frozen(kw_only=True)
class PluginStep:
    """Plugins that declare *kind*: all of them by priority, or the one with *plugin_id*.

    Attributes:
      required: without it the request ends.
      paired: this and another step are one to whoever wrote it; the plugin may declare either stage.
    """

    kind: StageKind
    plugin_id: PluginId = NO_PLUGIN
    required: bool = False
    paired: bool = False

    @property
    def label(self) -> str:
        """As it is written."""
        return f"{PLUGIN}: {self.plugin_id}" if self.plugin_id else PLUGINS


class By(StrEnum):
    """Who translates."""

    STANDARD = "standard"
    """we do, where we can; else whichever plugin does"""
    NATIVE = "native"
    PLUGIN = "plugin"
    VIA = "via"


@attrs.frozen(kw_only=True)
class Translate:
    """The step at which the protocol changes."""

    by: By = By.STANDARD
    plugin_id: PluginId = NO_PLUGIN
    via: Format | None = None

    @property
    def label(self) -> str:
        """As it is written."""
        what = {By.PLUGIN: str(self.plugin_id), By.VIA: f"via {self.via}"}
        return f"{TRANSLATE}: {what.get(self.by, NATIVE)}"


Step: TypeAlias = Edit | PayloadStep | PluginStep | Translate
BodyStep: TypeAlias = Edit | PluginStep


@attrs.frozen(kw_only=True)
class Matcher:
    """When a chain applies; empty members match everything."""

    source: str = ""
    target: str = ""
    models: tuple[Glob, ...] = ()
    keys: tuple[Glob, ...] = attrs.field(default=(), repr=False)

    def holds(self, *, source: str, target: str, models: Iterable[str], principal: str) -> bool:
        """It applies to a client and a provider of these protocols, to one of the names and to the key."""
        return (
            self.source in ("", source)
            and self.target in ("", target)
            and (not self.models or any(pattern.matches(model) for model in models for pattern in self.models))
            and (not self.keys or any(pattern.matches(principal) for pattern in self.keys))
        )


@attrs.frozen(kw_only=True)
class Compiled:
    """A chain that makes sense.

    Attributes:
      request: all steps, one of them a `Translate`; empty = the standard ones, which `choose` fills in.
      before, translate, after: of the answer, ``before`` in the provider's protocol, ``after`` in the client's.
      custom: somebody has written it; plugins' executors that already speak the client's protocol are then not left
        alone, since that was asked for.
    """

    name: str = ""
    match: Matcher = Matcher()
    request: tuple[Step, ...]
    before: tuple[BodyStep, ...]
    translate: Translate
    after: tuple[BodyStep, ...]
    custom: bool = True

    @property
    def response(self) -> tuple[Step, ...]:
        """All steps of the answer in order."""
        return (*self.before, self.translate, *self.after)

    @property
    def carrier(self) -> Translate:
        """The request's translation."""
        return next(step for step in self.request if isinstance(step, Translate))

    @property
    def edits(self) -> bool:
        """Answers are changed beside plugins and translation."""
        return any(isinstance(step, Edit) for step in (*self.before, *self.after))

    @property
    def after_only(self) -> "Compiled":
        """The rest of it for an answer that is translated already."""
        return attrs.evolve(self, before=(), translate=Translate(by=By.NATIVE))


_NORMALIZE: Final = PluginStep(kind=StageKind.REQUEST_NORMALIZE)
_BEFORE: Final = PluginStep(kind=StageKind.RESPONSE_NORMALIZE_BEFORE)
_AFTER: Final = PluginStep(kind=StageKind.RESPONSE_NORMALIZE_AFTER)

STANDARD: Final = Compiled(
    request=(Translate(), _NORMALIZE, PayloadStep()),
    before=(_BEFORE,),
    translate=Translate(),
    after=(_AFTER,),
    custom=False,
)
"""Between protocols that we translate, and where nothing has to be translated."""
BY_PLUGINS: Final = attrs.evolve(STANDARD, request=(_NORMALIZE, Translate(), PayloadStep()))
"""Where plugins may have to: their normalizers come first, in the client's protocol (plugin-abi 6.3)."""


def standard(source: str, target: str) -> Compiled:
    """The standard order between two protocols."""
    return STANDARD if translates(source, target) or (source, target) in NATIVE_IDENTITY else BY_PLUGINS


def choose(
    chains: Iterable[Compiled], *, source: str, target: str, models: Sequence[str], principal: str = ""
) -> Compiled:
    """The first of *chains* that applies, else the standard order."""
    for chain in chains:
        if chain.match.holds(source=source, target=target, models=models, principal=principal):
            return chain if chain.request else attrs.evolve(chain, request=_standard_request(chain, source, target))
    return standard(source, target)


def _standard_request(chain: Compiled, source: str, target: str) -> tuple[Step, ...]:
    """The standard steps with the translation that the answer has."""
    steps = standard(source, target).request
    return tuple(chain.translate if isinstance(step, Translate) else step for step in steps)


# --- chains as they are written --------------------------------------------------------------------------------------

_MATCH_KEYS: Final = ("from", "to", "models", "keys")


def _match(given: ChainMatch | Mapping[str, Any]) -> ChainMatch:
    if isinstance(given, ChainMatch):
        return given
    for name, value in given.items():
        if name not in _MATCH_KEYS:
            raise ConfigError([f"match: unknown key {name!r}; known keys: {', '.join(_MATCH_KEYS)}"])
        plural = name in ("models", "keys")
        if plural and (isinstance(value, str) or not all(isinstance(item, str) for item in value)):
            raise ConfigError([f"match.{name}: expected a list of strings, got {shown(value)}"])
        if not plural and not isinstance(value, str):
            raise ConfigError([f"match.{name}: expected a protocol, got {shown(value)}"])
    return ChainMatch(
        source=given.get("from", ""),
        target=given.get("to", ""),
        models=tuple(given.get("models", ())),
        keys=tuple(given.get("keys", ())),
    )


@attrs.frozen(kw_only=True)
class Chain:
    """A chain of an embedder, for `cpa.open_app`; the same as an item of ``pipeline.chains``.

    Attributes:
      match: ``{"from": …, "to": …, "models": […], "keys": […]}``, all optional; empty = everything.
      request, response: steps in order; empty = the standard order. A step is what YAML has, or a function
        ``(body: bytes, context: StepContext) -> bytes | None``, sync (it must not block) or async. What a function
        raises ends the request.

    Raises: ConfigError for a match that is none; steps are judged when the app is opened.
    """

    name: str
    match: ChainMatch = attrs.field(factory=ChainMatch, converter=_match)
    request: tuple[GivenStep, ...] = attrs.field(default=(), converter=tuple)
    response: tuple[GivenStep, ...] = attrs.field(default=(), converter=tuple)


def of_config(given: ChainConfig) -> Chain:
    """An item of the configuration."""
    steps: Callable[[tuple[FrozenJson, ...]], Any] = lambda frozen: frozen  # noqa: E731 - a cast with a reason
    return Chain(name=given.name, match=given.match, request=steps(given.request), response=steps(given.response))
