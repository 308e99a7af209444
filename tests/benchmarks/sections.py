"""The sections of the report: each measures what one question of the performance goals asks, and gives its table."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from tests.benchmarks.effort import Effort
from tests.benchmarks.overhead import overhead

__all__ = ["SECTIONS", "Section"]

Section = Callable[[Effort], Coroutine[Any, Any, str]]

SECTIONS: dict[str, Section] = {
    "overhead": overhead,
}
