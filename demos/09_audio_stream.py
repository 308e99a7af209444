"""Audio in real time: an endless source of 20 ms frames through a hall, convolved by overlap-add.

frame i   --> block (FFT) --+--> add --+--> sound
                 tail ------+          +--> tail --+
frame i+1 --> block (FFT) -------------------------+--> add --+--> sound
                                                              +--> tail --> ...
Only `add` waits for the frame before; transforms of neighbouring frames overlap."""

import asyncio
import time

import numpy as np

import dataflow as flow

RATE, FRAME, SIZE, FRAMES = 48_000, 960, 25_000, 100  # 20 ms each
PACE = 4  # times faster than a microphone, so that nobody has to wait for the demo
rng = np.random.default_rng(0)
HALL = rng.normal(size=SIZE - FRAME + 1) * np.exp(-np.arange(SIZE - FRAME + 1) / 6000)  # how it answers a clap
SPECTRUM = np.fft.rfft(HALL, SIZE)


@flow.op
def block(frame: np.ndarray) -> np.ndarray:
    return np.fft.irfft(np.fft.rfft(frame, SIZE) * SPECTRUM, SIZE)


@flow.op
def add(block: np.ndarray, tail: np.ndarray) -> np.ndarray:
    return np.concatenate([block[: len(tail)] + tail, block[len(tail) :]])


@flow.pipeline
def reverb(frame: np.ndarray, tail: np.ndarray):
    sound = add(block(frame), tail)
    return sound[:FRAME], {"tail": sound[FRAME:]}


async def microphone(heard: list[np.ndarray], began: list[float]):
    while True:
        await asyncio.sleep(FRAME / RATE / PACE)
        heard.append(rng.normal(size=FRAME))
        began.append(time.perf_counter())
        yield heard[-1]


async def main() -> None:
    heard, played, began, latency = [], [], [], []
    async with reverb.stream(microphone(heard, began), carry={"tail": np.zeros(len(HALL) - 1)}) as stream:
        async for sound in stream:
            latency.append(1e3 * (time.perf_counter() - began[len(played)]))
            played.append(sound)
            if len(played) == FRAMES:
                break  # closes the microphone, and stops what is under way
    whole = np.fft.rfft(np.concatenate(heard[:FRAMES]), 125_000) * np.fft.rfft(HALL, 125_000)
    np.testing.assert_allclose(np.concatenate(played), np.fft.irfft(whole)[: FRAME * FRAMES], atol=1e-9)
    print(f"{FRAMES} frames of 20 ms as offline; latency {np.median(latency):.1f} ms, at worst {max(latency):.1f} ms")


asyncio.run(main())
