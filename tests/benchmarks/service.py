"""A service under load, in three ways: what it answers, how late its loop is, what it holds, what is left. By itself:

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m tests.benchmarks.service [--quick]

It needs the extras `bench` and `demos`, and takes three minutes, with `--quick` somewhat more than half a minute.
`service_variants` has the services: the demo's, the same one with `asyncio.to_thread` and with dask's threads, and for
comparison one that refuses everything. Each is a process of its own, a fresh one for each row and round, and is warmed
up before it is watched.

The capacity of each is measured first, with a closed loop of 8 clients. The load is open: requests arrive at a fixed
rate, whatever has become of those before, and all get the same rates: half, once and twice the greatest of the
capacities. What a request takes counts from when it was due. A client waits two seconds and then hangs up; at most 400
are connected at once, and who would be one more has failed. Every answer is compared with plain numpy's.

This process is all clients. Where it was written, with 2 CPUs for clients and service together, it used 3 % of these at
half the capacity, 4 % at once and 7 % at twice the capacity, at most: it takes little from the service, and is not what
limits it. It prints its shares, and how late it sent what was due. CPUs that others use are missing for the services:
look at what they used, and at the capacities, before believing anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import numpy as np

from tests.benchmarks.machine import Usage, machine
from tests.benchmarks.measures.lag import percentile
from tests.benchmarks.service_variants import LIMIT, VARIANTS, demo
from tests.benchmarks.tables import table

REPO = Path(__file__).parents[2]
CLOSED = 8
"""Clients of a closed loop."""
MOST = 400
"""Clients at once of an open one."""
PATIENCE = 2.0
"""Seconds after which a client hangs up."""
LOADS = {"half": 0.5, "once": 1.0, "twice": 2.0}
SETTLE = 10.0
"""Seconds after which a service is thought never to become idle."""
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 512, 512), np.uint8)
HEAD = [
    "load, service",
    "offered/s",
    "requests",
    "200 right",
    "503",
    "wrong or failed",
    "p50 ms",
    "p99 ms",
    "lag p99 ms",
    "lag max ms",
    "peak MB",
    "grown MB",
    "threads",
    "kernels at once",
    "left running",
    "idle after ms",
]


@dataclass
class Seen:
    """Of one service at one load, all rounds together."""

    offered: float = 0.0
    right: int = 0
    refused: int = 0
    wrong: int = 0
    failed: int = 0
    took: list[float] = field(default_factory=list)
    """Seconds of each right answer."""
    sent_late: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """Seconds by which a timer in the service was late."""
    peak: float = 0.0
    grown: float = 0.0
    threads: int = 0
    at_once: int = 0
    left: int = 0
    idle_after: float = 0.0

    def row(self, name: str) -> list[object]:
        """One of the table."""
        requests = self.right + self.refused + self.wrong + self.failed
        took, late = self.took or [float("nan")], self.late or [float("nan")]
        return [
            name,
            f"{self.offered:.0f}",
            requests,
            self.right,
            self.refused,
            self.wrong + self.failed,
            *[f"{percentile(took, share) * 1e3:.0f}" for share in (0.5, 0.99)],
            *[f"{percentile(late, share) * 1e3:.1f}" for share in (0.99, 1)],
            f"{self.peak:.0f}",
            f"{self.grown:.0f}",
            self.threads,
            self.at_once,
            self.left,
            f"{self.idle_after * 1e3:.0f}",
        ]


class Visitors:
    """Clients of one service, and what became of their requests."""

    def __init__(self, url: str, expected: list[list[float]], seen: Seen) -> None:
        self._session = aiohttp.ClientSession(
            url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(PATIENCE)
        )
        self._expected, self._seen = expected, seen

    async def __aenter__(self) -> Visitors:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, number: int, due: float) -> None:
        """One request, which was due then."""
        which, seen = number % len(IMAGES), self._seen
        try:
            async with self._session.post("/features", data=IMAGES[which].tobytes()) as reply:
                if reply.status == 200:
                    if np.allclose(await reply.json(), self._expected[which], rtol=1e-9, atol=0):
                        seen.right += 1
                        seen.took.append(perf_counter() - due)
                    else:
                        seen.wrong += 1
                elif reply.status == 503 and int(reply.headers["Retry-After"]) >= 1:
                    seen.refused += 1
                else:
                    seen.wrong += 1
        except (aiohttp.ClientError, OSError, TimeoutError):
            seen.failed += 1

    async def closed_loop(self, seconds: float) -> float:
        """So many clients, each of which asks again when it has its answer; returns right answers a second."""
        began = perf_counter()

        async def insist(number: int) -> None:
            while (now := perf_counter()) < began + seconds:
                await self.ask(number, now)

        before = self._seen.right
        await asyncio.gather(*(insist(number) for number in range(CLOSED)))
        return (self._seen.right - before) / (perf_counter() - began)

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Requests at a fixed rate; returns when the last has ended."""
        began, asking = perf_counter(), set[asyncio.Task[None]]()
        for number in range(round(rate * seconds)):
            due = began + number / rate
            if (wait := due - perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._seen.sent_late.append(perf_counter() - due)
            if len(asking) >= MOST:
                self._seen.failed += 1
                continue
            task = asyncio.create_task(self.ask(number, due))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)


