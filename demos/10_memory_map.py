"""A memory-mapped file worked on in place: its tiles are read and smoothed in parallel, then stored one after another.

                 +--> smoothed --+
spread, tiles ---+--> smoothed --+--> store --> store --> ... --> spread
                 +--> ...      --+
"""

import asyncio
import tempfile
from pathlib import Path

import numpy as np

import dataflow as flow

TILES = 8


@flow.op
def smoothed(tile: np.ndarray) -> np.ndarray:
    """A tile as it is wanted: plain numpy, several at once."""
    return (np.roll(tile, 1, axis=1) + tile + np.roll(tile, -1, axis=1)) / 3


@flow.op(inout=("heights",))  # gets the memory map itself; without that, a read-only view
def store(heights: np.ndarray, rows: slice, tile: np.ndarray) -> None:
    heights[rows] = tile


@flow.op
def spread(heights: np.ndarray) -> float:
    return float(heights.std())


@flow.pipeline(static=("size",))
def smooth(heights: np.ndarray, size: int) -> tuple[float, float]:
    before = spread(heights)  # the first `store` waits for it, and for all that reads a tile
    rows = [slice(first, first + size // TILES) for first in range(0, size, size // TILES)]
    tiles = [smoothed(heights[part]) for part in rows]
    for part, tile in zip(rows, tiles, strict=True):
        store(heights, part, tile)
    return before, spread(heights)  # after the last


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "heights"
        heights = np.memmap(path, dtype="f4", mode="w+", shape=(2048, 2048))
        heights[...] = np.random.default_rng(0).standard_normal(heights.shape)
        expected = smoothed(np.array(heights))  # here an op is the plain function
        before, after = await smooth(heights, len(heights))
        heights.flush()
        np.testing.assert_allclose(np.fromfile(path, "f4").reshape(heights.shape), expected, rtol=1e-6)
        print(f"{path.stat().st_size >> 20} MB smoothed in place: a spread of {before:.3f}, then of {after:.3f}")


if __name__ == "__main__":
    asyncio.run(main())
