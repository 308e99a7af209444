"""Time and chance, as managed steps ask for them: one object, so that tests can put another in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import random
from typing import Protocol

__all__ = ["Clock", "Timer"]


class Timer(Protocol):
    """What `Clock.call_later` gives."""

    def cancel(self) -> object:
        """Nothing will be called."""


class Clock:
    """The real ones. Seconds throughout."""

    def now(self) -> float:
        """The time since some moment; in any thread."""
        return time.monotonic()

    def call_later(self, loop: asyncio.AbstractEventLoop, delay: float, call: Callable[[], object]) -> Timer:
        """Have something called on this loop, in whose thread we are, after a while."""
        return loop.call_later(delay, call)

    def rest(self, loop: asyncio.AbstractEventLoop, delay: float, call: Callable[[], object]) -> Timer:
        """The same, where it is the wait before a further attempt at a kernel."""
        return self.call_later(loop, delay, call)

    async def sleep(self, delay: float) -> None:
        """Wait a while."""
        await asyncio.sleep(delay)

    def random(self) -> float:
        """A number of at least 0 and less than 1."""
        return random()
