"""What a graph costs before its first run: declaring, tracing and planning, and what the others have in their place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from tests.benchmarks.adapters import ONNX, OURS, Adapter, adapters
from tests.benchmarks.adapters.ours import declare
from tests.benchmarks.kernels import nothing
from tests.benchmarks.measure import Figure, Options, frozen, interleaved, seconds
from tests.benchmarks.patterns import PATTERNS, Tasks, make_tasks
from tests.benchmarks.section import Section

__all__ = ["build"]

SIZES = [1_000, 10_000, 100_000]
QUICK_PATTERNS = ["wide", "chain", "stencil_1d"]
BUILDERS = ["dask.threaded", "hamilton, threads", "tawazi"]
"""Adapters whose package makes something of a graph before it runs; the others have nothing to build."""
MOST = {"hamilton, threads": 1_000, "tawazi": 1_000, ONNX[0].name: 10_000}


def build(options: Options) -> list[Section]:
    """Microseconds a node, by pattern for ours, and by size for all that build something."""
    return [_by_pattern(options), _by_size(options)]


def _by_pattern(options: Options) -> Section:
    patterns = options.either(PATTERNS, QUICK_PATTERNS)
    rows: list[list[object]] = [["declare, trace and plan"], ["first run of a plan"], ["later run"]]
    for pattern in patterns:
        tasks = make_tasks(pattern, options.nodes)
        values: list[list[float]] = [[], [], []]
        with frozen():
            for _ in range(options.repeats):
                pipeline = declare(tasks, nothing)
                for into, step in zip(values, (pipeline.graph, pipeline.run, pipeline.run)):
                    into.append(seconds(step))
        for row, measured in zip(rows, values):
            row.append(Figure.of(measured, 1e6 / len(tasks)))
    method = f"µs a node: median (quartiles) of {options.repeats} rounds, {options.nodes:,} nodes."
    return Section("Build: dataflow", method, ["", *patterns], rows)


def _by_size(options: Options) -> Section:
    sizes = options.either(SIZES, SIZES[:2])
    taking_part = {OURS.name: _ours} | {
        adapter.name: partial(_prepare, adapter)
        for adapter in [*adapters(), *[adapter for adapter in ONNX[:1] if not adapter.missing]]
        if adapter.name in BUILDERS or adapter in ONNX
    }
    rows: dict[str, list[object]] = {name: [name] for name in taking_part}
    repeats = max(2, options.repeats // 3)
    for size in sizes:
        tasks = make_tasks("stencil_1d", size)
        cases: dict[str, Callable[[], float]] = {
            name: partial(seconds, partial(builder, tasks))
            for name, builder in taking_part.items()
            if size <= MOST.get(name, size)
        }
        with frozen():
            measured = interleaved(cases, repeats)
        for name, row in rows.items():
            row.append(Figure.of(measured[name], 1e6 / len(tasks)) if name in measured else "")
    for row in rows.values():
        figures = [cell.median for cell in row if isinstance(cell, Figure)]
        row.append(f"{figures[-1] / figures[0]:.2f}×" if len(figures) > 1 else "")
    method = (
        f"µs a node, stencil_1d: median (quartiles) of {repeats} rounds. dask: the dict of a raw graph. hamilton: the "
        f"source of the functions is compiled, too. onnxruntime: the model is made with onnx, and loaded."
    )
    head = ["", *[f"{size:,} nodes" for size in sizes], "greatest / least size"]
    return Section("Build: growth, and the others", method, head, list(rows.values()))


def _ours(tasks: Tasks) -> None:
    declare(tasks, nothing).graph()


def _prepare(adapter: Adapter, tasks: Tasks) -> None:
    with ExitStack() as stack:
        adapter.prepare(tasks, nothing, 1, stack)
