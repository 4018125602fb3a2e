"""The benchmark's parts do what they claim; nothing in here judges a time."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import process_time

import httpx
import msgspec
import pytest

from cpa.config.schema import Isolation
from tests.bench import __main__ as bench
from tests.bench import figures, forwarding, libraries, machine, panel, payloads, plugins, processes, scenarios, workers
from tests.bench.client import Client, LoadError
from tests.bench.libraries import Language
from tests.bench.load import Job, Outcome
from tests.bench.machine import Cores
from tests.bench.processes import FORWARDERS, SYSTEMS, Child, Generator
from tests.bench.record import Record, Samples
from tests.bench.scenarios import Figure, Scale

TINY = Scale(
    rounds=1,
    seconds=0.05,
    warmup_s=0.01,
    idle_streams=3,
    repeats=1,
    call_s=0.01,
    workers=3,
    paced_streams=1,
    burst_streams=2,
    lone_streams=1,
)
SOME = (scenarios.small(2),)
SLOW = re.compile(r"paced|1 MB|10 MB|OpenAI → ")
OURS = tuple(name for name in FORWARDERS if name != "uvicorn")
"""The other one needs packages of the peers' environment."""
UNPINNED = Cores(subject=None, others=None)


def client_for(data: bytes) -> Client:
    """A client that is fed by hand; *data* only documents what for."""
    assert data
    client = Client.__new__(Client)
    client._reset()
    return client


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"a\r\ndata: {}\n\n\r\n14\r\ndata: 1\n\ndata: [2]\n\n\r\n0\r\n\r\n"
)
SIZED = b"HTTP/1.1 200 \r\ncontent-type: application/json\r\nContent-Length: 5\r\n\r\n{\n\n }"


@pytest.mark.parametrize(("answer", "events"), [(CHUNKED, 3), (SIZED, 0)])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_an_answer_is_complete_at_its_last_byte_however_it_is_cut(answer: bytes, events: int, step: int) -> None:
    """A generator that stops early or late measures something else."""
    client = client_for(answer)
    pieces = [answer[at : at + step] for at in range(0, len(answer), step)]

    complete = [client.feed(piece) for piece in pieces]

    assert complete == [False] * (len(pieces) - 1) + [True]
    assert client.events == events


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        SIZED + b"x",
    ],
)
def test_a_wrong_answer_is_an_error_not_a_fast_success(answer: bytes) -> None:
    """Errors are quicker than answers, and would make the broken system the winner."""
    client = client_for(answer)

    with pytest.raises(LoadError):
        client.feed(answer)


@contextmanager
def everything() -> Iterator[tuple[Generator, dict[str, Child]]]:
    """The load generator and all systems, not pinned: the test's machine is nobody's bench."""
    with ExitStack() as stack:
        provider = stack.enter_context(processes.provider(UNPINNED))
        children = {"direct": provider}
        for name in OURS:
            children[name] = stack.enter_context(processes.system(name, UNPINNED, provider.port))
        yield stack.enter_context(processes.generator(UNPINNED)), children


def answers(child: Child) -> list[bytes]:
    """Bodies of a small request, a stream and an agent's request, as an ordinary client gets them."""
    found = []
    requests = (
        payloads.chat_body(payloads.SMALL_MODEL, stream=False),
        payloads.chat_body(payloads.BURST_MODEL, stream=True),
        payloads.agent_body(payloads.SMALL_MODEL),
    )
    url = f"http://127.0.0.1:{child.port}{payloads.PATH}"
    head = {"authorization": f"Bearer {payloads.CLIENT_KEY}", "content-type": "application/json"}
    with httpx.Client(trust_env=False, timeout=20) as client:
        for body in requests:
            response = client.post(url, content=body, headers=head)
            assert response.status_code == 200, response.text
            found.append(re.sub(rb"@\d{19}", b"@", response.content))  # when it was written
    return found


def test_all_systems_give_the_providers_answers_and_the_generator_can_load_them() -> None:
    """Ratios mean something only between systems that do the same work."""
    with everything() as (generator, children):
        expected = answers(children["direct"])
        assert expected[1].count(b"\n\n") > payloads.STREAM_CHUNKS
        for name in OURS:
            assert answers(children[name]) == expected, name
        for name in ("direct", *OURS):
            # CPA goes through everything, for the harness's sake; paced streams take 2 s and large bodies CPU.
            chosen = [s for s in scenarios.SCENARIOS if not SLOW.search(s.name)] if name == "cpa" else SOME
            for scenario in chosen:
                outcome = generator.run(scenario.job_for(name, TINY, children[name].port, children[name].pid))
                assert outcome.requests > 0
                assert outcome.cpu_s > 0
                assert set(scenario.values(outcome)) >= {figure.key for figure in scenario.figures}
            with generator.hold(scenarios.idle_job(children[name].port, TINY.idle_streams)):
                assert machine.memory_kb(children[name].pid) > 1000


