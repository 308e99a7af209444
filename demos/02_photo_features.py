"""The main job: photographs in, maps of their features and a picture of these out, several photographs at once.

        +--> blur 1, blur 4 ------------------> details (difference of Gaussians) --+
load ---+--> blur 8 of light and of light^2 --> local contrast ---------------------+--> hstack --> save
(async) +--> slope x --+----------------------> edges, angle -----------------------+              (async)
        +--> slope y --+--> blur 2 of products --> corners (Harris) ----------------+
"""

import asyncio
import tempfile

import numpy as np
from matplotlib import cbook, image

import dataflow as flow

off_loop = flow.op(asyncio.to_thread)  # any async def is an async op: waiting for a disk holds no inter-op thread


@flow.op
def blur(light: np.ndarray, sigma: float) -> np.ndarray:
    fy, fx = np.fft.fftfreq(len(light))[:, None], np.fft.rfftfreq(light.shape[1])
    return np.fft.irfft2(np.fft.rfft2(light) * np.exp(-2 * (np.pi * sigma) ** 2 * (fx**2 + fy**2)), light.shape)


def decode(name: str) -> np.ndarray:
    with cbook.get_sample_data(name) as file:
        if name.endswith(".ima.gz"):  # a slice of a head by magnetic resonance, raw
            return np.frombuffer(file.read(), np.uint16).reshape(256, 256)
        return np.average(image.imread(file)[..., :3], axis=2, weights=[0.299, 0.587, 0.114])


def features(photo: np.ndarray) -> dict[str, np.ndarray]:
    light = photo / photo.max()
    details = blur(light, 1) - blur(light, 4)
    contrast = np.sqrt(np.maximum(blur(light**2, 8) - blur(light, 8) ** 2, 0))
    dx, dy = np.gradient(light, axis=1), np.gradient(light, axis=0)
    edges, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    xx, yy, xy = blur(dx**2, 2), blur(dy**2, 2), blur(dx * dy, 2)
    corners = xx * yy - xy**2 - 0.05 * (xx + yy) ** 2
    return {"details": details, "contrast": contrast, "edges": edges, "angle": angle, "corners": corners}


@flow.pipeline
def describe(name: str, path: str) -> dict[str, np.ndarray]:
    maps = features(off_loop(decode, name))
    off_loop(image.imsave, path, np.hstack([(m - m.min()) / np.ptp(m) for m in maps.values()])[::2, ::2])
    return maps  # the picture is written, too: every recorded op runs, returned or not


async def main() -> None:
    photos = ["grace_hopper.jpg", "s1045.ima.gz", "Minduka_Present_Blue_Pack.png"]  # they ship inside matplotlib
    paths = [f"{tempfile.gettempdir()}/features_{name.split('.')[0]}.png" for name in photos]
    for name, path, maps in zip(photos, paths, await asyncio.gather(*map(describe, photos, paths))):
        np.testing.assert_equal(maps, features(decode(name)))  # outside a pipeline: plain functions, one by one
        print(path, *(f"{key} {value.std():.3g}" for key, value in maps.items()), sep="  ")


if __name__ == "__main__":
    asyncio.run(main())
