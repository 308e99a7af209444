"""The core: every small graph and every order of events; random ones; illegal moves; sweeping."""

from __future__ import annotations

import random
import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.engine.scheduler import BATCH_SECONDS, BATCH_STEPS, EXCHANGED, FINE, FINE_STEPS, Scheduler
from dataflow.engine.steps import Phase, State
from dataflow.errors import InternalError
from tests.engine.steps import LIGHT, MOST, SECONDS, Driver, FakeSteps, all_graphs


def explore(steps: FakeSteps, lanes: int) -> int:
    """Every order of events from the start to every end; equal situations are explored once."""
    first = Driver(steps, share=lanes)
    first.start()
    seen = set()
    waiting = [first]
    ends = 0
    while waiting:
        driver = waiting.pop()
        moves = [m for m in driver.moves(lanes) if m != ("cancel", 0) or driver.core.done < driver.core.size]
        if not [m for m in moves if m[0] != "cancel"]:
            driver.check_end()
            ends += 1
        for what, which in moves:
            later = driver.copy()
            later.move(what, which)
            situation = repr(
                (later.lanes, later.sweeps, later.loop, later.stopped, sorted(later.ended), later.finished)
            )
            situation += repr(
                (
                    sorted(later.released),
                    later.core,
                    later.core._plain,
                    [later.core.state(s) for s in range(later.core.size)],
                )
            )
            if situation not in seen:
                seen.add(situation)
                waiting.append(later)
    return ends


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_every_graph_of_up_to_three_steps_in_every_order(size: int) -> None:
    ends = 0
    for edges in all_graphs(size):
        for kinds in product("lmha", repeat=size):
            ends += explore(FakeSteps("".join(kinds), edges, frozenset([size - 1] if size else [])), lanes=2)
    assert ends


@pytest.mark.parametrize("kinds", ["llll", "mmmm", "hhhh", "lhlh", "ahma", "mlmm"])
def test_every_graph_of_four_steps_in_every_order(kinds: str) -> None:
    for edges in all_graphs(4):
        assert explore(FakeSteps(kinds, edges, frozenset([3])), lanes=2)


def test_six_short_steps_in_every_order() -> None:
    assert explore(FakeSteps("mmmmmm", ((0, 5),), frozenset([5])), lanes=2)


@st.composite
def graphs(draw: st.DrawFn) -> FakeSteps:
    size = draw(st.integers(1, 24))
    kinds = draw(st.sampled_from(["l", "lh", "lmha", "m", "c", "h", "llllllh", "mmmmml"]))
    edges = []
    for step in range(1, size):
        dependencies = draw(st.sets(st.integers(max(0, step - 6), step - 1), max_size=3))
        edges += [(dependency, step) for dependency in dependencies]
    outputs = draw(st.frozensets(st.integers(0, size - 1), max_size=3))
    drawn = "".join(draw(st.sampled_from(kinds)) for _ in range(size))
    return FakeSteps(drawn, tuple(sorted(edges)), outputs)


@settings(max_examples=400, deadline=None)
@given(graphs(), st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([(), ("fail", "throw"), ("cancel",)]))
def test_random_graphs_driven_at_random(steps: FakeSteps, seed: int, lanes: int, ends: tuple[str, ...]) -> None:
    """The reference is the driver's own story: what started, in what order, what was done and released by then."""
    rng = random.Random(seed)
    driver = Driver(steps, share=lanes)
    driver.start()
    while moves := [m for m in driver.moves(lanes) if m[0] not in ("fail", "throw", "cancel")]:
        if ends and rng.random() < 0.05:
            moves = [m for m in driver.moves(lanes) if m[0] in ends] or moves
        driver.move(*rng.choice(moves))
    driver.check_end()


ILLEGAL = [
    ("complete", [0, 0]),
    ("complete", [7]),
    ("complete", [3]),
    ("give_back", [3]),
    ("give_back", [0, 0]),
    ("fail", 3),
]


@pytest.mark.parametrize("kinds", ["hhhh", "llll"])
@pytest.mark.parametrize(("event", "argument"), ILLEGAL)
def test_an_illegal_move_is_refused_and_changes_nothing(kinds: str, event: str, argument: object) -> None:
    core = Scheduler(FakeSteps(kinds, ((0, 1), (1, 2), (2, 3))), LIGHT)
    core.start()
    if kinds == "hhhh":
        assert core.claim() == [0]
    before = (repr(core), [core.state(step) for step in range(4)])
    with pytest.raises(InternalError, match=rf"scheduler: {event}\(.*not allowed.*report it with these last events"):
        getattr(core, event)(argument)
    assert before == (repr(core), [core.state(step) for step in range(4)])
    core.check()


