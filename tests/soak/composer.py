"""Random programs that speak the public API, each checked by a ledger and against a plain evaluation.

    python -m tests.soak.composer 10000                      so many programs; [--seed N] the first, [--loop uvloop]
    python -m tests.soak.composer 1 --seed 77                that one program, and what it does
    python -m tests.soak.composer --shrink 77 --times 20     dropped parts as long as it still fails in 20 times
    python -m tests.soak.composer 1 --seed 77 --drop act1,graph0.node3

What a program is, `tests.soak.programs` says. Of each one is checked:

1. Each kernel is called as often as the plain evaluation calls it, and at most `retries` times more.
2. A run has one outcome: the right values; an exception object that a kernel of that very run has raised, and that no
   attempt was left after; CancelledError if `cancel()` said so, and only then; Overloaded, RuntimeClosed,
   OperatorTimeout only where there is a bound, a `close`, a timeout.
3. When a run is over, nothing of it starts: no async operator, and of kernels only what a thread had taken by then and
   not yet entered, at most one for each thread.
4. No more kernels execute at once than the greatest setting, and no more that share a limit than it says.
5. It ends in time.
6. Afterwards nothing is left: threads, tasks, descriptors, arrays, runs, places, permits; and no complaint was made
   (exceptions that nobody retrieved, coroutines that nobody awaited).
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import numpy as np

import dataflow as flow
from dataflow.events import OperatorEnded, RunEnded, RunStarted
from tests.release import FREE_THREADED
from tests.soak.programs import (
    ERRORS,
    NEVER_RAW,
    SIMPLE,
    Act,
    Node,
    Nodes,
    Path,
    Program,
    compose,
    every,
    expected,
    length,
    mix,
    simpler,
    sinks,
    without,
)

Array = np.ndarray[Any, Any]

PATIENCE = 20.0
"""What a program may take longer than its parts do one after another, in seconds; and as many times as long."""
LOOK = 0.1
"""Seconds from one look whether it has ended to the next."""
GRACE = 20.0 if FREE_THREADED else 5.0
"""Seconds in which everything that is left over goes, on a machine that is busy."""

THREADS = ("script", "debug")
"""The ways that take a thread of their own."""
MATRIX = np.ones((64, 64)) / 64
"""So small that BLAS takes one thread: several wait for each other for very long on a machine that is busy."""

here: ContextVar[str] = ContextVar("here", default="")
"""Which act this belongs to: operators have it in their context."""


class Broken(AssertionError):
    """A program showed what must not be."""


class Hung(Broken):
    """A program did not end: this process is of no more use."""


class SourceError(Exception):
    """What a source fails with."""


@dataclass
class Call:
    """What is known of a path in a run."""

    began: int = 0
    done: int = 0
    attempts: Counter[int] = field(default_factory=Counter)
    """By the sum of what it was called with."""


@dataclass
class Ledger:
    """Who was called when, in what run; all under one lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    calls: dict[tuple[int, Path], Call] = field(default_factory=lambda: defaultdict(Call))
    raised: dict[int, list[tuple[BaseException, bool]]] = field(default_factory=lambda: defaultdict(list))
    """By run: what its kernels raised, and whether another attempt was to follow."""
    over: dict[int, Any] = field(default_factory=dict)
    """By run: its outcome, once whoever waits has it."""
    late: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By run and thread: kernels that began when it was over."""
    cancelled: set[int] = field(default_factory=set)
    """The runs of which `cancel` has said that it would."""
    executing: int = 0
    most: int = 0
    limited: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    arrays: list[weakref.ref[Array]] = field(default_factory=list)
    closed: bool = False
    """Whether nothing may begin any more."""

    def watched(self, run: int, total: int) -> Array:
        """A value."""
        array = np.array([run, total])
        self.arrays.append(weakref.ref(array))
        return array

    def has_ended(self, run: int, outcome: Any) -> None:
        """Whoever waits for it has its outcome."""
        if not isinstance(outcome, BaseException):
            outcome = self.read(run, outcome)
        with self.lock:
            if run in self.over:
                self.wrong.append(f"run {run} has two outcomes: {self.over[run]!r} and {outcome!r}")
            self.over[run] = outcome

    def read(self, run: int, values: Any) -> Any:
        """The sums of what a run gave; nothing of the arrays is kept."""
        sums = []
        for value in values:
            if value[0] != run:
                self.wrong.append(f"run {run} gave a value of run {value[0]}")
            if not value.flags.writeable:
                self.wrong.append(f"run {run} gave a read-only array")
            sums.append(int(value[1]))
        return sums


def sum_of(result: Any) -> int:
    """Of what an operator or a pipeline gave in another one."""
    return mix(0, [int(value[1]) for value in (result if type(result) is tuple else (result,))])


class Play:
    """One performance of a program."""

    def __init__(self, program: Program, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.program = program
        self.new_loop = new_loop
        self.ledger = Ledger()
        self.limits = [flow.Limit(n) for n in program.limits]
        self.runtime = flow.Runtime(*program.runtime, name=f"of {program.seed}") if program.runtime else None
        self.pipelines = [self.pipeline(nodes, (), f"graph{place}") for place, nodes in enumerate(program.graphs)]
        self.operators = [
            {node.number: self.operator(node, (node.number,)) for node in nodes if node.kind not in ("map", "cond")}
            for nodes in program.graphs
        ]
        """For Tasks."""
        self.gates: dict[int, list[int]] = defaultdict(list)
        """By run: who has come to a meeting."""
        self.patience = PATIENCE * (1 + length(program))
        """Seconds that are left of it."""
        self.told: Counter[tuple[int, str]] = Counter()
        """By our number of a run and kind: what an observer was told."""
        self.runs = 0
        self.acts_of: dict[int, Act] = {}
        self.closing = False
        self.most_threads = max([program.threads, *(to for _, to in program.resizes)])

    # The operators.

    def pipeline(self, nodes: Nodes, inside: Path, name: str) -> Any:
        """The graph as a pipeline that gives a tuple."""
        operators = {node.number: self.recorded(node, (*inside, node.number)) for node in nodes}

        def body(x: Any) -> Any:
            values: dict[int, Any] = {}
            for node in nodes:
                given = [values[number] for number in node.takes] or [x]
                if node.after is None:
                    values[node.number] = operators[node.number](*given)
                else:
                    with flow.after(values[node.after]):
                        values[node.number] = operators[node.number](*given)
            return tuple(values[number] for number in sinks(nodes))

        made = flow.pipeline(name=name)(body)
        return made.on(self.runtime) if self.runtime is not None and not inside else made

    def recorded(self, node: Node, path: Path) -> Any:
        """What a body calls for a node."""
        if node.kind == "plain":
            return lambda first, *others: reduce(np.maximum, others or [first], first)
        if node.kind not in ("map", "cond"):
            return self.operator(node, path)
        join = flow.op(name=f"join{node.number}")(self.kernel(node, (*path, "join"), self.joined))
        callees = [
            self.callee(node, path, inner)
            for inner in ([node.inner] if node.kind == "map" else [(one,) for one in node.inner])
        ]
        if node.kind == "map":
            split = flow.op(name=f"split{node.number}")(self.kernel(node, (*path, "split"), self.split))
            return lambda *given: join(*given, flow.map(callees[0], split(*given)))
        ask = flow.op(self.kernel(node, (*path, "ask"), lambda node, run, given: bool(given[0][1] % 2)))
        return lambda *given: join(*given, [flow.cond(ask(given[0]), *callees, given[0])])

    def callee(self, node: Node, path: Path, inner: Nodes) -> Any:
        if len(inner) == 1 and inner[0].kind in SIMPLE:
            return self.operator(inner[0], (*path, inner[0].number))
        return self.pipeline(inner, path, f"inside{node.number}")

    def split(self, node: Node, run: int, given: Any) -> list[Array]:
        total = mix(node.number, [int(value[1]) for value in given])
        return [self.ledger.watched(run, total + item) for item in range(node.items)]

    def joined(self, node: Node, run: int, given: Any) -> Array:
        *taken, results = given
        sums = [int(value[1]) for value in taken]
        return self.ledger.watched(run, mix(node.number, sums + [sum_of(result) for result in results]))

    def operator(self, node: Node, path: Path) -> Any:
        """The operator of a node."""
        options: dict[str, Any] = {"name": f"n{'.'.join(map(str, path))}"}
        if node.retries:
            options.update(retries=node.retries, backoff=0.002)
        if node.timeout is not None:
            options["timeout"] = node.timeout
        if node.limit is not None:
            options["limit"] = self.limits[node.limit]
        inner = self.pipeline(node.inner, path, f"inside{node.number}") if node.inner else None
        if node.kind == "async":
            return flow.op(self.coroutine(node, path, self.pausing), **options)
        if node.kind == "await":
            return flow.op(self.coroutine(node, path, partial(self.awaiting, inner)), **options)
        return flow.op(self.kernel(node, path, partial(self.running, inner) if inner else self.working), **options)

    def kernel(self, node: Node, path: Path, work: Callable[[Node, int, Any], Any]) -> Callable[..., Any]:
        def kernel(*given: Any) -> Any:
            with self.entered(node, path, given, on_loop=False) as run:
                return work(node, run, given)

        return kernel

    def coroutine(self, node: Node, path: Path, work: Callable[[Node, int, Any], Any]) -> Callable[..., Any]:
        async def coroutine(*given: Any) -> Any:
            with self.entered(node, path, given, on_loop=True) as run:
                return await work(node, run, given)

        return coroutine

    @contextmanager
    def entered(self, node: Node, path: Path, given: Any, on_loop: bool) -> Iterator[int]:
        """Book that an operator is called, and how it ends; gives its run."""
        run, ledger = int(given[0][0]), self.ledger
        act = self.acts_of.get(run)
        with ledger.lock:
            call = ledger.calls[run, path]
            call.began += 1
            call.attempts[int(given[0][1])] += 1  # of a map, the items have inputs of their own
            attempt = call.attempts[int(given[0][1])]
            if run in ledger.over:
                ledger.late[run, threading.get_ident()] += 1
                if on_loop and not self.inside_two(run, path):
                    ledger.wrong.append(f"async operator {path} of run {run} began when that was over")
            if ledger.closed:
                complaints.append(f"operator {path} of run {run} began after quiet()")
            if act is None or here.get() != act.name:
                ledger.wrong.append(f"operator {path} of run {run} finds the context of {here.get()!r}")
            limit = node.limit if path[-1] == node.number and act is not None and act.way != "debug" else None
            if limit is not None:
                ledger.limited[limit] += 1
                if ledger.limited[limit] > self.program.limits[limit]:
                    ledger.wrong.append(f"{ledger.limited[limit]} at once under limit {limit}")
            counts = not on_loop and act is not None and act.way != "debug"
            self.executes(counts)
        for value in given:
            for array in [value] if isinstance(value, np.ndarray) else []:
                if array[0] != run:
                    ledger.wrong.append(f"operator {path} of run {run} got a value of run {array[0]}")
        try:
            yield run
            if node.fails and attempt <= node.failing and path[-1] == node.number:
                raise self.failure(node, run, path, attempt)
            with ledger.lock:
                call.done += 1
        finally:
            del given
            with ledger.lock:
                self.executes(-counts)
                if limit is not None:
                    ledger.limited[limit] -= 1

    def inside_two(self, run: int, path: Path) -> bool:
        """Whether an async operator awaits the run of this, and a kernel that one's.

        The run around the kernel does not wait for either, so a task of the innermost may take its first step yet.
        """
        nodes = self.program.graphs[self.acts_of[run].graph]
        kinds = {at: node.kind for at, node in every(nodes)}
        around = [kinds.get(path[:depth]) for depth in range(1, len(path))]
        return "await" in around[1:]

    def executes(self, change: int) -> None:
        """Under the lock: so many more kernels execute."""
        ledger = self.ledger
        ledger.executing += change
        ledger.most = max(ledger.most, ledger.executing)

    def failure(self, node: Node, run: int, path: Path, attempt: int) -> BaseException:
        error = ERRORS[node.fails](f"{path} of run {run}")
        again = isinstance(error, Exception) and attempt <= node.retries
        if isinstance(error, StopIteration) and node.kind in ("async", "await"):
            again = attempt <= node.retries  # as a RuntimeError
        self.ledger.raised[run].append((error, again))
        return error

    def working(self, node: Node, run: int, given: Any) -> Array:
        """A kernel."""
        if node.does == "meet":
            self.meet(node, run)
        elif node.micros:
            self.work(node)
        return self.ledger.watched(run, mix(node.number, [int(value[1]) for value in given]))

    def work(self, node: Node) -> None:
        seconds = node.micros / 1e6
        if node.does == "sleep":
            time.sleep(seconds)
            return
        end = time.perf_counter() + seconds
        array = np.arange(4096.0)
        while time.perf_counter() < end:
            if node.does == "numpy":
                np.sqrt(array, out=array)
            elif node.does == "blas":
                MATRIX @ MATRIX
            elif node.does == "checks":
                flow.checkpoint()
                time.sleep(0.0001)

    def meet(self, node: Node, run: int) -> None:
        """Wait until all are here, or the run is over."""
        with self.ledger.lock:
            self.gates[run].append(node.number)
        while len(self.gates[run]) < node.micros:
            flow.checkpoint()
            time.sleep(0.0005)

    def running(self, inner: Any, node: Node, run: int, given: Any) -> Array:
        """A kernel with a run inside, during which it does not execute."""
        x = self.ledger.watched(run, mix(node.number, [int(value[1]) for value in given]))
        counts = self.acts_of[run].way != "debug"
        with self.ledger.lock:
            self.executes(-counts)
        try:
            results = inner.run(x)
        finally:
            with self.ledger.lock:
                self.executes(counts)
        return self.ledger.watched(run, mix(node.number, [int(value[1]) for value in results]))

    async def pausing(self, node: Node, run: int, given: Any) -> Array:
        await asyncio.sleep(node.micros / 1e6 if node.does == "sleep" else 0)
        return self.ledger.watched(run, mix(node.number, [int(value[1]) for value in given]))

    async def awaiting(self, inner: Any, node: Node, run: int, given: Any) -> Array:
        x = self.ledger.watched(run, mix(node.number, [int(value[1]) for value in given]))
        results = await inner(x)
        return self.ledger.watched(run, mix(node.number, [int(value[1]) for value in results]))

    # The acts.

    def new_run(self, act: Act) -> tuple[int, Array]:
        """The number of another run, and its input."""
        with self.ledger.lock:
            self.runs += 1
            run = self.runs
            self.acts_of[run] = act
        return run, self.ledger.watched(run, self.input_of(run))

    def input_of(self, run: int) -> int:
        return (self.program.seed * 97 + run * 7) % 1_000_003

    async def act(self, act: Act) -> None:
        """Do it, in a task of its own."""
        here.set(act.name)
        await asyncio.sleep(act.delay / 1e6)
        await {"await": self.awaits, "tasks": self.starts, "stream": self.streams}[act.way](act)

    async def awaits(self, act: Act) -> None:
        loop = asyncio.get_running_loop()
        tasks: dict[int, asyncio.Task[None]] = {}
        for _ in range(act.copies):
            run, x = self.new_run(act)
            tasks[run] = loop.create_task(self.awaited(act, run, x))
            del x
        if act.cancel is not None and act.cancels != "timeout":
            chosen = list(tasks.items())[: 1 if act.cancels == "one" else None]
            loop.call_later(act.cancel / 1e6, self.cancel, chosen)
        for run, task in tasks.items():
            if act.left:
                task.add_done_callback(partial(self.never_began, run))
                continue
            try:
                await task
            except asyncio.CancelledError as exc:  # before its first step
                self.ledger.has_ended(run, exc.with_traceback(None))

    def never_began(self, run: int, task: asyncio.Task[None]) -> None:
        """If the task was cancelled before its first step, its run has no outcome yet."""
        if task.cancelled():
            self.ledger.has_ended(run, asyncio.CancelledError())

    def cancel(self, tasks: list[tuple[int, Any]]) -> None:
        for run, task in tasks:
            if task.cancel():
                self.ledger.cancelled.add(run)

    async def awaited(self, act: Act, run: int, x: Array) -> None:
        pipeline = self.pipelines[act.graph]
        try:
            if act.cancels == "timeout" and act.cancel is not None:
                self.ledger.cancelled.add(run)
                given = [x]
                del x
                async with asyncio.timeout(act.cancel / 1e6):
                    outcome = await pipeline(given.pop())
            else:
                given = [x]
                del x
                outcome = await pipeline(given.pop())
        except BaseException as exc:
            self.ledger.has_ended(run, exc)
        else:
            self.ledger.has_ended(run, outcome)

    def script(self, act: Act) -> None:
        """In a thread of its own."""
        here.set(act.name)
        time.sleep(act.delay / 1e6)
        for _ in range(act.copies):
            run, x = self.new_run(act)
            try:
                pipeline = self.pipelines[act.graph]
                outcome = pipeline.run(x) if act.way == "script" else pipeline.debug(x)
            except BaseException as exc:
                self.ledger.has_ended(run, exc)
            else:
                self.ledger.has_ended(run, outcome)
                del outcome
            del x

    async def starts(self, act: Act) -> None:
        """A Task for each node that can be one; those that cannot are left out, with what takes them."""
        loop = asyncio.get_running_loop()
        for _ in range(act.copies):
            run, x = self.new_run(act)
            tasks: dict[int, Any] = {}
            for node in self.program.graphs[act.graph]:
                if node.kind in ("map", "cond", "plain") or any(number not in tasks for number in node.takes):
                    continue
                operator = self.operators[act.graph][node.number]
                if self.runtime is not None:
                    operator = operator.on(self.runtime)
                tasks[node.number] = operator.start(*([tasks[number] for number in node.takes] or [x]))
            del x
            if act.cancel is not None and tasks:
                chosen = list(tasks)[: None if act.cancels == "all" else 1]
                loop.call_later(act.cancel / 1e6, self.cancel, [(run, tasks[number]) for number in chosen])
            outcomes: dict[int, Any] = {}
            for number, task in tasks.items():
                try:
                    value = await task
                    outcomes[number] = int(value[1])
                    del value
                except BaseException as exc:
                    outcomes[number] = exc
                del task  # this frame is part of its exception's traceback
            tasks.clear()
            with self.ledger.lock:
                self.ledger.over[run] = outcomes

    async def streams(self, act: Act) -> None:
        runs: list[int] = []
        options = dict(act.stream)
        pipeline = self.pipelines[act.graph]
        if options.get("carry"):
            pipeline, options["carry"] = self.carrying(act.graph), {"state": np.array([0, 1])}
        kind: Any = {"list": list, "generator": lambda items: (item for item in items)}.get(act.source, self.source)
        source: Any = kind(self.items(act, runs)) if act.source != "fails" else self.source(self.items(act, runs), True)
        task = asyncio.current_task()
        assert task is not None
        stopped: list[bool] = []
        if act.cancel is not None:
            asyncio.get_running_loop().call_later(act.cancel / 1e6, self.cancel_stream, task, stopped)
        got: list[Any] = []
        ends: list[BaseException] = []
        stream: Any = None
        try:
            stream = pipeline.stream(source, **options)
            async with stream:
                async for value in stream:
                    got.append(value if isinstance(value, BaseException) else self.ledger.read(int(value[0][0]), value))
                    del value
                    if act.leaves is not None and len(got) > act.leaves:
                        break
        except BaseException as exc:
            ends.append(exc)
        was_cancelled = bool(stopped)
        stopped.append(True)
        with self.ledger.lock:
            for run in runs:
                self.ledger.over[run] = None
        end = ends[0] if ends else None
        try:
            self.check_stream(act, runs, got, end, was_cancelled, stream.dropped if stream is not None else 0)
        finally:
            del source, stream, task, end
            got.clear()  # its frame is part of their tracebacks
            ends.clear()

    def cancel_stream(self, task: asyncio.Task[None], stopped: list[bool]) -> None:
        """Unless it has ended."""
        if not stopped:
            stopped.append(True)
            task.cancel()

    def items(self, act: Act, runs: list[int]) -> Iterator[Array]:
        for _ in range(act.copies):
            run, x = self.new_run(act)
            runs.append(run)
            yield x
            del x

    async def source(self, items: Iterator[Array], fails: bool = False) -> AsyncIterator[Array]:
        for number, item in enumerate(items):
            if number % 3 == 1:
                await asyncio.sleep(0.0005)
            yield item
            del item
        if fails:
            raise SourceError

    def carrying(self, graph: int) -> Any:
        """The pipeline with state."""
        inner = self.pipelines[graph]
        carried = flow.op(self.carried)

        def body(x: Any, state: Any) -> Any:
            results = inner(x)
            state = carried(results[0], state)
            return (state, *results), {"state": state}

        made = flow.pipeline(name=f"carrying{graph}")(body)
        return made.on(self.runtime) if self.runtime is not None else made

    def carried(self, first: Array, state: Array) -> Array:
        return self.ledger.watched(int(first[0]), mix(7, [int(first[1]), int(state[1])]))

    # The whole.

    async def on_loop(self, number: int) -> None:
        """All acts of a loop."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.complain)
        acts = [act for act in self.program.acts if act.way not in THREADS and act.loop == number]
        for task in [loop.create_task(self.act(act)) for act in acts]:
            await task
        del task
        if number == 0 and self.runtime is not None and self.closes_late:
            await self.runtime.aclose(None)
        await flow.quiet()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left and not any(act.left for act in acts):
            self.ledger.wrong.append(f"tasks are left: {left}")

    @property
    def closes_late(self) -> bool:
        return False

    def complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.ledger.wrong.append(f"the loop complains: {context}")

    def perform(self) -> None:
        """All of it; Broken says what was wrong."""
        program = self.program
        flow.set_num_interop_threads(program.threads)
        unobserve = flow.observe(self.observe) if program.observed else None
        for _ in range(program.rounds):
            self.one_round()
        self.in_time([partial(self.in_thread, flow.quiet)])
        self.ledger.closed = True
        if unobserve is not None:
            unobserve()
        self.check()

    def observe(self, event: object) -> None:
        if isinstance(event, RunStarted):
            self.told[event.run, "started"] += 1
        elif isinstance(event, RunEnded):
            self.told[event.run, "ended"] += 1
        elif isinstance(event, OperatorEnded):
            self.told[event.run, "operators"] += 1

    def one_round(self) -> None:
        loops = sorted({act.loop for act in self.program.acts if act.way not in THREADS})
        jobs: list[Callable[[], object]] = [partial(self.in_thread, partial(self.on_loop, loop)) for loop in loops]
        jobs.extend(partial(self.script, act) for act in self.program.acts if act.way in THREADS)
        if self.program.resizes:
            jobs.append(self.resize)
        if self.program.closes is not None:
            jobs.append(partial(self.in_thread, self.close))
        self.in_time(jobs)

    def in_time(self, jobs: list[Callable[[], object]]) -> None:
        """Each in a thread of its own, until all have ended.

        Patience is counted in looks, not by the clock: a machine that stands still for a while makes nobody late.
        """
        threads = [threading.Thread(target=job, daemon=True, name="composer") for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(LOOK)
                self.patience -= LOOK
                if self.patience < 0 and thread.is_alive():
                    faulthandler.dump_traceback(all_threads=True)
                    raise Hung(f"it did not end in time\n{flow.parallel_info()}")

    def in_thread(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            runner.run(main())

    def resize(self) -> None:
        for micros, to in self.program.resizes:
            time.sleep(micros / 1e6)
            flow.set_num_interop_threads(to)

    async def close(self) -> None:
        assert self.runtime is not None
        assert self.program.closes is not None
        micros, timeout = self.program.closes
        await asyncio.sleep(micros / 1e6)
        self.closing = True
        await self.runtime.aclose(timeout)

    # The checks.

    def check(self) -> None:
        wrong = self.ledger.wrong
        for run, act in self.acts_of.items():
            if run not in self.ledger.over:
                wrong.append(f"run {run} of {act.name} has no outcome")
            elif act.way in ("await", "script", "debug"):
                self.check_run(run, act, self.ledger.over[run])
            elif act.way == "tasks":
                self.check_tasks(run, act, self.ledger.over[run])
            self.check_calls(run, act)
        by_run: Counter[int] = Counter()
        for (run, _), count in self.ledger.late.items():
            by_run[run] += count
            if count > 1:
                wrong.append(f"a thread began {count} kernels of run {run} after its end")
        if self.ledger.most > self.most_threads:
            wrong.append(f"{self.ledger.most} kernels executed at once, with {self.most_threads} threads")
        for run in {run for run, _ in self.told}:
            if (self.told[run, "started"], self.told[run, "ended"]) != (1, 1):
                wrong.append(
                    f"an observer was told of {self.told[run, 'started']} starts of a run, and of "
                    f"{self.told[run, 'ended']} ends"
                )
        if self.runtime is not None:
            counts = self.runtime.info()["runs"]
            if counts["running"] or counts["waiting"]:
                wrong.append(f"the runtime has something left: {counts}")
        # A permit comes back a moment after its kernel has returned, of which quiet() knows.
        if not settles(lambda: all(limit.available == limit.n and not limit.waiting for limit in self.limits)):
            wrong.append(f"permits are lost: {self.limits}")
        if wrong:
            raise Broken("\n".join(dict.fromkeys(wrong)))

    def check_run(self, run: int, act: Act, outcome: Any) -> None:
        wrong, nodes = self.ledger.wrong, self.program.graphs[act.graph]
        if isinstance(outcome, BaseException):
            if not self.may_fail(run, act, outcome):
                wrong.append(f"run {run} of {act.name} ended with {outcome!r} (cause {outcome.__cause__!r})")
            return
        calls: Counter[Path] = Counter()
        sums = expected(nodes, self.input_of(run), calls)
        if outcome != sums:
            wrong.append(f"run {run} of {act.name} gave {outcome} instead of {sums}")
        if run in self.ledger.cancelled and act.cancels != "timeout":
            wrong.append(f"run {run} of {act.name} was cancelled, and gave a result")
        self.check_success(run, nodes, calls)

    def check_success(self, run: int, nodes: Nodes, calls: Counter[Path]) -> None:
        """Each kernel was called as often as in plain Python, and none failed for good."""
        with_timeout = {path for path, node in every(nodes) if node.timeout is not None}
        for path, count in calls.items():
            done = self.ledger.calls[run, path].done
            inside_timeout = any(path[: len(outer)] == outer for outer in with_timeout)
            if done < count or (done > count and not inside_timeout):
                self.ledger.wrong.append(f"{path} of run {run} succeeded {done} times instead of {count}")
        for error, again in self.ledger.raised[run]:
            if not again and not with_timeout:
                self.ledger.wrong.append(f"run {run} succeeded, but {error!r} was raised")

    def may_fail(self, run: int, act: Act, error: BaseException) -> bool:
        """Whether this is an outcome that the run may have."""
        cancelled = run in self.ledger.cancelled
        if act.left and type(error) is asyncio.CancelledError:
            return True
        if cancelled and act.cancels != "timeout":
            return type(error) is asyncio.CancelledError
        if type(error) is TimeoutError:
            return cancelled
        if isinstance(error, flow.Overloaded):
            return self.program.runtime is not None and self.program.runtime[1] is not None
        if isinstance(error, flow.RuntimeClosed):
            return self.closing
        return self.was_raised(run, act, error)

    def was_raised(self, run: int, act: Act, error: BaseException) -> bool:
        if isinstance(error, flow.OperatorTimeout):
            return any(node.timeout is not None for _, node in every(self.program.graphs[act.graph]))
        final = [one for one, again in self.ledger.raised[run] if not again]
        if act.way == "debug":  # untouched, and there are no further attempts
            return any(one is error or one is error.__cause__ for one, _ in self.ledger.raised[run])
        if type(error) is flow.OperatorError:
            return isinstance(error.__cause__, NEVER_RAW) and any(one is error.__cause__ for one in final)
        if type(error) is RuntimeError:  # what Python makes of a StopIteration in a coroutine
            return isinstance(error.__cause__, StopIteration) and any(one is error.__cause__ for one in final)
        return not isinstance(error, NEVER_RAW) and any(one is error for one in final)

    def check_calls(self, run: int, act: Act) -> None:
        """None is called more often than its attempts allow."""
        nodes = self.program.graphs[act.graph]
        calls: Counter[Path] = Counter()
        expected(nodes, self.input_of(run), calls)
        retries = {path: 1 + node.retries for path, node in every(nodes)}
        for (of, path), call in list(self.ledger.calls.items()):
            if of != run:
                continue
            most = calls[path]
            for depth in range(1, len(path) + 1):
                most *= retries.get(path[:depth], 1)
            if call.began > most:
                self.ledger.wrong.append(f"{path} of run {run} was called {call.began} times, at most {most} expected")

    def check_tasks(self, run: int, act: Act, outcomes: dict[int, Any]) -> None:
        nodes = {node.number: node for node in self.program.graphs[act.graph]}
        sums: dict[int, int] = {}
        for number, outcome in outcomes.items():
            node = nodes[number]
            failed = [outcomes[one] for one in node.takes if isinstance(outcomes[one], BaseException)]
            if isinstance(outcome, asyncio.CancelledError):
                if run not in self.ledger.cancelled:
                    self.ledger.wrong.append(f"task {number} of run {run} was cancelled by nobody")
            elif isinstance(outcome, BaseException):
                if not any(one is outcome for one in failed) and not self.task_may_fail(run, act, outcome):
                    self.ledger.wrong.append(f"task {number} of run {run} ended with {outcome!r}")
            elif failed:
                self.ledger.wrong.append(f"task {number} of run {run} gave a result, but what it takes has none")
            else:
                given = [outcomes[one] for one in node.takes] or [self.input_of(run)]
                total = mix(number, given)
                if node.inner:
                    total = mix(number, expected(node.inner, total, Counter()))
                sums[number] = total
                if outcome != total:
                    self.ledger.wrong.append(f"task {number} of run {run} gave {outcome} instead of {total}")

    def task_may_fail(self, run: int, act: Act, error: BaseException) -> bool:
        if isinstance(error, flow.Overloaded):
            return self.program.runtime is not None and self.program.runtime[1] is not None
        if isinstance(error, flow.RuntimeClosed):
            return self.closing
        return self.was_raised(run, act, error)

    def check_stream(self, act: Act, runs: list[int], got: list[Any], end: Any, cancelled: bool, dropped: int) -> None:
        """What a stream gave, in what order, and how it ended; at once, while the numbers of its runs are at hand."""
        wrong, options, nodes = self.ledger.wrong, act.stream, self.program.graphs[act.graph]
        carry = bool(options.get("carry"))
        outcomes: dict[int, Any] = {}
        plain: dict[int, list[int]] = {run: expected(nodes, self.input_of(run), Counter()) for run in runs}
        state = 1
        for place, one in enumerate(got):
            if isinstance(one, BaseException):
                number = one.__dict__.get("item")
                run = runs[number] if isinstance(number, int) and number < len(runs) else -1
                if run < 0 or not self.was_raised(run, act, one):
                    wrong.append(f"{act.name}: result {place} is {one!r}, of item {number}")
                    continue
                if options.get("on_error") != "yield":
                    wrong.append(f"{act.name} yielded {one!r}")
            else:
                run = self.item_of(one, plain, carry)
                if run < 0:
                    wrong.append(f"{act.name}: result {place}, {one}, is of no item: {plain}")
                    continue
                if carry and options.get("ordered", True):
                    state = mix(7, [one[1], state])
                    if one[0] != state:
                        wrong.append(f"{act.name}: result {place} carries {one[0]} instead of {state}")
            if run in outcomes:
                wrong.append(f"{act.name}: run {run} has two outcomes")
            outcomes[run] = one
        order = list(outcomes)
        if options.get("ordered", True) and order != sorted(order):
            wrong.append(f"{act.name} gave results in the order {order}")
        if dropped and "on_full" not in options:
            wrong.append(f"{act.name} has dropped {dropped}")
        whole = end is None and (act.leaves is None or len(got) <= act.leaves)
        if whole and act.source == "fails":
            wrong.append(f"{act.name} ended without its source's exception")
        if whole and len(got) + dropped != len(runs):
            wrong.append(f"{act.name} gave {len(got)} of {len(runs)} results and has dropped {dropped}")
        if whole and len(runs) != act.copies:
            wrong.append(f"{act.name} pulled {len(runs)} of {act.copies} items")
        if end is not None and not self.stream_may_end(act, runs, end, cancelled):
            wrong.append(f"{act.name} ended with {end!r} (cause {end.__cause__!r})")

    def item_of(self, one: list[int], plain: dict[int, list[int]], carry: bool) -> int:
        for run, sums in plain.items():
            if sums == one[1 if carry else 0 :]:
                return run
        return -1

    def stream_may_end(self, act: Act, runs: list[int], end: BaseException, cancelled: bool) -> bool:
        if isinstance(end, asyncio.CancelledError):
            return cancelled
        if isinstance(end, SourceError):
            return act.source == "fails"
        if isinstance(end, flow.Overloaded):
            return self.program.runtime is not None and self.program.runtime[1] is not None
        if isinstance(end, flow.RuntimeClosed):
            return self.closing
        if act.stream.get("on_error") == "yield" and isinstance(end, Exception):
            return False
        return any(self.was_raised(run, act, end) for run in runs)

    # The baseline.

    def forget(self) -> list[weakref.ref[Array]]:
        """Let go of everything but weak references."""
        arrays = list(self.ledger.arrays)
        # In place: the frames that an exception's traceback holds have references to these.
        for outcome in self.ledger.over.values():
            if isinstance(outcome, dict):
                outcome.clear()
        self.ledger.over.clear()
        self.ledger.raised.clear()
        self.pipelines.clear()
        self.operators.clear()
        self.acts_of.clear()
        return arrays


def descriptors() -> int:
    """How many are open; 0 where nobody tells."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def others() -> list[str]:
    """Threads beyond the pool's."""
    return [thread.name for thread in threading.enumerate() if not thread.name.startswith("dataflow")]


def in_progress() -> int:
    """How many runs have begun and not ended."""
    return int(flow.parallel_info()["runs"]["in_progress"])


def nothing_runs(before: int) -> bool:
    """Whether the pool has nothing to do, and no run is in progress but those that were `before`."""
    threads = flow.parallel_info()["interop_threads"]
    return not (threads["busy"] or threads["overrunning"] or threads["queued"]) and in_progress() <= before


def settles(holds: Callable[[], bool]) -> bool:
    """Whether it holds within some seconds; on a free-threaded build after a collection."""
    end = time.perf_counter() + GRACE
    if holds():
        return True
    while time.perf_counter() < end:
        if FREE_THREADED:
            gc.collect()
        if holds():
            return True
        time.sleep(0.001)
    return False


complaints: list[str] = []
"""What was said where nobody listens."""


def listen() -> None:
    """Have `complaints` know of warnings, and of exceptions in threads and finalizers."""
    logging.getLogger("dataflow").addHandler(logging.NullHandler())
    logging.getLogger("dataflow").propagate = False
    sys.unraisablehook = lambda args: complaints.append(f"unraisable: {args.exc_value!r} in {args.object!r}")
    threading.excepthook = lambda args: complaints.append(f"in thread {args.thread}: {args.exc_value!r}")
    warnings.simplefilter("always", RuntimeWarning)
    warnings.simplefilter("always", ResourceWarning)
    warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: complaints.append(
        f"{category.__name__}: {message}"
    )


def play(program: Program, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Perform a program and compare what is left with what was there; Broken says what was wrong."""
    complaints.clear()
    threads, files, runs = len(others()), descriptors(), in_progress()
    performance = Play(program, new_loop)
    performance.perform()
    arrays = performance.forget()
    del performance
    checks: dict[str, Callable[[], bool]] = {
        "threads": lambda: len(others()) <= threads,
        "descriptors": lambda: descriptors() <= files,
        "arrays": lambda: not any(reference() is not None for reference in arrays),
        "runs": lambda: nothing_runs(runs),
    }
    left = [name for name, holds in checks.items() if not settles(holds)]
    if left:
        alive = sum(reference() is not None for reference in arrays)
        info = {name: dict(flow.parallel_info()[name]) for name in ("interop_threads", "runs")}
        collected = gc.collect()
        there = sum(reference() is not None for reference in arrays)
        raise Broken(
            f"left over: {left}; {alive} arrays ({there} after {collected} objects were collected), "
            f"threads {others()}, {info}"
        )
    if complaints:
        raise Broken("complaints: " + "; ".join(complaints))


def new_loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The kinds of event loop there are."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return loops
    return {**loops, "uvloop": uvloop.new_event_loop}


def warm_up() -> None:
    """What the first loop of a kind opens stays open."""
    for new_loop in new_loops().values():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(flow.quiet())


def soak(first: int, count: int, loop: str, drop: list[str], times: int) -> int:
    """Play programs one after another; gives how many were broken."""
    broken, where = 0, f"on {loop}, Python {sys.version.split()[0]}"
    began = time.perf_counter()
    slow: list[tuple[float, int]] = []
    for seed in range(first, first + count):
        program = without(compose(seed), drop)
        if count == 1:
            print(program, flush=True)
        for _ in range(times):
            start = time.perf_counter()
            try:
                play(program, new_loops()[loop])
            except Broken as error:
                broken += 1
                print(f"seed {seed} {where}: {type(error).__name__}\n{error}\n{program}", flush=True)
                if isinstance(error, Hung):
                    os._exit(2)
                break
            slow.append((time.perf_counter() - start - length(program), seed))
        if (seed + 1 - first) % 250 == 0:
            print(f"{seed + 1 - first} of {count}, {broken} broken, {time.perf_counter() - began:.0f} s", flush=True)
    slow.sort(reverse=True)
    print(f"{count} programs {where}: {broken} broken, {time.perf_counter() - began:.0f} s")
    print("latest: " + ", ".join(f"{seconds:.2f} s (seed {seed})" for seconds, seed in slow[:5]))
    return broken


def shrink(seed: int, loop: str, times: int) -> None:
    """Drop one part after another, as long as it fails; each trial in a process of its own."""
    drop: list[str] = []
    if not fails(seed, loop, drop, times):
        print(f"seed {seed} does not fail in {times} times")
        return
    progress = True
    while progress:
        progress = False
        for part, _ in simpler(without(compose(seed), drop)):
            if fails(seed, loop, [*drop, part], times):
                drop.append(part)
                progress = True
                print(f"without {part}", flush=True)
                break
    print(without(compose(seed), drop))
    print(f"python -m tests.soak.composer 1 --seed {seed} --loop {loop} --times {times} --drop {','.join(drop)}")


def fails(seed: int, loop: str, drop: list[str], times: int) -> bool:
    command = [sys.executable, "-m", "tests.soak.composer", "1", "--seed", str(seed), "--loop", loop]
    command += ["--times", str(times), "--drop", ",".join(drop)]
    return subprocess.run(command, capture_output=True, check=False).returncode in (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.composer")
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loop", choices=new_loops(), default="asyncio")
    parser.add_argument("--times", type=int, default=1, help="how often each program is played, in one process")
    parser.add_argument("--drop", default="", help="parts that are left out, as --shrink names them")
    parser.add_argument("--shrink", type=int, metavar="SEED")
    asked = parser.parse_args()
    listen()
    if asked.shrink is not None:
        shrink(asked.shrink, asked.loop, asked.times)
        return
    warm_up()
    drop = [part for part in asked.drop.split(",") if part]
    sys.exit(1 if soak(asked.seed, asked.count, asked.loop, drop, asked.times) else 0)


if __name__ == "__main__":
    main()
