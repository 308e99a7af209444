"""The order in which steps are worth starting: the critical path first, and few results alive at once.

A depth-first walk from the outputs that enters the deepest dependency first: the critical path gets the small numbers,
and what was begun is finished before anything else is opened, so few intermediates live at once.

        a ─▶ b ─▶ c ─┐                     a b c, then d, then e: with two threads d fills the second
                     ├─▶ e                 one from the start, and with one thread the long branch
        d ───────────┘                     goes first

Where the order of recording keeps fewer values alive than this walk (a stencil, swept row by row), it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

__all__ = ["priority_order"]

Dependencies = Sequence[Sequence[int]]
"""For each number, the numbers that it needs; inputs need nothing, and come first."""


def priority_order(steps: list[int], deps: Dependencies, inputs: int) -> list[int]:
    """The steps by priority; a topological order, as they are themselves. Numbers below `inputs` are no steps."""
    depth = [0] * len(deps)
    read = bytearray(len(deps))
    straight = True
    for step in steps:
        deepest = 0
        needed = deps[step]
        for dependency in needed:
            read[dependency] = 1
            if depth[dependency] > deepest:  # noqa: PLR1730  # four times as quick as max()
                deepest = depth[dependency]
        depth[step] = deepest + 1
        if len(needed) > 1:
            straight = False
    walked = _walk([step for step in steps if not read[step]], deps, depth, inputs)
    if straight or walked == steps or _peak(walked, deps, inputs) <= _peak(steps, deps, inputs):
        return walked
    return steps


def _walk(sinks: list[int], deps: Dependencies, depth: list[int], inputs: int) -> list[int]:
    walked: list[int] = []
    placed, opened = bytearray(b"\1" * inputs) + bytearray(len(deps) - inputs), bytearray(len(deps))
    for sink in sorted(sinks, key=depth.__getitem__, reverse=True):
        stack = [sink]
        while stack:
            step = stack[-1]
            if placed[step]:
                stack.pop()
            elif opened[step]:
                placed[step] = 1
                walked.append(step)
                stack.pop()
            else:
                opened[step] = 1
                below = [dependency for dependency in deps[step] if not placed[dependency]]
                if len(below) > 1:
                    below.reverse()  # of equals, the one recorded first ends on top
                    below.sort(key=depth.__getitem__)
                stack += below
    return walked


def _peak(order: list[int], deps: Dependencies, inputs: int) -> int:
    """How many results are alive at most when the steps run one after another in this order."""
    size = len(order)
    needed = [deps[step] for step in order]
    read = np.fromiter(chain.from_iterable(needed), np.intp)
    reader = np.repeat(np.arange(size), np.fromiter(map(len, needed), np.intp, size))
    last = np.full(len(deps), size)
    last[read] = reader  # of several readers, the last one counts: they come in order
    released = np.bincount(last[inputs:], minlength=size)[:size].cumsum()
    alive = np.arange(1, size + 1)
    alive[1:] -= released[:-1]
    return int(alive.max(initial=0))
