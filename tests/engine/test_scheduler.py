"""The core: every small graph and every order of events; random ones; illegal events; going in order."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.engine.scheduler import END, LOG_EVENTS, Batch, Scheduler
from dataflow.engine.steps import Phase, State
from dataflow.errors import InternalError
from tests.engine.steps import Driver, FakeSteps, advance, all_graphs

STOPS = frozenset(["cancel", "fail", "fail_in_batch", "expire"])


ASIDE = frozenset(["give_back", "step_by_step", "overrun", "rest"])


def explore(steps: FakeSteps, without: frozenset[str] = frozenset(), batches: tuple[int, ...] | None = None) -> int:
    """Every order of events from the start to every end; equal situations are explored once.

    But those `without`, and only with `batches` of so many steps, if given.
    """
    first = Driver(steps, workers=2)
    first.start()
    seen = set()
    waiting = [first]
    ends = 0
    while waiting:
        driver = waiting.pop()
        if not driver.progress():
            driver.check_end()
            ends += 1
        for what, which in driver.moves():
            if what in without or (what == "claim" and batches is not None and which not in batches):
                continue
            later = driver.copy()
            later.move(what, which)
            situation = later.situation()
            if situation not in seen:
                seen.add(situation)
                waiting.append(later)
    return ends


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_every_graph_of_up_to_three_steps_in_every_order(size: int) -> None:
    for edges in all_graphs(size):
        for kinds in product("ka" if size == 3 else "kabml", repeat=size):
            assert explore(FakeSteps("".join(kinds), edges, frozenset([size - 1] if size else [])))


@pytest.mark.parametrize("kinds", ["llk", "klm", "mkl", "lbk", "mml"])
def test_every_graph_of_three_steps_with_limits_and_retries_in_every_order(kinds: str) -> None:
    for edges in all_graphs(3):
        assert explore(FakeSteps(kinds, edges, frozenset([2])), frozenset(["advance"]))


@pytest.mark.parametrize("kinds", ["kkkk", "akkk", "kaka"])
def test_every_graph_of_four_steps_in_every_order(kinds: str) -> None:
    """But stops, what is given back, and other batches than of two steps and of four: see the smaller graphs."""
    for edges in all_graphs(4):
        assert explore(FakeSteps(kinds, edges, frozenset([3])), STOPS | {"advance", "give_back"}, batches=(2, 4))


@pytest.mark.parametrize("outputs", [frozenset[int](), frozenset([0]), frozenset([0, 1, 2])])
def test_whatever_is_an_output(outputs: frozenset[int]) -> None:
    for edges in all_graphs(3):
        assert explore(FakeSteps("kkk", edges, outputs), STOPS)


@st.composite
def graphs(draw: st.DrawFn) -> FakeSteps:
    """Graphs that a worker alone can go through in order, at once or later, and such with steps on the loop."""
    size = draw(st.integers(1, 24))
    kinds = draw(st.sampled_from(["k", "ka", "kkkkkka", "klm", "kkablm", "l"]))
    edges = []
    for step in range(1, size):
        dependencies = draw(st.sets(st.integers(max(0, step - 6), step - 1), max_size=3))
        edges += [(dependency, step) for dependency in dependencies]
    outputs = draw(st.frozensets(st.integers(0, size - 1), max_size=3))
    drawn = "".join(draw(st.sampled_from(kinds)) for _ in range(size))
    return FakeSteps(drawn, tuple(sorted(edges)), outputs)


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(0, 2**32), st.integers(1, 4), st.booleans())
def test_random_graphs_driven_at_random(steps: FakeSteps, seed: int, workers: int, stops: bool) -> None:
    """The reference is the driver's own story: what started, in what order, what was done and released by then."""
    rng = random.Random(seed)
    driver = Driver(steps, workers)
    driver.start()
    while moves := driver.progress():
        if rng.random() < 0.2:
            moves = [move for move in driver.moves() if move[0] in ASIDE] or moves
        elif stops and rng.random() < 0.05:
            moves = [move for move in driver.moves() if move[0] in STOPS] or moves
        driver.move(*rng.choice(moves))
    driver.check_end()
    assert driver.stopped <= stops


