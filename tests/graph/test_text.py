"""A graph as text: constants with the names of their parameters, values as numbers; large ones are folded."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.text import argument


@flow.op
def blur(image: Any, sigma: float = 1, mode: str = "wrap") -> Any:
    return image


@dataclass
class Config:
    size: int
    name: str = "a"


class Pair(NamedTuple):
    left: Any
    right: Any


def lines(body: Any) -> list[str]:
    return [line.strip() for line in str(flow.pipeline(body).graph()).splitlines()]


def test_calls_with_their_constants() -> None:
    weights = np.ones((3, 3))

    def body(x: Any, y: Any) -> Any:
        z = blur(x, 4)
        z = blur(z, y, mode="edge")
        z = np.maximum(z, 0) @ weights
        return {"z": z, "first": blur([z, {"k": x}], mode="a")[0]}

    assert lines(body)[1:] == [
        "0  input x",
        "1  input y",
        "2  blur(0, sigma=4)",
        "3  blur(2, 1, mode='edge')",
        "4  maximum(3, =0)",
        "5  matmul(4, =float64[3, 3])",
        "6  blur([5, {'k': 0}], mode='a')",
        "7  getitem(6, =0)",
        "returns {'z': 5, 'first': 7}",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.5"),
        (np.float32(3), "3.0"),
        (None, "None"),
        (slice(1, None), "slice(1, None, None)"),
        ("x" * 100, f"'{'x' * 21}…'"),
        (b"ab", "b'ab'"),
        (np.zeros((2, 3), np.int8), "int8[2, 3]"),
        (np.zeros(()), "float64[]"),
        ([1, [2, (3,)]], "[1, [2, (3,)]]"),
        (list(range(10)), "[0, 1, 2, 3, …]"),
        ([[[[[1]]]]], "[[[[…]]]]"),
        ({"a": 1}, "{'a': 1}"),
        (["(1, )"], "['(1, )']"),
        ((), "()"),
        (Config(3), "Config(size=3, name='a')"),
        (Pair(1, 2), "Pair(1, 2)"),
        (deque([1]), "deque(1)"),
        (np.sin, "sin"),
        (len, "len"),
        (partial(len), "<partial>"),
        ("a\nb", "'a\\nb'"),
        (int, "int"),
        (blur, "blur"),
        (object(), "<object>"),
    ],
)
def test_an_argument(value: Any, text: str) -> None:
    assert argument(value) == text


class Raises(int):
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __hash__ = __repr__  # type: ignore[assignment]


@dataclass
class Unhashable:
    factor: int

    def __call__(self, x: Any, by: int) -> Any:
        return x


def test_showing_a_graph_never_raises() -> None:
    op = flow.op(Unhashable(1), name="a\nb")
    assert argument(Raises()) == "<Raises>"
    assert argument(10**5000) == "<int of 16,610 bits>"
    assert argument([Raises(), {"k": slice(Raises())}]).startswith("[<Raises>, ")
    assert lines(lambda x: op(x, Raises()))[2] == "1  a\N{REPLACEMENT CHARACTER}b(0, by=<Raises>)"
    assert lines(lambda xs: flow.map(op, xs, 3))[2].startswith("1  map(")


def test_showing_a_graph_keeps_nothing_alive() -> None:
    class Big:
        pass

    def made() -> tuple[Any, weakref.ref[Any]]:
        big = Big()
        keeps = flow.op(lambda x: (x, big))
        return flow.pipeline(lambda x: keeps(x)), weakref.ref(big)

    p, alive = made()
    assert str(p.graph())
    del p
    gc.collect()
    assert alive() is None


def test_an_argument_that_contains_itself() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert argument(ring) == "[1, [1, [1, […]]]]"


def test_functions_that_say_nothing_of_their_parameters() -> None:
    opaque = flow.op(lambda *xs, **names: xs, name="opaque")
    assert lines(lambda x: opaque(x, 3, k=2))[2] == "1  opaque(0, =3, k=2)"


def test_large_ones_are_folded() -> None:
    def body(x: Any) -> Any:
        for block in range(3):
            with flow.scope(f"block{block}"):
                for _ in range(150):
                    x = blur(x) + 1
        return x

    assert [line for line in lines(body)[2:-1] if "block" not in line] == []
    assert lines(body)[2] == "1  block0/ … 300: 300 nodes: 150 × blur, 150 × add"
    assert len(lines(body)) == 6

    def flat(x: Any) -> Any:
        for _ in range(10_000):
            x = blur(x)
        return x

    text = lines(flat)
    assert len(text) == 3 + 301
    assert "…  9,700 lines more" in text
    assert text[2] == "1  blur(0)"
    assert text[-2] == "10000  blur(9999)"
