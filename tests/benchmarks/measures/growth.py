"""Whether a node costs as much in a graph of a million as in one of a thousand."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from tests.benchmarks.adapters import BARE, ONE_THREAD, OURS, adapters
from tests.benchmarks.kernels import nothing
from tests.benchmarks.measure import Figure, Options, frozen, interleaved, run_seconds, seconds
from tests.benchmarks.patterns import make_tasks
from tests.benchmarks.section import Section

__all__ = ["growth"]

SIZES = [1_000, 10_000, 100_000, 1_000_000]
CONTESTED = ["ThreadPoolExecutor + graphlib", "dask.threaded"]
BUILD = "dataflow: declare, trace and plan"


def growth(options: Options) -> list[Section]:
    """Microseconds a node by size of the graph."""
    sizes = options.either(SIZES, SIZES[:3])
    others = [adapter for adapter in adapters() if adapter.name in CONTESTED]
    first = options.either([BARE, ONE_THREAD, OURS], [BARE, OURS])
    names = [adapter.name for adapter in (*first, *others)]
    rows: dict[str, list[object]] = {name: [name] for name in [*names, BUILD]}
    for size in sizes:
        tasks = make_tasks("stencil_1d", size)
        rounds = max(3, options.repeats if size < 100_000 else 3)
        slow = [adapter for adapter in others if size <= options.either(adapter.most_nodes, 10_000)]
        with ExitStack() as stack:
            jobs = {}
            for adapter in [*first, *slow]:
                building = partial(adapter.prepare, tasks, nothing, options.threads, stack)
                kept: list = []
                taken = seconds(lambda building=building, kept=kept: kept.append(building()))
                jobs[adapter.name] = kept[0]
                if adapter is OURS:
                    rows[BUILD].append(Figure.of([taken], 1e6 / len(tasks)))
            with frozen():
                cases = {name: partial(run_seconds, job) for name, job in jobs.items()}
                for adapter in first:
                    cases[adapter.name]()
                measured = interleaved(cases, rounds, [adapter.name for adapter in slow])
        for name in names:
            rows[name].append(Figure.of(measured[name], 1e6 / len(tasks)) if name in measured else "")
    for row in rows.values():
        figures = [cell.median for cell in row if isinstance(cell, Figure)]
        row.append(f"{figures[-1] / figures[0]:.2f}×")
        row.append(f"{figures[-1] / figures[1]:.2f}×")
    method = (
        f"µs a node, empty kernels, stencil_1d, {options.threads} threads: median (quartiles) of 3 to "
        f"{options.repeats} rounds, of one for building. The collector does not look at the graphs themselves."
    )
    head = ["", *[f"{size:,} nodes" for size in sizes], "growth from 1k", "from 10k"]
    return [Section("Growth", method, head, list(rows.values()))]
