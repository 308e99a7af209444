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

In one piece, since the consumer's side and the feeder's are two ends of one state.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import Context, ContextVar
from enum import Enum
from inspect import isasyncgen, isgenerator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from dataflow.engine.failure import trimmed
from dataflow.engine.items import Calls, Item, ItemState, OnError, OnFull, Options, StreamRun, caught
from dataflow.engine.loop import running_loop
from dataflow.engine.places import Host, Outcome, outlived
from dataflow.engine.run import here
from dataflow.engine.steps import Phase
from dataflow.errors import InternalError, Overloaded, RuntimeClosed
from dataflow.graph.readonly import writable

__all__ = ["Stream"]

logger = logging.getLogger("dataflow")
R_co = TypeVar("R_co", covariant=True)

TURN = 8
"""Items that the feeder begins before it lets the loop go on: a source that always has one must not starve it."""

_END = object()
"""The source has no more."""


class Progress(Enum):
    """What can be said of a stream."""

    NEW = "not begun"
    ENTERED = "entered"
    """By `async with`: it is its own iterator."""
    ITERATED = "iterated"
    """By a plain `async for`, whose generator has entered it."""
    CLOSING = "closing"
    ENDED = "ended"


_OPEN = (Progress.ENTERED, Progress.ITERATED)
_MOVES = {
    Progress.NEW: (*_OPEN, Progress.ENDED),
    Progress.ENTERED: (Progress.CLOSING, Progress.ENDED),
    Progress.ITERATED: (Progress.CLOSING, Progress.ENDED),
    Progress.CLOSING: (Progress.ENDED,),
    Progress.ENDED: (),
}
"""Straight from open to ended: the feeder was cancelled before its first step."""


class _Bell:
    """Wakes the one who waits for it; one that rings while nobody waits is not heard."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Until it rings. Cancelling this is harmless."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def ring(self) -> None:
        """Wake whoever waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Within:
    """Says in a context that it is inside the items of a stream, or pulls its source."""

    __slots__ = ("outer", "stream")

    def __init__(self, stream: Stream[Any], outer: _Within | None) -> None:
        self.stream = weakref.ref(stream)
        self.outer = outer


_innermost: ContextVar[_Within | None] = ContextVar("dataflow_stream", default=None)


def _within(stream: Stream[Any]) -> bool:
    """Whether whoever calls this is inside of it."""
    within = _innermost.get()
    while within is not None:
        if within.stream() is stream:
            return True
        within = within.outer
    return False


class _Guest:
    """A stream as its runtime sees it, which is in any thread."""

    __slots__ = ("_stream", "__weakref__")

    def __init__(self, stream: Stream[Any]) -> None:
        self._stream = stream

    def stop(self, error: BaseException | None = None) -> None:
        """See `Holder`."""
        loop = self._stream._loop
        assert loop is not None
        with suppress(RuntimeError):  # it is closed, and nothing is left
            loop.call_soon_threadsafe(self._stream._expelled, error)

    def still_running(self) -> tuple[str, ...]:
        """See `Holder`."""
        runs = [item.run for item in list(self._stream._dying)]
        return tuple(name for run in runs if run is not None for name in run.still_running())


