"""The benchmarks check what they time, and every measure runs: on small graphs, whose figures nobody looks at."""

from __future__ import annotations

import asyncio
import gc
import math
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from dataflow.events import OperatorEnded
from tests.benchmarks.adapters import ADAPTERS, BARE, ONNX, Adapter, Job, adapters, missing
from tests.benchmarks.adapters.check import check, check_onnx
from tests.benchmarks.adapters.job import Blocking
from tests.benchmarks.adapters.serial import bare_loops
from tests.benchmarks.kernels import Compute, Counting, nothing, one_call, releases_the_lock, series
from tests.benchmarks.machine import Usage
from tests.benchmarks.measure import Figure, Options, interleaved
from tests.benchmarks.measures.lag import percentile
from tests.benchmarks.measures.memory import Live, live_in_order
from tests.benchmarks.measures.metg import Curve, Point, smallest
from tests.benchmarks.measures.network import kernel_seconds, load, makespan
from tests.benchmarks.patterns import PATTERNS, TASK_BENCH, make_tasks, sinks
from tests.benchmarks.plot import plot
from tests.benchmarks.service import IMAGES, Seen, demo, serving, under_load
from tests.benchmarks.service_variants import LIMIT, AtOnce
from tests.benchmarks.suite import MEASURES, main

REPO = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=100, check=False)


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_in_topological_order(pattern: str) -> None:
    tasks = make_tasks(pattern, 160)
    assert len(tasks) == pytest.approx(160, abs=8)
    assert all(dependency < task for task, reads in enumerate(tasks) for dependency in reads)
    assert all(len(set(reads)) == len(reads) for reads in tasks)


FOUR_WIDE = {
    "trivial": [(), (), (), ()],
    "no_comm": [(4,), (5,), (6,), (7,)],
    "stencil_1d": [(4, 5), (4, 5, 6), (5, 6, 7), (6, 7)],
    "fft": [(4, 6), (5, 7), (4, 6), (5, 7)],
    "nearest": [(4, 5, 6), (4, 5, 6, 7), (4, 5, 6, 7), (5, 6, 7)],
    "spread": [(4, 6, 7, 5), (5, 7, 4, 6), (6, 4, 5, 7), (7, 5, 6, 4)],
}
"""The third row of a graph whose second one is 4, 5, 6, 7: worked out by hand from the definitions."""


@pytest.mark.parametrize("pattern", FOUR_WIDE)
def test_rows_of_task_bench(pattern: str) -> None:
    assert make_tasks(pattern, 12, width=4)[8:] == FOUR_WIDE[pattern]


def test_fft_reaches_one_two_four_and_starts_again() -> None:
    tasks = make_tasks("fft", 40, width=8)
    assert [tasks[8 * row][-1] - 8 * (row - 1) for row in range(1, 5)] == [1, 2, 4, 1]


def test_a_sweep_grows_and_shrinks() -> None:
    # points of its rows: 0 | 0 1 | 0 1 | 1
    assert make_tasks("dom", 6, width=2) == [(), (0,), (0,), (1,), (1, 2), (3, 4)]


def test_a_tree_fans_out() -> None:
    assert make_tasks("tree", 11, width=4) == [(), (0,), (0,), (1,), (1,), (2,), (2,), (3,), (3,), (4,), (4,)]


def test_random_patterns_are_the_same_every_time_and_read_their_own_point() -> None:
    tasks = make_tasks("random_nearest", 320)
    assert tasks == make_tasks("random_nearest", 320)
    assert all(task - 16 in reads for task, reads in enumerate(tasks) if task >= 16)
    assert {len(reads) for reads in tasks[16:]} >= {1, 2, 3}


def test_all_patterns_of_task_bench_are_here() -> None:
    names = "trivial no_comm stencil_1d dom tree fft nearest spread random_nearest"
    assert set(TASK_BENCH) == set(names.split())


def test_a_reduction_has_one_result() -> None:
    assert make_tasks("reduction", 7) == [(), (), (), (), (0, 1), (2, 3), (4, 5)]
    assert len(sinks(make_tasks("reduction", 101))) == 1


# ---------------------------------------------------------------- kernels


