"""The ways of running a pattern's tasks: the limit, ours, those written by hand, those of other packages."""

from __future__ import annotations

from tests.benchmarks.adapters.adapter import Adapter, Prepared
from tests.benchmarks.adapters.bare import BARE
from tests.benchmarks.adapters.dask_threaded import DASK
from tests.benchmarks.adapters.hand_written import BY_HAND
from tests.benchmarks.adapters.ours import OURS, OURS_ALONE

__all__ = ["ADAPTERS", "BARE", "OURS", "Adapter", "Prepared", "installed", "left_out"]

ADAPTERS: list[Adapter] = [BARE, OURS, OURS_ALONE, *BY_HAND, DASK]


def installed() -> list[Adapter]:
    """Those whose package is there."""
    return [adapter for adapter in ADAPTERS if adapter.installed]


def left_out() -> str:
    """A line on those whose package is not there, or nothing."""
    missing = [f"{adapter.name} ({adapter.package})" for adapter in ADAPTERS if not adapter.installed]
    return f"left out, not installed: {', '.join(missing)}" if missing else ""
