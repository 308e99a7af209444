"""The executors of a pool: a bounded one, and one more for workers on slots that kernels have lent.

A kernel that waits for its inner run keeps its thread. So while slots are lent there may be more workers than the
bounded executor has threads, and those beyond find theirs in the *spare* one.

Threads outlive the run for which they are started. They start in an empty context: on builds where a thread inherits
the context of who starts it (`sys.flags.thread_inherit_context`, the default of free-threaded ones), they would keep
the first caller's context variables, such as a request and its credentials, for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import ParamSpec

__all__ = ["THREAD_NAME", "Executors", "submit"]

P = ParamSpec("P")

THREAD_NAME = "dataflow-interop"


def submit(executor: ThreadPoolExecutor, job: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Have a thread of the executor do a job; one that is started for it starts in an empty context."""
    Context().run(executor.submit, job, *args, **kwargs)


class Executors:
    """Made when they are needed; each method is called under the engine's lock."""

    def __init__(self) -> None:
        self._bounded: ThreadPoolExecutor | None = None
        self._spare: ThreadPoolExecutor | None = None
        self.spares = 0
        """How many threads the spare one may have."""

    def __repr__(self) -> str:
        return f"<Executors {self._bounded!r}, {self.spares} spare threads>"

    def __contains__(self, executor: ThreadPoolExecutor | None) -> bool:
        """Whether its threads have a future: it is one of these, and not one that was retired."""
        return executor is not None and executor in (self._bounded, self._spare)

    def for_one_more(self, *, workers: int, limit: int, slots: int) -> ThreadPoolExecutor:
        """Where the last of so many workers finds a thread; `slots` is the limit, and what was lent."""
        if workers > limit:
            # As many threads as there are slots, since by now all workers may be here; and some more, lest it be
            # replaced for each slot that is lent.
            if self._spare is None or self.spares < slots:
                if self._spare is not None:
                    self._spare.shutdown(wait=False)
                self.spares = 2 * slots
                self._spare = ThreadPoolExecutor(self.spares, thread_name_prefix=THREAD_NAME)
            return self._spare
        if self._bounded is None:
            self._bounded = ThreadPoolExecutor(limit, thread_name_prefix=THREAD_NAME)
        return self._bounded

    def retire(self) -> list[ThreadPoolExecutor]:
        """Forget those there are, for others to be made; to be shut down by the caller, and not under the lock."""
        retired = [executor for executor in (self._bounded, self._spare) if executor is not None]
        self._bounded = self._spare = None
        return retired
