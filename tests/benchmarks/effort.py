"""How much is measured: a whole run, a quick one, and the smallest that still does everything once."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "TINY", "Effort"]

US = 1e-6


@dataclass(frozen=True, slots=True)
class Effort:
    """Sizes and repeats of every section."""

    rounds: int
    nodes: int = 10_000
    threads: int = 2
    patterns: tuple[str, ...] = ("wide", "chain", "stencil_1d", "fft", "tree", "random_nearest")
    """Of the overhead, the whole list first."""
    metg_patterns: tuple[str, ...] = ("stencil_1d", "nearest", "fft", "tree", "trivial")
    kernel_sizes: tuple[float, ...] = ()
    """Seconds of a kernel, ascending."""
    serial_seconds: float = 0.04
    """Kernel time of one run from which granularity is read."""
    growth: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    lag_nodes: int = 10_000
    ready_nodes: int = 100_000
    runs: tuple[int, int] = (200, 500)
    """How many at once, and the nodes of each."""
    network_rounds: int = 15


def _sizes(first: float, last: float, per_octave: float) -> tuple[float, ...]:
    sizes = [first]
    while sizes[-1] * 2 ** (1 / per_octave) < last:
        sizes.append(sizes[-1] * 2 ** (1 / per_octave))
    return (*sizes, last)


FULL = Effort(rounds=7, kernel_sizes=_sizes(2 * US, 20_000 * US, 1))
QUICK = Effort(
    rounds=3,
    patterns=("wide", "chain", "stencil_1d", "tree"),
    metg_patterns=("stencil_1d", "tree"),
    kernel_sizes=(*_sizes(4 * US, 512 * US, 1), 20_000 * US),
    serial_seconds=0.012,
    growth=(1_000, 10_000, 100_000),
    lag_nodes=3_000,
    network_rounds=5,
)
TINY = Effort(
    rounds=1,
    nodes=160,
    patterns=("stencil_1d",),
    metg_patterns=("stencil_1d",),
    kernel_sizes=(5 * US, 50 * US),
    serial_seconds=0.001,
    growth=(100, 1_000),
    lag_nodes=100,
    ready_nodes=1_000,
    runs=(5, 20),
    network_rounds=1,
)
