"""The smallest pipeline: one spectrum, two bands of it that are computed at the same time, one sum.

                       +--> band below 100 --+
signal --> spectrum ---+                     +--> sum
                       +--> band from 100 ---+
"""

import asyncio

import numpy as np

import dataflow as flow


@flow.op
def band(spectrum: np.ndarray, first: int, last: int | None) -> np.ndarray:
    """The part of a signal between two frequencies: plain numpy, run on an inter-op thread."""
    kept = np.zeros_like(spectrum)
    kept[first:last] = spectrum[first:last]
    return np.fft.irfft(kept)


@flow.pipeline
def split(signal: np.ndarray) -> dict[str, np.ndarray]:
    spectrum = np.fft.rfft(signal)  # plain numpy on a placeholder becomes a node as well
    low, high = band(spectrum, 0, 100), band(spectrum, 100, None)  # independent: at the same time
    return {"low": low, "high": high, "sum": low + high}


async def main() -> None:
    walk = np.random.default_rng(0).standard_normal(2**20).cumsum()
    parts = await split(walk)  # the event loop stays free meanwhile

    np.testing.assert_allclose(parts["sum"], walk, atol=1e-6)
    np.testing.assert_allclose(parts["low"], band(np.fft.rfft(walk), 0, 100))  # here an op is the plain function
    share = parts["low"].var() / walk.var()
    print(f"a random walk of {walk.size:,} steps: its lowest 100 frequencies hold {share:.1%} of its variance")


if __name__ == "__main__":
    asyncio.run(main())
