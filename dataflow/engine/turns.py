"""Whose turn it is: runs with kernels to start, by how long they have been served.

A run begins at level 0. It rises by one whenever it has been served, by all workers together, for twice as long as at
its last rise: 0.4, 0.8, 1.6 ms and so on. The lowest level has its turn first, and within a level who came first. So a
small run passes a big one; and of equal runs, one is served to its end while the others wait, from the level at which
they end on (multilevel feedback queues: Corbató et al., "An experimental time-sharing system", 1962).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["NOBODY", "TURN", "Turns"]

TURN = 400e-6
"""Seconds of service after which a run rises for the first time."""
NOBODY = 1 << 30
"""The lowest level where nobody waits."""


class Waiting(Protocol):
    """What is asked of a run here."""

    level: int
    waits_in: Any
    """Where it waits, if anywhere; said here."""


R = TypeVar("R", bound=Waiting)


class Turns(Generic[R]):
    """Each method is called under the engine's lock."""

    def __init__(self) -> None:
        self._levels: list[deque[R]] = [deque()]
        self._count = 0
        self.lowest = NOBODY
        """The lowest level at which anybody waits; nobody waits lower."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[R]:
        return (run for level in self._levels for run in level)

    def copied(self) -> list[R]:
        """Those who wait; may be asked without the lock, and is as good as a moment ago then."""
        return [run for level in self._levels.copy() for run in level.copy()]

    def add(self, run: R) -> None:
        """It waits at its level, behind those who are there."""
        while len(self._levels) <= run.level:
            self._levels.append(deque())
        self._levels[run.level].append(run)
        run.waits_in = self
        self._count += 1
        self.lowest = min(self.lowest, run.level)

    def remove(self, run: R) -> None:
        """One of those who wait does so no longer."""
        for level in self._levels:
            if run in level:
                level.remove(run)
                run.waits_in = None
                self._count -= 1
                break
        self.lowest = next((number for number, level in enumerate(self._levels) if level), NOBODY)

    def move(self, run: R) -> None:
        """One of those who wait does so at the level that it has now."""
        self.remove(run)
        self.add(run)

    def first(self, may: Callable[[R], bool], drop: Callable[[R], None]) -> R | None:
        """The one whose turn it is, which goes on waiting; those that may not have it are dropped on the way."""
        for number, level in enumerate(self._levels):
            while level:
                run = level[0]
                if not may(run):
                    self._count -= 1
                    level.popleft()
                    run.waits_in = None
                    drop(run)
                elif run.level != number:
                    self._count -= 1
                    level.popleft()
                    self.add(run)
                else:
                    self.lowest = number
                    return run
        self.lowest = NOBODY
        return None

    def clear(self) -> list[R]:
        """Nobody waits any more; those who did."""
        waited = list(self)
        for run in waited:
            run.waits_in = None
        self.__init__()  # type: ignore[misc]
        return waited
