"""What lanes have learned about how much BLAS threads do for the steps of a plan.

A step's *gain* is its seconds with one BLAS thread over those with all CPUs: about the number of CPUs for a large
matrix product, one for what does not use BLAS. A step of which only one is known has the gain of its operator, if
another step of that has one, unless no worker was at work beside it. Any value is right and none needs a lock, as in
`costs`.

A kernel beside others takes longer than alone also for other reasons, such as memory, which looks like a gain. But no
kernel gains more from workers than the CPUs that the process used meanwhile, so that is an upper bound, and a kernel
beside which nobody was at work has no gain, whatever it took.

A gain changes: a neighbour of this process that uses one of two CPUs makes two BLAS threads 3 to 6 times slower than
one, since they wait for each other. So one kernel in `PROBE` or `RARELY` of an operator is executed in the other way
than the gain says.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

__all__ = ["Gains"]

PROBE = 32
"""Of so many kernels of an operator, one is tried in the other way: at twice its time, that is 3 % of all."""
RARELY = 128
"""The same where several threads are worth it: that they are no more shows in what they take."""
FIRST = 3
"""Which one of them."""
WORTH = 1.1
"""The gain from which on several threads are worth it."""
LONG = 50e-3
"""Seconds of a kernel that is too long to be tried."""
EVIDENCE = 50e-3
"""Seconds of kernels with several threads after which the CPUs in use meanwhile say something: the system counts what
other threads use by ticks of some milliseconds, so of a short kernel it may have counted nothing yet."""


class Gains:
    """The gains of the steps of one plan, shared by all its runs."""

    __slots__ = ("_asked", "_families", "_of_family", "_several", "_single", "_used")

    def __init__(self, families: Sequence[object]) -> None:
        """`families` names for each step what it has in common with others: its operator."""
        self._families = families
        self._asked: dict[object, int] = {}
        self._single: dict[int, float] = {}
        self._several: dict[int, float] = {}
        self._used: dict[object, tuple[float, float]] = {}
        """Of each operator the seconds in which its kernels had several threads, and the CPUs' then."""
        self._of_family: dict[object, float] = {}

    def __repr__(self) -> str:
        return f"<Gains {sorted(self._of_family.values())}>"

    @property
    def some(self) -> bool:
        """Whether several threads are worth it for any operator, as far as is known."""
        return max(tuple(self._of_family.values()), default=0.0) >= WORTH  # a copy: other lanes add to it meanwhile

    def note(self, step: int, seconds: float, *, several: bool, cpus: float) -> None:
        """A step took so long, with one BLAS thread or several; less counts by half, more by a quarter.

        Not the least time at once, as for costs: two threads that a neighbour gets in the way of take as long as ever
        now and then, and twenty times as long otherwise. `cpus` is how many CPUs the process used meanwhile, on the
        average; infinity if nobody looked.
        """
        times = self._several if several else self._single
        known = times.get(step, seconds)
        times[step] = known + (seconds - known) * (0.5 if seconds < known else 0.25)
        family = self._families[step]
        if several and cpus < inf:
            had, used = self._used.get(family, (0.0, 0.0))
            if had > 4 * EVIDENCE:
                had, used = had / 2, used / 2
            self._used[family] = had + seconds, used + seconds * cpus
        gain = self._gain(step)
        if gain is not None:
            self._of_family[family] = (self._of_family.get(family, gain) + gain) / 2

    def _gain(self, step: int) -> float | None:
        single, several = self._single.get(step), self._several.get(step)
        if several is None:
            return None
        had, used = self._used.get(self._families[step], (0.0, 0.0))
        most = max(1.0, used / had) if had > EVIDENCE else inf
        if single is None:
            return 1.0 if most < WORTH else None
        return min(single / several, most)

    def advice(self, step: int) -> tuple[float | None, float | None]:
        """As `expected`, about to start it; but now and then the gain is such that the other way is tried."""
        family = self._families[step]
        asked = self._asked[family] = self._asked.get(family, 0) + 1
        single, gain = self.expected(step)
        several = gain is None or gain >= WORTH
        if asked % (RARELY if several else PROBE) == FIRST and self._several.get(step, single or 0.0) < LONG:
            return single, 0.0 if several else None
        return single, gain

    def expected(self, step: int) -> tuple[float | None, float | None]:
        """(seconds with one BLAS thread, gain); None for what is not known."""
        single, several, gain = self._single.get(step), self._several.get(step), self._gain(step)
        if gain is None:
            gain = self._of_family.get(self._families[step])
        if single is None and several is not None and gain is not None:
            single = several * gain
        return single, gain
