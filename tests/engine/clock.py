"""A clock that only tests move, and other help for steps that the event loop sees through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dataflow.engine.runs.clock import Clock


@dataclass(eq=False)
class FakeTimer:
    """Due at some time of the clock, if nobody cancels it."""

    due: float
    call: Callable[[], object]
    cancelled: bool = False
    sleep: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        self.call = lambda: None


class FakeClock(Clock):
    """Stands still until `advance`, which must be called on the loop; chance is what `chance` says."""

    def __init__(self) -> None:
        self.time = 0.0
        self.chance = 0.5
        self.timers: list[FakeTimer] = []
        self.asked: list[float] = []
        """The delays of all sleeps."""

    def now(self) -> float:
        return self.time

    def call_later(self, loop: asyncio.AbstractEventLoop, delay: float, call: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(self.time + delay, call)
        self.timers.append(timer)
        return timer

    def rest(self, loop: asyncio.AbstractEventLoop, delay: float, call: Callable[[], object]) -> FakeTimer:
        self.asked.append(delay)
        timer = self.call_later(loop, delay, call)
        timer.sleep = True
        return timer

    async def sleep(self, delay: float) -> None:
        self.asked.append(delay)
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = self.call_later(loop, delay, lambda: over.done() or over.set_result(None))
        timer.sleep = True
        try:
            await over
        finally:
            timer.cancel()

    def random(self) -> float:
        return self.chance

    @property
    def pending(self) -> int:
        """Timers that nobody has cancelled and that are not due yet."""
        return sum(not timer.cancelled for timer in self.timers)

    def end_sleeps(self) -> None:
        """Have all sleeps be over, while the time, and whatever else is to be called later, stands still."""
        for timer in [timer for timer in self.timers if timer.sleep and not timer.cancelled]:
            self.timers.remove(timer)
            timer.call()

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what becomes due, also what that sets up."""
        self.time += seconds
        while due := [timer for timer in self.timers if timer.due <= self.time and not timer.cancelled]:
            for timer in due:
                self.timers.remove(timer)
                timer.call()
        self.timers = [timer for timer in self.timers if not timer.cancelled]


async def until(condition: Callable[[], Any]) -> None:
    """Turn the loop until this holds."""
    for _ in range(2_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


async def failure(awaitable: Awaitable[Any]) -> BaseException:
    """What it raises; pytest.raises would keep its frames."""
    try:
        await awaitable
    except BaseException as exc:
        return exc
    raise AssertionError("it did not fail")
