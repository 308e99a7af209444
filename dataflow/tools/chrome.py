"""Runs as a trace in the format of Chrome's about:tracing, which ui.perfetto.dev reads as well.

    thread 1    ▆▆ blur ▆▆   ▆ sum ▆          a slice for each kernel; a batch of light ones is one slice
    loop 1         ▆▆▆ fetch ▆▆▆              async operators overlap: each goes into the first row that is free
    runs        ▆▆▆▆▆▆ photo ▆▆▆▆▆▆▆          likewise

Arrows lead along the longest chain of dependent steps of each run, and a counter tells how many kernels run. The format
is Google's "Trace Event Format".
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import heappush, heapreplace
from typing import Any

from dataflow.engine.runs.record import LOOP
from dataflow.tools.spans import ProfiledRun, name_of, scope_of

__all__ = ["Rows", "events_of", "save_trace"]

_RUNS, _THREADS, _LOOP = 1, 1_000_000, 2_000_000
"""Rows: of runs, threads and async operators from these numbers on."""


def save_trace(name: str, runs: Sequence[ProfiledRun]) -> None:
    """Write the runs to a file; packed, if its name ends in `.gz`."""
    text = json.dumps({"traceEvents": events_of(runs), "displayTimeUnit": "ms"})
    if name.endswith(".gz"):
        with gzip.open(name, "wt", encoding="utf-8") as packed:
            packed.write(text)
    else:
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)


def events_of(runs: Sequence[ProfiledRun]) -> list[dict[str, Any]]:
    """The trace as a list of events; times in microseconds from the beginning of the first run."""
    if not runs:
        return []
    zero = min(run.began for run in runs)

    def micros(moment: float) -> float:
        return round((moment - zero) * 1e6, 3)

    events: list[dict[str, Any]] = []
    rows: dict[int, str] = {}
    threads: dict[int, int] = {}
    for row, run in _in_rows(runs):
        rows[_RUNS + row] = "runs" if not row else f"runs {row + 1}"
        arguments = {"run": run.record.number, "nodes": len(run.plan), "outcome": run.outcome or "under way"}
        events.append(_slice(run.pipeline, _RUNS + row, micros(run.began), micros(run.ended), arguments))
    slices = [each for run in runs for each in _slices(run)]
    slices.sort(key=lambda each: each[1])
    at: dict[tuple[int, int], tuple[int, float]] = {}
    loop = Rows()
    for thread, began, ended, name, arguments, key in slices:
        if thread == LOOP:
            place = loop.row(began, ended)
            row = _LOOP + place
            rows[row] = f"loop {place + 1}"
        else:
            row = _THREADS + threads.setdefault(thread, len(threads))
            rows[row] = f"thread {row - _THREADS + 1}"
        events.append(_slice(name, row, micros(began), micros(ended), arguments))
        if key is not None:
            at[key] = row, micros(began)
    events += _arrows(runs, at)
    events += _counter((micros(began), micros(ended)) for thread, began, ended, *_ in slices if thread != LOOP)
    names = [("process_name", 0, {"name": "dataflow"})]
    names += [("thread_name", row, {"name": name}) for row, name in rows.items()]
    names += [("thread_sort_index", row, {"sort_index": row}) for row in rows]  # type: ignore[dict-item]
    return [{"ph": "M", "pid": 1, "tid": row, "name": name, "args": args} for name, row, args in names] + events


def _slice(name: str, row: int, began: float, ended: float, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "X", "pid": 1, "tid": row, "name": name, "ts": began, "dur": ended - began, "args": arguments}


_Slice = tuple[int, float, float, str, dict[str, Any], tuple[int, int] | None]
"""Thread, began, ended, name, arguments; and the run and the step, of one that arrows may lead to."""


def _slices(run: ProfiledRun) -> list[_Slice]:
    plan, number = run.plan, run.record.number
    found: list[_Slice] = []
    for thread, row in run.rows.items():
        for steps, began, ended in row:
            if isinstance(steps, int) and steps not in run.steps:
                continue  # its run was over when it began
            if isinstance(steps, int):
                node, step = plan.nodes[steps], run.steps[steps]
                arguments: dict[str, Any] = {"run": number, "pipeline": run.pipeline, "node": node.number}
                if scope := scope_of(node, plan):
                    arguments["scope"] = scope
                if node.number in plan.graph.labels:
                    arguments["operator"] = node.spec.name
                if began == step.began:
                    arguments["waited, µs"] = round(step.wait * 1e6, 1)
                found.append((thread, began, ended, name_of(node, plan), arguments, (number, steps)))
            elif steps:
                kinds = Counter(plan.nodes[step].spec.name for step in steps)
                name = f"{len(steps)} × {next(iter(kinds))}" if len(kinds) == 1 else f"{len(steps)} kernels"
                arguments = {"run": number, "pipeline": run.pipeline, "kernels": dict(kinds.most_common(10))}
                found.append((thread, began, ended, name, arguments, None))
    return found


class Rows:
    """Gives what comes in order of its beginning rows in which nothing overlaps."""

    def __init__(self) -> None:
        self._free: list[tuple[float, int]] = []
        """A heap: until when each is taken."""

    def row(self, began: float, ended: float) -> int:
        """One that is free from this moment on, and taken until that."""
        if self._free and self._free[0][0] <= began:
            _, row = heapreplace(self._free, (ended, self._free[0][1]))
            return row
        row = len(self._free)
        heappush(self._free, (ended, row))
        return row


def _in_rows(runs: Sequence[ProfiledRun]) -> Iterable[tuple[int, ProfiledRun]]:
    """Each run with the first row where none overlaps it."""
    rows = Rows()
    for run in sorted(runs, key=lambda run: run.began):
        yield rows.row(run.began, run.ended), run


def _arrows(runs: Sequence[ProfiledRun], at: dict[tuple[int, int], tuple[int, float]]) -> Iterable[dict[str, Any]]:
    for run in runs:
        chain = [at[key] for step in run.chain if (key := (run.record.number, step)) in at]
        for place, (row, began) in enumerate(chain if len(chain) > 1 else ()):
            kind = "s" if not place else "f" if place == len(chain) - 1 else "t"
            arrow = {"ph": kind, "pid": 1, "tid": row, "ts": began, "id": run.record.number}
            yield {**arrow, "name": "longest chain", "cat": "chain", **({"bp": "e"} if kind != "s" else {})}


def _counter(stretches: Iterable[tuple[float, float]]) -> Iterable[dict[str, Any]]:
    changes: Counter[float] = Counter()
    for began, ended in stretches:
        changes[began] += 1
        changes[ended] -= 1
    running = 0
    for moment in sorted(changes):
        running += changes[moment]
        yield {"ph": "C", "pid": 1, "tid": 0, "name": "kernels", "ts": moment, "args": {"running": running}}
