"""Pictures in SVG: a graph in layers, and a profile as bars over time. Static; titles appear where the mouse rests.

A graph is laid out as Sugiyama, Tagawa and Toda have it (1981): each box one layer below the lowest that it needs, the
boxes of a layer in the order of the mean of their neighbours, and then as near to that mean as there is room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Final
from zlib import crc32

from dataflow.engine.runs.record import LOOP
from dataflow.graph.nodes import Graph
from dataflow.graph.text import in_one_line
from dataflow.tools.chrome import Rows
from dataflow.tools.graphs import Box, Drawing
from dataflow.tools.spans import ProfiledRun, Stretch, joined, name_of, scope_of, shown

__all__ = ["MOST_BOXES", "graph_svg", "timeline_svg"]

MOST_BOXES: Final = 400
"""Boxes of a picture; a graph that has more, its scopes folded, is shown as text alone."""
MOST_PLACES: Final = 10_000
"""The layers that all arrows pass together."""
_STYLE: Final = "font-family:ui-sans-serif,system-ui,sans-serif;font-size:12px"
_LETTER, _HEIGHT, _GAP, _LAYER = 7.0, 26.0, 18.0, 52.0
"""Widths and heights in pixels: of a letter, a box, between two, from layer to layer."""
_SWEEPS: Final = 6


def graph_svg(graph: Graph) -> str | None:
    """The graph from top to bottom; None if it has too many boxes."""
    drawing = Drawing(graph)
    boxes = drawing.boxes
    if len(boxes) > MOST_BOXES:
        return None
    row = _rows(drawing)
    if sum(abs(row[end] - row[start]) for start, end in drawing.arrows) > MOST_PLACES:
        return None
    layout = _Layout(drawing, row)
    left = min(layout.middle[key] - layout.width[key] / 2 for key in boxes) - 12
    right = max(layout.middle[key] + layout.width[key] / 2 for key in boxes) + 12

    def point(key: str) -> tuple[float, float]:
        return layout.middle[key] - left, layout.row[key] * _LAYER + 12

    parts = [_head(right - left, (max(layout.row.values()) + 1) * _LAYER + 4)]
    for (start, end), is_value in drawing.arrows.items():
        parts.append(_arrow([point(key) for key in layout.ways[start, end]], "" if is_value else _DOTTED))
    for key, box in boxes.items():
        x, y = point(key)
        round_ = 13 if box.kind in ("input", "output", "part") else 4
        dashes = ' stroke-dasharray="5 3"' if box.kind == "async" else ""
        parts.append(
            f"<g><title>{escape('/'.join([*box.scope, box.text]))}</title>"
            f'<rect x="{x - layout.width[key] / 2:.1f}" y="{y:.1f}" width="{layout.width[key]:.1f}" '
            f'height="{_HEIGHT}" rx="{round_}" fill="{_colour(box)}" stroke="#5b6577"{dashes}/>'
            f'<text x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle" fill="#1d2430">{escape(_words(box))}</text></g>'
        )
    return "".join([*parts, "</svg>"])


_DOTTED: Final = ' stroke-dasharray="2 3"'


def _arrow(points: Sequence[tuple[float, float]], dashes: str) -> str:
    """From the lower edge of the first box, beside the boxes of the layers between, to the upper edge of the last."""
    (x, y), *rest = points
    y += _HEIGHT
    path = f"M{x:.1f} {y:.1f}"
    for number, (to_x, to_y) in enumerate(rest, 1):
        last = number == len(rest)
        end = to_y - 4 if last else to_y
        bend = (end - y) / 2
        path += f"C{x:.1f} {y + bend:.1f} {to_x:.1f} {end - bend:.1f} {to_x:.1f} {end:.1f}"
        x, y = to_x, end
        if not last:
            y += _HEIGHT
            path += f"V{y:.1f}"
    return f'<path d="{path}" fill="none" stroke="#8a94a6" marker-end="url(#arrow)"{dashes}/>'


def _head(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}" style="background:#fff;{_STYLE}">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#8a94a6"/></marker></defs>'
    )


def _words(box: Box) -> str:
    return box.text if len(box.text) <= 40 else f"{box.text[:24]}…{box.text[-15:]}"


def _colour(box: Box) -> str:
    if box.kind in ("input", "output"):
        return "#eef1f6"
    name = box.scope[0] if box.scope else box.text.partition(":")[0] if box.kind == "scope" else ""
    return _tint(name) if name else "#f8f9fb"


def _tint(name: str) -> str:
    """A light colour that is the same for a name in every picture."""
    return f"hsl({crc32(name.encode(errors='replace')) % 360},65%,90%)"


class _Layout:
    """Where the boxes of a drawing are. An arrow over several layers has a place of its own in each between."""

    def __init__(self, drawing: Drawing, row: dict[str, int]) -> None:
        self.row = row
        self.width = {key: max(40.0, _LETTER * len(_words(box)) + 18.0) for key, box in drawing.boxes.items()}
        self.ways: dict[tuple[str, str], list[str]] = {}
        """For each arrow the boxes, and the places between, that it goes through."""
        self._near: dict[str, list[str]] = {key: [] for key in drawing.boxes}
        for number, (start, end) in enumerate(drawing.arrows):
            way = [start]
            for between in range(self.row[start] + 1, self.row[end]):
                place = f"{number}:{between}"
                self.row[place], self.width[place], self._near[place] = between, 6.0, []
                way.append(place)
            way.append(end)
            self.ways[start, end] = way
            for one, other in pairwise(way):
                self._near[one].append(other)
                self._near[other].append(one)
        self._layers: list[list[str]] = [[] for _ in range(max(self.row.values()) + 1)]
        for key, at in self.row.items():
            self._layers[at].append(key)
        self._sort()
        self.middle: dict[str, float] = {}
        self._put()

    def _sort(self) -> None:
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            place = {key: (number + 0.5) / len(layer) for layer in self._layers for number, key in enumerate(layer)}
            for layer in self._layers if down else self._layers[::-1]:
                wanted = {}
                for key in layer:
                    found = [place[other] for other in self._near[key] if (self.row[other] < self.row[key]) == down]
                    wanted[key] = sum(found) / len(found) if found else place[key]
                layer.sort(key=wanted.__getitem__)
                place.update({key: (at + 0.5) / len(layer) for at, key in enumerate(layer)})

    def _put(self) -> None:
        for layer in self._layers:
            at = -(sum(self.width[key] for key in layer) + _GAP * (len(layer) - 1)) / 2
            for key in layer:
                self.middle[key] = at + self.width[key] / 2
                at += self.width[key] + _GAP
        for sweep in range(_SWEEPS):
            for layer in self._layers if sweep % 2 == 0 else self._layers[::-1]:
                wanted = []
                for key in layer:
                    found = [self.middle[other] for other in self._near[key]]
                    wanted.append(sum(found) / len(found) if found else self.middle[key])
                _settle(layer, wanted, self.width, self.middle)


def _rows(drawing: Drawing) -> dict[str, int]:
    """The layer of each box."""
    before: dict[str, list[str]] = {}
    for start, end in drawing.arrows:
        before.setdefault(end, []).append(start)
    row: dict[str, int] = {}
    for key in drawing.boxes:  # in the order of the graph; arrows back, which folded scopes may have, do not count
        row[key] = max((row[other] + 1 for other in before.get(key, ()) if other in row), default=0)
    return row


def _settle(layer: Sequence[str], wanted: Sequence[float], width: dict[str, float], middle: dict[str, float]) -> None:
    """Put boxes as near as may be to where they are wanted, in their order: groups that touch move together."""
    groups: list[tuple[float, float, list[str]]] = []
    """The sum of where the left edges of the group are wanted, its length, and its boxes."""
    for key, at in zip(layer, wanted, strict=True):
        total, length, keys = at - width[key] / 2, width[key] + _GAP, [key]
        while groups and groups[-1][0] / len(groups[-1][2]) + groups[-1][1] > total / len(keys):
            before = groups.pop()
            total = before[0] + total - len(keys) * before[1]
            length, keys = before[1] + length, before[2] + keys
        groups.append((total, length, keys))
    for total, _, keys in groups:
        at = total / len(keys)
        for key in keys:
            middle[key] = at + width[key] / 2
            at += width[key] + _GAP


# ------------------------------------------------------------------------------------------------ a profile


_WIDTH, _ROW, _MARGIN = 960.0, 22.0, 90.0
"""Pixels: of the whole, from row to row, and to the left of the bars."""


def timeline_svg(runs: Sequence[ProfiledRun]) -> str:
    """Threads as rows, kernels as bars with their names where there is room; of outer runs."""
    if not runs:
        return f'{_head(320, 40)}<text x="12" y="24">no run was recorded</text></svg>'
    zero, end = min(run.began for run in runs), max(run.ended for run in runs)
    scale = (_WIDTH - _MARGIN - 12) / max(end - zero, 1e-9)
    bars = sorted(_bars(runs, 1 / scale))
    rows = list(dict.fromkeys(row for row, *_ in bars))
    height = len(rows) * _ROW + 54
    parts = [_head(_WIDTH, height)]
    for place, row in enumerate(rows):
        kind, number = row
        name = f"{'thread' if kind == 0 else 'loop'} {number + 1}"
        parts.append(f'<text x="8" y="{place * _ROW + 25:.0f}" fill="#1d2430">{name}</text>')
    for row, began, ended, name, scope, told in bars:
        x, wide = _MARGIN + (began - zero) * scale, max((ended - began) * scale, 0.5)
        y = rows.index(row) * _ROW + 10
        parts.append(
            f"<g><title>{escape(told)}</title>"
            f'<rect x="{x:.2f}" y="{y:.0f}" width="{wide:.2f}" height="18" fill="{_tint(scope or name)}" '
            'stroke="#5b6577" stroke-width="0.5"/>'
        )
        room = int(wide / _LETTER)
        if room >= min(len(name), 4):
            text = name if len(name) <= room else f"{name[: room - 1]}…"
            parts.append(f'<text x="{x + 3:.2f}" y="{y + 13:.0f}" fill="#1d2430">{escape(text)}</text>')
        parts.append("</g>")
    bottom = len(rows) * _ROW + 18
    for tick in range(6):
        moment = (end - zero) * tick / 5
        x = _MARGIN + moment * scale
        anchor = "end" if tick == 5 else "start" if not tick else "middle"
        parts.append(f'<path d="M{x:.1f} 6V{bottom}" stroke="#d5dae3" stroke-width="0.5"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="{anchor}" fill="#5b6577">{shown(moment)}</text>'
        )
    return "".join([*parts, "</svg>"])


_Bar = tuple[tuple[int, int], float, float, str, str, str]
"""The row (a thread or the loop, and which), began, ended, name, scope, and what its title says."""


def _bars(runs: Sequence[ProfiledRun], pixel: float) -> Iterable[_Bar]:
    """One for each step; of those that are narrower than a pixel, one for those that meet."""
    threads: dict[int, int] = {}
    loop = Rows()
    narrow: dict[tuple[int, int], list[Stretch]] = {}
    steps = [(step.began, step, run) for run in runs for step in run.steps.values()]
    steps.sort(key=lambda each: each[0])
    for _, step, run in steps:
        node = run.plan.nodes[step.number]
        if step.thread == LOOP:
            row = 1, loop.row(step.began, step.ended)
        else:
            row = 0, threads.setdefault(step.thread, len(threads))
        if step.ended - step.began < pixel:
            narrow.setdefault(row, []).append((step.began, step.ended + pixel / 4))
            continue
        scope, name = scope_of(node, run.plan), name_of(node, run.plan)
        where = f"{scope}/{name}" if scope else name
        told = f"{where}: {shown(step.seconds)}, waited {shown(step.wait)}"
        told = f"{told}, node {node.number} of {in_one_line(run.pipeline)}"
        yield row, step.began, step.ended, name, scope.partition("/")[0], told
    for row, stretches in narrow.items():
        for began, ended in joined(stretches):
            yield row, began, ended, "…", "", "kernels that are too short to be drawn"
