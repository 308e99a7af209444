"""The hot path: a lane executes a segment, and learns what its kernels cost.

Each kernel must run in a context of its own. Entering one for each is what costs most, so kernels run in one copy of
the caller's context, which is given up as soon as one of them has changed it. Comparing two contexts that share
everything is a comparison of pointers. Otherwise it compares values, and an equal one may be another: where the
caller's context holds values that compare by content (a list, a number), each kernel gets its own copy after all.

Values go when the run's core says so, at the next report. Two kinds go at once, since a batch must not hold them
back: in a sweep, all that the plan says; and everywhere what has a single reader, which is this step, or none.
"""

from __future__ import annotations

import sys
from contextvars import Context
from math import inf
from time import perf_counter, thread_time, time_ns
from types import FrameType
from typing import Any

from dataflow.engine.failure import trimmed
from dataflow.engine.run import Run
from dataflow.engine.segment import END, Segment, Weight
from dataflow.events import OperatorEnded, observed, observers
from dataflow.graph.plan import SEVERAL

__all__ = ["clear_frames", "execute"]

_BY_NATURE = frozenset((str, bytes, type(None)))
"""Types of which equal values cannot be told apart by what they do."""

STUCK = 1e-3
"""Seconds that a kernel thought light is taken to need once it has held up its lane, between two looks at least."""


def execute(run: Run, segment: Segment) -> float:
    """Execute what is in a segment, and learn what it costs; returns the time at the end.

    In calm it goes on with the steps that follow, for a while. Whatever a kernel raises ends the run and never
    leaves this function.
    """
    if observed(OperatorEnded):
        run.context.copy().run(_work_off_told, run, segment)
        return perf_counter()
    costs, weight = run.plan.costs, segment.weight
    if run.apart is None:
        run.apart = _compares_by_content(run.context)
    copy = run.context.copy
    mine = copy()
    work = _work_off_timed if weight is Weight.HEAVY else _work_off
    # Reading it takes half a microsecond, too much for a few light kernels.
    timed = weight is not Weight.LIGHT or len(segment.claimed) > 8
    cpu_began = thread_time() if timed else None
    began = perf_counter()
    while mine.run(work, run, segment, mine):
        mine = copy()
    now = perf_counter()
    claimed = segment.claimed  # read once: whoever has just taken the rest has yet to shorten it
    if segment.frame is None and claimed:
        cpu = thread_time() - cpu_began if cpu_began is not None else now - began
        if weight is not Weight.HEAVY:
            costs.worked += cpu
        if segment.stuck:
            costs.stuck(claimed[-1], STUCK)
        elif weight is Weight.UNKNOWN:
            if costs.first_measured(claimed[-1], now - began, cpu, cold=segment.cold, several=segment.gained != 1.0):
                run.reconsider()
        elif segment.relieved or segment.gained != 1.0:
            pass
        elif weight is Weight.HEAVY:
            costs.beside_others(claimed, now - began, cpu, cold=segment.cold)
        elif costs.batch(claimed, cpu):
            run.reconsider()
        if segment.calm:
            until = now + segment.calm_seconds
            step = run.go_on(segment)
            while step != END:
                step = mine.run(_work_off_calmly, run, segment, mine, step, until)
                mine = copy()
            return perf_counter()
    return now


def _work_off(run: Run, segment: Segment, mine: Context) -> bool:
    """Execute kernels in the context `mine`, as a whole; returns whether it is used up and something is left."""
    plan, values, base = run.plan, run.values, run.context
    calls, usual, settled, last_read, sweep = plan.calls, plan.usual, plan.settled, plan.last_read, segment.sweep
    step, readers, apart, copy = END, plan.readers, run.apart, base.copy
    try:
        for step in iter(segment.todo.pop, END):
            result = copy().run(calls[step], values) if apart else calls[step](values)
            if type(result) is not usual[step]:
                if type(result) in settled[step]:
                    usual[step] = type(result)
                else:
                    result = run.settle(step, result)
            values[step] = result
            slot = last_read[step]
            if slot >= 0:
                if sweep or readers[slot] == 1:
                    values[slot] = None
            elif slot == SEVERAL:
                for slot in plan.releases[step]:
                    if sweep or readers[slot] == 1:
                        values[slot] = None
                result = None
            try:
                if mine != base:
                    return True
            except Exception:  # what a kernel has set cannot be compared
                return True
    except BaseException as exc:
        segment.frame = sys._getframe()
        run.failed(step, exc, segment)
    return False