def test_a_core_starts_once() -> None:
    core = Scheduler(FakeSteps("h", ()), LIGHT)
    core.start()
    with pytest.raises(InternalError, match="begun already"):
        core.start()


def test_the_smaller_number_goes_first() -> None:
    core = Scheduler(FakeSteps("hhhh", ()), LIGHT)
    core.start()
    assert [core.claim() for _ in range(5)] == [[0], [1], [2], [3], []]


def test_a_lane_that_may_not_take_light_ones_leaves_them() -> None:
    core = Scheduler(FakeSteps("lhlh", ()), LIGHT)
    core.start()
    assert core.heavy == core.light == 2
    assert core.claim(light=False) == [1]
    assert core.claim() == [0, 2]
    assert core.claim(light=False) == [3]
    assert core.claim() == []


def test_unknown_cost_is_heavy() -> None:
    steps = FakeSteps("h", ())
    assert steps.costs.seconds == [float("inf")]
    core = Scheduler(steps, LIGHT)
    core.start()
    assert (core.heavy, core.light) == (1, 0)


def test_a_batch_of_light_steps_is_bounded() -> None:
    steps = FakeSteps("l" * 100 + "a", ())  # the async step keeps it from sweeping
    steps.costs.seconds = [1e-9] * 101
    core = Scheduler(steps, LIGHT)
    assert core.start() == [100]
    assert core.claim() == list(range(BATCH_STEPS))


def test_what_heavy_steps_take_in_all_is_guessed_by_the_first() -> None:
    core = Scheduler(FakeSteps("s" * 16, ()), LIGHT)
    core.start()
    assert core.heavy_seconds() == pytest.approx(16 * 10e-6)
    assert core.heavy_seconds(2) == pytest.approx(14 * 10e-6)
    assert [core.claim(lanes=2), core.claim(lanes=2)] == [[0], [1]]
    assert core.heavy_seconds(2) == pytest.approx(12 * 10e-6)
    assert core.claim(lanes=1) == list(range(2, 16))
    assert core.heavy_seconds() == core.heavy_seconds(2) == 0.0
    core.check()


def test_beside_others_heavy_steps_are_taken_one_by_one() -> None:
    assert FINE < SECONDS["c"] < MOST < SECONDS["b"]
    core = Scheduler(FakeSteps("ccccbhca", ((4, 6), (4, 7))), LIGHT)
    assert core.start() == []
    assert core.claim(lanes=2) == [0]
    assert core.claim(lanes=2) == [1]
    assert core.exchange([1], MOST, 2) == ((2,), [1], ())
    core.check()
    assert core.state(1) is State.DONE
    assert core.exchange([0], MOST, 2) == ((3,), [0], ())
    assert core.exchange([2], MOST, 2) == ((), [2], ())  # 4 takes too long
    assert core.in_flight == {3}
    assert core.claim(lanes=2) == [4]
    assert core.exchange([3], MOST, 2) == ((), [3], ())  # of 5 nobody knows
    core.check()
    assert core.exchange([4], MOST, 2) == ((), (), [7])
    assert core.in_flight == {7}
    core.check()
    assert core.log()[-2:] == [("due", [7]), ("exchange", ([4], ()))]


def test_short_steps_are_exchanged_a_few_at_once() -> None:
    assert SECONDS["m"] < FINE
    assert EXCHANGED == 8
    core = Scheduler(FakeSteps("m" * 22, ()), LIGHT)
    core.start()
    assert [core.claim(lanes=2), core.claim(lanes=2)] == [[0], [1]]
    assert core.exchange([0], MOST, 2) == ([2, 3, 4, 5, 6, 7, 8, 9], [0], ())  # no more than that
    core.check()
    assert core.exchange([1], MOST, 2) == ([10, 11, 12, 13, 14, 15], [1], ())  # one, and of the rest one lane's share
    core.check()
    first, second = list(range(2, 10)), list(range(10, 16))
    assert core.exchange(first, MOST, 2) == ([16, 17, 18], first, ())
    assert core.exchange(second, MOST, 2) == ((19,), second, ())
    core.check()
    assert core.in_flight == {16, 17, 18, 19}
    core = Scheduler(FakeSteps("mmmcmmm", ()), LIGHT)
    core.start()
    assert [core.claim(lanes=2), core.claim(lanes=2)] == [[0], [1]]
    assert core.exchange([0], MOST, 2) == ([2], [0], ())  # a longer one goes alone
    core.give_back([2])
    assert core.exchange([1], MOST, 2) == ([2], [1], ())
    core.check()