# What is not allowed.


def untouched(core: Scheduler) -> object:
    """All that a refused event must leave as it is."""
    states = [core.state(step) for step in range(core.size)]
    books = core._counts.copy(), core._readers.copy(), core._booked, core._cursor, core._apart_left
    todo = None if core.batch is None else list(core.batch.todo)
    apart = core.asking.copy(), core.resting.copy(), core.overrunning.copy()
    return repr(core), states, books, todo, core.ready.copy(), core.running.copy(), core.due.copy(), core.log(), apart


def begun(kinds: str = "kkkkk", edges: tuple[tuple[int, int], ...] = ((0, 1), (1, 2), (2, 3))) -> Scheduler:
    core = Scheduler(FakeSteps(kinds, edges))
    core.start()
    return core


@pytest.mark.parametrize("step", [0, 2, 3, 7, END])
@pytest.mark.parametrize("event", ["complete", "fail", "give_back"])
def test_only_what_runs_is_reported_or_given_back(event: str, step: int) -> None:
    """One step is done, one runs, one is ready, two wait."""
    core = begun()
    assert core.take() == 0
    assert advance(core, 0) == 1
    before = untouched(core)
    with pytest.raises(InternalError, match=rf"scheduler: {event}\(\[{step}\]\) is not allowed: it must be running"):
        getattr(core, event)(step)
    assert untouched(core) == before
    core.check()


@pytest.mark.parametrize("event", ["complete", "fail", "give_back"])
def test_no_step_of_a_batch_is_reported_by_itself(event: str) -> None:
    core = begun()
    core.claim(3).todo.popleft()
    before = untouched(core)
    for step in range(5):
        with pytest.raises(InternalError, match="it must be running"):
            getattr(core, event)(step)
    assert untouched(core) == before
    core.check()


def _running() -> Scheduler:
    core = begun()
    core.take()
    return core


def _claimed() -> Scheduler:
    core = begun()
    core.claim(2)
    return core


def _out_of_order() -> Scheduler:
    core = begun("kkk", ())
    core.take()
    core.take()
    core.give_back(0)
    core.complete(1)
    return core


def _cancelled() -> Scheduler:
    core = begun()
    core.cancel()
    return core


def _over() -> Scheduler:
    core = begun("kk", ())
    assert core.complete_batch(core.claim(2))
    return core


NOT_TO_BE_CLAIMED: dict[str, Callable[[], Scheduler]] = {
    "before the start": lambda: Scheduler(FakeSteps("kk", ())),
    "while a step runs": _running,
    "while another has a batch": _claimed,
    "while more is done than the steps below": _out_of_order,
    "with a step on the loop to come": lambda: begun("kkka", ((2, 3),)),
    "with a step on the loop": lambda: begun("akk", ()),
    "with a managed kernel to come": lambda: begun("kkkm", ((2, 3),)),
    "with a step that asks": lambda: begun("lkk", ()),
    "after a stop": _cancelled,
    "after the end": _over,
}


@pytest.mark.parametrize("make", NOT_TO_BE_CLAIMED.values(), ids=NOT_TO_BE_CLAIMED)
def test_a_batch_is_claimed_only_by_one_who_is_alone(make: Callable[[], Scheduler]) -> None:
    core = make()
    before = untouched(core)
    assert not core.may_go_in_order()
    with pytest.raises(InternalError, match=r"scheduler: claim\(\[\]\) is not allowed: something runs, or is done out"):
        core.claim(2)
    assert untouched(core) == before


def test_a_core_starts_once() -> None:
    core = begun("k", ())
    with pytest.raises(InternalError, match=r"scheduler: start\(\[\]\) is not allowed: the run has begun already"):
        core.start()
    core.check()


