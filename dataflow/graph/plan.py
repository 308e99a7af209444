"""A graph made ready to run: everything about it that does not change from run to run is computed here, once.

A *step* is a node that is scheduled. Steps are numbered by priority, which is a topological order, so the plan's
numbers are not the graph's. Every value has a *slot* in one flat list; a run starts from a copy of `template`:

    | results of the steps | plumbing | inputs | constants |

Rules:

1. A step is called as `call(values)`, a function made for it (see `dataflow.graph.call`); constants have slots like
   all other values.
2. Plumbing (an attribute, a constant index) that reads from a kernel is no step of its own: whoever executes the
   kernel evaluates it right after. Plumbing of an input or of an async op's result is a step like any other,
   since evaluating it may take long (a file behind an array) and the loop must stay free.
3. A slot is released after its last reader. A result that nobody reads counts itself as its reader.
4. A result that several readers see is *shared*: it is handed out read-only (see `dataflow.graph.guard`).
5. `costs` is the one thing that changes later: what the lanes learn. Any value in it is right.

Priority. A depth-first walk from the outputs that enters the deepest dependency first: the critical path gets the
small numbers, and what was begun is finished before anything else is opened, so few intermediates live at once.

        a ─▶ b ─▶ c ─┐                     a b c, then d, then e: with two threads d fills the second
                     ├─▶ e                 one from the start, and with one thread the long branch
        d ───────────┘                     goes first

Where the order of recording keeps fewer values alive than this walk (a stencil, swept row by row), it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dataflow.graph.call import Caller, make_call, writing
from dataflow.graph.costs import Costs
from dataflow.graph.fill import Template, output_template
from dataflow.graph.guard import ANY_RESULT, PLAIN_RESULT, guard
from dataflow.graph.nodes import Graph, Kind, Node

__all__ = ["NONE", "SEVERAL", "Plan", "make_plan"]

NONE, SEVERAL = -1, -2
"""What `Plan.last_read` says where it is not one slot."""

Plumbing = tuple[int, int, Caller]
"""(slot, node number, call)."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A graph made ready to run. Frozen, and shared by all runs; only `costs` learns."""

    graph: Graph

    # What the scheduler core reads (its protocol `Steps`).
    counts: list[int]
    successors: list[tuple[int, ...]]
    reads: list[tuple[int, ...]]
    readers: list[int]
    on_loop: bytes
    sources: list[int]
    releases: list[tuple[int, ...]]
    """For each step, the slots that it reads last if the steps run in order."""
    numbers: list[int]
    """The steps in order: what a sweep takes slices of, since making ints costs more than running through them."""
    costs: Costs

    # What a lane reads.
    last_read: list[int]
    """`releases` made quick to ask: the one slot, or `NONE`, or `SEVERAL` (also for a step that nobody reads)."""
    calls: list[Caller]
    settled: list[frozenset[type]]
    """For each step, the types of result that can be stored without a second look."""
    usual: list[type | None]
    """For each step, one of these types: that of its last result, which one comparison finds again. Any is right."""
    shared: bytes
    """For each step, 1 if its result has several readers, or is a part of an input and so the caller's."""
    plumbing: dict[int, tuple[Plumbing, ...]]
    """For a step with plumbing: what to evaluate after it, in order."""

    # What a run reads.
    nodes: list[Node]
    """The node of each step."""
    template: list[Any]
    input_slots: tuple[int, ...]
    """The slot of each input; -1 if nobody reads it."""
    passed_on: tuple[tuple[int, int], ...]
    """(position, slot) of each input that is an output as well."""
    constants_from: int
    """The first slot of a constant."""
    output: Template
    output_slots: frozenset[int]
    has_async: bool

    def __len__(self) -> int:
        return len(self.calls)

    def __repr__(self) -> str:
        return f"<Plan {self.graph.name}: {len(self.calls)} steps, {len(self.template)} slots>"


