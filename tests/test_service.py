"""`demos/08_service.py` as a process of its own, over HTTP: right, overloaded, deserted, and told to end."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

aiohttp = pytest.importorskip("aiohttp")

DEMO = Path(__file__).resolve().parent.parent / "demos" / "08_service.py"
SIDE = 512
CAPACITY = 12
"""Runs in progress, and that wait."""
PATIENCE = 20
"""Seconds until a test gives up; nothing here takes one."""


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
def serving(folder: Path) -> Iterator[Service]:
    command = [sys.executable, "-W", "error", str(DEMO), "serve"]
    with (
        (folder / "stderr").open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=DEMO.parent.parent) as process,
    ):
        try:
            assert process.stdout is not None
            yield Service(process, f"http://127.0.0.1:{int(process.stdout.readline())}", folder / "stderr")
        finally:
            process.kill()  # of one that has ended, this does nothing


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service")) as running:
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


async def info(session: Any) -> dict[str, Any]:
    async with session.get("/info") as reply:
        assert reply.status == 200
        told: dict[str, Any] = await reply.json()
        return told


async def runs(session: Any) -> dict[str, Any]:
    told: dict[str, Any] = (await info(session))["runtime"]["runs"]
    return told


async def test_as_many_as_it_takes_get_right_results(service):
    async with client(service) as session:
        statuses = await asyncio.gather(*(ask(session, number) for number in range(CAPACITY)))
        assert statuses == [200] * CAPACITY


@pytest.mark.parametrize("body", [b"", b"too short", bytes(SIDE * SIDE + 1)])
async def test_what_is_no_image_is_the_clients_mistake(service, body):
    async with client(service) as session, session.post("/features", data=body) as reply:
        assert reply.status == 400
        assert "512 rows" in await reply.text()


async def test_twice_as_many_get_a_right_result_or_are_told_when_to_come_again(service):
    async def insist(session, number):
        return [await ask(session, number) for _ in range(3)]

    async with client(service) as session:
        before = await runs(session)
        answers = await asyncio.gather(*(insist(session, number) for number in range(2 * CAPACITY)))
        after = await runs(session)
    statuses = [status for some in answers for status in some]
    assert 200 in statuses
    assert 503 in statuses
    assert after["done"] - before["done"] == statuses.count(200)
    assert after["refused"] - before["refused"] == statuses.count(503)


async def test_nothing_is_left_of_clients_that_disconnect(service):
    rng = random.Random(8)

    async def leave(session, number):
        try:
            async with asyncio.timeout(rng.uniform(0.001, 0.05)):  # closes the connection
                return await ask(session, number)
        except TimeoutError:
            return None

    async with client(service) as session:
        before = await runs(session)
        for _ in range(5):
            await asyncio.gather(*(leave(session, number) for number in range(CAPACITY)))
        async with asyncio.timeout(PATIENCE):
            while not _is_idle(await info(session)):
                await asyncio.sleep(0.01)
        after = await runs(session)
        assert after["cancelled"] > before["cancelled"]
        assert after["failed"] == before["failed"]
        assert await ask(session, 0) == 200


def _is_idle(told: dict[str, Any]) -> bool:
    of, threads = told["runtime"]["runs"], told["process"]["interop_threads"]
    left = [of["running"], of["waiting"], threads["overrunning"], threads["busy"], threads["queued"]]
    return not any(left) and told["process"]["runs"]["in_progress"] == 0


async def test_told_to_end_under_load_it_answers_what_it_accepted_and_refuses_the_rest(tmp_path):
    answers: list[int] = []
    with serving(tmp_path) as service:

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
