"""`shapes=`: shape, dtype and length of an argument are Python values in the body, with a graph for each."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


@flow.op
def add(x: Any, y: Any) -> Any:
    return x + y


@flow.op
def kind(x: Any) -> str:
    return type(x).__name__


def rows(x: Any) -> Any:
    total = np.zeros(x.shape[1:], x.dtype)
    for i in range(len(x)):
        total = add(total, x[i] * (i + 1))
    return total


def branches(x: Any) -> Any:
    if x.ndim == 2:
        return x.sum(axis=1)
    return x * 2 if x.dtype == np.float32 else x * 3


def sizes(x: Any) -> Any:
    h, *others = x.shape
    return {"h": h, "others": others, "size": x.size / 2, "n": [x] * x.ndim}, np.arange(x.size).reshape(x.shape) + x


def tiles(x: Any) -> Any:
    return np.stack([x[i : i + 2] for i in range(0, len(x) - 1, 2)]), f"{x.shape} {x.dtype}"


def asks(x: Any) -> Any:
    return hasattr(x, "shape"), getattr(x, "ndim", None), isinstance(x.shape, tuple), {x.shape: x.dtype}


BODIES = [rows, branches, sizes, tiles, asks]
VALUES: list[Any] = [
    np.arange(6.0).reshape(3, 2),
    np.arange(4.0),
    np.arange(4, dtype=np.float32),
    np.arange(8, dtype=">i4").reshape(2, 2, 2),
    np.ones((4, 1), order="F")[::2],
    np.ma.masked_array([1.0, 2.0], [True, False]),
    np.empty((2, 0)),
]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(np.ma.allequal(one, other)) and np.shape(one) == np.shape(other)


@pytest.mark.parametrize("body", BODIES)
def test_a_body_gives_what_it_gives_on_values(run_async: Runner, body: Any) -> None:
    pipeline = flow.pipeline(shapes=("x",))(body)
    for value in VALUES * 2:
        try:
            plain = body(value)
        except ValueError as error:
            with pytest.raises(ValueError, match=str(error)):
                run_async(pipeline(value))
            continue
        assert same(run_async(pipeline(value)), plain), value
        assert same(pipeline.run(x=value), plain)
        assert same(pipeline.debug(value), plain)


def counted(**options: Any) -> tuple[Any, list[Any]]:
    traces: list[Any] = []

    @flow.pipeline(shapes=("x",), **options)
    def pipeline(x: Any, y: Any = 0) -> Any:
        traces.append(None if x is None else (x.shape, x.dtype))
        return y if x is None else (x + y, kind(x))

    return pipeline, traces


def test_there_is_one_graph_for_each_shape_and_dtype(run_async: Runner) -> None:
    pipeline, traces = counted()
    for _ in range(2):
        for shape in ((2,), (3,), (2, 1), ()):
            for dtype in ("f8", "f4", ">f8"):
                array = np.ones(shape, dtype)
                result, name = run_async(pipeline(array, 1))
                assert result.dtype == (array + 1).dtype
                assert name == type(array).__name__ if shape else True
    assert len(traces) == 12
    pipeline.run(np.zeros(2), 1)
    pipeline.run(np.ma.zeros(2), 1)
    assert len(traces) == 12
    pipeline.run(np.zeros(2, np.dtype("f8", metadata={"unit": "m"})), 1)
    assert traces[-1][1].metadata == {"unit": "m"}
    assert len(traces) == 13


def test_none_and_omitted_arguments_are_python_values_still() -> None:
    pipeline, traces = counted()
    assert pipeline.run(None, 5) == pipeline.run(None, 5) == 5
    assert pipeline.bind(y=7).run(None) == 7
    assert traces == [None, None]


def test_numpy_scalars_and_objects_with_a_shape(run_async: Runner) -> None:
    class Table:
        """As frames: no dtype."""

        shape = (2, 3)
        ndim = 2

        def __len__(self) -> int:
            return 2

    class Sparse(Table):
        dtype = np.dtype("f8")

        def __len__(self) -> int:
            raise TypeError("sparse array length is ambiguous")

    @flow.pipeline(shapes=("x",))
    def pipeline(x: Any) -> Any:
        return x.shape, kind(x), x.ndim

    @flow.pipeline(shapes=("x",))
    def asks(x: Any) -> Any:
        return len(x)

    for value, name in ((np.float64(2), "float64"), (Table(), "Table"), (Sparse(), "Sparse")):
        assert run_async(pipeline(value)) == (value.shape, name, value.ndim)
    assert asks.run(Table()) == 2
    with pytest.raises(TypeError, match="sparse array length is ambiguous"):
        asks.run(Sparse())
    with pytest.raises(TypeError, match=r"len\(\) of unsized object"):
        asks.run(np.float64(2))


def test_an_attribute_that_the_object_lacks_is_recorded_as_ever(run_async: Runner) -> None:
    class Lazy:
        shape = (2,)

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"no {name}")

    with pytest.raises(AttributeError, match="no size"):
        run_async(flow.pipeline(shapes=("x",))(lambda x: x.size)(Lazy()))


class Model:
    def __init__(self, gain: int) -> None:
        self.gain = gain

    @flow.pipeline(shapes=("x",))
    def forward(self, x: Any, times: Any = 1) -> Any:
        return sum(x[i] for i in range(len(x))) * self.gain * times


def test_methods_streams_maps_and_what_is_made_of_it(run_async: Runner) -> None:
    model, arrays = Model(2), [np.arange(n) for n in (2, 3, 2, 4)]
    expected = [2 * array.sum() for array in arrays]
    assert [run_async(model.forward(array)) for array in arrays] == expected
    assert [Model.forward.run(model, array) for array in arrays] == expected
    assert flow.map(model.forward, arrays) == expected
    assert model.forward.bind(x=arrays[1]).run(times=10) == 60
    assert pickle.loads(pickle.dumps(Model.forward)).__get__(model).run(arrays[0]) == 2
    assert flow.pipeline(lambda x: model.forward(x, 2)).run
    assert flow.pipeline(lambda: model.forward(np.arange(3), 2)).run() == 12

    async def main() -> Any:
        return [y async for y in model.forward.stream(arrays)]

    assert run_async(main()) == expected

    @flow.pipeline(shapes=("x",))
    def carried(x: Any, state: Any) -> Any:
        return x * len(x) + state, {"state": state + 1}

    async def carrying() -> Any:
        return [y.tolist() async for y in carried.stream(arrays[:2], carry={"state": 0})]

    assert run_async(carrying()) == [[0, 2], [1, 4, 7]]


def test_a_part_of_another_pipeline_needs_a_known_shape() -> None:
    @flow.pipeline(shapes=("x",))
    def inner(x: Any) -> Any:
        return flow.label(add(x, len(x)), "sum")

    for part in (inner, inner.select("sum")):
        known = flow.pipeline(shapes=("y",))(lambda y, part=part: part(y))
        assert known.run(np.ones(2)).tolist() == [3, 3]
    for part in (inner, inner.select("sum")):
        unknown = flow.pipeline(lambda y, part=part: part(y))
        with pytest.raises(flow.TraceError, match=rf"{__file__}:\d+: .*name the argument .*in shapes="):
            unknown.run(np.ones(2))
    assert flow.pipeline(lambda: inner.select("sum")(np.ones(2))).run().tolist() == [3, 3]


def test_the_remedy_for_a_length_is_to_name_the_argument() -> None:
    def counts(x: Any) -> Any:
        return [x[i] for i in range(len(x))]

    def makes(x: Any) -> Any:
        return np.ones([x.shape[0].__index__(), 2]) + x[0]

    for body in (counts, makes):
        with pytest.raises(flow.TraceError, match=r"name (the argument|.* the array whose shape it is) in shapes="):
            flow.pipeline(body).run(np.ones(2))
        assert np.array_equal(flow.pipeline(shapes=("x",))(body).run(np.ones(2)), body(np.ones(2)))


def test_what_else_needs_a_value_is_refused_still() -> None:
    refused: list[Callable[[Any], Any]] = [
        lambda x: bool(x),
        lambda x: list(x),
        lambda x: float(x),
        lambda x: isinstance(x, np.ndarray),
        lambda x: x.__setitem__(0, 1),
        lambda x: setattr(x, "shape", (2, 1)),
        lambda x: 1 in x,
    ]
    for body in refused:
        with pytest.raises((flow.TraceError, AttributeError)):
            flow.pipeline(shapes=("x",))(body).run(np.ones(2))

    @flow.pipeline(shapes=("x",))
    def matches(x: Any) -> Any:
        match x:
            case [a, b]:
                return a + b
            case _:
                return x

    with pytest.raises(flow.TraceError, match=r"len\(\) of"):
        matches.run(np.ones(2))


def test_misuse() -> None:
    with pytest.raises(TypeError, match=r"shapes names y, no parameter of <lambda>\(x\)"):
        flow.pipeline(shapes=("y",))(lambda x: x)
    with pytest.raises(TypeError, match=r"shapes must be a collection of names, e.g. shapes=\('x',\)"):
        flow.pipeline(shapes="x")(lambda x: x)
    for options in ({"static": ("x",)}, {"tree": ("x",)}):
        with pytest.raises(TypeError, match="x cannot be in shapes= and static or a tree as well"):
            flow.pipeline(shapes=("x",), **options)(lambda x: x)  # type: ignore[call-overload]
    pipeline, _ = counted()
    for wrong in ([1, 2], 3, "text", {"a": 1}):
        with pytest.raises(TypeError, match=r"'x' is named in shapes= and must have a shape.*np\.asarray"):
            pipeline(wrong)
    assert pipeline.run(np.asarray([1, 2]))[0].tolist() == [1, 2]  # as the message says
    with pytest.raises(TypeError, match="needs a value for 'x', which is in shapes="):
        pipeline.graph()
    assert len(pipeline.graph(np.ones(2)).nodes) == 2

    async def carried() -> None:
        with pytest.raises(TypeError, match="'x', which is in shapes="):
            pipeline.stream([1], carry={"x": np.ones(1)})

    asyncio.run(carried())
