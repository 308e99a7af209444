"""Granularity: how small tasks may be before running them on threads stops to pay.

METG, the minimum effective task granularity of Task Bench (Slaughter et al., SC20), is the smallest mean granularity
(wall × threads / tasks) at which a run still reaches a given share of the ideal. The ideal is the bare loop's time
divided by the threads, measured in the same round; so on two threads half of the ideal is the bare loop's speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from tests.benchmarks.adapters import BARE, HEAP, LIMIT, ONE_THREAD, OURS, Adapter, adapters
from tests.benchmarks.kernels import Compute, one_call, releases_the_lock, series
from tests.benchmarks.measure import Figure, Options, frozen, interleaved, pin_threads, run_seconds
from tests.benchmarks.patterns import TASK_BENCH, WIDTH, Tasks, make_tasks
from tests.benchmarks.section import Section

__all__ = ["Curve", "Point", "metg", "smallest"]

SHARES = (0.5, 0.75, 0.9)
FINE = [2, 4, 6, 9, 13, 18, 25, 35, 50, 70, 100, 150, 250, 500]
LONG = [1_000, 3_000, 8_000, 20_000]
COARSE = [50, 100, 200, 400, 800, 1_600]
QUICK = [5, 15, 40, 100, 400]
"""Granularities in µs: for us, for us on one pattern besides, for the others, and for all with --quick."""
WORK, QUICK_WORK = 20e-3, 10e-3
"""Seconds of kernels in a run: enough rows that the start of a run counts little."""
ROWS = range(6, 193)

PINNED = "Threads that a pool keeps are pinned, each to a CPU of its own."
UNPINNED = "Threads go where the system puts them."

Kernels = Callable[[float], Compute]


@dataclass(frozen=True)
class Point:
    """What a run at one size of kernels came to."""

    granularity: float
    """Seconds of one thread that a task took: wall × threads / tasks."""
    efficiency: float
    """The ideal wall time by the real one."""


@dataclass(frozen=True)
class Curve:
    """The points of one adapter on one pattern, and the spread of each efficiency."""

    adapter: str
    pattern: str
    points: list[Point] = field(default_factory=list)
    speeds: list[Figure] = field(default_factory=list)
    """For each point, how many times as fast as the bare loop."""


def smallest(points: Sequence[Point], share: float) -> float:
    """The METG at this share: the granularity of its first crossing, interpolated between two sizes of kernels.

    The scale of granularities is logarithmic. If the smallest kernels measured reach the share, it is theirs; if none
    reaches it, infinity. One lucky point is no crossing: the next coarser one has to reach the share as well.

    >>> smallest([Point(10e-6, 0.4), Point(20e-6, 0.6), Point(40e-6, 0.9)], 0.9)
    4e-05
    """
    ordered = sorted(points, key=lambda point: point.granularity)
    for before, point, after in zip([None, *ordered], ordered, [*ordered[1:], *ordered[-1:]]):
        if min(point.efficiency, after.efficiency) < share:
            continue
        if before is None or before.efficiency >= share:
            return point.granularity
        part = (share - before.efficiency) / (point.efficiency - before.efficiency)
        return before.granularity * (point.granularity / before.granularity) ** part
    return math.inf


def metg(options: Options) -> list[Section]:
    """METG of all adapters for both kinds of kernel, and the least speed of ours against the bare loop."""
    if not releases_the_lock(one_call(20e-3).kernel):
        raise AssertionError("the kernel of one numpy call holds the interpreter's lock: no thread could help another")
    patterns = list(options.either(TASK_BENCH, ["stencil_1d"]))
    few = options.either(["stencil_1d", "tree", "fft"], ["stencil_1d"])
    contested = options.either(["stencil_1d", "nearest", "fft", "tree", "trivial"], ["stencil_1d"])
    one = _curves(one_call, patterns, contested, options)
    many = _curves(series, few, few[:1], options)
    return [
        _section("METG: kernels of one numpy call", "one call that releases the GIL once", one, options),
        _section("METG: kernels of several numpy calls", "calls of 10 µs, which take the GIL each", many, options),
        _speeds({"one call": one, "several calls": many}),
    ]


def _curves(kernels: Kernels, patterns: list[str], contested: list[str], options: Options) -> list[Curve]:
    curves: list[Curve] = [_limit(kernels, options)]
    for pattern in patterns:
        ours = options.either(FINE + LONG * (pattern == "stencil_1d"), QUICK)
        if kernels is series:
            ours = [size for size in ours if size >= 10]
        curves += _measure(kernels, pattern, {OURS: ours, **({HEAP: ours} if pattern in contested else {})}, options)
        if pattern in contested:
            others = adapters(without=(BARE, ONE_THREAD, OURS, HEAP))
            if options.quick:
                others = others[:1] + [adapter for adapter in others if adapter.name.startswith("dask")]
            sizes = options.either(COARSE, QUICK[-2:])
            curves += _measure(kernels, pattern, dict.fromkeys(others, sizes), options)
    return curves


def _limit(kernels: Kernels, options: Options) -> Curve:
    """Loops side by side without any dependency: what the GIL allows at best."""
    sizes = options.either(FINE, QUICK)
    sizes = [size for size in sizes if kernels is one_call or size >= 10]
    return _measure(kernels, "trivial", {LIMIT: sizes}, options)[0]


def _measure(kernels: Kernels, pattern: str, sizes: dict[Adapter, list[int]], options: Options) -> list[Curve]:
    curves = {adapter: Curve(adapter.name, pattern) for adapter in sizes}
    for size in sorted({size for some in sizes.values() for size in some}, reverse=True):
        compute = kernels(size * 1e-6)
        rows = min(max(round(options.either(WORK, QUICK_WORK) / (WIDTH * size * 1e-6)), ROWS.start), ROWS.stop - 1)
        tasks = make_tasks(pattern, rows * WIDTH)
        taking_part = [adapter for adapter in sizes if size in sizes[adapter]]
        few = size in LONG or all(adapter.slow for adapter in taking_part)
        repeats = min(options.repeats, max(3, options.repeats // 3 if few else options.repeats * 5 // 9))
        for adapter, values in _rounds(taking_part, tasks, compute, repeats, options).items():
            speed = Figure.of([bare / wall for bare, wall in values])
            granularity = median(wall for _, wall in values) * options.threads / len(tasks)
            curves[adapter].speeds.append(speed)
            curves[adapter].points.append(Point(granularity, speed.median / options.threads))
    return list(curves.values())


def _rounds(
    taking_part: list[Adapter], tasks: Tasks, compute: Compute, repeats: int, options: Options
) -> dict[Adapter, list[tuple[float, float]]]:
    """For each adapter, the bare loop's seconds and its own in each round: speeds drift, so each round is compared."""
    with ExitStack() as stack:
        jobs = {
            adapter: adapter.prepare(tasks, compute.kernel, options.threads, stack) for adapter in [BARE, *taking_part]
        }

        def timed(adapter: Adapter) -> float:
            jobs[adapter].ready()
            if options.pin:
                pin_threads()
            compute.started()
            taken = run_seconds(jobs[adapter])
            if (started := compute.started()) != len(tasks):
                raise AssertionError(f"{adapter.name}: {started} kernels of {len(tasks)}")
            return taken

        for adapter in jobs:
            timed(adapter)
        with frozen():
            measured = interleaved({adapter: partial(timed, adapter) for adapter in jobs}, repeats)
    return {adapter: list(zip(measured[BARE], measured[adapter])) for adapter in taking_part}


