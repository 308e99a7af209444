"""Random bodies whose operators change what the caller, the module or the body owns: as plain Python has it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Coroutine[Any, Any, Any]], Any]

dice = random.Random()
"""For how long operators take: whatever it says, results are the same."""


def pause() -> None:
    if dice.random() < 0.3:
        time.sleep(dice.random() * 5e-4)


@flow.op
def total(x: Any) -> float:
    pause()
    return float(np.sum(x))


@flow.op
def combined(x: Any, y: Any) -> Any:
    pause()
    return np.ravel(x)[:2] * 2 + np.ravel(y)[:2] % 7


@flow.op
def made(size: int, value: int) -> Any:
    return np.full((size, size), float(value))


@flow.op
def turned(x: Any) -> Any:
    """A view."""
    pause()
    return x[::-1]


@flow.op
def more(x: Any) -> Any:
    return x + 1


@flow.op
def itself(x: Any) -> Any:
    return x


@flow.op(inout=("out",))
def fill(out: Any, x: Any) -> None:
    pause()
    out += np.ravel(x)[0] % 5
    out *= 2


@flow.op(inout=("out",))
def filled(x: Any, *, out: Any) -> Any:
    pause()
    out -= np.ravel(x)[-1] % 3
    return out


@flow.op(inout=("left", "right"), timeout=60)
def swapped(left: Any, right: Any) -> None:
    pause()
    left[...], right[...] = right + 1, left.copy()


@flow.op(inout=("out",))
async def filled_on_loop(out: Any, x: Any) -> Any:
    out += np.ravel(x)[0] % 11
    return out


@flow.op(inout=("box",))
def put(box: dict[str, Any], x: Any) -> None:
    """Other arrays in a dict, and a number."""
    pause()
    box["b"] = box["a"] + np.ravel(x)[0] % 3
    box["n"] = box.get("n", 0) + 1


KEPT = np.zeros((2, 2))
"""The module's."""


class Maker:
    """Makes one body from a seed, without knowing values: it may be called on nodes and on arrays.

    What is computed from the module's array is computed by operators: the body itself would compute it once.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, a: Any, b: Any, box: Any) -> Any:
        choose = random.Random(self.seed)
        own = made(2, choose.randrange(3))
        fresh = combined(a, b)
        arrays: list[Any] = [KEPT, a, b, own, fresh, box["a"]]
        targets: list[Any] = [a, b, own, KEPT, fresh, box["a"], a[0], b[:, 1], a.T]
        numbers: list[Any] = []
        pick = choose.choice

        for _ in range(choose.randrange(4, 25)):
            kind = choose.randrange(15)
            if kind < 3:
                numbers.append(total(pick(arrays)))
            elif kind == 3:
                arrays.append(turned(pick(arrays)))
            elif kind == 4:
                arrays.append(pick(arrays[1:]).reshape(-1))
            elif kind == 5:
                arrays.append(combined(pick(arrays), pick(arrays)))
            elif kind == 6:
                arrays.append(pick([more, lambda x: x[:1], lambda x: x.T, itself])(pick(arrays[1:])))
            elif kind < 9:
                fill(pick(targets), pick(arrays))
            elif kind == 9:
                result = filled(pick(arrays), out=pick(targets))
                arrays.append(result)
                targets.append(result)
            elif kind == 10:
                swapped(*choose.sample([a, b, own, KEPT], 2))
            elif kind == 11 and self.seed % 2:
                arrays.append(filled_on_loop(pick(targets), pick(arrays)))
            elif kind == 12:
                put(box, pick(arrays))
                arrays.append(box["b"])
            elif kind == 13:
                numbers.append(total(box["n"]) if self.seed % 3 == 0 else pick(arrays[1:]).size)
            else:
                arrays.append(pick([a[0], b[:, 0], box["a"][1:]]))
        shown = choose.sample(arrays, min(4, len(arrays)))
        return numbers, shown, a, own, box


def given() -> tuple[Any, Any, Any]:
    return np.arange(4.0).reshape(2, 2), np.arange(4.0, 8.0).reshape(2, 2), {"a": np.arange(2.0), "n": 0}


def plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def called_plainly(make: Maker, args: Any) -> Any:
    """The body on values, with the async operator's coroutine run to its end on the spot."""
    replaced = globals()["filled_on_loop"]

    def here_and_now(out: Any, x: Any) -> Any:
        try:
            replaced(out, x).send(None)
        except StopIteration as stop:
            return stop.value

    globals()["filled_on_loop"] = here_and_now
    try:
        return make(*args)
    finally:
        globals()["filled_on_loop"] = replaced


def aliased(args: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """The same array twice, and its memory in the dict."""
    a, _, box = args
    box["a"] = a[1]
    return a, a, box


@pytest.mark.parametrize("arrange", [lambda args: args, aliased])
@pytest.mark.parametrize("start", range(0, 100, 25))
def test_bodies_that_change_things_are_as_plain_python_has_them(
    run_async: Runner, start: int, arrange: Callable[[Any], Any]
) -> None:
    flow.set_num_interop_threads(4)
    for seed in range(start, start + 25):
        dice.seed(seed)
        make = Maker(seed)
        KEPT[...] = 3
        expected_args = arrange(given())
        expected = plain(called_plainly(make, expected_args)), plain(expected_args), KEPT.tolist()
        p = flow.pipeline(make, name=f"body {seed}")
        for run in (p.run, p.debug, lambda *args, p=p: run_async(p(*args))):
            KEPT[...] = 3
            args = arrange(given())
            result = run(*args)
            assert (plain(result), plain(args), KEPT.tolist()) == expected, f"seed {seed}"
            assert result[2] is args[0]
            assert result[4] is args[2]
