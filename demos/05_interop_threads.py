"""Inter-op threads: set, get, and set again while a backlog runs (PyTorch raises at the second set, here it resizes).

         +--> magnitudes, shifted by 0 ---+
         +--> magnitudes, shifted by 1 ---+
noise ---+                                +--> mean        kernels at once: 4, then 1, then 2
         +--> ...                         |
         +--> magnitudes, shifted by 199 -+
"""

import asyncio
import queue

import numpy as np

import dataflow as flow

inside: set[int] = set()  # the kernels that run at this moment
seen: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()  # the setting each began under, how many it met


@flow.op
def magnitudes(noise: np.ndarray, shift: int) -> np.ndarray:
    setting = flow.get_num_interop_threads()
    inside.add(shift)
    met = len(inside)
    result = np.abs(np.fft.rfft(np.roll(noise, shift)))
    inside.remove(shift)
    seen.put((setting, met))
    return result


@flow.pipeline
def mean_magnitudes(noise: np.ndarray) -> np.ndarray:
    return sum(magnitudes(noise, shift) for shift in range(200)) / 200


def peak(setting: int, kernels: int) -> int:
    """The most kernels that met, of so many that began under this setting; the first may meet some from before."""
    met: list[int] = []
    while len(met) < kernels:
        began_under, count = seen.get()
        met += [count] if began_under == setting else []
    return max(met[4:])


async def main() -> None:
    noise = np.random.default_rng(0).standard_normal(2**17)
    flow.set_num_interop_threads(4)
    run = asyncio.create_task(mean_magnitudes(noise))
    for threads in 4, 1, 2:
        flow.set_num_interop_threads(threads)  # at any time, from any thread
        at_once = await asyncio.to_thread(peak, threads, 34)
        print(f"set to {threads}, get says {flow.get_num_interop_threads()}, kernels at once: {at_once}")
        assert at_once <= threads
    np.testing.assert_allclose(await run, np.abs(np.fft.rfft(noise)))  # a shift changes no magnitude
    print(flow.parallel_info())


if __name__ == "__main__":
    asyncio.run(main())
