"""What the lanes have learned about how long the steps of a plan take.

Times are only ever used to decide who runs what where, so any value is right and none needs a lock: lanes write what
they measure, the scheduler core compares. A step is *light* if it is expected to take less than `LIGHT` seconds.

A first run need not measure every step: once some steps of an operator were measured and were light, the others of
that operator that nobody has measured are taken to be as light. The second look comes by itself: whoever is slower
than expected is found out by the watcher, and counts as heavy from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LIGHT", "Costs"]

LIGHT = 10e-6
"""Seconds. Below 8 to 12 microseconds two threads were slower than one in every measurement (2 cores, 3.11)."""

SAMPLES = 3
"""Steps of an operator to measure before the others are judged by them: the least of three is no outlier."""

UNKNOWN = float("inf")


class Costs:
    """The expected seconds of each step of one plan, shared by all its runs."""

    __slots__ = ("_families", "_measured", "_members", "_stale", "_sweep_from", "seconds")

    def __init__(self, families: Sequence[object], on_loop: bytes) -> None:
        """`families` names for each step what it has in common with others: its operator."""
        size = len(families)
        self.seconds = [UNKNOWN] * size
        """For each step; infinity as long as nobody knows, and for ever for steps on the event loop."""
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
        """A step took so long, measured alone. Returns whether others were judged by it: heaps are out of date.

        A quicker time counts at once, a slower one by a quarter: slowness may be the machine's.
        """
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
        if len(samples) < SAMPLES or min(samples) >= LIGHT:
            return False
        best = min(samples)
        for other in self._members[family]:
            if self.seconds[other] == UNKNOWN:
                self.seconds[other] = best
        self._stale = True
        return True

    def batch(self, steps: Sequence[int], seconds: float) -> None:
        """Steps thought light took so long together. If they are not light on average, they must be measured anew."""
        if seconds > len(steps) * LIGHT:
            for step in steps:
                self.seconds[step] = UNKNOWN
            self._stale = True

    def stuck(self, step: int, seconds: float) -> None:
        """A step thought light held up its lane for at least so long."""
        self.seconds[step] = max(seconds, LIGHT)
        self._stale = True