def make_plan(graph: Graph) -> Plan:
    """Compute everything that runs of this graph have in common; linear in its size, and never recursive."""
    first = len(graph.inputs)
    nodes = graph.nodes
    root = _roots(graph)
    is_step = [root[first + i] == first + i for i in range(len(nodes))]

    # Dependencies among steps, still in the graph's numbers (less the inputs).
    deps: list[tuple[int, ...]] = [()] * len(nodes)
    for position, node in enumerate(nodes):
        if is_step[position] and (node.reads or graph.after):
            needed = (*node.reads, *graph.after.get(node.number, ()))
            deps[position] = tuple({root[number] - first: None for number in needed if number >= first})
    order = _priority_order([i for i, step in enumerate(is_step) if step], deps)

    # Slots: steps in order of priority, then plumbing, inputs, constants.
    slot_of = [-1] * (first + len(nodes))
    for step, position in enumerate(order):
        slot_of[first + position] = step
    free = len(order)
    for position in range(len(nodes)):
        if not is_step[position]:
            slot_of[first + position] = free
            free += 1
    for number in range(first):
        slot_of[number] = free
        free += 1
    template: list[Any] = [None] * free
    constants = _Constants(template)

    output = output_template(graph.output)
    output_slots = frozenset(slot_of[number] for number in output.refs)
    readers = [0] * free
    for slot in output_slots:
        readers[slot] = 1

    size = len(order)
    successors: list[list[int]] = [[] for _ in range(size)]
    counts = [0] * size
    reads: list[tuple[int, ...]] = [()] * size
    calls: list[Caller] = []
    on_loop = bytearray(size)
    for step, position in enumerate(order):
        node = nodes[position]
        calls.append(make_call(node, slot_of, constants.slot))
        if node.reads:
            reads[step] = read = tuple(slot_of[number] for number in node.reads)
            for slot in read:
                readers[slot] += 1
        for dependency in deps[position]:
            successors[slot_of[first + dependency]].append(step)
            counts[step] += 1
        if node.spec.kind is Kind.ASYNC:
            on_loop[step] = 1

    plumbing = _plumbing(graph, is_step, root, slot_of, constants)
    uses = readers.copy()  # how many see the value of a step, be it through its plumbing
    for step, attached in plumbing.items():
        uses[step] += sum(readers[slot] for slot, *_ in attached)
    for step, attached in plumbing.items():
        inner = [
            slot for slot, *_ in attached if not readers[slot]
        ]  # only further plumbing reads it, evaluated by then
        for slot in inner:
            readers[slot] = 1
        reads[step] = (*reads[step], *inner)
    for step in range(size):
        if not readers[step]:  # its own last reader, see rule 3
            readers[step] = 1
            reads[step] = (*reads[step], step)
    for step, position in enumerate(order):
        if nodes[position].spec.writes:

            def owned(number: int) -> bool:
                """Whether a number is a kernel's result that one step reads."""
                slot = slot_of[number]
                return slot < size and uses[slot] == 1 and slot not in output_slots

            calls[step] = make_call(nodes[position], slot_of, constants.slot, writing(nodes[position], owned))
    readers += [0] * (len(template) - len(readers))  # constants: never released
    seen = [ANY_RESULT] * size
    shared = bytearray(size)
    of_caller = _parts_of_inputs(graph, is_step)
    for step, position in enumerate(order):
        shared[step] = uses[step] > 1 or of_caller[first + position]
        if step in plumbing:
            seen[step] = frozenset()
        elif shared[step] or step in output_slots:
            seen[step] = PLAIN_RESULT
    on_loop_bytes = bytes(on_loop)
    releases = _last_uses(reads, output_slots)
    return Plan(
        graph=graph,
        counts=counts,
        successors=[tuple(s) for s in successors],
        reads=reads,
        readers=readers,
        on_loop=on_loop_bytes,
        sources=[step for step in range(size) if not counts[step]],
        releases=releases,
        numbers=list(range(size)),
        last_read=[
            NONE if not slots else slots[0] if len(slots) == 1 and slots[0] != step else SEVERAL
            for step, slots in enumerate(releases)
        ],
        costs=Costs([nodes[position].spec for position in order], on_loop_bytes),
        calls=calls,
        settled=seen,
        usual=[None] * size,
        shared=bytes(shared),
        plumbing=plumbing,
        nodes=[nodes[position] for position in order],
        template=template,
        input_slots=tuple(slot if readers[slot] else -1 for slot in slot_of[:first]),
        passed_on=tuple((i, slot) for i, slot in enumerate(slot_of[:first]) if slot in output_slots),
        constants_from=free,
        output=output.renumbered(slot_of),
        output_slots=output_slots,
        has_async=any(on_loop),
    )


