"""When values go, on builds with and without the interpreter's lock."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

from dataflow.engine.pool import process_pool

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether this interpreter runs without its lock."""


def let_go() -> bool:
    """On a free-threaded build, free what only waits for the thread that made it; elsewhere there is no such thing.

    There, a value whose last reference another thread drops is freed when its maker's thread comes by, or by a
    collection; and then what it held, by another one. So ask again and again, as `settles` does.
    """
    if FREE_THREADED:
        gc.collect()
    return False


def workers_have_left() -> None:
    """Wait for workers that have told of an end and are just about to let go of their run."""
    pool = process_pool()
    for _ in range(10_000):
        if not pool.busy and not pool.parked:
            return
        time.sleep(0.001)
    raise AssertionError(f"workers are left: {pool!r}")


def settles(holds: Callable[[], bool]) -> bool:
    """Whether it holds, after some seconds at most; on a free-threaded build, and only there, after some collections.

    A worker goes on beside whoever it has told of an end, until it lets go of its last references.
    """
    for _ in range(10_000):
        if holds():
            return True
        time.sleep(0.001)  # the worker's turn, not a length of time that anything depends on
    return False
