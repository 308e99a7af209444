"""Streams: one run of a plan for each item of a source, several of them under way at once.

    source ─▶ feeder ─▶ run of item 2 ─┐
                        run of item 1 ─┼─▶ `__anext__`, in the order of the source or of their ends
                        run of item 0 ─┘

The *feeder* is the one task of a stream. It pulls the source while fewer than `in_flight` items are *undelivered*, that
is pulled and not yet handed to the consumer, and begins a run for each. Runs report to the stream from the loop; they
have no task. That items overlap in the graph needs nothing more: workers take turns between runs.

Rules:

1. Everything here happens in the thread of the loop on which the stream was entered.
2. The feeder lives as long as the stream is open, also after the end of the source, and when it ends nothing of the
   stream is left: runs are stopped, their async ops awaited, the source is closed. So whoever ends a stream (its
   consumer, `aclose`, a loop that shuts down and cancels all tasks) does it by cancelling the feeder.
3. Nobody but the feeder touches the source.
4. Each run ends in `outcome()`, or in `abandon()` if its item is never handed out.
5. In a bounded runtime the feeder takes the place, before it pulls, and leaves it as the last thing that it does.
6. Nothing is yielded in a cancel scope or a task group (PEP 789): the feeder never cancels the consumer.

Here is the consumer's side; the feeder's, and the state of both, is `feeder`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from dataflow.engine.runs.loop import running_loop
from dataflow.engine.runs.run import here
from dataflow.engine.service.feeder import OPEN, Feed, Progress, enter, is_within
from dataflow.engine.service.items import Calls, Item, ItemState, OnError, Options, caught
from dataflow.engine.service.ticket import Host, outlived
from dataflow.errors import InternalError

__all__ = ["Stream"]

logger = logging.getLogger("dataflow")
R_co = TypeVar("R_co", covariant=True)


class Stream(Feed, Generic[R_co]):
    """The results of a pipeline on each item of a source; made by `Pipeline.stream`, gone through once.

    `async with p.stream(source) as s: async for y in s`, or `async for y in p.stream(source)` alone. The first leaves
    nothing running when its block is left, in whatever way. The second does so when the loop over it is left for good:
    on `break` and on an exception, Python has the event loop finalise it, which takes a few turns of the loop.

    In a bounded `Runtime` it takes one place, for all of its items, from when it is entered until it has ended. It
    waits for that as runs do, and pulls nothing before. Entering raises `Overloaded` and `RuntimeClosed`; with a plain
    `async for`, the first item does. When the runtime is closed and its patience is at an end, the consumer gets
    RuntimeClosed. What the consumer itself runs there needs a place of its own. Entered inside a run, it needs no place
    and ends with that run: from then on no further item begins, and the consumer gets RuntimeClosed.

    It belongs to the event loop on which it is entered, and to one consumer at a time. Cancelling `__anext__` loses no
    item. RuntimeError for what would go through it twice, or at the same time.
    """

    __slots__ = ("_by_hand", "_looped", "_taking")

    def __init__(self, calls: Calls, source: Any, options: Options, context: Context, host: Host | None = None) -> None:
        super().__init__(calls, source, options, context, host)
        self._taking = False
        """Whether somebody is in `__anext__`, or waits for the place."""
        self._by_hand = self._looped = False
        """Whether it was entered by `async with`, and whether a loop over it has begun since."""

    @property
    def in_flight(self) -> int:
        """How many items are undelivered: pulled from the source and not yet handed to the consumer."""
        return len(self._items)

    @property
    def dropped(self) -> int:
        """How many items were dropped so far because the consumer was too slow (`on_full="drop_oldest"`)."""
        return self._dropped

    @property
    def carry(self) -> dict[str, Any] | None:
        """The state after the last item that was handed out, as a copy; before the first, the initial one.

        With `ordered=False`: after the latest of those, in the order of the source. None without `carry`.
        """
        return self._calls.carried()

    def __repr__(self) -> str:
        counts = f"{self._pulled} pulled, {len(self._items)} in flight, {self._dropped} dropped"
        return f"<stream of {self.name!r}: {self._progress.value}, {counts}>"

    # For the consumer.

    async def __aenter__(self) -> Stream[R_co]:
        self._open(Progress.ENTERED)
        self._by_hand = True
        if not self._admitted:
            await self._until_admitted()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()
        if exc is None:
            self._raise_error()
        self._unseen()

    def __aiter__(self) -> AsyncIterator[R_co]:
        if self._progress is Progress.NEW:
            return self._go_through()
        # It may have ended since it was entered: the first loop is told, and any other if there is an error to raise.
        news = self._is_open or not self._looped or self._error is not None or self._refusal is not None
        if not self._by_hand or not news:
            raise self._used("iterated over")
        self._looped = True
        return self

    async def __anext__(self) -> R_co:
        """The next result; the awaiter of a failing item or source gets its exception, and the stream has ended.

        Cancelling this takes nothing out of the stream.
        """
        if self._progress in (Progress.NEW, Progress.ITERATED):
            raise RuntimeError(
                f"a stream of {self.name!r} was asked for an item by hand: enter it first, "
                "`async with p.stream(...) as s`, or loop over it, `async for y in p.stream(...)`"
            )
        box = await self._take()
        if box is None:
            raise StopAsyncIteration
        return box.pop()

    async def aclose(self) -> None:
        """End it: no kernel starts any more, async operators are cancelled and awaited, the source is closed.

        Kernels that run finish unseen (`flow.quiet` waits for them). A consumer that waits gets StopAsyncIteration.
        May be called again, and before the stream was entered. Cancelling this does not leave anything behind: it
        raises CancelledError when everything has ended.
        """
        if self._progress is Progress.NEW:
            self._move(Progress.ENDED)
        await self._close()
        self._raise_error()

    async def _go_through(self) -> AsyncGenerator[R_co, None]:
        """What a plain `async for` iterates over; finalised when the loop lets go of it."""
        self._open(Progress.ITERATED)
        try:
            while (box := await self._take()) is not None:
                yield box.pop()
        finally:
            await self._close()
            self._unseen()

    def _open(self, progress: Progress) -> None:
        if here.run is not None:
            raise RuntimeError(
                f"a stream of {self.name!r} was entered inside a kernel, on a loop of the kernel's own: that "
                "would hold the kernel's inter-op thread while waiting for others; go through it outside"
            )
        if self._progress is not Progress.NEW:
            raise self._used("entered")
        self._loop = running_loop(f"a stream of {self.name!r}")
        self._move(progress)
        enter(self._context, self)
        if self._host is None:  # made by what a run has left behind, it is for the runtime of that run
            self._host = outlived(self._context)
            self._admitted = self._host is None
        feed, name = self._feed(), f"dataflow stream of {self.name}"
        try:
            # In the context rather than with it as an argument; see `HostedRun._start_task`.
            self._feeder = self._context.copy().run(self._loop.create_task, feed, name=name)
        except BaseException:  # the user's task factory failed
            feed.close()
            self._finish()
            raise
        self._feeder.add_done_callback(self._finish)

    async def _until_admitted(self) -> None:
        """Wait until it has a place in its runtime; raise why it gets none."""
        self._taking = True
        try:
            while not self._admitted and self._progress in OPEN:
                await self._news.wait()
        except asyncio.CancelledError:
            await self._close()
            raise
        finally:
            self._taking = False
        if not self._admitted:
            refusal, self._refusal = self._refusal, None
            await self._close()
            self._refusal = refusal
            del refusal
            self._raise_error()

    async def _take(self) -> list[R_co] | None:
        """The next result, in a list of its own so that no frame keeps it; None: there is none."""
        if self._taking:
            raise RuntimeError(
                f"two consumers wait at once for an item of a stream of {self.name!r}: "
                "give each a stream of its own, or let one take the items and pass them on"
            )
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise RuntimeError(f"a stream of {self.name!r} was entered on another event loop than this one")
        self._taking = True
        try:
            while self._progress in OPEN:
                item = self._ready()
                if item is not None:
                    return await self._handed_out(item)
                if self._exhausted and not self._items:
                    await self._end()
                    break
                await self._news.wait()
            self._raise_error()
            return None
        finally:
            self._taking = False
            item = None  # what is raised here keeps this frame

    def _ready(self) -> Item | None:
        """The item whose turn it is to be handed out, if it may be."""
        items = self._items
        if not self._options.ordered:
            return items[self._ended[0]] if self._ended else None
        for item in items.values():
            return item if item.state is not ItemState.RUNNING else None
        return None

    async def _handed_out(self, item: Item) -> list[R_co]:
        """Take this item out: its result, or its failure; which is raised, when the stream has ended."""
        del self._items[item.number]
        if not self._options.ordered:
            self._ended.popleft()
        self._bell.ring()
        if item.state is ItemState.DONE:
            self._calls.delivered(item.token, item.number)
            return [item.value]
        if self._options.on_error is OnError.YIELD and isinstance(item.error, Exception):
            if item.token is not None:
                self._calls.delivered(item.token, item.number)
            return cast("list[R_co]", caught(item))
        try:
            await self._close()
        except BaseException:
            item.abandon()
            raise
        try:
            item.raise_error()
        finally:
            del item
        raise InternalError("an item failed and has no error")

    @property
    def _is_open(self) -> bool:
        return self._progress in OPEN

    if not TYPE_CHECKING:  # for type checkers there are none of these

        def __iter__(self) -> None:
            raise TypeError(
                f"a stream of {self.name!r} gives its results asynchronously: write `async for y in p.stream(...)` "
                "in a coroutine; for all of them at once, `[y async for y in p.stream(...)]`"
            )

        def __await__(self) -> None:
            raise TypeError(
                f"a stream of {self.name!r} gives many results, so it is not awaited but gone through: "
                "`async for y in p.stream(...)`"
            )

        def __enter__(self) -> None:
            raise TypeError(
                f"a stream of {self.name!r} ends asynchronously: write `async with p.stream(...) as s:` in a coroutine"
            )

        def __exit__(self, *_: object) -> None:
            """`with` asks for it before it enters."""

    # The end.

    async def _end(self) -> None:
        """Close, for there is nothing more to hand out but what the source has failed with."""
        error, self._error = self._error, None
        try:
            await self._close()
        finally:
            if error is not None:
                self._error = error
            del error

    async def _close(self) -> None:
        """Have the feeder end, and wait until it has; cancelled meanwhile, wait none the less, and raise that then."""
        self._unseen()
        feeder = self._feeder
        if feeder is None:
            return
        if feeder is asyncio.current_task():
            raise RuntimeError(f"a stream of {self.name!r} cannot be closed by its own source")
        if self._is_open and is_within(self):
            raise RuntimeError(
                f"a stream of {self.name!r} cannot be closed by an operator of its own items, for which it would wait"
            )
        if self._progress in OPEN:
            self._move(Progress.CLOSING)
            feeder.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not feeder.done():
            try:
                await asyncio.wait([feeder])
            except asyncio.CancelledError as exc:
                cancelled = exc
        self._finish()
        if cancelled is not None:
            self._unseen()
            try:
                raise cancelled
            finally:
                del cancelled

    def _unseen(self) -> None:
        """What nobody is told goes to the log; but it is told elsewhere that the runtime was full, or closed."""
        error, self._error = self._error, None
        self._refusal = None
        if error is not None and not isinstance(error, asyncio.CancelledError):
            logger.error("the source of a stream of %r failed, which nobody waits for", self.name, exc_info=error)

    def _raise_error(self) -> None:
        """What the source failed with, unless it was raised, or what its closing did; or why there is no place."""
        error, self._error = self._error, None
        refusal, self._refusal = self._refusal, None
        if error is None:
            error = refusal
        del refusal
        if error is not None:
            try:
                raise error
            finally:
                del error, self

    def _used(self, how: str) -> RuntimeError:
        what = "is under way" if self._progress in OPEN else "has ended"
        return RuntimeError(
            f"a stream of {self.name!r} that {what} was {how} again: "
            "a stream is gone through once; make another with p.stream(...)"
        )
