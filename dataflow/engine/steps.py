"""What the scheduler core reads of a plan, and the states that it knows of steps and runs.

Plain data and protocols: a plan has all this, and so has a graph that a test makes by hand.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

__all__ = ["Phase", "State", "Steps"]


class State(Enum):
    """What can be said of a step."""

    WAITING = "waiting"
    ASKING = "asking"
    READY = "ready"
    RUNNING = "running"
    OVERRUNNING = "overrunning"
    RESTING = "resting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Phase(Enum):
    """What can be said of a run: OPEN until it is stopped, and for ever if it never is."""

    OPEN = "open"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Steps(Protocol):
    """The part of a plan that the core reads. It changes none of it."""

    @property
    def counts(self) -> list[int]:
        """For each step, how many steps it depends on."""

    @property
    def successors(self) -> list[tuple[int, ...]]:
        """For each step, the steps that depend on it."""

    @property
    def reads(self) -> list[tuple[int, ...]]:
        """For each step, the slots that it reads and that are released after their last reader."""

    @property
    def readers(self) -> list[int]:
        """For each slot, how many steps read it, plus one that never reports if it is an output."""

    @property
    def numbers(self) -> list[int]:
        """The steps in order."""

    @property
    def kinds(self) -> bytes:
        """For each step, how it is executed; see `dataflow.graph.kinds`."""

    @property
    def sources(self) -> list[int]:
        """The steps that depend on none, in order."""
