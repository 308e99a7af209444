"""What is said of libraries that do not do as they are told, or not safely, and how it is said from any thread."""

from __future__ import annotations

import logging
import warnings

from dataflow.threads.blas import Library, Reach, flaws

__all__ = ["of_flaw", "of_refusal", "warn"]

logger = logging.getLogger("dataflow")


def of_refusal(library: Library, wanted: int, count: int | None) -> str:
    """It was to use `wanted` threads and uses `count`, as read back."""
    name = f"{library.kind} {library.version or ''}".strip()
    if library.cap is not None and library.cap < wanted:
        why = f"the environment allows it {library.cap} threads"
    elif library.reach is Reach.NOBODY:
        why = "it cannot be controlled"
    else:
        why = f"it uses {count} threads, as read back"
    return f"{name} does not use {wanted} intra-op threads: {why} ({library.path})"


def of_flaw(library: Library) -> str | None:
    """Several multi-threaded calls at once may be wrong; None if nothing is known."""
    flaw = flaws(library.kind, library.version)
    if flaw is None:
        return None
    return (
        f"several kernels run with several BLAS threads each, and in {library.kind} {library.version} {flaw}: "
        "leave the intra-op threads to their default, or set either number of threads to 1"
    )


def warn(complaint: str) -> None:
    """As a RuntimeWarning; as a log record where warnings are errors."""
    try:
        warnings.warn(complaint, RuntimeWarning, stacklevel=4)
    except RuntimeWarning:
        # Warnings are errors here, and this thread may be a worker, whose run has done nothing wrong.
        logger.warning("%s", complaint)
