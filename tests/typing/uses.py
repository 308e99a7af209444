"""Right and wrong uses, for type checkers: never run. Each says what its line reveals, or that it is an error."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, reveal_type

import dataflow as flow
from dataflow.events import OperatorEnded, RunStarted


def ended(event: OperatorEnded) -> None: ...


@flow.op
def kernel(x: int, times: int = 1) -> str:
    return str(x) * times


@flow.op
async def fetch(url: str) -> bytes:
    return url.encode()


@flow.op(name="named", writes=("x",))
def named(x: int) -> float:
    return x / 2


@flow.op(timeout=1.5, retries=2, retry_on=(OSError, KeyError), backoff=1, limit=flow.Limit(2))
def managed(x: int) -> float:
    return x / 2


def wrong_options() -> None:
    flow.op(retry_on=int)  # error
    flow.op(limit=3)  # error
    managed.options(timeout="1")  # error
    managed.options(time_out=1)  # error


@flow.op(name="named later")
async def named_later(x: int) -> float:
    return x / 2


@flow.pipeline
def body(x: int, url: str) -> tuple[str, float]:
    data = fetch(url)
    kernel(data)  # the result of an async operator may be an argument of any type
    kernel(x, times=data[0])
    kernel("x")  # error
    kernel(x, 1, 2)  # error
    reveal_type(kernel(x))  # reveal: str
    reveal_type(managed.options(timeout=None)(x))  # reveal: float
    with flow.after(data), flow.scope("s"):
        reveal_type(flow.label(named(x), "n"))  # reveal: float
    inner = deep(x)
    return inner + "!", named(inner)


@flow.pipeline(static=("depth",))
def deep(x: int, depth: int = 2) -> str:
    return kernel(x, depth)


@flow.pipeline(shapes=("x",))
def shaped(x: int) -> str:
    return kernel(x)


class Model:
    @flow.op
    def layer(self, x: int) -> float:
        return x / 2

    @flow.op
    async def load(self, url: str) -> bytes:
        return url.encode()

    @flow.pipeline
    def forward(self, x: int) -> float:
        self.layer("x")  # error
        return self.layer(x)


async def program() -> None:
    reveal_type(kernel(1, 2))  # reveal: str
    reveal_type(await fetch("u"))  # reveal: bytes
    reveal_type(named(1))  # reveal: float
    reveal_type(await named_later(1))  # reveal: float
    reveal_type(kernel.name)  # reveal: str
    reveal_type(kernel.options(name="other")(1))  # reveal: str
    await kernel(1)  # error
    kernel()  # error
    fetch(1)  # error
    kernel.options(nam="x")  # error

    reveal_type(await body(1, "u"))  # reveal: tuple[str, float]
    reveal_type(body.run(1, "u"))  # reveal: tuple[str, float]
    reveal_type(body.debug(1, url="u"))  # reveal: tuple[str, float]
    reveal_type(await deep(1))  # reveal: str
    reveal_type(await shaped(1))  # reveal: str
    reveal_type(await deep.bind(depth=3)(1))  # reveal: str
    reveal_type(await body.replace({kernel: str})(1, "u"))  # reveal: tuple[str, float]
    await body(1)  # error
    await body("x", "u")  # error
    body.run(1, 2)  # error
    deep.run(1, deph=2)  # error
    coroutine: Coroutine[Any, Any, str] = deep(1)
    await coroutine

    model = Model()
    reveal_type(model.layer(1))  # reveal: float
    reveal_type(await model.load("u"))  # reveal: bytes
    reveal_type(await model.forward(1))  # reveal: float
    reveal_type(model.forward.run(1))  # reveal: float
    reveal_type(await model.layer.start(1))  # reveal: float
    reveal_type(await model.load.start("u"))  # reveal: bytes
    reveal_type(model.layer.options(name="other")(1))  # reveal: float
    reveal_type(flow.map(model.layer, [1, 2]))  # reveal: list[float]
    model.layer("x")  # error
    await model.forward()  # error

    async for text in deep.stream([1, 2], in_flight=4, on_full="drop_oldest"):
        reveal_type(text)  # reveal: str
    async with deep.bind(depth=3).stream(iter([1]), ordered=False, copy=True) as stream:
        reveal_type(stream.dropped)  # reveal: int
        reveal_type(await anext(stream))  # reveal: str
        async for text in stream:
            reveal_type(text)  # reveal: str
    annotated: flow.Stream[str] = deep.stream([1])
    async for either in deep.stream([1], on_error="yield"):
        reveal_type(either)  # reveal: str | Exception
    async for number in model.forward.stream([1]):
        reveal_type(number)  # reveal: float
    async for anything in deep.stream([1], carry={"depth": 1}, on_error="yield"):
        anything.whatever
    deep.stream([1], on_error="ignore")  # error
    deep.stream([1], in_flight="4")  # error
    deep.stream(1)  # error
    async for _ in annotated:
        pass

    task = kernel.start(1)
    reveal_type(await task)  # reveal: str
    reveal_type(await fetch.start("u"))  # reveal: bytes
    reveal_type(await kernel.start(fetch.start("u"), times=task))  # reveal: str
    reveal_type(task.done())  # reveal: bool

    reveal_type(flow.map(named, [1, 2]))  # reveal: list[float]
    reveal_type(flow.cond(True, named, named, 1))  # reveal: float

    async with flow.Runtime(max_runs=2, max_waiting=3, name="api") as rt:
        reveal_type(await body.on(rt)(1, "u"))  # reveal: tuple[str, float]
        reveal_type(body.on(rt).run(1, url="u"))  # reveal: tuple[str, float]
        reveal_type(await deep.on(rt).bind(depth=3)(1))  # reveal: str
        reveal_type(model.forward.on(rt).run(1))  # reveal: float
        reveal_type(kernel.on(rt)(1))  # reveal: str
        reveal_type(await kernel.on(rt).start(1))  # reveal: str
        reveal_type(await fetch.on(rt).start("u"))  # reveal: bytes
        reveal_type(await model.load.on(rt).start("u"))  # reveal: bytes
        await body.on(rt)(1)  # error
        kernel.on(rt)("x")  # error
        body.on(3)  # error
        kernel.on()  # error
    reveal_type((await rt.aclose(2))[0].operators)  # reveal: tuple[str, ...]
    reveal_type(rt.info()["runs"])  # reveal: Any
    flow.Runtime(max_runs=2.5)  # error
    await rt.aclose("2")  # error

    end: Callable[[], None] = flow.observe(print)
    end()
    flow.observe(ended, [OperatorEnded])
    flow.observe(ended, kinds=(OperatorEnded,))
    flow.observe(ended)  # error
    flow.observe(ended, [RunStarted])  # error
    flow.observe(print, ["RunStarted"])  # error
    flow.set_num_interop_threads(2)
    flow.set_num_interop_threads(2.5)  # error
    reveal_type(flow.get_num_interop_threads())  # reveal: int
    flow.pipeline(static=3)  # error
