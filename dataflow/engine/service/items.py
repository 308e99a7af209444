"""The items of a stream: what is asked of each, how it runs, and what became of it.

RUNNING ─▶ DONE or FAILED ─▶ handed out
   └────────────┴──────────▶ DROPPED: nobody wants it any more
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from enum import Enum
from time import time_ns
from typing import Any, Protocol

from dataflow.engine.runs.driver import begin
from dataflow.engine.runs.failure import forget_item, in_item
from dataflow.engine.runs.hosted import HostedRun
from dataflow.events import RunEnded, observed
from dataflow.graph.plan import Plan

__all__ = ["Calls", "Item", "ItemState", "OnError", "OnFull", "Options", "StreamRun", "caught"]

logger = logging.getLogger("dataflow")


class OnError(Enum):
    """What a failing item does."""

    RAISE = "raise"
    YIELD = "yield"


class OnFull(Enum):
    """What is done when as many items are undelivered as may be, and the source has another."""

    WAIT = "wait"
    DROP_OLDEST = "drop_oldest"


@dataclass(frozen=True, slots=True)
class Options:
    """How a stream behaves; see `stream` of a pipeline."""

    in_flight: int
    ordered: bool
    on_error: OnError
    on_full: OnFull
    copy: bool


class Calls(Protocol):
    """What a stream runs for each item: the face's, which binds arguments and minds what items carry on."""

    @property
    def name(self) -> str:
        """Of the pipeline."""

    def bind(self, value: Any) -> tuple[Plan, list[Any], Any]:
        """The plan and the inputs for an item, and a token by which it is spoken of below."""

    def ended(self, token: Any, *, succeeded: bool) -> None:
        """The run of this item is over, and was not stopped from outside."""

    def delivered(self, token: Any, number: int) -> None:
        """The item is about to be handed to the consumer."""

    def carried(self) -> dict[str, Any] | None:
        """What the items handed out so far have carried on, if they carry anything."""


class ItemState(Enum):
    """What can be said of an item."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    DROPPED = "dropped"


class Item:
    """An item that was pulled and not yet handed out."""

    __slots__ = ("number", "run", "state", "token", "value")

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = ItemState.RUNNING
        self.run: StreamRun | None = None
        """None once it is done, and if its arguments could not be bound."""
        self.token: Any = None
        self.value: Any = None
        """The result; or the exception, if there is no run."""

    def __repr__(self) -> str:
        return f"<item {self.number}: {self.state.value}>"

    @property
    def error(self) -> BaseException | None:
        """What it failed with; it stays where it is."""
        found = self.run.error if self.run is not None else self.value
        return found if isinstance(found, BaseException) else None

    def raise_error(self) -> None:
        """Raise what it failed with, once; it says which item it was."""
        run, error = self.run, self.value
        self.run = self.value = None
        try:
            if run is not None:
                run.outcome()
            else:
                raise error
        except BaseException as exc:
            if run is None:  # else its outcome has seen to that
                forget_item(exc)
            in_item(exc, self.number, "the stream")
            raise
        finally:
            del run, error

    def abandon(self) -> None:
        """Nobody will look at it: if it failed, the log is told."""
        run, error = self.run, self.error
        self.run = self.value = None
        if run is not None:
            run.abandon()
        elif error is not None:
            logger.error("late failure in a stream: item %d", self.number, exc_info=error)


class StreamRun(HostedRun):
    """The run of an item; `settled` is called once, in the loop's thread, when nothing of it is left there."""

    __slots__ = ("_item", "_settled")

    def __init__(
        self,
        plan: Plan,
        inputs: list[Any],
        context: Context,
        loop: asyncio.AbstractEventLoop,
        settled: Callable[[Item], None],
    ) -> None:
        super().__init__(plan, inputs, context, loop)
        self._settled: Callable[[Item], None] | None = settled
        self._item: Item | None = None

    @property
    def error(self) -> BaseException | None:
        """What it failed with, until that is raised or abandoned."""
        return self._error

    def start(self, item: Item) -> None:
        """Begin; in the loop's thread."""
        self._item = item
        begin(self)

    def news(self) -> None:
        """The loop's thread is where this run begins: no need to post."""
        self._on_loop()

    def changed(self) -> None:
        self.post()

    def _tell(self) -> None:
        if observed(RunEnded):
            self.over_at = time_ns()  # its outcome is asked for when its turn comes to be handed out
        settled, item = self._settled, self._item
        self._settled = self._item = None  # once, and no cycle
        if settled is not None and item is not None:
            settled(item)


def caught(item: Item) -> list[BaseException]:
    """What an item failed with, in a list for the caller to empty: else this frame and it would keep each other."""
    found: list[BaseException] = []
    try:
        item.raise_error()
    except BaseException as exc:
        # Without this frame and that of `raise_error`. `failure.cut` knows a delivery by the one behind them.
        ours = exc.__traceback__.tb_next if exc.__traceback__ is not None else None
        found.append(BaseException.with_traceback(exc, ours.tb_next if ours is not None else None))
        del ours
    del item
    return found
