"""An HTTP service for features of images: what is in progress is bounded, what nobody waits for any more is stopped.

POST /features --> spectrum --+--> band 0 --> contrast --+--> 200
                              +--> band 1 --> contrast --+
                              +--> band 2 --> contrast --+    too many at once --> 503, Retry-After
With the argument `serve` it serves until SIGTERM; its first line is the port. Without it, visitors come and go."""

import math
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from aiohttp import web
from service_visitors import visit

import dataflow as flow

SIDE, pitch = 512, np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512))
rt = flow.Runtime(max_runs=4, max_waiting=8, name="features")


@flow.op
def spectrum(body: bytes) -> np.ndarray:
    return np.fft.rfft2(np.frombuffer(body, np.uint8).reshape(SIDE, SIDE) / 255)


@flow.pipeline
def features(body: bytes) -> list[float]:
    waves = spectrum(body)
    return [np.std(np.fft.irfft2(waves * (pitch > low) * (pitch < 2 * low))) for low in (0.01, 0.05, 0.25)]


async def answer(request: web.Request) -> web.Response:
    try:
        return web.json_response(await features.on(rt)(await request.read()))
    except ValueError as exc:
        return web.Response(status=400, text=f"not {SIDE} rows of {SIDE} gray bytes: {exc}")
    except (flow.Overloaded, flow.RuntimeClosed) as busy:
        return web.Response(status=503, headers={"Retry-After": str(math.ceil(getattr(busy, "retry_after", 1)))})


async def info(_: web.Request) -> web.Response:
    return web.json_response({"runtime": rt.info(), "process": flow.parallel_info()})


async def drain(_: web.Application) -> None:
    print("still running:", await rt.aclose(5))  # nobody can connect any more; what was accepted is finished


if __name__ == "__main__":
    app, sock = web.Application(), socket.create_server(("127.0.0.1", 0))
    app.add_routes([web.post("/features", answer), web.get("/info", info)])
    app.on_shutdown.append(drain)
    if "serve" in sys.argv:
        print(sock.getsockname()[1], flush=True)
    with ThreadPoolExecutor() as pool:
        visitors = None if "serve" in sys.argv else pool.submit(visit, sock.getsockname()[1])
        web.run_app(app, sock=sock, handler_cancellation=True, shutdown_timeout=2, print=None)  # until SIGTERM
    print(rt.info(), visitors.result() if visitors else "ended", sep="\n")
