"""`flow.tune`: which numbers of threads a pipeline is quickest on, by trying them.

Settings take turns, so that what else the machine does meets all alike; those that are clearly slower drop out after
some rounds, and the time goes to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from time import perf_counter
from typing import Any, Final, SupportsIndex

import numpy as np

from dataflow.engine.runs.loop import loop_runs_here
from dataflow.frontend.pipeline import Pipeline
from dataflow.threads import cpus
from dataflow.threads.settings import get_num_interop_threads, threads
from dataflow.tools.spans import shown

__all__ = ["Setting", "Tuning", "tune"]

ROUNDS: Final = 3
"""Rounds in which all settings take part, whatever the budget; besides a first one, which does not count."""
SLOWER: Final = 1.25
"""A setting whose quickest run took so many times the median of the best drops out."""
LEAST: Final = 0.03
"""A gain below this share is none, however sure it is."""


@dataclass(frozen=True)
class Setting:
    """What runs took on these numbers of threads."""

    interop: int
    intraop: int | None
    """None: as it was, which is adaptive if nobody has set it."""
    seconds: float
    """The median."""
    spread: float
    """Half of the interquartile range, in seconds."""
    runs: int

    def __str__(self) -> str:
        return f"{self.interop} × {'as it is' if self.intraop is None else self.intraop}"


@dataclass(frozen=True)
class Tuning:
    """All settings that were tried, the quickest first."""

    pipeline: str
    settings: tuple[Setting, ...]
    current: Setting
    """The one that holds, before and after."""

    @property
    def best(self) -> Setting:
        """The quickest; the current one, unless another is quicker by more than noise."""
        quickest = self.settings[0]
        gain = self.current.seconds - quickest.seconds
        noise = max(self.current.spread, quickest.spread, LEAST * self.current.seconds)
        return quickest if gain > noise else self.current

    def __str__(self) -> str:
        lines = [f"{self.pipeline}: inter-op × intra-op threads, seconds of a run", ""]
        for each in self.settings:
            marks = " (now)" if each is self.current else ""
            spread = shown(each.spread) if each.runs > 1 else "?"
            lines.append(f"  {each!s:<14} {shown(each.seconds):>10} ± {spread:<9} {each.runs:>4} runs{marks}")
        lines.append("")
        if self.best is self.current:
            lines.append("no other setting is quicker than the present one by more than noise")
        else:
            saved = 1 - self.best.seconds / self.current.seconds
            lines.append(f"best: {self.best}, which takes {saved:.0%} less than the present setting")
        return "\n".join(lines)


def tune(
    pipeline: Pipeline[..., Any],
    /,
    *args: Any,
    budget: float = 5.0,
    interop: Iterable[SupportsIndex] | None = None,
    intraop: Iterable[SupportsIndex | None] | None = None,
    **kwargs: Any,
) -> Tuning:
    """Run a pipeline on these arguments with different numbers of threads; blocks for about `budget` seconds.

    By default, of inter-op threads are tried 1, 2, 4, … up to twice the CPUs that this process may use, and the present
    number; of intra-op threads what is set now (None) and, within the CPUs, 1. The settings are put back at the end,
    also after failures. What a run raises, this raises. At least four rounds are made, however long they take; the
    first does not count. A pipeline whose own parameters are named `budget`, `interop` or `intraop` takes these by
    position, or by `p.bind`.

    For a script, on a machine that does nothing else. RuntimeError where an event loop runs, as in the cells of a
    notebook: there, call it in a thread. Numbers above the CPUs help kernels that wait.
    """
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"flow.tune takes a pipeline and its arguments, not {type(pipeline).__name__}")
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise TypeError(f"budget= of flow.tune is a number of seconds, not {type(budget).__name__}")
    if not budget > 0:
        raise ValueError(f"budget= of flow.tune must be above 0, not {budget}")
    if loop_runs_here():
        instead = "await asyncio.to_thread(flow.tune, p, …)"
        raise RuntimeError(f"flow.tune would block the event loop that runs here: {instead}")
    now = get_num_interop_threads(), None
    tried = _settings(now, interop, intraop)
    until = perf_counter() + budget
    took: dict[tuple[int, int | None], list[float]] = {setting: [] for setting in tried}
    pipeline.run(*args, **kwargs)  # traces
    alive, rounds = list(tried), 0
    while rounds <= ROUNDS or perf_counter() < until:
        for setting in alive[rounds % len(alive) :] + alive[: rounds % len(alive)]:
            inter, intra = setting
            with threads(interop=inter) if intra is None else threads(interop=inter, intraop=intra):
                began = perf_counter()
                pipeline.run(*args, **kwargs)
                took[setting].append(perf_counter() - began)
            if rounds > ROUNDS and perf_counter() > until:
                break
        rounds += 1
        if rounds == 1:
            took = {setting: [] for setting in tried}  # the first runs made threads, and found what is light
        if rounds > ROUNDS:
            best = min(float(np.median(took[setting])) for setting in alive)
            alive = [setting for setting in alive if setting == now or min(took[setting]) <= SLOWER * best]
    made = {setting: _made(setting, seconds) for setting, seconds in took.items()}
    return Tuning(pipeline.name, tuple(sorted(made.values(), key=lambda each: each.seconds)), made[now])


def _settings(
    now: tuple[int, None],
    interop: Iterable[SupportsIndex] | None,
    intraop: Iterable[SupportsIndex | None] | None,
) -> list[tuple[int, int | None]]:
    usable = cpus.usable()
    inter = [_count(each, "interop") for each in interop] if interop is not None else _powers(2 * usable)
    found: dict[tuple[int, int | None], None] = {now: None}
    for number in inter:
        given: Sequence[int | None]
        if intraop is None:
            given = [None, 1] if number <= usable else [None]
        else:
            given = [None if each is None else _count(each, "intraop") for each in intraop]
        found.update(dict.fromkeys((number, each) for each in given))
    return list(found)


def _powers(most: int) -> list[int]:
    return [*(1 << each for each in range(most.bit_length()) if 1 << each <= most)]


def _count(number: SupportsIndex, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, SupportsIndex):
        raise TypeError(f"{name}= of flow.tune takes numbers of threads, not {type(number).__name__}")
    if index(number) < 1:
        raise ValueError(f"{name}= of flow.tune takes numbers of at least 1, not {number}")
    return index(number)


def _made(setting: tuple[int, int | None], seconds: list[float]) -> Setting:
    low, middle, high = (float(each) for each in np.percentile(seconds, (25, 50, 75)))
    return Setting(*setting, middle, (high - low) / 2, len(seconds))
