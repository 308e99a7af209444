"""Which item of a stream or of a map failed: the attribute `item` of the exception, and a note of each around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


def fails_at(*bad: Any) -> Any:
    """A function that fails for these."""

    def check(x: Any) -> Any:
        if x in bad:
            raise ValueError(x)
        return x

    return check


def on_loop(*bad: Any) -> Any:
    check = fails_at(*bad)

    async def checked(x: Any) -> Any:
        await asyncio.sleep(0)
        return check(x)

    return checked


def notes(exc: BaseException) -> list[str]:
    """Those that say which item it was."""
    return [note for note in getattr(exc, "__notes__", []) if note.startswith("dataflow: in item ")]


def of_stream(number: int) -> str:
    return f"dataflow: in item {number} of the stream (the first is item 0)"


def of_map(number: int, name: str) -> str:
    return f"dataflow: in item {number} of the map of {name} (the first is item 0)"


CALLEES = {
    "kernel": lambda *bad: flow.op(name="check")(fails_at(*bad)),
    "async": lambda *bad: flow.op(name="check")(on_loop(*bad)),
    "managed": lambda *bad: flow.op(name="check", timeout=10)(fails_at(*bad)),
    "retried": lambda *bad: flow.op(name="check", retries=1, backoff=0)(fails_at(*bad)),
}


@pytest.fixture(params=CALLEES)
def checking(request: pytest.FixtureRequest) -> Any:
    return CALLEES[request.param]


# ------------------------------------------------------------------------------------------------ streams


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_flight", [1, 3, 20])
def test_an_item_of_a_stream_that_yields(run_async: Runner, checking: Any, ordered: bool, in_flight: int) -> None:
    check = checking("d", "a", "j")
    source = "abcdefghij"

    async def main() -> None:
        stream = flow.pipeline(lambda x: check(x)).stream(
            source, on_error="yield", ordered=ordered, in_flight=in_flight
        )
        errors = [y async for y in stream if isinstance(y, Exception)]
        assert sorted(error.item for error in errors) == [0, 3, 9]  # type: ignore[attr-defined]
        for error in errors:
            assert source[error.item] == str(error)  # type: ignore[attr-defined]
            assert notes(error) == [of_stream(source.index(str(error)))]

    run_async(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_the_item_that_ends_a_stream(run_async: Runner, checking: Any, ordered: bool) -> None:
    check = checking("g")

    async def main() -> None:
        with pytest.raises(ValueError, match="g") as caught:
            async for _ in flow.pipeline(lambda x: check(x)).stream("abcdefghij", ordered=ordered):
                pass
        assert caught.value.item == 6  # type: ignore[attr-defined]
        assert notes(caught.value) == [of_stream(6)]

    run_async(main())


def test_an_item_that_does_not_bind_and_one_whose_body_fails(run_async: Runner) -> None:
    unbound = flow.pipeline(static=("x",))(lambda x: x)
    kept = KeyError("kept")

    def body(x: Any) -> Any:
        if x in (2, 4):
            raise kept
        return x

    failing = flow.pipeline(static=("x",))(body)

    async def main() -> None:
        errors = [y async for y in unbound.stream([1, [], 2], on_error="yield") if isinstance(y, Exception)]
        assert [error.item for error in errors] == [1]  # type: ignore[attr-defined]
        stream = failing.stream(range(5), on_error="yield", in_flight=5)
        found = [(y.item, notes(y)) async for y in stream if y is kept]
        assert found == [(2, [of_stream(2)]), (4, [of_stream(4)])]

    run_async(main())


def test_after_items_that_were_dropped_the_numbers_are_those_of_the_source(run_async: Runner) -> None:
    check = flow.op(fails_at(7))

    async def main() -> None:
        stream = flow.pipeline(lambda x: check(x)).stream(
            range(8), on_error="yield", on_full="drop_oldest", in_flight=2
        )
        async with stream:
            while stream.dropped < 6:
                await asyncio.sleep(0)
            errors = [y async for y in stream if isinstance(y, Exception)]
        assert [error.item for error in errors] == [7]  # type: ignore[attr-defined]

    run_async(main())


# ------------------------------------------------------------------------------------------------ maps


def test_an_item_of_a_map(run_async: Runner, checking: Any) -> None:
    mapped = flow.pipeline(lambda xs: flow.map(checking("d"), xs))
    for run in (mapped.run, mapped.debug, lambda xs: run_async(mapped(xs)), lambda xs: flow.map(checking("d"), xs)):
        with pytest.raises(ValueError, match="d") as caught:
            run("abcde")
        assert caught.value.item == 3  # type: ignore[attr-defined]
        assert notes(caught.value) == [of_map(3, "check")]


def two(check: Any) -> Any:
    return lambda x: check(check(x) + x)


def plumbing(_: Any) -> Any:
    return lambda x: x.upper


def plumbing_in_a_list(_: Any) -> Any:
    return lambda x: [x[0], x.upper]


def plumbing_of_a_kernel(check: Any) -> Any:
    return lambda x: check(x)[0].upper


@pytest.mark.parametrize(
    ("body", "bad"), [(two, 1), (plumbing, 1), (plumbing_in_a_list, b""), (plumbing_of_a_kernel, "")]
)
@pytest.mark.parametrize("where", [0, 1, 4])
def test_an_item_of_a_map_of_pipelines(run_async: Runner, body: Any, bad: Any, where: int) -> None:
    part = flow.pipeline(name="part")(body(CALLEES["kernel"](2)))
    items: list[Any] = ["x"] * 5
    items[where] = bad
    with pytest.raises((ValueError, AttributeError, IndexError)) as caught:
        run_async(flow.pipeline(lambda xs: flow.map(part, xs))(items))
    assert caught.value.item == where  # type: ignore[attr-defined]
    assert notes(caught.value) == [of_map(where, "part")]


def test_an_item_of_a_map_of_a_method(run_async: Runner) -> None:
    class Model:
        bad = 3

        @flow.op
        def check(self, x: int) -> int:
            return fails_at(self.bad)(x)

        @flow.pipeline
        def part(self, x: int) -> Any:
            return self.check(x)

        @flow.pipeline
        def all(self, xs: Any) -> Any:
            return flow.map(self.part, xs)

    model = Model()
    for run in (model.all, flow.pipeline(lambda xs: flow.map(model.check, xs))):
        with pytest.raises(ValueError, match="3") as caught:
            run_async(run([0, 5, 3, 1]))
        assert caught.value.item == 2  # type: ignore[attr-defined]


def test_of_several_that_failed_each_has_its_item(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    begun: list[int] = []

    @flow.op
    async def fails(x: int) -> int:
        begun.append(x)
        while len(begun) < 3:
            await asyncio.sleep(0)
        if x:
            raise ValueError(x)
        return x

    with pytest.raises(ValueError) as caught:
        run_async(flow.pipeline(lambda xs: flow.map(fails, xs))([0, 1, 2]))
    others = [note for note in caught.value.__notes__ if "also failed" in note]
    first = caught.value.item  # type: ignore[attr-defined]
    assert first == caught.value.args[0]
    assert others in ([f"dataflow: also failed: operator 'fails' in item {3 - first}, ValueError: {3 - first}"], [])


# ------------------------------------------------------------------------------------------------ one in another


def test_maps_in_maps_say_all_numbers_and_the_awaiters_is_the_attribute(run_async: Runner) -> None:
    check = flow.op(name="check")(fails_at("d"))
    rows = flow.pipeline(lambda xs: flow.map(check, xs), name="rows")
    table = flow.pipeline(lambda xs: flow.map(rows, xs), name="table")
    given = ["ab", "c", "efd"]
    for run in (table.run, table.debug, lambda xs: run_async(table(xs))):
        with pytest.raises(ValueError, match="d") as caught:
            run(given)
        assert caught.value.item == 2  # type: ignore[attr-defined]
        assert notes(caught.value) == [of_map(2, "check"), of_map(2, "rows")]


def test_a_map_in_a_stream_in_a_map(run_async: Runner) -> None:
    check = flow.op(name="check")(fails_at("d"))
    row = flow.pipeline(lambda xs: flow.map(check, xs), name="row")

    @flow.op
    async def consumes(tables: Any) -> list[Any]:
        return [y async for y in row.stream(tables)]

    with pytest.raises(ValueError, match="d") as caught:
        run_async(flow.pipeline(lambda xs: flow.map(consumes, xs))([["a"], ["a", "b", "a", "bbbd"], ["x"]]))
    assert caught.value.item == 1  # type: ignore[attr-defined]
    assert notes(caught.value) == [of_map(3, "check"), of_stream(3), of_map(1, "consumes")]


def test_a_kernel_that_catches_it_sees_the_number_of_its_own_map(run_async: Runner) -> None:
    check = flow.op(fails_at(5))
    seen: list[int] = []

    @flow.op
    def catches(xs: Any) -> Any:
        try:
            flow.map(check, xs)
        except ValueError as exc:
            seen.append(exc.item)  # type: ignore[attr-defined]
            raise

    with pytest.raises(ValueError) as caught:
        run_async(flow.pipeline(lambda xs: flow.map(catches, xs))([[1], [2, 5]]))
    assert seen == [1]
    assert caught.value.item == 1  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ no lies


def test_an_instance_raised_again_elsewhere_has_no_item(run_async: Runner) -> None:
    kept = ValueError("kept")

    @flow.op
    def raises(x: Any) -> Any:
        if x:
            raise kept
        return x

    single, mapped = flow.pipeline(lambda x: raises(x)), flow.pipeline(lambda xs: flow.map(raises, xs))

    async def main() -> None:
        async def whole() -> None:
            with pytest.raises(ValueError, match="kept"):
                await single(1)
            assert not hasattr(kept, "item")
            assert notes(kept) == []

        stream = single.stream([0, 1, 0, 1], on_error="yield", in_flight=1)
        found = [(y.item, notes(y)) async for y in stream if y is kept]
        assert found == [(1, [of_stream(1)]), (3, [of_stream(3)])]
        await whole()
        with pytest.raises(ValueError, match="kept"):
            await mapped([0, 0, 1])
        assert kept.item == 2  # type: ignore[attr-defined]
        assert notes(kept) == [of_map(2, "raises")]
        with pytest.raises(ValueError, match="kept"):
            single.debug(1)
        assert not hasattr(kept, "item")
        with pytest.raises(ValueError, match="kept"):
            await mapped([1])
        assert notes(kept) == [of_map(0, "raises")]
        await whole()

    run_async(main())


class OfItsOwn(Exception):
    def __init__(self, item: str) -> None:
        super().__init__(item)
        self.item = item


class AsProperty(Exception):
    @property
    def item(self) -> str:
        return "mine"


class Frozen(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


@pytest.mark.parametrize(("error", "item"), [(OfItsOwn, "mine"), (AsProperty, "mine"), (Frozen, 1)])
def test_an_attribute_of_the_exceptions_own_stays(run_async: Runner, error: Any, item: Any) -> None:
    error = error("mine")  # made here: one that outlives the test keeps the frames of its kernel

    @flow.op
    def raises(x: Any) -> Any:
        if x:
            raise error
        return x

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            run_async(flow.pipeline(lambda xs: flow.map(raises, xs))([0, 1]))
        assert caught.value.item == item
        if type(error) is not Frozen:
            assert notes(caught.value) == [of_map(1, "raises")]


def test_what_cannot_be_passed_on_raw_is_told_with_its_item(run_async: Runner) -> None:
    @flow.op
    def stops(x: int) -> int:
        if x == 2:
            raise StopIteration
        return x

    with pytest.raises(flow.OperatorError) as caught:
        run_async(flow.pipeline(lambda xs: flow.map(stops, xs))([0, 1, 2]))
    assert caught.value.item == 2  # type: ignore[attr-defined]