def test_a_lonely_lane_goes_on_as_long_as_there_is_nothing_for_another() -> None:
    core = Scheduler(FakeSteps("cccccl", ((0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5))), LIGHT)
    core.start()
    assert core.claim(lanes=2) == [0, 1]  # the second one ahead
    assert core.exchange([0, 1], MOST, 2, lonely=True) == ((), [0], ())
    assert core.heavy == 2
    assert [core.claim(lanes=2), core.claim(lanes=2)] == [[2], [3]]
    assert core.exchange([2], MOST, 2, lonely=True) == ((), (), ())
    assert core.exchange([3], MOST, 2, lonely=True) == ((4,), [1], ())
    core.check()
    assert core.exchange([4], MOST, 2, lonely=True) == ((), [2, 3], ())
    assert core.light == 1  # which another lane may have to start
    core.check()


def test_an_exchange_that_needs_a_closer_look_only_reports() -> None:
    core = Scheduler(FakeSteps("mmm", ()), LIGHT)
    core.start()
    assert [core.claim(lanes=2), core.claim(lanes=2)] == [[0], [1]]
    core.cancel()
    assert core.exchange([0], MOST, 2) == ((), (), ())
    assert core.state(0) is State.DONE
    core.check()
    core = Scheduler(FakeSteps("msss", ((1, 2), (2, 3))), LIGHT)
    core.start()
    assert core.claim(lanes=2) == [0]
    assert core.claim() == [1, 2, 3]  # the last two ahead
    assert core.exchange([0], MOST, 2) == ((), [0], ())
    core.complete([1, 2, 3])
    core.check()
    assert core.done == core.size
    with pytest.raises(InternalError, match=r"complete\(\[0\]\) is not allowed"):
        core.exchange([0], MOST, 2)
    core = Scheduler(FakeSteps("cccc", ((0, 3),)), LIGHT)
    core.start()
    assert [core.claim(lanes=2), core.claim(lanes=2)] == [[0], [1]]
    before = (repr(core), [core.state(step) for step in range(4)])
    for wrong in [2], [3], [7], [0, 2], [0, 0]:
        with pytest.raises(InternalError, match=rf"exchange\({re.escape(str(wrong))}\) is not allowed"):
            core.exchange(wrong, MOST, 2)
        assert before == (repr(core), [core.state(step) for step in range(4)])
        core.check()


def test_a_light_step_after_a_single_one_is_its_lanes() -> None:
    core = Scheduler(FakeSteps("mmllm", ((0, 2), (0, 3))), LIGHT)
    core.start()
    assert [core.claim(lanes=2), core.claim(lanes=2)] == [[0], [1]]
    assert core.exchange([0], MOST, 2) == ((2,), (), ())
    core.check()
    assert (core.light, core.heavy) == (1, 1)
    assert core.exchange([2], MOST, 2) == ((), [2], ())  # 3 is for the lane that takes light ones
    core.check()


def test_a_batch_of_heavy_steps_is_bounded() -> None:
    assert SECONDS["s"] < SECONDS["m"] < FINE < SECONDS["b"] < BATCH_SECONDS
    for kind, length in ("b", 3), ("m", 33), ("s", FINE_STEPS):  # 200 µs, 1 ms, or so many
        core = Scheduler(FakeSteps(kind * 100, ()), LIGHT)
        core.start()
        assert core.claim() == list(range(length))
        core.check()


def test_a_batch_of_short_steps_ends_before_a_longer_one() -> None:
    core = Scheduler(FakeSteps("ssbs", ()), LIGHT)
    core.start()
    assert core.claim() == [0, 1]
    assert core.claim() == [2, 3]
    core = Scheduler(FakeSteps("ssbs", ((0, 1), (1, 2), (2, 3))), LIGHT)
    core.start()
    assert core.claim() == [0, 1]


