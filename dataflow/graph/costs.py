"""What the lanes have learned about how long the steps of a plan take.

Times are only ever used to decide who runs what where, so any value is right and none needs a lock: lanes write what
they measure, the scheduler core compares. A step is *light* if it is expected to take less than `border` seconds.

A first run need not measure every step: once some steps of an operator were measured and were short, the others of
that operator that nobody has measured are taken to be as short (if that is not light, only those that come next). The
second look comes by itself: whoever is slower than expected makes its batch late, and one that holds up a lane is found
out by the watcher.

A time may be too long for reasons that are not the step's: its thread had to wait for the interpreter, or the machine
had other things to do. So the first time of a step, and that of a batch, should be the processor time of its thread
unless that is certainly not the whole of it; and from then on a shorter time counts at once, a longer one by a part,
and no single one makes much of a difference. What was judged by others is judged anew once one of them proves to be
much quicker. Even so times scatter, and a graph of which a few steps seem heavy cannot be swept. So the border has a
width: what was light, or whose kind is, stays so below three times the border, if that is short.

The border is where it pays to have several lanes, and that depends on more than the time of a step: on how often its
kernel passes the interpreter's lock, on how its steps hang together, on the machine. So lanes also tell how they get on
together (`shared`). If they are hardly quicker than one alone would be, the border is raised above the steps that they
had; once in a while it is put back, to see whether that still holds. What lanes wait for each other is no cost of a
step, so those that run beside others count as slower only by the processor time that they use, or if they took long.
The price is that kernels which wait for something else, for less than `WAITED`, may get one lane where two would do.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataflow.graph.gains import Gains

__all__ = ["LIGHT", "UNKNOWN", "Costs"]

LIGHT = 12e-6
"""Seconds. Two bare loops over a kernel that releases the interpreter's lock break even with one loop at 5 to 7
microseconds, two lanes at 15 to 20: on kernels of 9, 12 and 15 microseconds they were 0.6, 0.75 and 0.9 times as fast
as one loop (2 CPUs, Python 3.11). Below it, passing the lock back and forth costs more than the second thread gains.
Between this and 20 microseconds lanes find out themselves, see `shared`."""

WORTHWHILE = 1.0
"""How many times as quick as one alone lanes should be, by what their steps are expected to take. That is about
the least they took; one lane would need a tenth more, so this is a gain of a tenth. With 1.1, two lanes on kernels of
25 microseconds (stencil, tree, no dependencies) were found wanting, and 0.96 to 1.25 times as fast as one loop; with
1.0 they are 1.07 to 1.28 times as fast, and at 15 and 20 microseconds as before. Against lanes that never raised the
border, stencils, trees and transforms of kernels of 50 to 100 microseconds that take the lock every ten were 0.8 to
0.95 times as fast as one loop, and not 0.55 to 0.8 (2 CPUs, Python 3.11)."""

ABOVE = 1.1
"""The border, when it is raised, is so many times the steps for which lanes were not worth it."""

HOPE = 2.2
"""What is taken for the gain before anything is known."""

DOUBT = 3e-3
"""Seconds over which it is averaged how lanes get on, but over two turns at the least: no single one decides."""

TRIAL = 0.1
"""Seconds of light steps after which a raised border is put back, to try again; each trial takes some milliseconds, in
which lanes may be half as quick as one."""
TRIALS_APART = 1.6
"""The same after several trials in a row that came to nothing: each waits twice as long as the one before."""

SETTLED = 13e-3
"""Seconds of lanes, all in all worth it, after which a trial has come to something."""

WAITED = 200e-6
"""Seconds within which a step that used less of the processor is taken to have waited for the interpreter."""

JUDGED = 200e-6
"""Seconds. Steps not yet measured are judged by others of their operator only if these are shorter. A step of unknown
cost takes its lane 50 microseconds of care: when each was measured, first runs of kernels of 40 to 100 microseconds
were 0.5 to 1.4 times as fast as one loop, and not 1.4 to 1.75 times. For longer ones BLAS threads matter."""

JUDGED_AT_ONCE = 1024
"""So many steps at once are judged by others that seem heavy, in their order. To judge 100,000 took 7 milliseconds, for
which all lanes had to wait."""

SHORT = 50e-6
"""Seconds above which nothing is light, unless the border is higher."""

LEAST = 1e-8
"""Seconds that a step takes at the least, whatever the clock says: a thread's processor time may stand still."""

SAMPLES = 3
"""Steps of an operator to measure before the others are judged by them, if they are light: the least of three is no
outlier."""
MORE_SAMPLES = 8
"""The same if they seem heavy: each lane begins with first calls, which take it longer than later ones."""

COLD = 10
"""How many times as long as later the first calls of a kernel in a thread may take. What seems heavy gets a lane of its
own, which is cold when it comes to it, so that it would seem heavy for ever: of graphs of kernels of 2 to 7
microseconds every second one had such a step, and one that is heavy keeps all before it from being swept."""

