"""What each use changes: generators of random numbers, files, checksums. Their uses keep the order of the body."""

from __future__ import annotations

import hashlib
import io
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import dataflow as flow

RNG: Any = None
"""Given to operators from outside of the bodies below."""


@flow.op
def slow_noise(x: float, rng: np.random.Generator) -> float:
    time.sleep(0.003)
    return x + float(rng.random())


@flow.op
def noise(x: float, rng: np.random.Generator) -> float:
    return x + float(rng.random())


@flow.op
def total(*parts: float) -> float:
    return sum(parts)


def plain(x: float, seed: int, times: int) -> list[float]:
    rng = np.random.default_rng(seed)
    return [x + float(rng.random()) for _ in range(times)]


@pytest.fixture(autouse=True)
def four_threads() -> None:
    flow.set_num_interop_threads(4)


def test_a_constant_is_used_in_the_order_of_the_body() -> None:
    rng = np.random.default_rng(3)

    @flow.pipeline
    def p(x: float) -> Any:
        return [slow_noise(x, rng) if i % 2 else noise(x, rng=rng) for i in range(8)]

    assert p.run(1.0) == plain(1.0, 3, 8)


def test_a_global_and_what_is_in_a_container() -> None:
    global RNG
    RNG = np.random.default_rng(5)

    @flow.op
    def unpack(x: float, state: Any) -> float:
        time.sleep(0.002)
        return x + float(state["rng"].random())

    @flow.pipeline
    def p(x: float) -> Any:
        first = unpack(x, {"rng": RNG})
        second = noise(x, RNG)
        third = unpack(x, {"rng": RNG})
        return first, second, third

    assert list(p.run(0.0)) == plain(0.0, 5, 3)


def test_an_input() -> None:
    @flow.pipeline
    def p(x: float, rng: Any) -> Any:
        return [slow_noise(x, rng) if i % 2 else noise(x, rng) for i in range(8)]

    for seed in range(3):
        assert p.run(1.0, np.random.default_rng(seed)) == plain(1.0, seed, 8)
    assert p.run(1.0, FakeGenerator()) == [1.5] * 8, "another kind has its own plan"


class FakeGenerator:
    def random(self) -> float:
        return 0.5


def test_one_object_as_two_inputs_and_as_a_constant() -> None:
    global RNG
    RNG = np.random.default_rng(7)

    @flow.pipeline
    def p(x: float, one: Any, other: Any) -> Any:
        return slow_noise(x, one), noise(x, other), slow_noise(x, RNG), noise(x, one)

    assert list(p.run(0.0, RNG, RNG)) == plain(0.0, 7, 4)
    apart = np.random.default_rng(8), np.random.default_rng(9)
    RNG = np.random.default_rng(10)
    got = p.run(0.0, *apart)
    (a, d), (b,), (c,) = plain(0.0, 8, 2), plain(0.0, 9, 1), plain(0.0, 10, 1)
    assert list(got) == [a, b, c, d]


def test_the_method_of_one_as_an_operator() -> None:
    rng = np.random.default_rng(11)
    draw = flow.op(rng.random)

    @flow.pipeline
    def p(x: float) -> Any:
        return [slow_noise(x, rng), draw(), draw(), noise(x, rng)]

    assert p.run(0.0) == plain(0.0, 11, 4)


@pytest.mark.parametrize("make", [np.random.RandomState, random.Random])
def test_older_generators(make: Callable[[int], Any]) -> None:
    @flow.op
    def draw(rng: Any, seconds: float) -> float:
        time.sleep(seconds)
        return float(rng.uniform(0, 1))

    @flow.pipeline
    def p(rng: Any) -> Any:
        return [draw(rng, 0.003 * (i % 2)) for i in range(6)]

    rng = make(1)
    assert p.run(make(1)) == [float(rng.uniform(0, 1)) for _ in range(6)]


def test_lines_of_a_file_and_bytes_of_a_checksum() -> None:
    out, digest = io.StringIO(), hashlib.sha256()

    @flow.op
    def write(file: Any, line: str, seconds: float) -> None:
        time.sleep(seconds)
        file.write(line)

    @flow.op
    def mix(into: Any, text: str, seconds: float) -> None:
        time.sleep(seconds)
        into.update(text.encode())

    @flow.pipeline
    def p(x: str, into: Any) -> Any:
        for i in range(6):
            write(out, f"{i}\n", 0.003 * (i % 2))
            mix(into, str(i), 0.003 * (i % 2))
        return x

    p.run("", digest)
    assert out.getvalue() == "0\n1\n2\n3\n4\n5\n"
    assert digest.digest() == hashlib.sha256(b"012345").digest()


