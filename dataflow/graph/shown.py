"""What the runs of a plan have shown so far: all that is remembered of them."""

from __future__ import annotations

__all__ = ["UNKNOWN", "Shown"]

LONGEST_GAP = 64
"""Some ten milliseconds of kernels: what a trial costs is little beside that."""
UNKNOWN = 2
"""It has not been executed step by step yet."""


class Shown:
    """Of one plan. Workers write it without a lock: whatever it says, results are the same."""

    __slots__ = ("_gap", "_left", "light", "long", "to_beat")

    def __init__(self, size: int) -> None:
        self._gap = self._left = 1
        self.to_beat = 0.0
        """If one worker was quicker than several, seconds for each kernel in which these had executed them; else 0."""
        self.light = False
        """Whether the last run ended with one worker, since its kernels were too light for several."""
        self.long = bytearray([UNKNOWN]) * size
        """For each step, whether its kernel took long enough, the last time, for BLAS threads to matter."""

    def tries(self) -> bool:
        """Whether it is time to try one worker alone, though the kernels seem too long for that; asked every sixteen
        kernels of a worker. Each time it is twice as long until the next one, up to a bound."""
        self._left -= 1
        if self._left > 0:
            return False
        self._gap = self._left = min(2 * self._gap, LONGEST_GAP)
        return True
