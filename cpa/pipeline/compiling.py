"""Reading chains: what people write becomes what runs, and all that is wrong with it is said at once."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from cpa.config.schema import FrozenJson, freeze
from cpa.errors import ConfigError
from cpa.formats.names import ALIASES, SAME_WIRE, Format
from cpa.formats.paths import Glob
from cpa.pipeline.chains import (
    NATIVE,
    PAYLOAD,
    PLUGIN,
    PLUGINS,
    STANDARD,
    TRANSLATE,
    BodyStep,
    By,
    Chain,
    Compiled,
    Edit,
    Matcher,
    PayloadStep,
    PluginStep,
    Step,
    Translate,
)
from cpa.pipeline.stage import StageKind
from cpa.pipeline.steps.catalogue import STEPS
from cpa.pipeline.steps.values import MAX_SHOWN_CHARS, Side, WrongSetting, shown
from cpa.types import PluginId

WORDS: Final = (TRANSLATE, PLUGINS, PLUGIN, PAYLOAD)
VIA_FORMATS: Final = tuple(fmt for fmt in Format if fmt is not Format.CODEX)
"""What a translation may go through: protocols that clients speak and providers too."""
_PLUGIN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@attrs.frozen
class Problem:
    """Something wrong. *path*: below the chain, e.g. ``request[2].set``; *text*: ``expected …, got …``."""

    path: str
    text: str


def canonical(name: str) -> str:
    """The name of a protocol as the rest of the program has it."""
    lower = name.strip().lower()
    return ALIASES.get(lower, lower)


def same_wire(source: str, target: str) -> bool:
    """Bodies pass as they are."""
    return bool(source) and (source == target or (source, target) in SAME_WIRE)


@attrs.define(eq=False)
class _Judge:
    """Reads the steps of one chain and notes what is wrong with them."""

    chain: Chain
    problems: list[Problem] = attrs.field(factory=list)

    def reject(self, path: str, expected: str, got: str) -> None:
        self.problems.append(Problem(path, f"expected {expected}, got {got}"))

    # each step alone

    def read(self, side: Side) -> list[tuple[int, Step]]:
        """The usable steps of *side* with their indexes."""
        found: list[tuple[int, Step]] = []
        for index, given in enumerate(self.chain.request if side is Side.REQUEST else self.chain.response):
            step = self._step(given, side, f"{side}[{index}]")
            if step is not None:
                found.append((index, step))
        return found

    def _step(self, given: object, side: Side, path: str) -> Step | None:
        if callable(given):
            name = getattr(given, "__name__", type(given).__name__)
            return Edit(label=f"python: {name}", call=given)
        try:
            frozen = freeze(given)
        except TypeError:
            frozen = None
        if isinstance(frozen, str) and frozen:
            return self._named(frozen, None, side, path, bare=True)
        if isinstance(frozen, Mapping) and frozen:
            name = PLUGIN if PLUGIN in frozen else next(iter(frozen))
            if name == PLUGIN:
                return self._plugin(frozen, side, path)
            if len(frozen) == 1:
                return self._named(name, frozen[name], side, path, bare=False)
        self.reject(path, "a step: a name, or a mapping of one name to its setting", shown(given))
        return None

    def _named(self, name: str, setting: FrozenJson, side: Side, path: str, *, bare: bool) -> Step | None:
        if name == TRANSLATE:
            return self._translate(setting, path)
        if name in (PLUGINS, PAYLOAD) and not bare:
            self.reject(f"{path}.{name}", f"{name} without a setting", shown(setting))
            return None
        if name == PLUGINS:
            kind = StageKind.REQUEST_NORMALIZE if side is Side.REQUEST else StageKind.RESPONSE_NORMALIZE_BEFORE
            return PluginStep(kind=kind)
        if name == PAYLOAD:
            if side is Side.RESPONSE:
                self.reject(path, "a step for responses", f"{PAYLOAD}, whose rules are for requests")
                return None
            return PayloadStep()
        if name == PLUGIN:
            self.reject(path, "{plugin: ID}", "plugin without an id")
            return None
        return self._normalizer(name, setting, side, path, bare=bare)

    def _normalizer(self, name: str, setting: FrozenJson, side: Side, path: str, *, bare: bool) -> Step | None:
        definition = STEPS.get(name)
        if definition is None:
            listed = ", ".join(sorted(name for name, each in STEPS.items() if side in each.sides))
            words = (TRANSLATE, PLUGINS, PLUGIN) if side is Side.RESPONSE else WORDS
            short = name if len(name) <= MAX_SHOWN_CHARS and name.isprintable() else f"{name[:4]!r}…"
            self.reject(path, f"the name of a step ({', '.join(words)}, {listed})", repr(short))
            return None
        if side not in definition.sides:
            [other] = definition.sides
            self.reject(path, f"a step for {side}s", f"{name}, which is one for {other}s")
            return None
        if bare and definition.setting:
            self.reject(path, f"{{{name}: …}} with {definition.setting}", f"{name} without a setting")
            return None
        if not bare and not definition.setting:
            self.reject(f"{path}.{name}", f"{name} without a setting", shown(setting))
            return None
        try:
            call = definition.make(setting)
        except WrongSetting as exc:
            self.problems.append(Problem(f"{path}.{name}{exc.path}", exc.text))
            return None
        return Edit(label=_label(name, setting), call=call, formats=definition.formats)

    def _plugin(self, given: Mapping[str, FrozenJson], side: Side, path: str) -> Step | None:
        unknown = [name for name in given if name not in (PLUGIN, "required")]
        plugin_id, required = given[PLUGIN], given.get("required", False)
        if unknown:
            self.reject(path, "a plugin and perhaps required", f"the key {unknown[0][:MAX_SHOWN_CHARS]!r}")
        elif not _is_plugin_id(plugin_id):
            self.reject(f"{path}.{PLUGIN}", "the id of a plugin", shown(plugin_id))
        elif not isinstance(required, bool):
            self.reject(f"{path}.required", "true or false", shown(required))
        else:
            kind = StageKind.REQUEST_NORMALIZE if side is Side.REQUEST else StageKind.RESPONSE_NORMALIZE_BEFORE
            return PluginStep(kind=kind, plugin_id=PluginId(str(plugin_id)), required=required)
        return None

    def _translate(self, setting: FrozenJson, path: str) -> Step | None:
        expected = "native, the id of a plugin, or {via: FORMAT}"
        if setting is None:
            self.reject(path, f"{{{TRANSLATE}: …}} with {expected}", f"{TRANSLATE} without a setting")
            return None
        if isinstance(setting, Mapping) and tuple(setting) == ("via",):
            via = setting["via"]
            name = ALIASES.get(via.lower(), via.lower()) if isinstance(via, str) else ""
            if name not in VIA_FORMATS:
                self.reject(f"{path}.{TRANSLATE}.via", f"one of {', '.join(VIA_FORMATS)}", shown(via))
                return None
            return Translate(by=By.VIA, via=Format(name))
        if setting == NATIVE:
            return Translate(by=By.NATIVE)
        if _is_plugin_id(setting):
            return Translate(by=By.PLUGIN, plugin_id=PluginId(str(setting)))
        self.reject(f"{path}.{TRANSLATE}", expected, shown(setting))
        return None

    # all steps together

    def line_up(self, side: Side, steps: list[tuple[int, Step]]) -> Translate | None:
        """Judge the order of *side*. Returns: its translation, None without one."""
        # Of steps that could not be read one may have been the translation.
        whole = not any(problem.path.startswith(f"{side}[") for problem in self.problems)
        source, target = canonical(self.chain.match.source), canonical(self.chain.match.target)
        begin, end = (source, target) if side is Side.REQUEST else (target, source)
        translations = [(index, step) for index, step in steps if isinstance(step, Translate)]
        for index, _ in translations[1:]:
            self.reject(
                f"{side}[{index}]", f"one {TRANSLATE} step", f"another one; the first is {side}[{translations[0][0]}]"
            )
        if not translations and steps and whole and not same_wire(source, target):
            formats = f"{source or 'any protocol'} and {target or 'any protocol'} differ"
            self.reject(str(side), f"one {TRANSLATE} step, since {formats}", "none")
        for index, translation in translations[:1]:
            self._check_translation(f"{side}[{index}].{TRANSLATE}", translation)
        at = translations[0][0] if translations else len(self.chain.request) + len(self.chain.response)
        for index, step in steps:
            here = begin if index < at else end
            if isinstance(step, Edit) and here and step.formats is not None and not _applies(here, step.formats):
                known = ", ".join(fmt for fmt in Format if fmt in step.formats)
                where = "before" if index < at else "behind"
                place = f", {where} the translation" if translations else ""
                got = f"{step.label}{place}, where bodies are {here}"
                self.reject(f"{side}[{index}]", f"a step that works on {here}", f"{got}; it works on {known}")
        return translations[0][1] if translations else None

    def _check_translation(self, path: str, step: Translate) -> None:
        source, target = canonical(self.chain.match.source), canonical(self.chain.match.target)
        foreign = [name for name in (source, target) if name and name not in tuple(Format)]
        if step.by in (By.NATIVE, By.VIA) and foreign:
            self.reject(
                path, f"the id of a plugin, since only plugins know {foreign[0]}", step.label.partition(": ")[2]
            )
        elif step.by is By.VIA and step.via in (source, target) and not same_wire(source, target):
            end = "the client's" if step.via == source else "the provider's"
            self.reject(f"{path}.via", f"another protocol than {end}", str(step.via))
        elif step.by in (By.NATIVE, By.VIA) and source == Format.CODEX:
            self.reject(path, "a protocol that clients speak in match.from", source)


def _label(name: str, setting: FrozenJson) -> str:
    if setting is None:
        return name
    if isinstance(setting, bool | int | float):
        return f"{name}: {str(setting).lower()}"
    if isinstance(setting, str):
        return f"{name}: {setting[:MAX_SHOWN_CHARS]}"
    return f"{name}: {', '.join(map(str, setting))[:60]}"


def _applies(here: str, formats: frozenset[Format]) -> bool:
    # What a plugin has invented is nobody's business but the plugin's.
    return here not in tuple(Format) or here in formats


def _is_plugin_id(value: FrozenJson) -> bool:
    return isinstance(value, str) and _PLUGIN_ID.fullmatch(value) is not None


def compile_chain(chain: Chain) -> tuple[Compiled, tuple[Problem, ...]]:
    """*chain* as it runs, and all that is wrong with it; with problems the result is for nobody."""
    judge = _Judge(chain)
    if not isinstance(chain.name, str) or not chain.name.strip():
        judge.reject("name", "a name", shown(chain.name))
    request, response = judge.read(Side.REQUEST), judge.read(Side.RESPONSE)
    there = judge.line_up(Side.REQUEST, request)
    back = judge.line_up(Side.RESPONSE, response)
    if there is not None and back is not None and {there.by, back.by} & {By.VIA} and there != back:
        # Names of tools and the like are mapped on the way there; only the same way back maps them again.
        index = next(index for index, step in response if step is back)
        wanted, got = there.label.partition(": ")[2], back.label.partition(": ")[2]
        judge.reject(f"response[{index}].{TRANSLATE}", f"{wanted}, as in the request", got)
    if there is None and back is not None and back.by is By.VIA and request:
        judge.reject(str(Side.REQUEST), f"{back.label}, as in the response", "no translation")
    before, after = _split([step for _, step in response], translated=back is not None)
    match = chain.match
    return Compiled(
        name=chain.name,
        match=Matcher(
            source=canonical(match.source),
            target=canonical(match.target),
            models=tuple(map(Glob, match.models)),
            keys=tuple(map(Glob, match.keys)),
        ),
        request=_request([step for _, step in request], there),
        before=before if response else STANDARD.before,
        translate=back or there or Translate(),
        after=after if response else STANDARD.after,
    ), tuple(judge.problems)


def _request(steps: list[Step], there: Translate | None) -> tuple[Step, ...]:
    """The request's steps, with a translation: it does nothing where protocols are the same."""
    if not steps:
        return ()
    return tuple(steps) if there is not None else (Translate(), *steps)


