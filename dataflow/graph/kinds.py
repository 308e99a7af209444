"""How a step is executed: one byte for each step of a plan, which the scheduler reads as well."""

from __future__ import annotations

from typing import Final

__all__ = ["KERNEL", "LIMITED", "MANAGED", "ON_LOOP"]

KERNEL: Final = 0
"""By a worker."""
ON_LOOP: Final = 1
"""On the event loop: an async operator."""
MANAGED: Final = 2
"""By a worker, perhaps several times, or for no longer than so long: a kernel with retries or a timeout."""
LIMITED: Final = 3
"""A managed kernel that needs a permit first."""
