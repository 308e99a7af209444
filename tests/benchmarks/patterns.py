"""Dependence patterns: those of Task Bench (Slaughter et al., "Task Bench", SC20), and three of our own.

A pattern is a list of tasks in topological order; each task is the tuple of the tasks that it depends on. Those of Task
Bench are rows of `width` points; point p of a row reads points of the row above, as its generator `core/core.cc` has it
(D is the number of rows after which a pattern repeats, 3 unless the pattern says otherwise; the radix is 5):

    trivial         nothing                        nearest         p-2 … p+2
    no_comm         p                              spread          p, and i·width/5 + (row mod D) further on, i = 1 … 4
    stencil_1d      p-1, p, p+1                    random_nearest  p, and each of p-2 … p+2 with probability 1/4
    fft             p-2^d, p, p+2^d, D = log2(width) and d = (row-1) mod D
    dom             p-1, p; rows grow by one point up to `width`, and shrink by one at the end (a sweep)
    tree            p//2; rows double from one point up to `width` (fans out; half of a full row is read by nobody)

Ours: `wide` is one row, `chain` one column, `reduction` a binary tree of pairs, recorded level by level.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import cache

__all__ = ["PATTERNS", "TASK_BENCH", "WIDTH", "Tasks", "make_tasks", "sinks"]

Tasks = list[tuple[int, ...]]

WIDTH = 16
RADIX = 5
PERIOD = 3
FRACTION = 0.25

Above = Callable[[int, int, int], Iterable[int]]
"""(row, point, width) -> the points of the row above that it reads; those outside that row are left out."""
Span = Callable[[int, int, int], range]
"""(row, rows, width) -> the points of a row."""


def make_tasks(pattern: str, size: int, width: int = WIDTH) -> Tasks:
    """About `size` tasks of this pattern; `width` is the greatest number of points in a row.

    >>> make_tasks("stencil_1d", 6, width=3)
    [(), (), (), (0, 1), (0, 1, 2), (1, 2)]
    """
    if pattern in TASK_BENCH:
        return _rows(size, width, *TASK_BENCH[pattern])
    return _OWN[pattern](size)


def sinks(tasks: Tasks) -> list[int]:
    """The tasks that no other reads.

    >>> sinks([(), (0,), (0,)])
    [1, 2]
    """
    read = {dependency for task in tasks for dependency in task}
    return [task for task in range(len(tasks)) if task not in read]


def _rows(size: int, width: int, above: Above, span: Span) -> Tasks:
    tasks: Tasks = []
    rows = _height(size, width, span)
    first, points = 0, range(0)
    for row in range(rows):
        start, before = len(tasks), points
        points = span(row, rows, width)
        for point in points:
            reads = [p for p in above(row, point, width) if p in before] if row else []
            tasks.append(tuple(first + p - before.start for p in reads))
        first = start
    return tasks


def _height(size: int, width: int, span: Span) -> int:
    """The number of rows that hold `size` points; rows that grow and shrink hold fewer."""
    rows = max(1, size // width)
    while rows < size and sum(len(span(row, rows, width)) for row in range(rows)) < size - width // 2:
        rows += 1
    return rows


def _full(row: int, rows: int, width: int) -> range:
    return range(width)


def _diamond(row: int, rows: int, width: int) -> range:
    start = max(0, row + width - rows)
    return range(start, start + min(width, row + 1, rows - row))


def _doubling(row: int, rows: int, width: int) -> range:
    return range(min(width, 1 << min(row, 30)))


def _fft(row: int, point: int, width: int) -> list[int]:
    reach = 1 << ((row - 1) % max(1, (width - 1).bit_length()))
    return [point - reach, point, point + reach]


def _nearest(row: int, point: int, width: int) -> range:
    return range(point - RADIX // 2, point + (RADIX + 1) // 2)


def _spread(row: int, point: int, width: int) -> list[int]:
    shifts = [i * width // RADIX + (row % PERIOD if i else 0) for i in range(RADIX)]
    return list(dict.fromkeys((point + shift) % width for shift in shifts))  # a narrow row wraps around


def _random_nearest(row: int, point: int, width: int) -> list[int]:
    return [p for p in _nearest(row, point, width) if p == point or _draw(row % PERIOD, p, point) < FRACTION]


@cache
def _draw(row: int, reads: int, point: int) -> float:
    return random.Random(f"{row} {reads} {point}").random()


TASK_BENCH: dict[str, tuple[Above, Span]] = {
    "trivial": (lambda row, point, width: (), _full),
    "no_comm": (lambda row, point, width: (point,), _full),
    "stencil_1d": (lambda row, point, width: (point - 1, point, point + 1), _full),
    "dom": (lambda row, point, width: (point - 1, point), _diamond),
    "tree": (lambda row, point, width: (point // 2,), _doubling),
    "fft": (_fft, _full),
    "nearest": (_nearest, _full),
    "spread": (_spread, _full),
    "random_nearest": (_random_nearest, _full),
}


def _wide(size: int) -> Tasks:
    return [()] * size


def _chain(size: int) -> Tasks:
    return [(task - 1,) if task else () for task in range(size)]


def _reduction(size: int) -> Tasks:
    leaves = (size + 1) // 2
    tasks: Tasks = [()] * leaves
    level = list(range(leaves))
    while len(level) > 1:
        above = range(len(tasks), len(tasks) + len(level) // 2)
        tasks += zip(level[::2], level[1::2])
        level = [*above, *level[2 * len(above) :]]
    return tasks


_OWN: dict[str, Callable[[int], Tasks]] = {"wide": _wide, "chain": _chain, "reduction": _reduction}
PATTERNS = ["wide", "chain", "reduction", *TASK_BENCH]
