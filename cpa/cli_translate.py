"""`cpa translate`, and chains in `cpa plan`: what becomes of a body, without sending it anywhere."""

import argparse
import difflib
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio

from cpa.cli_plugin import clean, load_plugins, quiet, write_out
from cpa.config.load import Loaded, load_config
from cpa.config.schema import Config
from cpa.credentials.model import Credential
from cpa.errors import ConfigError, CpaError, UnsupportedFormat
from cpa.formats.json import StreamFlag, read_head
from cpa.formats.names import Format
from cpa.models.profiles import known_profile
from cpa.pipeline.applying import RequestSteps
from cpa.pipeline.chains import Compiled, PluginStep, Step, Translate, of_config, standard
from cpa.pipeline.compiling import compile_chains
from cpa.pipeline.exchange import ModelRequest
from cpa.pipeline.payload import payload_of
from cpa.pipeline.plan import Plan
from cpa.pipeline.stage import Registration
from cpa.pipeline.stream import AnswerContext, ChunkStages, transform_full
from cpa.pipeline.trace import StepRecord, Trace
from cpa.pipeline.translating import TranslationServices, answer_hops, request_hops
from cpa.translation.context import Context, TranslationSettings
from cpa.types import Candidate, Execution, Operation, RequestId, TraceId, UpstreamAnswer, UpstreamCall, Wire

FAILED: Final = 1
WRONG_USAGE: Final = 2
NO_MODEL: Final = "model"
"""What a model is called when neither body nor option says it."""
CONTEXT_LINES: Final = 2

EPILOG: Final = """\
The body comes on standard input. The result goes to standard output, as JSON on several lines or as the frames of a
stream; what could not be carried over goes to standard error. Nothing is sent anywhere.

examples:
  cpa translate --from claude --to gemini < request.json
  cpa translate --from openai --to claude --model claude-sonnet-4-5 < request.json
  cpa translate --response --from gemini --to claude < answer.json        an answer: provider first, then client
  cpa translate --response --stream --from openai --to claude < stream.sse
  cpa translate --chain claude-code-on-gemini --config config.yaml --steps < request.json

exit codes: 0 = translated, 1 = the body cannot be translated, 2 = wrong arguments or configuration
"""


