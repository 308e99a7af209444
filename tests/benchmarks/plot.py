"""Efficiency against granularity, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.benchmarks.measures.metg import Curve

__all__ = ["plot"]

SHARES = (50, 75, 90)


def plot(kinds: Sequence[tuple[str, Sequence[Curve]]], note: str, path: Path, pattern: str = "stencil_1d") -> None:
    """Draw the curves of one pattern into `path`, a plot for each kind of kernel, with the note below.

    Needs matplotlib; no window system is used.
    """
    from matplotlib.figure import Figure  # without pyplot there is no global state to leave behind

    figure = Figure(figsize=(7 * len(kinds), 5.5), layout="constrained")
    for axes, (kernel, curves) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds):
        for curve in curves:
            if curve is curves[0] or curve.pattern == pattern:
                _draw(axes, curve, limit=curve is curves[0])
        for share in SHARES:
            axes.axhline(share, color="grey", linewidth=0.5)
        axes.set(xscale="log", ylim=(0, 105))
        axes.set(xlabel="mean granularity: µs of a thread per task", ylabel="% of the ideal")
        axes.set_title(f"{pattern}, kernels of {kernel}", fontsize=10)
        axes.legend(fontsize=7, loc="lower right")
    figure.supxlabel(note, fontsize=6)
    figure.savefig(path, dpi=120)


def _draw(axes: Any, curve: Curve, *, limit: bool) -> None:
    points = sorted(curve.points, key=lambda point: point.granularity)
    axes.plot(
        [point.granularity * 1e6 for point in points],
        [point.efficiency * 100 for point in points],
        label=f"{curve.adapter}, no dependencies" if limit else curve.adapter,
        linewidth=3 if curve.adapter == "dataflow" else 1.2,
        linestyle="--" if limit else "-",
        marker="" if limit else ".",
    )
