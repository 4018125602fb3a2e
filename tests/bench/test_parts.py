"""Each part of the bench measures what it is named after, with real processes and the least of everything."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.bench import __main__ as main
from tests.bench import (
    ablations,
    budgets,
    capacity,
    forwarding,
    interceptors,
    libraries,
    multicore,
    payloads,
    peers,
    processes,
    scenarios,
    startup,
)
from tests.bench.client import LoadError
from tests.bench.forwarding import Contest, warm_up
from tests.bench.load import Outcome
from tests.bench.machine import Cores
from tests.bench.pingpong import PingJob, PingOutcome
from tests.bench.plugins import Environment, Part, run_part
from tests.bench.record import Record, Samples
from tests.bench.sampling import Layer
from tests.bench.scenarios import Scale
from tests.bench.serve_cpa import SAMPLED

TINY = Scale(rounds=1, seconds=0.05, warmup_s=0.01, idle_streams=3, repeats=1, lone_streams=2)
UNPINNED = Cores(subject=None, others=None)


@contextmanager
def bench(folder: Path) -> Iterator[Environment]:
    """Provider and generator, and where values go."""
    with processes.provider(UNPINNED) as provider, processes.generator(UNPINNED) as generator:
        yield Environment(
            scale=TINY,
            cores=UNPINNED,
            generator=generator,
            provider_port=provider.port,
            provider_pid=provider.pid,
            record=Record(TINY.rounds),
            folder=folder,
        )


def test_a_start_ends_with_the_first_answer_and_knows_what_it_took(tmp_path: Path) -> None:
    """The floor's, which is the same for the harness and quicker than the proxy's."""
    command = (sys.executable, "-m", "tests.bench.floor", "--provider-port")
    with bench(tmp_path) as env:
        found = startup.start("floor", (*command, str(env.provider_port)), UNPINNED)
        with pytest.raises(LoadError, match="ended with 3"):
            startup.start("imports", (sys.executable, "-c", "raise SystemExit(3)"), UNPINNED)

    assert found.keys() == {figure.key for figure in startup.PART.section.figures}
    assert 0 < found[startup.CPU.key] <= found[startup.TIME.key] * 2
    assert found[startup.MEMORY.key] > 5


def test_a_part_whose_program_is_missing_is_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not everybody has a compiler, and the rest of the bench is worth having."""
    part = Part(name="a part", section=interceptors.PART.section, open=interceptors.PART.open, needs="no-such-compiler")
    with bench(tmp_path) as env:
        run_part(env, part)

    assert env.record.samples == {}
    assert "a part: no no-such-compiler here, left out" in capsys.readouterr().err


def test_bare_round_trips_are_as_large_as_the_calls_of_a_real_plugin(tmp_path: Path) -> None:
    """A floor of smaller messages would be none."""
    with bench(tmp_path) as env:
        sizes = interceptors.record_sizes(env)
        program = libraries.compile_pong(tmp_path / "pong")
        argv = (sys.executable, "-m", "tests.bench.pingpong", str(program))
        with processes.running("ping-pong", argv, core=None) as child:
            for blocking in (False, True):
                job = PingJob(sizes=sizes, plugins=4, repeats=2, blocking=blocking)
                child.write(msgspec.json.encode(job) + b"\n")
                outcome = msgspec.json.decode(child.line(60), type=PingOutcome)
                assert len(outcome.streams_s) == 2
                assert all(seconds > 0 for seconds in outcome.streams_s)

    assert payloads.PLUGIN_CHUNKS <= len(sizes) <= payloads.PLUGIN_CHUNKS + 5
    # A chunk of the provider is 200 bytes and more, in base64 a third more.
    assert all(request > 300 and reply > 250 for request, reply in sizes)


def test_the_proxy_tells_by_layers_where_its_time_and_its_memory_go(tmp_path: Path) -> None:
    """Of streams that are really open, and of requests that were really made; also without an access log."""
    silent = next(choice for choice in ablations.CHOICES if choice.key == "access").environment
    with (
        bench(tmp_path) as env,
        processes.proxy(UNPINNED, env.provider_port, environment=silent, options=(SAMPLED,)) as child,
    ):
        budgets.order(child, "cpu start")
        env.generator.run(warm_up(child.port, payloads.SMALL_MODEL, stream=False))
        cpu = budgets.order(child, "cpu stop")
        budgets.order(child, "memory start")
        with env.generator.hold(scenarios.idle_job(child.port, 20)):
            memory = budgets.order(child, "memory stop")

    assert cpu.keys() == memory.keys() == {layer.value for layer in Layer}
    assert sum(cpu.values()) == pytest.approx(1)
    assert cpu[Layer.SERVER] > 0
    assert memory[Layer.SERVER] > 20 * 500
    assert memory[Layer.UPSTREAM] > 20 * 500


