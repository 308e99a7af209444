"""The monitor: a thread that looks for workers that are held up while others could go on in their place.

    wake ─▶ awake: waits, looks, and again ─▶ for a while there was nothing to look at ─▶ sleeps
              ▲                                                                              │
              └────────────────────── wake rings its bell ───────────────────────────────────┘

Only a worker that is alone with a run can hold up anything: in all other cases whatever is ready is for everybody. So
the monitor is awake while there is such a worker, and a little longer, since waking it costs more than some looks. As
long as the worker gets on, it looks after 1, 2, 4 and then every 8 milliseconds.

It begins with the first need of it, as a daemon: it holds nothing that an exit would have to wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context
from enum import IntEnum
from threading import Lock, Thread

__all__ = ["Monitor", "View"]

logger = logging.getLogger("dataflow")

FIRST, LAST = 1e-3, 8e-3
"""Seconds between two looks, at first and at last."""
LINGER = 50e-3
"""Seconds for which it goes on looking where there is nothing to look at."""


class View(IntEnum):
    """What a look has found."""

    NOTHING = 0
    FINE = 1
    HELD_UP = 2


class Monitor:
    """Looks by calling `look`, without a lock; `awake` is changed under the lock of whoever makes it."""

    def __init__(self, lock: Lock, look: Callable[[], View]) -> None:
        self._lock = lock
        self._look = look
        self._bell = Lock()
        self._bell.acquire()
        self._thread: Thread | None = None
        self.awake = False

    def wake(self) -> None:
        """There is something to look at. Not under the lock: starting a thread takes a while."""
        with self._lock:
            if self.awake:
                return
            self.awake = True
            begins = self._thread is None
            if begins:
                self._thread = Thread(target=self._work, name="dataflow-monitor", daemon=True)
            thread = self._thread
        if not begins:
            self._bell.release()
            return
        try:
            assert thread is not None
            Context().run(thread.start)
        except RuntimeError as exc:  # there is none to be had: runs go on, and who is held up stays so for now
            with self._lock:
                self._thread, self.awake = None, False
            logger.debug("no thread could be started for the monitor", exc_info=exc)

    def _work(self) -> None:
        while True:
            delay, idle = FIRST, 0.0
            while idle < LINGER:
                self._bell.acquire(timeout=delay)
                try:
                    view = self._look()
                except Exception:  # a bug of ours: it is needed again
                    logger.exception("the monitor could not look")
                    view = View.NOTHING
                idle = idle + delay if view == View.NOTHING else 0.0
                delay = FIRST if view == View.HELD_UP else min(2 * delay, LAST)
            with self._lock:
                self.awake = False
            self._bell.acquire()