def add_translate_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    add_config: Callable[[argparse.ArgumentParser], None],
    *,
    summary: str,
) -> None:
    """`cpa translate` on the command line. *summary*: its line in the list of commands."""
    command = commands.add_parser(
        "translate",
        help=summary,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = [fmt.value for fmt in Format]
    command.add_argument(
        "--from", dest="source", choices=formats, metavar="FORMAT", help=f"of the body: {', '.join(formats)}"
    )
    command.add_argument("--to", dest="target", choices=formats, metavar="FORMAT", help="of the result, likewise")
    command.add_argument("--chain", metavar="NAME", help="go through this chain of the configuration")
    add_config(command)
    command.add_argument("--no-plugins", action="store_true", help="do not load the plugins of the configuration")
    command.add_argument("--response", action="store_true", help="the body is an answer, not a request")
    command.add_argument("--stream", action="store_true", help="a request: ask for a stream; an answer: it is one")
    command.add_argument("--model", metavar="NAME", help="the provider's model (default: the body's)")
    command.add_argument("--steps", action="store_true", help="show what every step changes, as a diff")
    command.set_defaults(run=run_translate, usage_error=command.error)


@attrs.frozen(kw_only=True)
class Job:
    """One body and its way. *client*, *provider*: at the ends of the chain, whichever way the body goes."""

    config: Config
    chain: Compiled
    client: Format
    provider: Format
    response: bool
    stream: bool
    model: str
    body: bytes
    plan: Plan
    trace: Trace


@attrs.frozen
class Done:
    """What came out, and what was lost."""

    body: bytes
    contexts: tuple[Context, ...]


def run_translate(options: argparse.Namespace) -> int:
    """`cpa translate`."""
    config, path = Config(), Path()
    chain: Compiled | None = None
    if options.chain is not None:
        loaded, path = load_config(options.config), options.config
        config = loaded.config
        chain = chain_named(options.chain, loaded, path)
    source, target = ends(options, chain)
    client, provider = (target, source) if options.response else (source, target)
    if client is Format.CODEX and provider is not Format.CODEX:
        options.usage_error("no client speaks codex: it is a dialect of providers")
    body = sys.stdin.buffer.read()
    shown: dict[int, Shown] = {}
    trace = Trace(watch=lambda record, before, after: shown.setdefault(id(record), Shown()).add(before, after))
    job = Job(
        config=config,
        chain=chain or standard(client, provider),
        client=client,
        provider=provider,
        response=options.response,
        stream=options.stream,
        model=options.model or model_in(body) or NO_MODEL,
        body=body,
        plan=Plan.build(),
        trace=trace,
    )
    with_plugins = chain is not None and config.plugins.enabled and not options.no_plugins
    quiet()
    result = trio.run(translate, job, path, with_plugins)
    if options.steps:
        for line in steps_text(trace.steps, shown):
            print(line)
        print("== result")
    if isinstance(result, CpaError):
        sys.stdout.flush()
        print(f"cpa: {clean(result.message)}", file=sys.stderr)
        return FAILED
    write_out("stdout", result.body if options.response and options.stream else pretty(result.body))
    sys.stdout.flush()
    for line in dict.fromkeys(str(loss) for context in result.contexts for loss in context.losses):
        print(f"loss: {clean(line)}", file=sys.stderr)
    for record in trace.steps:
        if record.skipped:
            print(f"skipped: {record.side} step {clean(record.step)}: {record.skipped}", file=sys.stderr)
    return 0


def chain_named(name: str, loaded: Loaded, path: Path) -> Compiled:
    """A chain of the configuration. Raises: ConfigError when there is none of that name."""
    chains = compile_chains(map(of_config, loaded.config.pipeline.chains))
    for chain in chains:
        if chain.name == name:
            return chain
    known = ", ".join(chain.name for chain in chains) or "none"
    raise ConfigError([f"{path}: pipeline.chains: expected a chain named {name!r}, got {known}"])


def ends(options: argparse.Namespace, chain: Compiled | None) -> tuple[Format, Format]:
    """Protocols of the body and of the result; a chain says those that its match fixes. Ends the program if unknown."""
    match = ("", "") if chain is None else (chain.match.source, chain.match.target)
    fixed = match[::-1] if options.response else match
    found = []
    for option, given, wanted in (("--from", options.source, fixed[0]), ("--to", options.target, fixed[1])):
        if given and wanted and given != wanted:
            options.usage_error(f"{option} {given}: the chain is for {wanted} there")
        name = given or wanted
        if name not in tuple(Format):
            options.usage_error(f"{option} is needed" if not name else f"{option}: {name} is known to plugins only")
        found.append(Format(name))
    return found[0], found[1]


def model_in(body: bytes) -> str:
    """The model that a body names, if it names one."""
    try:
        return read_head(body).model
    except CpaError:
        return ""


async def translate(job: Job, path: Path, with_plugins: bool) -> Done | CpaError:
    """What comes out of *job*. Errors are returned: raised, they would arrive in groups."""
    try:
        async with plugins_of(job.config, path) if with_plugins else no_plugins() as registrations:
            job = attrs.evolve(job, plan=Plan.build(registrations))
            try:
                return await (translated_answer(job) if job.response else translated_request(job))
            except CpaError as exc:
                return exc
    except ConfigError as exc:
        return exc


def no_plugins() -> AbstractAsyncContextManager[tuple[Registration, ...]]:
    """For chains that have none."""
    return nullcontext(())


@asynccontextmanager
async def plugins_of(config: Config, path: Path) -> AsyncIterator[tuple[Registration, ...]]:
    """The stages of the configured plugins while the block runs."""
    async with load_plugins(config, path) as plugins:
        yield plugins.registrations()


class Offline:
    """The executor of a candidate that is never asked anything."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def wire(self, client: Format) -> Wire:
        """What it would speak."""
        return self._wire

    def open(self, call: UpstreamCall) -> AbstractAsyncContextManager[UpstreamAnswer]:
        """Never. Raises: UnsupportedFormat."""
        raise UnsupportedFormat("cpa translate sends nothing")


def parts_of(job: Job) -> tuple[ModelRequest, Candidate, Wire, TranslationServices]:
    """What an attempt consists of, as far as translation wants to know."""
    wire = Wire(input=job.provider, output=job.provider)
    request = ModelRequest(
        format=job.client,
        operation=Operation.GENERATE,
        model=job.model,
        stream=job.stream,
        body=b"" if job.response else job.body,
    )
    credential = Credential(id="translate", provider=str(job.provider), label="")
    candidate = Candidate(credential=credential, model=job.model, executor=Offline(wire))
    settings = TranslationSettings(**attrs.asdict(job.config.translation))
    services = TranslationServices(
        settings=settings, profile_of=lambda candidate, provider: known_profile(candidate.model, provider)
    )
    return request, candidate, wire, services


async def translated_request(job: Job) -> Done:
    """A request as its provider gets it. Raises: CpaError."""
    stream = job.stream or streams(job)
    request, candidate, wire, services = parts_of(attrs.evolve(job, stream=stream))
    hops = request_hops(request, candidate, wire, services, step=job.chain.carrier, thinking=None)
    payload = payload_of(job.config)

    steps = RequestSteps(
        chain=job.chain,
        plan=job.plan,
        trace=job.trace,
        execution=Execution(request_id=RequestId("translate"), trace_id=TraceId("")),
        source=job.client,
        target=job.provider,
        model=job.model,
        requested_model=job.model,
        stream=stream,
        operation=Operation.GENERATE,
        hops=hops,
        rules=lambda: payload.select(
            upstream_model=job.model,
            requested_model=job.model,
            requested_full=job.model,
            protocol=job.provider,
            client_protocol=job.client,
        ),
    )
    return Done(b"".join(await steps.run((job.body,))), hops)


def streams(job: Job) -> bool:
    """The request's body asks for a stream."""
    try:
        return read_head(job.body).stream is StreamFlag.TRUE
    except CpaError:
        return False


async def translated_answer(job: Job) -> Done:
    """An answer as its client gets it. Raises: CpaError."""
    request, candidate, wire, services = parts_of(job)
    hops = answer_hops(request, candidate, wire, services, step=job.chain.translate, asked=(), body=b"")
    context = AnswerContext(
        execution=Execution(request_id=RequestId("translate"), trace_id=TraceId("")),
        plan=job.plan,
        trace=job.trace,
        source=job.provider,
        target=job.client,
        native=True,
        translation=hops,
        model=job.model,
        requested_model=job.model,
        request_headers={},
        original_request=b"",
        request_body=b"",
        chain=job.chain,
    )
    if not job.stream:
        return Done(await transform_full(context, job.body), hops)
    stages = ChunkStages(context, headers={})
    if stages.idle:
        return Done(job.body, hops)
    frames = await stages.feed(job.body.rstrip(b"\r\n") + b"\n\n")
    return Done(frames if stages.ended else frames + await stages.finish(), hops)


# --- text ------------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Shown:
    """All that one step got and left."""

    before: list[bytes] = attrs.field(factory=list)
    after: list[bytes] = attrs.field(factory=list)

    def add(self, before: bytes, after: bytes) -> None:
        """One call."""
        self.before.append(before)
        self.after.append(after)


def steps_text(records: Iterable[StepRecord], shown: dict[int, Shown]) -> Iterator[str]:
    """What every step changed, as unified diffs."""
    for record in records:
        yield f"== {record.side}: {clean(record.step)}"
        seen = shown.get(id(record), Shown())
        if record.skipped:
            yield f"skipped: {record.skipped}"
        elif not record.changed:
            yield "failed" if record.failed else "unchanged"
        else:
            before, after = (
                [clean(line) for body in bodies for line in pretty(body).decode("utf-8", "replace").splitlines()]
                for bodies in (seen.before, seen.after)
            )
            yield from difflib.unified_diff(before, after, "before", "after", lineterm="", n=CONTEXT_LINES)


def pretty(body: bytes) -> bytes:
    """JSON on several lines, every value as it is written; what is no JSON stays."""
    try:
        return msgspec.json.format(body, indent=2) + b"\n"
    except (ValueError, RecursionError):
        return body


def chains_text(
    config: Config, registrations: Iterable[Registration], *, source: str | None, target: str | None
) -> Iterator[str]:
    """The chains that may serve clients and providers of these protocols, step by step; None = any."""
    plan = Plan.build(registrations)
    for chain in compile_chains(map(of_config, config.pipeline.chains)):
        match = chain.match
        if match.source not in ("", source or match.source) or match.target not in ("", target or match.target):
            continue
        models = ", ".join(pattern.pattern for pattern in match.models) or "any model"
        keys = f", {len(match.keys)} keys" if match.keys else ""
        yield f"  {chain.name}: {match.source or 'any client'} -> {match.target or 'any provider'}, {models}{keys}"
        steps = chain.request or _standard_steps(chain, match.source, match.target)
        yield f"    request   {_steps(steps, plan)}"
        yield f"    response  {_steps(chain.response, plan)}"
    if source is not None and target is not None:
        usual = standard(source, target)
        yield f"  (standard order): {source} -> {target}"
        yield f"    request   {_steps(usual.request, plan)}"
        yield f"    response  {_steps(usual.response, plan)}"


def _standard_steps(chain: Compiled, source: str, target: str) -> tuple[Step, ...]:
    steps = standard(source, target).request if source and target else standard(Format.OPENAI, Format.OPENAI).request
    return tuple(chain.translate if isinstance(step, Translate) else step for step in steps)


def _steps(steps: Iterable[Step], plan: Plan) -> str:
    return " | ".join(clean(step.label) + _plugins(step, plan) for step in steps)


def _plugins(step: Step, plan: Plan) -> str:
    """Who takes part in a step of plugins."""
    if not isinstance(step, PluginStep):
        return ""
    entries = plan.of(step.kind)
    if not step.plugin_id:
        return f" ({', '.join(entry.plugin_id for entry in entries) or 'none'})"
    return "" if any(entry.plugin_id == step.plugin_id for entry in entries) else " (not there)"
