"""After a fork the child has the same settings and an empty pool, and runs pipelines; the parent notices nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PRELUDE = """
import asyncio, os, signal, sys, threading, time, traceback, warnings
import numpy as np
import dataflow as flow
warnings.filterwarnings("ignore", category=DeprecationWarning)  # since 3.12: "this process is multi-threaded"

@flow.op
def add(x, y): return x + y

@flow.op
async def add_on_loop(x, y):
    await asyncio.sleep(0)
    return x + y

@flow.pipeline
def diamond(x):
    left, right = add(x, 1), add_on_loop(x, 2)
    return add(left, right)

def in_child(check):
    '''Fork; the child calls `check` and ends; the parent's answer is the child's process id.'''
    child = os.fork()
    if child:
        return child
    try:
        check()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def wait_for(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def runs_as_it_should():
    assert diamond.run(1) == 5
    assert asyncio.run(diamond(2)) == 7

def runs_on_a_bare_loop():
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(diamond(2)) == 7
    loop.close()

def healthy(runs=runs_as_it_should):
    info = flow.parallel_info()["interop_threads"]
    assert (info["busy"], info["queued"], info["live"], info["overrunning"]) == (0, 0, 0, 0), info
    runs()
"""


def script(text: str) -> None:
    """Run it in an interpreter of its own, which nothing else has given threads."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=150,  # patience for a machine that has other things to do; alone they take seconds
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_the_child_of_an_idle_process_has_its_settings_and_no_threads() -> None:
    script("""
        flow.set_num_interop_threads(3)
        assert diamond.run(1) == 5

        def check():
            assert flow.get_num_interop_threads() == 3
            assert threading.active_count() == 1
            healthy()
            flow.set_num_interop_threads(5)
            assert flow.parallel_info()["interop_threads"]["target"] == 5
            healthy_again = diamond.run(10)
            assert healthy_again == 23
            wait_for(in_child(lambda: [flow.get_num_interop_threads() == 5 or os._exit(2), healthy()]))

        wait_for(in_child(check))
        assert flow.get_num_interop_threads() == 3
        assert diamond.run(1) == 5
        """)


def test_a_fork_before_anything_was_set_or_run() -> None:
    script("""
        wait_for(in_child(healthy))
        healthy()
        """)


def test_a_fork_in_the_middle_of_a_run() -> None:
    """The child forgets the parent's run; the parent's run ends as if nothing had been."""
    script("""
        flow.set_num_interop_threads(2)
        inside, go_on = threading.Barrier(3), threading.Event()

        @flow.op
        def stay(x):
            inside.wait(20)
            assert go_on.wait(20)
            return x

        @flow.pipeline
        def staying(): return stay(1), stay(2), [add(i, i) for i in range(50)]

        async def main():
            running = asyncio.create_task(staying())
            await asyncio.to_thread(inside.wait, 20)
            children = [in_child(healthy) for _ in range(3)]
            for child in children:
                await asyncio.to_thread(wait_for, child)
            go_on.set()
            assert await running == (1, 2, [2 * i for i in range(50)])
        asyncio.run(main())
        """)


def test_a_fork_inside_a_kernel() -> None:
    """As `subprocess` and `multiprocessing` do it: the child continues in what was a kernel's thread."""
    script("""
        flow.set_num_interop_threads(2)

        @flow.op
        def forks(x):
            wait_for(in_child(healthy))
            return x

        @flow.pipeline
        def forking(): return [forks(i) for i in range(4)], add(1, 2)

        assert forking.run() == ([0, 1, 2, 3], 3)
        """)


def test_forks_while_others_run_and_resize() -> None:
    """Whatever lock another thread holds at that moment, the child has a new one."""
    script("""
        end = threading.Event()

        def work():
            while not end.is_set():
                assert diamond.run(1) == 5

        def resize():
            while not end.is_set():
                for n in (1, 4, 2):
                    flow.set_num_interop_threads(n)

        async def stopping():
            while not end.is_set():
                task = asyncio.create_task(diamond(1))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        diamond.run(1)  # a fork while another thread imports (here: uvloop) leaves the child Python's own import lock

        threads = [threading.Thread(target=f) for f in (work, work, resize, lambda: asyncio.run(stopping()))]
        for thread in threads: thread.start()
        # Without the GIL, `asyncio.run` in the child may never end: it asks for all tasks, and Python then walks the
        # lists of other threads' tasks, one of which a fork may catch half-way.
        locked = getattr(sys, "_is_gil_enabled", lambda: True)()
        def check():
            assert flow.get_num_interop_threads() in (1, 2, 4)
            healthy(runs_as_it_should if locked else runs_on_a_bare_loop)
        for _ in range(20):
            wait_for(in_child(check))
        end.set()
        for thread in threads: thread.join()
        """)


def test_multiprocessing_by_fork() -> None:
    script("""
        import multiprocessing
        assert diamond.run(1) == 5
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(diamond.run, range(8)) == [2 * x + 3 for x in range(8)]
        """)


PRODUCTS = """
        size = 512
        a = (np.random.default_rng(0).random((size, size)) / size).astype(np.float32)

        @flow.op
        def product(x, y): return x @ y

        @flow.pipeline
        def chain(x):
            y = x
            for _ in range(4): y = product(y, x)
            return y

        expected = chain.run(a)
        end = threading.Event()

        def check():
            assert np.allclose(a @ a, np.einsum('ij,jk', a[:, :2], a[:2]) + a[:, 2:] @ a[2:], atol=1e-3)
            assert np.allclose(chain.run(a), expected)
            assert threads() == before

        def threads(): return [library["threads"] for library in flow.parallel_info()["blas"]]
        before = threads()

        def forks():
            for _ in range(12):
                child = os.fork()
                if not child:
                    signal.alarm(20)  # a child that hangs ends; the parent's patience is the script's timeout
                    try:
                        check()
                    except BaseException:
                        traceback.print_exc()
                        os._exit(1)
                    os._exit(0)
                wait_for(child)
"""


def test_a_dozen_forks_while_kernels_multiply_with_all_threads() -> None:
    """OpenBLAS alone hangs here, in the parent or in the child, at the first fork or soon after."""
    script(
        PRODUCTS
        + """
        def work():
            while not end.is_set(): chain.run(a)
        worker = threading.Thread(target=work)
        worker.start()
        forks()
        end.set()
        worker.join()
        assert threads() == before
        """
    )


def test_a_dozen_forks_while_a_thread_of_the_user_multiplies() -> None:
    """Whoever runs kernels in this process may also multiply outside of them."""
    script(
        PRODUCTS
        + """
        def work():
            while not end.is_set(): a @ a
        worker = threading.Thread(target=work)
        worker.start()
        forks()
        end.set()
        worker.join()
        assert threads() == before
        """
    )


def test_a_fork_inside_a_kernel_that_multiplies() -> None:
    script(
        PRODUCTS
        + """
        @flow.op
        def forking(x):
            y = x @ x
            wait_for(in_child(check))
            return y @ x

        @flow.pipeline
        def pipeline(x): return forking(x)

        assert np.allclose(pipeline.run(a), a @ a @ a)
        assert threads() == before
        """
    )
