"""Plans: their order, their books, and how many values they keep alive, against a naive reading of the graph."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.engine.scheduler import END, Scheduler
from dataflow.graph.kinds import KERNEL, ON_LOOP
from dataflow.graph.nodes import Graph, Kind, Node, OpSpec, Ref
from dataflow.graph.plan import Plan, make_plan
from dataflow.graph.readonly import ANY_RESULT, PLAIN_RESULT, handed


def written(name: str, *args: Any, **kwargs: Any) -> str:
    """A call as text; a long one is cut short, but says everything that the text of its arguments says."""
    text = f"{name}({', '.join([*map(str, args), *(f'{k}={v}' for k, v in kwargs.items())])})"
    return text if len(text) < 200 else f"{name}(…{crc32(text.encode()):x})"


class Result:
    """What a fake kernel returns: how it was called."""

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.text = written(name, *args, **kwargs)

    def __repr__(self) -> str:
        return self.text


class Sketch:
    """Records a graph by hand: `kernel`, `task`, `recorded` and `plumbing` add a node and return its Ref."""

    def __init__(self, *inputs: str) -> None:
        self.names = inputs
        self.inputs = [Ref(number) for number in range(len(inputs))]
        self.nodes: list[Node] = []

    def kernel(self, name: str, *args: Any, **kwargs: Any) -> Ref:
        return self.add(Kind.KERNEL, name, *args, **kwargs)

    def task(self, name: str, *args: Any) -> Ref:
        return self.add(Kind.ASYNC, name, *args)

    def recorded(self, name: str, *args: Any) -> Ref:
        return self.add(Kind.RECORDED, name, *args)

    def plumbing(self, name: str, source: Ref) -> Ref:
        return self.add(Kind.PLUMBING, name, source)

    def add(self, kind: Kind, name: str, *args: Any, **kwargs: Any) -> Ref:
        given = [*args, *kwargs.values()]
        reads = tuple(dict.fromkeys(int(ref) for argument in given for ref in refs(argument)))
        nested = any(type(argument) is not Ref and any(True for _ in refs(argument)) for argument in given)

        def call(*args: Any, **kwargs: Any) -> Result:
            return Result(name, *args, **kwargs)

        number = len(self.names) + len(self.nodes)
        self.nodes.append(Node(number, OpSpec(call, name, kind), args, kwargs, reads, nested, None, -1))
        return Ref(number)

    def graph(self, output: Any) -> Graph:
        return Graph("sketch", self.names, tuple(self.nodes), output)

    def plan(self, output: Any) -> Plan:
        return make_plan(self.graph(output))


def refs(argument: Any) -> Iterator[Ref]:
    if type(argument) is Ref:
        yield argument
    elif isinstance(argument, tuple | list | dict):
        for item in argument.values() if isinstance(argument, dict) else argument:
            yield from refs(item)


def names(plan: Plan) -> list[str]:
    return [node.spec.name for node in plan.nodes]


def begin(plan: Plan, inputs: list[Any]) -> list[Any]:
    values = plan.template.copy()
    for slot, value in zip(plan.input_slots, inputs, strict=True):
        if slot >= 0:
            values[slot] = value
    return values


def evaluate(plan: Plan, values: list[Any], step: int) -> None:
    values[step] = plan.calls[step](values)
    for slot, _, call in plan.plumbing.get(step, ()):
        values[slot] = call(values)


def run_in_order(plan: Plan, *inputs: Any) -> tuple[Any, int]:
    """As one worker alone: the steps in order, each releasing what it reads last. Returns (result, peak of results)."""
    values = begin(plan, list(inputs))
    alive: weakref.WeakSet[Result] = weakref.WeakSet()
    peak = 0
    for step in range(len(plan)):
        evaluate(plan, values, step)
        alive.add(values[step])
        peak = max(peak, len(alive))
        for slot in plan.releases[step]:
            values[slot] = None
    return plan.output.build(values), peak


def run_step_by_step(plan: Plan, *inputs: Any) -> tuple[Any, int]:
    """As one worker that takes step after step; released is what the core says."""
    values = begin(plan, list(inputs))
    alive: weakref.WeakSet[Result] = weakref.WeakSet()
    peak = 0
    core = Scheduler(plan)
    core.start()
    while not core.over:
        step = core.due.pop(0) if core.due else core.take()
        assert step != END
        evaluate(plan, values, step)
        alive.add(values[step])
        peak = max(peak, len(alive))
        core.complete(step)
        for slot in core.released:
            values[slot] = None
        core.released.clear()
    return plan.output.build(values), peak


def plain(graph: Graph, *inputs: Any) -> dict[int, str]:
    """The reference: every value of the graph, computed in the order of recording."""

    def shown(argument: Any) -> str:
        if type(argument) is Ref:
            return values[argument]
        if isinstance(argument, list):
            return f"[{', '.join(map(shown, argument))}]"
        return str(argument)

    values = {number: str(value) for number, value in enumerate(inputs)}
    for node in graph.nodes:
        values[node.number] = written(node.spec.name, *map(shown, node.args))
    return values


def show(value: Any) -> Any:
    return [show(item) for item in value] if isinstance(value, list) else str(value)


# ------------------------------------------------------------------------------------------------ random graphs

KINDS = [Kind.KERNEL, Kind.KERNEL, Kind.RECORDED, Kind.ASYNC, Kind.PLUMBING]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph a trace may give: its plumbing is read by something, or returned."""
    sketch = Sketch(*"xyz"[: draw(st.integers(0, 3))])
    for _ in range(draw(st.integers(0, 18))):
        known = len(sketch.names) + len(sketch.nodes)
        kind = draw(st.sampled_from(KINDS)) if known else Kind.KERNEL
        number = f"n{len(sketch.nodes)}"
        some = st.integers(max(0, known - 7), known - 1).map(Ref) if known else st.just(3)
        if kind is Kind.PLUMBING:
            sketch.plumbing(number, draw(some))
        else:
            argument = some | st.sampled_from([1, "a", None]) | st.lists(some, max_size=2)
            sketch.add(kind, number, *draw(st.lists(argument, max_size=5)))
    total = len(sketch.names) + len(sketch.nodes)
    output = [Ref(number) for number in sorted(draw(st.sets(st.integers(0, total - 1), max_size=4)))] if total else []
    read = {number for node in sketch.nodes for number in node.reads}
    output += [Ref(n.number) for n in sketch.nodes if n.spec.kind is Kind.PLUMBING and n.number not in read]
    return sketch.graph(output)


