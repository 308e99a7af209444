"""A piece of the report: a heading, what was done, a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.tables import table

__all__ = ["Section"]


@dataclass(frozen=True)
class Section:
    """One table with its heading and the method, in a sentence or two."""

    title: str
    method: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    curves: tuple[Any, ...] = ()
    """What a plot shows of it: pairs of a kernel and the curves that were measured with it."""

    def __str__(self) -> str:
        return f"### {self.title}\n\n{self.method}\n\n{table(self.head, self.rows)}\n"
