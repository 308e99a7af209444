"""The benchmarks run, and check what they time: one pass over small graphs, whose figures nobody looks at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.patterns import PATTERNS, make_tasks

REPO = Path(__file__).parent.parent


def test_one_small_pass() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--nodes", "160", "--repeats", "1"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dask.threaded") == 1
    assert done.stdout.count("dataflow ") == 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_in_topological_order(pattern: str) -> None:
    tasks = make_tasks(pattern, 160)
    assert len(tasks) == pytest.approx(160, abs=2)
    assert all(dependency < task for task, needs in enumerate(tasks) for dependency in needs)
    assert all(len(set(needs)) == len(needs) for needs in tasks)


def test_one_small_pass_over_inter_and_intra() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.threads", "--repeats", "1", "--sizes", "512"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mix ") == 4
    assert "chain / plain numpy" in done.stdout