def step_of(graph: Graph, plan: Plan) -> dict[int, int]:
    """For each number that a step brings about, this step: found by walking up from plumbing to its kernel."""
    step = {node.number: position for position, node in enumerate(plan.nodes)}
    by_number = {node.number: node for node in graph.nodes}
    for number in by_number:
        origin = number
        while origin not in step:
            (origin,) = by_number[origin].reads
        step[number] = step[origin]
    return step


@settings(max_examples=250, deadline=None)
@given(graphs())
def test_random_graphs_against_the_plain_calls(graph: Graph) -> None:
    plan = make_plan(graph)
    inputs = [Result(name) for name in graph.inputs]
    values = plain(graph, *inputs)
    wanted = [values[ref] for ref in graph.output]
    assert show(run_in_order(plan, *inputs)[0]) == wanted
    assert show(run_step_by_step(plan, *inputs)[0]) == wanted


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_random_graphs_have_sound_books(graph: Graph) -> None:
    plan = make_plan(graph)
    size, first = len(plan), len(graph.inputs)
    step = step_of(graph, plan)

    # A step is every node but plumbing of a kernel, and the order is topological.
    kinds = {node.number: node.spec.kind for node in graph.nodes}
    for node in graph.nodes:
        beside = False
        if node.spec.kind is Kind.PLUMBING and node.reads[0] >= first:
            beside = kinds[plan.nodes[step[node.reads[0]]].number] in (Kind.KERNEL, Kind.RECORDED)
        assert (plan.nodes[step[node.number]] is node) is not beside
    for position, node in enumerate(plan.nodes):
        before = {step[read] for read in node.reads if read >= first}
        assert all(other < position for other in before)
        assert plan.counts[position] == len(before)
        assert all(plan.successors[other].count(position) == (other in before) for other in range(size))
        assert plan.kinds[position] == (ON_LOOP if node.spec.kind is Kind.ASYNC else KERNEL)
    assert plan.sources == [s for s in range(size) if not plan.counts[s]]
    assert plan.has_async is (ON_LOOP in plan.kinds)
    assert len(plan.calls) == len(plan.settled) == len(plan.nodes) == size
    assert len(plan.shared) == len(plan.template)

    # Each slot: who reads it, and who does so last.
    for slot in range(len(plan.template)):
        readers = [s for s in range(size) if slot in plan.reads[s]]
        assert all(plan.reads[s].count(slot) == 1 for s in readers)
        assert plan.readers[slot] == len(readers) + (slot in plan.output_slots)
        last = [s for s in range(size) if slot in plan.releases[s]]
        assert last == ([max(readers)] if readers and slot not in plan.output_slots else [])
    assert all(plan.readers[s] for s in range(size)), "a result that nobody reads reads itself"

    # A result is shared if two see it, be it through its plumbing, or if it is a part of an input. Inputs are.
    assert all(plan.shared[slot] for slot in plan.input_slots if slot >= 0)
    attached = {n.number for n in graph.nodes} - {n.number for n in plan.nodes}
    returned = set(graph.output)
    for position, node in enumerate(plan.nodes):
        mine = {node.number} | {number for number in attached if step[number] == position}
        seen = [(reader.number, number) for reader in plan.nodes for number in mine if number in reader.reads]
        source = node
        while source.spec.kind is Kind.PLUMBING and source.reads[0] >= first:
            source = graph.nodes[source.reads[0] - first]
        of_input = source.spec.kind is Kind.PLUMBING
        shared = of_input or len(seen) + len(mine & returned) > 1
        assert all(plan.shared[step[number]] == shared for number in mine - attached)
        assert all(plan.shared[slot] >= shared for slot, *_ in plan.plumbing.get(position, ()))


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_nothing_but_outputs_and_constants_is_left_at_the_end(graph: Graph) -> None:
    plan = make_plan(graph)
    values = begin(plan, ["X"] * len(graph.inputs))
    for step in range(len(plan)):
        evaluate(plan, values, step)
        for slot in plan.releases[step]:
            assert values[slot] is not None, "a slot is released once"
            values[slot] = None
    left = {slot for slot in range(plan.constants_from) if values[slot] is not None}
    assert left == set(plan.output_slots)