class _Constants:
    """Gives constants their slots at the end of the template; small equal ones share theirs."""

    def __init__(self, template: list[Any]) -> None:
        self._template = template
        self._small: dict[tuple[type, Any], int] = {}

    def slot(self, value: Any) -> int:
        """The slot of a constant."""
        if type(value) not in (int, str, bool, type(None)):
            return self._add(guard(value))
        key = (type(value), value)
        slot = self._small.get(key)
        if slot is None:
            slot = self._small[key] = self._add(value)
        return slot

    def _add(self, value: Any) -> int:
        self._template.append(value)
        return len(self._template) - 1


def _last_uses(reads: list[tuple[int, ...]], pinned: frozenset[int]) -> list[tuple[int, ...]]:
    last: dict[int, int] = {}
    for step, slots in enumerate(reads):
        for slot in slots:
            if slot not in pinned:
                last[slot] = step
    uses: list[list[int] | None] = [None] * len(reads)
    for slot, step in last.items():
        known = uses[step]
        if known is None:
            uses[step] = [slot]
        else:
            known.append(slot)
    return [tuple(slots) if slots else () for slots in uses]


def _roots(graph: Graph) -> list[int]:
    """For each number, the one whose evaluation brings it about: plumbing of a kernel belongs to the kernel."""
    first = len(graph.inputs)
    root = list(range(first + len(graph.nodes)))
    for node in graph.nodes:
        if node.spec.kind is Kind.PLUMBING and node.reads:
            origin = root[node.reads[0]]
            if origin >= first and graph.nodes[origin - first].spec.kind in (Kind.KERNEL, Kind.RECORDED):
                root[node.number] = origin
    return root


def _parts_of_inputs(graph: Graph, is_step: list[bool]) -> list[bool]:
    """For each number, whether it is an input, or an attribute or item of one."""
    first = len(graph.inputs)
    of_caller = [True] * first + [False] * len(graph.nodes)
    for node in graph.nodes:
        if node.spec.kind is Kind.PLUMBING and node.reads and is_step[node.number - first]:
            of_caller[node.number] = of_caller[node.reads[0]]
    return of_caller


def _plumbing(
    graph: Graph, is_step: list[bool], root: list[int], slot_of: list[int], constants: _Constants
) -> dict[int, tuple[Plumbing, ...]]:
    attached: dict[int, list[Plumbing]] = {}
    for position, node in enumerate(graph.nodes):
        if not is_step[position]:
            entry = (slot_of[node.number], node.number, make_call(node, slot_of, constants.slot))
            attached.setdefault(slot_of[root[node.number]], []).append(entry)
    return {step: tuple(entries) for step, entries in attached.items()}


def _priority_order(steps: Iterable[int], deps: list[tuple[int, ...]]) -> list[int]:
    """The steps by priority (see the module docstring); a topological order."""
    steps = list(steps)
    depth = [0] * len(deps)
    read = bytearray(len(deps))
    straight = True
    for step in steps:
        deepest = 0
        for dependency in deps[step]:
            read[dependency] = 1
            deepest = max(deepest, depth[dependency])
        depth[step] = deepest + 1
        straight = straight and len(deps[step]) <= 1
    sinks = sorted((step for step in steps if not read[step]), key=lambda step: -depth[step])
    walked: list[int] = []
    placed, opened = bytearray(len(deps)), bytearray(len(deps))
    for sink in sinks:
        stack = [sink]
        while stack:
            step = stack[-1]
            if placed[step]:
                stack.pop()
            elif opened[step] or not deps[step]:
                placed[step] = 1
                walked.append(step)
                stack.pop()
            else:
                opened[step] = 1
                below = [dependency for dependency in deps[step] if not placed[dependency]]
                if len(below) > 1:
                    below.reverse()  # of equals, the one recorded first ends on top
                    below.sort(key=depth.__getitem__)
                stack += below
    if straight or walked == steps or _peak(walked, deps) <= _peak(steps, deps):
        return walked
    return steps


def _peak(order: list[int], deps: list[tuple[int, ...]]) -> int:
    """How many results are alive at most when the steps run one after another in this order."""
    readers = [0] * len(deps)
    for step in order:
        for dependency in deps[step]:
            readers[dependency] += 1
    alive = peak = 0
    for step in order:
        alive += 1
        peak = max(peak, alive)
        for dependency in deps[step]:
            readers[dependency] -= 1
            if not readers[dependency]:
                alive -= 1
    return peak
