"""The ``pipeline`` section: chains, judged as whoever runs them understands them."""

from cpa.config import kinds
from cpa.config.fields import At, Section, list_of, section, text
from cpa.config.nodes import MappingNode, Node, ScalarNode, SequenceNode, is_null, to_json
from cpa.config.schema import ChainConfig, ChainMatch, FrozenJson, PipelineConfig
from cpa.pipeline.chains import of_config
from cpa.pipeline.compiling import compile_chain

FORMATS = ("openai", "openai-response", "claude", "gemini", "codex", "interactions", "antigravity")
_STEP = "a step: a name, or a mapping of one name to its setting"


def _format(at: At) -> str:
    name = text("a protocol")(at).lower()
    if name and name not in FORMATS:
        # Plugins may bring protocols of their own, so this cannot be a problem.
        at.warn(f"not a protocol that CPA knows ({', '.join(FORMATS)}); the chain applies only to a plugin's")
    return name


def _match(keys: Section) -> ChainMatch:
    return ChainMatch(
        source=keys.get("from", _format, ""),
        target=keys.get("to", _format, ""),
        models=keys.get("models", kinds.texts("a model pattern"), ()),
        keys=keys.get("keys", kinds.texts("a key", secret=True), ()),
    )


def _step(at: At) -> FrozenJson:
    match at.node:
        case ScalarNode(value=str(name)) if name.strip():
            return name.strip()
        case MappingNode(entries=entries) if entries and not any(is_null(entry.node) for entry in entries):
            return to_json(at.node)
        case MappingNode(entries=entries):
            raise at.reject(_STEP, got=f"a mapping of {len(entries)} names, or without setting")
    raise at.reject(_STEP)


def _chain(keys: Section) -> ChainConfig:
    steps = list_of(_step, "steps")
    before = len(keys.at.findings.problems)
    chain = ChainConfig(
        name=keys.require("name", text("a name", allow_empty=False), "a name", ""),
        match=keys.get("match", section(_match), ChainMatch()),
        request=keys.get("request", steps, ()),
        response=keys.get("response", steps, ()),
    )
    # Indexes of steps would be wrong, and half a chain not line up, where a step could not be read.
    if len(keys.at.findings.problems) == before:
        for problem in compile_chain(of_config(chain))[1]:
            place = f"{keys.at.path}.{problem.path}"
            keys.at.findings.problem(_line_of(keys.node, problem.path), place, problem.text)
    return chain


def _line_of(node: Node, path: str) -> int:
    """The line of what *path* (below *node*) leads to, or of the nearest that there is above it."""
    line = node.line
    for name in path.replace("]", "").replace("[", ".").split("."):
        inner: Node | None = None
        if isinstance(node, MappingNode):
            inner = node.get(name)
        elif isinstance(node, SequenceNode) and name.isdigit() and int(name) < len(node.items):
            inner = node.items[int(name)]
        if inner is None:
            break
        node, line = inner, inner.line
    return line


def _chains(at: At) -> tuple[ChainConfig, ...]:
    chains = list_of(section(_chain), "mappings")(at)
    names = [chain.name for chain in chains if chain.name]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            at.reject("every chain name once", got=f"{name!r} more than once")
    return chains


def read_pipeline(keys: Section) -> PipelineConfig:
    """The whole section."""
    return PipelineConfig(chains=keys.get("chains", _chains, ()))
