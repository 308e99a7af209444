"""Random bodies whose kernels keep what they return: nobody's flags or values change.

    python -m tests.soak.flags 10000      so many bodies, each run three times in three ways; default 10,000

A kernel returns what is not its own, or not its own alone: a global, an attribute of `self`, an item of a list that it
also keeps, its argument, a view of any of these. Bodies join such kernels at random, so that results have none, one or
several readers and are outputs or not. After each run every array that anybody else holds has the flags and the bits
that it had before, and the run returned what the plain functions return.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

import dataflow as flow

Array = np.ndarray[Any, Any]

GLOBAL = np.arange(12.0).reshape(3, 4)
LOCKED = np.arange(12.0).reshape(3, 4)
LOCKED.setflags(write=False)
KEPT: list[Array] = []
"""What kernels of a run keep for themselves."""


class Model:
    def __init__(self) -> None:
        self.weights = np.ones((3, 4))
        self.nested = {"bias": [np.full((3, 4), 2.0)]}

    @flow.op
    def own_weights(self, x: Array) -> Array:
        return self.weights

    @flow.op
    def part_of_weights(self, x: Array) -> Array:
        return self.weights[::1, :]

    @flow.op
    def all_of_it(self, x: Array) -> dict[str, Any]:
        return self.nested


@flow.op
def a_global(x: Array) -> Array:
    return GLOBAL


@flow.op
def a_locked_global(x: Array) -> Array:
    return LOCKED


@flow.op
def kept(x: Array) -> Array:
    result = x + 1
    KEPT.append(result)
    return result


@flow.op
def kept_base(x: Array) -> Array:
    base = np.vstack([x, x])
    KEPT.append(base)
    return base[:3]


@flow.op
def kept_in_a_list(x: Array) -> list[Array]:
    results = [x * 2, x * 3]
    KEPT.extend(results)
    return results


@flow.op
def fresh(x: Array) -> Array:
    return x * 0.5


@flow.op
def its_argument(x: Array) -> Array:
    return x


@flow.op(writes=("x",))
def written(x: Array) -> Array:
    x += 1
    return x


MODEL = Model()
ONE: list[Callable[[Any], Any]] = [
    *(a_global, a_locked_global, kept, kept_base, fresh, its_argument),
    *(MODEL.own_weights, MODEL.part_of_weights),
    lambda x: MODEL.all_of_it(x)["bias"][0],
    lambda x: kept_in_a_list(x)[1],
    lambda x: x[:, ::-1],
    lambda x: x + GLOBAL,
    lambda x: written(x * 1.0),  # else it would be given the global itself, as in plain Python
]


def others() -> dict[str, Array]:
    """Every array that belongs to somebody else than a run."""
    found = {"GLOBAL": GLOBAL, "LOCKED": LOCKED, "weights": MODEL.weights, "bias": MODEL.nested["bias"][0]}
    found.update((f"kept {number}", array) for number, array in enumerate(KEPT))
    return found


def random_body(random: Random) -> Callable[[Any], Any]:
    """A body of two to nine calls on earlier values, which returns some of them."""
    calls = [(random.choice(ONE), random.random()) for _ in range(random.randint(2, 9))]
    chosen = [random.random() < 0.4 for _ in calls]

    def body(x: Any) -> Any:
        values = [x]
        for call, place in calls:
            values.append(call(values[int(place * len(values))]))
        return [value for value, wanted in zip(values[1:], chosen, strict=True) if wanted]

    return body


async def check(body: Callable[[Any], Any], p: Any) -> None:
    """Run a pipeline once, and compare with the plain functions; AssertionError tells what has changed."""
    x = np.full((3, 4), 7.0)
    before = {name: (array.flags.writeable, array.tobytes()) for name, array in others().items()}
    expected = [np.array(value) for value in body(x.copy())]
    KEPT.clear()
    results = await p(x)
    made = {f"kept {number}": array for number, array in enumerate(KEPT)}
    await flow.quiet()
    assert x.flags.writeable, "the input has become read-only"
    assert (x == 7).all(), "the input was written to"
    for name, array in others().items():
        writeable, content = before.get(name, (True, array.tobytes()))
        assert array.flags.writeable == writeable, f"{name} was {writeable}, and is {array.flags.writeable} now"
        assert array.tobytes() == content, f"{name} was written to"
    for value, wanted in zip(results, expected, strict=True):
        assert np.array_equal(value, wanted), "a wrong value"
    for name, array in made.items():
        assert array.flags.writeable, f"{name} has become read-only in its kernel's hands"
    KEPT.clear()


async def check_bodies(count: int, seed: int) -> None:
    """So many random bodies, each run three times."""
    random = Random(seed)
    for number in range(count):
        body = random_body(random)
        p = flow.pipeline(body)
        for _ in range(3):
            try:
                await check(body, p)
            except AssertionError as error:
                error.add_note(f"body {number} of seed {seed}: {p.graph()}")
                raise


if __name__ == "__main__":
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    asyncio.run(check_bodies(most, seed=1))
    print(f"{most} bodies passed on Python {sys.version.split()[0]}")
