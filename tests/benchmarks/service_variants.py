"""One HTTP service in three ways, each with a watch on itself; `service` puts them under load. As a process:

    python -m tests.benchmarks.service_variants dataflow | to_thread | dask | refusing

prints its port, serves until SIGTERM, and tells on `/told` what it has seen since it was last asked. The way `dataflow`
is `demos/08_service.py`, handler and all. The others have its kernels, and are what one writes without it: the whole
computation in `asyncio.to_thread`, or there a graph of `dask.delayed` for dask's threads. All three stop what a client
that has disconnected waits for, as far as they can. None has settings: threads are what each takes by default.
`refusing` is the limit: it reads each request and refuses it, so what its loop is late, HTTP alone makes it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

from aiohttp import web

import dataflow as flow
from dataflow.events import OperatorEnded
from dataflow.graph.nodes import Ref
from tests.benchmarks.machine import resident

__all__ = ["LIMIT", "VARIANTS", "AtOnce", "Watch", "demo"]

DEMO = Path(__file__).parents[2] / "demos" / "08_service.py"
TICK = 1e-3

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def demo() -> ModuleType:
    """The demo as a module, which serves nothing by itself."""
    spec = importlib.util.spec_from_file_location("service_demo", DEMO)
    if spec is None or spec.loader is None:
        raise ImportError(f"no demo at {DEMO}")
    if str(DEMO.parent) not in sys.path:
        sys.path.append(str(DEMO.parent))  # it has visitors beside it
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class AtOnce:
    """How many kernels run at once: counted where they are called, or from the times that an observer is told."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()
        self._spans: list[tuple[float, float]] = []

    @contextmanager
    def one(self) -> Iterator[None]:
        """One runs in here."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self._lock:
                self.now -= 1

    def ended(self, kernel: OperatorEnded) -> None:
        """For `flow.observe`."""
        self._spans.append((kernel.began * 1e-9, kernel.began * 1e-9 + kernel.seconds))

    def greatest(self) -> int:
        """The greatest number so far."""
        moments = [(began, 1) for began, _ in self._spans] + [(ended, -1) for _, ended in self._spans]
        now, most = 0, self.most
        for _, step in sorted(moments):  # at the same moment, ends come first
            now += step
            most = max(most, now)
        return most


class Watch:
    """What a service sees of itself since it was last asked: how late its loop was, memory, threads, kernels."""

    def __init__(self, kernels: AtOnce, running: Callable[[], int]) -> None:
        self._kernels, self._running = kernels, running
        self._late: list[float] = []
        self._peak = 0.0
        self._asked = 0

    async def ticking(self, _: web.Application) -> AsyncIterator[None]:
        """For as long as the application serves."""
        task = asyncio.create_task(self._tick())
        yield
        task.cancel()

    async def _tick(self) -> None:
        while True:
            before, asked = perf_counter(), self._asked
            await asyncio.sleep(TICK)
            if asked != self._asked:  # telling takes its time as well
                continue
            self._late.append(perf_counter() - before - TICK)
            if len(self._late) % 16 == 0:
                self._peak = max(self._peak, resident())

    async def told(self, _: web.Request) -> web.Response:
        """What there was, as JSON."""
        late, peak = self._late, max(self._peak, resident())
        self._late, self._peak = [], 0.0
        self._asked += 1
        return web.json_response(
            {
                "late": late,
                "resident": resident(),
                "peak": peak,
                "threads": threading.active_count(),
                "tasks": len(asyncio.all_tasks()),
                "running": self._running(),
                "at_once": self._kernels.greatest(),
            }
        )


def dataflow(service: ModuleType, kernels: AtOnce) -> tuple[Handler, Callable[[], int]]:
    """The demo's own handler."""
    flow.observe(kernels.ended, kinds=[OperatorEnded])
    return service.answer, lambda: int(flow.parallel_info()["interop_threads"]["busy"])


def to_thread(service: ModuleType, kernels: AtOnce) -> tuple[Handler, Callable[[], int]]:
    """All of a request in one thread of the loop's pool: its body is plain numpy there."""

    def features(body: bytes) -> list[float]:
        with kernels.one():
            return list(service.features.__wrapped__(body))

    return _answering(features), lambda: kernels.now


def dask(service: ModuleType, kernels: AtOnce) -> tuple[Handler, Callable[[], int]]:
    """The graph of the demo's pipeline, made of `dask.delayed` for each request."""
    package: Any = importlib.import_module("dask")
    graph = service.features.graph()

    def counted(function: Callable[..., Any]) -> Any:
        def kernel(*args: Any) -> Any:
            with kernels.one():
                return function(*args)

        return package.delayed(kernel, pure=False, traverse=False)

    calls = [(counted(node.spec.fn), node.args) for node in graph.nodes]

    def features(body: bytes) -> list[float]:
        values: list[Any] = [package.delayed(body, pure=False, traverse=False)]
        for call, args in calls:
            values.append(call(*[values[arg] if isinstance(arg, Ref) else arg for arg in args]))
        return list(package.compute(*[values[i] for i in graph.output], scheduler="threads"))

    return _answering(features), lambda: kernels.now


def refusing(service: ModuleType, kernels: AtOnce) -> tuple[Handler, Callable[[], int]]:
    """No kernel at all."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=503, headers={"Retry-After": "1"}, text="busy")

    return answer, lambda: kernels.now


LIMIT = "refusing"
VARIANTS: dict[str, Callable[[ModuleType, AtOnce], tuple[Handler, Callable[[], int]]]] = {
    "dataflow": dataflow,
    "to_thread": to_thread,
    "dask": dask,
    LIMIT: refusing,
}


def _answering(features: Callable[[bytes], list[float]]) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(await asyncio.to_thread(features, await request.read()))
        except ValueError as exc:
            return web.Response(status=400, text=str(exc))

    return answer


def main() -> None:
    """Serve, until SIGTERM."""
    service, kernels = demo(), AtOnce()
    answer, running = VARIANTS[sys.argv[1]](service, kernels)
    watch = Watch(kernels, running)
    app, sock = web.Application(), socket.create_server(("127.0.0.1", 0), backlog=512)
    app.add_routes([web.post("/features", answer), web.get("/told", watch.told)])
    app.cleanup_ctx.append(watch.ticking)
    print(sock.getsockname()[1], flush=True)
    web.run_app(app, sock=sock, handler_cancellation=True, shutdown_timeout=2, print=None)


if __name__ == "__main__":
    main()
