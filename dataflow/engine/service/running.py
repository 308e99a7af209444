"""`running`: which kernels are executed at this moment, by which threads, and for how long."""

from __future__ import annotations

import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Final

from dataflow.engine import worker
from dataflow.engine.pool import process_pool
from dataflow.graph.tracing.tracer import PACKAGE

_WORKER: Final = worker.__file__

__all__ = ["RunningKernel", "as_dicts", "running"]


@dataclass(frozen=True)
class RunningKernel:
    """A kernel that is executed at the moment."""

    operator: str
    node: int
    """Its number in the pipeline's graph."""
    pipeline: str
    run: int
    """The number of the run, as events have it."""
    seconds: float
    """Since when; of light kernels that one thread executes in a row, since the first of them began."""
    thread: str
    """The name of its thread."""
    abandoned: bool
    """Whether nobody waits for it any more: its run is over, or its time was up."""
    stack: str | None = None
    """Where it is, the operator first, in the words of a traceback; if that was asked for."""


def running(*, stacks: bool = False) -> list[RunningKernel]:
    """The kernels that are executed at this moment in this process, the longest first.

    A kernel that waits for a run of its own is one of them, and so are those of that run. Async operators are not: they
    are tasks, see `asyncio.all_tasks()`. With `stacks`, it is told where each of them is.
    """
    now, names = perf_counter(), {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames() if stacks else {}
    found = []
    inside: dict[int, int] = {}
    """For each thread, how many of its kernels were met; one that waits for a run was called before the run's own."""
    for run, step, thread, since in sorted(process_pool().executing(), key=lambda each: each[0].number):
        node, core = run.plan.nodes[step], run.core
        place = inside[thread] = inside.get(thread, -1) + 1
        found.append(
            RunningKernel(
                operator=node.spec.name,
                node=node.number,
                pipeline=run.plan.graph.name,
                run=run.number,
                seconds=max(now - since, 0.0),
                thread=names.get(thread, "?"),
                abandoned=core.stopped or step in core.overrunning,
                stack=_stack(frames.get(thread), place) if stacks else None,
            )
        )
    return sorted(found, key=lambda kernel: -kernel.seconds)


def _stack(frame: Any, place: int) -> str | None:
    """Where the kernel is that was called as the one of this place in the thread, of those that wait for each other."""
    if frame is None:
        return None
    frames = traceback.extract_stack(frame)
    begins, called = [], False
    for number, each in enumerate(frames):
        if each.filename.startswith(PACKAGE):
            called = called or each.filename == _WORKER
        elif called:  # the first frame after those of a worker
            begins.append(number)
            called = False
    return "".join(traceback.format_list(frames[begins[place] :])) if place < len(begins) else None


def as_dicts() -> list[dict[str, Any]]:
    """The same for `parallel_info`, JSON-safe."""
    return [{name: value for name, value in asdict(each).items() if name != "stack"} for each in running()]