class Stream(Generic[R_co]):
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

    __slots__ = (
        "_bell",
        "_by_hand",
        "_calls",
        "_context",
        "_doomed",
        "_dropped",
        "_dying",
        "_ended",
        "_error",
        "_exhausted",
        "_feeder",
        "_host",
        "_items",
        "_lodged",
        "_loop",
        "_looped",
        "_news",
        "_options",
        "_outcome",
        "_progress",
        "_pulled",
        "_refusal",
        "_source",
        "_taking",
        "_turn",
        "__weakref__",
    )

    def __init__(self, calls: Calls, source: Any, options: Options, context: Context, host: Host | None = None) -> None:
        self._calls = calls
        self._source = source
        """The iterable, and once the feeder has begun its iterator."""
        self._options = options
        self._context = context
        self._host = host
        """The bounded runtime in which it takes a place, if there is one."""
        self._lodged = host is None
        """Whether it has a place, or needs none."""
        self._progress = Progress.NEW
        self._loop: asyncio.AbstractEventLoop | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._bell = _Bell()
        """For the feeder: an item was handed out, or a dropped one is settled."""
        self._news = _Bell()
        """For the consumer: an item may be ready, or none will come any more."""
        self._items: OrderedDict[int, Item] = OrderedDict()
        """What is undelivered, by number."""
        self._ended: deque[int] = deque()
        """If results come as they end: the numbers of the items that have, in that order."""
        self._dying: set[Item] = set()
        """Dropped items whose runs are not settled yet."""
        self._pulled = self._dropped = 0
        self._exhausted = False
        """Whether the source has no more, or has failed."""
        self._doomed = False
        """Whether an item has failed that will end the stream: nothing more is pulled, nor dropped."""
        self._error: BaseException | None = None
        """What the source failed with, until it is raised."""
        self._refusal: BaseException | None = None
        """Why its runtime gives it no place, or takes that away, until it is raised."""
        self._outcome = Outcome.DONE
        """How it ended, for its runtime; also if its consumer had enough."""
        self._turn = 0
        """How many items were pulled since the feeder last waited."""
        self._taking = False
        """Whether somebody is in `__anext__`, or waits for the place."""
        self._by_hand = self._looped = False
        """Whether it was entered by `async with`, and whether a loop over it has begun since."""

    @property
    def name(self) -> str:
        """What the pipeline is called in errors."""
        return self._calls.name

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
        if not self._lodged:
            await self._until_lodged()
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
        self._context.run(_innermost.set, _Within(self, self._context.get(_innermost)))
        if self._host is None:  # made by what a run has left behind, it is for the runtime of that run
            self._host = outlived(self._context)
            self._lodged = self._host is None
        feed, name = self._feed(), f"dataflow stream of {self.name}"
        try:
            # In the context rather than with it as an argument; see `HostedRun._start_task`.
            self._feeder = self._context.copy().run(self._loop.create_task, feed, name=name)
        except BaseException:  # the user's task factory failed
            feed.close()
            self._finish()
            raise
        self._feeder.add_done_callback(self._finish)

    async def _until_lodged(self) -> None:
        """Wait until it has a place in its runtime; raise why it gets none."""
        self._taking = True
        try:
            while not self._lodged and self._progress in _OPEN:
                await self._news.wait()
        except asyncio.CancelledError:
            await self._close()
            raise
        finally:
            self._taking = False
        if not self._lodged:
            refusal, self._refusal = self._refusal, None
            await self._close()
            self._refusal = refusal
            del refusal
            self._raise_error()

    def _expelled(self, error: BaseException | None) -> None:
        """Its runtime is closed: the consumer gets the error."""
        feeder = self._feeder
        if self._progress in _OPEN and feeder is not None:
            self._refusal = error
            self._outcome = Outcome.CANCELLED
            self._move(Progress.CLOSING)
            feeder.cancel()

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
            while self._progress in _OPEN:
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
        return self._progress in _OPEN

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
        if self._is_open and _within(self):
            raise RuntimeError(
                f"a stream of {self.name!r} cannot be closed by an operator of its own items, for which it would wait"
            )
        if self._progress in _OPEN:
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

    def _finish(self, feeder: asyncio.Task[None] | None = None) -> None:
        """Nothing is left; called twice, by the feeder when it is done and by whoever waited for that."""
        if self._progress is Progress.ENDED:
            return
        self._move(Progress.ENDED)
        self._feeder = self._source = None
        self._news.ring()

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

    def _move(self, to: Progress) -> None:
        if to not in _MOVES[self._progress]:
            raise InternalError(f"a stream that is {self._progress.value} cannot become {to.value}")
        self._progress = to

    def _used(self, how: str) -> RuntimeError:
        what = "is under way" if self._progress in _OPEN else "has ended"
        return RuntimeError(
            f"a stream of {self.name!r} that {what} was {how} again: "
            "a stream is gone through once; make another with p.stream(...)"
        )

    # The feeder.

    async def _feed(self) -> None:
        """The task of the stream: when it ends, in whatever way, nothing of the stream is left."""
        leave: Callable[[Outcome], None] | None = None
        forgotten = False
        try:
            if self._host is not None:
                guest = _Guest(self)  # the place refers to it weakly
                leave = await self._host.lodge(guest, self.name, self._context)
                self._lodged = True
                self._news.ring()
            await self._pull()
            self._exhausted = True
            self._news.ring()
            while self._progress in _OPEN:
                await self._bell.wait()
        except asyncio.CancelledError:
            if self._progress in _OPEN:  # not by us: the loop shuts down, or somebody cancels all tasks
                self._error = asyncio.CancelledError(f"the stream of {self.name!r} was cancelled")
                self._outcome = Outcome.CANCELLED
        except GeneratorExit:  # nobody refers to it any more, nor to its loop
            forgotten = True
            self._outcome = Outcome.CANCELLED
            raise
        except (Overloaded, RuntimeClosed) as exc:  # the host's, since those of the source end in `_pull`
            self._refusal = trimmed(exc)
        except BaseException as exc:  # a bug of ours: the consumer must not wait for ever
            self._error = exc
        finally:
            try:
                if forgotten:  # by the collector, which cannot wait
                    self._drop_all()
                else:
                    await self._let_go()
            finally:
                if leave is not None:
                    leave(self._outcome)

    async def _pull(self) -> None:
        """Begin an item whenever there is room, until the source has no more, fails, or nobody wants more."""
        options, items = self._options, self._items
        running = asyncio.current_task()
        assert running is not None
        try:
            pull = self._puller()
            while True:
                await self._until_room()
                if not self._wants_more():
                    return
                value = await pull()
                if value is _END or not self._wants_more():  # the source may ignore being cancelled
                    return
                if outlived(self._context) is not None:
                    raise RuntimeClosed(f"a stream of {self.name!r} was begun inside a run, and that is over")
                while len(items) >= options.in_flight:
                    self._drop(items.popitem(last=False)[1])
                    self._dropped += 1
                self._begin(value)
                del value  # before anything waits
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError) and running.cancelling():
                raise
            if isinstance(exc, GeneratorExit) and not _is_current(running):  # not the source's: it is collected
                raise
            self._error = _of_source(exc)
            self._outcome = Outcome.FAILED

    def _wants_more(self) -> bool:
        return self._progress in _OPEN and not self._doomed

    async def _until_room(self) -> None:
        """Wait until an item may be pulled; every so often give the loop a turn all the same."""
        drops = self._options.on_full is OnFull.DROP_OLDEST
        self._turn += 1
        if drops or self._turn > TURN:
            self._turn = 1
            await asyncio.sleep(0)
        # What does not end although it was dropped takes up room as well.
        full = self._dying if drops else self._items
        while len(full) >= self._options.in_flight and not self._doomed:
            self._turn = 1
            await self._bell.wait()

    def _puller(self) -> Callable[[], Awaitable[Any]]:
        """What gives the next item of the source, or `_END`."""
        if not hasattr(type(self._source), "__aiter__"):
            iterator = self._source = iter(self._source)

            async def pull() -> Any:
                return next(iterator, _END)

            return pull
        advance = aiter(self._source)
        self._source = advance

        async def pull_async() -> Any:
            try:
                return await anext(advance)
            except StopAsyncIteration:
                return _END

        return pull_async

    def _begin(self, value: Any) -> None:
        """Begin the run of an item."""
        item = Item(self._pulled)
        self._pulled += 1
        try:
            self._bind(item, value)
        except Exception as exc:  # wrong arguments, or a body that cannot be traced
            item.value = trimmed(exc)
        del value
        self._items[item.number] = item
        if item.run is not None:
            item.run.start(item)
        else:
            self._over(item, ItemState.FAILED)
        del item  # what failed to bind keeps this frame

    def _bind(self, item: Item, value: Any) -> None:
        try:
            if self._options.copy:
                value = writable(value, copy=True)
            plan, inputs, item.token = self._calls.bind(value)
            assert self._loop is not None
            item.run = StreamRun(plan, inputs, self._context, self._loop, self._settled)
        finally:
            del item, value

    def _settled(self, item: Item) -> None:
        """The run of an item is over, and nothing of it is left on the loop."""
        if item.state is ItemState.DROPPED:
            self._dying.discard(item)
            item.abandon()
            self._bell.ring()
            return
        assert item.run is not None
        if item.run.core.phase is Phase.OPEN:
            item.value = item.run.outcome()  # at once: the run lets go of all else
            item.run = None
            self._over(item, ItemState.DONE)
        else:
            self._over(item, ItemState.FAILED)

    def _over(self, item: Item, state: ItemState) -> None:
        item.state = state
        if state is ItemState.FAILED and self._options.on_error is OnError.RAISE:
            self._doomed = True
            self._outcome = Outcome.FAILED
        if item.token is not None:
            self._calls.ended(item.token, succeeded=state is ItemState.DONE)
        if not self._options.ordered:
            self._ended.append(item.number)
        self._news.ring()

    def _drop(self, item: Item) -> None:
        """Nobody wants this item any more; it is no longer among the undelivered ones."""
        was, item.state = item.state, ItemState.DROPPED
        if was is ItemState.RUNNING:
            assert item.run is not None
            self._dying.add(item)
            item.run.stop()  # it is settled in the loop's next turn, or when its async ops have ended
            return
        item.abandon()
        if not self._options.ordered:
            self._ended.remove(item.number)

    def _drop_all(self) -> None:
        while self._items:
            self._drop(self._items.popitem()[1])  # the newest first: nothing starts in its place

    async def _let_go(self) -> None:
        """Stop what is under way, wait until nothing of it is left on the loop, and close the source."""
        if self._progress in _OPEN:
            self._move(Progress.CLOSING)
        self._drop_all()
        while self._dying:
            try:
                await self._bell.wait()
            except asyncio.CancelledError:  # async ops are awaited, whoever is in a hurry
                continue
        source, self._source = self._source, None
        try:
            if isasyncgen(source):
                await source.aclose()
            elif isgenerator(source):
                source.close()
        except BaseException as exc:
            if self._error is None and not isinstance(exc, asyncio.CancelledError):
                self._error = _of_source(exc)
            else:
                logger.error("the source of a stream of %r failed as it was closed", self.name, exc_info=exc)


def _is_current(task: asyncio.Task[Any]) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no loop runs here
        return False


def _of_source(exc: BaseException) -> BaseException:
    """What the consumer gets for what the source raised: itself, unless that would be taken for something else."""
    trimmed(exc)
    if not isinstance(exc, (asyncio.CancelledError, StopIteration, StopAsyncIteration, GeneratorExit)):
        return exc
    error = RuntimeError(f"the source of a stream raised {type(exc).__name__}, which cannot be passed on as it is")
    error.__cause__ = exc
    return error
