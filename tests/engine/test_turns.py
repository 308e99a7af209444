"""Turns: the lowest level first, within a level who came first; runs that rose move, and dropped ones are told."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.engine.turns import NOBODY, Turns


class FakeRun:
    """All that turns read of a run, and whether it may be served."""

    def __init__(self, name: object, level: int = 0) -> None:
        self.name = name
        self.level = level
        self.may = True
        self.waits_in: Any = None

    def __repr__(self) -> str:
        return f"{self.name}@{self.level}"


def waiting(*runs: FakeRun) -> Any:
    turns: Any = Turns()
    for run in runs:
        turns.add(run)
    return turns


def first(turns: Any) -> tuple[Any, list[FakeRun]]:
    """The one whose turn it is, and who was dropped on the way."""
    dropped: list[FakeRun] = []
    return turns.first(lambda run: run.may, dropped.append), dropped


def served_to_the_end(turns: Any) -> list[FakeRun]:
    """All in the order of their turns, where each has nothing more to start once it was served."""
    order: list[FakeRun] = []
    while (run := first(turns)[0]) is not None:
        order.append(run)
        run.may = False
    return order


def test_nobody_waits_at_first() -> None:
    turns = waiting()
    assert (list(turns), turns.lowest, first(turns), turns.clear()) == ([], NOBODY, (None, []), [])


def test_one_that_has_risen_moves_behind_those_of_its_level() -> None:
    names = [("a", 0), ("b", 1), ("c", 0)]
    runs = [FakeRun(*each) for each in names]
    turns = waiting(*runs)
    runs[0].level = 1
    turns.move(runs[0])
    assert ([run.name for run in turns], len(turns), turns.lowest) == (["c", "b", "a"], 3, 0)
    runs[2].level = 3
    turns.move(runs[2])
    assert ([run.name for run in turns], len(turns), turns.lowest) == (["b", "a", "c"], 3, 1)


def test_the_lowest_level_has_its_turn_and_within_it_who_came_first() -> None:
    names = [("a", 2), ("b", 0), ("c", 1), ("d", 0), ("e", 2), ("f", 1)]
    turns = waiting(*[FakeRun(*each) for each in names])
    assert turns.lowest == 0
    assert [run.name for run in turns] == ["b", "d", "c", "f", "a", "e"]
    assert [run.name for run in served_to_the_end(turns)] == ["b", "d", "c", "f", "a", "e"]
    assert (list(turns), turns.lowest) == ([], NOBODY)


def test_the_one_whose_turn_it_is_goes_on_waiting() -> None:
    one, other = FakeRun("one", 3), FakeRun("other", 3)
    turns = waiting(one, other)
    assert first(turns) == first(turns) == (one, [])
    assert list(turns) == [one, other]
    assert turns.lowest == 3


def test_a_run_that_rose_gives_way_and_is_the_last_of_its_new_level() -> None:
    one, two, above = FakeRun("one"), FakeRun("two"), FakeRun("above", 5)
    turns = waiting(one, above, two)
    one.level = 5
    assert turns.lowest == 0
    assert first(turns) == (two, [])
    assert list(turns) == [two, above, one]
    two.level = 7  # beyond any level so far
    assert first(turns) == (above, [])
    assert turns.lowest == 5
    assert served_to_the_end(turns) == [above, one, two]


def test_one_that_rose_is_the_first_if_nobody_is_lower() -> None:
    run = FakeRun("run")
    turns = waiting(run)
    run.level = 4
    assert first(turns) == (run, [])
    assert turns.lowest == 4
    run.level = 9
    assert first(turns) == (run, [])
    assert turns.lowest == 9


def test_who_may_not_be_served_is_dropped_and_told_once() -> None:
    runs = [FakeRun(number, level=number // 2) for number in range(6)]
    turns = waiting(*runs)
    for number in 0, 2, 3:
        runs[number].may = False
    assert first(turns) == (runs[1], [runs[0]])  # no further than to the one whose turn it is
    runs[1].may = False
    assert first(turns) == (runs[4], [runs[1], runs[2], runs[3]])
    assert turns.lowest == 2
    assert first(turns) == (runs[4], [])
    runs[4].may = runs[5].may = False
    assert first(turns) == (None, [runs[4], runs[5]])
    assert first(turns) == (None, [])
    assert (list(turns), turns.lowest) == ([], NOBODY)


def test_one_that_rose_and_may_not_be_served_is_dropped_where_it_stands() -> None:
    run = FakeRun("run")
    turns = waiting(run)
    run.level, run.may = 3, False
    assert first(turns) == (None, [run])
    assert list(turns) == []


def test_who_is_dropped_may_come_again_or_wait_elsewhere() -> None:
    one, two = FakeRun("one", 1), FakeRun("two", 1)
    turns, elsewhere = waiting(one, two), waiting()
    assert turns.first(lambda run: run is two, elsewhere.add) is two
    assert (list(turns), list(elsewhere), elsewhere.lowest) == ([two], [one], 1)
    turns.add(one)
    assert list(turns) == [two, one]


@pytest.mark.parametrize("levels", [[0], [3, 0, 3, 1]])
def test_all_who_waited_are_given_out_and_nobody_waits_any_more(levels: list[int]) -> None:
    runs = [FakeRun(number, level) for number, level in enumerate(levels)]
    turns = waiting(*runs)
    assert turns.clear() == sorted(runs, key=lambda run: run.level)
    assert (list(turns), turns.lowest, first(turns)) == ([], NOBODY, (None, []))
    turns.add(runs[0])
    assert first(turns) == (runs[0], [])
    assert turns.lowest == levels[0]


def test_one_that_waits_no_longer_leaves_the_others_as_they_are() -> None:
    one, two, above = FakeRun("one"), FakeRun("two"), FakeRun("above", 5)
    turns = waiting(one, two, above)
    one.level = 3  # it stands where it stood
    turns.remove(one)
    assert (list(turns), len(turns), turns.lowest) == ([two, above], 2, 0)
    turns.remove(two)
    assert (list(turns), len(turns), turns.lowest) == ([above], 1, 5)
    turns.remove(above)
    assert (list(turns), len(turns), turns.lowest) == ([], 0, NOBODY)


class Plain:
    """The same with one list that is searched: (level, number of arrival, run) of each who waits."""

    def __init__(self) -> None:
        self.arrivals = count()
        self.entries: list[tuple[int, int, FakeRun]] = []

    def add(self, run: FakeRun) -> None:
        self.entries.append((run.level, next(self.arrivals), run))
        self.entries.sort(key=lambda entry: entry[:2])

    def first(self) -> tuple[FakeRun | None, list[FakeRun]]:
        dropped: list[FakeRun] = []
        while self.entries:
            level, _, run = self.entries[0]
            if run.may and run.level == level:
                return run, dropped
            del self.entries[0]
            if run.may:
                self.add(run)
            else:
                dropped.append(run)
        return None, dropped

    def remove(self, run: FakeRun) -> None:
        self.entries = [entry for entry in self.entries if entry[2] is not run]

    def clear(self) -> list[FakeRun]:
        waited = [run for *_, run in self.entries]
        self.entries.clear()
        return waited

    @property
    def lowest(self) -> int:
        return self.entries[0][0] if self.entries else NOBODY


EVENTS = ["add", "add", "again", "first", "first", "rise", "may", "remove", "clear"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 5), st.integers(0, 100)), max_size=80))
def test_any_order_of_events_is_as_in_a_plain_list(events: list[tuple[str, int, int]]) -> None:
    turns, plain = waiting(), Plain()
    runs: list[FakeRun] = []
    for event, amount, which in events:
        run = runs[which % len(runs)] if runs else None
        if event == "add":
            runs.append(FakeRun(len(runs), amount))
            turns.add(runs[-1])
            plain.add(runs[-1])
        elif event == "again" and run is not None and run not in list(turns):
            turns.add(run)
            plain.add(run)
        elif event == "first":
            assert first(turns) == plain.first()
        elif event == "rise" and run is not None:
            run.level += amount
        elif event == "may" and run is not None:
            run.may = not run.may
        elif event == "remove" and run is not None and run in list(turns):
            turns.remove(run)
            plain.remove(run)
        elif event == "clear" and not amount:
            assert turns.clear() == plain.clear()
        assert list(turns) == [run for *_, run in plain.entries]
        assert len(turns) == len(plain.entries)
        assert turns.lowest == plain.lowest, "the lowest level at which anybody waits"
