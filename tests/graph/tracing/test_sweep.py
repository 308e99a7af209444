"""Numpy and scipy.ndimage on every kind of value, against the plain functions: `tests.soak.sweep`, a little of it.

Every line of the sweep is tried with one kind, most lines once and those of operators more often; which, a seed says.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.soak.sweep import GROUPS, Program, Way, check, ndimage, one_of, sampled

ROUNDS = {"operators": 12, "statements": 3, "methods": 2, "functions": 1 / 4, "more": 1 / 8, "ufuncs": 1 / 2}
"""How often each line is tried; once where nothing is said."""
covered: dict[str, Counter[str]] = {}


def programs(group: str, seed: int = 2026) -> Iterator[Program]:
    rounds = ROUNDS.get(group, 1)
    for number in range(max(1, int(rounds))):
        yield from sampled(GROUPS[group](one_of(seed + number)), max(1, round(1 / rounds)), seed)


@pytest.fixture
def quietly() -> Iterator[None]:
    """Numpy warns of much that is tried here."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("group", GROUPS)
def test_a_pipeline_gives_what_the_plain_functions_give(group: str, quietly: None) -> None:
    if group == "ndimage" and ndimage is None:
        pytest.skip("scipy is not installed")
    ways = list(Way)
    departures = []
    counts: Counter[str] = Counter()

    async def check_all() -> None:
        for number, program in enumerate(programs(group)):
            outcome = await check(program, ways[number % 3])
            counts[outcome.kind] += 1
            if outcome.kind == "departure":
                departures.append(f"{ways[number % 3].name} {program!r}: {outcome.told}")

    asyncio.run(check_all())
    assert not departures, "\n".join(departures[:20])
    covered[group] = counts
    assert counts["same"] > 10
    assert counts["refused"] > 20


def test_what_the_sweep_covered() -> None:
    """Only if all of the above ran in this process, before."""
    if covered.keys() != GROUPS.keys():
        return
    total: Counter[str] = sum(covered.values(), Counter())
    assert sum(total.values()) > 6000
    assert total["same"] > 1000
    assert total["same error"] > 1500
    assert total["by rule"] + total["meaningless"] + total["not asked"] < sum(total.values()) / 50


# What the sweep itself would overlook if it were wrong: each of these departs.


@pytest.mark.parametrize(
    ("plain", "ours"),
    [
        ("r = np.zeros(3)", "r = np.zeros(3, 'f4')"),
        ("r = np.array([0.0])", "r = np.array([-0.0])"),
        ("r = np.eye(3)[:, ::2]", "r = np.eye(3)[:, ::2].copy()"),
        ("r = np.asfortranarray(np.eye(3))", "r = np.eye(3)"),
        ("r = np.matrix([1.0])", "r = np.array([[1.0]])"),
        ("r = np.ma.array([1.0, 2.0], mask=[0, 1])", "r = np.ma.array([1.0, 2.0])"),
        ("r = np.zeros(1, np.dtype('f8', metadata={'m': 1}))", "r = np.zeros(1)"),
        ("r = 1.0", "r = np.float64(1.0)"),
        ("r = [1]", "r = (1,)"),
        ("r = np.zeros(3)[()]", "r = np.broadcast_to(np.zeros(1), 3)"),
        ("r = 1 / 0", "r = 1"),
        ("r = [][0]", "r = {}[0]"),
    ],
)
def test_a_departure_is_noticed(plain: str, ours: str, quietly: None) -> None:
    program = Program("r = departs(x)", {"x": 1}, {"departs": Departing(plain, ours)})
    outcome = asyncio.run(check(program, Way.GIVEN))
    assert outcome.kind == "departure"


class Departing:
    """Gives one value to the plain function, and another to a graph."""

    def __init__(self, plain: str, ours: str) -> None:
        self.plain, self.ours = plain, ours

    def __call__(self, x: Any) -> Any:
        scope: dict[str, Any] = {"np": np}
        exec(self.plain if type(x) is int else self.ours, scope)
        return scope["r"]
