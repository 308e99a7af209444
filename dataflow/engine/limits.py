"""`Limit`: how many operators that share one scarce thing may execute at once, in the whole process.

A *permit* is what an operator holds meanwhile. Permits are waited for on event loops, any number of them, in the order
of asking; no thread waits. A permit that comes back is handed to the first who waits, who owns it from that moment on,
whether its loop has heard of it or not.

Rules:

1. Whoever has a permit gives it back exactly once. One that was handed to a waiter who is gone (cancelled, or with a
   loop that was closed) goes on to the next.
2. While anybody waits, no permit is free: nobody who comes later goes first.
3. Permits of before a fork are worth nothing in the child, where all are free.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from operator import index
from threading import RLock
from typing import Any, SupportsIndex
from uuid import uuid4

__all__ = ["Limit", "Permit"]


class Permit:
    """Held by one operator; `give_back` says that it is done."""

    __slots__ = ("_epoch", "_limit")

    def __init__(self, limit: Limit, epoch: int) -> None:
        self._limit = limit
        self._epoch = epoch

    def give_back(self) -> None:
        """From any thread; only once."""
        self._limit._give_back(self._epoch)


class _Waiter:
    __slots__ = ("future", "given", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.given = False
        """Whether it has a permit; under the limit's lock."""


class Limit:
    """At most `n` of the operators that are declared with it execute at the same time, in the whole process.

        camera = flow.Limit(1)

        @flow.op(limit=camera)
        def expose(seconds): ...

        @flow.op(limit=camera)
        def focus(distance): ...

    For what cannot be used by many at once: a device, a file, a licence, a server. It counts over all operators that
    share it, all runs, event loops and threads. Who waits for it holds no thread, and all get their turn in the order
    of asking. A kernel has its turn until it returns, also when its run is over by then; an async operator until it has
    ended. A wait before a further attempt (`retries`) holds nothing.

    An operator that runs another one which shares its limit, by `p.run()` in a kernel say, would wait for itself: with
    `n` of them at once, for ever. `n` is an int of at least 1: TypeError, ValueError. After `os.fork()` nothing of it
    is taken in the child. Pickled, it is one of the other process there: the same for all that is sent with it.
    """

    __slots__ = ("__weakref__", "_epoch", "_free", "_key", "_lock", "_n", "_waiting")

    def __init__(self, n: SupportsIndex) -> None:
        if isinstance(n, bool) or not hasattr(type(n), "__index__"):
            raise TypeError(f"Limit: n must be an int, how many may execute at once, not {type(n).__name__}")
        self._n = index(n)
        if self._n < 1:
            raise ValueError(f"Limit: n must be at least 1, not {self._n}: with less, nothing would ever execute")
        self._key = uuid4().hex
        self._epoch = 0
        self._reset()
        _limits.add(self)

    def __reduce__(self) -> Any:
        _sent[self._key] = self
        return _arrived, (self._key, self._n)

    def _reset(self) -> None:
        # Reentrant: the collector may close a coroutine that was given a permit, and so give it back, while this very
        # thread holds the lock. What is done under it allows for that.
        self._lock = RLock()
        self._epoch += 1
        self._free = self._n
        self._waiting: deque[_Waiter] = deque()

    @property
    def n(self) -> int:
        """How many may execute at once."""
        return self._n

    @property
    def available(self) -> int:
        """How many more could begin now."""
        return self._free

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        with self._lock:
            waiting = list(self._waiting)
        return sum(not waiter.loop.is_closed() for waiter in waiting)

    def __repr__(self) -> str:
        return f"<Limit {self._n}: {self.available} available, {self.waiting} waiting>"

    async def _permit(self) -> Permit:
        """Wait for a permit. Cancelling this is harmless: none is lost."""
        waiter = _Waiter()
        with self._lock:
            epoch = self._epoch
            if self._free:
                self._free -= 1
                return Permit(self, epoch)
            self._waiting.append(waiter)
        try:
            await waiter.future
        except BaseException:  # cancelled, or closed by the collector because its loop is gone
            with self._lock:
                given, waiter.given = waiter.given, False
                if not given and waiter in self._waiting:
                    self._waiting.remove(waiter)
            if given:
                self._give_back(epoch)
            raise
        return Permit(self, epoch)

    def _give_back(self, epoch: int) -> None:
        """To the first who waits and whose loop is there."""
        while True:
            with self._lock:
                if epoch != self._epoch:
                    return
                try:
                    waiter = self._waiting.popleft()
                except IndexError:
                    self._free += 1
                    return
                waiter.given = True
            try:
                waiter.loop.call_soon_threadsafe(_wake, waiter.future)
                return
            except RuntimeError:  # that loop is closed: nobody waits there any more
                with self._lock:
                    if not waiter.given:  # its coroutine was closed, and has given it back
                        return
                    waiter.given = False


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _arrived(key: str, n: int) -> Limit:
    """What is unpickled: for each key one, as long as it lives."""
    with _arriving[0]:
        limit = _sent.get(key)
        if limit is None:
            limit = _sent[key] = Limit(n)
            limit._key = key
        return limit


_limits: weakref.WeakSet[Limit] = weakref.WeakSet()
"""For the fork: all there are."""
_sent: weakref.WeakValueDictionary[str, Limit] = weakref.WeakValueDictionary()
"""What was pickled, and what came of it."""
_arriving = [RLock()]


def _after_fork() -> None:
    for limit in list(_limits):
        limit._reset()
    _arriving[0] = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
