"""`flow.profile`: what happened in the runs that begin inside it, and where the time went.

    with flow.profile() as prof:
        await p(x)
    print(prof)                      workers as bars, the sums, a table of operators
    prof.what_if()                   other numbers of threads, a quicker operator
    prof.save("run.json")            for ui.perfetto.dev, or chrome://tracing

All runs are recorded that begin in this process meanwhile: also those of other tasks, threads and loops, and those
inside of others. `p.debug()` is no run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from operator import index
from types import TracebackType
from typing import Final, SupportsIndex

import numpy as np

from dataflow.engine.runs.record import LOOP, MOST_STEPS, Recorder
from dataflow.graph.plan import Plan
from dataflow.tools.chrome import save_trace
from dataflow.tools.spans import (
    Operator,
    ProfiledRun,
    Stretch,
    covered,
    critical,
    earlier,
    is_async,
    operators_of,
    overlap,
    profiled,
)
from dataflow.tools.svg import timeline_svg
from dataflow.tools.timeline import drawn
from dataflow.tools.whatif import WhatIf, simulated

__all__ = ["Profile", "profile"]


class Profile:
    """What was recorded; complete once all runs that began inside it have ended. It may be read meanwhile, and keeps
    the graphs of the runs alive."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._earlier: dict[int, tuple[Plan, list[list[int]]]] = {}
        self._made: tuple[tuple[int, ...], list[ProfiledRun]] | None = None
        """The runs, and how far the records were when they were made; once all had ended."""

    @property
    def runs(self) -> list[ProfiledRun]:
        """All recorded runs in the order in which they began, those inside of others included."""
        records = list(self._recorder)
        so_far = tuple(record.entries for record in records)
        if self._made is not None and self._made[0] == so_far:
            return self._made[1]
        for record in records:
            if id(record.plan) not in self._earlier:
                self._earlier[id(record.plan)] = record.plan, earlier(record.plan)
        have_ended = all(record.ended is not None for record in records)
        runs = profiled(records, {key: before for key, (_, before) in self._earlier.items()})
        self._made = (so_far, runs) if have_ended else None
        return runs

    @property
    def outer(self) -> list[ProfiledRun]:
        """The runs that no other recorded one has waited for: those begun outside of runs, or that outlived theirs."""
        return [run for run in self.runs if not run.inside]

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
        """The seconds of all kernels. One that waits for a run of its own does no work meanwhile."""
        return sum(run.work for run in self.runs)

    @property
    def span(self) -> float:
        """The seconds of the longest chains of dependent operators, one outer run after another: no number of threads
        makes a run shorter than its own."""
        return sum(run.span for run in self.outer)

    @property
    def operators(self) -> list[Operator]:
        """The operators of all runs, the one that took longest first."""
        return operators_of(self.runs)

    def what_if(self, threads: Sequence[int] = (1, 2, 4, 8, 16), *, pipeline: str | None = None) -> WhatIf:
        """What a run of a pipeline would take on these numbers of inter-op threads, and if an operator were quicker.

        Of the pipeline with this name; by default, of the one that did most work. The times are medians over its
        recorded runs that were done, on the number of threads that most of them had. ValueError if there is none, or
        for a number below 1; TypeError for what is no number of threads.
        """
        counts = [_at_least_one(number) for number in threads]
        every = self.runs
        runs = [run for run in every if run.outcome == "done" and not run.inside and pipeline in (None, run.pipeline)]
        if not runs:
            which = "run" if pipeline is None else f"run of a pipeline {pipeline!r}"
            raise ValueError(f"no {which} was recorded that was done: run one inside `with flow.profile()`")
        groups: dict[tuple[int, int], list[ProfiledRun]] = {}
        for run in runs:
            groups.setdefault((id(run.plan), run.record.threads), []).append(run)
        work: dict[int, float] = {}
        for (plan, _), found in groups.items():
            work[plan] = work.get(plan, 0.0) + sum(run.work for run in found)
        most = max(work, key=work.__getitem__)
        runs = max((found for (plan, _), found in groups.items() if plan == most), key=len)
        return _what_if(runs, counts, every)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the runs to a file: `.json` or `.json.gz`, a trace for ui.perfetto.dev and chrome://tracing; or `.svg`,
        the outer ones as a picture.

        ValueError for other endings, before anything is written.
        """
        name = os.fsdecode(path)
        if name.endswith(".svg"):
            picture = timeline_svg(self.outer)
            with open(name, "w", encoding="utf-8") as file:
                file.write(picture)
        elif name.endswith((".json", ".json.gz")):
            save_trace(name, self.runs)
        else:
            raise ValueError(f"a profile is saved as .json, .json.gz or .svg, not as {os.path.basename(name)!r}")

    def __str__(self) -> str:
        return drawn(self.runs, self.dropped)

    def __repr__(self) -> str:
        return f"<profile of {len(self.runs)} runs, {self.wall:.6f} s>"


def _at_least_one(number: SupportsIndex) -> int:
    if isinstance(number, bool) or not isinstance(number, SupportsIndex):
        raise TypeError(f"what_if needs numbers of threads, not {type(number).__name__}")
    if index(number) < 1:
        raise ValueError(f"what_if needs numbers of threads of at least 1, not {number}")
    return index(number)


MOST_PLAYED: Final = 20
"""Operators of which is played what half their time would give."""


def _what_if(runs: list[ProfiledRun], threads: Sequence[int], every: Sequence[ProfiledRun]) -> WhatIf:
    plan, before = runs[0].plan, runs[0].before
    walls = [run.ended - run.began for run in runs]
    seconds = {
        number: _median([sum(map(_length, run.steps[number].attempts)) for run in runs if number in run.steps])
        for number in runs[0].steps
    }
    # What comes before the first kernel and after the last one, and between two on one thread.
    around = _median([wall - _busy(run) for wall, run in zip(walls, runs, strict=True)])
    between = _median(_gaps(every) or [0.0])
    alone = _median([sum(step.in_order for step in run.steps.values()) / max(len(run.steps), 1) for run in runs]) > 0.5
    asynchronous = [is_async(node) for node in plan.nodes]

    def taken(lengths: dict[int, float], count: int) -> float:
        played = 1 if alone else count  # kernels so light that one worker executes them all, whatever the setting
        return around + simulated(lengths, plan.successors, before, played, asynchronous.__getitem__, between)

    recorded_on = runs[0].record.threads
    now = taken(seconds, recorded_on)
    by_name: dict[str, float] = {}
    for number, each in seconds.items():
        name = plan.nodes[number].spec.name
        by_name[name] = by_name.get(name, 0.0) + each
    halved = {
        name: now
        - taken(
            {number: each / 2 if plan.nodes[number].spec.name == name else each for number, each in seconds.items()},
            recorded_on,
        )
        for name in sorted(by_name, key=by_name.__getitem__, reverse=True)[:MOST_PLAYED]
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
        notes=_notes(runs, every),
    )


def _notes(runs: list[ProfiledRun], every: Sequence[ProfiledRun]) -> tuple[str, ...]:
    """What was not played."""
    notes = []
    if any(step.inner for run in runs for step in run.steps.values()):
        notes.append("operators wait for runs of their own: these are not played, and take what they took")
    options = [node.spec.options for node in runs[0].plan.nodes if node.spec.options is not None]
    if any(each.limit is not None or each.retries for each in options):
        notes.append("limits, and the pauses between retries, are not played")
    if overlap([run for run in every if not run.inside]):
        notes.append("several runs were under way at once, and took threads from each other when this was measured")
    return tuple(notes)


def _length(stretch: Stretch) -> float:
    return stretch[1] - stretch[0]


def _median(values: Sequence[float]) -> float:
    """numpy has it already, and the module `statistics` takes a while to import."""
    return float(np.median(values))


def _busy(run: ProfiledRun) -> float:
    """From the first step to the last."""
    if not run.steps:
        return 0.0
    return max(step.ended for step in run.steps.values()) - min(step.began for step in run.steps.values())


def _gaps(runs: Sequence[ProfiledRun]) -> list[float]:
    """What a thread needed between two kernels, the second of which was ready."""
    rows: dict[int, list[tuple[float, float, float]]] = {}
    for run in runs:
        for step in run.steps.values():
            if step.thread != LOOP and not step.in_order and len(step.attempts) == 1:
                rows.setdefault(step.thread, []).append((step.began, step.ended, step.ready))
    gaps = []
    for row in rows.values():
        row.sort()
        gaps += [began - max(ended, ready) for (_, ended, _), (began, _, ready) in pairwise(row)]
    return [gap for gap in gaps if gap >= 0]


class profile:  # noqa: N801  # used as a function
    """Record the runs that begin inside `with flow.profile() as prof:`, in whichever task, thread and loop.

    Gives a `Profile`. Of each kernel it is recorded when it began and ended, which takes less than a microsecond;
    nothing else changes. Runs inside runs are recorded as well. At most so many steps are kept as `most` says; further
    runs are not recorded, and counted (`dropped`).
    """

    def __init__(self, *, most: SupportsIndex = MOST_STEPS) -> None:
        if isinstance(most, bool) or not isinstance(most, SupportsIndex):
            raise TypeError(f"most= of flow.profile is a number of steps, not {type(most).__name__}")
        most = index(most)
        if most < 1:
            raise ValueError(f"most= of flow.profile must be at least 1, not {most}")
        self._most = most
        self._recorder: Recorder | None = None

    def __enter__(self) -> Profile:
        if self._recorder is not None:
            raise RuntimeError("this flow.profile() records already: make another one for each `with`")
        self._recorder = Recorder(self._most)
        self._recorder.start()
        return Profile(self._recorder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.stop()