def test_what_is_not_allowed_is_refused_with_the_whole_story() -> None:
    core = begun()
    core.take()
    core.give_back(0)
    core.complete_batch(core.claim(1))
    core.claim(2).todo.popleft()
    core.step_by_step()
    core.complete(1)
    core.take()
    core.fail(2)
    with pytest.raises(InternalError) as caught:
        core.complete(2)
    states, story = str(caught.value).split(" This is a bug in dataflow: please report it with these last events:\n")
    assert states == (
        "scheduler: complete([2]) is not allowed: it must be running (states: 2 FAILED; "
        "<Scheduler FAILED done=2/5 running=0 ready=0>)."
    )
    assert story.splitlines() == [
        "  start",
        "  ('give_back', 0)",
        "  ('claim', 0, 1)",
        "  ('batch', 0, 0)",
        "  ('claim', 1, 3)",
        "  ('revoke', 1, 1)",
        "  complete 1",
        "  ('fail', 2)",
    ]


def test_a_step_that_is_none_has_no_state() -> None:
    with pytest.raises(InternalError, match=re.escape("complete([99]) is not allowed: it must be running (states: no")):
        begun().complete(99)


@pytest.mark.parametrize(
    ("number", "spoil"),
    [
        (1, lambda core: core.ready.append(3)),
        (1, lambda core: core.running.add(3)),
        (2, lambda core: core.ready.append(4)),
        (2, lambda core: core.ready.append(1)),
        (4, lambda core: core._readers.__setitem__(0, 0)),
        (5, lambda core: core.ready.clear()),
        (6, lambda core: setattr(core, "done", 2)),
    ],
)
def test_a_core_that_was_spoiled_is_found_out(number: int, spoil: Callable[[Scheduler], object]) -> None:
    """The check itself: one step is done, one runs, one is ready, two wait."""
    core = begun()
    core.take()
    advance(core, 0)
    core.check()
    spoil(core)
    with pytest.raises(InternalError, match=rf"check\(\[\]\) is not allowed: .*invariant {number}:"):
        core.check()


@pytest.mark.parametrize(
    ("number", "spoil"),
    [
        (7, lambda core: core.running.add(4)),
        (7, lambda core: setattr(core, "_apart_left", 1)),
        (6, lambda core: setattr(core, "_cursor", 1)),
    ],
)
def test_so_is_one_that_goes_in_order(number: int, spoil: Callable[[Scheduler], object]) -> None:
    core = begun()
    core.complete_batch(core.claim(2))
    core.check()
    spoil(core)
    with pytest.raises(InternalError, match=rf"invariant {number}:"):
        core.check()


# Step by step.


def test_the_smaller_number_goes_first() -> None:
    core = begun("kkkk", ())
    assert [core.take() for _ in range(5)] == [0, 1, 2, 3, END]
    core.give_back(2)
    core.give_back(1)
    assert [advance(core, 0), advance(core, 3), core.take()] == [1, 2, END]
    core = begun("kkkk", ((0, 2),))
    assert [core.take(), advance(core, 0), advance(core, 1), advance(core, 2), advance(core, 3)] == [0, 1, 2, 3, END]
    assert core.over


def test_an_empty_graph_is_over_at_once() -> None:
    core = Scheduler(FakeSteps("", ()))
    core.start()
    assert core.over
    assert not core.stopped
    assert (core.take(), core.startable, core.may_go_in_order(), core.cancel()) == (END, 0, False, False)
    core.check()


def test_a_run_that_is_complete_cannot_be_cancelled() -> None:
    core = begun("k", ())
    core.complete(core.take())
    assert not core.cancel()
    assert core.phase is Phase.OPEN
    assert core.log() == ["start", 0]


