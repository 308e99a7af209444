"""A long stream: what an item costs, that memory is flat, and that every item comes once and in order. By itself:

    python -m tests.benchmarks.streams [items]

The kernel is empty, so that what is timed is the stream. A million items, unless told otherwise, take about a minute.
Memory is what the process holds (RSS), read when a tenth of the items is through and at the end; in between stands how
many items were pulled and not delivered, at most. Beside it, the same kernel awaited one call after another.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import dataflow as flow
from tests.benchmarks.machine import Usage, machine, resident
from tests.benchmarks.tables import table

AWAITED = 20_000
"""Calls that are awaited one after another, for comparison."""


@flow.op
def nothing(x: int) -> int:
    """An empty kernel."""
    return x


@flow.pipeline
def empty(x: int) -> int:
    """One empty kernel."""
    return nothing(x)


class Source:
    """Numbers, and how many of them are pulled and not delivered."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.delivered = self.most = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.items):
            self.most = max(self.most, number + 1 - self.delivered)
            yield number


async def stream(items: int, in_flight: int) -> list[str]:
    """Go through a stream and check it; returns a row of the table."""
    source = Source(items)
    early = resident()
    began = time.perf_counter()
    async with empty.stream(source, in_flight=in_flight) as results:
        async for result in results:
            if result != source.delivered:
                raise AssertionError(f"item {source.delivered} came as {result}")
            source.delivered += 1
            if source.delivered == items // 10:
                early = resident()
    took = time.perf_counter() - began
    if source.delivered != items or source.most > in_flight or len(asyncio.all_tasks()) != 1:
        raise AssertionError(f"{source.delivered} of {items} delivered, {source.most} of {in_flight} in flight")
    cost = f"{1e6 * took / items:.1f}"
    return [f"{items:,}", str(in_flight), cost, str(source.most), f"{early:.1f}", f"{resident():.1f}"]


async def awaited(calls: int) -> float:
    """Microseconds of a call that is awaited, one after another."""
    began = time.perf_counter()
    for number in range(calls):
        await empty(number)
    return 1e6 * (time.perf_counter() - began) / calls


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops there are."""
    found: dict[str, Any] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return found
    return {**found, "uvloop": uvloop.new_event_loop}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.streams", description=__doc__)
    parser.add_argument("items", type=int, nargs="?", default=1_000_000)
    items = parser.parse_args().items
    usage, rows, calls = Usage(), [], []
    print(machine())
    for name, factory in loops().items():
        default = max(2, 2 * flow.get_num_interop_threads())
        for in_flight, share in ((default, 1.0), (64, 0.1)):
            with asyncio.Runner(loop_factory=factory) as runner:
                rows.append([name, *runner.run(stream(max(10, int(items * share)), in_flight))])
        with asyncio.Runner(loop_factory=factory) as runner:
            calls.append(f"{name} {runner.run(awaited(min(items, AWAITED))):.1f}")
    print(table(["loop", "items", "in flight", "µs an item", "most in flight", "MB at a tenth", "MB at the end"], rows))
    print(f"The same kernel awaited, one call after another: µs a call: {', '.join(calls)}.")
    print(f"Every item came once and in order. {usage}")


if __name__ == "__main__":
    main()
