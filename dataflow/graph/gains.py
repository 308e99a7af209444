"""What lanes have learned about how much BLAS threads do for the steps of a plan.

A step's *gain* is its seconds with one BLAS thread over those with all CPUs, alone in either case: about the number of
CPUs for a large matrix product, one for what does not use BLAS. A step of which that is not known has the gain of its
operator, if another step of that has one. Any value is right and none needs a lock, as in `costs`.

Who has all CPUs is alone, since that is the rule; who has one thread mostly is not, and then takes longer for other
reasons, such as memory, or workers that spin: up to three times as long, whether it uses BLAS or not. So what is taken
beside others is no more than an upper bound, and an operator is *asked*: one kernel of it that comes alone, and was
seen with all CPUs, gets one thread. The gain of an operator is the median of those of the steps by which it was asked,
since single times are off by up to six times: an addition of 4 MB takes what the pages of its result take, and two
threads of a product may share a CPU for a while. An operator that has had all CPUs `TRIED` times and was never alone
since, so that it could not be asked, is taken to gain nothing.

A kernel after which no worker is awake had no help: its operator gains nothing. And since workers are slow to wake (a
512 x 512 product of 1.1 milliseconds takes 1.6 or 2.2 then), times with several count only if they were awake before.

What does not tell is how many CPUs the process used meanwhile, as the system adds up what other threads use by ticks of
some milliseconds: of pairs of such products with pauses between, 1.3 CPUs were seen in use, and not 1.9, for ever.

A gain changes: a neighbour of this process that uses one of two CPUs makes two BLAS threads 3 to 6 times slower than
one, since they wait for each other. So an operator is asked again after `RARELY` kernels with all CPUs; and one that
gains nothing is asked the other way round, with all CPUs for a step that was seen alone with one thread: soon at first,
and then once in `PROBE` kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

__all__ = ["Gains"]

PROBE = 32
"""Of so many kernels of an operator that gains nothing, one is tried with all CPUs: at twice its time, 3 % of all."""
SOON = 2
"""The same at first; each trial that comes to nothing doubles it."""
RARELY = 128
"""So many kernels of an operator get all CPUs before it is asked again: that it is no use shows in what they take."""
ANSWERS = 3
"""So often an operator is asked at every opportunity."""
STEPS = 5
"""How many of the steps by which it was asked count, those of last."""
TRIED = 32
"""So often an operator gets all CPUs though others are ready, before anything is known of it."""
WORTH = 1.1
"""The gain from which on several threads are worth it."""
LONG = 50e-3
"""Seconds of a kernel that is too long to be tried."""
RISE = 2.0
"""How many times as long as before a kernel can be seen to take: the machine may have other things to do once."""


class Gains:
    """The gains of the steps of one plan, shared by all its runs."""

    __slots__ = (
        "_alone",
        "_answers",
        "_apart",
        "_asked",
        "_by",
        "_families",
        "_of_family",
        "_refused",
        "_several",
        "_since",
        "_single",
    )

    def __init__(self, families: Sequence[object]) -> None:
        """`families` names for each step what it has in common with others: its operator."""
        self._families = families
        self._single: dict[int, float] = {}
        """What each step took with one BLAS thread, in whatever company."""
        self._alone: dict[int, float] = {}
        """The same of those that were alone."""
        self._several: dict[int, float] = {}
        """What it took with several."""
        self._of_family: dict[object, float] = {}
        """The gain of each operator."""
        self._answers: dict[object, int] = {}
        """How often it has answered."""
        self._by: dict[object, tuple[int, ...]] = {}
        """By which steps it was asked last."""
        self._asked: dict[object, int] = {}
        """By which step it is asked at the moment."""
        self._since: dict[object, int] = {}
        """How many of its kernels have had several threads since it was asked."""
        self._refused: dict[object, int] = {}
        """How many of its kernels were to have one thread, as they gain nothing, since one was tried with several."""
        self._apart: dict[object, int] = {}
        """After how many of these one is tried."""

    def __repr__(self) -> str:
        return f"<Gains {sorted(self._of_family.values())}>"

    @property
    def some(self) -> bool:
        """Whether several threads are worth it for any operator, as far as is known."""
        return max(tuple(self._of_family.values()), default=0.0) >= WORTH  # a copy: other lanes add to it meanwhile

    def note(self, step: int, seconds: float, *, several: bool, alone: bool, warm: bool, helped: bool = True) -> None:
        """A step took so long, with one BLAS thread or several; less counts by half, more by a quarter.

        Not the least time at once, as for costs: two threads that a neighbour gets in the way of take as long as ever
        now and then, and twenty times as long otherwise. `alone` is whether no other kernel ran meanwhile, `warm`
        whether workers were awake as it began, and not `helped` that none was afterwards.
        """
        family = self._families[step]
        if not several:
            _average(self._single, step, seconds)
            if not alone:
                return
            _average(self._alone, step, seconds)
            self._since[family] = 0
        else:
            if not helped:
                self._of_family.setdefault(family, 1.0)
            elif not warm:
                return
            _average(self._several, step, seconds)
            self._since[family] = self._since.get(family, 0) + 1
        by = self._by.get(family, ())
        if self._asked.get(family) == step and step in self._alone and step in self._several:
            self._asked.pop(family, None)
            self._answers[family] = self._answers.get(family, 0) + 1
            by = self._by[family] = (*[other for other in by if other != step][1 - STEPS :], step)
        if step in by:
            gain = self._of_family[family] = median_low([self._alone[other] / self._several[other] for other in by])
            if gain >= WORTH:
                self._apart.pop(family, None)

    def advice(self, step: int, *, alone: bool) -> tuple[float | None, float | None]:
        """As `expected`, about to start it; but now and then the gain is such that the other way is tried.

        `alone` is whether, as far as the caller knows, no other kernel is ready.
        """
        family = self._families[step]
        single, gain = self.expected(step)
        if gain is not None and gain < WORTH:
            refused = self._refused[family] = self._refused.get(family, 0) + 1
            apart = self._apart.get(family, SOON)
            if refused >= apart and self._alone.get(step, LONG) < LONG:
                self._refused[family], self._apart[family] = 0, min(2 * apart, PROBE)
                self._asked[family] = step
                return single, None
        elif (
            alone
            and self._several.get(step, LONG) < LONG
            and (self._since.get(family, 0) >= RARELY or self._answers.get(family, 0) < ANSWERS)
        ):
            self._asked[family] = step
            return single, 0.0
        return single, gain

    def expected(self, step: int) -> tuple[float | None, float | None]:
        """(seconds with one BLAS thread, gain); None for what is not known."""
        single, several, family = self._single.get(step), self._several.get(step), self._families[step]
        gain = self._of_family.get(family)
        if gain is None and self._since.get(family, 0) >= TRIED:
            gain = 1.0
        elif gain is not None and single is not None and several is not None:
            gain = min(gain, single / several)
        if step in self._alone:
            return self._alone[step], gain
        if several is not None and gain is not None:  # rather than what it took beside others, any number of them
            return several * gain, gain
        return single, gain


def _average(times: dict[int, float], step: int, seconds: float) -> None:
    known = times.get(step, seconds)
    times[step] = known + (min(seconds, RISE * known) - known) * (0.5 if seconds < known else 0.25)
