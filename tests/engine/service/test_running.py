"""`flow.running()` and the kernels in `parallel_info()`: what is executed at this moment."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


class Gate:
    def __init__(self) -> None:
        self.inside, self.go_on = threading.Semaphore(0), threading.Event()

    def __call__(self) -> None:
        self.inside.release()
        assert self.go_on.wait(20)

    async def entered(self, count: int = 1) -> None:
        for _ in range(count):
            while not self.inside.acquire(blocking=False):
                await asyncio.sleep(0.001)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.go_on.set()


async def until_none() -> None:
    async with asyncio.timeout(20):
        while flow.running():
            await asyncio.sleep(0.001)


def test_kernels_that_are_executed(run_async: Runner, gate: Gate) -> None:
    flow.set_num_interop_threads(2)

    @flow.op
    def stays(x: int) -> int:
        gate()
        return x

    @flow.pipeline
    def p(x: int) -> Any:
        return [stays(x), stays(x + 1), stays(x)]

    async def main() -> None:
        await until_none()
        task = asyncio.create_task(p(1))
        await gate.entered(2)
        kernels = flow.running()
        assert [(each.operator, each.pipeline, each.abandoned) for each in kernels] == [("stays", "p", False)] * 2
        nodes = {node.number for node in p.graph().nodes if node.spec.name == "stays"}
        assert {each.node for each in kernels} < nodes
        assert len({each.thread for each in kernels}) == 2
        assert all(each.thread.startswith("dataflow-interop") for each in kernels)
        assert len({each.run for each in kernels}) == 1
        assert kernels[0].seconds >= kernels[1].seconds >= 0
        assert all(each.stack is None for each in kernels)
        info = flow.parallel_info()
        assert [each["operator"] for each in info["kernels"]] == ["stays", "stays"]
        assert json.loads(json.dumps(info)) == info
        assert "kernels 2" in str(info)
        gate.go_on.set()
        assert await task == [1, 2, 1]
        await until_none()
        assert flow.parallel_info()["kernels"] == []

    run_async(main())


def test_where_they_are(run_async: Runner, gate: Gate) -> None:
    @flow.op
    def stays(x: int) -> int:
        gate()
        return x

    async def main() -> None:
        task = asyncio.create_task(flow.pipeline(lambda x: stays(x))(1))
        await gate.entered()
        (kernel,) = flow.running(stacks=True)
        assert kernel.stack is not None
        first = kernel.stack.splitlines()[:2]
        assert "in stays" in first[0]
        assert first[1].strip() == "gate()"
        gate.go_on.set()
        await task

    run_async(main())


def test_abandoned_ones(run_async: Runner, gate: Gate) -> None:
    flow.set_num_interop_threads(2)

    @flow.op
    def cancelled(x: int) -> None:
        gate()

    @flow.op(timeout=0.01)
    def late(x: int) -> None:
        gate()

    async def main() -> None:
        await until_none()
        task = asyncio.create_task(flow.pipeline(lambda x: cancelled(x))(1))
        await gate.entered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(flow.OperatorTimeout):
            await flow.pipeline(lambda x: late(x))(1)
        assert sorted((each.operator, each.abandoned) for each in flow.running()) == [
            ("cancelled", True),
            ("late", True),
        ]
        gate.go_on.set()
        await until_none()

    run_async(main())


def test_a_kernel_and_the_run_that_it_waits_for(run_async: Runner, gate: Gate) -> None:
    flow.set_num_interop_threads(1)

    @flow.op
    def inner(x: int) -> int:
        gate()
        return x

    inside = flow.pipeline(lambda x: inner(x), name="inside")

    @flow.op
    def outer(x: int) -> int:
        return inside.run(x)

    async def main() -> None:
        await until_none()
        task = asyncio.create_task(flow.pipeline(lambda x: outer(x), name="around")(1))
        await gate.entered()
        kernels = flow.running()
        assert [(each.operator, each.pipeline) for each in kernels] == [("outer", "around"), ("inner", "inside")]
        assert len({each.thread for each in kernels}) == 1
        stacks = [each.stack or "" for each in flow.running(stacks=True)]
        assert ["in outer" in stack.splitlines()[0] for stack in stacks] == [True, False]
        assert ["in inner" in stack.splitlines()[0] for stack in stacks] == [False, True]
        gate.go_on.set()
        assert await task == 1

    run_async(main())


def test_one_of_light_kernels_in_a_row(run_async: Runner, gate: Gate) -> None:
    stays = False

    @flow.op
    def inc(x: int) -> int:
        if stays and x == 1_000:
            gate()
        return x + 1

    @flow.pipeline
    def light(x: int) -> Any:
        for _ in range(2_000):
            x = inc(x)
        return x

    async def main() -> None:
        nonlocal stays
        await until_none()
        for _ in range(3):
            assert await light(0) == 2_000
        stays = True
        task = asyncio.create_task(light(0))
        await gate.entered()
        for _ in range(20):  # the monitor takes what is left of the batch meanwhile
            (kernel,) = flow.running()
            assert (kernel.operator, kernel.node, kernel.pipeline) == ("inc", 1_001, "light")
            await asyncio.sleep(0.001)
        gate.go_on.set()
        assert await task == 2_000

    run_async(main())
