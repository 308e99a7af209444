"""`running`: which kernels are executed at this moment, by which threads, and for how long."""

from __future__ import annotations

import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from dataflow.engine.pool import process_pool
from dataflow.graph.tracing.tracer import PACKAGE

__all__ = ["RunningKernel", "running", "told"]


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
    for run, step, thread, since in process_pool().executing():
        node, core = run.plan.nodes[step], run.core
        found.append(
            RunningKernel(
                operator=node.spec.name,
                node=node.number,
                pipeline=run.plan.graph.name,
                run=run.number,
                seconds=max(now - since, 0.0),
                thread=names.get(thread, "?"),
                abandoned=core.stopped or step in core.overrunning,
                stack=_stack(frames.get(thread)) if stacks else None,
            )
        )
    return sorted(found, key=lambda kernel: -kernel.seconds)


def _stack(frame: Any) -> str | None:
    if frame is None:
        return None
    frames = traceback.extract_stack(frame)
    ours = [place for place, each in enumerate(frames) if each.filename.startswith(PACKAGE)]
    return "".join(traceback.format_list(frames[ours[-1] + 1 if ours else 0 :])) or None


def told() -> list[dict[str, Any]]:
    """The same for `parallel_info`, JSON-safe."""
    return [{name: value for name, value in asdict(each).items() if name != "stack"} for each in running()]
