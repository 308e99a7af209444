"""What a pipeline would take on other numbers of threads: our own policy, played with the times that were measured.

Work is the time of all kernels, span that of the longest chain: no number of threads does better than either bound
allows, max(work / threads, span). The simulation adds what the engine itself takes between two kernels, as measured,
and so do the "burdened" figures of Cilkview (He, Leiserson, Leiserson: The Cilkview scalability analyzer, SPAA 2010),
whose idea this is.

Kernels are taken to release the interpreter's lock, as numpy's do. Those that hold it do not run beside each other, so
what is said of them here for several threads is too good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from dataflow.tools.spans import shown

__all__ = ["WhatIf", "simulated"]


@dataclass(frozen=True)
class WhatIf:
    """What one run would take, in seconds."""

    pipeline: str
    measured: float
    """The median of the recorded runs."""
    noise: float
    """Half of the interquartile range of the recorded runs; smaller differences mean nothing."""
    threads: int
    """On how many inter-op threads they were recorded."""
    runs: int
    seconds: dict[int, float]
    """By number of inter-op threads."""
    work: float
    span: float
    operators: dict[str, float]
    """How much less a run would take, on as many threads as were recorded, if this operator took half its time; of
    those that take most."""
    notes: tuple[str, ...] = ()
    """What was not played, so that the figures may be wrong."""

    def __str__(self) -> str:
        of = f"median of {self.runs} runs, ± {shown(self.noise)}" if self.runs > 1 else "one run"
        lines = [f"{self.pipeline}: measured {shown(self.measured)} on {self.threads} ({of})"]
        for threads, seconds in self.seconds.items():
            bound = max(self.work / threads, self.span)
            word = "thread " if threads == 1 else "threads"
            lines.append(f"  {threads:>3} {word}  {shown(seconds):>9}   no less than {shown(bound)}")
        gains = [(gain, name) for name, gain in self.operators.items() if gain > self.noise]
        for gain, name in sorted(gains, reverse=True)[:5]:
            lines.append(f"  half the time of {name} would save {shown(gain)}")
        if not gains:
            lines.append("  half the time of any one operator would save nothing beyond the noise")
        return "\n".join([*lines, *(f"  but {note}" for note in self.notes)])


def simulated(
    seconds: Mapping[int, float],
    successors: Sequence[Sequence[int]],
    before: Sequence[Sequence[int]],
    threads: int,
    on_loop: Callable[[int], bool],
    between: float,
) -> float:
    """How long steps of these lengths would take: the smallest number first, as our scheduler has it.

    What runs on the loop takes no thread; `between` are the seconds that a thread needs between two kernels.
    """
    missing = {step: sum(other in seconds for other in before[step]) for step in seconds}
    ready: list[int] = []
    under_way: list[tuple[float, int]] = []
    now, free = 0.0, threads

    def is_ready(step: int) -> None:
        if on_loop(step):
            heappush(under_way, (now + seconds[step], step))
        else:
            heappush(ready, step)

    for step, count in missing.items():
        if not count:
            is_ready(step)
    while ready or under_way:
        while ready and free:
            step = heappop(ready)
            heappush(under_way, (now + seconds[step] + between, step))
            free -= 1
        now, step = heappop(under_way)
        free += not on_loop(step)
        for follower in successors[step]:
            if follower in missing:
                missing[follower] -= 1
                if not missing[follower]:
                    is_ready(follower)
    return now