@pytest.mark.parametrize("kinds", ["", "ka"])
def test_a_run_that_is_cancelled_before_it_begins_starts_nothing(kinds: str) -> None:
    core = Scheduler(FakeSteps(kinds, ()))
    assert core.cancel()
    core.start()
    assert (core.take(), core.due, core.running, core.over) == (END, [], set(), True)
    assert all(core.state(step) is State.CANCELLED for step in range(core.size))
    core.check()


def test_a_step_on_the_loop_is_due_once_and_runs_from_then_on() -> None:
    core = begun("aka", ((0, 2), (1, 2)))
    assert (core.due, core.ready) == ([0], [1])
    core.due.clear()
    core.complete(0)
    assert core.due == []
    core.complete(core.take())
    assert core.due == [2]
    assert core.running == {2}
    core.complete(2)
    assert core.over
    core.check()


def test_a_slot_is_released_after_its_last_reader_whoever_that_is() -> None:
    core = begun("kkkk", ((0, 1), (0, 2), (1, 3)))
    core.complete(core.take())
    assert [core.take(), core.take()] == [1, 2]
    core.complete(2)
    assert core.released == [2]  # which nobody reads
    core.complete(1)
    assert core.released == [2, 0]
    core.complete(core.take())
    assert core.released[:2] == [2, 0]
    assert sorted(core.released[2:]) == [1, 3]


def test_after_a_stop_running_steps_only_report_in() -> None:
    core = begun("kkka", ((0, 2), (1, 2)))
    assert [core.take(), core.take()] == [0, 1]
    assert core.cancel()
    assert not core.cancel()
    assert core.phase is Phase.CANCELLED
    core.give_back(3)
    assert core.state(3) is State.CANCELLED
    assert advance(core, 0) == END
    assert not core.fail(1)
    assert [core.state(step) for step in range(4)] == [State.DONE, State.FAILED, State.CANCELLED, State.CANCELLED]
    assert (core.released, core.done, core.take()) == ([], 1, END)
    assert core.phase is Phase.CANCELLED
    core.check()


def test_the_first_failure_stops_the_run_and_the_next_one_is_told_so() -> None:
    core = begun("kkk", ())
    assert [core.take(), core.take()] == [0, 1]
    assert core.fail(1)
    assert not core.fail(0)
    assert not core.cancel()
    assert core.phase is Phase.FAILED
    assert [core.state(step) for step in range(3)] == [State.FAILED, State.FAILED, State.CANCELLED]
    core.check()


# Limits, retries, timeouts.


def test_a_step_with_a_limit_asks_once_and_is_ready_when_it_is_granted() -> None:
    core = begun("klb", ((0, 1), (0, 2)))
    assert core.due == []
    core.complete(core.take())
    assert (core.due, core.asking, core.take(), core.running) == ([1, 2], {1, 2}, END, set())
    assert repr(core) == "<Scheduler OPEN done=1/3 running=0 ready=0 asking=2>"
    core.due.clear()
    core.grant(1)
    assert (core.due, core.ready) == ([], [1])
    core.grant(2)
    assert (core.due, core.running) == ([2], {2})
    core.check()
    core.complete(core.take())
    core.complete(2)
    assert core.over
    core.check()


def test_a_kernel_with_a_limit_asks_again_for_each_attempt() -> None:
    core = begun("l", ())
    core.grant(0)
    assert core.take() == 0
    core.rest(0)
    assert (core.state(0), core.ready, core.due) == (State.RESTING, [], [0])
    core.due.clear()
    core.retry(0)
    assert (core.state(0), core.due) == (State.ASKING, [0])
    core.grant(0)
    core.complete(core.take())
    assert core.log() == ["start", ("grant", 0), ("rest", 0), ("retry", 0), ("grant", 0), 0]


def test_a_kernel_whose_time_is_up_rests_when_it_has_returned() -> None:
    core = begun("mk", ((0, 1),))
    core.take()
    core.overrun(0)
    assert (core.state(0), core.running, core.over) == (State.OVERRUNNING, set(), False)
    core.check()
    core.rest(0)
    core.retry(0)
    assert core.ready == [0]
    core.check()


