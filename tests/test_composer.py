"""Random programs that speak the public API: `tests.soak.composer`, a little of it; and that its checks can fail."""

from __future__ import annotations

import faulthandler
import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.release import FREE_THREADED
from tests.soak import composer
from tests.soak.composer import Broken, Play, play, warm_up
from tests.soak.programs import Act, Node, Program, compose, simpler, without

BLOCKS = 6
EXAMPLES = 20


@pytest.fixture(autouse=True)
def _warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("dataflow"), "disabled", True)  # pytest would keep late failures
    warm_up()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_programs(loop_name: str, block: int) -> None:
    for seed in range(block * EXAMPLES, (block + 1) * EXAMPLES):
        program = compose(seed)
        try:
            play(program, composer.new_loops()[loop_name])
        except Broken as error:
            error.add_note(str(program))
            raise


def test_a_program_follows_from_its_seed() -> None:
    assert [str(compose(seed)) for seed in range(50)] == [str(compose(seed)) for seed in range(50)]
    assert len({str(compose(seed)) for seed in range(50)}) == 50


@pytest.mark.parametrize("seed", [2, 13, 92, 288])
def test_what_lacks_a_part_is_a_program_too(seed: int) -> None:
    program = compose(seed)
    parts = []
    while found := next(iter(simpler(program)), None):
        parts.append(found[0])
        program = found[1]
        play(program, composer.new_loops()["asyncio"])
    assert without(compose(seed), parts) == program
    assert len(program.acts) == 1
    assert all(len(nodes) == 1 or any(node.does == "meet" for node in nodes) for nodes in program.graphs)


def program_of(*nodes: Node, way: str = "await", **options: Any) -> Program:
    return Program(0, 2, (nodes,), (Act("act0", way, **options),))


PAIR = (Node(0), Node(1, (0,)))


class Faulty(Play):
    """Its kernels do what the program does not say."""

    kept: list[Any] = []  # noqa: RUF012  # emptied by each test
    fault = ""

    def working(self, node: Node, run: int, given: Any) -> Any:
        value = super().working(node, run, given)
        if self.fault == "raises":
            raise ValueError("of nobody")
        if self.fault == "calls twice" and not node.takes:
            with self.entered(node, (node.number,), given, on_loop=False):
                pass
        if self.fault == "hangs":
            self.gate.wait(20)
        if self.fault == "keeps":
            self.kept.append(value)
        if self.fault == "leaves a thread":
            threading.Thread(target=self.gate.wait, name="left").start()
        if self.fault == "gives another run's":
            value = np.array([run + 1, value[1]])
        if self.fault == "gives a wrong sum":
            value = np.array([run, value[1] + 1])
        return value

    gate = threading.Event()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Faulty]]:
    monkeypatch.setattr(composer, "Play", Faulty)
    monkeypatch.setattr(composer, "GRACE", 2.0 if FREE_THREADED else 0.2)
    Faulty.gate.clear()
    yield Faulty
    Faulty.kept.clear()
    Faulty.gate.set()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raises", "ended with ValueError"),
        ("calls twice", "was called 2 times"),
        ("keeps", "'arrays'"),
        ("leaves a thread", "'threads'"),
        ("gives another run's", "of run 2"),
    ],
)
def test_a_fault_is_noticed(faulty: type[Faulty], fault: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(*PAIR)
    play(program, composer.new_loops()["asyncio"])
    monkeypatch.setattr(faulty, "fault", fault)
    with pytest.raises(Broken, match=told):
        play(program, composer.new_loops()["asyncio"])


@pytest.mark.parametrize("way", ["await", "script", "debug", "tasks", "stream"])
def test_a_wrong_value_is_noticed(way: str, faulty: type[Faulty], monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(*PAIR, way=way, copies=2)
    play(program, composer.new_loops()["asyncio"])
    monkeypatch.setattr(faulty, "fault", "gives a wrong sum")
    with pytest.raises(Broken):
        play(program, composer.new_loops()["asyncio"])


def test_what_hangs_is_noticed(faulty: type[Faulty], monkeypatch: pytest.MonkeyPatch) -> None:
    before = composer.in_progress()
    monkeypatch.setattr(composer, "PATIENCE", 0.05)
    monkeypatch.setattr(faulthandler, "dump_traceback", lambda **_: None)
    monkeypatch.setattr(faulty, "fault", "hangs")
    with pytest.raises(composer.Hung):
        play(program_of(Node(0)), composer.new_loops()["asyncio"])
    faulty.gate.set()
    for thread in threading.enumerate():
        if thread.name == "composer":
            thread.join(20)
    assert composer.in_progress() == before