def _section(title: str, kernel: str, curves: list[Curve], options: Options) -> Section:
    patterns = list(dict.fromkeys(curve.pattern for curve in curves[1:]))
    cells = {(curve.adapter, curve.pattern): _cell(curve) for curve in curves}
    rows = [
        [name, *[cells.get((name, pattern), "") for pattern in patterns]]
        for name in dict.fromkeys(curve.adapter for curve in curves)
    ]
    if "trivial" not in patterns:
        rows[0][1] = f"{cells[curves[0].adapter, 'trivial']} (no dependencies)"
    method = (
        f"µs of mean granularity from which 50 / 75 / 90 % of the ideal are reached (–: not by the greatest kernels "
        f"measured). {options.threads} threads, width {WIDTH}, {ROWS.start} to {ROWS.stop - 1} rows; the kernel is "
        f"{kernel}. "
        f"{PINNED if options.pin else UNPINNED} Every kernel was counted in every run."
    )
    return Section(title, method, ["", *patterns], rows)


def _cell(curve: Curve) -> str:
    values = [smallest(curve.points, share) * 1e6 for share in SHARES]
    return " / ".join("–" if math.isinf(value) else f"{value:.0f}" for value in values)


def _speeds(kinds: dict[str, list[Curve]]) -> Section:
    """The least speed of ours over all sizes of kernel, against the bare loop."""
    rows = []
    for kernel, curves in kinds.items():
        for curve in curves:
            if curve.adapter != OURS.name:
                continue
            order = sorted(range(len(curve.points)), key=lambda i: curve.speeds[i].median)
            least, greatest = order[0], order[-1]
            size = curve.points[least].granularity * curve.points[least].efficiency * 1e6
            rows.append([curve.pattern, kernel, curve.speeds[least], f"{size:.3g}", curve.speeds[greatest]])
    method = "How many times as fast as the bare loop, over all sizes of kernel measured; 0.9 is the least allowed."
    head = ["pattern", "kernel", "least speed", "at kernels of µs", "greatest"]
    return Section("Never slower than serial", method, head, rows, tuple(kinds.items()))
