"""That what is timed is right: every adapter gives what the bare loop gives, and calls every kernel once."""

from __future__ import annotations

from contextlib import ExitStack

from tests.benchmarks.adapters import BARE, Adapter, installed
from tests.benchmarks.kernels import Counting
from tests.benchmarks.patterns import PATTERNS, Tasks, make_tasks

__all__ = ["check", "check_all"]


async def check_all(threads: int, nodes: int = 300) -> None:
    """Every adapter on every pattern; AssertionError names the one that is wrong."""
    for pattern in PATTERNS:
        for adapter in installed():
            await check(adapter, make_tasks(pattern, nodes), threads)


async def check(adapter: Adapter, tasks: Tasks, threads: int) -> None:
    """This adapter on these tasks, twice over, for a run may leave something behind for the next."""
    with ExitStack() as stack:
        expected = await BARE.prepare(tasks, Counting().kernel, 1, stack).results()
        counting = Counting()
        prepared = adapter.prepare(tasks, counting.kernel, threads, stack)
        for runs in 1, 2:
            results = await prepared.results()
            if results != expected or counting.calls != runs * len(tasks):
                raise AssertionError(f"{adapter.name}: wrong results, or {counting.calls} kernels of {len(tasks)}")
