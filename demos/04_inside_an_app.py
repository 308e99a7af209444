"""Inside an asyncio application: a ticker keeps its beat while two runs share the threads and one is cancelled.

ticker              tick  tick  tick  tick  tick  tick  tick  tick  tick  tick  tick  tick
change (100)        hot ---> relax --+--> difference, awaited
                    cold --> relax --+
change (1 billion)  hot ---> relax ----------------------x  cancelled: checkpoint() ends the kernels,
                    cold --> relax ----------------------x             quiet() waits until they have
"""

import asyncio
import threading
import time

import numpy as np

import dataflow as flow

on_its_way = threading.Event()


@flow.op
def relax(plate: np.ndarray, sweeps: int) -> np.ndarray:
    """Heat spreads over a plate whose edges keep their temperature (Jacobi's method)."""
    plate = plate.copy()  # the caller's array arrives read-only
    for sweep in range(sweeps):
        flow.checkpoint()  # raises CancelledError once the run is over; outside a run it does nothing
        plate[1:-1, 1:-1] = (plate[:-2, 1:-1] + plate[2:, 1:-1] + plate[1:-1, :-2] + plate[1:-1, 2:]) / 4
        if sweep == 200:
            on_its_way.set()
    return plate


@flow.pipeline
def change(hot: np.ndarray, cold: np.ndarray, sweeps: int) -> np.ndarray:
    return relax(hot, sweeps) - relax(cold, sweeps)


async def ticker(ticks: list[float]) -> None:
    while True:
        ticks.append(time.perf_counter())
        await asyncio.sleep(0.005)


async def main() -> None:
    hot, cold = np.random.default_rng(0).random((2, 512, 512)) * [[[90]], [[20]]]
    beat = asyncio.create_task(ticker(ticks := []))
    async with asyncio.TaskGroup() as group:
        short = group.create_task(change(hot, cold, 100))
        endless = group.create_task(change(hot, cold, 10**9))
        await asyncio.to_thread(on_its_way.wait, 60)
        endless.cancel()  # its awaiter hears at once; a kernel cannot be interrupted, it ends at its next checkpoint
    await flow.quiet()
    beat.cancel()
    np.testing.assert_allclose(short.result(), relax(hot - cold, 100))  # the method is linear
    print(f"{len(ticks)} ticks meant to be 5 ms apart; the largest gap was {np.diff(ticks).max() * 1000:.1f} ms")
    print(f"short run: mean change {short.result().mean():.3f}; endless run: cancelled is {endless.cancelled()}")


if __name__ == "__main__":
    asyncio.run(main())
