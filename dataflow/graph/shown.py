"""What the runs of a plan have shown so far: all that is remembered of them."""

from __future__ import annotations

__all__ = ["UNKNOWN", "Shown"]

UNKNOWN = 2
"""It has not been executed step by step yet."""


class Shown:
    """Of one plan. Workers write it without a lock: whatever it says, results are the same."""

    __slots__ = ("light", "long")

    def __init__(self, size: int) -> None:
        self.light = False
        """Whether the last run ended with one worker, since its kernels were too light for several."""
        self.long = bytearray([UNKNOWN]) * size
        """For each step, whether its kernel took long enough, the last time, for BLAS threads to matter."""
