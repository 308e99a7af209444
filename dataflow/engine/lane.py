"""What the pool knows of a lane; see `lanes`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple

from dataflow.engine.run import Run
from dataflow.engine.segment import Segment
from dataflow.graph.costs import Costs
from dataflow.threads.budget import Member

__all__ = ["Lane", "Mark"]


class Mark(NamedTuple):
    """How a lane's last turn ended: what is needed to tell, at the end of the next one, how lanes get on together."""

    costs: Costs
    """The costs of the plan that the turn was for."""
    since: float
    """From when on all turns of the lane have been for that plan; not from before it came."""
    at: float
    worked: float
    """What all lanes had `worked` for that plan by then."""


class Lane:
    """What the pool knows of a lane."""

    __slots__ = (
        "bell",
        "came",
        "doubted",
        "ended",
        "executor",
        "gave_way",
        "held",
        "looked_at",
        "mark",
        "member",
        "run",
        "segment",
        "served",
        "turns",
        "void",
    )

    def __init__(self) -> None:
        self.member: Member | None = None
        """Its part in the intra-op budget while it serves a run; None: BLAS is not managed."""
        self.run: Run | None = None
        self.segment: Segment | None = None
        self.served = 0
        """The number of the run that it chose last."""
        self.turns = 0
        """How many segments it has begun, but for those in calm."""
        self.came = 0.0
        """When it got its slot."""
        self.ended = self.gave_way = 0.0
        """When its last segment ended, and when it last let other threads have the interpreter."""
        self.mark: Mark | None = None
        """How its last turn ended; None: it has had none since it came."""
        self.held = False
        """Whether it has claimed a kernel that nobody is to take, as it has BLAS threads for it, or waits for them."""
        self.executor: ThreadPoolExecutor | None = None
        """Whose thread it has."""
        self.bell: Lock | None = None
        """Held while it rests; released to wake it."""
        self.looked_at = (-1, -1, -1)
        """The watcher's: (turns, length of the segment's `todo`, its first step) at its last look."""
        self.doubted = False
        """The watcher's: whether nothing had changed at its last look, though the budget did not hold the lane back."""
        self.void = False
        """It ends as soon as it comes up: the executor refused it, or is retired."""

    def rest(self) -> None:
        """From here on it waits at its bell, or is about to."""
        self.mark = None
        self.bell = Lock()
        self.bell.acquire()

    def ring(self) -> None:
        """Wake it."""
        assert self.bell is not None
        self.bell.release()