# ------------------------------------------------------------------------------------------------ the order


def test_the_deep_branch_goes_first() -> None:
    #   d ───────────┐
    #                ├─▶ e
    #   a ─▶ b ─▶ c ─┘
    sketch = Sketch("x")
    (x,) = sketch.inputs
    d = sketch.kernel("d", x)
    c = sketch.kernel("c", sketch.kernel("b", sketch.kernel("a", x)))
    assert names(sketch.plan(sketch.kernel("e", d, c))) == ["a", "b", "c", "d", "e"]


def test_what_was_begun_is_finished_before_anything_else_is_opened() -> None:
    # Recorded level by level: all first halves, then all second halves.
    sketch = Sketch("x")
    (x,) = sketch.inputs
    opened = [sketch.kernel(f"open{i}", x) for i in range(4)]
    closed = [sketch.kernel(f"close{i}", source) for i, source in enumerate(opened)]
    join = sketch.kernel("join", *closed)
    found = names(sketch.plan(join))
    assert found == [name for i in range(4) for name in (f"open{i}", f"close{i}")] + ["join"]


def test_of_equals_the_one_recorded_first_goes_first() -> None:
    sketch = Sketch("x")
    (x,) = sketch.inputs
    a, b, c = (sketch.kernel(name, x) for name in "abc")
    assert names(sketch.plan(sketch.kernel("join", c, a, b))) == ["c", "a", "b", "join"]


