"""Orphans: runs that are over while a kernel of theirs still runs, in the whole process."""

from __future__ import annotations

import os
from collections.abc import Callable

from dataflow.engine.lock import engine_lock

__all__ = ["Orphans", "orphans"]


class Orphans:
    """Counts them, and tells whoever waits until there are none."""

    def __init__(self) -> None:
        self._lock = engine_lock()
        self._count = 0
        self._waiting: list[Callable[[], object]] = []
        self._watchers: dict[object, Callable[[], object]] = {}

    def __len__(self) -> int:
        return self._count

    def enter(self) -> None:
        """Under the engine's lock: a run was stopped while kernels of it run."""
        self._count += 1

    def leave(self) -> None:
        """The last of them has returned."""
        with self._lock:
            self._count = max(0, self._count - 1)  # after a fork inside a kernel, one may leave that never entered here
            told, self._waiting = (self._waiting, []) if not self._count else ([], self._waiting)
            told = [*told, *self._watchers.values()]
        for tell in told:
            tell()

    def watch(self, tell: Callable[[], object]) -> Callable[[], None]:
        """Have `tell()` called whenever one has left; it must not block. Returns what ends that."""
        token = object()
        with self._lock:
            self._watchers[token] = tell

        def unwatch() -> None:
            with self._lock:
                self._watchers.pop(token, None)

        return unwatch

    def when_none(self, tell: Callable[[], object]) -> None:
        """Call this once there are none; it must not block. It may be called here and now."""
        with self._lock:
            if self._count:
                self._waiting.append(tell)
                return
        tell()


orphans = Orphans()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: Orphans.__init__(orphans))
