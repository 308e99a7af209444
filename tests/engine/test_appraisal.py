"""appraisal: which turns tell how lanes get on together, and what they tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dataflow.engine.appraisal import appraise
from dataflow.engine.lane import Lane
from dataflow.engine.scheduler import BATCH_SECONDS
from dataflow.engine.segment import END
from dataflow.graph.costs import Costs

HEAVY = 100e-6


class Judged(Costs):
    """Costs that note what they are told of how lanes get on."""

    __slots__ = ("told",)

    def shared(self, *told: float) -> bool:
        self.told.append(told)
        return False


def judged() -> Judged:
    """Of one step."""
    costs = Judged(["a"], bytes(1))
    costs.seconds[:] = [HEAVY]
    costs.told = []
    return costs


class Turns:
    """Lanes that are where the test says."""

    def __init__(self) -> None:
        self.lanes: set[Lane] = set()

    def lane(self, costs: Costs | None, came: float = 0.0) -> Lane:
        lane = Lane()
        lane.came = came
        self.at(lane, costs)
        self.lanes.add(lane)
        return lane

    def at(self, lane: Lane, costs: Costs | None) -> None:
        run: Any = None if costs is None else SimpleNamespace(plan=SimpleNamespace(costs=costs))
        lane.run = run

    def end(self, lane: Lane, at: float, step: int = 0) -> None:
        lane.ended = at
        assert lane.run is not None
        assert appraise(lane, lane.run.plan.costs, step, self.lanes) is False  # as the costs say


def test_lanes_are_judged_by_what_all_of_them_do_for_a_plan() -> None:
    costs, turns = judged(), Turns()
    one, other = turns.lane(costs), turns.lane(costs)
    turns.end(one, 1.0)  # the first turn has no beginning
    turns.end(other, 1.5)
    assert not costs.told
    costs.worked += 1.8
    turns.end(one, 2.0)
    assert costs.told == [(HEAVY, 1.8, 1.0)]
    turns.end(one, 3.0, END)  # it was not of heavy steps
    assert len(costs.told) == 1
    costs.seconds[0] = BATCH_SECONDS  # nobody doubts that this is worth it
    turns.end(one, 4.0)
    assert len(costs.told) == 1


def test_lanes_are_not_judged_where_one_is_alone_or_with_another_plan() -> None:
    costs, others, turns = judged(), judged(), Turns()
    one = turns.lane(costs)
    turns.end(one, 1.0)
    turns.end(one, 2.0)
    assert not costs.told  # alone
    other = turns.lane(costs, came=2.5)
    turns.end(one, 3.0)
    assert not costs.told  # it has just come
    turns.end(one, 4.0)
    assert len(costs.told) == 1  # it has yet to end a turn, but was there
    turns.end(other, 4.5)
    turns.at(other, others)
    turns.end(one, 5.0)
    assert len(costs.told) == 1  # it is elsewhere
    turns.end(other, 5.5)
    turns.at(other, costs)
    turns.end(other, 5.9)
    turns.end(one, 6.0)
    assert len(costs.told) == 1  # it was until now
    turns.end(other, 6.9)
    turns.end(one, 7.0)
    assert len(costs.told) == 3  # by both
    one.rest()
    assert one.mark is None  # it holds no plan meanwhile
    turns.end(one, 9.0)
    assert len(costs.told) == 3  # and has no turn that could tell anything


def test_whether_lanes_are_worth_it_is_for_the_costs_to_say() -> None:
    costs, turns = Costs(["a"], bytes(1)), Turns()
    costs.measured(0, HEAVY)
    one, other = turns.lane(costs), turns.lane(costs)
    one.ended = other.ended = 1.0
    for lane in one, other:
        appraise(lane, costs, 0, turns.lanes)
    found = []
    for turn in range(2, 9):
        one.ended = float(turn)
        costs.worked += 0.3  # of the second that two lanes had
        found.append(appraise(one, costs, 0, turns.lanes))
    assert True in found
    assert costs.border > HEAVY