def test_the_last_attempt_whose_time_is_up_stops_the_run_while_its_kernel_runs_on() -> None:
    core = begun("mkl", ())
    core.take()
    core.expire(0)
    assert (core.phase, core.state(0), core.take()) == (Phase.FAILED, State.OVERRUNNING, END)
    assert (core.state(1), core.state(2)) == (State.CANCELLED, State.CANCELLED)
    core.check()
    assert not core.fail(0)
    assert core.state(0) is State.FAILED
    core.check()


def _attempted(*events: str, kinds: str = "mmll") -> Scheduler:
    """Step 0 has seen these events; 1 runs, 2 asks, 3 is ready."""
    core = begun(kinds, ())
    core.due.clear()
    core.take()
    core.take()
    core.grant(3)
    for event in events:
        getattr(core, event)(0)
    return core


@pytest.mark.parametrize(
    ("before", "event", "step"),
    [
        *[((), "grant", step) for step in (0, 1, 3, 9)],
        *[((), "retry", step) for step in range(4)],
        *[((), event, step) for event in ("overrun", "expire", "rest") for step in (2, 3, 9)],
        *[(("overrun",), event, 0) for event in ("complete", "overrun", "expire", "retry", "grant", "give_back")],
        *[(("rest",), event, 0) for event in ("complete", "fail", "overrun", "rest", "grant", "give_back")],
        *[(("expire",), event, 0) for event in ("complete", "rest", "overrun", "give_back")],
        *[(("fail",), event, step) for event, step in (("grant", 2), ("rest", 1), ("overrun", 1), ("expire", 1))],
    ],
)
def test_what_is_not_allowed_of_them_changes_nothing(before: tuple[str, ...], event: str, step: int) -> None:
    core = _attempted(*before)
    story = untouched(core)
    with pytest.raises(InternalError, match=r"is not allowed: (it must be|the run must go on)"):
        getattr(core, event)(step)
    assert untouched(core) == story
    core.check()


@pytest.mark.parametrize("event", ["overrun", "expire", "rest"])
@pytest.mark.parametrize("kinds", ["k", "a"])
def test_other_steps_are_tried_once_and_have_all_the_time(event: str, kinds: str) -> None:
    core = begun(kinds, ())
    core.take()
    core.due.clear()
    story = untouched(core)
    with pytest.raises(InternalError, match="the step be a managed kernel"):
        getattr(core, event)(0)
    assert untouched(core) == story


@pytest.mark.parametrize(
    ("number", "spoil"),
    [
        (2, lambda core: core.asking.add(3)),
        (2, lambda core: core.resting.add(1)),
        (8, lambda core: core.asking.add(0)),
        (8, lambda core: core.overrunning.add(4)),
        (5, lambda core: core.asking.clear()),
    ],
)
def test_a_core_with_such_steps_that_was_spoiled_is_found_out(
    number: int, spoil: Callable[[Scheduler], object]
) -> None:
    core = _attempted("overrun", kinds="mmllk")
    core.check()
    spoil(core)
    with pytest.raises(InternalError, match=rf"invariant {number}:"):
        core.check()


# In order.


def test_a_worker_alone_goes_on_in_batches() -> None:
    core = begun("kkkkk", ((0, 4), (1, 4)))
    batch = core.claim(2)
    assert (batch.steps, repr(batch)) == ([0, 1], "<batch 0–1, 2 not started>")
    assert repr(core) == "<Scheduler OPEN done=0/5 running=0 ready=4 in order from 0>"
    assert (core.startable, core.take(), core.may_go_in_order()) == (0, END, False)
    assert core.complete_batch(batch)
    assert not core.complete_batch(batch), "once"
    assert (core.startable, core.take(), core.may_go_in_order()) == (1, END, True)
    assert core.complete_batch(core.claim(100))
    assert core.over
    assert (core.startable, core.may_go_in_order(), core.cancel()) == (0, False, False)
    assert core.released == [], "which is the worker's to do"
    core.check()