def test_a_refused_request_reaches_the_harness_as_an_error() -> None:
    """The generator is another process: its exceptions have to travel."""
    with processes.provider(UNPINNED) as provider, processes.generator(UNPINNED) as generator:
        request = payloads.http_request(b"{}")

        with pytest.raises(LoadError, match="expected status 200, got"):
            generator.run(Job(port=provider.port, request=request, connections=1, requests=1))


def test_processes_are_ended_when_the_harness_is_interrupted() -> None:
    """Ctrl-C must not leave servers behind; they are in sessions of their own."""
    pids: list[int] = []

    def interrupted() -> None:
        with processes.provider(UNPINNED) as child:
            pids.append(child.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_process_that_cannot_start_is_named_with_its_last_words() -> None:
    """Otherwise one looks for the reason in the wrong place."""
    argv = (sys.executable, "-c", "raise SystemExit('no such colour')")

    with (
        pytest.raises(processes.StartError, match=r"painter ended: no such colour"),
        processes.server("painter", argv, core=None),
    ):
        pytest.fail("it cannot have started")


def test_cpu_time_of_a_process_is_read_from_outside() -> None:
    """The clock id is computed, not documented for Python."""
    before = process_time()

    assert before <= machine.cpu_seconds(os.getpid()) <= process_time()


def test_memory_is_read_from_both_kinds_of_files() -> None:
    """The second one serves kernels without the first."""
    assert machine.field_kb("Rss:   7 kB\nPss:          1234 kB\nPss_Dirty: 1 kB\n", "Pss:") == 1234
    assert machine.memory_kb(os.getpid()) > 1000
    with pytest.raises(LookupError):
        machine.field_kb("Name: x\n", "VmRSS:")
    whole = machine.memory_of(os.getpid())
    assert whole.pss is not None
    assert whole.uss is not None
    assert 1000 < whole.uss <= whole.pss <= whole.rss


LATENCY = Figure(key="l", title="added latency", unit="µs", added=True)
CPU = Figure(key="c", title="CPU", unit="µs", limit=1.5)
SAMPLES = {
    "l": {
        "direct": [10.0, 10.0, 20.0],
        "floor": [10.0, 12.0, 30.0],
        "baseline": [20.0, 30.0, 60.0],
        "cpa": [15.0, 20.0, 60.0],
    },
    "c": {"baseline": [10.0, 20.0, 10.0], "floor": [1.0, 1.0, 1.0], "cpa": [12.0, 20.0, 17.0]},
}


def test_ratios_are_formed_within_a_round_and_added_latency_is_over_the_direct_call() -> None:
    """Rounds may differ by a factor of two on a shared machine; what was measured side by side may not."""
    cpu = figures.ratio(CPU, "cpa", "baseline", SAMPLES)
    added = figures.ratio(LATENCY, "cpa", "baseline", SAMPLES)
    over_direct = figures.ratio(LATENCY, "cpa", "direct", SAMPLES)

    assert cpu == figures.Spread(1.2, 1.0, 1.7)
    assert added == figures.Spread(0.5, 0.5, 1.0)
    assert over_direct == figures.Spread(1.0, 0.5, 2.0)
    assert figures.ratio(CPU, "cpa", "direct", SAMPLES) is None


@pytest.mark.parametrize(("cpa", "passed"), [(15.0, True), (15.1, False)])
def test_the_verdict_is_the_medians_against_the_limit(cpa: float, passed: bool) -> None:
    """Issue 2: at most 1.5 times the baseline."""
    (verdict,) = figures.verdicts([LATENCY, CPU], {**SAMPLES, "c": {"baseline": [10.0], "cpa": [cpa]}})

    assert verdict.passed is passed
    assert str(verdict).startswith("pass" if passed else "FAIL")


def test_the_table_has_a_row_per_figure_and_blanks_where_nothing_can_be_compared() -> None:
    """It is copied into the documentation as it is."""
    rows = figures.table([LATENCY, CPU], SAMPLES).splitlines()

    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1
    assert [cell.strip() for cell in rows[3].split("|")][1:5] == ["CPU", "less", "17.0 (12.0–20.0)", "1.20 (1.00–1.70)"]


def test_systems_that_deliver_less_fail_the_run() -> None:
    """A lost event is a bug, not a saving."""
    outcomes = {name: Outcome(requests=2, events=400) for name in SYSTEMS}

    forwarding.check(scenarios.BURST, outcomes)
    with pytest.raises(LoadError, match="cpa gave 190 events per answer, direct 200"):
        forwarding.check(scenarios.BURST, {**outcomes, "cpa": Outcome(requests=2, events=380)})


@pytest.mark.parametrize(("options", "cpa", "code"), [([], 99.0, 0), (["--check"], 99.0, 1), (["--check"], 9.0, 0)])
def test_a_run_writes_its_results_and_fails_only_when_asked_to_judge(
    options: list[str], cpa: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A busy machine should not break a build that only wants the numbers."""

    def measure(scale: Scale, only: str) -> Samples:
        return {"small.cpu.1": {"baseline": [10.0] * scale.rounds, "cpa": [cpa] * scale.rounds}}

    output = tmp_path / "new" / "results.json"
    assert bench.main([*options, "--rounds", "2", "--output", str(output)], measure=measure) == code

    result = msgspec.json.decode(output.read_bytes())
    assert result["rounds"] == 2
    assert result["acceptance"][0]["passed"] is (cpa < 15)
    assert result["figures"][0]["values"] == {"baseline": [10.0, 10.0], "cpa": [cpa, cpa]}
    assert "CPU per small request, c=1" in capsys.readouterr().out


# --- plugins ---------------------------------------------------------------------------------------------------------

FEW = (plugins.Variant(count=4, schema=1),)


@contextmanager
def plugin_bench(folder: Path) -> Iterator[plugins.Environment]:
    """The plugin part of the bench at its smallest, in C alone."""
    with processes.provider(UNPINNED) as provider, processes.generator(UNPINNED) as generator:
        yield plugins.Environment(
            scale=TINY,
            cores=UNPINNED,
            generator=generator,
            provider_port=provider.port,
            record=Record(TINY.rounds),
            folder=folder,
            variants=FEW,
            languages=(Language.C,),
        )


def test_the_plugin_bench_measures_calls_chunks_and_workers_of_real_plugins(tmp_path: Path) -> None:
    """Every figure gets one value per system and round."""
    with plugin_bench(tmp_path) as env:
        for part in plugins.PARTS:
            if part.section is not plugins.UNPLUGGED_SECTION:
                plugins.run_part(env, part)
        samples = env.record.samples

    expected = {figure.key: plugins.CALLS for figure in plugins.CALL_SECTION.figures}
    expected |= {figure.key: plugins.CHUNKS for variant in FEW for figure in plugins.chunk_figures(variant)}
    expected |= {plugins.memory_figure(Language.C, kind).key: plugins.WORKERS for kind in plugins.KINDS}
    expected |= {plugins.START_C.key: plugins.START}
    assert samples.keys() == expected.keys()
    for key, layout in expected.items():
        assert samples[key].keys() == set(layout.systems), key
        assert all(len(values) == TINY.rounds for values in samples[key].values()), key
        assert all(value > 0 for values in samples[key].values() for value in values), key
    for variant in FEW:
        for kind in ("paced", "burst"):
            proxy, everything = samples[f"{variant.key}.{kind}.proxy"], samples[f"{variant.key}.{kind}.all"]
            assert everything["process"] > proxy["process"]
            assert everything["inline"] == proxy["inline"]
    sections = bench.measured_sections(samples)
    assert [section.layout.name for section in sections] == ["Plugin calls", "Stream interceptors", "Workers", "Start"]
    for section in sections:
        rows = figures.as_json(section.figures, samples, section.layout)
        assert len(rows) == len(section.figures)
        assert all(row["values"] for row in rows)


def test_a_proxy_without_its_plugins_is_told_from_one_with_them_and_can_be_measured(tmp_path: Path) -> None:
    """It would be the fastest of all, if it were not meant to have none."""
    text = plugins.plugins_text(tmp_path, 1, Isolation.PROCESS)
    with (
        plugin_bench(tmp_path) as env,
        processes.proxy(UNPINNED, env.provider_port, text, "cpa with one") as child,
    ):
        with pytest.raises(LoadError, match="cpa with one: status 200, expected 1 plugins, found 0"):
            plugins.expect_plugins(child, 1)
        plugins.measure_unplugged(env, dict.fromkeys(plugins.UNPLUGGED.systems, child), 0)

    for figure in plugins.UNPLUGGED_SECTION.figures:
        assert env.record.samples[figure.key].keys() == set(plugins.UNPLUGGED.systems)


def test_workers_that_do_not_register_end_the_run(tmp_path: Path) -> None:
    """Starting nothing takes no time."""
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")

    with (
        workers.folder_of(tmp_path / "plugins", [broken], 2) as folder,
        pytest.raises(processes.StartError, match="p0 is failed"),
    ):
        workers.start_seconds(folder, 2)
    assert not (tmp_path / "plugins").exists()


def test_a_compilers_complaint_reaches_the_user(tmp_path: Path) -> None:
    """As does its absence."""
    with pytest.raises(processes.StartError, match=r"gcc .*nothing\.c"):
        libraries.run(["gcc", str(tmp_path / "nothing.c")])
    with pytest.raises(processes.StartError, match=r"no-such-compiler"):
        libraries.run(["no-such-compiler"])


def test_streams_of_the_plugin_bench_ask_with_20_kilobytes() -> None:
    """With schema 1 the request goes along with every chunk: its size is part of the result."""
    body = payloads.agent_body(payloads.PLUGIN_BURST_MODEL, payloads.PLUGIN_BODY_BYTES, stream=True)

    assert 20_000 <= len(body) <= 22_000
    assert msgspec.json.decode(body)["stream"] is True


WEIGHT = Figure(key="w", title="weight", unit="KB", limit=12_288)


@pytest.mark.parametrize(("above", "passed"), [([12_288.0, 9.0, 20_000.0], True), ([12_289.0], False)])
def test_a_limit_without_a_counterpart_is_absolute(above: list[float], passed: bool) -> None:
    """Memory and start times have limits of their own."""
    [verdict] = figures.verdicts([WEIGHT], {"w": {"above": above}}, plugins.WORKERS)

    assert verdict.passed is passed
    assert str(verdict).endswith("KB (limit 12,288)")
    assert verdict.as_json() | {"value": 0} == {
        "title": "weight",
        "value": 0,
        "unit": "KB",
        "limit": 12_288,
        "passed": passed,
    }


@pytest.mark.parametrize(
    ("again", "empty", "limit", "passed"),
    [
        ([10.0, 10.2], [10.4, 10.5], 1.05, True),
        ([10.0, 10.2], [10.6, 10.7], 1.05, False),
        ([10.0, 11.0], [10.6, 10.7], 1.1, True),
    ],
)
def test_equal_is_what_differs_no_more_than_two_runs_of_the_same(
    again: list[float], empty: list[float], limit: float, passed: bool
) -> None:
    """A busy machine makes even a proxy differ from itself; the control says by how much."""
    [figure, _] = plugins.UNPLUGGED_SECTION.figures
    samples = {figure.key: {"off": [10.0, 10.0], "again": again, "empty": empty}}

    [verdict] = figures.verdicts([figure], samples, plugins.UNPLUGGED)

    assert verdict.limit == pytest.approx(limit)
    assert verdict.passed is passed


def test_an_interrupted_stream_does_not_set_the_time_per_chunk() -> None:
    """A lone stream lasts milliseconds."""
    outcome = Outcome(seconds=9.0, requests=3, events=300, latencies_s=[8.0, 0.02, 0.01])

    assert plugins.time_per_chunk(outcome) == pytest.approx(0.0002)


def test_tables_of_plugins_show_what_was_added_to_a_stream_without_any() -> None:
    """Added time is the difference of a round; its ratio to none is over the whole time of that."""
    figure = plugins.chunk_figures(FEW[0])[-1]
    samples = {figure.key: {"none": [10.0], "inline": [30.0], "process": [25.0]}}

    row = figures.table([figure], samples, plugins.CHUNKS).splitlines()[2]

    cells = [cell.strip() for cell in row.split("|")][3:9]
    assert cells == ["0.75 (0.75–0.75)", "1.50 (1.50–1.50)", "2.00 (2.00–2.00)", "15.0 µs", "20.0 µs", "10.0 µs"]


@pytest.mark.parametrize("scale", [scenarios.FULL, scenarios.QUICK])
def test_the_panel_is_measured_at_the_rate_of_the_issue(scale: scenarios.Scale) -> None:
    """Spread evenly, each request on a connection of its own that was opened before."""
    with processes.running("nobody", ("sleep", "60"), core=None) as child:
        job = panel.steady_job(scale, child)

    assert job.requests == job.connections == job.spread_s * 200
    assert job.pid == child.pid


def test_keys_are_unique_over_all_sections() -> None:
    """Two figures with one key would mix their samples."""
    keys = [figure.key for section in bench.SECTIONS for figure in section.figures]

    assert len(keys) == len(set(keys))
