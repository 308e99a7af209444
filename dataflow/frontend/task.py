"""Tasks: operators started eagerly, for graphs that are known only while they run.

    left, right = conv.start(x, a), conv.start(x, b)      both begin now
    both = concat.start(left, right)                      begins when both are done
    await both

A Task stands on one event loop. What it waits for are other Tasks among its arguments, also inside lists, tuples, dicts
and dataclasses; then its operator is a run of one node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow.engine.loop import running_loop
from dataflow.engine.runtime import MANY, off_loop
from dataflow.graph.nodes import Ref
from dataflow.graph.pytree import larger_than, map_leaves

__all__ = ["Task"]

R_co = TypeVar("R_co", covariant=True)

if TYPE_CHECKING:
    _Base = Any
else:
    _Base = object


class Task(Awaitable[R_co], _Base):  # type: ignore[misc]  # the base Any lets a Task be an argument of any type
    """An operator under way, made by `Op.start`. Awaitable any number of times; must be used on its own loop."""

    def __init__(self, run: Callable[..., Coroutine[Any, Any, Any]], name: str, args: Any, kwargs: Any) -> None:
        self._name = name
        self._callbacks: list[tuple[Callable[[Any], object], Callable[[asyncio.Task[Any]], object]]] = []
        """What was given to `add_done_callback`, and what tells it; until it was called."""
        otherwise = f"{name}.start() needs a running event loop: call it in a coroutine, or call {name}(...) itself"
        loop = running_loop(f"{name}.start()", otherwise=otherwise)
        self._task: asyncio.Task[Any] = loop.create_task(
            _when_ready(run, args, kwargs), name=f"dataflow {name}", context=copy_context()
        )

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Wait for the result. An operator's exception arrives as it is; cancelling the awaiter cancels the Task."""
        result: R_co = yield from self._task.__await__()
        return result

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
        """The result of a Task that is done; its exception is raised, as is asyncio.InvalidStateError before that."""
        result: R_co = self._task.result()
        return result

    def exception(self) -> BaseException | None:
        """The exception of a Task that is done, if it failed."""
        return self._task.exception()

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<Task {self._name}: {state}>"

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth value: await it for its result, or ask .done()")


async def _when_ready(run: Callable[..., Coroutine[Any, Any, Any]], args: Any, kwargs: Any) -> Any:
    many = larger_than((args, kwargs), MANY)
    needed: list[Task[Any]] = []
    template = await _looked_through(partial(_template, (args, kwargs), needed), many)
    if needed:
        for task in needed:
            # Shielded: if this one is cancelled, others may still need that one.
            await asyncio.shield(task._task)
        known = [task._task.result() for task in needed]
        needed.clear()
        args, kwargs = await _looked_through(partial(_filled, template, known), many)
    return await run(*args, **kwargs)


async def _looked_through(job: Callable[[], Any], many: bool) -> Any:
    """What this gives, which takes a while if there are `many` arguments: a worker calls it then, not the loop."""
    return await off_loop(job, asyncio.get_running_loop()) if many else job()


def _filled(template: Any, known: list[Any]) -> Any:
    return map_leaves(lambda leaf: known[leaf] if type(leaf) is Ref else leaf, template)


def _template(value: Any, needed: list[Task[Any]]) -> Any:
    """The arguments with a Ref for each Task in them, also inside of containers."""

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, Task):
            return leaf
        needed.append(leaf)
        return Ref(len(needed) - 1)

    return map_leaves(place, value)
