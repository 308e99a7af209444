"""Metrics in Prometheus's text format, and that they agree with what `info()` tells."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import dataflow as flow
from dataflow.tools import prometheus

Runner = Callable[[Coroutine[Any, Any, Any]], Any]

SAMPLE = re.compile(r'([a-z_]+)(?:\{([a-z]+="(?:[^"\\\n]|\\.)*"(?:,[a-z]+="(?:[^"\\\n]|\\.)*")*)\})? (\S+)')


def read(text: str) -> dict[str, float]:
    """Each sample under its name and labels; every metric is said what it is before its first sample."""
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] in kinds
            assert (kinds[match[1]] == "counter") == match[1].endswith("_total")
            key = f"{match[1]}{{{match[2]}}}" if match[2] else match[1]
            assert key not in found
            found[key] = float(match[3])
    return found


def test_they_agree_with_what_info_tells(run_async: Runner) -> None:
    rt = flow.Runtime(max_runs=1, max_waiting=1, name='web "1"\\')
    release = asyncio.Event()

    @flow.op
    async def waits(x: Any) -> Any:
        await release.wait()
        return x

    @flow.op
    def fails(x: Any) -> Any:
        raise ValueError("no")

    slow, bad = flow.pipeline(lambda x: waits(x)), flow.pipeline(lambda x: fails(x))

    async def main() -> None:
        before = read(prometheus.text(rt))
        first, second = (asyncio.create_task(slow.on(rt)(n)) for n in range(2))
        await asyncio.sleep(0.01)
        with pytest.raises(flow.Overloaded):
            await slow.on(rt)(3)
        found = read(prometheus.text(rt))
        of = 'runtime="web \\"1\\"\\\\"'
        assert found[f'dataflow_runtime_runs{{{of},state="running"}}'] == 1
        assert found[f'dataflow_runtime_runs{{{of},state="waiting"}}'] == 1
        assert found[f'dataflow_runtime_ended_total{{{of},outcome="refused"}}'] == 1
        assert found["dataflow_runs_in_progress"] >= 1
        assert f"dataflow_runtime_run_seconds{{{of}}}" not in found
        second.cancel()
        release.set()
        await first
        with pytest.raises(ValueError, match="no"):
            await bad.on(rt)(1)
        found = read(prometheus.text(rt))
        runs = rt.info()["runs"]
        for outcome in ("done", "failed", "cancelled", "refused"):
            assert found[f'dataflow_runtime_ended_total{{{of},outcome="{outcome}"}}'] == runs[outcome] == 1
        assert found[f"dataflow_runtime_run_seconds{{{of}}}"] > 0
        assert found["dataflow_runs_started_total"] - before["dataflow_runs_started_total"] == 2
        assert found['dataflow_runs_ended_total{outcome="failed"}'] >= 1
        assert found['dataflow_interop_threads{state="target"}'] == flow.get_num_interop_threads()

    run_async(main())


def test_the_kernel_that_has_been_executed_the_longest(run_async: Runner) -> None:
    inside, go_on = threading.Event(), threading.Event()

    @flow.op
    def stays(x: Any) -> Any:
        inside.set()
        assert go_on.wait(20)
        return x

    async def main() -> None:
        task = asyncio.create_task(flow.pipeline(lambda x: stays(x))(1))
        while not inside.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        found = read(prometheus.text())
        assert found["dataflow_kernel_longest_seconds"] >= 0.01
        assert found['dataflow_interop_threads{state="busy"}'] >= 1
        assert not any(name.startswith("dataflow_runtime") for name in found)
        go_on.set()
        await task

    run_async(main())


def test_two_runtimes_of_one_name() -> None:
    one, two, same = (flow.Runtime(name=name) for name in ("a", "b", "a"))
    found = read(prometheus.text(one, two))
    assert found['dataflow_runtime_runs{runtime="b",state="running"}'] == 0
    with pytest.raises(ValueError, match="two runtimes have the name 'a'"):
        prometheus.text(one, two, same)
