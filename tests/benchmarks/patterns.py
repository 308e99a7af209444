"""Dependence patterns of Task Bench (Slaughter et al., "Task Bench: A Parameterized Benchmark", SC20), and our own.

A pattern is a list of tasks in topological order; each task is the tuple of the tasks that it depends on.
"""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["PATTERNS", "Tasks", "make_tasks"]

Tasks = list[tuple[int, ...]]

WIDTH = 16


def make_tasks(pattern: str, size: int) -> Tasks:
    """About `size` tasks of this pattern."""
    if pattern == "wide":
        return [()] * size
    if pattern == "chain":
        return [(task - 1,) if task else () for task in range(size)]
    if pattern == "tree":
        return _tree(size)
    return _rows(PATTERNS[pattern], size)


def _tree(size: int) -> Tasks:
    """A reduction of pairs, recorded level by level."""
    leaves = (size + 1) // 2
    tasks: Tasks = [()] * leaves
    level = list(range(leaves))
    while len(level) > 1:
        above = []
        for left in range(0, len(level) - 1, 2):
            above.append(len(tasks))
            tasks.append((level[left], level[left + 1]))
        level = above + level[len(above) * 2 :]
    return tasks


Above = Callable[[int, int], list[int]]
"""(level, column) -> the columns of the row above that it depends on."""


def _rows(above: Above | None, size: int) -> Tasks:
    tasks: Tasks = []
    for level in range(max(1, size // WIDTH)):
        for column in range(WIDTH):
            columns = above(level, column) if level and above is not None else []
            tasks.append(tuple((level - 1) * WIDTH + c for c in columns if 0 <= c < WIDTH))
    return tasks


def _stencil(_: int, column: int) -> list[int]:
    return [column - 1, column, column + 1]


def _no_comm(_: int, column: int) -> list[int]:
    return [column]


def _fft(level: int, column: int) -> list[int]:
    reach = 1 << ((level - 1) % (WIDTH.bit_length() - 1))
    return sorted({column, column ^ reach})


def _dom(_: int, column: int) -> list[int]:
    return [column - 1, column]


def _nearest(_: int, column: int) -> list[int]:
    return list(range(column - 2, column + 3))


def _spread(level: int, column: int) -> list[int]:
    return sorted({(column + level + i * WIDTH // 3) % WIDTH for i in range(3)})


def _random_nearest(level: int, column: int) -> list[int]:
    rng = random.Random(level * WIDTH + column)
    return [c for c in range(column - 2, column + 3) if rng.random() < 0.5]


PATTERNS: dict[str, Above | None] = {
    "wide": None,
    "chain": None,
    "stencil_1d": _stencil,
    "fft": _fft,
    "tree": None,
    "random_nearest": _random_nearest,
    "trivial": None,
    "no_comm": _no_comm,
    "dom": _dom,
    "nearest": _nearest,
    "spread": _spread,
}
