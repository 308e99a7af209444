"""What an adapter is: one way of running the tasks of a pattern, made ready once and then run many times.

What a user would prepare once (a plan, a dask graph, a pool) is prepared before the clock starts; what has to be done
for each run is part of the run. A run that is a coroutine is awaited on the event loop that is running already, so that
nobody pays for a loop's start; one that blocks is called there and then.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import iscoroutinefunction
from time import perf_counter
from typing import Any

from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks

__all__ = ["Adapter", "Prepared"]


def _stays() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Prepared:
    """Tasks that are ready to run: `run()` gives the results of those that no other reads, or an awaitable of them."""

    run: Callable[[], list[Any] | Awaitable[list[Any]]]
    take_turn: Callable[[], bool] = _stays
    """Sets what others have changed meanwhile; says whether it did, so that a run is needed that warms up."""

    @property
    def blocks(self) -> bool:
        """Whether a run blocks the event loop."""
        return not iscoroutinefunction(self.run)

    async def results(self) -> list[Any]:
        """One run. Cancellation is as the adapter has it."""
        self.take_turn()
        results = self.run()
        return results if isinstance(results, list) else await results

    async def seconds(self) -> float:
        """What one run takes."""
        if self.take_turn():
            await self.results()
        gc.collect(1)  # the garbage of others
        before = perf_counter()
        results = self.run()
        if not isinstance(results, list):
            await results
        return perf_counter() - before


@dataclass(frozen=True, slots=True)
class Adapter:
    """A name for the tables, how to prepare tasks, and the package that this needs."""

    name: str
    prepare: Callable[[Tasks, Kernel, int, ExitStack], Prepared]
    """(tasks, kernel, threads, what closes the pools afterwards) -> ready to run."""
    package: str | None = None

    @property
    def installed(self) -> bool:
        """Whether it can be used here."""
        return self.package is None or find_spec(self.package) is not None
