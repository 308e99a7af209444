"""What frameworks ask of a function before they call it: whether they have to await what it gives."""

from __future__ import annotations

import asyncio
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


@flow.op
async def fetch(x: Any, by: Any = 1) -> Any:
    await asyncio.sleep(0)
    return x + by


@flow.op
def kernel(x: Any) -> Any:
    return x + 1


@flow.pipeline
def both(x: Any, *, by: Any = 1) -> Any:
    return flow.label(kernel(fetch(x, by)), "sum")


class Model:
    @flow.op
    async def fetch(self, x: Any) -> Any:
        return x + 1

    @flow.op
    def kernel(self, x: Any) -> Any:
        return x + 1

    @flow.pipeline
    def both(self, x: Any, by: Any = 1) -> Any:
        return self.kernel(self.fetch(x))

    @classmethod
    @flow.op
    async def of_class(cls, x: Any) -> Any:
        return x + 1


class Adds:
    async def __call__(self, x: Any) -> Any:
        return x + 1


class Doubles:
    def __call__(self, x: Any) -> Any:
        return 2 * x


runtime = flow.Runtime(max_runs=2)

AWAITED: list[Any] = [
    fetch,
    fetch.options(name="other", timeout=2),
    fetch.on(runtime),
    functools.partial(fetch, by=2),
    flow.op(functools.partial(fetch, by=2)),
    flow.op(Adds()),
    flow.op(both),
    Model().fetch,
    Model.of_class,
    Model().fetch.options(retries=1).on(runtime),
    both,
    both.bind(by=2),
    both.on(runtime),
    both.replace({kernel: lambda x: x}),
    both.select("sum"),
    flow.pipeline(lambda x: x),
    flow.pipeline(functools.partial(lambda x, by: x, by=1)),
    flow.pipeline(fetch),
    Model().both,
    Model().both.on(runtime).bind(by=2),
    functools.partial(Model().both, by=3),
]

PLAIN: list[Any] = [
    kernel,
    kernel.options(name="other"),
    kernel.on(runtime),
    Model().kernel,
    flow.op(Doubles()),
    flow.op(functools.partial(kernel)),
    flow.op(functools.wraps(fetch)(lambda x: x)),
    functools.wraps(fetch)(lambda x: x),
    functools.wraps(both)(lambda x: x),
    functools.wraps(both.on(runtime))(lambda x: x),
]


def asked(function: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since Python 3.14
        found = asyncio.iscoroutinefunction(function)
    assert found is inspect.iscoroutinefunction(function)
    return found


@pytest.mark.parametrize("function", AWAITED, ids=repr)
def test_what_gives_a_coroutine_says_so(run_async: Runner, function: Any) -> None:
    assert asked(function)
    assert not inspect.isgeneratorfunction(function)
    assert not inspect.isasyncgenfunction(function)

    async def main() -> Any:
        call = function(1)
        assert inspect.iscoroutine(call)
        return await call

    assert run_async(main()) in {1, 2, 3, 4}


@pytest.mark.parametrize("function", PLAIN, ids=repr)
def test_what_is_plain_says_so(function: Any) -> None:
    """Also what wraps something that gives coroutines: `functools.wraps` copies its attributes."""
    assert not asked(function)
    assert function(1) in {1, 2}


def test_signatures_are_those_of_the_functions() -> None:
    assert str(inspect.signature(fetch)) == "(x: 'Any', by: 'Any' = 1) -> 'Any'"
    assert str(inspect.signature(both)) == "(x: 'Any', *, by: 'Any' = 1) -> 'Any'"
    assert str(inspect.signature(both.bind(by=2))) == "(x: 'Any') -> 'Any'"
    assert str(inspect.signature(Model().both)) == "(x: 'Any', by: 'Any' = 1) -> 'Any'"


def test_an_operator_is_a_body_also_if_it_is_async(run_async: Runner) -> None:
    """It is no `async def`: called in a trace, it gives a node."""
    for body in (fetch, functools.partial(fetch, by=1), Model().fetch, kernel):
        assert run_async(flow.pipeline(body)(1)) == 2


@pytest.mark.parametrize("body", [fetch.__wrapped__, functools.partial(fetch.__wrapped__, by=1), Adds().__call__])
def test_an_async_def_is_no_body(body: Any) -> None:
    with pytest.raises(TypeError, match="the body must be a plain `def`"):
        flow.pipeline(body)


def test_a_wrapped_pipeline_is_a_body(run_async: Runner) -> None:
    @flow.pipeline
    @functools.wraps(both)
    def around(x: Any) -> Any:
        return both(x) * 10

    assert run_async(around(1)) == 30


def test_an_operator_of_a_pipeline_is_awaited(run_async: Runner) -> None:
    inner = flow.op(both)
    assert inner.is_async
    assert run_async(flow.pipeline(lambda x: inner(x) + inner(x, by=2))(1)) == 7
    assert run_async(inner(1)) == 3


def test_a_dispatcher_of_a_framework_awaits_them(run_async: Runner) -> None:
    """As Starlette and others do it: what is no coroutine function runs in a thread, and gives the answer."""

    async def answer(handler: Any, request: Any) -> Any:
        while isinstance(handler, functools.partial):
            handler = handler.func
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004
            return await handler(request)
        return await asyncio.to_thread(handler, request)

    async def main() -> None:
        for handler in (fetch, kernel, Model().fetch, Model().kernel):
            assert await answer(handler, 1) == 2
        for handler in (both, Model().both, both.on(runtime), functools.partial(both)):
            assert await answer(handler, 1) == 3

    run_async(main())
