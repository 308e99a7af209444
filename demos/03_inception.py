"""Inception blocks of GoogLeNet in plain numpy, four branches each, at 1 and at all inter-op threads.

         +--> 1x1 --------------+
block: --+--> 1x1 --> 3x3 ------+--> concatenate        picture --> 3a --> 3b --> pool --> 4a --> maps
         +--> 1x1 --> 5x5 ------+
         +--> pool --> 1x1 -----+
"""

import asyncio

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view as windows
from threadpoolctl import threadpool_limits

import dataflow as flow

NOISE = np.random.default_rng(0).standard_normal(2**20, np.float32) / 30  # real sizes, made-up weights and pictures


@flow.op
def conv(image: np.ndarray, size: int, outputs: int) -> np.ndarray:
    kernel = NOISE[: size**2 * image.shape[2] * outputs].reshape(size, size, 1, -1, outputs)
    shifted = windows(np.pad(image, [[size // 2], [size // 2], [0]]), image.shape[:2], (0, 1))
    return np.maximum((np.moveaxis(shifted, 2, -1) @ kernel).sum(axis=(0, 1)), 0)  # size x size products of images


@flow.op
def pool(image: np.ndarray, step: int) -> np.ndarray:
    return windows(np.pad(image, [[1], [1], [0]], constant_values=-np.inf), (3, 3), (0, 1))[::step, ::step].max((3, 4))


def block(image: np.ndarray, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> np.ndarray:
    by3, by5 = conv(conv(image, 1, three[0]), 3, three[1]), conv(conv(image, 1, five[0]), 5, five[1])
    return np.concatenate([conv(image, 1, one), by3, by5, conv(pool(image, 1), 1, pooled)], axis=2)


def network(picture: np.ndarray) -> np.ndarray:
    maps = block(block(picture, 64, (96, 128), (16, 32), 32), 128, (128, 192), (32, 96), 64)
    return block(pool(maps, 2), 192, (96, 208), (16, 48), 64)


infer = flow.pipeline(network)  # outside a pipeline, the functions above stay plain numpy


async def main() -> None:
    cpus, pictures = flow.get_num_interop_threads(), NOISE[: 4 * 28 * 28 * 192].reshape(4, 28, 28, 192)
    for batch in pictures[:1], pictures:
        marks, clock = [], asyncio.get_running_loop().time
        for threads in [cpus, *[1, cpus] * 4]:  # the first only warms up
            flow.set_num_interop_threads(threads)
            maps = await asyncio.gather(*map(infer, batch))
            marks.append(clock())
        np.testing.assert_allclose(maps, [network(picture) for picture in batch], rtol=1e-4)
        one, all_ = np.diff(marks).reshape(-1, 2).min(axis=0)
        print(f"{len(batch)} at once: {one:.3f} s at 1 inter-op thread, {all_:.3f} s at {cpus}: {one / all_:.2f} x")


if __name__ == "__main__":
    with threadpool_limits(1):  # else BLAS spreads each product over all cores, at any number of inter-op threads
        asyncio.run(main())
