"""`flow.profile`: what it records, the sums, the text, what-if, and the trace that it saves."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.engine.runs import record
from dataflow.engine.runs.record import LOOP
from dataflow.tools.spans import critical, joined
from dataflow.tools.whatif import simulated

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


@flow.op
def nap(x: Any, seconds: float = 0.01) -> Any:
    """A kernel that scales on any machine."""
    time.sleep(seconds)
    return x


@flow.op
async def fetch(x: Any) -> Any:
    await asyncio.sleep(0.01)
    return x


@flow.op
def add(*xs: Any) -> Any:
    return sum(xs)


inc = flow.op(lambda x: x + 1, name="inc")


@flow.pipeline
def wide(x: Any) -> Any:
    return add(*[nap(x) for _ in range(4)])


@flow.pipeline
def chain(x: Any) -> Any:
    for _ in range(4):
        x = nap(x)
    return x


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    flow.set_num_interop_threads(2)


# ------------------------------------------------------------------------------------------------ what is recorded


def test_each_kernel_once_in_its_order(run_async: Runner) -> None:
    async def main() -> flow.Profile:
        with flow.profile() as prof:
            assert await wide(1) == 4
        await wide(1)
        return prof

    (run,) = run_async(main()).runs
    assert (run.pipeline, run.outcome, len(run.steps)) == ("wide", "done", 5)
    assert all(run.began <= step.ready <= step.began <= step.ended <= run.ended for step in run.steps.values())
    assert all(step.own == step.attempts for step in run.steps.values())
    assert len({step.thread for step in run.steps.values()}) == 2
    rows = [sorted((s.began, s.ended) for s in run.steps.values() if s.thread == each) for each in run.record.rows]
    assert all(len(joined(row)) == len(row) for row in rows), "a thread executes one kernel at a time"
    last = max(run.steps.values(), key=lambda step: step.number)
    assert last.ready == max(step.ended for step in run.steps.values() if step is not last)


def test_nothing_is_recorded_outside(run_async: Runner) -> None:
    with flow.profile() as prof:
        pass
    assert chain.run(1) == 1
    assert (prof.runs, prof.wall, prof.work, prof.span, prof.operators) == ([], 0, 0, 0, [])
    assert "no run was recorded" in str(prof)


class Gate:
    """A kernel that stays inside until it may go on."""

    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.stays = flow.op(self._stay, name="stays")

    def _stay(self, x: Any) -> Any:
        self.inside.set()
        assert self.go_on.wait(20)
        return x

    async def entered(self) -> None:
        while not self.inside.is_set():
            await asyncio.sleep(0.001)


def test_runs_that_began_inside_are_recorded_to_their_end(run_async: Runner) -> None:
    first, second = Gate(), Gate()

    async def main() -> flow.Profile:
        before = asyncio.create_task(flow.pipeline(lambda x: first.stays(x))(1))
        await first.entered()
        with flow.profile() as prof:
            inside = asyncio.create_task(flow.pipeline(lambda x: second.stays(nap(x)))(2))
            await second.entered()
        assert prof.runs[0].outcome == ""
        assert "under way" in str(prof)
        first.go_on.set()
        second.go_on.set()
        assert await before == 1
        assert await inside == 2
        return prof

    (run,) = run_async(main()).runs
    assert (run.outcome, len(run.steps)) == ("done", 2)


def test_light_kernels_are_one_entry(run_async: Runner) -> None:
    @flow.pipeline
    def light(x: Any) -> Any:
        for _ in range(500):
            x = inc(x)
        return x

    async def main() -> flow.Profile:
        await light(0)
        with flow.profile() as prof:
            assert await light(0) == 500
        return prof

    prof = run_async(main())
    (run,) = prof.runs
    assert sorted(run.steps) == list(range(500))
    assert run.record.entries < 500
    (operator,) = prof.operators
    assert (operator.name, operator.calls) == ("inc", 500)
    assert "hardly worth a node each" in str(prof)


def test_async_operators_failures_and_cancelled_runs(run_async: Runner) -> None:
    @flow.op
    def fails(x: Any) -> Any:
        raise ValueError("no")

    bad, gate = flow.pipeline(lambda x: fails(fetch(x)), name="bad"), Gate()

    async def main() -> flow.Profile:
        with flow.profile() as prof:
            with pytest.raises(ValueError, match="no"):
                await bad(1)
            task = asyncio.create_task(flow.pipeline(lambda x: nap(gate.stays(nap(x))))(1))
            await gate.entered()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.go_on.set()
            await flow.quiet()
        return prof

    prof = run_async(main())
    first, second = prof.runs
    assert (first.outcome, second.outcome) == ("failed", "cancelled")
    assert [step.thread == LOOP for step in first.steps.values()] == [True, False]
    assert [second.plan.nodes[number].spec.name for number in second.steps] == ["nap", "stays"]
    assert "(1 failed, 1 cancelled)" in str(prof)
    assert [operator.is_async for operator in prof.operators if operator.name == "fetch"] == [True]


def test_inner_runs(run_async: Runner) -> None:
    """What a kernel waits for is the work of the inner run, and not its own."""

    @flow.op
    def outer(x: Any) -> Any:
        time.sleep(0.01)
        return chain.run(x)

    @flow.op
    async def on_loop(x: Any) -> Any:
        return await chain(x)

    @flow.pipeline
    def p(x: Any) -> Any:
        return add(outer(x), on_loop(x))

    async def main() -> flow.Profile:
        with flow.profile() as prof:
            await p(1)
        return prof

    prof = run_async(main())
    assert sorted(run.pipeline for run in prof.runs) == ["chain", "chain", "p"]
    (run,) = prof.outer
    assert sorted(len(step.inner) for step in run.steps.values()) == [0, 1, 1]
    assert 0.09 <= prof.work <= 2 * prof.wall
    assert prof.span >= 0.05
    found = {operator.name: operator for operator in prof.operators}
    assert (found["nap"].calls, found["outer"].calls) == (8, 1)
    assert found["nap"].seconds >= 0.08
    assert 0.01 <= found["outer"].seconds < found["outer"].longest - 0.03
    assert any("runs of their own" in note for note in prof.what_if().notes)
    assert "nap" in str(prof)


def test_mapped_kernels_are_seen() -> None:
    p = flow.pipeline(lambda xs: flow.map(nap, xs), name="maps")
    with flow.profile() as prof:
        p.run([1, 2, 3, 4])
    assert {operator.name: operator.calls for operator in prof.operators} == {"nap": 4, "map": 1}
    assert "had nothing to do" not in str(prof)
    assert prof.work >= 0.04


def test_a_run_that_is_over_before_its_kernels(run_async: Runner, tmp_path: Path) -> None:
    """It can be read at any moment, and what comes after its end is not looked at."""
    gate = Gate()

    async def main() -> None:
        with flow.profile() as prof:
            task = asyncio.create_task(flow.pipeline(lambda x: gate.stays(nap(x)), name="late")(1))
            await gate.entered()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        before = str(prof)
        prof.save(tmp_path / "before.json")
        gate.go_on.set()
        await flow.quiet()
        assert "1 cancelled" in before
        (run,) = prof.runs
        assert [run.plan.nodes[number].spec.name for number in run.steps] == ["nap", "stays"]
        assert all(step.ended <= run.ended for step in run.steps.values())
        assert prof.work <= 2 * prof.wall
        prof.save(tmp_path / "after.json")

    run_async(main())


def test_several_runs_at_once(run_async: Runner) -> None:
    async def main() -> flow.Profile:
        with flow.profile() as prof:
            await asyncio.gather(*(chain(n) for n in range(4)))
        return prof

    prof = run_async(main())
    assert "(several runs at once)" in str(prof)
    assert any("several runs" in note for note in prof.what_if().notes)


def test_runs_on_other_numbers_of_threads_are_told_apart() -> None:
    with flow.profile() as prof:
        for threads in (1, 4, 4):
            flow.set_num_interop_threads(threads)
            wide.run(1)
    assert (prof.what_if().threads, prof.what_if().runs) == (4, 2)


def test_one_run_that_stays_open_makes_recording_no_slower(run_async: Runner) -> None:
    """A sum is kept; there were as many looks as runs."""

    async def main() -> int:
        with flow.profile() as prof:
            waits = asyncio.Event()

            @flow.op
            async def long(x: Any) -> Any:
                await waits.wait()
                return x

            task = asyncio.create_task(flow.pipeline(lambda x: long(x))(1))
            await asyncio.sleep(0.01)
            for _ in range(3_000):
                await flow.pipeline(lambda x: x)(1)
            waits.set()
            await task
        return len(prof.runs)

    assert run_async(main()) == 3_001


def test_streams_several_loops_and_attempts() -> None:
    tries = []

    @flow.op(retries=2, backoff=0)
    def flaky(x: Any) -> Any:
        tries.append(x)
        if len(tries) < 3:
            raise ValueError("not yet")
        return x

    async def stream() -> None:
        assert [y async for y in wide.stream(range(3))] == [0, 4, 8]

    with flow.profile() as prof:
        threads = [threading.Thread(target=lambda: asyncio.run(stream())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert flow.pipeline(lambda x: flaky(x), name="flaky").run(1) == 1
    assert sorted(run.pipeline for run in prof.runs) == ["flaky", *["wide"] * 6]
    (last,) = [run for run in prof.runs if run.pipeline == "flaky"]
    assert last.record.entries == 3
    (step,) = last.steps.values()
    assert len(step.attempts) == 3
    assert step.longest <= step.seconds


def test_one_inside_the_other() -> None:
    profile = flow.profile()
    with profile as first:
        chain.run(1)
        with flow.profile() as second:
            wide.run(1)
        with pytest.raises(RuntimeError, match="records already"), profile:
            pass
    assert [run.pipeline for run in first.runs] == ["chain", "wide"]
    assert [run.pipeline for run in second.runs] == ["wide"]
    with profile as third:
        wide.run(1)
    assert [run.pipeline for run in third.runs] == ["wide"]


def test_its_memory_is_bounded() -> None:
    with flow.profile(most=10) as prof:
        for _ in range(5):
            chain.run(1)
    assert (len(prof.runs), prof.dropped) == (2, 3)
    assert "3 further runs were not recorded" in str(prof)


@pytest.mark.parametrize(("most", "error"), [(0, ValueError), (True, TypeError), ("1", TypeError), (1.5, TypeError)])
def test_bad_bounds(most: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"most= of flow\.profile"):
        flow.profile(most=most)


def test_it_keeps_no_values(run_async: Runner) -> None:
    alive: list[Any] = []

    @flow.op
    def made(x: Any) -> Any:
        array = np.zeros(10)
        alive.append(weakref.ref(array))
        return array

    p = flow.pipeline(lambda x: add(made(x).sum()))
    with flow.profile() as prof:
        p.run(1)
        asyncio.run(flow.quiet())
    assert prof.runs
    for _ in range(1000):
        if alive[0]() is None:
            break
        time.sleep(0.001)
    assert alive[0]() is None


# ------------------------------------------------------------------------------------------------ sums and text


def test_sums_of_sleeping_kernels() -> None:
    wide.run(1), chain.run(1)
    with flow.profile() as prof:
        wide.run(1)
        chain.run(1)
    # No kernel sleeps for less than 10 ms; how much longer it does, the machine says.
    assert prof.work >= 0.08
    assert 0.05 <= prof.span <= prof.wall
    sleeping = prof.operators[0]
    assert (sleeping.name, sleeping.calls, sleeping.scope) == ("nap", 8, "")
    assert sleeping.longest >= 0.01
    assert sleeping.wait >= 0.002, "two of four wait for the first two"


def test_the_text() -> None:
    @flow.pipeline
    def scoped(x: Any) -> Any:
        with flow.scope("front"):
            x = nap(x)
        return flow.label(nap(x), "tail")

    with flow.profile() as prof:
        scoped.run(1)
        scoped.run(1)
    text = str(prof)
    lines = text.splitlines()
    assert lines[0] == "2 × scoped"
    assert lines[1].startswith("wall ")
    assert any(line.startswith("thread 1 ") and "busy" in line for line in lines)
    assert "front/nap" in text
    assert text.isprintable() or "\n" in text
    assert max(map(len, lines)) < 200
    assert repr(prof).startswith("<profile of 2 runs")
    assert "2 steps, done" in repr(prof.runs[0])


def test_a_thread_that_was_not_needed() -> None:
    flow.set_num_interop_threads(4)
    with flow.profile() as prof:
        chain.run(1)
    assert "3 of 4 inter-op threads had nothing to do" in str(prof)


# ------------------------------------------------------------------------------------------------ what if


def test_what_if_of_sleeping_kernels() -> None:
    wide.run(1)
    with flow.profile() as prof:
        for _ in range(5):
            wide.run(1)
    found = prof.what_if((1, 2, 4, 8))
    assert (found.pipeline, found.threads, found.runs) == ("wide", 2, 5)
    one = found.work / 4
    assert found.seconds[1] - found.seconds[2] >= one  # two, if all take the same
    assert found.seconds[2] - found.seconds[4] >= 0.4 * one  # one
    assert found.seconds[4] == found.seconds[8] >= found.span
    assert found.operators["nap"] >= 0.4 * one
    assert "half the time of nap" in str(found)


def test_what_if_names_the_pipeline() -> None:
    with flow.profile() as prof:
        wide.run(1)
        chain.run(1)
    assert prof.what_if(pipeline="chain").pipeline == "chain"
    assert list(prof.what_if().seconds) == [1, 2, 4, 8, 16]
    with pytest.raises(ValueError, match="no run of a pipeline 'other'"):
        prof.what_if(pipeline="other")
    with pytest.raises(ValueError, match="at least 1"):
        prof.what_if((0,))
    for wrong in (True, 1.5, "2"):
        with pytest.raises(TypeError, match="needs numbers of threads"):
            prof.what_if((wrong,))  # type: ignore[arg-type]


def test_light_pipelines_gain_nothing_from_threads() -> None:
    @flow.pipeline
    def light(x: Any) -> Any:
        return add(*[inc(x) for _ in range(300)])

    for _ in range(3):
        light.run(1)
    with flow.profile() as prof:
        light.run(1)
    if all(step.in_order for step in prof.runs[0].steps.values()):  # as it is, but on a very busy machine
        assert len(set(prof.what_if().seconds.values())) == 1


def test_the_simulation() -> None:
    #  0 ─▶ 2 ─▶ 4        3 is on the loop
    #  1 ─▶ 3 ──▲
    successors, before = [[2], [3], [4], [4], []], [[], [], [0], [1], [2, 3]]
    seconds = dict.fromkeys(range(5), 1.0)

    def taken(threads: int, between: float = 0.0) -> float:
        return simulated(seconds, successors, before, threads, lambda step: step == 3, between)

    assert [taken(1), taken(2), taken(4)] == [4.0, 3.0, 3.0]
    assert taken(1, 0.5) == 6.0
    assert critical(seconds, before) == (3.0, [0, 2, 4])
    assert critical({}, before) == (0.0, [])
    assert simulated({0: 1.0, 2: 2.0}, successors, before, 1, lambda step: False, 0.0) == 3.0


# ------------------------------------------------------------------------------------------------ the trace


@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_the_trace(ending: str, tmp_path: Path) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return add(*[fetch(nap(x)) for _ in range(3)], flow.label(nap(x), "last"))

    with flow.profile() as prof:
        p.run(1)
        p.run(1)
    path = tmp_path / f"run.{ending}"
    prof.save(path)
    opened: Any = gzip.open if ending.endswith("gz") else open
    with opened(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == 2 + sum(run.record.entries for run in prof.runs)
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"runs", "thread 1", "loop 1", "loop 2"} <= set(names.values())
    for row, name in names.items():
        mine = sorted((each["ts"], each["ts"] + each["dur"]) for each in slices if each["tid"] == row)
        assert all(ended <= began + 0.01 for (_, ended), (began, _) in pairwise(mine)), name
    assert {each["name"] for each in slices} == {"p", "nap", "fetch", "add", "last"}
    (labelled, _) = [each for each in slices if each["name"] == "last"]
    assert labelled["args"]["operator"] == "nap"
    arrows = [event["ph"] for event in events if event["name"] == "longest chain"]
    assert arrows.count("s") == arrows.count("f") == 2
    running = [event["args"]["running"] for event in events if event["ph"] == "C"]
    assert max(running) <= 2
    assert running[-1] == 0


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with flow.profile() as prof:
        chain.run(1)
    with pytest.raises(ValueError, match=r"\.json, \.json\.gz or \.svg, not as 'run\.txt'"):
        prof.save(tmp_path / "run.txt")
    assert not list(tmp_path.iterdir())


def test_a_run_that_outlives_the_one_that_began_it(run_async: Runner) -> None:
    """Nobody waits for it: it counts for itself."""
    begun: list[Any] = []

    @flow.op
    async def fires(x: Any) -> Any:
        begun.append(asyncio.ensure_future(chain(x)))
        return x

    async def main() -> flow.Profile:
        with flow.profile() as prof:
            await flow.pipeline(lambda x: fires(x), name="fires")(1)
            await begun[0]
        return prof

    prof = run_async(main())
    assert sorted(run.pipeline for run in prof.outer) == ["chain", "fires"]
    assert 0.04 <= prof.work <= prof.wall


def test_which_of_several_async_operators_has_begun_a_run_nobody_knows(run_async: Runner) -> None:
    @flow.op
    async def calls(x: Any) -> Any:
        return await chain(x)

    @flow.op
    async def sleeps(x: Any) -> Any:
        await asyncio.sleep(0.06)
        return x

    async def main() -> flow.Profile:
        with flow.profile() as prof:
            await flow.pipeline(lambda x: add(calls(x), sleeps(x)))(1)
        return prof

    prof = run_async(main())
    (run,) = prof.outer
    assert all(not step.inner for step in run.steps.values())
    assert prof.work >= 0.04
    assert "nap" in str(prof)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_the_child_of_a_fork_no_lock_is_held() -> None:
    """Another thread of the parent may have held them at that moment."""
    with flow.profile() as prof:
        chain.run(1)
        with record._lock, prof._recorder._lock:
            record._after_fork()
            with flow.profile() as inner:
                chain.run(1)
    assert (len(prof.runs), len(inner.runs)) == (2, 1)
