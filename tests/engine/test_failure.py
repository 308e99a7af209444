"""What an awaiter gets when an operator fails."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.events import LateFailure

Runner = Callable[[Any], Any]


@flow.op
def double(x: Any) -> Any:
    return x * 2


@flow.op
def broken(x: Any) -> Any:
    raise ValueError("no such luck")


@flow.op
async def broken_async(x: Any) -> Any:
    await asyncio.sleep(0)
    raise KeyError("gone")


def ours(exc: BaseException) -> list[str]:
    return [note for note in getattr(exc, "__notes__", []) if note.startswith("dataflow:")]


def test_the_original_exception_arrives_with_one_note(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return double(broken(double(x)))

    with pytest.raises(ValueError, match="no such luck") as info:
        run_async(p(np.zeros((3, 4), np.float32)))
    (note,) = ours(info.value)
    assert "operator 'broken', node 2 of pipeline 'p'" in note
    assert "float32[3, 4]" in note
    assert f"declared at {__file__}:" in note
    assert type(info.value) is ValueError


def test_a_recorded_operator_is_named_by_the_line_of_the_body(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return np.reshape(x, (7, 7))

    with pytest.raises(ValueError, match="reshape") as info:
        run_async(p(np.zeros(3)))
    line = p.__wrapped__.__code__.co_firstlineno + 2
    assert f"recorded at {__file__}:{line}" in ours(info.value)[0]


def test_plumbing_that_fails_is_named(run_async: Runner) -> None:
    @flow.op
    def pair() -> Any:
        return (1, 2)

    @flow.pipeline
    def p() -> Any:
        return double(pair()[5])

    with pytest.raises(IndexError) as info:
        run_async(p())
    assert "getitem" in ours(info.value)[0]


def test_the_traceback_begins_in_the_users_function(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return broken(x)

    async def main() -> list[str]:
        try:
            await p(1)
        except ValueError as exc:
            return [frame.name for frame in traceback.extract_tb(exc.__traceback__)]
        return []

    names = run_async(main())
    assert names[0] == "main"
    assert names[-1] == "broken"
    assert not {"_work", "_serve", "execute_segment", "<lambda>"} & set(names)


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("on_loop", [False, True])
def test_what_no_caller_may_get_raw_beside_an_innocent_run(
    run_async: Runner, kind: type[BaseException], on_loop: bool
) -> None:
    if on_loop:

        @flow.op
        async def nasty(x: Any) -> Any:
            await asyncio.sleep(0)
            raise kind("x")

    else:

        @flow.op
        def nasty(x: Any) -> Any:
            raise kind("x")

    @flow.pipeline
    def guilty(x: Any) -> Any:
        return double(nasty(double(x)))

    @flow.pipeline
    def innocent(x: Any) -> Any:
        for _ in range(20):
            x = double(x)
        return x

    async def main() -> None:
        for _ in range(5):
            bad, good = await asyncio.gather(guilty(1), innocent(1), return_exceptions=True)
            assert good == 2**20
            if on_loop and kind is StopIteration:  # Python itself turns it into a RuntimeError in a coroutine
                assert type(bad) is RuntimeError
                continue
            assert type(bad) is flow.OperatorError
            assert type(bad.__cause__) is kind
            assert "operator 'nasty'" in str(bad)

    run_async(main())
    assert not [t for t in threading.enumerate() if not t.is_alive()]
    run_async(innocent(1))


def test_failures_known_by_then_are_notes(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    together = threading.Barrier(2)

    @flow.op
    def both(name: str) -> Any:
        together.wait(10)
        raise RuntimeError(name)

    @flow.op
    async def slow_to_leave(x: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(flow_idle)

    @flow.pipeline
    def p() -> Any:
        return both("one"), both("two"), slow_to_leave(1)

    with pytest.raises(RuntimeError) as info:
        run_async(p())
    notes = ours(info.value)
    assert len(notes) == 2
    other = {"one": "two", "two": "one"}[str(info.value)]
    assert f"also failed: operator 'both', RuntimeError: {other}" in notes[1]


def flow_idle() -> None:
    """Wait, in a thread, until no kernel of a run that is over still runs."""
    asyncio.run(flow.quiet())


def test_a_late_failure_goes_to_the_log_and_the_observers(run_async: Runner, caplog: pytest.LogCaptureFixture) -> None:
    flow.set_num_interop_threads(2)
    started, go = threading.Event(), threading.Event()
    seen: list[Any] = []

    @flow.op
    def late(x: Any) -> Any:
        started.set()
        go.wait(10)
        raise OSError("too late")

    @flow.op
    def first(x: Any) -> Any:
        started.wait(10)
        raise ValueError("first")

    @flow.pipeline
    def p() -> Any:
        return late(1), first(1)

    async def main() -> None:
        with pytest.raises(ValueError, match="first"):
            await p()
        assert flow.parallel_info()["interop_threads"]["overrunning"] == 1
        go.set()
        await flow.quiet()
        assert flow.parallel_info()["interop_threads"]["overrunning"] == 0

    unsubscribe = flow.observe(seen.append)
    with caplog.at_level(logging.ERROR, logger="dataflow"):
        run_async(main())
    unsubscribe()
    (record,) = caplog.records
    assert "late failure" in record.getMessage()
    assert "'late'" in record.getMessage()
    (event,) = [e for e in seen if isinstance(e, LateFailure)]
    assert (event.pipeline, event.operator, str(event.error)) == ("p", "late", "too late")


def test_async_siblings_are_cancelled_and_awaited(run_async: Runner) -> None:
    left: list[str] = []
    waiting = []

    @flow.op
    async def sibling(x: Any) -> Any:
        waiting.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            left.append("cleaned up")

    @flow.op
    async def fails(x: Any) -> Any:
        while not waiting:
            await asyncio.sleep(0)
        raise ValueError("now")

    @flow.pipeline
    def p() -> Any:
        return sibling(1), fails(1)

    async def main() -> None:
        with pytest.raises(ValueError, match="now"):
            await p()
        assert left == ["cleaned up"]
        assert len(asyncio.all_tasks()) == 1

    run_async(main())


def test_the_same_instance_raised_again_does_not_grow(run_async: Runner) -> None:
    stored = ValueError("stored")

    @flow.op
    def raises(x: Any) -> Any:
        return helper()

    def helper() -> Any:
        raise stored

    @flow.pipeline
    def p(x: Any) -> Any:
        return raises(x)

    @flow.pipeline
    def q(x: Any) -> Any:
        return raises(double(x))

    async def main() -> list[tuple[int, int]]:
        sizes = []
        for n in range(12):
            try:
                await (p, q)[n % 2](1)
            except ValueError as exc:
                assert exc is stored
                assert f"pipeline {'pq'[n % 2]!r}" in ours(exc)[0]
                names = [frame.name for frame in traceback.extract_tb(exc.__traceback__)]
                assert names[-2:] == ["raises", "helper"]
                sizes.append((len(ours(exc)), len(names)))
        return sizes

    sizes = run_async(main())
    assert set(sizes) == {sizes[0]}
    assert sizes[0][0] == 1


def test_an_exception_that_refuses_attributes_arrives_all_the_same(run_async: Runner) -> None:
    class Stubborn(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

        def __str__(self) -> str:
            raise RuntimeError("not even this")

    @flow.op
    def raises() -> Any:
        raise Stubborn

    @flow.pipeline
    def p() -> Any:
        return raises()

    with pytest.raises(Stubborn):
        run_async(p())


@pytest.mark.parametrize("what", ["coroutine", "generator"])
def test_a_kernel_must_return_a_value(run_async: Runner, what: str) -> None:
    async def coroutine() -> int:
        return 1

    @flow.op
    def mistaken() -> Any:
        return coroutine() if what == "coroutine" else (x for x in [1])

    @flow.pipeline
    def p() -> Any:
        return mistaken()

    with pytest.raises(TypeError, match="async def" if what == "coroutine" else "yield"):
        run_async(p())


def test_debug_keeps_the_exception_and_its_traceback() -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return broken(x)

    with pytest.raises(ValueError, match="no such luck") as info:
        p.debug(1)
    assert len(ours(info.value)) == 1
    assert info.traceback[-1].name == "broken"


def test_an_async_failure_has_its_note(run_async: Runner) -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        return broken_async(double(x))

    with pytest.raises(KeyError) as info:
        run_async(p(np.zeros(5)))
    assert "operator 'broken_async', node 2 of pipeline 'p'" in ours(info.value)[0]
    assert "float64[5]" in ours(info.value)[0]
