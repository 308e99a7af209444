"""The source's side of a stream: the feeder, which pulls items and begins a run for each; see `stream`.

    source ── pull ──▶ item ── bind ──▶ run ──▶ settled ──▶ undelivered, until the consumer takes it out

It and the consumer's side are two ends of one state, which is here. All of it happens in the thread of one loop.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, ContextVar
from enum import Enum
from inspect import isasyncgen, isgenerator
from typing import Any

from dataflow.engine.runs.failure import trimmed
from dataflow.engine.service.items import Calls, Item, ItemState, OnError, OnFull, Options, StreamRun
from dataflow.engine.service.ticket import Host, Outcome, outlived
from dataflow.engine.steps import Phase
from dataflow.errors import InternalError, Overloaded, RuntimeClosed
from dataflow.graph.readonly import copied

__all__ = ["OPEN", "Feed", "Progress", "enter", "is_within"]

logger = logging.getLogger("dataflow")

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


OPEN = (Progress.ENTERED, Progress.ITERATED)
_MOVES = {
    Progress.NEW: (*OPEN, Progress.ENDED),
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

    def __init__(self, stream: Feed, outer: _Within | None) -> None:
        self.stream = weakref.ref(stream)
        self.outer = outer


_innermost: ContextVar[_Within | None] = ContextVar("dataflow_stream", default=None)


def enter(context: Context, stream: Feed) -> None:
    """From now on this context is inside of a stream."""
    context.run(_innermost.set, _Within(stream, context.get(_innermost)))


def is_within(stream: Feed) -> bool:
    """Whether whoever calls this is inside of it."""
    within = _innermost.get()
    while within is not None:
        if within.stream() is stream:
            return True
        within = within.outer
    return False


class _Held:
    """A stream as its runtime sees it, which is in any thread."""

    __slots__ = ("_stream", "__weakref__")

    def __init__(self, stream: Feed) -> None:
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


class Feed:
    """The state of a stream, and what its feeder does with it."""

    __slots__ = (
        "_bell",
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
        "_admitted",
        "_loop",
        "_news",
        "_options",
        "_outcome",
        "_progress",
        "_pulled",
        "_refusal",
        "_source",
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
        self._admitted = host is None
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

    @property
    def name(self) -> str:
        """What the pipeline is called in errors."""
        return self._calls.name

    def _expelled(self, error: BaseException | None) -> None:
        """Its runtime is closed: the consumer gets the error."""
        feeder = self._feeder
        if self._progress in OPEN and feeder is not None:
            self._refusal = error
            self._outcome = Outcome.CANCELLED
            self._move(Progress.CLOSING)
            feeder.cancel()

    def _finish(self, feeder: asyncio.Task[None] | None = None) -> None:
        """Nothing is left; called twice, by the feeder when it is done and by whoever waited for that."""
        if self._progress is Progress.ENDED:
            return
        self._move(Progress.ENDED)
        self._feeder = self._source = None
        self._news.ring()

    def _move(self, to: Progress) -> None:
        if to not in _MOVES[self._progress]:
            raise InternalError(f"a stream that is {self._progress.value} cannot become {to.value}")
        self._progress = to

    async def _feed(self) -> None:
        """The task of the stream: when it ends, in whatever way, nothing of the stream is left."""
        leave: Callable[[Outcome], None] | None = None
        forgotten = False
        try:
            if self._host is not None:
                held = _Held(self)  # the place refers to it weakly
                leave = await self._host.admit(held, self.name, self._context)
                self._admitted = True
                self._news.ring()
            await self._pull()
            self._exhausted = True
            self._news.ring()
            while self._progress in OPEN:
                await self._bell.wait()
        except asyncio.CancelledError:
            if self._progress in OPEN:  # not by us: the loop shuts down, or somebody cancels all tasks
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
        return self._progress in OPEN and not self._doomed

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
                value = copied(value)
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
        if self._progress in OPEN:
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
