"""`Limit`: how many operators that share one scarce thing may execute at once, in the whole process.

A *permit* is what an operator holds meanwhile. Kernels wait for one as steps of their run, async operators as
coroutines, any number of them, in the order of asking; no thread waits. A permit that comes back is handed to the first
who waits, who owns it from that moment on, whether its loop has heard of it or not.

Rules:

1. A permit comes back exactly once. One that was handed to a waiter who is gone (cancelled, or with a
   loop that was closed) goes on to the next.
2. While anybody waits, no permit is free: nobody who comes later goes first.
3. Permits of before a fork are worth nothing in the child, where all are free.
4. All this is decided under the engine's lock. The garbage collector may close a coroutine that holds a permit in the
   middle of anything, also in a thread that has the lock. So `give_back` never waits for the lock: what comes back is
   noted first (`_returned`), and where the lock is taken, the loop of the first who waits sees to it.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from contextlib import suppress
from itertools import islice
from operator import index
from threading import RLock
from typing import Any, Protocol, SupportsIndex
from uuid import uuid4

from dataflow.engine.lock import engine_lock

__all__ = ["Limit", "Permit", "Waiter"]

LOOKED_AT = 8
"""How many of those who wait, the first, are asked for their loop whenever somebody else begins to wait."""


class Permit:
    """Held by one operator; `give_back`, or `hand_on`, says that it is done. One that is let go of, as with a loop that
    was closed, comes back as well."""

    __slots__ = ("_epoch", "_held", "_limit")

    def __init__(self, limit: Limit, epoch: int) -> None:
        self._limit = limit
        self._epoch = epoch
        self._held = True

    def __del__(self) -> None:
        self.give_back()

    def give_back(self) -> None:
        """From any thread, also in the middle of anything; a second time does nothing."""
        if self._held:  # the collector may call for it before the coroutine that holds it is closed
            self._held = False
            self._limit._returned.append(self._epoch)
            self._limit._hand_on()

    def hand_on(self) -> Waiter | None:
        """The same under the lock; whom to `wake` after it."""
        self._held = False
        return self._limit._took_back(self._epoch)


class Waiter(Protocol):
    """Whoever waits for a permit."""

    loop: asyncio.AbstractEventLoop
    gone: bool
    """Whether it waits no longer; may be set without the lock."""

    def granted(self, permit: Permit) -> bool:
        """Under the lock: this is its permit; False if it is gone, and leaves it to others."""

    def wake(self) -> None:
        """After the lock: it was granted one."""


class _Coroutine:
    """A coroutine that waits. Its permit is in `permits` until somebody takes it out, which nobody can do twice."""

    __slots__ = ("future", "gone", "loop", "permits")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.gone = False
        self.permits: deque[Permit] = deque()

    def granted(self, permit: Permit) -> bool:
        self.permits.append(permit)
        return not self.gone or self.taken() is None  # else it has found it, and gives it back

    def taken(self) -> Permit | None:
        """Its permit, for whoever asks first."""
        try:
            return self.permits.popleft()
        except IndexError:
            return None

    def wake(self) -> None:
        try:
            self.loop.call_soon_threadsafe(_set, self.future)
        except RuntimeError:  # the loop was closed just now
            permit = self.taken()
            if permit is not None:
                permit.give_back()


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

    __slots__ = ("__weakref__", "_epoch", "_free", "_gone", "_key", "_lock", "_n", "_returned", "_waiting")

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
        self._lock = engine_lock()
        self._epoch += 1
        self._free = self._n
        self._returned: deque[int] = deque()
        """The epochs of permits that came back, and that nobody has seen to yet."""
        self._waiting: deque[Waiter] = deque()
        self._gone = 0
        """How many of these are gone, at the most."""

    @property
    def n(self) -> int:
        """How many may execute at once."""
        return self._n

    @property
    def available(self) -> int:
        """How many more could begin now."""
        return self._free + len(self._returned)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return sum(not waiter.gone and not waiter.loop.is_closed() for waiter in self._waiting.copy())

    def __repr__(self) -> str:
        return f"<Limit {self._n}: {self.available} available, {self.waiting} waiting>"

    async def _permit(self) -> Permit:
        """Wait for a permit. Cancelling this is harmless: none is lost."""
        waiter = _Coroutine()
        with self._lock:
            permit = self._take()
            if permit is None:
                self._wait(waiter)
        if permit is not None:
            return permit
        try:
            await waiter.future
        except BaseException:  # cancelled, or closed by the collector because its loop is gone
            waiter.gone = True
            permit = waiter.taken()
            if permit is not None:
                permit.give_back()
            elif self._lock.acquire(blocking=False):  # else it is passed over when its turn comes
                self._left(1)
                self._lock.release()
            raise
        permit = waiter.taken()
        assert permit is not None
        return permit

    # Under the lock.

    def _take(self) -> Permit | None:
        """A permit, if one is free."""
        while self._returned and not self._waiting:
            self._took_back(self._returned.popleft())
        if not self._free:
            self._forget_closed()
            return None
        self._free -= 1
        return Permit(self, self._epoch)

    def _wait(self, waiter: Waiter) -> None:
        """None was free: it waits for one."""
        self._waiting.append(waiter)
        if self._returned:  # after that: who gives back while we have the lock looks for somebody who waits
            with suppress(RuntimeError):  # its loop is closed
                waiter.loop.call_soon_threadsafe(self._hand_on)

    def _took_back(self, epoch: int) -> Waiter | None:
        """A permit came back. Whom it was handed to: to be woken after the lock."""
        if epoch != self._epoch:
            return None
        waiting, permit = self._waiting, Permit(self, epoch)
        while waiting:
            waiter = waiting.popleft()
            if not waiter.gone and not waiter.loop.is_closed() and waiter.granted(permit):
                return waiter
        permit._held = False
        self._free += 1
        return None

    def _forget_closed(self) -> None:
        """Who waits on a loop that was closed holds what it waits with, perhaps a permit of this very limit."""
        if any(waiter.loop.is_closed() for waiter in islice(self._waiting, LOOKED_AT)):
            self._waiting = deque(waiter for waiter in self._waiting if not waiter.loop.is_closed())

    def _left(self, count: int) -> None:
        """So many that wait are gone: when they are half of all, they are dropped."""
        self._gone += count
        if 2 * self._gone >= len(self._waiting):
            self._waiting = deque(waiter for waiter in self._waiting if not waiter.gone)
            self._gone = 0

    # In the middle of anything.

    def _hand_on(self) -> None:
        """See to what came back."""
        while self._returned:
            if not self._lock.acquire(blocking=False):
                for waiter in self._waiting.copy():
                    try:
                        waiter.loop.call_soon_threadsafe(self._hand_on)
                        return
                    except RuntimeError:  # it is closed
                        continue
                return  # nobody waits: whoever asks next sees to it
            woken = []
            try:
                while self._returned:
                    woken.append(self._took_back(self._returned.popleft()))
            finally:
                self._lock.release()
            for found in woken:
                if found is not None:
                    found.wake()


def _set(future: asyncio.Future[None]) -> None:
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
