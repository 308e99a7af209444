"""The engine's one lock: what the pool and all runs know is changed under it, and by nobody else.

It is never held while user code runs, so what is released under it is dropped after it; nor while anything waits.
"""

from __future__ import annotations

import os
from threading import Lock

__all__ = ["engine_lock"]

_lock = Lock()


def engine_lock() -> Lock:
    """The lock of this process; in the child of a fork another one, since a thread of the parent may have held it."""
    return _lock


def _after_fork() -> None:
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
