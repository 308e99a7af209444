"""The sections of the report: each measures what one question of the performance goals asks, and gives its tables."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from tests.benchmarks.build import build
from tests.benchmarks.effort import Effort
from tests.benchmarks.fair import fair
from tests.benchmarks.lag import lag
from tests.benchmarks.latency import latency
from tests.benchmarks.memory import memory
from tests.benchmarks.metg import metg
from tests.benchmarks.network import network
from tests.benchmarks.overhead import overhead

__all__ = ["SECTIONS", "Section"]

Section = Callable[[Effort], Coroutine[Any, Any, str]]

SECTIONS: dict[str, Section] = {
    "overhead": overhead,
    "metg": metg,
    "latency": latency,
    "lag": lag,
    "build": build,
    "memory": memory,
    "fair": fair,
    "network": network,
}
