"""The limit of this interpreter: a `for` statement that calls the kernels in order."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from tests.benchmarks.adapters.adapter import Adapter, Prepared
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["BARE"]


def _prepare(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    last = sinks(tasks)

    def run() -> list[Any]:
        values: list[Any] = []
        for task in tasks:
            values.append(kernel(*[values[i] for i in task]))  # it reads the list that it makes
        return [values[i] for i in last]

    return Prepared(run)


BARE = Adapter("bare Python loop", _prepare)