def _work_off_timed(run: Run, segment: Segment, mine: Context) -> bool:
    """The same for kernels that are worth two looks at the clock, which tell what each of them costs."""
    plan, values, base = run.plan, run.values, run.context
    calls, usual, settled, last_read = plan.calls, plan.usual, plan.settled, plan.last_read
    costs, gained = plan.costs, segment.gained
    seconds = costs.seconds
    step, readers, apart, copy = END, plan.readers, run.apart, base.copy
    try:
        began = perf_counter()
        for step in iter(segment.todo.pop, END):
            result = copy().run(calls[step], values) if apart else calls[step](values)
            if type(result) is not usual[step]:
                if type(result) in settled[step]:
                    usual[step] = type(result)
                else:
                    result = run.settle(step, result)
            values[step] = result
            slot = last_read[step]
            if slot >= 0:
                if readers[slot] == 1:
                    values[slot] = None
            elif slot == SEVERAL:
                for slot in plan.releases[step]:
                    if readers[slot] == 1:
                        values[slot] = None
            result = None
            costs.worked += seconds[step]
            now = perf_counter()
            took = (now - began) * gained
            if took < 0.8 * seconds[step]:  # else telling costs more than it would teach
                costs.measured(step, took)
            began = now
            try:
                if mine != base:
                    return True
            except Exception:
                return True
    except BaseException as exc:
        segment.frame = sys._getframe()
        run.failed(step, exc, segment)
    return False


def _work_off_calmly(run: Run, segment: Segment, mine: Context, step: int, until: float) -> int:
    """The same in calm, from this step to the next and so on, until a time at the latest.

    Each visit to the run should be short: a lane whose kernel ends meanwhile has to wait for the interpreter, and a
    thread that waits wakes up late. Returns the step to go on with in another context, or `END`.
    """
    plan, values, base, todo = run.plan, run.values, run.context, segment.todo
    calls, usual, settled, last_read, costs = plan.calls, plan.usual, plan.settled, plan.last_read, plan.costs
    seconds, readers, apart, copy = costs.seconds, plan.readers, run.apart, base.copy
    while True:
        began = perf_counter()
        try:
            result = copy().run(calls[step], values) if apart else calls[step](values)
            if type(result) is not usual[step]:
                if type(result) in settled[step]:
                    usual[step] = type(result)
                else:
                    result = run.settle(step, result)
        except BaseException as exc:
            segment.frame = sys._getframe()
            run.failed(step, exc, segment)
            return END
        values[step] = result
        result = None
        slot = last_read[step]
        if slot >= 0:
            if readers[slot] == 1:
                values[slot] = None
        elif slot == SEVERAL:
            for slot in plan.releases[step]:
                if readers[slot] == 1:
                    values[slot] = None
        costs.worked += seconds[step]
        now = perf_counter()
        if now - began < 0.8 * seconds[step]:
            costs.measured(step, now - began)
        step = todo.pop()
        if step == END:
            if not segment.calm or now > until or observers[OperatorEnded]:
                return END
            step = run.go_on(segment)
            if step == END:
                return END
        try:
            if mine != base:
                return step
        except Exception:
            return step


def _work_off_told(run: Run, segment: Segment) -> None:
    """The same with observers, who are told of each step before the next one begins, and so before it is reported.

    Each kernel is measured, so that the time that observers take is no part of what is learned. It runs in a context of
    its own, whatever the others have set.
    """
    plan, values, weight, costs = run.plan, run.values, segment.weight, run.plan.costs
    step, readers, sweep, copy = END, plan.readers, segment.sweep, run.context.copy
    cpu_began = started = seconds = total = 0.0
    began = 0
    try:
        for step in iter(segment.todo.pop, END):
            if weight is Weight.UNKNOWN:
                cpu_began = thread_time()
            began, started = time_ns(), perf_counter()
            result = copy().run(plan.calls[step], values)
            if type(result) not in plan.settled[step]:
                result = run.settle(step, result)
            values[step] = result
            result = None
            seconds = perf_counter() - started
            total += seconds
            costs.worked += costs.seconds[step] if weight is Weight.HEAVY else seconds
            for slot in plan.releases[step]:
                if sweep or readers[slot] == 1:
                    values[slot] = None
            if weight is Weight.UNKNOWN:
                several, cpu = segment.gained != 1.0, thread_time() - cpu_began
                if costs.first_measured(step, seconds, cpu, cold=segment.cold, several=several):
                    run.reconsider()
            elif weight is Weight.HEAVY and segment.gained < inf:
                took = seconds * segment.gained
                if not 0.8 < took / costs.seconds[step] < 2.0:
                    costs.measured(step, took)
            run.tell_operator(step, began, seconds, None)
    except BaseException as exc:
        seconds = perf_counter() - started
        segment.frame = sys._getframe()
        run.tell_operator(step, began, seconds, trimmed(exc))
        run.failed(step, exc, segment)
        return
    claimed = segment.claimed  # as in `execute`
    if weight is not Weight.LIGHT or step == END or not claimed:
        return
    if segment.stuck:
        if seconds > STUCK:  # else it was an observer that held up the lane
            costs.stuck(step, STUCK)
    elif not segment.relieved and costs.batch(claimed, total):
        run.reconsider()


def _compares_by_content(context: Context) -> bool:
    """Whether a value that a kernel sets may be equal to one in here and yet another: then equality proves nothing."""
    kinds: list[Any] = [type(value) for value in context.values()]
    return any(kind not in _BY_NATURE and kind.__eq__ is not object.__eq__ for kind in kinds)


def clear_frames(frame: FrameType | None) -> None:
    """Clear the frame of the loop in which a kernel failed, and those behind it that have ended."""
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:  # it is running: the caller's
            return
        frame = frame.f_back