def test_the_deepest_sink_goes_first_and_unread_ones_are_kept() -> None:
    sketch = Sketch("x")
    (x,) = sketch.inputs
    sketch.kernel("save", x)
    deep = sketch.kernel("late", sketch.kernel("early", x))
    plan = sketch.plan(deep)
    assert names(plan) == ["early", "late", "save"]
    assert plan.reads[2] == (plan.input_slots[0], 2)
    assert plan.releases[2] == (plan.input_slots[0], 2)
    assert plan.readers[2] == 1


# ------------------------------------------------------------------------------------------------ few alive


def both_peaks(plan: Plan, *inputs: Any) -> tuple[int, int]:
    return run_in_order(plan, *inputs)[1], run_step_by_step(plan, *inputs)[1]


def test_a_chain_keeps_two_alive() -> None:
    sketch = Sketch("x")
    value = sketch.inputs[0]
    for i in range(512):
        value = sketch.kernel(f"s{i}", value)
    plan = sketch.plan(value)
    assert names(plan) == [f"s{i}" for i in range(512)]
    assert max(both_peaks(plan, 0)) <= 2


def test_a_stencil_keeps_little_more_than_a_row_alive() -> None:
    width, height = 32, 16
    sketch = Sketch("x")
    row = [sketch.kernel(f"r0c{c}", sketch.inputs[0]) for c in range(width)]
    for r in range(1, height):
        near = [row[max(0, c - 1) : c + 2] for c in range(width)]
        row = [sketch.kernel(f"r{r}c{c}", *near[c]) for c in range(width)]
    assert max(both_peaks(sketch.plan(list(row)), 0)) <= 38
    assert max(both_peaks(sketch.plan(sketch.kernel("sum", *row)), 0)) <= 38


def test_a_tree_recorded_level_by_level_keeps_a_branch_alive() -> None:
    sketch = Sketch("x")
    level = [sketch.kernel(f"leaf{i}", sketch.inputs[0], i) for i in range(1024)]
    while len(level) > 1:
        level = [sketch.kernel("add", *level[i : i + 2]) for i in range(0, len(level), 2)]
    assert max(both_peaks(sketch.plan(level[0]), 0)) <= 12


def test_many_chains_side_by_side_keep_one_of_each_result_alive() -> None:
    sketch = Sketch("x")
    ends = [sketch.inputs[0]] * 40
    for r in range(10):  # recorded across
        ends = [sketch.kernel(f"c{c}r{r}", end) for c, end in enumerate(ends)]
    plan = sketch.plan(sketch.kernel("sum", *ends))
    assert max(both_peaks(plan, 0)) <= 41


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_no_order_keeps_more_alive_than_the_order_of_recording(graph: Graph) -> None:
    if any(node.spec.kind is Kind.PLUMBING for node in graph.nodes):
        return
    plan = make_plan(graph)
    if max(plan.counts, default=0) < 2:
        return  # forests are walked without counting

    def peak(order: list[Node]) -> int:
        """A result that nobody reads stands for an output: it stays."""
        last = {read: position for position, node in enumerate(order) for read in node.reads}
        alive: set[int] = set()
        most = 0
        for position, node in enumerate(order):
            alive.add(node.number)
            most = max(most, len(alive))
            alive -= {read for read in node.reads if last[read] == position}
        return most

    assert peak(plan.nodes) <= peak(list(graph.nodes))


