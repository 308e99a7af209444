"""Whoever has no asyncio loop, or forgets that streams and runtimes are asynchronous, is told what to write instead."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


@flow.op
def increment(x: int) -> int:
    return x + 1


@flow.op
async def on_loop(x: int) -> int:
    return x + 1


@flow.pipeline
def both(x: int) -> Any:
    return on_loop(increment(x))


class Model:
    @flow.pipeline
    def forward(self, x: int) -> Any:
        return increment(x)


model = Model()


async def streams() -> list[int]:
    return [y async for y in both.stream([1, 2])]


async def enters_a_stream() -> None:
    async with both.stream([1, 2]):
        pass


async def starts() -> int:
    return await increment.start(1)


async def enters_a_runtime() -> None:
    async with flow.Runtime(max_runs=1):
        pass


NEEDS_A_LOOP: dict[str, Callable[[], Any]] = {
    "await": lambda: both(1),
    "await on a runtime": lambda: both.on(flow.Runtime(max_runs=1))(1),
    "await of a method": lambda: model.forward(1),
    "async for": streams,
    "async with": enters_a_stream,
    "start": starts,
    "runtime": enters_a_runtime,
    "aclose": lambda: flow.Runtime(max_runs=1).aclose(),
    "quiet": flow.quiet,
}


@pytest.mark.parametrize("name", NEEDS_A_LOOP)
def test_without_a_loop_it_is_said_that_asyncio_is_to_run_it(name: str) -> None:
    coroutine = NEEDS_A_LOOP[name]()
    with pytest.raises(RuntimeError, match=r"running event loop.* call it in a coroutine") as caught:
        coroutine.send(None)
    assert "trio" not in str(caught.value)
    asyncio.run(NEEDS_A_LOOP[name]())  # the remedy


@pytest.mark.parametrize("name", NEEDS_A_LOOP)
def test_under_trio_it_is_said_how_to_get_to_asyncio(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = threading.get_ident()

    def current_task() -> object:
        if threading.get_ident() != mine:
            raise RuntimeError("must be called from async context")
        return object()

    monkeypatch.setitem(sys.modules, "trio", SimpleNamespace(lowlevel=SimpleNamespace(current_task=current_task)))
    coroutine = NEEDS_A_LOOP[name]()
    with pytest.raises(RuntimeError, match=r"on asyncio, and here runs trio.*asyncio\.run.*to_thread\.run_sync"):
        coroutine.send(None)
    monkeypatch.setitem(sys.modules, "trio", SimpleNamespace())  # half imported
    coroutine = NEEDS_A_LOOP[name]()
    with pytest.raises(RuntimeError, match="running event loop"):
        coroutine.send(None)


def test_under_trio_itself_the_remedies_work() -> None:
    trio = pytest.importorskip("trio")

    async def main() -> Any:
        with pytest.raises(RuntimeError, match=r"run_sync\(both\.run, \.\.\.\)"):
            await both(1)
        with pytest.raises(RuntimeError, match=r"run_sync\(asyncio\.run, main\(\)\)"):
            await streams()
        return await trio.to_thread.run_sync(both.run, 1), await trio.to_thread.run_sync(asyncio.run, streams())

    assert trio.run(main) == (3, [3, 4])


# ------------------------------------------------------------------------------------------------ statements


def test_a_stream_in_a_plain_for_says_async_for(run_async: Runner) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"`async for y in p\.stream\(\.\.\.\)`"):
            for _ in both.stream([1]):  # type: ignore[attr-defined]
                pass
        with pytest.raises(TypeError, match=r"`\[y async for y in p\.stream\(\.\.\.\)\]`"):
            list(both.stream([1]))  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="async for"):
            _, _ = both.stream([1, 2])  # type: ignore[misc]
        async with both.stream([1]) as entered:
            with pytest.raises(TypeError, match="async for"):
                for _ in entered:  # type: ignore[attr-defined]
                    pass
            assert [y async for y in entered] == [3]
        with pytest.raises(TypeError, match=r"`async for y in p\.stream"):
            await model.forward.stream([1])  # type: ignore[misc]

    run_async(main())


def test_a_plain_with_says_async_with(run_async: Runner) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"`async with p\.stream"), both.stream([1]):  # type: ignore[attr-defined]
            pass
        with pytest.raises(TypeError, match=r"`async with p\.stream"), model.forward.stream([1]) as _:  # type: ignore[attr-defined]
            pass
        runtime = flow.Runtime(max_runs=1)
        with pytest.raises(TypeError, match=r"`async with flow\.Runtime"), runtime:  # type: ignore[attr-defined]
            pass
        async with runtime:
            assert await both.on(runtime)(1) == 3

    run_async(main())
    runtime = flow.Runtime(max_runs=1)
    with pytest.raises(TypeError, match=r"needs no `with`: p\.on\(rt\)\.run"), runtime:  # type: ignore[attr-defined]
        pass
    assert both.on(runtime).run(1) == 3


def test_a_stream_is_still_the_source_of_another(run_async: Runner) -> None:
    async def main() -> None:
        assert [y async for y in both.stream(both.stream([1, 2]))] == [5, 6]

    run_async(main())


async def source() -> list[int]:
    return [1, 2]


class Later:
    def __await__(self) -> Any:
        return source().__await__()


def test_a_source_that_is_to_be_awaited_says_so(run_async: Runner) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result([1, 2])
        for late in (source(), asyncio.create_task(source()), flow.op(source).start(), future, Later()):
            with pytest.raises(TypeError, match=r"both\.stream\(\): source .* await it first, p\.stream\(await"):
                both.stream(late)  # type: ignore[arg-type]
            if not isinstance(late, Coroutine):  # which is closed
                assert [y async for y in both.stream(await late)] == [2 + x for x in (1, 2)]
        assert [y async for y in both.stream(await source())] == [3, 4]

    run_async(main())


def test_what_can_be_awaited_and_gone_through_is_gone_through(run_async: Runner) -> None:
    class Cursor(Later):
        async def __aiter__(self) -> Any:
            yield 5

    class Rows(Later):
        def __iter__(self) -> Any:
            return iter([6])

    async def main() -> None:
        assert [y async for y in both.stream(Cursor())] == [7]
        assert [y async for y in both.stream(Rows())] == [8]

    run_async(main())
