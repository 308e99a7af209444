"""What a node costs where the kernel does nothing."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from tests.benchmarks.adapters import BARE, ONNX, Adapter, Job, adapters
from tests.benchmarks.adapters.check import check, check_onnx
from tests.benchmarks.kernels import nothing
from tests.benchmarks.measure import Figure, Options, frozen, interleaved, run_seconds
from tests.benchmarks.patterns import PATTERNS, make_tasks
from tests.benchmarks.section import Section

__all__ = ["overhead"]

SLOW_NODES = 4_000
QUICK_SLOW_NODES = 1_000
QUICK_PATTERNS = ["wide", "chain", "stencil_1d"]


def overhead(options: Options) -> list[Section]:
    """Microseconds a node of every adapter on every pattern, and how many times the bare loop's that is."""
    onnx = [adapter for adapter in ONNX if not adapter.missing]
    taking_part = [*adapters(), *onnx]
    patterns = options.either(PATTERNS, QUICK_PATTERNS)
    columns = {pattern: _pattern(pattern, taking_part, options) for pattern in patterns}
    rows = [[adapter.name, *[columns[pattern][adapter] for pattern in patterns]] for adapter in taking_part]
    sizes = sorted({(_nodes(adapter, options), adapter.name) for adapter in taking_part}, reverse=True)
    smaller = ", ".join(f"{name} {nodes:,}" for nodes, name in sizes if nodes != options.nodes)
    method = (
        f"µs a node: median (quartiles) of {options.repeats} rounds, and the ratio to the bare loop on the same graph. "
        f"{options.threads} inter-op threads, {options.nodes:,} nodes; fewer nodes (and a third of the rounds, but for "
        f"onnxruntime): {smaller}. Each is run once unmeasured right before it is timed. "
        "At first, every adapter's results and calls are checked on 480 nodes."
    )
    return [Section("Overhead: empty kernels", method, ["", *patterns], rows)]


def _warm_seconds(job: Job) -> float:
    """What a run takes right after another: whoever had his turn before has left caches and threads cold."""
    job.run()
    return run_seconds(job)


def _nodes(adapter: Adapter, options: Options) -> int:
    slow = options.either(SLOW_NODES, QUICK_SLOW_NODES)
    nodes = min(options.nodes, adapter.most_nodes, slow if adapter.slow else options.nodes)
    return min(nodes, 300) if adapter.most_nodes <= 1_000 and options.quick else nodes


def _pattern(pattern: str, taking_part: list[Adapter], options: Options) -> dict[Adapter, str]:
    small = make_tasks(pattern, min(options.nodes, 480))
    for adapter in taking_part:
        if adapter not in ONNX:
            check(adapter, small, options.threads)
    if any(adapter in ONNX for adapter in taking_part):
        check_onnx(small, options.threads)
    with ExitStack() as stack:
        jobs, counts, bare = {}, {}, {}
        for adapter in taking_part:
            tasks = make_tasks(pattern, _nodes(adapter, options))
            jobs[adapter] = adapter.prepare(tasks, nothing, options.threads, stack)
            counts[adapter] = len(tasks)
            # A loop over fewer nodes is quicker (its values stay in the cache): each is compared with one of its size.
            bare[len(tasks)] = BARE.prepare(tasks, nothing, options.threads, stack)
        for job in jobs.values():
            job.run()  # threads start, and workers find what kernels take
        cases = {key: partial(_warm_seconds, job) for key, job in [*jobs.items(), *bare.items()]}
        with frozen():
            measured = interleaved(cases, options.repeats, [adapter for adapter in taking_part if adapter.slow])
    cells = {}
    for adapter in taking_part:
        figure = Figure.of(measured[adapter], 1e6 / counts[adapter])
        base = Figure.of(measured[counts[adapter]], 1e6 / counts[adapter]).median
        cells[adapter] = str(figure) if adapter is BARE else f"{figure} {figure.median / base:.3g}×"
    return cells