def _split(steps: list[Step], *, translated: bool) -> tuple[tuple[BodyStep, ...], tuple[BodyStep, ...]]:
    """Steps of an answer on both sides of its translation.

    Without one, the first step of plugins stands for both of their stages: the bodies are the same before and behind.
    """
    before: list[BodyStep] = []
    after: list[BodyStep] = []
    crossed = False
    for step in steps:
        if isinstance(step, Translate):
            crossed = True
        elif isinstance(step, PayloadStep):
            continue  # noted as a problem
        elif not crossed:
            if isinstance(step, PluginStep) and not translated:
                crossed = True
                step = attrs.evolve(step, paired=True)
                after.append(attrs.evolve(step, kind=StageKind.RESPONSE_NORMALIZE_AFTER))
            before.append(step)
        else:
            kind = StageKind.RESPONSE_NORMALIZE_AFTER
            after.append(attrs.evolve(step, kind=kind) if isinstance(step, PluginStep) else step)
    return tuple(before), tuple(after)


def compile_chains(chains: Iterable[Chain], *, where: str = "chains") -> tuple[Compiled, ...]:
    """All of *chains*. Raises: ConfigError with every problem, each line beginning with *where* and an index."""
    found, problems = [], []
    for index, chain in enumerate(chains):
        compiled, wrong = compile_chain(chain)
        found.append(compiled)
        problems += [f"{where}[{index}].{problem.path}: {problem.text}" for problem in wrong]
    if problems:
        raise ConfigError(problems)
    return tuple(found)