def test_a_run_goes_in_order_as_soon_as_it_can() -> None:
    core = begun("akkkk", ((0, 3),))
    assert core.take() == 1
    core.complete(0)
    assert not core.may_go_in_order(), "a step runs"
    assert advance(core, 1) == 2
    core.give_back(2)
    assert core.may_go_in_order()
    assert core.claim(2).steps == [2, 3]
    core.check()


def test_a_batch_of_which_nothing_was_started_is_taken_back_whole() -> None:
    core = begun("kkk", ((0, 1),))
    batch = core.claim(3)
    core.step_by_step()
    assert (list(batch.todo), batch.last, core.done, core.running, sorted(core.ready)) == ([], END, 0, set(), [0, 2])
    assert not core.complete_batch(batch)
    core.check()
    other = core.claim(3)
    assert not core.complete_batch(batch), "that one belongs to another worker"
    assert core.batch is other
    core.check()


def test_the_step_that_a_worker_is_in_stays_its_own() -> None:
    core = begun("kkkkk", ((0, 3), (1, 4), (2, 4)))
    batch = core.claim(5)
    assert [batch.todo.popleft(), batch.todo.popleft()] == [0, 1]
    core.step_by_step()
    assert (batch.last, core.done, core.running, sorted(core.ready)) == (1, 1, {1}, [2, 3])
    assert core.released == [], "what the first one read last, the worker has released"
    core.check()
    assert [core.take(), core.take()] == [2, 3]
    assert not core.complete_batch(batch)
    assert advance(core, 2) == END
    core.complete(batch.last)
    assert core.take() == 4
    core.check()


def test_going_step_by_step_twice_is_as_good_as_once() -> None:
    core = begun("kkk", ())
    core.step_by_step()
    core.claim(2).todo.popleft()
    core.step_by_step()
    before = untouched(core)
    core.step_by_step()
    assert untouched(core) == before


def test_a_stop_takes_a_batch_back() -> None:
    core = begun()
    batch = core.claim(4)
    batch.todo.popleft()
    batch.todo.popleft()
    assert core.cancel()
    assert (list(batch.todo), batch.last, core.running) == ([], 1, {1})
    assert core.state(0) is State.DONE
    assert not core.complete_batch(batch)
    core.complete(batch.last)
    assert (core.done, core.released, core.may_go_in_order()) == (2, [], False)
    core.check()


def test_a_failure_between_two_batches_is_none() -> None:
    """What nobody has begun cannot fail, also when it is its turn."""
    core = begun()
    core.complete_batch(core.claim(2))
    with pytest.raises(InternalError, match=r"fail\(\[2\]\).*states: 2 READY"):
        core.fail(2)
    assert core.cancel()
    assert [core.state(step) for step in range(3)] == [State.DONE, State.DONE, State.CANCELLED]
    core.check()


def test_what_a_worker_takes_meanwhile_is_not_taken_back() -> None:
    """A batch is revoked while its worker goes on without the lock: each step is started, or taken back."""
    size = 300
    for _ in range(100):
        core = begun("k" * size, ())
        batch = core.claim(size)
        started: list[int] = []
        begin = threading.Barrier(2)

        def work(todo: object = batch.todo, started: list[int] = started, begin: threading.Barrier = begin) -> None:
            begin.wait(20)
            try:
                while True:
                    started.append(todo.popleft())  # type: ignore[attr-defined]
            except IndexError:
                pass

        worker = threading.Thread(target=work)
        worker.start()
        begin.wait(20)
        core.step_by_step()
        worker.join(20)
        assert started == list(range(len(started)))
        assert batch.last == (started[-1] if started else END)
        assert core.done == max(0, len(started) - 1)
        assert sorted(core.ready) == list(range(len(started), size))
        core.check()


