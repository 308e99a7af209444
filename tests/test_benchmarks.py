"""The benchmarks check what they time, and every section runs: on small graphs, whose figures nobody looks at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.adapters import ADAPTERS, Adapter, Prepared, installed
from tests.benchmarks.adapters.bare import BARE
from tests.benchmarks.check import check
from tests.benchmarks.effort import TINY
from tests.benchmarks.kernels import Compute, releases_the_lock, series
from tests.benchmarks.patterns import PATTERNS, make_tasks, sinks
from tests.benchmarks.sections import SECTIONS

REPO = Path(__file__).parent.parent


def test_the_command() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "overhead", "--nodes", "160", "--rounds", "1"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "at one thread" in done.stdout.splitlines()[0]
    for adapter in installed():
        assert done.stdout.count(f"| {adapter.name} ") == 1


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_runs(name, run_async) -> None:
    report = run_async(SECTIONS[name](TINY))
    assert report.splitlines()[0].startswith("| ")
    assert "nan" not in report


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_in_topological_order(pattern: str) -> None:
    tasks = make_tasks(pattern, 160)
    assert len(tasks) == pytest.approx(160, abs=12)
    assert all(dependency < task for task, needs in enumerate(tasks) for dependency in needs)
    assert all(len(set(needs)) == len(needs) for needs in tasks)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("adapter", installed(), ids=lambda adapter: adapter.name)
def test_every_adapter_is_right(adapter, pattern, run_async) -> None:
    run_async(check(adapter, make_tasks(pattern, 60), threads=2))


def test_a_wrong_adapter_is_found(run_async) -> None:
    def forgets(tasks, kernel, threads, stack):
        return Prepared(lambda: [0 for _ in sinks(tasks)])

    def twice(tasks, kernel, threads, stack):
        once = BARE.prepare(tasks, kernel, threads, stack).run
        return Prepared(lambda: (once(), once())[1])

    for prepare in forgets, twice:
        with pytest.raises(AssertionError, match="strange: wrong results"):
            run_async(check(Adapter("strange", prepare), make_tasks("tree", 60), threads=2))


def test_names_are_unique() -> None:
    assert len({adapter.name for adapter in ADAPTERS}) == len(ADAPTERS)


def test_a_kernel_counts_its_calls() -> None:
    compute = Compute(1_000, calls=3)
    assert [compute.kernel(), compute.kernel(1, 2)] == [3_000, 3_000]
    assert (compute.started(), compute.started()) == (2, 0)


def test_a_series_has_calls_of_ten_microseconds() -> None:
    assert series(100e-6).kernel() == 10 * series(10e-6).kernel()


def test_one_call_releases_the_lock() -> None:
    assert releases_the_lock(Compute(200_000_000).kernel)
    assert not releases_the_lock(lambda: sum(range(100_000)))
