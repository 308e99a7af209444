"""Pictures of graphs and profiles, and what notebooks are given."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import dataflow as flow
from dataflow.tools.graphs import Drawing
from dataflow.tools.svg import MOST_BOXES, _Layout, _rows, graph_svg, timeline_svg

SVG = "{http://www.w3.org/2000/svg}"


@flow.op
def blur(image: Any, sigma: float = 1) -> Any:
    return image


@flow.op
def add(*images: Any) -> Any:
    return sum(images)


@flow.op
async def fetch(n: Any) -> Any:
    return n


@flow.pipeline
def p(x: Any) -> Any:
    fetched = fetch(x)
    with flow.scope("details & more"):
        fine, coarse = blur(fetched), blur(blur(blur(fetched, 4)))
    return flow.label(add(fine, coarse, fetched), "<sum>")


def boxes(picture: str) -> list[tuple[float, float, float, float, str]]:
    """Left, top, right, bottom, and the words of each."""
    found = []
    for group in ElementTree.fromstring(picture).iter(f"{SVG}g"):
        rect, text = group.find(f"{SVG}rect"), group.find(f"{SVG}text")
        assert rect is not None
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        found.append((x, y, x + width, y + height, text.text or "" if text is not None else ""))
    return found


def test_a_graph() -> None:
    picture = graph_svg(p.graph())
    assert picture is not None
    found = boxes(picture)
    assert sorted(words for *_, words in found) == [
        "<sum>",
        "blur",
        "blur",
        "blur",
        "blur(sigma=4)",
        "fetch",
        "returns",
        "x",
    ]
    root = ElementTree.fromstring(picture)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(left >= 0 and right <= width + 1 and bottom <= height + 1 for left, _, right, bottom, _ in found)
    for one, other in itertools.combinations(found, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)
    titles = {each.text for each in root.iter(f"{SVG}title")}
    assert "details & more/blur(sigma=4)" in titles
    assert len([each for each in root.iter(f"{SVG}path") if "marker-end" in each.attrib]) == 9


def test_arrows_go_down_and_beside_boxes() -> None:
    drawing = Drawing(p.graph())
    layout = _Layout(drawing, _rows(drawing))
    for (start, end), way in layout.ways.items():
        assert [layout.row[key] for key in way] == list(range(layout.row[start], layout.row[end] + 1))
    for row in set(layout.row.values()):
        keys = sorted((key for key in layout.row if layout.row[key] == row), key=layout.middle.__getitem__)
        for left, right in itertools.pairwise(keys):
            assert layout.middle[left] + layout.width[left] / 2 < layout.middle[right] - layout.width[right] / 2


def test_the_same_graph_gives_the_same_picture() -> None:
    assert graph_svg(p.graph()) == graph_svg(p.graph())


def test_very_large_graphs_are_left_to_the_text() -> None:
    @flow.pipeline
    def large(x: Any) -> Any:
        for _ in range(MOST_BOXES + 1):
            x = blur(x)
        return x

    assert graph_svg(large.graph()) is None
    assert list(large.graph()._repr_mimebundle_()) == ["text/plain"]  # type: ignore[attr-defined]

    @flow.pipeline
    def dense(x: Any) -> Any:
        made = [x]
        for _ in range(100):
            made.append(add(*made))
        return made[-1]

    assert graph_svg(dense.graph()) is None


def test_a_timeline(tmp_path: Path) -> None:
    with flow.profile() as prof:
        p.run(1)
        p.run(2)
    picture = timeline_svg(prof.outer)
    found = boxes(picture)
    assert 2 * 6 >= len(found) > 0
    root = ElementTree.fromstring(picture)
    names = [each.text for each in root.iter(f"{SVG}text")]
    assert "thread 1" in names
    assert "loop 1" in names
    prof.save(tmp_path / "run.svg")
    assert (tmp_path / "run.svg").read_text(encoding="utf-8") == picture
    assert "no run was recorded" in timeline_svg([])


def test_notebooks() -> None:
    with flow.profile() as prof:
        p.run(1)
    for thing in (p, p.graph(), prof):
        bundle = thing._repr_mimebundle_(include=None, exclude=None)
        assert bundle["image/svg+xml"].startswith("<svg ")
        ElementTree.fromstring(bundle["image/svg+xml"])
    assert p.graph()._repr_mimebundle_()["text/plain"] == str(p.graph())
    needs = flow.pipeline(lambda x, n: [blur(x) for _ in range(n)], static=("n",))
    assert needs._repr_mimebundle_() == {"text/plain": repr(needs)}


@pytest.mark.parametrize("count", [0, 1])
def test_small_ones(count: int) -> None:
    @flow.pipeline
    def small(x: Any) -> Any:
        for _ in range(count):
            x = blur(x)
        return x

    picture = graph_svg(small.graph())
    assert picture is not None
    assert len(boxes(picture)) == 2 + count


def test_names_of_odd_characters() -> None:
    @flow.pipeline
    def odd(x: Any) -> Any:
        with flow.scope("a\x01\ud800b"):
            return flow.label(blur(x), "c\x02\ud801")

    picture = graph_svg(odd.graph())
    assert picture is not None
    ElementTree.fromstring(picture)
    with flow.profile() as prof:
        odd.run(1)
    ElementTree.fromstring(timeline_svg(prof.outer))
    assert str(prof).isascii() or "\x01" not in str(prof)


def test_a_body_that_fails_is_shown_as_text() -> None:
    def body(x: Any) -> Any:
        raise KeyError(x)

    assert list(flow.pipeline(body)._repr_mimebundle_()) == ["text/plain"]  # type: ignore[attr-defined]
