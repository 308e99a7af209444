"""What the lanes have learned about how long the steps of a plan take.

Times are only ever used to decide who runs what where, so any value is right and none needs a lock: lanes write what
they measure, the scheduler core compares. A step is *light* if it is expected to take less than `LIGHT` seconds.

A first run need not measure every step: once some steps of an operator were measured and were short, the others of
that operator that nobody has measured are taken to be as short. The second look comes by itself: whoever is slower
than expected makes its batch late, and one that holds up a lane is found out by the watcher.

A time may be too long for reasons that are not the step's: the thread did not have the interpreter, or the machine
had other things to do. So a shorter time counts at once and a longer one by a quarter.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataflow.graph.gains import Gains

__all__ = ["LIGHT", "Costs"]

LIGHT = 7e-6
"""Seconds. Kernels that release the interpreter's lock break even on two threads at 6 to 8 microseconds: below that,
passing the lock back and forth costs more than the second thread gains (2 CPUs, Python 3.11 and 3.13)."""

SHORT = 50e-6
"""Seconds. Steps not yet measured are judged by others of their operator only if these are shorter: what comes of it is
a batch that others may take from, and a longer step is claimed alone whether its cost is known or not."""

SAMPLES = 3
"""Steps of an operator to measure before the others are judged by them: the least of three is no outlier."""

UNKNOWN = float("inf")


class Costs:
    """The expected seconds of each step of one plan, shared by all its runs."""

    __slots__ = ("_families", "_measured", "_members", "_stale", "_sweep_from", "gains", "seconds")

    def __init__(self, families: Sequence[object], on_loop: bytes) -> None:
        """`families` names for each step what it has in common with others: its operator."""
        size = len(families)
        self.seconds = [UNKNOWN] * size
        """For each step; infinity as long as nobody knows, and for ever for steps on the event loop."""
        self.gains = Gains(families)
        """How much BLAS threads do for each step."""
        self._families = families
        self._measured: dict[object, list[float]] = {}
        self._members: dict[object, list[int]] = {}
        for step, family in enumerate(families):
            if not on_loop[step]:
                self._members.setdefault(family, []).append(step)
        self._sweep_from = size
        self._stale = False

    def __repr__(self) -> str:
        light = sum(seconds < LIGHT for seconds in self.seconds)
        return f"<Costs {light} of {len(self.seconds)} steps light>"

    @property
    def sweep_from(self) -> int:
        """The first step from which on all steps are light."""
        if self._stale:
            self._stale = False
            step = len(self.seconds)
            while step and self.seconds[step - 1] < LIGHT:
                step -= 1
            self._sweep_from = step
        return self._sweep_from

    def measured(self, step: int, seconds: float) -> bool:
        """A step took so long, measured alone. Returns whether others were judged by it: heaps are out of date."""
        known = self.seconds[step]
        now = seconds if seconds < known else known + (seconds - known) / 4
        self.seconds[step] = now
        if (now < LIGHT) != (known < LIGHT):
            self._stale = True
        if known != UNKNOWN:
            return False
        family = self._families[step]
        samples = self._measured.setdefault(family, [])
        samples.append(seconds)
        if len(samples) < SAMPLES or min(samples) >= SHORT:
            return False
        best = min(samples)
        for other in self._members[family]:
            if self.seconds[other] == UNKNOWN:
                self.seconds[other] = best
        self._stale = True
        return True

    def batch(self, steps: Sequence[int], seconds: float) -> None:
        """Light steps took so long together. Where that is far from what was expected, all are scaled alike."""
        known = self.seconds
        # The first stands for all, at first: a sum would cost more than a batch of empty kernels may.
        if 0.5 < seconds / (len(steps) * known[steps[0]]) < 2.0:
            return
        expected = sum(known[step] for step in steps)
        factor = seconds / expected
        if 0.5 < factor < 2.0 or expected == UNKNOWN:  # another lane has just found one of them out
            return
        if factor > 1.0:
            factor = 1.0 + (factor - 1.0) / 4
        for step in steps:
            known[step] *= factor
        if factor > 1.0 and max(known[step] for step in steps) >= LIGHT:
            self._stale = True

    def stuck(self, step: int, seconds: float) -> None:
        """A step thought light held up its lane for at least so long."""
        self.seconds[step] = max(seconds, LIGHT)
        self._stale = True
