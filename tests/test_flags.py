"""Whoever else holds an array finds its flags and its values as they were: `tests.soak.flags`, a little of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from tests.soak.flags import check_bodies


def test_random_bodies_whose_kernels_keep_what_they_return(run_async: Callable[[Any], Any]) -> None:
    run_async(check_bodies(150, seed=15))


@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("returned", [False, True])
def test_an_attribute_that_a_kernel_tries_to_write_to_stays_the_users(readers: int, returned: bool) -> None:
    class Model:
        pass

    model: Any = Model()
    model.w = np.zeros(3)
    writes = flow.op(lambda w: w.__setitem__(0, 1))
    weights = flow.op(lambda m: m.w)

    def body(m: Any) -> Any:
        w = weights(m)
        for _ in range(readers):
            writes(w)
        return w if returned else None

    p = flow.pipeline(body)
    for _ in range(2):
        try:
            p.run(model)
        except ValueError as error:
            assert "read-only" in str(error)  # several readers: refused; one alone writes, as in plain Python
        assert model.w.flags.writeable
        model.w[:] = 0


def test_what_a_kernel_keeps_in_a_list_of_its_own_stays_writable() -> None:
    kept: list[np.ndarray[Any, Any]] = []

    @flow.op
    def keeps(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        kept.append(x * 2)
        return kept[-1]

    p = flow.pipeline(lambda x: (keeps(x) + 1, keeps(x) + 2))

    @flow.pipeline
    def q(x: np.ndarray[Any, Any]) -> Any:
        y = keeps(x)
        return y + 1, y + 2, y

    for pipeline in (p, q):
        for _ in range(3):
            pipeline.run(np.ones(3))
    assert all(array.flags.writeable for array in kept)
    kept[-1][0] = 7
