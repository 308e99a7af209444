"""What lanes have learned about how much BLAS threads do for the steps of a plan.

A step's *gain* is its seconds with one BLAS thread over those with all CPUs, alone in either case: about the number of
CPUs for a large matrix product, one for what does not use BLAS. A step of which that is not known has the gain of its
operator, if another step of that has one. Any value is right and none needs a lock, as in `costs`.

Who has all CPUs is alone, since that is the rule; who has one thread mostly is not, and then takes longer for other
reasons, such as memory, or workers that spin: up to three times as long, whether it uses BLAS or not. So what is taken
beside others is no more than an upper bound, and there are *trials*: a kernel that is ready by itself, and whose step
was seen with all CPUs, gets one thread. The gain of an operator is the median of those of the steps in its last trials,
since single times are off by up to six times: an addition of 4 MB takes what the pages of its result take, and two
threads of a product may share a CPU for a while. An operator that has had all CPUs `UNTRIED` times, and no kernel that
was alone with one thread in between, is taken to gain nothing.

A kernel after which no worker is awake had no help: its operator gains nothing, unless trials say something else. And
workers are slow to wake (a 512 x 512 product of 1.1 milliseconds takes 1.6 or 2.2 then), so the times of those that had
help count only if workers were awake before.

What does not tell is how many CPUs the process used meanwhile, as the system adds up what other threads use by ticks of
some milliseconds: of pairs of such products with pauses between, 1.3 CPUs were seen in use, and not 1.9, for ever.

A gain changes: a neighbour of this process that uses one of two CPUs makes two BLAS threads 3 to 6 times slower than
one, since they wait for each other. So there is another trial after `RARELY` kernels with all CPUs. If an operator
gains nothing, trials are the other way round, with all CPUs for a step that was seen alone with one thread: soon at
first, and then of one in `PROBE` kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from statistics import median_low
from typing import NamedTuple

__all__ = ["Advice", "Gains"]

PROBE = 32
"""One in so many kernels of an operator that gains nothing is a trial: at twice its time, 3 % of all."""
SOON = 2
"""The same at first; each trial that comes to nothing doubles it."""
RARELY = 128
"""So many kernels of an operator get all CPUs before its next trial: that it is no use shows in what they take."""
TRIALS = 3
"""So many trials of an operator there are at the first opportunities."""
STEPS = 5
"""The median is over the last so many steps of trials."""
UNTRIED = 32
"""So often an operator gets all CPUs, though others may be ready, before anything is known of it."""
WORTH = 1.1
"""The gain from which on several threads are worth it."""
LONG = 50e-3
"""Seconds of a kernel that is too long to be tried."""
RISE = 2.0
"""How many times as long as before a kernel can be seen to take: the machine may have other things to do once."""


class Advice(NamedTuple):
    """With what to ask the budget about a kernel."""

    single: float | None
    """Its seconds with one BLAS thread; None: nobody knows."""
    gain: float | None
    """Its gain, or what is to be taken for it; None: nobody knows."""
    trial: bool
    """Whether it is to be looked at by itself."""


class Gains:
    """The gains of the steps of one plan, shared by all its runs."""

    __slots__ = (
        "_alone",
        "_apart",
        "_families",
        "_of_family",
        "_refused",
        "_several",
        "_since",
        "_single",
        "_tried",
        "_trial",
        "_trials",
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
        self._trial: dict[object, int] = {}
        """The step of which a trial is to be made, or is under way."""
        self._trials: dict[object, int] = {}
        """How many there have been."""
        self._tried: dict[object, tuple[int, ...]] = {}
        """The steps of the last of them."""
        self._since: dict[object, int] = {}
        """How many kernels have had several threads, and count, since one was alone with one."""
        self._refused: dict[object, int] = {}
        """How many kernels of an operator that gains nothing were started since the last trial."""
        self._apart: dict[object, int] = {}
        """After how many of these there is one."""

    def __repr__(self) -> str:
        return f"<Gains {sorted(self._of_family.values())}>"

    @property
    def some(self) -> bool:
        """Whether several threads are worth it for any operator, as far as is known."""
        return max(self._of_family.copy().values(), default=0.0) >= WORTH  # a copy: other lanes add to it meanwhile

    def took_one(self, step: int, seconds: float, *, alone: bool) -> None:
        """A step took so long with one BLAS thread; `alone`: no other kernel ran meanwhile."""
        _average(self._single, step, seconds)
        if alone:
            _average(self._alone, step, seconds)
            self._since[self._families[step]] = 0
            self._learn(step)

    def took_several(self, step: int, seconds: float, *, warm: bool, helped: bool = True) -> None:
        """A step took so long with several; `warm`: workers were awake as it began, `helped`: and when it was over."""
        family = self._families[step]
        if not helped:
            self._of_family.setdefault(family, 1.0)
        if warm or not helped:
            _average(self._several, step, seconds)
            self._since[family] = self._since.get(family, 0) + 1
            self._learn(step)

    def _learn(self, step: int) -> None:
        """One of its times is new."""
        if step not in self._alone or step not in self._several:
            return
        family = self._families[step]
        tried = self._tried.get(family, ())
        if self._trial.get(family) == step:
            self._trial.pop(family, None)
            self._trials[family] = self._trials.get(family, 0) + 1
            tried = self._tried[family] = (*(other for other in tried if other != step), step)[-STEPS:]
        if step in tried:
            gain = self._of_family[family] = median_low([self._alone[other] / self._several[other] for other in tried])
            if gain >= WORTH:
                self._apart.pop(family, None)

    def advice(self, step: int, *, lonely: bool) -> Advice:
        """As `expected`, about to start it; but if a trial is due, the gain is such that it is started as that needs.

        `lonely` is whether no other kernel is ready, as far as the caller knows.
        """
        family = self._families[step]
        single, gain = self.expected(step)
        if gain is not None and gain < WORTH:
            refused = self._refused[family] = self._refused.get(family, 0) + 1
            apart = self._apart.get(family, SOON)
            if refused >= apart and self._alone.get(step, inf) < LONG:
                self._refused[family], self._apart[family] = 0, min(2 * apart, PROBE)
                self._trial[family] = step
                return Advice(single, None, True)
            return Advice(single, gain, False)
        due = self._since.get(family, 0) >= RARELY or self._trials.get(family, 0) < TRIALS
        if due and lonely and self._several.get(step, inf) < LONG:
            self._trial[family] = step
            return Advice(single, 1.0, True)
        return Advice(single, gain, False)

    def expected(self, step: int) -> tuple[float | None, float | None]:
        """(seconds with one BLAS thread, gain); None for what is not known."""
        single, several, family = self._single.get(step), self._several.get(step), self._families[step]
        gain = self._of_family.get(family)
        if gain is None and self._since.get(family, 0) >= UNTRIED:
            gain = 1.0
        elif gain is not None and single is not None and several is not None:
            gain = min(gain, single / several)
        if step in self._alone:
            return self._alone[step], gain
        if several is not None and gain is not None:  # rather than what it took beside others, any number of them
            return several * gain, gain
        return single, gain


def _average(times: dict[int, float], step: int, seconds: float) -> None:
    """One more time of a step: less counts by half, more by a quarter.

    Not the least time at once, as for costs: two threads that a neighbour gets in the way of take as long as ever now
    and then, and twenty times as long otherwise.
    """
    known = times.get(step, seconds)
    times[step] = known + (min(seconds, RISE * known) - known) * (0.5 if seconds < known else 0.25)
