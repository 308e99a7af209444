"""Random pipelines of kernels, async ops and recorded numpy give what the plain functions give, called in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from tests.conftest import LOOPS

Runner = Callable[[Any], Any]
Array = np.ndarray[Any, Any]


# The functions, plain; each is exact on small integers, so results are compared bit for bit.


def mix(*xs: Array) -> Array:
    total = np.zeros(4, dtype=np.int64)
    for weight, x in enumerate(xs, 2):
        total = (total + weight * x) % 9_973
    return total


def split(x: Array) -> tuple[Array, dict[str, Array]]:
    return x // 2, {"rest": x % 2, "same": x}


def in_list(xs: list[Array], *, scale: int = 1) -> Array:
    return scale * xs[0] - xs[-1]


def write_to_own(x: Array) -> Array:
    y = x.copy()
    y[0] += 1
    y.sort()
    return y


async def later(x: Array) -> Array:
    for _ in range(int(x[0]) % 3):
        await asyncio.sleep(0)
    return x + 1


async def both_later(x: Array, y: Array) -> Array:
    await asyncio.sleep(0)
    return np.minimum(x, y)


KERNELS: dict[str, Any] = {fn.__name__: flow.op(fn) for fn in (mix, split, in_list, write_to_own)}
ASYNC: dict[str, Any] = {fn.__name__: flow.op(fn) for fn in (later, both_later)}


class Plain:
    """Calls the functions here and now, in the order of the body."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in ASYNC:
            return lambda *args: asyncio.run_coroutine_threadsafe(ASYNC[name](*args), self.loop).result(20)
        return KERNELS[name]  # type: ignore[no-any-return]

    loop: asyncio.AbstractEventLoop


class Recorded:
    """Records the operators."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return KERNELS[name] if name in KERNELS else ASYNC[name]  # type: ignore[no-any-return]


def random_body(seed: int) -> Callable[..., Any]:
    """A body of up to thirty calls, each on random earlier values; some are kept as the result, in some shape."""

    def body(call: Any, x: Any, y: Any) -> Any:
        rng = random.Random(seed)
        values = [x, y]
        for _ in range(rng.randrange(30)):
            recent = values[-rng.choice([2, 5, 100]) :]
            a, b = rng.choice(recent), rng.choice(recent)
            match rng.randrange(12):
                case 0 | 1:
                    values.append(call.mix(*rng.choices(recent, k=rng.randrange(4))))
                case 2:
                    half, more = (result := call.split(a))[0], result[1]
                    values += [half, more["rest"]] if rng.random() < 0.5 else [more["same"]]
                case 3:
                    values.append(call.in_list([a, b], scale=rng.randrange(3)))
                case 4:
                    values.append(call.write_to_own(a))
                case 5 | 6:
                    values.append(call.later(a))
                case 7:
                    values.append(call.both_later(a, b))
                case 8:
                    values.append((a - b) % 97)
                case 9:
                    values.append(np.maximum(a, b[::-1]))
                case 10:
                    values.append(np.where(a > b, a, b) if rng.random() < 0.5 else np.stack([a, b]).sum(axis=0))
                case 11:
                    values.append(a.reshape(2, 2).T.ravel() + b.shape[0])
        chosen = rng.sample(values, k=min(len(values), rng.randrange(1, 5)))
        return [chosen[0], (chosen, {"all": chosen[::-1]}), chosen[-1] if rng.random() < 0.5 else None][
            rng.randrange(3)
        ]

    return body


def same(left: Any, right: Any) -> bool:
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return type(left) is type(right) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if left is None or right is None:
        return left is right
    return left.dtype == right.dtype and bool(np.array_equal(left, right))


PARTS = range(2)
THREADS = [1, 2, 3, 8]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("part", PARTS)
def test_random_mixed_pipelines(run_async: Runner, loop_name: str, threads: int, part: int) -> None:
    """Eight at a time, each twice: the second run knows what its kernels cost. No two settings get the same bodies."""
    flow.set_num_interop_threads(threads)
    number = (list(LOOPS).index(loop_name) * len(THREADS) + THREADS.index(threads)) * len(PARTS) + part
    rng = np.random.default_rng(number)

    async def compare(seed: int) -> None:
        body = random_body(seed)

        def recorded(x: Any, y: Any) -> Any:
            return body(Recorded(), x, y)

        x, y = rng.integers(0, 9_973, size=(2, 4))
        before = x.copy(), y.copy()
        plain = Plain()
        plain.loop = asyncio.get_running_loop()
        expected = await asyncio.to_thread(body, plain, x, y)
        pipeline = flow.pipeline(recorded)
        for _ in range(2):
            assert same(await pipeline(x, y), expected), f"seed {seed}"
        assert same((x, y), before), f"seed {seed}: an input was changed"

    async def main() -> None:
        seeds = range(80 * number, 80 * (number + 1))
        for group in range(0, 80, 8):
            await asyncio.gather(*[compare(seed) for seed in seeds[group : group + 8]])

    run_async(main())


@pytest.mark.parametrize("threads", [1, 3])
def test_the_blocking_ways_to_run_give_the_same(threads: int) -> None:
    flow.set_num_interop_threads(threads)
    x, y = np.arange(4), np.arange(4, 8)
    for seed in range(40):
        body = random_body(seed)
        pipeline = flow.pipeline(lambda x, y, body=body: body(Recorded(), x, y))
        assert same(pipeline.run(x, y), pipeline.debug(x, y)), f"seed {seed}"