# ------------------------------------------------------------------------------------------------ plumbing


def test_plumbing_of_a_kernel_is_evaluated_beside_it_in_order() -> None:
    for add in (Sketch.kernel, Sketch.recorded):
        sketch = Sketch("x")
        made = add(sketch, "k", sketch.inputs[0])
        rows = sketch.plumbing("item", sketch.plumbing("shape", made))
        user = sketch.kernel("use", rows)
        plan = sketch.plan(user)
        assert names(plan) == ["k", "use"]
        assert [(slot, number) for slot, number, _ in plan.plumbing[0]] == [(2, 2), (3, 3)]
        assert (plan.counts, plan.successors, plan.sources) == ([0, 1], [(1,), ()], [0])
        assert plan.reads[1] == (3,)
        assert not plan.shared[0]
        assert plan.settled[0] == frozenset()  # its result always gets the second look that evaluates plumbing
        assert str(run_in_order(plan, 7)[0]) == "use(item(shape(k(7))))"


def test_plumbing_of_an_input_or_of_an_async_op_is_a_step() -> None:
    sketch = Sketch("x")
    shape = sketch.plumbing("shape", sketch.inputs[0])
    fetched = sketch.task("fetch", shape)
    item = sketch.plumbing("item", sketch.plumbing("body", fetched))
    plan = sketch.plan(item)
    assert names(plan) == ["shape", "fetch", "body", "item"]
    assert plan.plumbing == {}
    assert plan.kinds == bytes([0, 1, 0, 0])
    assert plan.has_async


def test_plumbing_of_plumbing_of_an_async_op_is_a_step_too_but_beside_a_kernel_that_reads_it_it_is_not() -> None:
    sketch = Sketch()
    body = sketch.plumbing("body", sketch.task("fetch"))
    size = sketch.plumbing("size", sketch.kernel("parse", body))
    plan = sketch.plan(size)
    assert names(plan) == ["fetch", "body", "parse"]
    assert list(plan.plumbing) == [2]


def test_a_result_read_only_through_its_plumbing_is_released_when_its_kernel_is_done() -> None:
    sketch = Sketch()
    first = sketch.plumbing("first", sketch.kernel("k"))
    plan = sketch.plan(sketch.kernel("use", first))
    assert plan.releases == [(0,), (2,)]
    assert plan.readers[0] == 1


def test_plumbing_that_only_plumbing_reads_is_released() -> None:
    # A transposed view, of which the body reads one item: the view keeps the whole array.
    sketch = Sketch()
    first = sketch.plumbing("first", sketch.plumbing("T", sketch.kernel("k")))
    plan = sketch.plan(sketch.kernel("use", first))
    ((transposed, *_), (taken, *_)) = plan.plumbing[0]
    assert set(plan.releases[0]) == {0, transposed}
    assert plan.releases[1] == (taken,)
    assert plan.readers[transposed] == 1


def test_a_result_is_shared_if_two_see_it_be_it_through_its_plumbing() -> None:
    def shared(readers: Callable[[Sketch, Ref], Any]) -> int:
        sketch = Sketch()
        return sketch.plan(readers(sketch, sketch.kernel("k"))).shared[0]

    assert not shared(lambda s, k: s.kernel("f", k))
    assert not shared(lambda s, k: s.kernel("f", k, k))  # one reader, twice
    assert not shared(lambda s, k: k)
    assert not shared(lambda s, k: s.kernel("f", s.plumbing("T", k)))
    assert not shared(lambda s, k: s.kernel("f", s.plumbing("flat", s.plumbing("T", k))))
    assert shared(lambda s, k: [s.kernel("f", k), s.kernel("g", k)])
    assert shared(lambda s, k: [s.kernel("f", k), k])  # the caller may write to the result, the reader must not
    assert shared(lambda s, k: [s.kernel("f", s.plumbing("T", k)), k])
    assert shared(lambda s, k: s.kernel("f", k, s.plumbing("T", k)))
    assert shared(lambda s, k: [s.plumbing("T", k), s.plumbing("flat", k)])


