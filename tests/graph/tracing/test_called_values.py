"""What only the run knows is called as it is; an operator or a pipeline that is more than its function is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow


class Model:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    @flow.op
    def plain(self, x: int) -> int:
        return x + 1

    @flow.op(inout=("self",))
    def changes(self, x: int) -> int:
        self.seen.append(x)
        return x

    @flow.op(retries=1)
    def retried(self, x: int) -> int:
        return x

    @flow.op
    async def waits(self, x: int) -> int:
        return x

    @flow.pipeline
    def forward(self, x: int) -> int:
        return self.plain(x)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: model.changes(x),
        lambda model, x: model.retried(x),
        lambda model, x: model.waits(x),
        lambda model, x: model.forward(x),
    ],
)
def test_a_method_of_an_argument_that_is_more_than_its_function(call: Callable[[Any, Any], Any]) -> None:
    p = flow.pipeline(call, name="p")
    with pytest.raises(TypeError, match=r"reached by way of an argument.*static="):
        p.run(Model(), 1)
    assert flow.pipeline(call, static=("model",)).run(Model(), 1) in (1, 2)
    model = Model()
    assert flow.pipeline(lambda x: call(model, x)).run(1) in (1, 2)


def test_a_plain_one_is_called() -> None:
    assert flow.pipeline(lambda model, x: model.plain(x)).run(Model(), 1) == 2
    assert flow.pipeline(lambda f, x: f(x)).run(flow.op(lambda x: x + 1), 1) == 2
    with pytest.raises(TypeError, match="reached by way of an argument"):
        flow.pipeline(lambda f, x: f(x)).run(flow.pipeline(lambda x: x + 1), 1)
