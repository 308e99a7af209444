"""Threads outlive the run that they were started for, and keep nothing of its context."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context

import pytest

import dataflow as flow
from dataflow.engine.executors import submit

INHERITS = ["-X", "thread_inherit_context=1"]
"""Since 3.14, threads may inherit the context of who starts them, as they do by default on free-threaded builds."""
OPTIONS = {"by default": [], "inheriting": INHERITS} if sys.version_info >= (3, 14) else {"by default": []}


def is_ok(program: str, options: list[str]) -> None:
    """The program, in an interpreter of its own, says "ok" and nothing else."""
    done = subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["ok"], done.stderr


REQUESTS = textwrap.dedent("""
    import contextvars, gc, threading, weakref
    import dataflow as flow

    request = contextvars.ContextVar("request")

    class Request:
        pass

    @flow.op
    def kernel(x):
        return request.get("none" if x else None)

    p = flow.pipeline(lambda x: [kernel(x) for _ in range(8)])

    def first():
        mine = Request()
        request.set(mine)
        assert all(found is mine for found in p.run(1))
        return weakref.ref(mine)

    flow.set_num_interop_threads(4)
    left = contextvars.copy_context().run(first)
    names = [thread.name for thread in threading.enumerate()]
    assert any(name.startswith("dataflow-interop") for name in names), names
    gc.collect()
    assert left() is None, "a thread keeps the first caller's context"
    assert p.run(1) == ["none"] * 8
    print("ok")
""")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_request_dies_with_its_run_and_is_not_seen_by_later_ones(options: list[str]) -> None:
    is_ok(REQUESTS, options)


WATCHED = textwrap.dedent("""
    import contextvars, gc, threading, time, weakref
    import dataflow as flow
    from dataflow.engine.monitor import Monitor, View

    request = contextvars.ContextVar("request")

    class Request:
        pass

    looked = threading.Event()

    def look():
        looked.set()
        return View.NOTHING

    monitor = Monitor(threading.Lock(), look)

    def first():
        mine = Request()
        request.set(mine)
        monitor.wake()
        return weakref.ref(mine)

    left = contextvars.copy_context().run(first)
    assert looked.wait(20)
    gc.collect()
    assert left() is None, "the monitor keeps the first caller's context"
    print("ok")
""")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_monitor_keeps_no_context_either(options: list[str]) -> None:
    is_ok(WATCHED, options)


def test_a_job_finds_an_empty_context() -> None:
    variable: ContextVar[object] = ContextVar("variable", default="none")

    class Value:
        pass

    seen: list[object] = []
    done = threading.Event()

    def job() -> None:
        seen.append(variable.get())
        done.set()

    def start() -> weakref.ref[Value]:
        value = Value()
        variable.set(value)
        submit(executor, job)
        return weakref.ref(value)

    with ThreadPoolExecutor(1) as executor:
        reference = copy_context().run(start)
        assert done.wait(20)
        gc.collect()
        assert reference() is None
    assert seen == ["none"]


def test_kernels_see_the_callers_context_all_the_same() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")

    @flow.op
    def kernel() -> str:
        return variable.get()

    p = flow.pipeline(lambda: kernel())

    def caller(value: str) -> str:
        variable.set(value)
        return str(p.run())

    assert [copy_context().run(caller, value) for value in ("one", "two")] == ["one", "two"]