RISE = 1.5
"""How many times as long as before one measurement can make a step seem, however long it was: a machine that had other
things to do must not make a light step heavy, since one such step keeps all before it from being swept. Without this
bound some of 3,072 steps of 2 to 4 microseconds seemed heavy in most runs, which took twice as long. A step that holds
up its lane is found out at once."""

UNKNOWN = float("inf")


class Costs:
    """The expected seconds of each step of one plan, shared by all its runs."""

    __slots__ = (
        "_cold",
        "_estimates",
        "_families",
        "_gain",
        "_judged",
        "_measured",
        "_members",
        "_patience",
        "_reached",
        "_settled",
        "_stale",
        "_sweep_from",
        "_trial",
        "border",
        "gains",
        "seconds",
        "worked",
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
        self._measured: dict[object, tuple[int, float]] = {}
        """Of each operator how many steps were measured, and the least of their times."""
        self._cold: dict[object, int] = {}
        """How many times of an operator were not counted, as their lanes had just come."""
        self._judged: dict[object, float] = {}
        """What those of an operator that nobody measured are thought to take."""
        self._reached: dict[object, int] = {}
        """How many of an operator's steps have been judged, or were looked at."""
        self._members: dict[object, list[int]] = {}
        for step, family in enumerate(families):
            if not on_loop[step]:
                self._members.setdefault(family, []).append(step)
        self._sweep_from = size
        self._stale = False
        self.border = LIGHT
        """Steps expected to take less are light."""
        self._gain = HOPE
        """How many times as quick as one lane several seem to be, with the border where it is."""
        self._trial = TRIAL
        """Seconds from the next time that the border is raised to when it is put back."""
        self._settled = 0.0
        """For how many seconds of lanes they were worth it, on the average, since the border was moved."""
        self.worked = 0.0
        """Seconds of work done so far: what turns of heavy steps were expected to take, and all others took.

        All lanes add to it, without a lock: an addition that is lost is one kernel too few.
        """
        self._patience = 0.0
        """Seconds of light steps until the border is put back."""

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

    @property
    def settled(self) -> bool:
        """Whether lanes have been worth it for a while, with the border where it is."""
        return self._settled > SETTLED

    def first_measured(
        self, step: int, seconds: float, cpu_seconds: float, *, cold: bool = False, several: bool = False
    ) -> bool:
        """A step of unknown cost took so long, and so much of that its thread had the processor.

        With `cold` that is more than it usually takes: it is to be judged by others, if there are enough of them. With
        `several` BLAS threads it may be less than with one: if that might be too long to judge others by, it is.
        Returns whether others were found to be light by it: heaps are out of date.
        """
        family = self._families[step]
        if several:
            seconds, cpu_seconds = (max(took, min(2 * took, JUDGED)) for took in (seconds, cpu_seconds))
        if cold and seconds < WAITED and len(self._members[family]) > 2 * MORE_SAMPLES:
            times = self._cold[family] = self._cold.get(family, 0) + 1
            if times <= MORE_SAMPLES:  # a lane that comes anew for each step is always cold
                return False
        count, best = self._measured.get(family, (0, UNKNOWN))
        # It may have waited for something of its own, such as a file, and then so did others of its operator.
        if seconds < WAITED or best < LIGHT:
            seconds = min(seconds, cpu_seconds)
        seconds = max(seconds, LEAST)
        fresh = self.seconds[step] == UNKNOWN  # else another run was quicker: a step is one sample
        if fresh:
            count, best = count + 1, min(best, seconds)
            self._measured[family] = count, best
        self._tell(step, seconds if fresh else min(seconds, self._estimates[step]), light=best < self.border)
        enough = min(SAMPLES if best < LIGHT else MORE_SAMPLES, len(self._members[family]))
        if not fresh or best >= JUDGED or count < enough:
            return False
        members, light = self._members[family], best < self.border
        judged = self._judged.setdefault(family, best)
        if light:  # all of them, also those that are thought to be heavy by now
            self._judged[family] = best
            changed = False
            for other in members:
                if self.seconds[other] == UNKNOWN or self._estimates[other] == judged:
                    self.seconds[other] = self._estimates[other] = best
                    changed = True
            self._lighten(family, best)
            self._stale = True
            return changed
        if best <= judged / 2:
            self._prove(step, best)
        # Of heavy ones only those that come next: all lanes would wait while a hundred thousand are looked at.
        first = self._reached.get(family, 0)
        self._reached[family] = first + JUDGED_AT_ONCE
        for other in members[first : first + JUDGED_AT_ONCE]:
            if self.seconds[other] == UNKNOWN:
                self.seconds[other] = self._estimates[other] = self._judged[family]
        return False

    def measured(self, step: int, seconds: float) -> None:
        """A step of known cost took so long, measured alone."""
        known = self._estimates[step]
        told = seconds if seconds < known else min(known + (seconds - known) / 16, known * RISE)
        self._tell(step, told, self.seconds[step] < self.border)
        self._prove(step, seconds)

    def batch(self, steps: Sequence[int], seconds: float) -> bool:
        """Light steps took so long together. Returns whether the border was moved: heaps are out of date."""
        if self.border > LIGHT:
            self._patience -= seconds
            if self._patience < 0:
                self._move(LIGHT)
                return True
        # The first stands for all: a sum would cost more than a batch of empty kernels may.
        if not 0.5 < seconds / (len(steps) * self._estimates[steps[0]]) < 1.25:
            self._together(steps, seconds)
        return False

    def _together(self, steps: Sequence[int], seconds: float) -> None:
        """Steps took so long together. Where that is far from what was expected, all are scaled alike."""
        known = self._estimates
        expected = sum(known[step] for step in steps)
        factor = seconds / expected
        if 0.5 < factor < 1.25 or expected == UNKNOWN:  # another lane has just found one of them out
            return
        factor = min(1.0 + (factor - 1.0) / 4, RISE) if factor > 1.0 else max(factor, 0.1)
        first = known[steps[0]] * factor
        for step in steps:
            self._tell(step, known[step] * factor, self.seconds[step] < self.border)
        self._prove(steps[0], first)

    def beside_others(self, steps: Sequence[int], seconds: float, cpu_seconds: float, *, cold: bool = False) -> None:
        """Heavy steps took so long together, beside other lanes, for whose interpreter's lock they may have waited.

        That is no cost of theirs, so unless they took long it counts how much of the processor they used, and nothing
        at all with `cold`. Each of them that was quicker has been `measured`.
        """
        if seconds < WAITED * len(steps):
            if cold:
                return
            seconds = cpu_seconds
        self._together(steps, seconds)

    def _prove(self, step: int, seconds: float) -> None:
        """A step took so long: if that is far less than what was thought of others of its operator, so may they."""
        family = self._families[step]
        count, best = self._measured.get(family, (0, UNKNOWN))
        if seconds < best:
            self._measured[family] = count, seconds
            if seconds < self.border <= best:
                self._lighten(family, seconds)
        judged = self._judged.get(family)
        if judged is None or seconds > judged / 2:
            return
        self._judged[family] = seconds
        light, known = seconds < self.border, self._estimates
        for other in self._members[family]:
            self._tell(other, seconds if known[other] == judged else known[other], light or known[other] < self.border)

    def _lighten(self, family: object, seconds: float) -> None:
        """One of these proved to be light: so may be those that seemed to take longer, but were cold."""
        for other in self._members[family]:
            if self.border <= self._estimates[other] < COLD * seconds:
                self._tell(other, seconds, light=True)

    def shared(self, each: float, gain: float, seconds: float) -> bool:
        """For so many seconds lanes were `gain` times as quick as one would have been.

        It was a turn of one of them, which began with a step of about `each`.

        Returns whether the border was moved: heaps are out of date.
        """
        self._gain += (gain - self._gain) * min(seconds / DOUBT, 0.5)
        if self._gain > WORTHWHILE:
            self._settled += seconds
            if self.settled:
                self._trial = TRIAL
            return False
        self._move(max(each * ABOVE, LIGHT))
        self._patience = max(self._trial, 1e-6 * len(self.seconds))  # since it makes a look at all of them due
        self._trial = min(2 * self._trial, TRIALS_APART)
        return True

    @property
    def _width(self) -> float:
        """Below this, what seems heavy may be light."""
        return max(self.border, min(3 * self.border, SHORT))

    def _move(self, border: float) -> None:
        self.border = border
        self._settled = 0.0
        self._gain = HOPE
        self._stale = True
        just_light, wide = 0.99 * border, self._width if border > LIGHT else border
        # In place: the cores of runs that are under way read it.
        self.seconds[:] = [just_light if border <= known < wide else known for known in self._estimates]
        for family, (_, best) in self._measured.copy().items():  # other lanes add to it meanwhile
            if LIGHT <= best < border:
                self._lighten(family, best)

    def _tell(self, step: int, seconds: float, light: bool) -> None:
        """The new estimate; with `light`, there is more than that to say that it is."""
        self._estimates[step] = seconds = max(seconds, LEAST)
        if light and self.border <= seconds < self._width:
            seconds = 0.99 * self.border
        if (seconds < self.border) != (self.seconds[step] < self.border):
            self._stale = True
        self.seconds[step] = seconds

    def stuck(self, step: int, seconds: float) -> None:
        """A step thought light held up its lane for at least so long."""
        self._tell(step, max(seconds, self.border), light=False)
