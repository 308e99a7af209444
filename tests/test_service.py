"""`demos/08_service.py` as a process of its own, over HTTP: right, overloaded, deserted, and told to end.

On both event loops, and with a watch on it (see `watched_service`). Nothing here depends on how fast the machine is:
where requests have to be in progress, a gate keeps them there.
"""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.conftest import LOOPS

aiohttp = pytest.importorskip("aiohttp")

REPO = Path(__file__).resolve().parent.parent
SIDE = 512
RUNS, WAITING = 4, 8
CAPACITY = RUNS + WAITING
PATIENCE = 60
"""Seconds until a test gives up; nothing here takes ten."""


def contrasts(image: np.ndarray) -> list[float]:
    """What the service should answer, by the other kind of Fourier transform."""
    line = np.fft.fftfreq(SIDE)
    pitch = np.sqrt(line[:, None] ** 2 + line**2)
    waves = np.fft.fft2(image / 255)
    return [
        float(np.fft.ifft2(np.where((pitch > low) & (pitch < 2 * low), waves, 0)).real.std())
        for low in (0.01, 0.05, 0.25)
    ]


IMAGES = np.random.default_rng(8).integers(0, 256, (6, SIDE, SIDE), np.uint8)
EXPECTED = [contrasts(image) for image in IMAGES]


class Service(NamedTuple):
    """The process, where it is reached, and the file with what it writes to stderr."""

    process: subprocess.Popen[str]
    url: str
    stderr: Path

    def end(self) -> str:
        """Wait until it has ended, as it should; returns the rest of what it printed."""
        printed, _ = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, self.stderr.read_text()) == (0, "")
        return printed


@contextmanager
def serving(folder: Path, loop: str) -> Iterator[Service]:
    command = [sys.executable, "-W", "error", "-m", "tests.watched_service", loop]
    with (
        (folder / "stderr").open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=REPO) as process,
    ):
        try:
            assert process.stdout is not None
            yield Service(process, f"http://127.0.0.1:{int(process.stdout.readline())}", folder / "stderr")
        finally:
            process.kill()  # of one that has ended, this does nothing


@pytest.fixture(scope="module", params=LOOPS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), request.param) as running:
        yield running
        running.process.terminate()
        running.end()


def client(service: Service) -> Any:
    return aiohttp.ClientSession(
        service.url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(PATIENCE)
    )


async def ask(session: Any, number: int) -> int:
    """The status of an answer that is right, or that says when to ask again."""
    async with session.post("/features", data=IMAGES[number % len(IMAGES)].tobytes()) as reply:
        if reply.status == 200:
            np.testing.assert_allclose(await reply.json(), EXPECTED[number % len(IMAGES)], rtol=1e-9)
        else:
            assert reply.status == 503
            assert int(reply.headers["Retry-After"]) >= 1
        return int(reply.status)


async def get(session: Any, path: str) -> dict[str, Any]:
    async with session.get(path) as reply:
        assert reply.status == 200
        told: dict[str, Any] = await reply.json()
        return told


async def runs(session: Any) -> dict[str, Any]:
    told: dict[str, Any] = (await get(session, "/info"))["runtime"]["runs"]
    return told


async def until_there_are(session: Any, **wanted: int) -> None:
    """Wait until so many runs are `running`, `waiting`, or have ended in some way."""
    async with asyncio.timeout(PATIENCE):
        while {name: count for name, count in (await runs(session)).items() if name in wanted} != wanted:
            await asyncio.sleep(0.005)


async def held(service: Service) -> dict[str, int]:
    """What the service holds, seen by its only client."""
    info, watch = await told(service)
    of, threads = info["runtime"]["runs"], info["process"]["interop_threads"]
    return {
        **{name: watch[name] for name in ("tasks", "threads", "descriptors")},
        **{name: of[name] for name in ("running", "waiting")},
        **{name: threads[name] for name in ("overrunning", "busy", "queued")},
        "in progress": info["process"]["runs"]["in_progress"],
    }


@asynccontextmanager
async def nothing_left(service: Service) -> AsyncIterator[None]:
    """Afterwards, once it has noticed that its clients are gone, it holds no more than an idle service does."""
    async with client(service) as session:
        assert await ask(session, 0) == 200
    idle = {name: count for name, count in (await held(service)).items() if name in {"tasks", "threads", "descriptors"}}
    yield
    ends = time.monotonic() + PATIENCE
    while left := {name: count for name, count in (await held(service)).items() if count > idle.get(name, 0)}:
        assert time.monotonic() < ends, (left, idle)
        await asyncio.sleep(0.01)
    info, watch = await told(service)
    assert watch["at_once"] <= info["process"]["interop_threads"]["target"]
    assert info["process"]["interop_threads"]["live"] <= info["process"]["interop_threads"]["target"]


async def told(service: Service) -> tuple[dict[str, Any], dict[str, Any]]:
    async with client(service) as session:
        return await get(session, "/info"), await get(session, "/watch")


