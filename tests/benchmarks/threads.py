"""Inter-op x intra-op: the default against the fixed settings, on graphs of matrix products. A command of its own:

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m tests.benchmarks.threads [--quick]

All settings take turns, in an order that changes; each graph runs once unmeasured under the setting before it is timed,
and a pause lets the BLAS workers of the setting before fall asleep. It needs idle CPUs: two BLAS threads are several
times slower than one where a neighbour has one of two CPUs. Look at spread and load before believing anything.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import threadpoolctl

import dataflow as flow
from tests.benchmarks.measure import Figure, interleaved, seconds
from tests.benchmarks.tables import table

PAUSE = 0.12
"""Seconds in which idle BLAS workers stop spinning."""


@flow.op
def product(a: Any, b: Any) -> Any:
    """One matrix product."""
    return a @ b


def chain(length: int) -> Any:
    """A product after the other."""

    @flow.pipeline
    def run(a: Any) -> Any:
        x = a
        for _ in range(length):
            x = product(x, a)
        return x

    return run


def wide(width: int) -> Any:
    """Products that do not depend on each other."""

    @flow.pipeline
    def run(a: Any) -> Any:
        return [product(a, a) for _ in range(width)]

    return run


def mix(alone: int, width: int, rounds: int) -> Any:
    """So many in a chain, then so many side by side, and again."""

    @flow.pipeline
    def run(a: Any) -> Any:
        x = a
        for _ in range(rounds):
            for _ in range(alone):
                x = product(x, a)
            x = sum(product(x, a) for _ in range(width)) / width
        return x

    return run


def graphs(size: int) -> dict[str, Any]:
    """Of each about as much work as 24 products of 512 x 512, and five products at the least."""
    products = max(10, int(24 * (512 / size) ** 3))
    cases = {f"chain of {products}": chain(products), f"wide {products}": wide(products)}
    for alone, width in ((1, 2), (1, 4), (4, 4), (2, 16)):
        cases[f"mix {alone} + {width}"] = mix(alone, width, max(1, products // (alone + width)))
    return cases


def settings(cpus: int) -> dict[str, dict[str, int]]:
    """What is compared: the default, the fixed ones, and a number of inter-op threads that is far too high."""
    fixed = {(1, 1), (1, cpus), (cpus, 1), (cpus, cpus)}
    named = {f"{inter} x {intra}": {"interop": inter, "intraop": intra} for inter, intra in sorted(fixed)}
    return {"default": {}, **named, "64": {"interop": 64}}


def compare(size: int, repeats: int, pause: float) -> str:
    """A table: for each graph the milliseconds of each setting, and how many times the best fixed one's they are."""
    a = (np.random.default_rng(0).random((size, size)) / (size / 2)).astype(
        np.float32
    )  # so that a chain stays near one
    wanted = settings(flow.parallel_info()["cpus"]["usable"])
    rows = []
    for name, run in graphs(size).items():
        cases = {setting: partial(_timed, run, a, numbers, pause) for setting, numbers in wanted.items()}
        measured = interleaved(cases, repeats)
        figures = {setting: Figure.of(values, 1e3) for setting, values in measured.items()}
        best = min(figure.median for setting, figure in figures.items() if "x" in setting)
        rows.append([name, *[f"{figure} {figure.median / best:.2f}x" for figure in figures.values()]])
    return table([f"{size} x {size}, ms", *wanted], rows)


def promises(repeats: int, pause: float) -> str:
    """Two branches of products against one BLAS thread in sequence; a chain against plain numpy. Default settings.

    Beside the branches what the machine allows: the same two products in two threads that wait for them, and no more.
    """
    rng = np.random.default_rng(0)
    small, large = (rng.random((n, n), dtype=np.float32) / n for n in (512, 1024))
    branches, ten = wide(2), chain(10)

    def sequence() -> None:
        with threadpoolctl.threadpool_limits(1):
            small @ small
            small @ small

    threads = ThreadPoolExecutor(2)
    list(threads.map(lambda _: time.sleep(0.01), range(2)))  # both have begun

    def side_by_side() -> None:
        with threadpoolctl.threadpool_limits(1):
            other = threads.submit(small.__matmul__, small)
            threads.submit(small.__matmul__, small).result()
            other.result()

    def plain() -> None:
        x = large
        for _ in range(10):
            x = x @ large

    cases: dict[str, Callable[[], float]] = {
        "branches": lambda: _best(lambda: branches.run(small), pause),
        "in sequence, one thread": lambda: _best(sequence, pause),
        "two bare threads": lambda: _best(side_by_side, pause),
        "chain": lambda: _best(lambda: ten.run(large), pause, 2),
        "plain numpy": lambda: _best(plain, pause, 2),
    }
    figures = {name: Figure.of(values, 1e3) for name, values in interleaved(cases, repeats).items()}
    threads.shutdown()
    pairs = [
        ("branches", "in sequence, one thread", "< 0.6"),
        ("two bare threads", "in sequence, one thread", "the limit"),
        ("chain", "plain numpy", "<= 1.15"),
    ]
    rows = [
        [
            f"{ours} / {theirs}",
            figures[ours],
            figures[theirs],
            f"{figures[ours].median / figures[theirs].median:.2f}",
            to,
        ]
        for ours, theirs, to in pairs
    ]
    return table(["default settings", "ms", "ms", "ratio", "goal"], rows)


def _timed(run: Any, a: Any, numbers: dict[str, int], pause: float) -> float:
    with flow.threads(**numbers):
        run.run(a)
        time.sleep(pause)
        return seconds(lambda: run.run(a))


def _best(call: Callable[[], Any], pause: float, times: int = 5) -> float:
    time.sleep(pause)
    return min(seconds(call) for _ in range(times))


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.threads", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size and few repeats")
    parser.add_argument("--repeats", type=int, help="rounds of measuring (default: 9, with --quick 3)")
    parser.add_argument("--sizes", type=int, nargs="+", help="of the matrices (default: 256 512 1024)")
    parser.add_argument("--pause", type=float, default=PAUSE, help="seconds before each timing (default: %(default)s)")
    options = parser.parse_args()
    repeats = options.repeats or (3 if options.quick else 9)
    warnings.simplefilter("ignore")  # one setting wants more threads than there are CPUs
    print(flow.parallel_info(), end="\n\n")
    print(f"load {os.getloadavg()[0]:.2f} before, {repeats} rounds\n")
    print(promises(repeats, options.pause), end="\n\n", flush=True)
    for size in options.sizes or ([512] if options.quick else [256, 512, 1024]):
        print(compare(size, repeats, options.pause), end="\n\n", flush=True)
    print(f"load {os.getloadavg()[0]:.2f} after")


if __name__ == "__main__":
    main()