def test_revoking_again_and_again_books_each_step_once() -> None:
    size = 200
    booked: list[int] = []

    class Counting(Scheduler):
        __slots__ = ()

        def _book(self, first: int, end: int) -> None:
            booked.extend(range(first, end))
            super()._book(first, end)

    core = Counting(FakeSteps("k" * size, tuple((i, i + 1) for i in range(size - 1))))
    core.start()
    while not core.over:
        batch = core.claim(5)
        for _ in range(min(3, len(batch.todo))):
            batch.todo.popleft()
        core.step_by_step()
        core.complete(batch.last)
    assert booked == [step for step in range(size) if step not in core.log()], "but those reported by themselves"
    core.check()


# Large ones.

LARGE = 100_000
SHAPES = {
    "chain": tuple((step, step + 1) for step in range(LARGE - 1)),
    "wide": (),
    "one for all": tuple((0, step) for step in range(1, LARGE)),
    "all for one": tuple((step, LARGE - 1) for step in range(LARGE - 1)),
}


@pytest.fixture(params=SHAPES, scope="module")
def large(request: pytest.FixtureRequest) -> FakeSteps:
    return FakeSteps("k" * LARGE, SHAPES[request.param], frozenset([LARGE - 1]))


def test_many_steps_one_by_one(large: FakeSteps) -> None:
    core = Scheduler(large)
    core.start()
    step, order = core.take(), []
    while step != END:
        order.append(step)
        step = advance(core, step)
    assert order == list(range(LARGE))
    assert core.over
    assert sorted(core.released) == list(range(LARGE - 1))


def test_many_steps_in_order(large: FakeSteps) -> None:
    core = Scheduler(large)
    core.start()
    order: list[int] = []
    while not core.over:
        batch = core.claim(2048)
        order += batch.steps
        assert core.complete_batch(batch)
    assert order == list(range(LARGE))
    core.step_by_step()
    assert all(core.state(step) is State.DONE for step in range(0, LARGE, 1000))
    assert (core.ready, core.running, core.released) == ([], set(), [])


def test_many_steps_now_in_order_and_now_not(large: FakeSteps) -> None:
    """A batch of which the worker has started half, whose last step is then reported by itself, and another one."""
    core = Scheduler(large)
    core.start()
    started: list[int] = []
    while not core.over:
        batch = core.claim(16_384)
        started += [batch.todo.popleft() for _ in range((len(batch.steps) + 1) // 2)]
        core.step_by_step()
        assert batch.last == started[-1]
        step = advance(core, batch.last)
        if step != END:
            started.append(step)
            core.complete(step)
    assert started == list(range(LARGE))


# The log.


def test_the_log_has_the_last_events_and_no_more() -> None:
    size = 3 * LOG_EVENTS
    core = begun("k" * size, ())
    for step in range(size - 1):
        core.complete(core.take())
        assert len(core.log()) == min(LOG_EVENTS, step + 2)
    core.cancel()
    log = core.log()
    assert log[-3:] == [size - 3, size - 2, "cancel"]
    assert len(log) == LOG_EVENTS
    log.clear()
    assert len(core.log()) == LOG_EVENTS, "it is a copy"
    with pytest.raises(InternalError) as caught:
        core.complete(0)
    assert len(str(caught.value).splitlines()) == LOG_EVENTS + 1


def test_the_log_of_a_run_in_order_has_its_batches() -> None:
    core = begun("kkkkk", ())
    core.complete_batch(core.claim(2))
    batch = core.claim(3)
    batch.todo.popleft()
    core.step_by_step()
    core.complete(batch.last)
    assert core.log() == ["start", ("claim", 0, 2), ("batch", 0, 1), ("claim", 2, 5), ("revoke", 2, 1), 2]
    assert not any(isinstance(event, Batch) for event in core.log()), "which would keep them"