def test_a_compute_kernel_does_and_counts_its_work() -> None:
    compute = Compute(1_000, calls=3)
    assert [compute.kernel(), compute.kernel(1, 2)] == [3_000, 3_000]
    assert (compute.started(), compute.started()) == (2, 0)
    compute.kernel()
    assert compute.started() == 1


def test_a_series_is_made_of_short_calls() -> None:
    assert series(100e-6).kernel() == 10 * one_call(10e-6).kernel()


def test_one_call_releases_the_interpreters_lock() -> None:
    assert releases_the_lock(Compute(200_000_000).kernel)
    assert not releases_the_lock(lambda: sum(range(100_000)))


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("adapter", adapters(), ids=lambda adapter: adapter.name)
def test_every_adapter_is_right(adapter: Adapter, pattern: str) -> None:
    check(adapter, make_tasks(pattern, 64), threads=2)


@pytest.mark.skipif(ONNX[0].missing and sys.version_info >= (3, 15), reason="onnxruntime has no wheels for it yet")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_onnxruntime_is_right(pattern: str) -> None:
    check_onnx(make_tasks(pattern, 64), threads=2)


def test_a_chain_as_long_as_an_adapter_is_given() -> None:
    for adapter in adapters():
        if adapter.most_nodes <= 1_000:
            check(adapter, make_tasks("chain", adapter.most_nodes), threads=2)


def test_loops_side_by_side_give_what_one_gives() -> None:
    check(Adapter("loops", bare_loops), make_tasks("wide", 65), threads=2)
    with pytest.raises(ValueError, match="depend on each other"):
        bare_loops([(), (0,)], nothing, 2, None)


def test_wrong_adapters_are_found() -> None:
    tasks = make_tasks("stencil_1d", 64)

    def forgets(tasks, kernel, threads, stack) -> Job:
        right = BARE.prepare(tasks, Counting().kernel, threads, stack)
        return Blocking(right.run)

    def twice(tasks, kernel, threads, stack) -> Job:
        right = BARE.prepare(tasks, kernel, threads, stack)
        return Blocking(lambda: (right.run(), right.run())[1])

    def reversed_inputs(tasks, kernel, threads, stack) -> Job:
        return BARE.prepare([reads[::-1] for reads in tasks], kernel, threads, stack)

    for prepare, complaint in (forgets, "0 kernels"), (twice, "128 kernels"), (reversed_inputs, "other results"):
        with pytest.raises(AssertionError, match=f"^strange: {complaint}"):
            check(Adapter("strange", prepare), tasks, threads=2)


def test_an_adapter_without_its_package_is_left_out(monkeypatch) -> None:
    absent = Adapter("absent", BARE.prepare, "the-absent", "the_absent")
    monkeypatch.setattr("tests.benchmarks.adapters.ADAPTERS", [BARE, absent])
    assert adapters() == [BARE]
    assert "left out: absent (pip install the-absent)" in missing()


def test_the_extra_has_every_package() -> None:
    extra = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in extra}
    assert names >= {package for adapter in [*ADAPTERS, *ONNX] for package in adapter.package.split()}


# ---------------------------------------------------------------- figures


def test_figures_have_a_spread() -> None:
    assert str(Figure.of([1.0, 2.0, 3.0, 4.0, 5.0], scale=1000)) == "3,000 (2,000–4,000)"
    assert str(Figure.of([0.5])) == "0.5"


def test_cases_take_turns_and_slow_ones_fewer() -> None:
    calls: list[str] = []
    cases = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "abc"}
    measured = interleaved(cases, 4, sparse={"c"})
    assert {name: len(values) for name, values in measured.items()} == {"a": 4, "b": 4, "c": 2}
    assert [sorted(calls[i:j]) for i, j in ((0, 3), (3, 5), (5, 7), (7, 10))] == [[*"abc"], [*"ab"], [*"ab"], [*"abc"]]


def points(*efficiencies: float) -> list[Point]:
    return [Point(4.0**i, efficiency) for i, efficiency in enumerate(efficiencies)]


