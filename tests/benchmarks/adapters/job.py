"""A graph prepared for one way of running it, and how it is run once.

What a user would prepare once (a plan, a graph object, a pool) is in the job; what has to be done for each run is
part of the run. A job gives the results of the tasks that nobody reads, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks

__all__ = ["Adapter", "Blocking", "Job", "OnLoop", "loop_factory"]


class Job:
    """One graph and one kernel, ready to be run any number of times."""

    def ready(self) -> None:
        """Untimed, before each timed run: threads that a run would have to start first are started."""

    def run(self) -> list[Any]:
        """Run once, to the end."""
        raise NotImplementedError

    async def awaited(self) -> list[Any]:
        """The same in a running event loop, which goes on meanwhile: in a thread, unless the job is at home here."""
        return await asyncio.to_thread(self.run)


@dataclass(frozen=True)
class Blocking(Job):
    """A job that blocks its caller."""

    call: Callable[[], list[Any]]

    def run(self) -> list[Any]:
        return self.call()


class OnLoop(Job):
    """A job that is awaited; outside of a running loop it has one of its own (uvloop, where installed)."""

    def __init__(self, main: Callable[[], Awaitable[list[Any]]], stack: ExitStack) -> None:
        self._main = main
        self._loop = stack.enter_context(asyncio.Runner(loop_factory=loop_factory())).get_loop()

    def run(self) -> list[Any]:
        return self._loop.run_until_complete(self.awaited())

    async def awaited(self) -> list[Any]:
        return await self._main()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Of uvloop; None, which is asyncio's own, where it is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@dataclass(frozen=True)
class Adapter:
    """One way to run a graph of Python functions."""

    name: str
    prepare: Callable[[Tasks, Kernel, int, ExitStack], Job]
    """(tasks, kernel, inter-op threads, what is closed in the end) -> the job."""
    package: str = ""
    """The distribution that it needs; empty if it comes with Python or with the project."""
    module: str = ""
    most_nodes: int = 1_000_000
    """Larger graphs take it too long for a benchmark of minutes."""
    slow: bool = False
    """Takes part in every third round only."""

    @property
    def missing(self) -> bool:
        """Whether its package is not installed."""
        return bool(self.module) and find_spec(self.module) is None