def test_results_that_need_no_second_look() -> None:
    sketch = Sketch("x")
    (x,) = sketch.inputs
    once, twice = sketch.kernel("once", x), sketch.kernel("twice", x)
    a, b = sketch.kernel("a", once, twice), sketch.kernel("b", twice)
    sketch.kernel("unread", x)
    plan = sketch.plan([a, b])
    settled = dict(zip(names(plan), plan.settled, strict=True))
    assert settled == {
        "once": ANY_RESULT,
        "twice": PLAIN_RESULT,  # an array must be locked
        "a": PLAIN_RESULT,  # an array must be the caller's to write to
        "b": PLAIN_RESULT,
        "unread": ANY_RESULT,
    }


# ------------------------------------------------------------------------------------------------ slots


def test_slots_are_steps_then_plumbing_then_inputs_then_constants() -> None:
    sketch = Sketch("x", "unread", "y")
    x, _, y = sketch.inputs
    k = sketch.kernel("k", x, 2.5)
    shape = sketch.plumbing("shape", k)
    end = sketch.kernel("end", y, shape, "axis")
    plan = sketch.plan(end)
    assert plan.input_slots == (3, -1, 5)
    assert plan.constants_from == 6
    assert plan.template == [None] * 6 + [2.5, "axis"]
    assert plan.output_slots == {1}
    assert plan.output.refs == (1,)
    assert repr(plan) == "<Plan sketch: 2 steps, 8 slots>"
    assert len(plan) == 2


def test_small_constants_share_a_slot_and_keep_their_type() -> None:
    sketch = Sketch()
    one = sketch.kernel("one", 1, True, 1.0, "1", None)
    two = sketch.kernel("two", 1, True, 1.0, "1", None)
    plan = sketch.plan([one, two])
    constants = plan.template[plan.constants_from :]
    assert [(type(c), c) for c in constants] == [
        (int, 1), (bool, True), (float, 1.0), (str, "1"), (type(None), None), (float, 1.0),
    ]  # fmt: skip
    assert show(run_in_order(plan)[0]) == ["one(1, True, 1.0, 1, None)", "two(1, True, 1.0, 1, None)"]
    assert plan.readers[plan.constants_from :] == [0] * 6
    assert all(slot < plan.constants_from for slots in plan.reads for slot in slots)


def test_constant_arrays_are_handed_out_read_only_and_stay_the_users() -> None:
    weights = np.ones(3)
    sketch = Sketch()
    k = sketch.kernel("k", weights)
    nested = sketch.kernel("nested", [weights, k])
    plan = sketch.plan(nested)
    (kept,) = plan.template[plan.constants_from :]
    assert kept.value is weights
    first, second = handed(kept), handed(kept)
    assert first is not second
    assert np.shares_memory(first, weights)
    assert not first.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        first.setflags(write=True)
    assert weights.flags.writeable


def test_arguments_by_keyword_and_in_containers() -> None:
    sketch = Sketch("x")
    (x,) = sketch.inputs
    keyword = sketch.kernel("keyword", x, 1, sigma=x, mode="same")
    nested = sketch.kernel("nested", [x, [keyword]], {"k": keyword})
    assert str(run_in_order(sketch.plan(nested), 5)[0]) == (
        "nested([5, [keyword(5, 1, sigma=5, mode=same)]], {'k': keyword(5, 1, sigma=5, mode=same)})"
    )


@pytest.mark.parametrize("arguments", range(8))
def test_any_number_of_arguments(arguments: int) -> None:
    sketch = Sketch("x")
    end = sketch.kernel("f", *[sketch.inputs[0], *range(1, 8)][:arguments])
    assert str(run_in_order(sketch.plan(end), 0)[0]) == f"f({', '.join(map(str, range(arguments)))})"


