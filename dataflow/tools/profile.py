"""`flow.profile`: what happened in the runs that begin inside it, and where the time went.

    with flow.profile() as prof:
        await p(x)
    print(prof)                      workers as bars, the sums, a table of operators
    prof.what_if()                   other numbers of threads, a quicker operator
    prof.save("run.json")            for ui.perfetto.dev, or chrome://tracing

All runs are recorded that begin in this process meanwhile: also those of other tasks, threads and loops. Sums are of
the outer ones; an inner run is a part of the kernel that waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from operator import index
from types import TracebackType
from typing import SupportsIndex

import numpy as np

from dataflow.engine.runs.record import LOOP, Recorder
from dataflow.graph.plan import Plan
from dataflow.tools.chrome import save_trace
from dataflow.tools.spans import Operator, ProfiledRun, Step, covered, critical, earlier, is_async, scope_of
from dataflow.tools.svg import timeline_svg
from dataflow.tools.timeline import drawn
from dataflow.tools.whatif import WhatIf, simulated

__all__ = ["Profile", "profile"]


class Profile:
    """What was recorded; complete once all runs that began inside it have ended. It keeps their graphs alive."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._known: dict[int, ProfiledRun] = {}
        self._before: dict[int, tuple[Plan, list[list[int]]]] = {}

    @property
    def runs(self) -> list[ProfiledRun]:
        """All recorded runs in the order in which they began, those inside of others included."""
        found = []
        for record in self._recorder:
            known = self._known.get(record.number)
            if known is None:
                known = ProfiledRun(record, self._earlier(record.plan))
                if record.ended is not None:
                    self._known[record.number] = known
            found.append(known)
        return found

    def _earlier(self, plan: Plan) -> list[list[int]]:
        if id(plan) not in self._before:
            self._before[id(plan)] = plan, earlier(plan)
        return self._before[id(plan)][1]

    @property
    def outer(self) -> list[ProfiledRun]:
        """The runs that no other recorded one waits for."""
        runs = self.runs
        numbers = {run.record.number for run in runs}
        return [run for run in runs if run.record.outer not in numbers]

    @property
    def dropped(self) -> int:
        """How many runs were not recorded, since there was no room for more."""
        return self._recorder.dropped

    @property
    def wall(self) -> float:
        """The seconds in which at least one run was under way."""
        return covered((run.began, run.ended) for run in self.outer)

    @property
    def work(self) -> float:
        """The seconds of all kernels."""
        return sum(run.work for run in self.outer)

    @property
    def span(self) -> float:
        """The seconds of the longest chains of dependent operators, one run after another: no number of threads makes a
        run shorter than its own."""
        return sum(run.span for run in self.outer)

    @property
    def operators(self) -> list[Operator]:
        """The operators of the outer runs, the one that took longest first."""
        found: dict[tuple[str, str, bool], list[Step]] = {}
        for run in self.outer:
            for number, step in run.steps.items():
                node = run.plan.nodes[number]
                found.setdefault((scope_of(node, run.plan), node.spec.name, is_async(node)), []).append(step)
        made = [
            Operator(
                scope,
                name,
                len(steps),
                sum(step.seconds for step in steps),
                sum(step.began - step.ready for step in steps) / len(steps),
                max(step.seconds for step in steps),
                asynchronous,
            )
            for (scope, name, asynchronous), steps in found.items()
        ]
        return sorted(made, key=lambda operator: -operator.seconds)

    def what_if(self, threads: Sequence[int] = (1, 2, 4, 8, 16), *, pipeline: str | None = None) -> WhatIf:
        """What a run of a pipeline would take on these numbers of inter-op threads, and if an operator were quicker.

        Of the pipeline with this name; by default, of the one that did most work. The times are medians over its
        recorded runs that were done. ValueError if there is none, or for a number below 1.
        """
        if any(number < 1 for number in threads):
            raise ValueError(f"what_if needs numbers of threads of at least 1, not {list(threads)}")
        runs = [run for run in self.outer if run.outcome == "done" and (pipeline is None or run.pipeline == pipeline)]
        if not runs:
            which = "run" if pipeline is None else f"run of a pipeline {pipeline!r}"
            raise ValueError(f"no {which} was recorded that was done: run one inside `with flow.profile()`")
        by_plan: dict[int, list[ProfiledRun]] = {}
        for run in runs:
            by_plan.setdefault(id(run.plan), []).append(run)
        runs = max(by_plan.values(), key=lambda found: sum(run.work for run in found))
        return _what_if(runs, self._earlier(runs[0].plan), threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the runs to a file: `.json` or `.json.gz`, a trace for ui.perfetto.dev and chrome://tracing; or `.svg`,
        the outer ones as a picture.

        ValueError for other endings, before anything is written.
        """
        name = os.fspath(path)
        if name.endswith(".svg"):
            picture = timeline_svg(self.outer)
            with open(name, "w", encoding="utf-8") as file:
                file.write(picture)
        elif name.endswith((".json", ".json.gz")):
            save_trace(name, self.runs)
        else:
            raise ValueError(f"a profile is saved as .json, .json.gz or .svg, not as {os.path.basename(name)!r}")

    def __str__(self) -> str:
        return drawn(self.outer, self.operators, self.dropped)

    def __repr__(self) -> str:
        return f"<profile of {len(self.runs)} runs, {self.wall:.6f} s>"


def _what_if(runs: list[ProfiledRun], before: list[list[int]], threads: Sequence[int]) -> WhatIf:
    plan = runs[0].plan
    walls = [run.ended - run.began for run in runs]
    seconds = {
        number: _median([run.steps[number].seconds for run in runs if number in run.steps]) for number in runs[0].steps
    }
    # What comes before the first kernel and after the last one, and between two on one thread.
    around = _median([wall - _busy(run) for wall, run in zip(walls, runs)])
    between = _median([gap for run in runs for gap in _gaps(run)] or [0.0])
    alone = _median([sum(step.in_order for step in run.steps.values()) / max(len(run.steps), 1) for run in runs]) > 0.5
    asynchronous = [is_async(node) for node in plan.nodes]

    def taken(lengths: dict[int, float], count: int) -> float:
        played = 1 if alone else count  # kernels so light that one worker executes them all, whatever the setting
        return around + simulated(lengths, plan.successors, before, played, asynchronous.__getitem__, between)

    recorded_on = runs[-1].record.threads
    now = taken(seconds, recorded_on)
    names = {plan.nodes[number].spec.name for number in seconds}
    halved = {
        name: now
        - taken(
            {number: each / 2 if plan.nodes[number].spec.name == name else each for number, each in seconds.items()},
            recorded_on,
        )
        for name in names
    }
    quarters = [float(each) for each in np.percentile(walls, (25, 75))]
    return WhatIf(
        pipeline=plan.graph.name,
        measured=_median(walls),
        noise=(quarters[1] - quarters[0]) / 2,
        threads=recorded_on,
        runs=len(runs),
        seconds={count: taken(seconds, count) for count in threads},
        work=sum(each for number, each in seconds.items() if not asynchronous[number]),
        span=critical(seconds, before)[0],
        operators=halved,
    )


def _median(values: Sequence[float]) -> float:
    """numpy has it already, and the module `statistics` takes a while to import."""
    return float(np.median(values))


def _busy(run: ProfiledRun) -> float:
    """From the first step to the last."""
    if not run.steps:
        return 0.0
    return max(step.ended for step in run.steps.values()) - min(step.began for step in run.steps.values())


def _gaps(run: ProfiledRun) -> list[float]:
    """What a thread needed between two kernels, the second of which was ready."""
    rows: dict[int, list[Step]] = {}
    for step in run.steps.values():
        if step.thread != LOOP and not step.in_order:
            rows.setdefault(step.thread, []).append(step)
    gaps = []
    for row in rows.values():
        row.sort(key=lambda step: step.began)
        gaps += [after.began - max(first.ended, after.ready) for first, after in pairwise(row)]
    return [gap for gap in gaps if gap >= 0]


class profile:  # noqa: N801  # used as a function
    """Record the runs that begin inside `with flow.profile() as prof:`, in whichever task, thread and loop.

    Gives a `Profile`. Of each kernel it is recorded when it began and ended, which takes less than a microsecond;
    nothing else changes. Runs inside runs are recorded as well. At most so many steps are kept as `most` says; further
    runs are not recorded, and counted (`dropped`).
    """

    def __init__(self, *, most: SupportsIndex = 1_000_000) -> None:
        if isinstance(most, bool) or not isinstance(most, SupportsIndex):
            raise TypeError(f"most= of flow.profile is a number of steps, not {type(most).__name__}")
        most = index(most)
        if most < 1:
            raise ValueError(f"most= of flow.profile must be at least 1, not {most}")
        self._most = most
        self._recorders: list[Recorder] = []

    def __enter__(self) -> Profile:
        recorder = Recorder(self._most)
        recorder.start()
        self._recorders.append(recorder)
        return Profile(recorder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._recorders.pop().stop()