@contextmanager
def serving(variant: str) -> Iterator[str]:
    """The service as a process; gives its address, and ends it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    command = [sys.executable, "-m", "tests.benchmarks.service_variants", variant]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO, env=environment) as process:
        try:
            if process.stdout is None or not (port := process.stdout.readline().strip()):
                raise ChildProcessError(f"the service {variant!r} did not start")
            yield f"http://127.0.0.1:{port}"
            process.terminate()
            process.wait(10)
        finally:
            process.kill()  # of one that has ended, this does nothing


async def told(url: str) -> dict[str, Any]:
    """What the service has seen of itself, asked by a client that is alone."""
    async with aiohttp.ClientSession(url) as session, session.get("/told") as reply:
        seen: dict[str, Any] = json.loads(await reply.text())
        return seen


async def capacity(url: str, expected: list[list[float]], seconds: float) -> float:
    """Right answers a second of a closed loop."""
    async with Visitors(url, expected, Seen()) as visitors:
        await visitors.closed_loop(seconds / 4)
        return await visitors.closed_loop(seconds)


async def under_load(url: str, expected: list[list[float]], rate: float, seconds: float, seen: Seen) -> None:
    """One round of one row: what is seen is added to `seen`."""
    async with Visitors(url, expected, Seen()) as visitors:
        await visitors.closed_loop(seconds / 8)
    before = await told(url)
    async with Visitors(url, expected, seen) as visitors:
        await visitors.open_loop(rate, seconds)
    ended = perf_counter()
    after = now = await told(url)
    while (busy := now["running"] or now["tasks"] > before["tasks"]) and perf_counter() < ended + SETTLE:
        seen.idle_after = max(seen.idle_after, perf_counter() - ended)
        await asyncio.sleep(0.005)
        now = await told(url)
    if busy:
        raise AssertionError(f"not idle after {SETTLE:.0f} s: {now}")
    seen.offered = rate
    seen.late += after["late"]
    seen.peak = max(seen.peak, after["peak"])
    seen.grown = max(seen.grown, now["resident"] - before["resident"])
    seen.threads = max(seen.threads, now["threads"])
    seen.at_once = max(seen.at_once, now["at_once"])
    seen.left = max(seen.left, after["running"])


class Share:
    """Which share of all CPUs this process has used since it was made."""

    def __init__(self) -> None:
        self._before = self._read()

    def until_now(self) -> float:
        """From 0 to 1."""
        (busy, wall), (busy_now, now) = self._before, self._read()
        return (busy_now - busy) / (now - wall) / (os.cpu_count() or 1)

    def _read(self) -> tuple[float, float]:
        times = os.times()
        return times.user + times.system, perf_counter()


def main() -> None:
    """Measure capacities, then every service at every load, in an order that changes; print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.service", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    quick = parser.parse_args().quick
    rounds, seconds = (1, 1.5) if quick else (2, 6.0)
    usage, rng, service = Usage(), random.Random(0), demo()
    expected = [list(service.features.__wrapped__(image.tobytes())) for image in IMAGES]
    print(machine(), f"load {os.getloadavg()[0]:.2f} before", sep="\n", flush=True)
    capacities = dict.fromkeys([variant for variant in VARIANTS if variant != LIMIT], 0.0)
    for _ in range(rounds):
        for variant in capacities:
            with serving(variant) as url:
                found = asyncio.run(capacity(url, expected, seconds / 3))
                capacities[variant] = max(capacities[variant], found)
    print("capacity, right answers a second:", ", ".join(f"{name} {found:.0f}" for name, found in capacities.items()))
    print(flush=True)
    seen = {(load, variant): Seen() for load in LOADS for variant in VARIANTS}
    shares = dict.fromkeys(LOADS, 0.0)
    for _ in range(rounds):
        for load, variant in rng.sample(list(seen), len(seen)):
            with serving(variant) as url:
                share = Share()
                rate = LOADS[load] * max(capacities.values())
                asyncio.run(under_load(url, expected, rate, seconds, seen[load, variant]))
                shares[load] = max(shares[load], share.until_now())
    print(table(HEAD, [found.row(f"{load}, {variant}") for (load, variant), found in seen.items()]), end="\n\n")
    late = percentile([late for found in seen.values() for late in found.sent_late], 0.99)
    print(f"{sum(found.wrong for found in seen.values())} answers were wrong.")
    used = ", ".join(f"{load} {share:.0%}" for load, share in shares.items())
    print(f"Clients used at most, of all CPUs: {used}. Of what they sent, p99 was {late * 1e3:.1f} ms late.")
    print(f"{usage} Load {os.getloadavg()[0]:.2f} after.")


if __name__ == "__main__":
    main()
