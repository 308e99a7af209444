"""The command: prints every table, with the machine it was measured on."""

from __future__ import annotations

import os

# Before numpy is loaded: BLAS at one thread, and the kernel that it chooses itself for this CPU.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import argparse  # noqa: E402
import sys  # noqa: E402

MAIN = ["wide", "chain", "stencil_1d", "fft", "tree", "random_nearest"]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer patterns and repeats: under a minute")
    parser.add_argument("--nodes", type=int, default=10_000, help="nodes of a graph (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="inter-op threads (default: %(default)s)")
    parser.add_argument("--repeats", type=int, help="rounds of measuring (default: 9, with --quick 3)")
    options = parser.parse_args()
    try:
        import dask  # noqa: F401
    except ImportError:
        sys.exit("the benchmarks compare with dask, which is not installed: pip install 'dataflow-runtime[bench]'")

    from tests.benchmarks.measure import machine
    from tests.benchmarks.overhead import build, latency, overhead

    repeats = options.repeats or (3 if options.quick else 9)
    patterns = MAIN[:3] if options.quick else MAIN
    print(f"{machine()}; {options.threads} inter-op threads, graphs of {options.nodes:,} nodes, {repeats} rounds\n")
    print("Empty kernels\n")
    print(overhead(patterns, options.nodes, options.threads, repeats), end="\n\n", flush=True)
    print("Before the first run, and the first run\n")
    print(build(patterns, options.nodes, repeats), end="\n\n", flush=True)
    print("A small pipeline\n")
    print(latency(5 * repeats))


if __name__ == "__main__":
    main()
