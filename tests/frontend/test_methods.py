"""Operators and pipelines below and above `classmethod` and `staticmethod`."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow

Runner = Callable[[Any], Any]

HIDES = sys.version_info >= (3, 13)
"""Whether classmethod binds nothing that is below it."""


class Model:
    gain = 3

    @flow.op
    @classmethod
    def amplify(cls, x: Any, *, more: int = 0) -> Any:
        return x * cls.gain + more

    @flow.op
    @staticmethod
    def negate(x: Any) -> Any:
        return -x

    @flow.pipeline(static=("times",))
    @classmethod
    def forward(cls, x: Any, times: int = 1) -> Any:
        for _ in range(times * cls.gain - 2):  # the class itself: no node
            x = cls.amplify(x)
        return x

    @flow.pipeline
    @staticmethod
    def backward(x: Any) -> Any:
        return Model.negate(x)

    @flow.pipeline
    def both(self, x: Any) -> Any:
        model: Any = self
        return model.forward(x), model.backward(x)


class Wider(Model):
    gain = 4


M: Any = Model
W: Any = Wider


def test_below_pipeline_and_op_they_are_what_they_are_of_functions(run_async: Runner) -> None:
    async def started() -> Any:
        return await M.amplify.start(2, more=1), await W().amplify.start(2), await M().negate.start(2)

    assert (M.amplify(2), W.amplify(2), W().amplify(2), M.negate(2), M().negate(2)) == (6, 8, 8, -2, -2)
    assert run_async(started()) == (7, 8, -2)
    assert (M.forward.run(2), W.forward.run(2), W().forward.run(2)) == (6, 32, 32)
    assert (M.backward.run(2), W().backward.run(2), M.backward.debug(2)) == (-2, -2, -2)
    assert run_async(M.forward(2, times=2)) == 162
    assert (M().both.run(2), W().both.run(2)) == ((6, -2), (32, -2))
    assert M.forward.bind(x=2).run() == 6
    assert W.forward.bind(x=2).run() == 32
    assert W.amplify.options(name="louder")(2) == 8
    assert M.forward.replace({M.amplify: lambda cls, x: x + cls.gain}).run(2) == 5
    assert flow.map(W.amplify, [1, 2]) == [4, 8]


def test_a_graph_belongs_to_its_class() -> None:
    class Base:
        gain = 1

        @flow.pipeline
        @classmethod
        def forward(cls, x: Any) -> Any:
            return Model.negate(x) * cls.gain

    class Sub(Base):
        gain = 2

    base: Any = Base.forward
    sub: Any = Sub.forward
    assert base != sub == Sub.forward
    assert (base.run(1), sub.run(1)) == (-1, -2)
    assert sub.graph() is Sub().forward.graph() is not base.graph()
    Sub.gain = 5
    assert (base.run(1), sub.run(1)) == (-1, -5)


@pytest.mark.parametrize("protocol", range(4, pickle.HIGHEST_PROTOCOL + 1))
def test_they_are_pickled_and_copied_with_their_class(protocol: int) -> None:
    for each in (M.amplify, W.amplify, M.negate, M.forward, W.forward, M.backward, W().both):
        again = pickle.loads(pickle.dumps(each, protocol))
        assert getattr(again, "run", again)(2) == getattr(each, "run", each)(2)
        assert copy.deepcopy(each)._of is each._of
    assert pickle.loads(pickle.dumps(W.forward, protocol)) == W.forward
    assert pickle.loads(pickle.dumps(W.forward.bind(x=2), protocol)).run() == 32


def hidden() -> Any:
    class Hidden:
        gain = 3

        @classmethod
        @flow.op
        def amplify(cls, x: Any) -> Any:
            return x * cls.gain

        @classmethod
        @flow.pipeline
        def forward(cls, x: Any) -> Any:
            for _ in range(cls.gain - 2):
                x = cls.amplify(x)
            return x

        @staticmethod
        @flow.pipeline
        def backward(x: Any) -> Any:
            return -x

    return Hidden


class AtTop:
    @classmethod
    @flow.op
    def amplify(cls, x: Any) -> Any:
        return x * 3

    @classmethod
    @flow.pipeline
    def forward(cls, x: Any) -> Any:
        return cls.amplify(x)


@pytest.mark.parametrize("kind", [hidden(), AtTop])
def test_a_call_below_classmethod_has_its_class(run_async: Runner, kind: Any) -> None:
    @flow.pipeline
    def outer(x: Any) -> Any:
        return kind.forward(x), kind().amplify(x)

    assert kind.amplify(2) == 6
    assert run_async(kind.forward(2)) == 6
    assert run_async(kind().forward(x=2)) == 6
    assert outer.run(2) == (6, 6)


@pytest.mark.parametrize("kind", [hidden(), AtTop])
@pytest.mark.parametrize(
    "use",
    [
        lambda kind: kind.forward.run(2),
        lambda kind: kind.forward.graph(),
        lambda kind: kind.forward.bind(x=2),
        lambda kind: kind.forward.stream([1, 2]),
        lambda kind: kind.forward.select("x"),
        lambda kind: kind.forward.replace({}),
        lambda kind: kind.amplify.options(name="louder"),
    ],
)
def test_below_classmethod_all_but_a_call_is_refused_where_it_has_no_class(kind: Any, use: Any) -> None:
    if not HIDES:
        use(kind)
        return
    with pytest.raises(TypeError, match=r"below @classmethod.*put @flow\.(pipeline|op) above @classmethod"):
        use(kind)


def test_a_task_below_classmethod_is_refused_where_it_has_no_class(run_async: Runner) -> None:
    async def started(kind: Any) -> Any:
        return await kind.amplify.start(2)

    for kind in (hidden(), AtTop):
        if not HIDES:
            assert run_async(started(kind)) == 6
            continue
        with pytest.raises(TypeError, match=r"put @flow\.op above @classmethod"):
            run_async(started(kind))


def test_below_staticmethod_nothing_is_hidden() -> None:
    kind = hidden()
    assert (kind.backward.run(2), kind().backward.run(2)) == (-2, -2)
    assert kind.backward.bind(x=2).run() == -2
