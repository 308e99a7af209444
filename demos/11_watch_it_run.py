"""Where the time goes: the job of demo 02 on made-up photographs, watched by `flow.profile`.

load ---+--> blur 1, blur 4 ------------------> details --+
(async) +--> blur 8 of light and of light^2 --> contrast -+--> hstack
        +--> slopes --> blur 2 of products ---> corners --+
"""

import asyncio
import tempfile

import numpy as np

import dataflow as flow


@flow.op
async def load(number: int) -> np.ndarray:
    await asyncio.sleep(0.005)  # a disk, or another service
    return np.random.default_rng(number).random((512, 512))


@flow.op
def blur(light: np.ndarray, sigma: float) -> np.ndarray:
    fy, fx = np.fft.fftfreq(len(light))[:, None], np.fft.rfftfreq(light.shape[1])
    return np.fft.irfft2(np.fft.rfft2(light) * np.exp(-2 * (np.pi * sigma) ** 2 * (fx**2 + fy**2)), light.shape)


@flow.pipeline
def describe(number: int) -> np.ndarray:
    light = load(number)
    with flow.scope("details"):
        details = blur(light, 1) - blur(light, 4)
    with flow.scope("contrast"):
        contrast = np.sqrt(np.maximum(blur(light**2, 8) - blur(light, 8) ** 2, 0))
    with flow.scope("corners"):
        dx, dy = np.gradient(light, axis=1), np.gradient(light, axis=0)
        xx, yy, xy = blur(dx**2, 2), blur(dy**2, 2), blur(dx * dy, 2)
        corners = xx * yy - xy**2 - 0.05 * (xx + yy) ** 2
    return np.hstack([details, contrast, corners])


async def main() -> None:
    await describe(0)  # the first call traces
    with flow.profile() as prof:
        for number in range(1, 6):
            await describe(number)
    print(prof)
    print()
    print(prof.what_if(threads=(1, 2, 4)))
    path = f"{tempfile.gettempdir()}/describe.json.gz"
    prof.save(path)
    print(f"\n{path}: open it at ui.perfetto.dev")


if __name__ == "__main__":
    asyncio.run(main())