def test_an_input_that_is_an_output_is_pinned_and_known() -> None:
    sketch = Sketch("x", "y", "z")
    x, y, z = sketch.inputs
    k = sketch.kernel("k", x, y)
    plan = sketch.plan({"x": x, "k": (k, x), "z": z})
    assert plan.output_slots == {0, plan.input_slots[0], plan.input_slots[2]}
    assert plan.releases == [(plan.input_slots[1],)]
    assert plan.readers[plan.input_slots[0]] == 2
    assert plan.readers[plan.input_slots[2]] == 1
    built = run_in_order(plan, "X", "Y", "Z")[0]
    assert (built["x"], str(built["k"][0]), built["k"][1], built["z"]) == ("X", "k(X, Y)", "X", "Z")


def test_a_graph_of_nothing() -> None:
    plan = Sketch("x").plan(7)
    assert (len(plan), plan.input_slots, plan.has_async, plan.sources) == (0, (-1,), False, [])
    assert plan.output.build(plan.template) == 7


def test_what_is_shared_by_all_runs_is_not_changed_by_one() -> None:
    sketch = Sketch("x")
    plan = sketch.plan(sketch.kernel("k", sketch.kernel("l", sketch.inputs[0])))
    before = ([*plan.counts], [*plan.readers], [*plan.template], [*plan.sources])
    run_in_order(plan, 1)
    run_step_by_step(plan, 1)
    assert (plan.counts, plan.readers, plan.template, plan.sources) == before


# ------------------------------------------------------------------------------------------------ large graphs


def chain(size: int) -> Graph:
    sketch = Sketch("x")
    spec = OpSpec(Result, "f", Kind.KERNEL)
    sketch.nodes = [Node(1 + i, spec, (Ref(i),), {}, (i,), False, None, -1) for i in range(size)]
    return sketch.graph(Ref(size))


def side_by_side(size: int) -> Graph:
    sketch = Sketch("x")
    spec = OpSpec(Result, "f", Kind.KERNEL)
    sketch.nodes = [Node(1 + i, spec, (Ref(0),), {}, (0,), False, None, -1) for i in range(size)]
    return sketch.graph([Ref(1 + i) for i in range(size)])


def ladder(size: int) -> Graph:
    """a ─┬─▶ b ─┬─▶ … : 2 ** (size / 3) ways from one end to the other."""
    spec = OpSpec(Result, "f", Kind.KERNEL)
    nodes, top = [], 0
    for i in range(1, size - 1, 3):
        for number, reads in ((i, (top,)), (i + 1, (top,)), (i + 2, (i, i + 1))):
            nodes.append(Node(number, spec, tuple(map(Ref, reads)), {}, reads, False, None, -1))
        top = i + 2
    return Graph("ladder", ("x",), tuple(nodes), Ref(top))


def plumbed(size: int) -> Graph:
    """One kernel with a chain of plumbing."""
    kernel, item = OpSpec(Result, "f", Kind.KERNEL), OpSpec(Result, "item", Kind.PLUMBING)
    nodes = [Node(1, kernel, (Ref(0),), {}, (0,), False, None, -1)]
    nodes += [Node(1 + i, item, (Ref(i),), {}, (i,), False, None, -1) for i in range(1, size)]
    return Graph("plumbed", ("x",), tuple(nodes), Ref(size))


@pytest.mark.parametrize("make", [chain, side_by_side, ladder, plumbed])
def test_a_hundred_thousand_nodes_are_planned_without_recursion(make: Callable[[int], Graph]) -> None:
    graph = make(100_000)
    depth = 0
    frame: Any = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 60)
    try:
        plan = make_plan(graph)
    finally:
        sys.setrecursionlimit(before)
    assert len(plan) + sum(map(len, plan.plumbing.values())) == len(graph)
    assert all(plan.nodes[step].number > plan.nodes[step - 1].number for step in range(1, len(plan)))