def test_what_follows_is_not_held_up() -> None:
    """Only the uses are in order; what reads their results is free."""
    rng = np.random.default_rng(1)

    @flow.pipeline
    def p(x: float) -> Any:
        return [total(noise(x, rng), float(i)) for i in range(10)]

    graph = p.graph(1.0)
    assert sum(map(len, graph.after.values())) == 9
    assert all(graph.nodes[number - 1].spec.name == "noise" for number in graph.after)


def test_the_items_of_a_map() -> None:
    rng = np.random.default_rng(13)

    @flow.pipeline
    def p(xs: Any, rng: Any) -> Any:
        return flow.map(slow_noise, xs, rng=rng)

    assert p.run([0.0] * 8, rng) == plain(0.0, 13, 8)

    constant = np.random.default_rng(13)

    @flow.pipeline
    def q(xs: Any) -> Any:
        return flow.map(slow_noise, xs, rng=constant)

    assert q.run([0.0] * 8) == plain(0.0, 13, 8)


def test_the_body_of_another_pipeline_and_a_part() -> None:
    rng = np.random.default_rng(17)

    @flow.pipeline
    def inner(x: float) -> Any:
        return slow_noise(x, rng)

    @flow.pipeline
    def p(x: float) -> Any:
        first, second = inner(x), noise(x, rng)
        third = flow.label(noise(x, rng), "third")
        return first, second, third

    assert list(p.run(0.0)) == plain(0.0, 17, 3)
    rng.bit_generator.state = np.random.default_rng(17).bit_generator.state
    assert p.select("third").run(0.0) == plain(0.0, 17, 3)[2], "the draws before it belong to its value"


def test_one_that_the_body_made_is_refused() -> None:
    @flow.pipeline
    def p(x: float) -> Any:
        return noise(x, np.random.default_rng(1))

    with pytest.raises(flow.TraceError, match=r"noise uses the Generator that the body made.*default_rng\)\(1\)"):
        p.run(1.0)

    make = flow.op(np.random.default_rng)

    @flow.pipeline
    def q(x: float) -> Any:
        return noise(x, make(1))

    assert q.run(0.0) == q.run(0.0) == plain(0.0, 1, 1)[0]


def test_a_result_that_several_use_needs_an_order() -> None:
    make = flow.op(np.random.default_rng)

    @flow.pipeline
    def p(x: float) -> Any:
        rng = make(1)
        return noise(x, rng), noise(x, rng)

    with pytest.raises(TypeError, match="returned a Generator, which each use changes, and both 'noise' and 'noise'"):
        p.run(1.0)

    @flow.op(inout="rng")
    def draw(x: float, rng: np.random.Generator) -> float:
        return x + float(rng.random())

    @flow.pipeline
    def declared(x: float) -> Any:
        rng = make(1)
        return draw(x, rng), draw(x, rng)

    @flow.pipeline
    def after(x: float) -> Any:
        rng = make(1)
        first = noise(x, rng)
        with flow.after(first):
            return first, noise(x, rng)

    assert list(declared.run(0.0)) == list(after.run(0.0)) == plain(0.0, 1, 2)


def test_an_operator_outside_of_a_run_and_debug() -> None:
    rng = np.random.default_rng(19)

    @flow.pipeline
    def p(x: float, rng: Any) -> Any:
        return noise(x, rng), noise(x, rng)

    assert list(p.debug(0.0, rng)) == plain(0.0, 19, 2)


def test_what_operators_use_that_are_arguments_themselves() -> None:
    rng = np.random.default_rng(23)
    draw = flow.op(rng.uniform)
    fixed = flow.op(partial(slow_noise, rng=rng))

    @flow.pipeline
    def p(x: float) -> Any:
        first = flow.map(draw, [0.0, 0.0])
        second = fixed(x)
        third = flow.cond(True, draw, draw, 0.0)
        return first, second, third

    plain_rng = np.random.default_rng(23)
    first = [plain_rng.uniform(0.0), plain_rng.uniform(0.0)]
    assert p.run(0.0) == (first, plain_rng.random(), plain_rng.uniform(0.0))


def test_one_inside_an_input() -> None:
    @flow.op
    def draw(state: Any, seconds: float) -> float:
        time.sleep(seconds)
        return float(state["rng"].random())

    @flow.pipeline
    def p(state: Any, other: Any) -> Any:
        return [draw(state, 0.004), draw(other, 0.0), draw(state, 0.002), noise(0.0, state["rng"])]

    for seed in (29, 31):
        rng = np.random.default_rng(seed)
        assert p.run({"rng": rng}, {"rng": rng, "n": 1}) == plain(0.0, seed, 4)


def test_an_operator_that_stands_in_for_another() -> None:
    rng = np.random.default_rng(37)
    stands_in = flow.op(rng.random)

    @flow.op
    def draw() -> float:
        return 0.0

    @flow.pipeline
    def p(x: float) -> Any:
        return [draw(), draw(), draw()]

    assert p.replace({draw: stands_in}).run(0.0) == plain(0.0, 37, 3)
