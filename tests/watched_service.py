"""`demos/08_service.py serve` as it stands, watched, with a gate before its kernels; a process for `test_service`:

    python -m tests.watched_service asyncio | uvloop

The demo runs as the program it is. It gets the event loop that is asked for, and routes beside its own: `/watch` tells
what the service holds and what it did for clients that were gone, `/gate/shut` keeps kernels from getting anywhere, and
`/gate/open` lets them go on. So a test has as many requests in progress as it wants, on any machine.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

import dataflow as flow
from dataflow.events import OperatorEnded
from tests.benchmarks.service_variants import AtOnce
from tests.conftest import LOOPS

DEMO = Path(__file__).resolve().parent.parent / "demos" / "08_service.py"


@dataclass
class Visit:
    """A request."""

    left: int | None = None
    """When its handler learned that its client is gone; nanoseconds of the wall clock, as in events."""
    late: int = 0
    """Kernels that began for it after that."""


visit: ContextVar[Visit | None] = ContextVar("visit", default=None)


class Watch:
    """What there is to tell of the service."""

    def __init__(self) -> None:
        self.gone = self.kernels = self.late = 0
        self.at_once = AtOnce()
        self._lock = threading.Lock()

    @web.middleware
    async def around(self, request: web.Request, handler: Any) -> Any:
        """Around every handler: it is cancelled when the client has disconnected."""
        visit.set(here := Visit())
        try:
            return await handler(request)
        except asyncio.CancelledError:
            here.left = time.time_ns()
            self.gone += 1
            raise

    def ended(self, kernel: OperatorEnded) -> None:
        """For `flow.observe`: told in the context of the request."""
        here = visit.get()
        with self._lock:
            self.kernels += 1
            self.at_once.ended(kernel)
            if here is not None and here.left is not None and kernel.began > here.left:
                here.late += 1
                self.late = max(self.late, here.late)

    async def told(self, _: web.Request) -> web.Response:
        """`threads` are those beside dataflow's own; `late` is the greatest number for any one client that was gone."""
        with self._lock:
            return web.json_response(
                {
                    "tasks": len(asyncio.all_tasks()),
                    "threads": sum(not thread.name.startswith("dataflow-") for thread in threading.enumerate()),
                    "descriptors": len(os.listdir("/dev/fd")),
                    "gone": self.gone,
                    "kernels": self.kernels,
                    "at_once": self.at_once.greatest(),
                    "late": self.late,
                }
            )


def gated(function: Any, gate: threading.Event) -> Any:
    """The function, which first waits for the gate."""

    def wait(*args: Any, **kwargs: Any) -> Any:
        gate.wait()
        return function(*args, **kwargs)

    return wait


def main() -> None:
    """Run the demo."""
    loop, watch, gate = LOOPS[sys.argv[1]](), Watch(), threading.Event()
    gate.set()

    async def turn(request: web.Request) -> web.Response:
        (gate.set if request.match_info["way"] == "open" else gate.clear)()
        return web.Response()

    def run_app(app: Any, **options: Any) -> None:
        app.add_routes([web.get("/watch", watch.told), web.post("/gate/{way:open|shut}", turn)])
        app.middlewares.append(watch.around)
        served(app, loop=loop, **options)

    served, web.run_app = web.run_app, run_app
    np.fft.rfft2 = gated(np.fft.rfft2, gate)
    flow.observe(watch.ended, kinds=[OperatorEnded])
    sys.argv = [str(DEMO), "serve"]
    sys.path.insert(0, str(DEMO.parent))
    runpy.run_path(str(DEMO), run_name="__main__")


if __name__ == "__main__":
    main()
