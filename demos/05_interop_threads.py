"""Inter-op threads: set, get, and set again while a backlog runs (PyTorch raises at the second set, here it resizes).

         +--> magnitudes, shifted by 0 ---+
         +--> magnitudes, shifted by 1 ---+
noise ---+                                +--> mean        kernels at once: 4, then 1, then 2
         +--> ...                         |
         +--> magnitudes, shifted by 149 -+
"""

import asyncio
import queue

import numpy as np

import dataflow as flow

inside: set[int] = set()  # the kernels that run at this moment
seen: queue.SimpleQueue[int] = queue.SimpleQueue()  # how many each of them met, itself included


@flow.op
def magnitudes(noise: np.ndarray, shift: int) -> np.ndarray:
    inside.add(shift)
    met = len(inside)
    result = np.abs(np.fft.rfft(np.roll(noise, shift)))
    inside.remove(shift)
    seen.put(met)
    return result


@flow.pipeline
def mean_magnitudes(noise: np.ndarray) -> np.ndarray:
    return sum(magnitudes(noise, shift) for shift in range(150)) / 150


def peak(kernels: int) -> int:
    """The most kernels that met while as many as this ended."""
    return max(seen.get() for _ in range(kernels))


async def main() -> None:
    noise = np.random.default_rng(0).standard_normal(2**17)
    flow.set_num_interop_threads(4)
    run = asyncio.create_task(mean_magnitudes(noise))
    for threads in 4, 1, 2:
        flow.set_num_interop_threads(threads)  # at any time, from any thread
        await asyncio.to_thread(peak, 10)  # these began under the former setting
        at_once = await asyncio.to_thread(peak, 30)
        print(f"set to {threads}, get says {flow.get_num_interop_threads()}, kernels at once: {at_once}")
        assert at_once <= threads
    np.testing.assert_allclose(await run, np.abs(np.fft.rfft(noise)))  # a shift changes no magnitude
    print(flow.parallel_info())


if __name__ == "__main__":
    asyncio.run(main())
