"""The watcher of a pool: a thread that looks at it again and again while something may be held up there.

    wake ─▶ awake: waits `delay` seconds, looks, and again ─▶ nothing is worth a look any more ─▶ sleeps
              ▲                                                                                     │
              └───────────────────────────── wake rings its bell ───────────────────────────────────┘

Whether it goes on is decided under the pool's lock, in the look itself: who needs it after that finds it asleep, and
wakes it. It begins with the first need of it, as a daemon: it holds nothing that an exit would have to wait for.

It also knows whether threads get their turn at the interpreter, since it asks for one at each look: lanes of light
kernels give way only if it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from enum import Enum
from threading import Event, Lock, Thread
from time import perf_counter

__all__ = ["CALM", "CROWDED", "DELAY", "GIVE_WAY", "Haste", "Watcher"]

DELAY = 200e-6
"""Seconds between two looks while heavy kernels wait that were not worth a lane; twice as long from look to look, up to
`CALM`, while all lanes that are wanted are there and get on: each look takes its turn at the interpreter from them."""
CALM = 2e-3
"""The same while only light kernels run or wait: they hold nothing up unless one was misjudged. A look costs the lane
up to 50 microseconds, for which it waits for the interpreter's lock: every 200 microseconds, looks nearly doubled the
time of a small run that is awaited over and over, and every millisecond, they cost a lane 4 % (2 CPUs, Python 3.11)."""
LINGER = 25
"""Looks at an idle pool before it sleeps: waking it costs the next small run more than they do."""
GIVE_WAY = 1e-3
"""Seconds after which a lane of light kernels lets other threads have the interpreter, if they cannot get it otherwise.
That takes it 75 to 90 microseconds, the least that a sleep takes, and shorter waits do not hand it over."""
SPARED = 4 * CALM
"""Seconds for which it need not do so after the watcher has had its turn at the interpreter in time: the kernels let it
go themselves, as most of numpy's do."""
CROWDED = 1.0
"""Seconds until that is tried again after it has failed: each trial may hold up the loop for `sys.getswitchinterval()`,
so the 99th percentile of its lag must not see them."""


class Haste(Enum):
    """When the next look is due."""

    URGENT = "heavy kernels wait, and nothing is known to come for them"
    LESSENS = "heavy kernels wait, and the lanes there are go from one to the next"
    NONE = "light kernels only"


class Watcher:
    """Looks by calling `look(late=…)`, which takes the lock, and says by `settle` or `sleep` how to go on."""

    def __init__(self, lock: Lock, look: Callable[[bool], bool]) -> None:
        self._lock = lock
        self._look = look
        self.awake = False
        """Whether it will look again; changed under the lock."""
        self.spared = 0.0
        """Until when lanes of light kernels need not give way."""
        self._crowded = 0.0
        """Until when it does not tell them so."""
        self._delay = CALM
        """Seconds until its next look."""
        self._patience = LINGER
        self._waited = False
        """Whether it had to wait for the interpreter when it looked last."""
        self._bell: Event | None = None
        """Set to wake it, or have it look sooner; None: there is no thread."""

    def __repr__(self) -> str:
        return f"<Watcher {'awake' if self.awake else 'asleep'}>"

    def wake(self, delay: float = CALM) -> None:
        """Something waits while a slot is free: look from `delay` seconds on. Takes the lock."""
        with self._lock:
            if self.awake and delay >= self._delay:
                return
            self.awake = True
            self._delay = delay
            self._patience = LINGER
            if self._bell is not None:
                self._bell.set()
                return
            self._bell = bell = Event()
        thread = Thread(target=self._keep_watch, args=(bell,), name="dataflow-watcher", daemon=True)
        try:
            Context().run(thread.start)  # as lanes do, see `executors`
        except RuntimeError:  # no thread to be had: the interpreter is closing, or the machine is full
            with self._lock:
                self.awake, self._bell = False, None

    # In a look, under the lock.

    def sleep(self) -> bool:
        """There is nothing to look for; whoever changes that wakes it. False: as it is to be returned by the look."""
        self.awake = False
        return False

    def settle(self, *, worth: bool, idle: bool, haste: Haste) -> bool:
        """How to go on: there was something `worth` looking at, or nothing runs (`idle`); and when to look again."""
        self._patience = LINGER if worth else self._patience - 1 if idle else -1
        if haste is Haste.LESSENS:
            self._delay = min(2 * self._delay, CALM)
        else:
            self._delay = DELAY if haste is Haste.URGENT else CALM
        self.awake = self._patience >= 0
        return self.awake

    # Its thread.

    def _keep_watch(self, bell: Event) -> None:
        try:
            while True:
                delay, before = self._delay, perf_counter()
                if bell.wait(delay):  # something more urgent
                    bell.clear()
                    continue
                now = perf_counter()
                self.had_its_turn(now, late=now - before - delay)
                if not self._look(now - before > 2 * delay):
                    bell.wait()
                    bell.clear()
        except BaseException:  # a bug of ours: the next one who needs it starts another
            with self._lock:
                self.awake, self._bell = False, None
            raise

    def had_its_turn(self, now: float, *, late: float) -> None:
        """It had to wait so long for the interpreter, as the loop would have had to."""
        if late < GIVE_WAY:
            self._waited = False
            if now > self._crowded:
                self.spared = now + SPARED
        elif not self._waited:  # once may be the machine
            self._waited = True
        else:
            self._crowded = now + CROWDED
            self.spared = 0.0
