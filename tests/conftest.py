"""What all tests share: both event loops, and a process left as it was found."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import dataflow as flow
from dataflow.threads.settings import process_settings

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:  # Windows
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


def _freeze() -> None:
    """What there is by now stays until the end: tests that collect garbage, and there are many, need not look at it."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    _freeze()


@pytest.fixture(autouse=True, scope="module")
def _frozen_afterwards() -> Iterator[None]:
    """What a module of tests has imported, and made for good."""
    yield
    _freeze()


@pytest.fixture(params=LOOPS)
def loop_name(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that `run_async` makes."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def run_async(loop_name: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end on a fresh event loop, of each kind in turn."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    """A test may set the numbers of threads; the next one finds them as they were, and who had given them."""
    flow.get_num_interop_threads()
    before = process_settings._known
    yield
    if process_settings._known != before:
        process_settings._change(before.interop_set, before.intraop_set)
