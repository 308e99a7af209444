"""`flow.mermaid` and `flow.dot`."""

from __future__ import annotations

import re
from typing import Any

import pytest

import dataflow as flow


@flow.op
def blur(image: Any, sigma: float = 1, text: str = "") -> Any:
    return image


@flow.op
async def fetch(n: Any) -> Any:
    return n


@flow.pipeline
def p(x: Any, y: Any) -> Any:
    fetched = fetch(x)
    with flow.scope("front"):
        a = blur(fetched, 4)
        with flow.scope("deep"):
            b = flow.label(blur(a, y), "named")
    with flow.after(a):
        c = blur(y, text='<"&#`\n')
    return {"b": b, "again": b, "part": c[0]}


def test_mermaid() -> None:
    assert flow.mermaid(p) == flow.mermaid(p.graph())
    lines = flow.mermaid(p).splitlines()
    assert lines[0] == "flowchart TD"
    boxes = {line.strip() for line in lines if "[" in line or "(" in line}
    assert {
        'n0(["x"])',
        'n1(["y"])',
        'n2[/"fetch"/]',
        'n3["blur(sigma=4)"]',
        'n4["named"]',
        'out(["returns"])',
    } <= boxes
    assert {'subgraph g1["front"]', 'subgraph g2["deep"]', 'n6("getitem(=0)")'} <= boxes
    arrows = [line.strip() for line in lines if ">" in line]
    assert arrows == [
        "n0 --> n2",
        "n2 --> n3",
        "n3 --> n4",
        "n1 --> n4",
        "n1 --> n5",
        "n3 -.-> n5",
        "n5 --> n6",
        "n4 --> out",
        "n6 --> out",
    ]
    (odd,) = [line for line in lines if line.strip().startswith("n5[")]
    assert odd.strip() == "n5[\"blur(text='#60;#34;#38;#35;'\\n')\"]"
    assert sum(line.strip() == "end" for line in lines) == 2


def test_dot() -> None:
    text = flow.dot(p)
    assert text == flow.dot(p.graph())
    assert text.startswith('digraph "p" {\n')
    assert text.endswith("}\n")
    assert text.count("{") == text.count("}")
    assert 'n2 [label="fetch" shape=parallelogram];' in text
    assert "n3 -> n5 [style=dotted];" in text
    assert "subgraph cluster_2 {" in text
    for label in re.findall(r"label=(\".*?[^\\]\")", text):
        assert label.count('"') - label.count('\\"') == 2


@pytest.mark.parametrize("draw", [flow.mermaid, flow.dot])
def test_scopes_of_large_graphs_are_folded(draw: Any) -> None:
    @flow.pipeline
    def large(x: Any) -> Any:
        for block in range(2):
            with flow.scope(f"block{block}"):
                for _ in range(200):
                    x = blur(x)
        return blur(x, 2)

    text = draw(large)
    assert "block0: 200 nodes" in text
    assert "block1: 200 nodes" in text
    assert len(text.splitlines()) < 20
    assert [re.sub(r"[-;>\s]+", " ", line).strip() for line in text.splitlines() if "->" in line or "-->" in line] == [
        "n0 s0",
        "s0 s1",
        "s1 n401",
        "n401 out",
    ]


@pytest.mark.parametrize("draw", [flow.mermaid, flow.dot])
def test_anything_else(draw: Any) -> None:
    with pytest.raises(TypeError, match=rf"flow\.{draw.__name__} draws a pipeline, or a graph .* not int"):
        draw(3)
