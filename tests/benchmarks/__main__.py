"""The command: prints every table, with the machine it was measured on."""

from __future__ import annotations

import os

# Before numpy is loaded: BLAS at one thread, and the kernel that it chooses itself for this CPU.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import argparse  # noqa: E402
import asyncio  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from time import perf_counter  # noqa: E402

from tests.benchmarks.adapters import left_out  # noqa: E402
from tests.benchmarks.check import check_all  # noqa: E402
from tests.benchmarks.effort import FULL, QUICK, Effort  # noqa: E402
from tests.benchmarks.measure import machine, new_event_loop  # noqa: E402
from tests.benchmarks.metg import metg  # noqa: E402
from tests.benchmarks.sections import SECTIONS  # noqa: E402


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer patterns, sizes and rounds: under a minute")
    parser.add_argument("--only", type=_sections, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--nodes", type=int, help="nodes of a graph of empty kernels (default: 10,000)")
    parser.add_argument("--threads", type=int, help="inter-op threads (default: 2)")
    parser.add_argument("--rounds", type=int, help="rounds of measuring (default: 7, with --quick 3)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw efficiency against granularity (metg)")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("nodes", "threads", "rounds") if getattr(options, name)}
    effort = replace(QUICK if options.quick else FULL, **given)
    if options.plot:
        SECTIONS["metg"] = partial(metg, plot=options.plot)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_measure(options.only, effort))


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"no such section: {', '.join(sorted(unknown))}")
    return names


async def _measure(names: list[str], effort: Effort) -> None:
    begun = perf_counter()
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    print(f"{machine()}; {effort.threads} inter-op threads, loop of {loop}, {effort.rounds} rounds", flush=True)
    await check_all(effort.threads)
    print("every adapter's results are those of the bare loop, on every pattern, with every kernel called once")
    if missing := left_out():
        print(missing)
    for name in names:
        print(f"\n## {name}\n\n{await SECTIONS[name](effort)}", flush=True)
    print(f"\n{perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
