"""State that goes from item to item: as a plain loop would have it, while all else of neighbouring items overlaps."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]

FRAME, TAPS = 64, 100


@flow.op
def convolve(frame: np.ndarray, taps: np.ndarray) -> np.ndarray:
    size = len(frame) + len(taps) - 1
    return np.fft.irfft(np.fft.rfft(frame, size) * np.fft.rfft(taps, size), size)


@flow.op
def overlap(block: np.ndarray, tail: np.ndarray) -> np.ndarray:
    block = block.copy()
    block[: len(tail)] += tail
    return block


@flow.pipeline
def reverb(frame: np.ndarray, tail: np.ndarray, taps: np.ndarray) -> Any:
    block = overlap(convolve(frame, taps), tail)
    return block[:FRAME], {"tail": block[FRAME:]}


def offline(frames: np.ndarray, taps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tail, found = np.zeros(TAPS - 1), []
    for frame in frames:
        block = overlap(convolve(frame, taps), tail)
        found.append(block[:FRAME])
        tail = block[FRAME:]
    return np.array(found), tail


@pytest.mark.parametrize("options", [{}, {"on_error": "yield"}, {"ordered": False}, {"in_flight": 1}, {"in_flight": 9}])
def test_overlap_add_is_the_offline_result_bit_for_bit(run_async: Runner, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    frames, taps = rng.normal(size=(120, FRAME)), rng.normal(size=TAPS)
    expected, last = offline(frames, taps)

    async def main() -> None:
        async with reverb.bind(taps=taps).stream(iter(frames), carry={"tail": np.zeros(TAPS - 1)}, **options) as s:
            found = [y async for y in s]
        if options.get("ordered", True):
            assert np.array_equal(found, expected)
        else:
            assert sorted(map(bytes, found)) == sorted(map(bytes, expected))
        assert s.carry is not None
        assert np.array_equal(s.carry["tail"], last)

    run_async(main())


def test_only_what_reads_the_state_waits(run_async: Runner) -> None:
    """Item i + 1 is through with its first operator before item i has begun with what makes the state."""
    flow.set_num_interop_threads(2)
    prepared = [threading.Event() for _ in range(6)]
    order: list[tuple[str, int]] = []

    @flow.op
    def prepare(x: int) -> int:
        order.append(("prepare", x))
        prepared[x].set()
        return x

    @flow.op
    def add(x: int, total: int) -> int:
        if x < 5:
            assert prepared[x + 1].wait(20)
        order.append(("add", x))
        return x + total

    @flow.pipeline
    def p(x: int, total: int) -> Any:
        new = add(prepare(x), total)
        return new, {"total": new}

    async def main() -> None:
        stream = p.stream(range(6), carry={"total": 0}, in_flight=3)
        assert [y async for y in stream] == list(itertools.accumulate(range(6)))
        assert [x for name, x in order if name == "add"] == list(range(6)), "states go one by one"

    run_async(main())


def test_the_next_item_does_not_wait_for_the_end_of_this_one(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    states = [threading.Event() for _ in range(5)]

    @flow.op
    def add(x: int, total: int) -> int:
        states[x].set()
        return x + total

    @flow.op
    def encode(x: int, state: int) -> int:
        if x < 4:
            assert states[x + 1].wait(20)  # the item after this one has read the state already
        return state

    @flow.pipeline
    def p(x: int, total: int) -> Any:
        new = add(x, total)
        return encode(x, new), {"total": new}

    async def main() -> None:
        stream = p.stream(range(5), carry={"total": 0}, in_flight=3)
        assert [y async for y in stream] == [0, 1, 3, 6, 10]

    run_async(main())


def test_the_state_of_unordered_results_is_the_latest_by_the_source(run_async: Runner) -> None:
    first = asyncio.Event()

    @flow.op
    async def encode(x: int, state: int) -> int:
        if x == 0:
            await first.wait()
        return state

    @flow.pipeline
    def p(x: int, total: int) -> Any:
        new = x + total
        return encode(x, new), {"total": new}

    async def main() -> None:
        async with p.stream(range(3), carry={"total": 10}, in_flight=3, ordered=False) as s:
            assert s.carry == {"total": 10}
            assert sorted([await anext(s), await anext(s)]) == [11, 13]
            assert s.carry == {"total": 13}
            first.set()
            assert await anext(s) == 10
            assert s.carry == {"total": 13}

    run_async(main())


def test_one_operator_may_return_result_and_state(run_async: Runner) -> None:
    @flow.op
    def step(x: int, total: int) -> Any:
        return x * 10, {"total": x + total}

    @flow.op
    def step_state(x: int, total: int) -> Any:
        return {"total": x + total}

    @flow.pipeline
    def whole(x: int, total: int) -> Any:
        return step(x, total)

    @flow.pipeline
    def half(x: int, total: int) -> Any:
        return x * 10, step_state(x, total)

    async def main() -> None:
        for p in (whole, half):
            async with p.stream(range(20), carry={"total": 0}) as s:
                assert [y async for y in s] == list(range(0, 200, 10))
            assert s.carry == {"total": 190}

    run_async(main())


def test_trees(run_async: Runner) -> None:
    """Without a declaration the body indexes it; declared as a tree, its structure is a Python value."""

    @flow.pipeline
    def indexed(x: Any, layers: Any) -> Any:
        first = layers[0]["h"] + x
        return first + layers[1]["h"], {"layers": [{"h": first}, {"h": layers[1]["h"] * 2}]}

    @flow.pipeline(tree=("layers",))
    def looped(x: Any, layers: Any) -> Any:
        new = []
        for number, layer in enumerate(layers):
            new.append({"h": layer["h"] * 2 if number else layer["h"] + x})
        return new[0]["h"] + layers[1]["h"], {"layers": new}

    async def main() -> None:
        carry = {"layers": [{"h": np.zeros(2)}, {"h": 1.0}]}
        expected = [[0.0 + 1.0] * 2, [1.0 + 2.0] * 2, [3.0 + 4.0] * 2]
        for p in (indexed, looped):
            async with p.stream(range(3), carry=carry) as s:
                assert np.array_equal([y async for y in s], expected)
            assert s.carry is not None
            assert np.array_equal(s.carry["layers"][0]["h"], [3.0, 3.0])
            assert s.carry["layers"][1] == {"h": 8.0}
        assert carry["layers"][1] == {"h": 1.0}

    run_async(main())


def test_several_names_and_static_items_and_methods(run_async: Runner) -> None:
    class Filter:
        def __init__(self, gain: int) -> None:
            self.gain = gain

        @flow.pipeline
        def run(self, a: Any, x: Any, b: Any) -> Any:
            return a + b, {"b": b + self.gain, "a": a + x}

    @flow.pipeline(static=("count",))
    def repeat(count: int, total: Any) -> Any:
        for _ in range(count):
            total = total + 1
        return total * 1, {"total": total}

    @flow.pipeline
    def collected(x: Any, **state: Any) -> Any:
        return state["a"] + x, {"a": state["a"] + x}

    async def main() -> None:
        for gain in (1, 10):
            stream = Filter(gain).run.stream([1, 2, 3], carry={"a": 0, "b": 0})
            assert [y async for y in stream] == [0, 1 + gain, 3 + 2 * gain]
        assert [y async for y in repeat.stream([1, 0, 3], carry={"total": 0})] == [1, 1, 4]
        assert [y async for y in collected.stream([1, 2, 3], carry={"a": 0})] == [1, 3, 6]

    run_async(main())


def test_derived_pipelines_carry_as_well(run_async: Runner) -> None:
    @flow.op
    def add(x: Any, y: Any) -> Any:
        return x + y

    @flow.pipeline(tree=("state",))
    def p(x: Any, state: Any, by: Any = 1) -> Any:
        new = add(x, state[0]) * by
        return new, {"state": (new,)}

    async def main() -> None:
        assert [y async for y in p.stream([1, 2], carry={"state": (0,)})] == [1, 3]
        assert [y async for y in p.bind(by=2).stream([1, 2], carry={"state": (0,)})] == [2, 8]
        swapped = p.replace({add: lambda x, y: x - y})
        assert [y async for y in swapped.stream([1, 2], carry={"state": (0,)})] == [1, 1]

    run_async(main())


def test_a_pipeline_is_traced_once_for_all_streams(run_async: Runner) -> None:
    traced = []

    @flow.pipeline
    def p(x: Any, total: Any) -> Any:
        traced.append(1)
        return x * 1, {"total": total + x}

    async def main() -> None:
        for start in range(3):
            async with p.stream([1, 2], carry={"total": start}) as s:
                assert [y async for y in s] == [1, 2]
            assert s.carry == {"total": start + 3}
        assert len(traced) == 1
        p.retrace()
        assert [y async for y in p.stream([1, 2], carry={"total": 0})] == [1, 2]
        assert len(traced) == 2

    run_async(main())


def test_nobody_shares_memory_with_the_state(run_async: Runner) -> None:
    @flow.op
    def step(x: Any, tail: Any) -> Any:
        return x + tail

    @flow.op(writes=("tail",))
    def write(tail: Any) -> Any:
        tail += 1
        return tail

    @flow.pipeline
    def p(x: Any, tail: Any) -> Any:
        new = step(x, write(tail))
        return new, {"tail": new}

    async def main() -> None:
        first = np.zeros(3)
        async with p.stream(np.ones((4, 3)), carry={"tail": first}) as s:
            found = []
            async for y in s:
                found.append(y.copy())
                y[:] = 99  # it is the user's
                first[:] = 77
                state = s.carry
                assert state is not None
                state["tail"][:] = 55
        assert np.array_equal(found, [[2.0] * 3, [4.0] * 3, [6.0] * 3, [8.0] * 3])

    run_async(main())


def test_a_kernel_that_writes_into_the_state_is_told(run_async: Runner) -> None:
    @flow.op
    def write(x: Any, tail: Any) -> Any:
        tail += x
        return tail

    @flow.op
    def grow(x: Any, seen: Any) -> Any:
        seen.append(x)  # a list of its own
        if x == 2:
            raise ValueError("after it has written")
        return list(seen)

    @flow.pipeline
    def p(x: Any, tail: Any) -> Any:
        new = write(x, tail)
        return new * 1, {"tail": new}

    @flow.pipeline
    def q(x: Any, seen: Any) -> Any:
        new = grow(x, seen)
        return new, {"seen": new}

    async def main() -> None:
        with pytest.raises(ValueError, match="read-only") as caught:
            async for _ in p.stream([1.0, 2.0], carry={"tail": np.zeros(2)}):
                pass
        assert "work on a copy" in caught.value.__notes__[0]
        first, failure, last = [y async for y in q.stream([1, 2, 3], carry={"seen": [0]}, on_error="yield")]
        assert (first, str(failure), last) == ([0, 1], "after it has written", [0, 1, 3])

    run_async(main())


def test_after_a_failed_item_the_state_is_that_from_before_it(run_async: Runner) -> None:
    """Wherever it fails: before its state has come, while it is made, or when it was there already."""
    slow = asyncio.Event()

    @flow.op
    async def early(x: int) -> int:
        if x % 4 == 1:
            raise ValueError("early")
        if x == 0:
            await slow.wait()  # the others' states cannot have come yet
        return x

    @flow.op
    def add(x: int, total: int) -> int:
        if x % 4 == 2:
            raise ValueError("at the state")
        return x + total

    @flow.op
    async def late(x: int, new: int) -> int:
        for _ in range(10):
            await asyncio.sleep(0)
        if x % 4 == 3:
            raise ValueError("late")
        slow.set()
        return new

    @flow.pipeline
    def p(x: int, total: int) -> Any:
        begun = early(x)
        new = add(x, total)
        with flow.after(begun):
            return late(x, new), {"total": new}

    async def main() -> None:
        async with p.stream(range(16), carry={"total": 0}, on_error="yield", in_flight=6) as s:
            for _ in range(50):
                await asyncio.sleep(0)
            slow.set()
            found = [y if isinstance(y, int) else str(y) async for y in s]
        assert s.carry == {"total": 0 + 4 + 8 + 12}
        expected: list[Any] = []
        for total in (0, 4, 12, 24):
            expected += [total, "early", "at the state", "late"]
        assert found == expected

    run_async(main())


def test_by_default_a_failure_ends_it(run_async: Runner) -> None:
    @flow.op
    def add(x: int, total: int) -> int:
        if x == 3:
            raise ValueError("at the state")
        return x + total

    @flow.pipeline
    def p(x: int, total: int) -> Any:
        new = add(x, total)
        return new, {"total": new}

    async def main() -> None:
        found = []
        stream = p.stream(itertools.count(), carry={"total": 0}, in_flight=8)
        with pytest.raises(ValueError, match="at the state"):
            async for y in stream:
                found += [y]
        assert found == [0, 1, 3]
        assert stream.carry == {"total": 3}
        assert len(asyncio.all_tasks()) == 1
        await flow.quiet()

    run_async(main())


def test_breaking_off_leaves_nothing(run_async: Runner) -> None:
    async def main() -> None:
        frames = (np.ones(FRAME) for _ in itertools.count())
        async with reverb.bind(taps=np.ones(TAPS)).stream(frames, carry={"tail": np.zeros(TAPS - 1)}) as s:
            assert s.carry is not None
            assert not s.carry["tail"].any(), "before the first item: what was given"
            await anext(s)
            assert s.carry["tail"].any()
        assert len(asyncio.all_tasks()) == 1
        await flow.quiet()

    run_async(main())


@flow.op
def plus(x: Any, y: Any) -> Any:
    return x + y


@flow.op
def wrong_state(kind: str, total: Any) -> Any:
    return {"other": 1} if kind == "keys" else [1]


@flow.op
def wrong_pair(x: Any, total: Any) -> Any:
    return x, total, 3


WRONG: list[tuple[Any, str]] = [
    (lambda x, total: plus(x, total), r"carries 'total' must return \(result, \{name: new state\}\), not int"),
    (lambda x, total: (plus(x, total), 1, 2), "must return .*, not a tuple of 3"),
    (lambda x, total: [plus(x, total), {"total": total}], "must return .*, not list"),
    (lambda x, total: (plus(x, total), [total]), "the state is list, not a dict"),
    (lambda x, total: (plus(x, total), {"totl": total}), "'total': 'total' is missing, 'totl' is not carried"),
    (lambda x, total: (plus(x, total), {"total": total, "b": 1}), "'b' is not carried"),
    (lambda x, total: (plus(x, total), {}), "'total' is missing"),
    (lambda x, total: (plus(x, total), {"total": None}), "'total' .* cannot hold NoneType"),
    (lambda x, total: (x, wrong_state("keys", total)), "'total' is missing, 'other' is not carried"),
    (lambda x, total: (x, wrong_state("list", total)), "the state is list, not a dict"),
    (lambda x, total: wrong_pair(x, total), "must return .*, not a tuple of 3"),
]


@pytest.mark.parametrize(("body", "message"), WRONG)
def test_bodies_that_return_something_else(run_async: Runner, body: Any, message: str) -> None:
    def p(x: Any, total: Any) -> Any:
        return body(x, total)

    async def main() -> None:
        with pytest.raises(TypeError, match=message) as caught:
            async for _ in flow.pipeline(p).stream([1, 2], carry={"total": 0}):
                pass
        assert str(caught.value).startswith("p: ")

    run_async(main())


def test_a_declared_tree_keeps_its_structure(run_async: Runner) -> None:
    @flow.pipeline(tree=("state",))
    def p(x: Any, state: Any) -> Any:
        return x * 1, {"state": [*state, x]}

    async def main() -> None:
        with pytest.raises(TypeError, match="returned another structure for 'state'"):
            async for _ in p.stream([1, 2], carry={"state": [0]}):
                pass

    run_async(main())
