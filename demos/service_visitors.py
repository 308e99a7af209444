"""Visitors of `08_service.py`: some at once, too many at once, one who leaves, and some while the service ends."""

import asyncio
import os
import signal
from functools import cache

import aiohttp
import numpy as np

IMAGE = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)


@cache
def contrasts() -> list[float]:
    """What the service should say of it, by plain numpy."""
    waves, pitch = np.fft.rfft2(IMAGE / 255), np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512))
    return [float(np.std(np.fft.irfft2(waves * ((low < pitch) & (pitch < 2 * low))))) for low in (0.01, 0.05, 0.25)]


async def ask(client: aiohttp.ClientSession) -> int:
    """Returns the status of the answer, which was right, or says when to come again."""
    async with client.post("/features", data=IMAGE.tobytes()) as reply:
        if reply.status == 200:
            np.testing.assert_allclose(await reply.json(), contrasts())
        else:
            assert int(reply.headers["Retry-After"]) >= 1
        return reply.status


async def at_once(client: aiohttp.ClientSession, number: int) -> str:
    statuses = await asyncio.gather(*(ask(client) for _ in range(number)))
    return f"{number} at once: {statuses.count(200)} right, {statuses.count(503)} to come again"


async def until_some_run(client: aiohttp.ClientSession, asked: asyncio.Future) -> None:
    running = 0
    while not running and not asked.done():
        async with client.get("/info") as reply:
            running = (await reply.json())["runtime"]["runs"]["running"]


async def come_and_go(port: int) -> str:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        try:
            print(await at_once(client, 6))
            print(await at_once(client, 40))
            leaving = asyncio.create_task(ask(client))
            await until_some_run(client, leaving)
            leaving.cancel()  # closes the connection
            last = asyncio.create_task(at_once(client, 3))
            await until_some_run(client, last)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
        return f"while it ended, {await last}"


def visit(port: int) -> str:
    """Has the service, which is in this process, end in whatever way it ends itself; returns what it saw last."""
    return asyncio.run(come_and_go(port))
