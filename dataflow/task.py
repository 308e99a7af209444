"""Tasks: operators started eagerly, for graphs that are known only while they run.

    left, right = conv.start(x, a), conv.start(x, b)      both begin now
    both = concat.start(left, right)                      begins when both are done
    await both

A Task stands on one event loop. What it waits for are other Tasks among its arguments, also inside lists, tuples and
dicts; then its operator is a run of one node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

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
        self._task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(
            _when_ready(run, args, kwargs), name=f"dataflow {name}", context=copy_context()
        )

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Wait for the result. An operator's exception arrives as it is; cancelling the awaiter cancels the Task."""
        result: R_co = yield from self._task.__await__()
        return result

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
    needed: list[Task[Any]] = []
    _find((args, kwargs), needed)
    for task in needed:
        # Shielded: if this one is cancelled, others may still need that one.
        await asyncio.shield(task._task)
    args, kwargs = _filled((args, kwargs))
    needed.clear()
    return await run(*args, **kwargs)


def _find(value: Any, found: list[Task[Any]]) -> None:
    if isinstance(value, Task):
        found.append(value)
    elif type(value) in (list, tuple):
        for item in value:
            _find(item, found)
    elif type(value) is dict:
        for item in value.values():
            _find(item, found)


def _filled(value: Any) -> Any:
    if isinstance(value, Task):
        return value._task.result()
    if type(value) in (list, tuple):
        return type(value)(map(_filled, value))
    if type(value) is dict:
        return {key: _filled(item) for key, item in value.items()}
    return value
