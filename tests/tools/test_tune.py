"""`flow.tune`: settings are tried by turns, put back, and only what is more than noise is called better."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import dataflow as flow
from dataflow.tools.tune import Setting, Tuning

seen: list[tuple[int, int]] = []


@flow.op
def nap(x: Any, seconds: float = 0.005) -> Any:
    seen.append((flow.get_num_interop_threads(), flow.get_num_threads()))
    time.sleep(seconds)
    return x


@flow.pipeline
def wide(x: Any) -> Any:
    return [nap(x) for _ in range(8)]


def test_sleeping_kernels_are_quickest_on_as_many_threads() -> None:
    flow.set_num_interop_threads(2)
    seen.clear()
    found = flow.tune(wide, 1, budget=0.01, interop=(1, 2, 8), intraop=(None,))
    assert flow.get_num_interop_threads() == 2
    assert {inter for inter, _ in seen} == {1, 2, 8}
    assert [each.interop for each in found.settings] == [8, 2, 1]
    assert (found.current.interop, found.current.intraop) == (2, None)
    assert found.best.interop == 8
    assert min(each.runs for each in found.settings) >= 1
    assert all(each.runs >= 3 for each in found.settings)
    text = str(found)
    assert "8 × as it is" in text
    assert "(now)" in text
    assert "best: 8 × as it is, which takes" in text


def test_intraop_threads_are_tried_and_put_back() -> None:
    before = flow.get_num_threads()
    seen.clear()
    found = flow.tune(wide, 1, budget=0.01, interop=(1,), intraop=(1, 2))
    assert flow.get_num_threads() == before
    assert {(1, 1), (1, 2)} <= set(seen)
    assert {(each.interop, each.intraop) for each in found.settings} >= {(1, 1), (1, 2)}


def test_the_settings_that_are_tried_by_themselves() -> None:
    flow.set_num_interop_threads(3)
    found = flow.tune(flow.pipeline(lambda x: x), 1, budget=0.001)
    tried = {(each.interop, each.intraop) for each in found.settings}
    assert (3, None) in tried
    assert {(1, None), (2, None), (1, 1)} <= tried


def test_what_is_noise() -> None:
    def tuned(seconds: float, spread: float) -> Tuning:
        current, other = Setting(2, None, 1.0, 0.05, 9), Setting(4, None, seconds, spread, 9)
        return Tuning("p", tuple(sorted((current, other), key=lambda each: each.seconds)), current)

    assert tuned(0.5, 0.05).best.interop == 4
    assert tuned(0.98, 0.0).best.interop == 2
    assert tuned(0.8, 0.3).best.interop == 2
    assert tuned(1.5, 0.0).best.interop == 2
    assert "no other setting is quicker" in str(tuned(1.5, 0.0))


def test_failures_put_the_settings_back() -> None:
    flow.set_num_interop_threads(2)

    @flow.op
    def fails(x: Any) -> Any:
        if flow.get_num_interop_threads() == 1:
            raise ValueError("no")
        return x

    with pytest.raises(ValueError, match="no"):
        flow.tune(flow.pipeline(lambda x: fails(x)), 1, interop=(2, 1), intraop=(None,))
    assert flow.get_num_interop_threads() == 2


@pytest.mark.parametrize(
    ("keywords", "error", "told"),
    [
        ({"budget": 0}, ValueError, "must be above 0"),
        ({"budget": True}, TypeError, "a number of seconds"),
        ({"budget": "1"}, TypeError, "a number of seconds"),
        ({"interop": (0,)}, ValueError, "at least 1"),
        ({"interop": (1.5,)}, TypeError, "numbers of threads"),
        ({"intraop": (True,)}, TypeError, "numbers of threads"),
    ],
)
def test_bad_input(keywords: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        flow.tune(wide, 1, **keywords)


def test_what_is_no_pipeline_and_a_loop_that_runs() -> None:
    with pytest.raises(TypeError, match="takes a pipeline and its arguments, not Op"):
        flow.tune(nap, 1)  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"would block the event loop .* await asyncio\.to_thread"):
            flow.tune(wide, 1)
        found = await asyncio.to_thread(flow.tune, wide, 1, budget=0.01, interop=(2,), intraop=(None,))
        assert found.pipeline == "wide"

    asyncio.run(main())
