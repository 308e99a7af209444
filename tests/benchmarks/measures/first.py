"""What the first run of a graph costs, where nothing is known of its kernels: with one operator for all nodes, and one
for each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from types import FunctionType

import dataflow as flow
from tests.benchmarks.adapters import BARE, HEAP, OURS
from tests.benchmarks.adapters.ours import Awaited, declare
from tests.benchmarks.kernels import Kernel, nothing, one_call
from tests.benchmarks.measure import Figure, Options, frozen, interleaved, run_seconds, seconds
from tests.benchmarks.patterns import Tasks, make_tasks
from tests.benchmarks.section import Section

__all__ = ["first"]

PATTERNS, QUICK_PATTERNS = ["wide", "chain", "stencil_1d"], ["stencil_1d"]
QUICK_NODES = 1_000
EACH = f"{OURS.name}, an operator for each node"
LATER = "the same, later runs"
BUILD = "declaring, tracing and planning that"


def first(options: Options) -> list[Section]:
    """Microseconds a node in first runs, for empty kernels and for some that release the lock."""
    patterns = options.either(PATTERNS, QUICK_PATTERNS)
    kernels: dict[str, Kernel] = {"empty": nothing}
    kernels |= options.either({f"{us} µs": one_call(us * 1e-6).kernel for us in (50, 200)}, {})
    heads = [f"{pattern}, {name}" for name in kernels for pattern in patterns]
    columns = [_column(pattern, name, kernel, options) for name, kernel in kernels.items() for pattern in patterns]
    rows = [[row, *[column[row] for column in columns]] for row in columns[0]]
    method = (
        f"µs a node: median (quartiles) of {options.repeats} rounds, in each of which the pipelines are declared and "
        f"traced anew. {options.threads} threads, {_nodes('empty', options):,} nodes (2,000 with kernels). The loop "
        "and the heap have no first runs: they learn nothing."
    )
    return [Section("First runs", method, ["", *heads], rows)]


def _nodes(kernel: str, options: Options) -> int:
    thorough = options.nodes if kernel == "empty" else 2_000
    return min(options.nodes, QUICK_NODES if options.quick else thorough)


def _column(pattern: str, name: str, kernel: Kernel, options: Options) -> dict[str, Figure]:
    tasks = make_tasks(pattern, _nodes(name, options))
    later: list[float] = []
    built: list[float] = []
    with ExitStack() as stack:
        known = {adapter: adapter.prepare(tasks, kernel, options.threads, stack) for adapter in (BARE, HEAP)}
        cases: dict[str, Callable[[], float]] = {
            adapter.name: partial(run_seconds, job) for adapter, job in known.items()
        }
        cases[OURS.name] = lambda: _first_run(declare(tasks, kernel), options, [], [])
        cases[EACH] = lambda: _first_run(_declared_each(tasks, kernel, built), options, later, built)
        for case in cases.values():
            case()
        later.clear()
        built.clear()
        with frozen():
            measured: dict[str, list[float]] = interleaved(cases, options.repeats)
    scale = 1e6 / len(tasks)
    return {row: Figure.of(values, scale) for row, values in {**measured, LATER: later, BUILD: built}.items()}


def _first_run(
    pipeline: flow.Pipeline[[], list[object]], options: Options, later: list[float], built: list[float]
) -> float:
    before = perf_counter()
    pipeline.graph()
    if built:
        built[-1] += perf_counter() - before
    with ExitStack() as stack:
        job = Awaited(pipeline, options.threads, stack)
        flow.set_num_interop_threads(options.threads)
        found = seconds(job.run)
        job.run()
        later.append(seconds(job.run))
    return found


def _declared_each(tasks: Tasks, kernel: Kernel, built: list[float]) -> flow.Pipeline[[], list[object]]:
    """As `declare`, with a function of its own for each task."""
    functions = [
        FunctionType(kernel.__code__, kernel.__globals__, f"task_{number}", kernel.__defaults__, kernel.__closure__)
        for number in range(len(tasks))
    ]
    before = perf_counter()
    operators = [flow.op(function) for function in functions]
    built.append(perf_counter() - before)

    def pattern() -> list[object]:
        values: list[object] = []
        for operator, task in zip(operators, tasks):
            values.append(operator(*[values[i] for i in task]))
        return values[-1:]

    return flow.pipeline(pattern)
