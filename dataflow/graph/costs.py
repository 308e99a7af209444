"""What the lanes have learned about how long the steps of a plan take.

Times are only ever used to decide who runs what where, so any value is right and none needs a lock: lanes write what
they measure, the scheduler core compares. A step is *light* if it is expected to take less than `border` seconds.

A first run need not measure every step: once some steps of an operator were measured and were short, the others of
that operator that nobody has measured are taken to be as short. The second look comes by itself: whoever is slower
than expected makes its batch late, and one that holds up a lane is found out by the watcher.

A time may be too long for reasons that are not the step's: its thread had to wait for the interpreter, or the machine
had other things to do. So the first time of a step, and that of a batch, should be the processor time of its thread
unless that is certainly not the whole of it; and from then on a shorter time counts at once, a longer one by a part.
Even so times scatter, and a graph of which a few steps seem heavy cannot be swept. So the border has a width: what was
light, or whose kind is, stays so below three times the border.

The border is where it pays to have several lanes, and that depends on more than the time of a step: on how often its
kernel passes the interpreter's lock, on how its steps hang together, on the machine. So lanes also tell how they get on
together (`shared`). If they are hardly quicker than one alone would be, the border is raised above the steps that they
had; once in a while it is put back, to see whether that still holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataflow.graph.gains import Gains

__all__ = ["LIGHT", "UNKNOWN", "Costs"]

LIGHT = 7e-6
"""Seconds. Two bare loops over a kernel that releases the interpreter's lock break even with one loop at 5 to 7
microseconds (2 CPUs, Python 3.11), two lanes a little above that: below it, passing the lock back and forth costs more
than the second thread gains."""

WORTHWHILE = 1.25
"""How many times as quick as one alone lanes should be by their own times, which contain some of what they lose by
being several: at 1.25 they were about 1.1 times as quick (stencil and random graphs of width 16 with kernels of 7 to 25
microseconds, 2 CPUs, Python 3.11)."""

DOUBT = 1 / 16
"""The weight of one segment in the average of how lanes get on: some milliseconds, at the length of a batch."""

PATIENCE = 2000
"""Batches of light steps after which the border is put back: half a second or more of work, of which the few
milliseconds until it is raised again are less than a hundredth."""

WAITED = 200e-6
"""Seconds within which a step that used less of the processor is taken to have waited for the interpreter."""

SHORT = 50e-6
"""Seconds. Steps not yet measured are judged by others of their operator only if these are shorter: what comes of it is
a batch that others may take from, and a longer step is claimed alone whether its cost is known or not."""

SAMPLES = 3
"""Steps of an operator to measure before the others are judged by them: the least of three is no outlier."""

UNKNOWN = float("inf")


class Costs:
    """The expected seconds of each step of one plan, shared by all its runs."""

    __slots__ = (
        "_estimates",
        "_families",
        "_gain",
        "_measured",
        "_members",
        "_patience",
        "_stale",
        "_sweep_from",
        "border",
        "gains",
        "seconds",
    )

    def __init__(self, families: Sequence[object], on_loop: bytes) -> None:
        """`families` names for each step what it has in common with others: its operator."""
        size = len(families)
        self.seconds = [UNKNOWN] * size
        """For each step; infinity as long as nobody knows, and for ever for steps on the event loop."""
        self._estimates = self.seconds.copy()
        """The same before it is told whether that is light."""
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
        self.border = LIGHT
        """Steps expected to take less are light."""
        self._gain = 2 * WORTHWHILE
        """How many times as quick as one lane several seem to be, with the border where it is."""
        self._patience = 0
        """Batches until the border is put back."""

    def __repr__(self) -> str:
        light = sum(seconds < self.border for seconds in self.seconds)
        return f"<Costs {light} of {len(self.seconds)} steps light>"

    @property
    def sweep_from(self) -> int:
        """The first step from which on all steps are light."""
        if self._stale:
            self._stale = False
            step = len(self.seconds)
            while step and self.seconds[step - 1] < self.border:
                step -= 1
            self._sweep_from = step
        return self._sweep_from

    def first_measured(self, step: int, seconds: float, cpu_seconds: float) -> bool:
        """A step of unknown cost took so long, and so much of that its thread had the processor.

        Returns whether others were judged by it: heaps are out of date.
        """
        family = self._families[step]
        samples = self._measured.setdefault(family, [])
        # It may have waited for something of its own, such as a file, and then so did others of its operator.
        if seconds < WAITED or (samples and min(samples) < LIGHT):
            seconds = min(seconds, cpu_seconds)
        fresh = self.seconds[step] == UNKNOWN  # else another run was quicker: a step is one sample
        if fresh:
            samples.append(seconds)
        self._tell(step, seconds if fresh else min(seconds, self._estimates[step]), light=min(samples) < self.border)
        if not fresh or len(samples) < SAMPLES or min(samples) >= SHORT:
            return False
        best = min(samples)
        for other in self._members[family]:
            if self.seconds[other] == UNKNOWN:
                self.seconds[other] = self._estimates[other] = best
        self._stale = True
        return True

    def measured(self, step: int, seconds: float) -> None:
        """A step of known cost took so long, measured alone."""
        known = self._estimates[step]
        self._tell(
            step, seconds if seconds < known else known + (seconds - known) / 16, self.seconds[step] < self.border
        )
        if seconds < LIGHT <= known:
            samples = self._measured.setdefault(self._families[step], [])
            if not samples or min(samples) >= LIGHT:  # the first ones were slow, and all others were judged by them
                samples.append(seconds)
                for other in self._members[self._families[step]]:
                    self._tell(other, self._estimates[other], light=True)

    def batch(self, steps: Sequence[int], seconds: float) -> bool:
        """Light steps took so long together. Where that is far from what was expected, all are scaled alike.

        Returns whether the border was moved: heaps are out of date.
        """
        if self.border > LIGHT:
            self._patience -= 1
            if self._patience < 0:
                self._move(LIGHT)
                return True
        known = self._estimates
        # The first stands for all, at first: a sum would cost more than a batch of empty kernels may.
        if 0.5 < seconds / (len(steps) * known[steps[0]]) < 1.25:
            return False
        expected = sum(known[step] for step in steps)
        factor = seconds / expected
        if 0.5 < factor < 1.25 or expected == UNKNOWN:  # another lane has just found one of them out
            return False
        if factor > 1.0:
            factor = 1.0 + (factor - 1.0) / 4
        for step in steps:
            self._tell(step, known[step] * factor, self.seconds[step] < self.border)
        return False

    def shared(self, each: float, gain: float) -> bool:
        """Lanes that had steps of about `each` seconds were `gain` times as quick as one would have been.

        Returns whether the border was moved: heaps are out of date.
        """
        self._gain += (gain - self._gain) * DOUBT
        if self._gain > WORTHWHILE:
            return False
        self._move(max(each * WORTHWHILE, LIGHT))
        self._patience = max(PATIENCE, len(self.seconds) // 8)  # since it makes a look at all of them due
        return True

    def _move(self, border: float) -> None:
        self.border = border
        self._gain = 2 * WORTHWHILE
        self._stale = True
        just_light, wide = 0.99 * border, 3 * border if border > LIGHT else border
        # In place: the cores of runs that are under way read it.
        self.seconds[:] = [just_light if border <= known < wide else known for known in self._estimates]

    def _tell(self, step: int, seconds: float, light: bool) -> None:
        """The new estimate; with `light`, there is more than that to say that it is."""
        self._estimates[step] = seconds
        if light and self.border <= seconds < 3 * self.border:
            seconds = 0.99 * self.border
        if (seconds < self.border) != (self.seconds[step] < self.border):
            self._stale = True
        self.seconds[step] = seconds

    def stuck(self, step: int, seconds: float) -> None:
        """A step thought light held up its lane for at least so long."""
        self._tell(step, max(seconds, self.border), light=False)
