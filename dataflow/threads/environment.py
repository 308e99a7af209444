"""The environment variables that bear on threads, for `parallel_info`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dataflow.threads import blas, controller, settings

__all__ = ["variables"]

NAMES = sorted(
    {
        settings.INTEROP_VARIABLE,
        settings.INTRAOP_VARIABLE,
        controller.MANAGE_VARIABLE,
        *(name for names in blas.VARIABLES.values() for name in names),
        "OPENBLAS_CORETYPE",
        "OPENBLAS_DEFAULT_NUM_THREADS",
        "OPENBLAS_L2_SIZE",
        "OPENBLAS_THREAD_TIMEOUT",
        "OMP_DYNAMIC",
        "OMP_PROC_BIND",
        "OMP_WAIT_POLICY",
        "MKL_DYNAMIC",
        "KMP_AFFINITY",
        "KMP_BLOCKTIME",
        "GOMP_SPINCOUNT",
    }
)


def variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Those that are set, with their values.

    >>> variables({"OMP_NUM_THREADS": "2", "HOME": "/root"})
    {'OMP_NUM_THREADS': '2'}
    """
    return {name: environ[name] for name in NAMES if name in environ}
