"""A hundred thousand nodes, deep or wide, at the default recursion limit: traced, planned and run.

That the time is linear in the number of nodes is measured, not asserted: see tests/benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Any], Any]

NODES = 100_000


@flow.op
def successor(x: int) -> int:
    return x + 1


@flow.op
def add(x: int, y: int) -> int:
    return x + y


@flow.op
async def on_loop(x: int) -> int:
    return x + 1


@pytest.fixture(autouse=True)
def _recursion_limit() -> None:
    assert sys.getrecursionlimit() <= 1_000


# Tracing takes most of the time. So each of these is traced once for both loops, and once more for each number of
# threads: its first run knows nothing of what its kernels cost, and goes another way.


@cache
def long_chain(threads: int) -> Any:
    @flow.pipeline
    def chain(x: Any) -> Any:
        for _ in range(NODES):
            x = successor(x)
        return x

    return chain


@cache
def wide_row(threads: int) -> Any:
    @flow.pipeline
    def wide(x: Any) -> Any:
        return [add(x, i) for i in range(NODES)]

    return wide


@cache
def one_funnel() -> Any:
    @flow.op
    def total(xs: list[int]) -> int:
        return sum(xs)

    @flow.pipeline
    def funnel(x: Any) -> Any:
        return total([add(x, i) for i in range(NODES)])

    return funnel


@cache
def many_sums() -> Any:
    @flow.pipeline
    def sums(x: Any) -> Any:
        for _ in range(NODES // 4):
            x = (x + 1) * 2 % 1_000_003
        return x

    return sums


@pytest.fixture(autouse=True, scope="module")
def _nothing_stays() -> Iterator[None]:
    yield
    for traced in (long_chain, wide_row, one_funnel, many_sums):
        traced.cache_clear()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_chain(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    chain = long_chain(threads)
    assert run_async(chain(0)) == NODES
    assert run_async(chain(1)) == NODES + 1
    assert len(chain.graph().nodes) == NODES


@pytest.mark.parametrize("threads", [1, 2])
def test_side_by_side(run_async: Runner, threads: int) -> None:
    flow.set_num_interop_threads(threads)
    wide = wide_row(threads)
    assert run_async(wide(0)) == list(range(NODES))
    assert run_async(wide(1)) == list(range(1, NODES + 1))


def test_one_reader_of_all(run_async: Runner) -> None:
    assert run_async(one_funnel()(0)) == NODES * (NODES - 1) // 2


def test_a_ladder_of_diamonds(run_async: Runner) -> None:
    """Sixty levels: a walk along all paths would take 2**60 steps."""

    @flow.pipeline
    def ladder(x: Any) -> Any:
        for _ in range(60):
            x = add(successor(x), x)
        return x

    expected = 5
    for _ in range(60):
        expected = 2 * expected + 1
    assert run_async(ladder(5)) == expected


def test_sixty_levels_of_containers_that_share(run_async: Runner) -> None:
    """The same ladder, where each level is a tuple that holds the one before twice."""

    @flow.op
    def depth(pair: Any) -> int:
        levels = 0
        while isinstance(pair, tuple):
            pair, levels = pair[0], levels + 1
        return levels

    @flow.pipeline
    def nested(x: Any) -> Any:
        pair = x
        for _ in range(16):
            pair = (pair, pair)
        return depth(pair)

    assert run_async(nested(5)) == 16


def test_a_long_chain_on_the_loop(run_async: Runner) -> None:
    @flow.pipeline
    def chain(x: Any) -> Any:
        for _ in range(10_000):
            x = on_loop(x)
        return x

    assert run_async(chain(0)) == 10_000


def test_operators_of_the_body_as_deep(run_async: Runner) -> None:
    expected = 1
    for _ in range(NODES // 4):
        expected = (expected + 1) * 2 % 1_000_003
    assert run_async(many_sums()(1)) == expected


def test_inner_pipelines_are_inlined_without_end(run_async: Runner) -> None:
    @flow.pipeline
    def step(x: Any) -> Any:
        return add(successor(x), 1)

    @flow.pipeline
    def chain(x: Any) -> Any:
        for _ in range(20_000):
            x = step(x)
        return x

    assert run_async(chain(0)) == 40_000
