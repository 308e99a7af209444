"""The measures by name, and the command line that runs them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from tests.benchmarks.adapters import missing
from tests.benchmarks.machine import Usage, machine
from tests.benchmarks.measure import Options
from tests.benchmarks.measures.build import build
from tests.benchmarks.measures.fairness import fairness
from tests.benchmarks.measures.first import first
from tests.benchmarks.measures.growth import growth
from tests.benchmarks.measures.lag import lag
from tests.benchmarks.measures.latency import latency
from tests.benchmarks.measures.memory import memory
from tests.benchmarks.measures.metg import metg
from tests.benchmarks.measures.network import network
from tests.benchmarks.measures.overhead import overhead
from tests.benchmarks.measures.oversized import oversized
from tests.benchmarks.measures.sizes import sizes
from tests.benchmarks.plot import plot
from tests.benchmarks.section import Section

__all__ = ["MEASURES", "main"]

MEASURES: dict[str, Callable[[Options], list[Section]]] = {
    "overhead": overhead,
    "first": first,
    "metg": metg,
    "sizes": sizes,
    "build": build,
    "growth": growth,
    "latency": latency,
    "lag": lag,
    "memory": memory,
    "fairness": fairness,
    "network": network,
    "oversized": oversized,
}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print; exits with 2 if `--only` names no measure."""
    options, only, picture = _parse(arguments)
    print(f"# Benchmarks\n\n{machine()}.\n")
    for line in missing():
        print(f"- {line}")
    print(flush=True)
    began = perf_counter()
    for name in only:
        before, usage = perf_counter(), Usage()
        for section in MEASURES[name](options):
            print(section, flush=True)
            if picture and section.curves:
                plot(section.curves, machine(), picture)
        print(f"Took {perf_counter() - before:.0f} s. {usage}\n", flush=True)
    print(f"Measured in {perf_counter() - began:.0f} s.")


def _parse(arguments: list[str] | None) -> tuple[Options, list[str], Path | None]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measures dataflow beside its alternatives, interleaved in one process.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer patterns, alternatives and rounds: under a minute")
    parser.add_argument("--only", type=_measures, default=list(MEASURES), metavar="A,B", help=", ".join(MEASURES))
    parser.add_argument("--nodes", type=_positive, default=10_000, help="nodes of a graph (default: %(default)s)")
    parser.add_argument("--threads", type=_positive, default=2, help="inter-op threads (default: %(default)s)")
    parser.add_argument("--repeats", type=_positive, help="rounds of measuring (default: 9, with --quick 3)")
    parser.add_argument("--no-pin", action="store_true", help="leave threads where the system puts them")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw what metg finds")
    given = parser.parse_args(arguments)
    if given.plot and "metg" not in given.only:
        parser.error("--plot draws what the measure metg finds: add it to --only")
    if given.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    repeats = given.repeats or (3 if given.quick else 9)
    return Options(given.threads, given.quick, given.nodes, repeats, not given.no_pin), given.only, given.plot


def _measures(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in MEASURES:
            raise argparse.ArgumentTypeError(f"no measure {name!r}: there are {', '.join(MEASURES)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number
