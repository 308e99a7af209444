"""How small kernels may be: METG at 50, 75 and 90 %, and the slowest speed against the bare loop at any size."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter

from tests.benchmarks.adapters import BARE, OURS, OURS_ALONE, Prepared, installed
from tests.benchmarks.effort import Effort
from tests.benchmarks.efficiency import Curve, Point
from tests.benchmarks.kernels import Compute, one_call, series
from tests.benchmarks.measure import interleaved
from tests.benchmarks.patterns import WIDTH, Tasks, make_tasks
from tests.benchmarks.tables import table

__all__ = ["metg"]

Curves = dict[str, Curve]

ALONE = "the kernel alone"
LIMIT = "two bare loops, no order"
SERIES_PATTERN = "stencil_1d"
SERIES_SIZES = 20e-6, 5e-3
"""Seconds of the smallest and the greatest series."""
FEWEST, MOST = 4 * WIDTH, 4_000
"""Tasks of a run, whatever its kernel's size."""


async def metg(effort: Effort, plot: Path | None = None) -> str:
    """A table for kernels of one numpy call on every pattern, one for series of calls; `plot` is a picture's file."""
    one = {pattern: await _curves(pattern, one_call, effort.kernel_sizes, effort) for pattern in effort.metg_patterns}
    low, high = SERIES_SIZES
    sizes = [size for size in effort.kernel_sizes if low <= size <= high]
    many = {SERIES_PATTERN: await _curves(SERIES_PATTERN, series, sizes, effort)}
    if plot:
        draw(plot, one)
    named = {f"{pattern}, series of 10 µs": curves for pattern, curves in many.items()}
    return f"{_table(one | named)}\n\n{_worst(one | named)}"


def _table(patterns: dict[str, Curves]) -> str:
    names = dict.fromkeys(name for curves in patterns.values() for name in curves)
    rows = [[name, *(_metg(curves.get(name)) for curves in patterns.values())] for name in names]
    return table(["METG in µs at 50 \\| 75 \\| 90 %", *patterns], rows)


def _metg(curve: Curve | None) -> str:
    return " \\| ".join(_microseconds(curve.metg(share)) for share in (0.5, 0.75, 0.9)) if curve else ""


def _microseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e6:.3g}"


def _worst(patterns: dict[str, Curves]) -> str:
    rows = []
    for name in (OURS.name, OURS_ALONE.name):
        points = [curves[name].worst() for curves in patterns.values()]
        rows.append([name, *(f"{p.speed:.2f} at {_microseconds(p.granularity)} µs" for p in points)])
    return table(["slowest, in speeds of the bare loop", *patterns], rows)


async def _curves(
    pattern: str, make: Callable[[float], Compute], sizes: tuple[float, ...] | list[float], effort: Effort
) -> Curves:
    points: dict[str, list[Point]] = {}
    for size in sizes:
        tasks = make_tasks(pattern, round(min(MOST, max(FEWEST, effort.serial_seconds / size))))
        for name, point in (await _points(tasks, make(size), effort)).items():
            points.setdefault(name, []).append(point)
    return {name: Curve(found) for name, found in points.items()}


async def _points(tasks: Tasks, compute: Compute, effort: Effort) -> dict[str, Point]:
    """One kernel size with every adapter; each round's times are compared with each other, not with another round's."""
    with ExitStack() as stack:
        runs = {a.name: a.prepare(tasks, compute.kernel, effort.threads, stack) for a in installed()}
        if not any(tasks):
            pool = stack.enter_context(ThreadPoolExecutor(effort.threads))
            runs[LIMIT] = Prepared(partial(_loops, len(tasks), compute, effort.threads, pool))
        for run in runs.values():
            await run.results()
        cases = {name: partial(_counted, run, compute, len(tasks)) for name, run in runs.items()}
        measured = await interleaved({ALONE: partial(_alone, compute, len(tasks)), **cases}, effort.rounds)
    kernel, bare = measured.pop(ALONE), measured[BARE.name]
    scale = effort.threads / len(tasks)
    return {
        name: Point(
            scale * statistics.median(walls),
            statistics.median(alone / wall / effort.threads for alone, wall in zip(kernel, walls)),
            statistics.median(serial / wall for serial, wall in zip(bare, walls)),
        )
        for name, walls in measured.items()
    }


async def _counted(run: Prepared, compute: Compute, tasks: int) -> float:
    """What a run takes, which must have called the kernel once for each task."""
    if run.take_turn():
        await run.results()
    compute.started()
    seconds = await run.seconds()
    if (started := compute.started()) != tasks:
        raise AssertionError(f"{started} kernels of {tasks}")
    return seconds


async def _alone(compute: Compute, calls: int) -> float:
    before = perf_counter()
    for _ in range(calls):
        compute.kernel()
    return perf_counter() - before


def _loops(calls: int, compute: Compute, threads: int, pool: ThreadPoolExecutor) -> list[None]:
    """The limit that the interpreter's lock sets: nothing but loops, one in each thread, that share out the calls."""
    kernel = compute.kernel

    def loop(share: int) -> None:
        for _ in range(share):
            kernel()

    return list(pool.map(loop, [(calls + i) // threads for i in range(threads)]))


def draw(path: Path, patterns: dict[str, Curves]) -> None:
    """A picture of efficiency against granularity, one panel a pattern."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(patterns), figsize=(5 * len(patterns), 4), sharey=True, squeeze=False)
    for panel, (pattern, curves) in zip(panels[0], patterns.items()):
        for name, curve in curves.items():
            x, y = [1e6 * p.granularity for p in curve.points], [p.efficiency for p in curve.points]
            panel.plot(x, y, marker=".", label=name, linewidth=2.5 if name == OURS.name else 1)
        panel.set(title=pattern, xscale="log", xlabel="granularity, µs", ylim=(0, 1.05))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("efficiency")
    panels[0][-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
