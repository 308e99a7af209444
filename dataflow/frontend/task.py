"""Tasks: operators started eagerly, for graphs that are known only while they run.

    left, right = conv.start(x, a), conv.start(x, b)      both begin now
    both = concat.start(left, right)                      begins when both are done
    await both

Each operator that is given a Task gets its result as it gets any argument: arrays as read-only views of its own. Who
awaits the Task gets the result itself, or a copy as long as operators that were given it have not ended.

A Task stands on one event loop. What it waits for are other Tasks among its arguments, also inside lists, tuples, dicts
and dataclasses; then its operator is a run of one node. Tasks elsewhere, coroutines and Futures are refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextvars import Context, copy_context
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dataflow.engine.runs.driver import MANY, off_loop
from dataflow.engine.runs.loop import running_loop
from dataflow.frontend.arguments import await_it
from dataflow.graph.nodes import Ref
from dataflow.graph.once import LOOKED_AT, ORDINARY, Later, close_coroutines, described, later_within
from dataflow.graph.pytree import ATOMS, larger_than, map_leaves
from dataflow.graph.readonly import PLAIN_RESULT, copied

__all__ = ["Task"]

R_co = TypeVar("R_co", covariant=True)

if TYPE_CHECKING:
    _Base = Any
else:
    _Base = object


class Task(Later, Awaitable[R_co], _Base):  # type: ignore[misc]  # the base Any lets a Task be an argument of any type
    """An operator under way, made by `Op.start`. Awaitable any number of times; must be used on its own loop."""

    def __init__(self, run: Callable[..., Coroutine[Any, Any, Any]], name: str, args: Any, kwargs: Any) -> None:
        self._name = name
        self._callbacks: list[tuple[Callable[[Any], object], Callable[[asyncio.Task[Any]], object]]] = []
        """What was given to `add_done_callback`, and what tells it; until it was called."""
        otherwise = f"{name}.start() needs a running event loop: call it in a coroutine, or call {name}(...) itself"
        loop = running_loop(f"{name}.start()", otherwise=otherwise)
        call = _Call(name, (args, kwargs))
        self._readers: set[asyncio.Task[Any]] = set()
        """The operators that were given this one and have not ended."""
        self._own: list[Any] = []
        """The copy that is the user's, if one had to be made: it is the result from then on."""
        needed = tuple(call.needed)  # the coroutine may begin at once
        self._task: asyncio.Task[Any] = loop.create_task(
            _when_ready(run, call), name=f"dataflow {name}", context=copy_context()
        )
        _read_by(self._task, needed)

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Wait for the result. An operator's exception arrives as it is; cancelling the awaiter cancels the Task.

        The result is the user's to write to. As long as operators that were given this Task have not ended, it is a
        copy: what is written to it is not seen by them. All awaiters get the same from then on.
        """
        # No `yield from`: a frame of ours, which holds the Task, would be part of the traceback that the Task holds.
        return _for_user(self._task, self._readers, self._own).__await__()

    # What asyncio asks of a Future: so Tasks work in `asyncio.wait`.

    def add_done_callback(self, callback: Callable[[Task[R_co]], object], *, context: Context | None = None) -> None:
        """Have `callback(task)` called on the Task's loop when it has ended; soon, if it has already."""

        def told(_: asyncio.Task[Any]) -> None:
            self._callbacks.remove((callback, told))
            callback(self)

        self._callbacks.append((callback, told))
        self._task.add_done_callback(told, context=context)

    def remove_done_callback(self, callback: Callable[[Task[R_co]], object]) -> int:
        """Take a callback back; returns how often it had been added."""
        found = [pair for pair in self._callbacks if pair[0] == callback]
        for pair in found:
            self._callbacks.remove(pair)
            self._task.remove_done_callback(pair[1])
        return len(found)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it stands on."""
        return self._task.get_loop()

    def cancel(self) -> bool:
        """Stop it, if it is not done: a kernel that has not started never does. Tasks that need it fail with that."""
        return self._task.cancel()

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._task.done()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._task.cancelled()

    def result(self) -> R_co:
        """The result of a Task that is done, as `await` gives it; its exception is raised, as is
        asyncio.InvalidStateError before that."""
        result: R_co = self._task.result()
        if not self._own and _is_shared(result, self._readers):
            self._own.append(copied(result))
        return cast(R_co, self._own[0]) if self._own else result

    def exception(self) -> BaseException | None:
        """The exception of a Task that is done, if it failed."""
        return self._task.exception()

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<Task {self._name}: {state}>"

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth value: await it for its result, or ask .done()")


async def _for_user(task: asyncio.Task[Any], readers: set[asyncio.Task[Any]], own: list[Any]) -> Any:
    """What an awaiter gets; a traceback that holds this frame holds no Task."""
    try:
        result = await task
    finally:
        del task
    if own or not _is_shared(result, readers):
        return own[0] if own else result
    own.append(copied(result))  # here: a worker may be free only when its readers have ended
    return own[0]


def _is_shared(result: Any, readers: set[asyncio.Task[Any]]) -> bool:
    """Whether somebody still reads a result that can be written to."""
    return bool(readers) and type(result) not in PLAIN_RESULT


def _read_by(reader: asyncio.Task[Any], tasks: Iterable[Task[Any]]) -> None:
    """Say so to the Tasks that an operator was given, until it has ended."""
    for task in () if reader.done() else tasks:
        task._readers.add(reader)
        reader.add_done_callback(task._readers.discard)


async def _when_ready(run: Callable[..., Coroutine[Any, Any, Any]], call: _Call) -> Any:
    if call.many:
        await off_loop(call.look_through, asyncio.get_running_loop())
        _read_by(cast("asyncio.Task[Any]", asyncio.current_task()), call.needed)
    known = await _results_of(call.needed)
    filled = partial(call.filled, known)
    args, kwargs = await off_loop(filled, asyncio.get_running_loop()) if call.many else filled()
    del call, known, filled
    begun = run(*args, **kwargs)
    del args, kwargs  # of what fails, the traceback holds this frame
    return await begun


async def _results_of(needed: list[Task[Any]]) -> list[Any]:
    """What these Tasks give; the list is emptied.

    The traceback of one that fails holds this frame and those that await it: so none of them may hold a Task then.
    """
    tasks = deque(task._task for task in needed)
    needed.clear()
    results: list[Any] = []
    try:
        while tasks:
            # Shielded: if this one is cancelled, others may still need that one.
            results.append(await asyncio.shield(tasks.popleft()))
    except BaseException:
        tasks.clear()
        results.clear()
        raise
    return results


class _Call:
    """The arguments of a call, and the Tasks among them.

    They are looked through here and now, so that mistakes are told at the call, and a list of Tasks may be used again
    after it; where there are `many`, that takes a while, and a worker does it.
    """

    def __init__(self, name: str, given: tuple[Any, Any]) -> None:
        self._name = name
        self._given = given
        """With a Ref for each Task once they were looked through."""
        self.needed: list[Task[Any]] = []
        self.many = larger_than(given, MANY)
        if not self.many:
            self.look_through()

    def look_through(self) -> None:
        """Find the Tasks. TypeError for one that would not be waited for, and for what else is no value yet."""
        self._given = map_leaves(self._leaf, self._given, into=self._into)

    def filled(self, known: list[Any]) -> Any:
        """The arguments, with these results in the places of Tasks."""
        if not known:
            return self._given
        return map_leaves(lambda leaf: known[leaf] if type(leaf) is Ref else leaf, self._given)

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, Task):
            if leaf._own:  # the user may have written to it since
                return leaf._own[0]
            self.needed.append(leaf)
            return Ref(len(self.needed) - 1)
        if type(leaf) not in ORDINARY:
            self._refuse_later(leaf)
        return leaf

    def _into(self, container: Any) -> bool:
        if type(container) is dict and not ATOMS.issuperset(map(type, islice(container, LOOKED_AT))):
            self._refuse_later(tuple(islice(container, LOOKED_AT)), container)
        return True

    def _refuse_later(self, value: Any, holder: Any = None) -> None:
        found = later_within(value)
        if found is None:
            return
        if isinstance(found, Task):
            where = described(value if holder is None else holder)
            raise TypeError(
                f"{self._name}.start() was given a Task inside of {where}, where it is not waited for: put it into a "
                "list, a tuple, a dict (as a value) or a dataclass, or await it before"
            )
        what = described(found)
        close_coroutines((found, self._given))
        raise TypeError(
            f"{self._name}.start() was given {what}, which is no value before it is awaited: {await_it(found)}, or the "
            "Task of an operator that does the same, `op.start(...)`"
        )
