"""BLAS workers: the threads of this process that Python did not start, and whether any is awake."""

from __future__ import annotations

import os
import threading
import time
from time import perf_counter

__all__ = ["wait_for_workers", "workers_awake"]


def wait_for_workers(patience: float) -> None:
    """Wait until no thread of this process but Python's is awake, twice in a row."""
    deadline = perf_counter() + patience
    quiet = 0
    while quiet < 2 and perf_counter() < deadline:
        quiet = 0 if workers_awake() else quiet + 1
        time.sleep(0.5e-3)


def workers_awake() -> bool:
    """Whether a thread that Python did not start is running, or waits for a CPU; 15 microseconds and more."""
    pythons = {thread.native_id for thread in threading.enumerate()}
    try:
        tasks = [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:  # not Linux: nobody can tell
        return False
    for task in tasks:
        if task not in pythons:
            try:
                with open(f"/proc/self/task/{task}/stat", "rb") as file:
                    # "id (name) state ...": the name may hold anything.
                    state = file.read().rpartition(b") ")[2][:1]
            except OSError:  # it has ended
                continue
            if state in (b"R", b"D"):
                return True
    return False