def test_two_workers_are_measured_with_all_their_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU time of the supervisor alone would be next to nothing."""
    monkeypatch.setattr(multicore, "BODY_BYTES", 20_000)
    with (
        bench(tmp_path) as env,
        processes.proxy(UNPINNED, env.provider_port, "workers: 2\n", "cpa with 2") as child,
    ):
        multicore.measure(env, dict.fromkeys(multicore.SYSTEMS, child), 0)
        found = env.record.samples

    assert found.keys() == {figure.key for figure in multicore.PART.section.figures}
    assert all(value > 0 for values in found.values() for each in values.values() for value in each)
    assert found[multicore.CPU.key]["two"][0] > 100
    assert found[multicore.SHARE.key]["two"][0] < 80


def test_streams_are_counted_as_free_or_late_by_their_latest_chunk() -> None:
    """However many are opened, they all run at once for a while."""
    late = Outcome(requests=1, delays_s=[0.01, 0.11])
    free = Outcome(requests=1, delays_s=[0.01, 0.09])
    with processes.running("nobody", ("sleep", "60"), core=None) as child:
        job = capacity.job(child, 800)

    assert job.connections == job.requests == 800
    assert job.spread_s <= capacity.CHUNKS_S * 0.6
    assert [capacity.is_in_time(outcome) for outcome in (late, free)] == [False, True]


def test_switches_that_the_program_does_not_have_are_not_measured() -> None:
    """They would look like a choice that is worth nothing."""
    real, gone = ablations.CHOICES[1], ablations.Choice(key="x", title="x", variable=("CPA_NO_" + "SUCH_SWITCH", "1"))

    assert ablations.known((ablations.AGAIN, real, gone)) == [ablations.AGAIN, real]


def test_a_peer_that_breaks_off_is_told_and_left_out_and_ours_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its port answers nothing but refusals here."""
    with bench(tmp_path) as env, processes.running("peer", ("sleep", "60"), core=None) as peer:
        peer.port = env.provider_port
        contest = Contest(
            scale=TINY,
            generator=env.generator,
            record=env.record,
            children={"litellm": peer},
            peers=frozenset({"litellm"}),
        )
        refused = warm_up(env.provider_port, "", stream=False)
        assert contest.attempt("litellm", refused) is None
        with pytest.raises(LoadError, match="expected status 200"):
            Contest(scale=TINY, generator=env.generator, record=env.record, children={"cpa": peer}).attempt(
                "cpa", refused
            )

    assert capsys.readouterr().err.count("litellm failed: expected status 200") == forwarding.TRIES


def test_litellm_is_told_of_every_model_once() -> None:
    """In a way that makes it speak the protocols that the provider has."""
    config = msgspec.json.decode(peers.litellm_config(1234))

    names = [model["model_name"] for model in config["model_list"]]
    assert len(names) == len(set(names))
    assert {direction.model for direction in scenarios.DIRECTIONS} <= set(names)
    assert {payloads.SMALL_MODEL, payloads.PACED_MODEL, payloads.MESSAGES_PACED_MODEL, payloads.IDLE_MODEL} <= set(
        names
    )
    assert all("127.0.0.1:1234" in model["litellm_params"]["api_base"] for model in config["model_list"])


def test_without_the_peers_environment_their_forwarder_is_left_out(tmp_path: Path) -> None:
    """As when LiteLLM was installed and the other's packages were not."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert not processes.has_uvicorn(None)
    assert not processes.has_uvicorn(tmp_path)
    for name in ("uvicorn", "uvloop", "httptools", "aiohttp"):
        (packages / name).mkdir(parents=True)
    assert processes.has_uvicorn(tmp_path)


def test_a_part_that_fails_is_told_and_the_others_are_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Ten minutes of measurements are not thrown away for the eleventh."""

    @contextmanager
    def broken(env: Environment) -> Iterator[Callable[[int], None]]:
        def measure(number: int) -> None:
            raise LoadError("it answered 500")

        yield measure

    with bench(tmp_path) as env:
        env.record.keep("small.cpu.1", "cpa", 10.0)
        run_part(env, Part(name="a broken part", section=interceptors.PART.section, open=broken))

    def measure(scale: Scale, only: str) -> Samples:
        return env.record.done()

    output = tmp_path / "results.json"
    assert main.main(["--output", str(output)], measure=measure) == 2
    assert "bench: a broken part: it answered 500" in capsys.readouterr().err
    assert msgspec.json.decode(output.read_bytes())["figures"][0]["values"] == {"cpa": [10.0]}


def test_a_slow_machine_gets_fewer_rounds_but_one_at_least() -> None:
    """A run is bounded in time."""
    assert list(Record(5).numbers()) == [0, 1, 2, 3, 4]
    assert list(Record(5).numbers(2)) == [0, 1]
    assert list(Record(5, limit_s=-1).numbers()) == [0]