def test_what_is_claimed_ahead_is_bounded_as_well() -> None:
    for kind, length in ("b", 3), ("m", 33), ("s", FINE_STEPS):
        core = Scheduler(FakeSteps(kind * 100, tuple((step, step + 1) for step in range(99))), LIGHT)
        core.start()
        assert core.claim() == list(range(length))
        core.check()


def test_a_chain_is_claimed_ahead_up_to_where_it_forks() -> None:
    #   0 ─▶ 1 ─▶ 2 ─┬▶ 3 ─▶ 4
    #                └▶ 5
    core = Scheduler(FakeSteps("mmmmmm", ((0, 1), (1, 2), (2, 3), (2, 5), (3, 4))), LIGHT)
    core.start()
    assert core.claim() == [0, 1, 2]
    core.give_back([2])
    core.check()
    assert core.state(2) is State.WAITING
    assert core.claim() == []
    core.complete([0])
    core.check()
    assert core.complete([1])[0] == [0]
    assert core.claim() == [2]
    core.complete([2])
    assert core.claim(lanes=2) == [3]  # and 5 is for another lane
    core.check()


def test_a_batch_goes_on_with_what_waits_for_nothing_but_its_steps() -> None:
    #   0  1  2  3     a stencil: each waits for the one above, and those beside that
    #   4  5  6  7
    above = [(up, 4 + down) for down in range(4) for up in range(4) if abs(up - down) <= 1]
    core = Scheduler(FakeSteps("ssssssss", tuple(above)), LIGHT)
    core.start()
    assert core.claim() == [0, 1, 2, 3, 4, 5, 6, 7]
    core.check()
    core = Scheduler(FakeSteps("ssssssss", tuple(above)), LIGHT)
    core.start()
    assert core.claim(lanes=2) == [0]  # beside others one by one: for 4 and 5 another lane may wait
    assert core.claim() == [1, 2, 3, 6, 7]  # 4 and 5 wait for 0 as well
    core.check()
    core.complete([0])
    core.check()
    assert core.claim() == []
    core.complete([1, 2, 3, 6, 7])
    core.check()
    assert core.claim() == [4, 5]
    #   0 ─▶ 2 ─┬▶ 4      nobody waits for a part of this: 2 and 3 are known, and 4 is a step of both
    #   1 ─▶ 3 ─┘
    core = Scheduler(FakeSteps("sssss", ((0, 2), (1, 3), (2, 4), (3, 4))), LIGHT)
    core.start()
    assert core.claim() == [0, 1, 2, 3, 4]
    #   0 ─▶ 1 ─▶ 2      alone, a lane does not wait for a step of its own that is two levels up
    #   └─────────┘
    core = Scheduler(FakeSteps("sss", ((0, 1), (1, 2), (0, 2))), LIGHT)
    core.start()
    assert core.claim(lanes=2) == [0, 1, 2]


def test_what_a_batch_went_on_with_waits_again_when_it_is_given_back() -> None:
    #   0 ─▶ 2 ─▶ 4
    #   1 ─▶ 3 ─▶ 5
    core = Scheduler(FakeSteps("mmmmmm", ((0, 2), (1, 3), (2, 4), (3, 5))), LIGHT)
    core.start()
    assert core.claim() == [0, 1, 2, 3, 4, 5]
    core.give_back([3, 4, 5])
    core.check()
    assert core.claim() == []
    core.complete([0, 1])
    core.check()
    assert core.claim() == [3, 5]  # 2 is running yet
    core.complete([2])
    core.check()
    assert core.claim() == [4]


def test_no_batch_goes_on_with_what_is_of_another_kind_or_waits_for_more() -> None:
    for kinds, edges in [("mh", ((0, 1),)), ("ma", ((0, 1),)), ("lmh", ((0, 1), (1, 2))), ("mmm", ((0, 2), (1, 2)))]:
        core = Scheduler(FakeSteps(kinds, edges), LIGHT)
        core.start()
        assert core.claim(lanes=2) == [0]


def test_a_light_step_after_a_heavy_one_is_not_worth_another_lane() -> None:
    core = Scheduler(FakeSteps("mlh", ((0, 1), (1, 2))), LIGHT)
    core.start()
    assert core.claim(light=False, lanes=2) == [0, 1]


