"""`observe`: who is told what, in which order, and what becomes of an observer that fails."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow
from dataflow.events import Event, LateFailure, RunEnded, RunStarted, observed

Runner = Callable[[Any], Any]


@flow.op
def reciprocal(x: float) -> float:
    return 1 / x


@flow.pipeline
def reciprocals(x: Any) -> Any:
    return reciprocal(x), reciprocal(x)


def test_a_run_begins_and_ends(run_async: Runner) -> None:
    events: list[Event] = []
    end = flow.observe(events.append)
    assert run_async(reciprocals(2)) == (0.5, 0.5)
    with pytest.raises(ZeroDivisionError):
        run_async(reciprocals(0))
    end()
    run_async(reciprocals(2))
    good, bad = (event.run for event in events if isinstance(event, RunStarted))
    assert [event for event in events if not isinstance(event, LateFailure)] == [
        RunStarted(good, "reciprocals", 2),
        RunEnded(good, "reciprocals", "done"),
        RunStarted(bad, "reciprocals", 2),
        RunEnded(bad, "reciprocals", "failed"),
    ]


def test_each_subscription_is_one_and_ends_alone(run_async: Runner) -> None:
    events: list[Event] = []
    ends = [flow.observe(events.append), flow.observe(events.append)]
    run_async(reciprocals(2))
    assert len(events) == 4
    ends[0]()
    ends[0]()  # twice is once
    run_async(reciprocals(2))
    assert len(events) == 6
    ends[1]()
    assert not observed()


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, SystemExit, GeneratorExit])
def test_an_observer_that_fails_is_switched_off_and_logged(
    run_async: Runner, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    told: list[Event] = []

    def fails(event: Event) -> None:
        told.append(event)
        raise error("in the observer")

    others: list[Event] = []
    end_failing, end = flow.observe(fails), flow.observe(others.append)
    with caplog.at_level(logging.ERROR, "dataflow"):
        assert run_async(reciprocals(2)) == (0.5, 0.5)
        assert run_async(reciprocals(4)) == (0.25, 0.25)
    end()
    end_failing()
    assert len(told) == 1
    assert len(others) == 4
    (record,) = caplog.records
    assert "switched off" in record.message
    assert record.exc_info is not None
    assert "in the observer" in str(record.exc_info[1])


def test_no_lock_of_ours_is_held_while_an_observer_is_told(run_async: Runner) -> None:
    """It may ask, set and subscribe."""
    threads: list[str] = []

    def curious(event: Event) -> None:
        threads.append(threading.current_thread().name)
        flow.parallel_info()
        flow.set_num_interop_threads(flow.get_num_interop_threads())
        flow.observe(lambda _: None)()

    end = flow.observe(curious)
    try:
        run_async(reciprocals(2))
        assert len(threads) == 2
    finally:
        end()


def test_subscribing_and_ending_from_many_threads_at_once() -> None:
    def churn() -> None:
        for _ in range(500):
            flow.observe(lambda _: None)()

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not observed()


@pytest.mark.parametrize("callback", [None, 3, "print"])
def test_what_cannot_be_called_is_refused(callback: Any) -> None:
    with pytest.raises(TypeError, match="observe: the callback must be callable, not"):
        flow.observe(callback)
    assert not observed()


def test_cancelled_runs_say_so(run_async: Runner) -> None:
    events: list[Event] = []

    @flow.op
    async def for_ever() -> None:
        await asyncio.Event().wait()

    @flow.pipeline
    def waits() -> Any:
        return for_ever()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await waits()
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    end = flow.observe(events.append)
    run_async(main())
    end()
    outcomes = [event.outcome for event in events if isinstance(event, RunEnded)]
    assert outcomes == ["cancelled"] * len(outcomes)
    assert len(outcomes) == sum(isinstance(event, RunStarted) for event in events) >= 1
