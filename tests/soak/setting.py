"""The setting is obeyed at once: how long it takes until as many kernels execute as there are slots, and kernels for
them. Beside nothing, beside a run of light kernels, and beside one whose kernels take a millisecond.

    python -m tests.soak.setting [times]
"""

from __future__ import annotations

import asyncio
import sys
import threading
from statistics import median
from time import perf_counter, sleep
from typing import Any

import dataflow as flow

SLOTS = 8
PATIENCE = 1.0
"""Seconds after which so few are in flight that it is taken for what it comes to."""


class Gate:
    """Kernels that wait in it, and the times at which they came."""

    def __init__(self) -> None:
        self.came: list[float] = []
        self.lock = threading.Lock()
        self.opened = threading.Event()

    def enter(self) -> None:
        with self.lock:
            self.came.append(perf_counter())
        assert self.opened.wait(60)


async def once(ready: int, busy: Any, light: bool) -> float:
    """Seconds from the call until the last of those came that could; AssertionError if more or fewer do."""
    gate = Gate()

    @flow.op
    def wait(x: int) -> int:
        gate.enter()
        return x

    @flow.pipeline
    def p(x: int) -> Any:
        return [wait(x) for _ in range(ready)]

    p.graph(1)
    if light:  # as if their kernels had been light so far
        plan, _ = p.prepare((1,), {})
        plan.shown.light = True
    neighbour = None if busy is None else asyncio.ensure_future(busy(0))
    await asyncio.sleep(2e-3 if busy is not None else 0)
    began = perf_counter()
    run = asyncio.ensure_future(p(1))
    wanted = min(ready, SLOTS)
    while len(gate.came) < wanted and perf_counter() - began < PATIENCE:
        await asyncio.sleep(2e-4)
    await asyncio.sleep(2e-3)
    found, last = len(gate.came), max(gate.came, default=began) - began
    gate.opened.set()
    await run
    if neighbour is not None:
        neighbour.cancel()
        await asyncio.wait([neighbour])
        await flow.quiet()
    if found != wanted:
        raise AssertionError(f"{found} of {wanted} in flight after {PATIENCE} s")
    return last


def neighbour_of(kernel: Any) -> Any:
    """A pipeline whose run goes on until it is cancelled, as far as anybody waits."""
    operator = flow.op(kernel)

    @flow.pipeline
    def busy(x: int) -> Any:
        return [operator(x) for _ in range(60_000)]

    busy.graph(0)
    return busy


async def main(times: int) -> int:
    """Print, for each case, the median and the longest time."""
    flow.set_num_interop_threads(SLOTS)
    cases = {
        "alone": None,
        "beside light kernels": neighbour_of(lambda x: x),
        "beside kernels of a millisecond": neighbour_of(lambda x: sleep(1e-3)),
    }
    for name, busy in cases.items():
        for ready in (5, 12):
            for light in (False, True):
                taken = [await once(ready, busy, light) for _ in range(times)]
                late = sum(each > 5e-3 for each in taken)
                kind = "taken for light" if light else "unknown"
                print(
                    f"{name}, {ready} ready ({kind}): {min(ready, SLOTS)} in flight {times} times of {times}, after "
                    f"{median(taken) * 1e3:.2f} ms, {max(taken) * 1e3:.2f} at most, {late} times above 5",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)))