def test_metg_lies_between_two_sizes() -> None:
    assert smallest(points(0.2, 0.4, 0.8, 0.9), 0.6) == pytest.approx(8)  # half-way from 4 to 16, in steps of times 2
    assert smallest(reversed(points(0.2, 0.4, 0.8, 0.9)), 0.6) == pytest.approx(8)
    assert smallest(points(0.8, 0.9), 0.75) == 1
    assert smallest(points(0.2, 0.4), 0.75) == math.inf
    assert smallest(points(0.2, 0.8), 0.8) == 4


def test_one_lucky_size_is_no_metg() -> None:
    assert smallest(points(0.2, 0.8, 0.4, 0.8, 0.9), 0.6) == pytest.approx(32)


def test_percentiles() -> None:
    hundred = [float(value) for value in range(100, 0, -1)]
    assert [percentile(hundred, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile([7.0], 0.5) == 7


def test_list_schedules() -> None:
    fork = [(), (), (), (0, 1)]
    assert makespan(fork, [1.0, 3.0, 2.0, 1.0], threads=2) == 4
    assert makespan(fork, [1.0, 3.0, 2.0, 1.0], threads=1) == 7
    assert makespan(make_tasks("chain", 9), [1.0] * 9, threads=4) == 9
    assert makespan(make_tasks("wide", 9), [1.0] * 9, threads=4) == 3


def test_the_networks_kernels_are_timed_node_by_node() -> None:
    _, infer, pictures = load()
    graph = infer.graph(pictures[0])
    taken = kernel_seconds(graph, [pictures[0]])
    assert len(taken) == len(graph.nodes)
    assert all(seconds > 0 for seconds in taken)


def test_live_results_are_counted() -> None:
    live = Live(nothing)
    first, second = live.kernel(), live.kernel()
    del first
    third = live.kernel(second)
    assert (live.now, live.peak) == (2, 2)
    del second, third
    assert (live.now, live.peak) == (0, 2)


def test_peaks_of_serial_orders() -> None:
    assert [live_in_order(make_tasks(name, 32), range(32)) for name in ("chain", "wide", "stencil_1d")] == [2, 32, 18]
    assert live_in_order([(), (), (0,), (1,)], [0, 2, 1, 3]) == 3  # 2 is a result of the graph, and stays


def test_what_others_use_is_a_share() -> None:
    assert re.fullmatch(r"Others used \d+% of the CPUs meanwhile\.|What else ran .* is not known\.", str(Usage()))


# ---------------------------------------------------------------- the command


TINY = Options(threads=2, quick=True, nodes=64, repeats=1)


@pytest.fixture
def small_measures(monkeypatch) -> Iterator[None]:
    """Sizes at which every measure takes a moment."""
    monkeypatch.setattr("tests.benchmarks.measures.overhead.QUICK_SLOW_NODES", 32)
    monkeypatch.setattr("tests.benchmarks.measures.metg.QUICK", [20, 100])
    monkeypatch.setattr("tests.benchmarks.measures.metg.QUICK_WORK", 1e-3)
    monkeypatch.setattr("tests.benchmarks.measures.metg.frozen", nullcontext)
    monkeypatch.setattr("tests.benchmarks.measures.build.SIZES", [64, 128, 256])
    monkeypatch.setattr("tests.benchmarks.measures.growth.SIZES", [64, 128, 256])
    monkeypatch.setattr("tests.benchmarks.measures.latency.AWAITS", 3)
    monkeypatch.setattr("tests.benchmarks.measures.lag.NODES", (64, 64))
    monkeypatch.setattr("tests.benchmarks.measures.lag.SECONDS", (0.01, 0.01))
    monkeypatch.setattr("tests.benchmarks.measures.memory.DURATION", 5e-6)
    monkeypatch.setattr("tests.benchmarks.measures.memory.GRAPHS", {"tree of 32": make_tasks("tree", 32)})
    monkeypatch.setattr("tests.benchmarks.measures.fairness.READY", (2_000, 2_000))
    monkeypatch.setattr("tests.benchmarks.measures.fairness.SIZES", [500e-6])
    monkeypatch.setattr("tests.benchmarks.measures.fairness.RUNS", 4)
    monkeypatch.setattr("tests.benchmarks.measures.oversized.NODES", (16, 16))
    yield
    gc.freeze()  # as it was before they were measured


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.usefixtures("small_measures")
def test_every_measure_runs(name: str) -> None:
    for section in MEASURES[name](TINY):
        lines = str(section).splitlines()
        assert lines[0] == f"### {section.title}"
        table = [line for line in lines if line.startswith("|")]
        assert len(table) == len(section.rows) + 2
        assert len({line.count("|") for line in table}) == 1  # no cell breaks the table
        assert "nan" not in str(section)


def test_the_command_prints_the_machine_and_a_table() -> None:
    done = run("tests.benchmarks", "--quick", "--only", "latency", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d CPUs, Python 3\.\d+\.\d+, numpy .* at one thread\.", done.stdout)
    assert done.stdout.count("| one bare hop") == done.stdout.count("### Latency of a small pipeline")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "overheard"], "no measure 'overheard': there are overhead, first, metg,"),
        (["--threads", "0"], "0 is below 1"),
        (["--only", "lag", "--plot", "x.png"], "--plot draws what the measure metg finds"),
    ],
)
def test_wrong_commands_are_refused(arguments, complaint, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def test_efficiency_is_drawn(tmp_path) -> None:
    curves = [Curve("limit", "trivial", points(0.5, 0.9)), Curve("dataflow", "stencil_1d", points(0.4, 0.8))]
    plot([("one call", curves), ("several calls", curves)], "on a machine", tmp_path / "efficiency.png")
    assert (tmp_path / "efficiency.png").read_bytes().startswith(b"\x89PNG")


def test_one_small_pass_over_inter_and_intra() -> None:
    done = run("tests.benchmarks.threads", "--repeats", "1", "--sizes", "512", "--pause", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mix ") == 4
    assert "chain / plain numpy" in done.stdout
    assert "two bare threads" in done.stdout


def test_a_short_stream() -> None:
    done = run("tests.benchmarks.streams", "300")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| asyncio +\| +300 \|", done.stdout)
    assert "Every item came once and in order." in done.stdout


# ---------------------------------------------------------------- the service


@pytest.mark.parametrize("variant", ["dataflow", "to_thread", "dask"])
def test_each_service_answers_right(variant: str, monkeypatch) -> None:
    monkeypatch.setattr("tests.benchmarks.service.PATIENCE", 60)

    expected = [list(demo().features.__wrapped__(image.tobytes())) for image in IMAGES]
    seen = Seen()
    with serving(variant) as url:
        asyncio.run(under_load(url, expected, 40, 0.5, seen))
    assert seen.right + seen.refused == 20
    assert seen.right > 0
    assert seen.at_once > 0
    assert "nan" not in map(str, seen.row(variant))


def test_the_service_that_is_the_limit_refuses_everything() -> None:
    seen = Seen()
    with serving(LIMIT) as url:
        asyncio.run(under_load(url, [], 40, 0.5, seen))
    assert (seen.right, seen.refused, seen.wrong, seen.failed, seen.at_once) == (0, 20, 0, 0, 0)
    assert "nan" in seen.row(LIMIT)  # nothing was answered, so no answer took any time


def test_a_wrong_answer_is_found(monkeypatch) -> None:
    monkeypatch.setattr("tests.benchmarks.service.PATIENCE", 60)

    seen = Seen()
    with serving("to_thread") as url:
        asyncio.run(under_load(url, [[1.0, 2.0, 3.0]] * len(IMAGES), 20, 0.2, seen))
    assert (seen.right, seen.wrong) == (0, 4)


def test_kernels_at_once_are_counted_either_way() -> None:
    called, told = AtOnce(), AtOnce()
    with called.one(), called.one():
        assert called.now == 2
    with called.one():
        assert (called.now, called.greatest()) == (1, 2)
    for began, seconds in ((0, 2.0), (1, 2.0), (2, 0.5), (9, 1.0)):  # the third begins as the first ends
        told.ended(OperatorEnded(1, "p", "k", 1, None, began * 10**9, seconds, "done", None, 1))
    assert told.greatest() == 2
