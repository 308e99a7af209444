"""What the tasks do: nothing, one long numpy call, many short ones, or counting.

The compute kernels ignore their inputs. Both sum a row of ones that exists only as one number (stride 0), so they touch
no memory and their result says whether they did their work. numpy's reduction releases the interpreter's lock once, for
all of it (rows of fewer than 500 it does not release at all; a row of 500 takes about half a microsecond).
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np

__all__ = ["Compute", "Counting", "Kernel", "nothing", "one_call", "releases_the_lock", "series"]

Kernel = Callable[..., Any]

SHORT = 10e-6
"""Seconds of one call in a series."""


def nothing(*inputs: Any) -> None:
    """The empty kernel."""


class Compute:
    """A kernel that counts its calls: `calls` times the sum of `length` ones."""

    def __init__(self, length: int, calls: int = 1) -> None:
        self.length, self.calls = length, calls
        self._ticket, self._asked = itertools.count(), 0
        ones, add, ticket = np.broadcast_to(1.0, length), np.add.reduce, self._ticket

        # Closures, not methods: what is timed should be numpy, and not attribute look-ups.
        def one(*inputs: Any) -> float:
            next(ticket)  # one bytecode: no other thread comes between
            return add(ones)

        def many(*inputs: Any) -> float:
            next(ticket)
            total = 0.0
            for _ in range(calls):
                total += add(ones)
            return total

        self.kernel: Kernel = one if calls == 1 else many

    def started(self) -> int:
        """How many times the kernel was called since this was last asked."""
        ticket = next(self._ticket)  # one is spent on asking
        since, self._asked = ticket - self._asked, ticket + 1
        return since


def one_call(seconds: float) -> Compute:
    """A kernel of about this duration: one numpy call that does not hold the interpreter's lock."""
    return Compute(_length(seconds))


def series(seconds: float) -> Compute:
    """A kernel of about this duration made of numpy calls of 10 µs: the lock is taken again between them."""
    return Compute(_length(SHORT), max(1, round(seconds / SHORT)))


def _length(seconds: float) -> int:
    overhead, per_one = _cost()
    return max(500, round((seconds - overhead) / per_one))


@cache
def _cost() -> tuple[float, float]:
    """Seconds that a call takes, and seconds more for every number that it sums: measured on this machine, once."""
    few, many = Compute(500).kernel, Compute(500_500).kernel
    short = min(_time(few, 1_000) for _ in range(7))
    return short, (min(_time(many, 50) for _ in range(7)) - short) / 500_000


def _time(kernel: Kernel, calls: int) -> float:
    before = perf_counter()
    for _ in range(calls):
        kernel()
    return (perf_counter() - before) / calls


class Counting:
    """A kernel of integers whose result depends on all that is before it, and which counts its calls."""

    def __init__(self) -> None:
        self._lock, self.calls = threading.Lock(), 0

    def kernel(self, *inputs: int) -> int:
        """Another value for every order of other inputs."""
        with self._lock:
            self.calls += 1
        value = len(inputs) + 1
        for i in inputs:
            value = (31 * value + i) % 1_000_003
        return value


def releases_the_lock(kernel: Kernel) -> bool:
    """Whether another thread executes Python while `kernel()` runs.

    No thread is ever forced to give the lock up meanwhile (the switch interval is an hour), so the other one gets it
    only from a kernel that releases it, which has to run long enough for a thread to wake: some milliseconds.
    """
    gate, seen, interval = threading.Lock(), threading.Event(), sys.getswitchinterval()
    gate.acquire()

    def other() -> None:
        with gate:
            seen.set()

    thread = threading.Thread(target=other)
    thread.start()
    sys.setswitchinterval(3600)
    try:
        gate.release()  # wakes the other thread, which then wants the interpreter's lock
        kernel()
        return seen.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
