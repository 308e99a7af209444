"""The command: prints every table, with the machine it was measured on."""

from __future__ import annotations

import os

# Before numpy is loaded: BLAS at one thread, and the kernel that it chooses itself for this CPU.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

from tests.benchmarks.suite import main  # noqa: E402

if __name__ == "__main__":
    main()