class Flickering(list[float]):
    """Costs that another lane changes at every moment: light and heavy by turns."""

    looks = 0

    def __getitem__(self, step: Any) -> Any:
        self.looks += 1
        return (LIGHT / 2, 2 * LIGHT)[self.looks % 2]


@pytest.mark.parametrize("size", [10, 501])
def test_costs_that_change_meanwhile_lose_no_step_and_double_none(size: int) -> None:
    steps = FakeSteps("m" * size, ())
    core = Scheduler(steps, LIGHT)
    core.seconds = Flickering(steps.costs.seconds)
    core.start()
    assert sorted(core._light + core._heavy) == list(range(size))
    core.reconsider(LIGHT)
    assert sorted(core._light + core._heavy) == list(range(size))
    assert core._light
    assert core._heavy


def test_a_new_look_at_the_costs_moves_what_is_ready() -> None:
    steps = FakeSteps("mmmm", ())
    core = Scheduler(steps, LIGHT)
    core.start()
    steps.costs.seconds[1] = steps.costs.seconds[2] = 1e-6
    core.reconsider(LIGHT)
    assert (core.heavy, core.light) == (2, 2)
    core.check()
    core.reconsider(2 * max(steps.costs.seconds))
    assert (core.heavy, core.light) == (0, 4)
    core.check()


def test_a_graph_of_light_steps_is_swept_in_order_and_released_by_the_sweeper() -> None:
    core = Scheduler(FakeSteps("lll", ((0, 1), (1, 2)), frozenset([2])), LIGHT)
    core.start()
    assert core.claim() == [0, 1, 2]
    assert core.sweeping
    assert core.claim() == []
    assert core.complete([0, 1, 2]) == ((), ())
    assert core.done == 3


def test_a_sweep_that_is_cut_short_goes_on_in_other_lanes_and_is_taken_up_again() -> None:
    #   0 ─▶ 1 ─▶ 4      2 ─▶ 3
    core = Scheduler(FakeSteps("lllll", ((0, 1), (1, 4), (2, 3))), LIGHT)
    core.start()
    assert core.claim() == [0, 1, 2, 3, 4]
    core.give_back([2, 3, 4])  # 0 is done, the lane is stuck in 1
    core.check()
    assert not core.sweeping
    assert core.complete([0]) == ([], ())  # its lane has released it
    assert core.claim() == [2, 3]  # the chain that hangs on 2
    core.check()
    assert core.complete([2, 3])[0] == [2, 3]
    assert core.complete([1])[0] == []  # what 1 reads last, its lane has released: it ran in order
    assert core.claim() == [4]
    assert core.sweeping  # exactly the steps below 4 are done
    assert core.complete([4]) == ((), ())
    core.check()


def test_cutting_sweeps_short_books_each_step_once() -> None:
    size = 200
    steps = FakeSteps("l" * size, tuple((i, i + 1) for i in range(size - 1)))
    booked: list[int] = []

    class Counting(Scheduler):
        __slots__ = ()

        def _book(self, done: object) -> object:  # type: ignore[override]
            booked.extend(done)  # type: ignore[arg-type, call-overload]
            return super()._book(done)  # type: ignore[arg-type]

    core = Counting(steps, LIGHT)
    core.start()
    while not core.over:
        claimed = core.claim()
        if len(claimed) > 2:
            core.give_back(claimed[2:])
        core.complete(claimed[:2])
    assert len(booked) == len(set(booked)) <= size


@pytest.mark.parametrize("kinds", ["hh", "ll"])
def test_after_a_stop_running_steps_only_report_in(kinds: str) -> None:
    core = Scheduler(FakeSteps(kinds, ()), LIGHT)
    core.start()
    claimed = core.claim()
    assert core.cancel()
    assert not core.cancel()
    assert core.phase is Phase.CANCELLED
    assert core.in_flight == set(claimed)
    assert core.complete([0]) == ((), ())
    assert core.claim() == []
    assert core.state(0) is State.DONE
    core.check()


def test_the_log_replays_the_run() -> None:
    core = Scheduler(FakeSteps("hh", ((0, 1),)), LIGHT)
    core.start()
    core.complete(core.claim())
    core.fail(core.claim()[0])
    assert [(name, list(which)) for name, which in core.log()] == [
        ("start", []),
        ("claim", [0]),
        ("complete", [0]),
        ("claim", [1]),
        ("fail", [1]),
    ]
