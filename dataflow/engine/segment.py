"""A segment: what one lane has claimed of a run, and how others may take from it while the lane works it off.

    claimed   3 7 8 9 12            the lane:   pops 3, executes it, pops 7, … pops END: all are done
    todo      END 12 9 8 7 3        whoever takes:  pops 12, 9, … (the place behind END)

Rule 3 of `run` says why nothing has to be noted for each step. Whoever takes from a segment, or reports for its lane,
holds the run's lock; the lane itself only pops, and needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import inf
from types import FrameType

__all__ = ["END", "Segment", "Weight"]


class Weight(Enum):
    """What is expected of the steps of a segment."""

    LIGHT = "light"
    """So little that they are for one lane, and measured as a batch."""
    HEAVY = "heavy"
    """Work for any lane, and each is worth a look at the clock."""
    UNKNOWN = "unknown"
    """Nobody knows: one step, to be measured with care."""


END = -1
"""Below the first step of a segment's `todo`: who pops it has started all there was."""


class Segment:
    """Steps claimed together by one lane; see rule 3 of `run`."""

    __slots__ = (
        "among",
        "calm",
        "calm_seconds",
        "claimed",
        "cold",
        "frame",
        "gained",
        "lonely",
        "most",
        "news",
        "relieved",
        "stuck",
        "sweep",
        "todo",
        "weight",
    )

    def __init__(self) -> None:
        self.claimed: Sequence[int] = ()
        """What its lane has to report, in the order of starting; without what was taken from it."""
        self.todo: list[int] = [END]
        """What its lane has not started, the next one last."""
        self.weight = Weight.UNKNOWN
        self.cold = True
        """Whether it is the first one since its lane came to the run: what begins now takes longer than usual."""
        self.gained = 1.0
        """What its steps take is to be multiplied by this to have what they cost, which is their time with one BLAS
        thread. Infinity: nobody knows, and they teach nothing."""
        self.calm = False
        """Whether its lane may go on with the next heavy step without looking around; see rule 6 of `lanes`."""
        self.calm_seconds = 0.0
        """For how long calm may last."""
        self.most = inf
        """Expected seconds from which on a step is too long for calm."""
        self.among = 1
        """Among how many lanes what is ready is shared in calm."""
        self.lonely = False
        """Whether some of these lanes have yet to come: calm ends as soon as there is something for one of them."""
        self.news = False
        """Whether whoever waits for the run has yet to hear of what was reported, or of a failure."""
        self.sweep = False
        """Whether the steps run in order from first to last, so that the plan says what each one reads last."""
        self.frame: FrameType | None = None
        """After a failure: the frame of ours that the kernel's frame refers back to."""
        self.stuck = False
        """Whether its lane is held up by one step, which was thought light."""
        self.relieved = False
        """Whether anything was taken away, or reported by another."""

    def __repr__(self) -> str:
        kind = "sweep" if self.sweep else self.weight.value
        return f"<Segment {kind} {list(self.claimed)}, {self.unstarted} not started>"

    @property
    def unstarted(self) -> int:
        """How many of its steps have not started."""
        return max(0, len(self.todo) - 1)

    def fill(self, steps: list[int], weight: Weight, *, sweep: bool) -> None:
        """Claimed anew."""
        self.claimed = steps
        todo = [*steps, END]
        todo.reverse()
        self.todo = todo
        self.weight = weight
        self.sweep = sweep
        self.stuck = self.relieved = False
        self.gained = 1.0

    def take(self, most: int) -> list[int]:
        """Take up to so many steps out of it that have not started, from the end; they are its lane's no more."""
        todo = self.todo
        taken: list[int] = []
        while len(taken) < most:
            try:
                # The last step first: its lane, which takes the next one, must never get one behind what we took.
                taken.append(todo.pop(1))
            except IndexError:  # only `END` is left, or its lane was quicker
                break
        taken.reverse()
        if taken:
            self.claimed = self.claimed[: len(self.claimed) - len(taken)]
        return taken

    def take_done(self, failed: int = END) -> Sequence[int]:
        """After all that had not started was taken: what is done of the rest. The last one is not, or has `failed`."""
        claimed = self.claimed
        if claimed and claimed[-1] == failed:
            self.claimed = ()
        elif self.todo:
            self.claimed = claimed[-1:]
        else:  # its lane has popped `END` and comes to report: nobody needs to do so in its place
            return ()
        return claimed[:-1]
