"""What the example that masks secrets costs: streams through a proxy with it and without any plugin."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

from cpa.config.schema import Isolation
from tests.bench import libraries, processes
from tests.bench.figures import Layout, Section
from tests.bench.load import Job
from tests.bench.machine import Cores
from tests.bench.plugins import (
    Environment,
    Part,
    Round,
    burst_job,
    check_chunks,
    lone_job,
    paced_job,
    rotated,
    run_job,
    run_part,
    time_per_chunk,
)
from tests.bench.processes import ROOT, Child, Generator
from tests.bench.record import Record
from tests.bench.scenarios import Figure, Scale

SECRET = "sk-proj-0123456789abcdefghijABCDEFGHIJ"
CONVERSATION = b'"messages":['
MASKED = b'"messages":[{"role":"user","content":"My key is %b."},' % SECRET.encode()

SYSTEMS = ("none", "clean", "secret", "inline")
LAYOUT = Layout(
    name="Masking secrets (examples/plugin/redact)",
    systems=SYSTEMS,
    base="none",
    spreads=(("clean", "none"), ("secret", "none"), ("inline", "none")),
    absolute=("none", "clean", "secret", "inline"),
    judged="secret",
)
"""``clean``: requests without a secret. ``secret``: with one, so that their answers are looked through. ``inline``:
likewise, in the proxy's own process."""
PACED = Figure(key="redact.paced", title="CPU per paced chunk, proxy and worker", unit="µs")
BURST = Figure(key="redact.burst", title="CPU per chunk at full speed, proxy and worker", unit="µs")
WHOLE = Figure(key="redact.time", title="time per chunk of a lone stream", unit="µs")
ADDED = Figure(key="redact.added", title="added time per chunk of a lone stream", unit="µs", added=True)
JOBS = ((PACED, paced_job), (BURST, burst_job), (WHOLE, lone_job))


def build(folder: Path) -> None:
    """The plugin as its Makefile builds it. Raises: StartError."""
    make = ["make", "-C", str(ROOT / "examples" / "plugin"), "build", "EXAMPLES=redact", "LANGUAGES=rust"]
    libraries.run([*make, f"BIN={folder / 'bin'}", f"BUILD={folder / 'build'}"])


def settings(folder: Path, isolation: Isolation) -> str:
    """The configuration's section."""
    return (
        f"plugins:\n  enabled: true\n  dir: {folder / 'bin'}\n  isolation: {isolation}\n"
        "  configs:\n    redact: {enabled: true}\n"
    )


def with_secret(job: Job) -> Job:
    """The same job, whose requests have a secret in them."""
    head, _, body = job.request.partition(b"\r\n\r\n")
    body = body.replace(CONVERSATION, MASKED, 1)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    lines.append(b"content-length: %d" % len(body))
    return attrs.evolve(job, request=b"\r\n".join(lines) + b"\r\n\r\n" + body)


@contextmanager
def open_proxies(env: Environment) -> Iterator[Round]:
    """A proxy without plugins, two with it. Raises: StartError."""
    build(env.folder)
    with ExitStack() as stack:

        def open_proxy(text: str, name: str) -> Child:
            return stack.enter_context(processes.proxy(env.cores, env.provider_port, text, name))

        bare = open_proxy("", "cpa without")
        own = open_proxy(settings(env.folder, Isolation.PROCESS), "cpa with redact")
        inline = open_proxy(settings(env.folder, Isolation.INLINE), "cpa with redact inline")
        proxies = {"none": bare, "clean": own, "secret": own, "inline": inline}
        yield lambda number: measure_streams(env, proxies, number)


def measure_streams(env: Environment, proxies: Mapping[str, Child], number: int) -> None:
    """Each kind of stream for all systems in turn. Raises: LoadError unless all gave the same number of chunks."""
    for figure, make in JOBS:
        found = {}
        for name in rotated(SYSTEMS, number):
            job = make(env.scale, proxies[name])
            found[name] = run_job(env, proxies[name], job if name == "clean" else with_secret(job))
        check_chunks({name: outcome for name, (outcome, _) in found.items()})
        for name, (outcome, workers_s) in found.items():
            if figure is WHOLE:
                for key in (WHOLE.key, ADDED.key):
                    env.record.keep(key, name, time_per_chunk(outcome) * 1e6)
            else:
                env.record.keep(figure.key, name, (outcome.cpu_s + workers_s) / outcome.events * 1e6)


PART = Part(name="redact", section=Section(layout=LAYOUT, figures=(PACED, BURST, WHOLE, ADDED)), open=open_proxies)
SECTION = PART.section


def measure(
    scale: Scale, cores: Cores, generator: Generator, provider_port: int, record: Record, *, only: str = ""
) -> None:
    """The part, if its name contains *only* and there is a compiler for it. Raises: LoadError, StartError."""
    if only not in PART.name:
        return
    if shutil.which("cargo") is None:
        record.say("redact: no cargo on this machine")
        return
    with TemporaryDirectory(prefix="cpa-bench-") as directory:
        env = Environment(
            scale=scale,
            cores=cores,
            generator=generator,
            provider_port=provider_port,
            record=record,
            folder=Path(directory),
        )
        run_part(env, PART)
