"""How a step is executed: one byte for each step of a plan, which the scheduler reads as well."""

from __future__ import annotations

from typing import Final

__all__ = ["KERNEL", "LIMITED", "LIMITED_ON_LOOP", "MANAGED", "ON_LOOP"]

KERNEL: Final = 0
"""By a worker."""
ON_LOOP: Final = 1
"""On the event loop: an async operator."""
LIMITED_ON_LOOP: Final = 2
"""The same, and it needs a permit first."""
MANAGED: Final = 3
"""By a worker, perhaps several times, or for no longer than so long: a kernel with retries or a timeout. This number
and higher ones are those of managed kernels."""
LIMITED: Final = 4
"""The same, and it needs a permit first."""
