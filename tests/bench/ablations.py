"""What design choices are worth: the proxy as shipped against one in which a single thing is switched off.

A switch that the program does not have (any more) is told and left out. `again` is a second proxy as shipped: what two
runs of the same program differ by.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import attrs

from tests.bench import payloads, processes, scenarios
from tests.bench.figures import Layout, Section
from tests.bench.load import Job
from tests.bench.plugins import Environment, Part, Round, rotated
from tests.bench.processes import NOTHING, ROOT, Child
from tests.bench.scenarios import STREAMS, Figure
from tests.bench.serve_cpa import WITHOUT

ROUNDS: Final = 2
SMALL: Final = scenarios.small(32)
AGENT: Final = scenarios.agent()


@attrs.frozen(kw_only=True)
class Choice:
    """One thing that can be otherwise.

    Attributes:
      title: what is switched off, or on.
      variable: environment variable and its value that do so; *text* is what does so in the configuration.
    """

    key: str
    title: str
    variable: tuple[str, str] = ("", "")
    text: str = ""

    @property
    def environment(self) -> Mapping[str, str]:
        """For the process."""
        name, value = self.variable
        return {name: value} if name else NOTHING


AGAIN: Final = Choice(key="again", title="nothing switched: the same again")
CHOICES: Final = (
    AGAIN,
    Choice(key="http1", title="Hypercorn's HTTP/1.1 instead of ours", variable=("CPA_HTTP1", "hypercorn")),
    Choice(key="upstream", title="httpx's client instead of our way to providers", variable=("CPA_UPSTREAM", "httpx")),
    Choice(key="access", title="no access log", variable=(WITHOUT, "access-log")),
    Choice(key="ledger", title="no usage ledger", text="usage: {ledger: {enabled: false}}\n"),
    Choice(key="metrics", title="with metrics", text="metrics: {enabled: true}\n"),
)
SHIPPED: Final = "shipped"
LAYOUT: Final = Layout(
    name="What design choices are worth",
    systems=(SHIPPED, "switched"),
    base=SHIPPED,
    spreads=(("switched", SHIPPED),),
    absolute=("switched", SHIPPED),
    judged="switched",
)
KINDS: Final = {
    "request": "CPU per small request, c=32",
    "chunk": f"CPU per chunk, {STREAMS} paced streams",
    "agent": "CPU per request with a 300 KB body",
}


def figure(choice: Choice, kind: str) -> Figure:
    """One row."""
    return Figure(key=f"ablation.{choice.key}.{kind}", title=f"{choice.title}: {KINDS[kind]}", unit="µs")


def stream_job(child: Child) -> Job:
    """As the paced streams of the forwarding part, half as long."""
    request = payloads.http_request(payloads.chat_body(payloads.PLUGIN_PACED_MODEL, stream=True))
    return Job(
        port=child.port,
        request=request,
        connections=STREAMS,
        requests=STREAMS,
        spread_s=scenarios.SPREAD_S / 2,
        pid=child.pid,
    )


def known(choices: Sequence[Choice]) -> list[Choice]:
    """Those whose switch occurs in the sources of the program or of the bench."""
    folders = (ROOT / "cpa", ROOT / "tests" / "bench")
    sources = [path for folder in folders for path in folder.rglob("*.py") if path.name != "ablations.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    return [choice for choice in choices if choice.variable[0] in text]


@contextmanager
def open_proxies(env: Environment) -> Iterator[Round]:
    """A proxy for each choice, and one as shipped. Raises: StartError."""
    choices = known(CHOICES)
    for choice in CHOICES:
        if choice not in choices:
            env.record.say(f"{choice.title}: no switch {choice.variable[0]} here, left out")
    with ExitStack() as stack:
        proxies = {SHIPPED: stack.enter_context(processes.proxy(env.cores, env.provider_port, name=SHIPPED))}
        for choice in choices:
            proxies[choice.key] = stack.enter_context(
                processes.proxy(env.cores, env.provider_port, choice.text, choice.key, choice.environment)
            )
        yield lambda number: measure(env, choices, proxies, number)


def measure(env: Environment, choices: Sequence[Choice], proxies: Mapping[str, Child], number: int) -> None:
    """Everything once. Raises: LoadError."""
    names = rotated(list(proxies), number)
    found: dict[tuple[str, str], float] = {}
    for name in names:
        child = proxies[name]
        outcome = env.generator.run(SMALL.job(env.scale, child.port, child.pid))
        found[name, "request"] = outcome.cpu_s / outcome.requests * 1e6
        outcome = env.generator.run(stream_job(child))
        found[name, "chunk"] = outcome.cpu_s / len(outcome.delays_s) * 1e6
        outcome = env.generator.run(AGENT.job(env.scale, child.port, child.pid))
        found[name, "agent"] = outcome.cpu_s / outcome.requests * 1e6
    for choice in choices:
        for kind in KINDS:
            key = figure(choice, kind).key
            env.record.keep(key, SHIPPED, found[SHIPPED, kind])
            env.record.keep(key, "switched", found[choice.key, kind])


PART: Final = Part(
    name="ablations",
    section=Section(layout=LAYOUT, figures=tuple(figure(choice, kind) for choice in CHOICES for kind in KINDS)),
    open=open_proxies,
    rounds=ROUNDS,
)
