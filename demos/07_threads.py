"""Inter-op x intra-op: one process, a few CPUs, and who uses them: kernels side by side, or BLAS inside each kernel.

chain:  a --> product --> product --> ... --> product       one kernel at a time: BLAS should have all CPUs

              +--> product --+
wide:   a ----+--> ...       +--> mean                      many at a time: each kernel should have one BLAS thread
              +--> product --+
"""

import time
import warnings

import numpy as np

import dataflow as flow

SIZE, PRODUCTS, ROUNDS = 512, 16, 5


@flow.op
def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b


@flow.pipeline
def chain(a: np.ndarray) -> np.ndarray:
    x = a
    for _ in range(PRODUCTS):
        x = product(x, a)
    return x


@flow.pipeline
def wide(a: np.ndarray) -> np.ndarray:
    return sum(product(a, a) for _ in range(PRODUCTS)) / PRODUCTS


def milliseconds(pipeline, a: np.ndarray) -> float:
    """The best of a few runs; the best, since the machine may have other things to do."""
    taken = []
    for _ in range(ROUNDS):
        before = time.perf_counter()
        pipeline.run(a)
        taken.append(time.perf_counter() - before)
    return 1e3 * min(taken)


a = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32) / SIZE
np.testing.assert_allclose(wide.run(a), a @ a, rtol=1e-4)
np.testing.assert_allclose(chain.run(a), np.linalg.matrix_power(a.astype(float), PRODUCTS + 1), rtol=1e-3)
cpus = flow.parallel_info()["cpus"]["usable"]
warnings.simplefilter("ignore")  # the last setting wants more threads than there are CPUs, and is told so
print(f"{PRODUCTS} products of {SIZE} x {SIZE}, ms       chain    wide")
for name, numbers in [("1 x 1", (1, 1)), (f"1 x {cpus}", (1, cpus)), (f"{cpus} x 1", (cpus, 1)), ("default", ())]:
    with flow.threads(**dict(zip(("interop", "intraop"), numbers))):
        print(f"{name:>9} inter-op x intra-op  {milliseconds(chain, a):6.1f}  {milliseconds(wide, a):6.1f}")
print("On idle CPUs each fixed setting loses on one of the two. The default gives a kernel that runs alone all CPUs.")
