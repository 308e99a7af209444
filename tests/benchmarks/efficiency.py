"""Efficiency against granularity: the curve that METG is read from (Slaughter et al., "Task Bench", SC20).

    efficiency  = kernel time / (threads × wall)         of a run, both from the same round
    granularity = threads × wall / tasks                 what a task takes, all that is around it included
    METG(e)     = the smallest granularity at which the efficiency is e or more

Kernel time is that of calling the kernel as often in a plain `for` statement, which takes turns with the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Curve", "Point"]


@dataclass(frozen=True, slots=True)
class Point:
    """One kernel size: seconds of a task's granularity, and two ratios from medians over the same rounds."""

    granularity: float
    efficiency: float
    speed: float
    """Of the bare loop's: 1.0 is as fast as serial."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The points of one adapter on one pattern, by ascending kernel size."""

    points: Sequence[Point]

    def metg(self, efficiency: float) -> float | None:
        """Seconds, interpolated on a logarithmic scale; None where this efficiency is not reached.

        A point counts when the next one holds as well: one lucky measurement is no crossing. Where the smallest kernel
        has this efficiency already, its granularity is given: the true figure is that or less.

        >>> curve = Curve([Point(1e-6, 0.2, 1), Point(4e-6, 0.4, 1), Point(16e-6, 0.8, 1), Point(64e-6, 0.9, 1)])
        >>> round(curve.metg(0.6) * 1e6, 1), curve.metg(0.95)
        (8.0, None)
        """
        holds = [point.efficiency >= efficiency for point in self.points]
        for i, (point, here) in enumerate(zip(self.points, holds)):
            if here and holds[min(i + 1, len(holds) - 1)]:
                return _crossing(self.points[i - 1], point, efficiency) if i else point.granularity
        return None

    def worst(self) -> Point:
        """Where it is slowest against the bare loop."""
        return min(self.points, key=lambda point: point.speed)


def _crossing(below: Point, above: Point, efficiency: float) -> float:
    if below.efficiency >= efficiency:  # a lucky one, which the next did not bear out
        return above.granularity
    share = (efficiency - below.efficiency) / (above.efficiency - below.efficiency)
    return math.exp(math.log(below.granularity) * (1 - share) + math.log(above.granularity) * share)
