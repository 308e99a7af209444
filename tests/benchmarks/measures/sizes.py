"""Kernels whose sizes change: from run to run of one pipeline, as with small pictures and then large ones, and from
node to node."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from statistics import median

import numpy as np

from tests.benchmarks.adapters import BARE, HEAP, OURS, Job
from tests.benchmarks.kernels import Compute, Kernel, one_call
from tests.benchmarks.measure import Figure, Options, frozen, interleaved, pin_threads, run_seconds
from tests.benchmarks.patterns import WIDTH, make_tasks
from tests.benchmarks.section import Section

__all__ = ["sizes"]

LEAST, MOST, STEP = 4.0, 1_500.0, 1.5
QUICK_STEP = 6.0
RUNS = 3
"""Runs of each size, one after the other."""
ROWS = 40
MIXES = [(3.0, 200.0, 8), (20.0, 200.0, 4), (3.0, 1_500.0, 16)]
"""(µs of the light kernels, µs of the heavy ones, one of how many is heavy)."""


def sizes(options: Options) -> list[Section]:
    """How fast each run is, against the better of the bare loop and the heap in the same round."""
    return [_from_run_to_run(options), _from_node_to_node(options)]


class _Changing:
    """One kernel, whose size is set from outside."""

    def __init__(self) -> None:
        self.compute = Compute(500)
        self._known: dict[float, Compute] = {}

    def set(self, microseconds: float) -> None:
        if microseconds not in self._known:
            self._known[microseconds] = one_call(microseconds * 1e-6)
        self.compute = self._known[microseconds]

    def kernel(self, *inputs: object) -> object:
        return self.compute.kernel(*inputs)


def _from_run_to_run(options: Options) -> Section:
    step = options.either(STEP, QUICK_STEP)
    up = [LEAST]
    while up[-1] * step <= MOST:
        up.append(up[-1] * step)
    order = [*up, *reversed(up[:-1])]
    changing = _Changing()
    tasks = make_tasks("stencil_1d", ROWS * WIDTH)
    ratios: list[list[list[float]]] = [[[] for _ in range(RUNS)] for _ in order]
    with ExitStack() as stack:
        jobs = {
            adapter: adapter.prepare(tasks, changing.kernel, options.threads, stack) for adapter in (BARE, HEAP, OURS)
        }
        for size in up:
            changing.set(size)
        for job in jobs.values():
            job.ready()
        with frozen():
            for _ in range(options.repeats):
                for place, size in enumerate(order):
                    changing.set(size)
                    for number in range(RUNS):
                        ratios[place][number].append(_compared(jobs, options))
    rows = [[f"{size:.3g}", *[Figure.of(values) for values in ratios[place]]] for place, size in enumerate(order)]
    method = (
        f"One pipeline (stencil_1d, {len(tasks)} nodes, {options.threads} threads), whose kernels grow and shrink from "
        f"group to group of {RUNS} runs: how many times as fast as the better of the bare loop and the heap, which ran "
        f"on the same size right before; median (quartiles) of {options.repeats} rounds."
    )
    head = ["kernel, µs", "first run of a size", *[f"run {number}" for number in range(2, RUNS + 1)]]
    return Section("Kernel sizes that change from run to run", method, head, rows)


def _compared(jobs: dict[object, Job], options: Options) -> float:
    taken = {}
    for adapter in (BARE, HEAP, OURS):
        jobs[adapter].ready()
        if options.pin:
            pin_threads()
        taken[adapter] = run_seconds(jobs[adapter])
    return min(taken[BARE], taken[HEAP]) / taken[OURS]


def _mixed(light: float, heavy: float, every: int) -> Kernel:
    small, large = one_call(light * 1e-6).kernel, one_call(heavy * 1e-6).kernel
    ticket = itertools.count()

    def kernel(*inputs: object) -> object:
        return (small if next(ticket) % every else large)(*inputs)

    return kernel


def _from_node_to_node(options: Options) -> Section:
    rows: list[list[object]] = []
    tasks = make_tasks("stencil_1d", ROWS * WIDTH)
    for light, heavy, every in options.either(MIXES, MIXES[:1]):
        with ExitStack() as stack:
            jobs = {
                adapter: adapter.prepare(tasks, _mixed(light, heavy, every), options.threads, stack)
                for adapter in (BARE, HEAP, OURS)
            }
            for job in jobs.values():
                job.ready()
                job.run()
            with frozen():
                measured = interleaved(
                    {adapter.name: lambda job=job: run_seconds(job) for adapter, job in jobs.items()},  # type: ignore[misc]
                    options.repeats,
                )
        scale = 1e6 / len(tasks)
        better = median(map(min, measured[BARE.name], measured[HEAP.name]))
        rows.append(
            [
                f"{light:g} µs, each {every}th {heavy:g} µs",
                *[Figure.of(measured[adapter.name], scale) for adapter in (BARE, HEAP, OURS)],
                f"{better / np.median(measured[OURS.name]):.2f}",
            ]
        )
    method = (
        f"µs a node, stencil_1d of {len(tasks)} nodes, {options.threads} threads: median (quartiles) of "
        f"{options.repeats} rounds. The last column: times as fast as the better of loop and heap."
    )
    head = ["kernels", BARE.name, HEAP.name, OURS.name, "against the better"]
    return Section("Light and heavy kernels in one graph", method, head, rows)
