"""Tasks: operators started eagerly, with Tasks as arguments."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


@flow.op
def add(x: Any, y: Any = 1, *more: Any, scale: Any = 1) -> Any:
    return (x + y + sum(more)) * scale


@flow.op
async def later(x: Any) -> Any:
    await asyncio.sleep(0)
    return x + 1


@flow.op
def fails(x: Any) -> Any:
    raise KeyError(x)


@flow.op
async def never_ends(x: Any) -> Any:
    await asyncio.Event().wait()


@flow.op
def gather(x: Any) -> Any:
    return x


def test_fork_and_join(run_async: Runner) -> None:
    async def main() -> None:
        left, right = add.start(1, 2), later.start(10)
        joined = add.start(left, right, left, scale=right)
        assert await joined == (3 + 11 + 3) * 11
        assert await joined == await joined
        assert (await left, await right) == (3, 11)
        assert await gather.start([left, (right, {"k": left}), "text"]) == [3, (11, {"k": 3}), "text"]
        assert joined.done()
        assert joined.result() == 187
        assert joined.exception() is None
        assert repr(joined) == "<Task add: done>"

    run_async(main())


def test_they_begin_at_once_and_side_by_side(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    barrier = threading.Barrier(2)

    @flow.op
    def meet(x: int) -> int:
        barrier.wait(20)
        return x

    async def main() -> None:
        tasks = [meet.start(1), meet.start(2)]
        assert [await task for task in tasks] == [1, 2]

    run_async(main())


def test_a_graph_that_only_running_shows(run_async: Runner) -> None:
    """Collatz: how long the chain is depends on the values."""

    @flow.op
    def half(x: int) -> int:
        return x // 2

    @flow.op
    def grow(x: int) -> int:
        return 3 * x + 1

    async def steps(x: int) -> int:
        count = 0
        while x != 1:
            x = await (grow if x % 2 else half).start(x)
            count += 1
        return count

    async def main() -> None:
        assert await asyncio.gather(*[steps(x) for x in (1, 6, 7, 27)]) == [0, 8, 16, 111]

    run_async(main())


def test_failures_go_on_to_what_needs_them(run_async: Runner) -> None:
    async def main() -> None:
        bad = fails.start(7)
        dependent = add.start([bad] and bad, 1)
        for task in (bad, dependent):
            with pytest.raises(KeyError) as caught:
                await task
            assert "operator 'fails'" in caught.value.__notes__[0]
        assert isinstance(dependent.exception(), KeyError)

    run_async(main())


def test_cancelling_one_leaves_what_it_needs_to_others(run_async: Runner) -> None:
    go = asyncio.Event

    async def main() -> None:
        gate = go()

        @flow.op
        async def wait(x: int) -> int:
            await gate.wait()
            return x

        shared = wait.start(5)
        first, second = add.start(shared), add.start(shared, 10)
        await asyncio.sleep(0)
        assert first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert first.cancelled()
        assert repr(first) == "<Task add: cancelled>"
        gate.set()
        assert await second == 15
        third = wait.start(1)
        needs = add.start(third)
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await needs

    run_async(main())


def test_a_cancelled_kernel_never_starts(run_async: Runner) -> None:
    flow.set_num_interop_threads(1)
    inside, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    @flow.op
    def block() -> None:
        inside.set()
        assert go_on.wait(20)

    @flow.op
    def note(x: int) -> None:
        ran.append(x)

    async def main() -> None:
        blocking = block.start()
        await asyncio.to_thread(inside.wait, 20)
        queued = note.start(1)
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        go_on.set()
        await blocking

    run_async(main())
    assert not ran


def test_methods_and_arrays(run_async: Runner) -> None:
    class Model:
        @flow.op
        def forward(self, x: Any) -> Any:
            return x * 2

    async def main() -> None:
        mine = np.ones(3)
        model = Model()
        result = await Model.forward.start(model, mine)
        result += 1
        assert mine.tolist() == [1, 1, 1]
        inplace = flow.op(lambda x: x.__iadd__(1), name="inplace")
        with pytest.raises(ValueError, match="read-only"):
            await inplace.start(mine)

    run_async(main())


def test_misuse_is_refused(run_async: Runner) -> None:
    with pytest.raises(RuntimeError, match=r"add.start\(\) needs a running event loop: call it in a coroutine"):
        add.start(1)

    async def main() -> None:
        with pytest.raises(TypeError, match=r"add\(\) got an unexpected keyword argument 'z'"):
            add.start(1, z=1)
        with pytest.raises(TypeError, match=r"later\(\) missing a required argument: 'x'"):
            later.start()
        with pytest.raises(flow.TraceError, match=r"add.start\(\) starts a task, .*: call add"):
            flow.pipeline(lambda x: add.start(x)).graph()
        with pytest.raises(TypeError, match="has no truth value: await it"):
            bool(task := add.start(1))
        del task

    run_async(main())


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Record:
    x: Any
    rest: Any = None


def test_tasks_inside_of_other_containers(run_async: Runner) -> None:
    async def main() -> None:
        task, plain = add.start(1, 2), Record(1)
        given = [Pair(task, 1), Record([task]), {"k": task}, plain]
        result = await gather.start(given)
        assert result == [Pair(3, 1), Record([3]), {"k": 3}, plain]
        assert [type(item) for item in result] == [type(item) for item in given]

    run_async(main())


def test_a_task_that_is_done_keeps_its_result_and_nothing_else(run_async: Runner) -> None:
    class Array(np.ndarray[Any, Any]):
        pass

    async def main() -> None:
        mine = np.ones(3).view(Array)
        gone = weakref.ref(mine)
        task = gather.start([1])
        other = add.start(mine, task.done() or 1)
        await task
        await other
        del mine
        assert gone() is None

    gc.disable()
    try:
        run_async(main())
    finally:
        gc.enable()


# Where asyncio takes a Future or an awaitable, a Task will do.


def test_in_what_asyncio_waits_with(run_async: Runner) -> None:
    async def main() -> None:
        good, bad = add.start(1, 2), fails.start(3)
        done, pending = await asyncio.wait([good, bad])
        assert (done, pending) == ({good, bad}, set())
        assert good.result() == 3
        assert isinstance(bad.exception(), KeyError)

        never = never_ends.start(1)
        done, pending = await asyncio.wait([good, never], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({good}, {never})
        done, pending = await asyncio.wait([never], timeout=0)
        assert (done, pending) == (set(), {never})
        assert never._callbacks == []
        never.cancel()
        done, _ = await asyncio.wait([never])
        assert done == {never}
        assert never.cancelled()

        assert [await each for each in asyncio.as_completed([add.start(1), add.start(1)])] == [2, 2]
        assert await asyncio.gather(add.start(1, 1), later.start(1)) == [2, 2]
        assert await asyncio.shield(add.start(2, 2)) == 4
        assert await asyncio.wait_for(add.start(2, 3), 20) == 5

        async def waits(task: Any) -> Any:
            return await task

        async with asyncio.TaskGroup() as group:
            both = [group.create_task(waits(add.start(n))) for n in (1, 2)]
        assert [each.result() for each in both] == [2, 3]

    run_async(main())


def test_callbacks_of_a_task(run_async: Runner) -> None:
    async def main() -> None:
        told: list[Any] = []
        task, other = add.start(1, 2), add.start(1, 2)
        task.add_done_callback(told.append)
        other.add_done_callback(told.append)
        other.add_done_callback(told.append)
        assert other.remove_done_callback(told.append) == 2
        assert other.remove_done_callback(told.append) == 0
        await task
        await other
        await asyncio.sleep(0)
        assert told == [task]
        task.add_done_callback(told.append)  # it is done already
        await asyncio.sleep(0)
        assert told == [task, task]
        assert task.get_loop() is asyncio.get_running_loop()

    run_async(main())


# ---------------------------------------------------------------------------------------------- who gets what


@flow.op
def ones(n: int = 3) -> Any:
    return np.ones(n)


class Reader:
    """An operator that reads when it is told to, and what it was given."""

    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.given: Any = None

    @flow.op
    def read(self, x: Any) -> Any:
        self.given = x
        self.inside.set()
        assert self.go_on.wait(20)
        return np.array(x).tolist()


@flow.op
async def read_later(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


def test_each_reader_of_a_result_gets_a_read_only_view_of_its_own(run_async: Runner) -> None:
    async def main() -> None:
        task, seen = ones.start(), []
        watch = flow.op(lambda x: seen.append(x[0] if isinstance(x, list) else x))
        await asyncio.gather(watch.start(task), watch.start([task]), watch.start(task))
        assert len({id(each) for each in seen}) == 3
        assert not any(each.flags.writeable for each in seen)
        assert all(np.shares_memory(each, seen[0]) for each in seen)
        inplace = flow.op(lambda x: x.__iadd__(1), name="inplace")
        with pytest.raises(ValueError, match="read-only"):
            await inplace.start(task)
        writing = flow.op(writes="x")(lambda x: x.__iadd__(1))
        one, other = await asyncio.gather(writing.start(task), writing.start(task))
        assert one.tolist() == other.tolist() == [2, 2, 2]
        assert (await task).tolist() == [1, 1, 1]

    run_async(main())


@pytest.mark.parametrize("n", [3, 1 << 18])
def test_what_an_awaiter_writes_is_not_seen_by_operators_that_were_given_the_task(run_async: Runner, n: int) -> None:
    async def main() -> None:
        task, reader = ones.start(n), Reader()
        reading = reader.read.start(task)
        result = await task
        assert result.flags.writeable
        await asyncio.to_thread(reader.inside.wait, 20)
        result[:] = 5
        assert not np.shares_memory(result, reader.given)
        assert await task is result
        assert task.result() is result
        again = await read_later.start(task)  # after the write, as in plain Python
        reader.go_on.set()
        assert await reading == [1] * n
        assert again[0] == 5
        assert await task is result

    run_async(main())


def test_a_result_that_nobody_reads_any_more_is_the_users_itself(run_async: Runner) -> None:
    async def main() -> None:
        task, seen = ones.start(), []
        await flow.op(lambda x: seen.append(x)).start(task)
        result = await task
        assert result.flags.writeable
        assert np.shares_memory(result, seen[0])
        assert task.result() is await task is result
        number, reader = add.start(1, 2), Reader()
        reading = reader.read.start([task, task])
        assert np.shares_memory(task.result(), result) is False
        assert (await number, number.result()) == (3, 3)
        reader.go_on.set()
        assert await reading == [[1, 1, 1]] * 2

    run_async(main())


def test_among_many_arguments_a_task_is_read_all_the_same(run_async: Runner) -> None:
    async def main() -> None:
        task, reader = ones.start(1), Reader()
        reading = reader.read.start([task, *[[0]] * 3_000])
        await asyncio.to_thread(reader.inside.wait, 20)
        result = await task
        result[:] = 5
        reader.go_on.set()
        assert (await reading)[0] == [1]

    run_async(main())


def test_awaiting_a_task_needs_no_worker(run_async: Runner) -> None:
    """The one there is may be in a kernel that reads the result, and wait for what the awaiter does next."""
    flow.set_num_interop_threads(1)
    entered, opened = threading.Event(), threading.Event()

    @flow.op
    def make(count: int) -> Any:
        return np.zeros(count)

    @flow.op
    def read(values: Any) -> float:
        entered.set()
        assert opened.wait(20)
        return float(values.sum())

    async def main() -> None:
        made = make.start(400_000)
        reading = read.start(made)
        while not entered.is_set():
            await asyncio.sleep(0)
        own = await asyncio.wait_for(made, 10)
        own += 1
        opened.set()
        assert await reading == 0.0

    run_async(main())