@asynccontextmanager
async def gate_shut(service: Service) -> AsyncIterator[None]:
    """Meanwhile no request gets beyond its first kernel."""
    async with client(service) as session:
        (await session.post("/gate/shut")).release()
        try:
            yield
        finally:
            (await session.post("/gate/open")).release()


async def test_as_many_as_it_takes_get_right_results(service):
    async with client(service) as session:
        statuses = await asyncio.gather(*(ask(session, number) for number in range(CAPACITY)))
        assert statuses == [200] * CAPACITY


@pytest.mark.parametrize("body", [b"", b"too short", bytes(SIDE * SIDE + 1)])
async def test_what_is_no_image_is_the_clients_mistake(service, body):
    async with client(service) as session, session.post("/features", data=body) as reply:
        assert reply.status == 400
        assert "512 rows" in await reply.text()


async def test_what_it_has_no_place_for_is_told_when_to_come_again(service):
    async with nothing_left(service), client(service) as session:
        refused = (await runs(session))["refused"]
        async with gate_shut(service):
            asking = [asyncio.ensure_future(ask(session, number)) for number in range(2 * CAPACITY)]
            await until_there_are(session, running=RUNS, waiting=WAITING, refused=refused + CAPACITY)
        statuses = await asyncio.gather(*asking)
        assert sorted(statuses) == [200] * CAPACITY + [503] * CAPACITY


async def test_at_twice_its_capacity_each_gets_a_right_result_or_is_told_when_to_come_again(service):
    async def insist(session, number):
        return [await ask(session, number + again) for again in range(6)]

    async with nothing_left(service), client(service) as session:
        before = await runs(session)
        answers = await asyncio.gather(*(insist(session, number) for number in range(2 * CAPACITY)))
        after = await runs(session)
    statuses = [status for some in answers for status in some]
    assert after["done"] - before["done"] == statuses.count(200) >= CAPACITY
    assert after["refused"] - before["refused"] == statuses.count(503)
    assert [after[how] - before[how] for how in ("failed", "cancelled")] == [0, 0]


async def test_nothing_starts_for_clients_that_are_gone(service):
    async with nothing_left(service), client(service) as session:
        before, (_, watch) = await runs(session), await told(service)
        async with gate_shut(service):
            asking = [asyncio.ensure_future(ask(session, number)) for number in range(CAPACITY)]
            await until_there_are(session, running=RUNS, waiting=WAITING)
            for each in asking:
                each.cancel()  # closes the connection
            await asyncio.wait(asking)
            await until_there_are(session, running=0, waiting=0, cancelled=before["cancelled"] + CAPACITY)
    info, now = await told(service)
    assert now["gone"] - watch["gone"] == CAPACITY
    assert info["runtime"]["runs"]["done"] == before["done"]
    # The kernels that stood at the gate have ended, and there were no others.
    assert now["kernels"] - watch["kernels"] <= info["process"]["interop_threads"]["target"]


async def test_nothing_is_left_of_a_thousand_clients_that_disconnect_at_random_moments(service):
    rng, at_once = random.Random(8), asyncio.Semaphore(2 * CAPACITY)

    async def leave(session, number):
        async with at_once:
            try:
                async with asyncio.timeout(rng.choice((0.005, 0.05, 0.4)) * rng.random()):  # closes the connection
                    await ask(session, number)
            except TimeoutError:
                pass

    async with nothing_left(service), client(service) as session:
        failed = (await runs(session))["failed"]
        await asyncio.gather(*(leave(session, number) for number in range(1000)))
    info, watch = await told(service)
    assert info["runtime"]["runs"]["failed"] == failed
    # A thread may have had a kernel in hand when the service noticed; a run that went on would have had thirteen.
    assert watch["late"] <= info["process"]["interop_threads"]["target"]
    async with client(service) as session:
        statuses = await asyncio.gather(*(ask(session, number) for number in range(CAPACITY)))
        assert statuses == [200] * CAPACITY


@pytest.mark.parametrize("loop", LOOPS)
async def test_told_to_end_under_load_it_answers_what_it_accepted_and_refuses_the_rest(tmp_path, loop):
    answers: list[int] = []
    with serving(tmp_path, loop) as service:

        async def insist(session, number):
            """Until it is refused: with no more than the capacity at once, only one that ends does that."""
            try:
                while (status := await ask(session, number)) == 200:
                    answers.append(status)
                    if len(answers) == CAPACITY:
                        service.process.terminate()
            except (aiohttp.ClientConnectionError, ConnectionError):
                return

        async with client(service) as session, asyncio.timeout(PATIENCE):
            await asyncio.gather(*(insist(session, number) for number in range(CAPACITY)))
            printed = await asyncio.to_thread(service.end)
            with pytest.raises(aiohttp.ClientConnectorError):
                await ask(session, 0)
    assert "still running: []" in printed
    told = dict(re.findall(r"^  (\w+) +(\w+)", printed, re.MULTILINE))
    assert told["state"] == "closed"
    assert [told[count] for count in ("done", "failed", "cancelled")] == [str(len(answers)), "0", "0"]
