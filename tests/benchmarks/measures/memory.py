"""How many intermediates are alive at the worst moment: counted, not weighed."""

from __future__ import annotations

import gc
import threading
from contextlib import ExitStack
from typing import Any

from tests.benchmarks.adapters import Adapter, adapters
from tests.benchmarks.kernels import Kernel, one_call
from tests.benchmarks.measure import Options
from tests.benchmarks.patterns import Tasks, make_tasks, sinks
from tests.benchmarks.section import Section

__all__ = ["Live", "live_in_order", "memory"]

GRAPHS: dict[str, Tasks] = {
    "chain of 512": make_tasks("chain", 512),
    "stencil_1d, 32 × 16": make_tasks("stencil_1d", 512, width=32),
    "reduction of 256": make_tasks("reduction", 511),
    "tree of 512": make_tasks("tree", 512),
    "fft of 512": make_tasks("fft", 512),
}
DURATION = 100e-6


class Live:
    """Counts the results that are alive; `kernel` makes them."""

    def __init__(self, compute: Kernel) -> None:
        self._lock, self._compute = threading.Lock(), compute
        self.now = self.peak = 0

    def kernel(self, *inputs: Any) -> _Result:
        """Takes its time, as real kernels do: with empty ones nobody would use a second thread."""
        self._compute()
        return _Result(self)

    def change(self, by: int) -> None:
        """One more, or one fewer."""
        with self._lock:
            self.now += by
            self.peak = max(self.peak, self.now)


class _Result:
    __slots__ = ("_live",)

    def __init__(self, live: Live) -> None:
        self._live = live
        live.change(1)

    def __del__(self) -> None:
        self._live.change(-1)


def memory(options: Options) -> list[Section]:
    """The greatest number of results alive at once, of all adapters on some graphs."""
    graphs = dict(list(GRAPHS.items())[: options.either(len(GRAPHS), 3)])
    rows: list[list[object]] = [
        ["as recorded, one thread", *[live_in_order(tasks, range(len(tasks))) for tasks in graphs.values()]],
        ["depth first, one thread", *[live_in_order(tasks, _depth_first(tasks)) for tasks in graphs.values()]],
    ]
    rows += [[adapter.name, *[_peak(adapter, tasks, options) for tasks in graphs.values()]] for adapter in adapters()]
    method = (
        f"Results alive at the worst moment, the greatest of {options.either(5, 1)} runs on {options.threads} threads, "
        f"kernels of 100 µs. The first two rows are computed: each value is released at its last use, the results of "
        f"the graph are kept, a result is counted while the inputs of its task are alive."
    )
    return [Section("Live intermediates at peak", method, ["", *graphs], rows)]


def _peak(adapter: Adapter, tasks: Tasks, options: Options) -> int:
    live = Live(one_call(DURATION).kernel)
    with ExitStack() as stack:
        job = adapter.prepare(tasks, live.kernel, options.threads, stack)
        job.ready()
        for _ in range(options.either(5, 1)):
            gc.collect()  # what an adapter's own reference cycles kept of the run before
            job.run()
    return live.peak


def live_in_order(tasks: Tasks, order: Any) -> int:
    """The peak of a serial run in this order, with every value released at its last use.

    >>> live_in_order([(), (0,), (1,)], range(3))
    2
    """
    unread = [0] * len(tasks)
    for reads in tasks:
        for i in reads:
            unread[i] += 1
    for task in sinks(tasks):
        unread[task] = 1  # whoever asked for it
    now = peak = 0
    for task in order:
        now += 1
        peak = max(peak, now)
        for i in tasks[task]:
            unread[i] -= 1
            now -= unread[i] == 0
    return peak


def _depth_first(tasks: Tasks) -> list[int]:
    """What each of the graph's results needs, in full, before the next one."""
    order: list[int] = []
    seen: set[int] = set()
    for sink in sinks(tasks):
        todo = [(sink, False)]
        while todo:
            task, needs_done = todo.pop()
            if needs_done:
                order.append(task)
            elif task not in seen:
                seen.add(task)
                todo.append((task, True))
                todo += [(i, False) for i in reversed(tasks[task])]
    return order
