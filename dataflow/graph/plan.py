"""A graph made ready to run: everything about it that does not change from run to run is computed here, once.

A *step* is a node that is scheduled. Steps are numbered by priority, which is a topological order, so the plan's
numbers are not the graph's. Every value has a *slot* in one flat list; a run starts from a copy of `template`:

    | results of the steps | plumbing | inputs | constants |

Rules:

1. A step is called as `call(values)`, a function made for it (see `dataflow.graph.call`); constants have slots like
   all other values.
2. Plumbing (an attribute, a constant index) that reads from a kernel is no step of its own: whoever executes the
   kernel evaluates it right after. Plumbing of an input or of an async op's result is a step like any other,
   since evaluating it may take long (a file behind an array) and the loop must stay free; so is that of a managed
   kernel, which is no part of an attempt, and so is what comes after a change of the result.
3. A slot is released after its last reader. A result that nobody reads counts itself as its reader.
4. A result that several readers see is *shared*, and so are inputs, parts of inputs and constants: these are held in
   their slots, and each reader makes its own of them (see `dataflow.graph.readonly`).
5. What changes later, any value is right of: `shown` and `usual` (what workers have found in runs), `calls` and
   `entered` (which are watched from the first container on), and what is found when it is needed.

The order of the steps is that of `dataflow.graph.order`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from numpy import ndarray

from dataflow.graph.call import Caller, handed_to, is_usual, make_call, retried, writing, written
from dataflow.graph.inout import Live, alike, constants_of, in_order, keys_of, live
from dataflow.graph.kinds import KERNEL, LIMITED, LIMITED_ON_LOOP, MANAGED, ON_LOOP
from dataflow.graph.nodes import Graph, Kind, Node, OpSpec, Ref
from dataflow.graph.once import out_of_order
from dataflow.graph.order import priority_order
from dataflow.graph.pytree import leaves
from dataflow.graph.readonly import ANY_RESULT, PLAIN_RESULT, Held, bare, is_rebuilt, readonly
from dataflow.graph.shown import Shown
from dataflow.graph.stateful import in_turn, names_of, stateful_constants
from dataflow.graph.templates import Builder, Literal, Template, output_template
from dataflow.graph.watched import unchanged, watched

__all__ = ["NONE", "SEVERAL", "Constants", "Plan", "make_plan"]

MOST_VARIANTS = 4
NONE, SEVERAL = -1, -2
"""What `Plan.last_read` says where it is not one slot."""

Plumbing = tuple[int, int, Caller]
"""(slot, node number, call)."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A graph made ready to run. Shared by all runs; see rule 5."""

    graph: Graph

    # What the scheduler core reads (its protocol `Steps`).
    counts: list[int]
    successors: list[tuple[int, ...]]
    reads: list[tuple[int, ...]]
    readers: list[int]
    kinds: bytes
    sources: list[int]
    releases: list[tuple[int, ...]]
    """For each step, the slots that it reads last if the steps run in order."""
    numbers: list[int]
    """The steps in order: what a batch takes slices of, since making ints costs more than running through them."""
    shown: Shown

    # What a worker reads.
    last_read: list[int]
    """`releases` made quick to ask: the one slot, or `NONE`, or `SEVERAL` (also for a step that nobody reads)."""
    calls: list[Caller]
    settled: list[frozenset[type]]
    """For each step, the types of result that can be stored without a second look."""
    usual: list[type | None]
    """For each step, one of these types: that of its last result, which one comparison finds again. Any is right."""
    shared: bytes
    """For each slot, 1 if its value has several readers, or is the caller's: then it is held."""
    parts: frozenset[int]
    """The slots of inputs, and of their attributes and items."""
    taken: dict[int, tuple[int, ...]]
    """The steps whose results are for one other to write into, which needs no copy unless the result is the value of
    one of these slots: what the step reads, and may be somebody else's."""
    plumbing: dict[int, tuple[Plumbing, ...]]
    """For a step with plumbing: what to evaluate after it, in order."""
    live: frozenset[int]
    """The slots of what may be a part of something that operators change (`inout=`)."""
    names: frozenset[int]
    """Of those, the slots of the objects themselves."""
    changed_constants: frozenset[int]
    """The ids of the constants that are changed."""

    # What a run reads.
    nodes: list[Node]
    """The node of each step."""
    template: list[Any]
    input_slots: tuple[int, ...]
    """The slot of each input; -1 if nobody reads it."""
    constants_from: int
    """The first slot of a constant."""
    made: tuple[tuple[int, Builder], ...]
    """(slot, builder) of each constant that every run has of its own."""
    output: Template
    output_slots: frozenset[int]
    has_async: bool
    """Whether any operator is a coroutine function."""
    managed: bool
    """Whether any operator has a timeout, retries or a limit."""
    least_timeout: float | None
    """The smallest of those of kernels."""
    entered: list[Caller] = field(default_factory=list)
    """`calls` as workers call them, where some kernel has a timeout or a limit; see `dataflow.engine.runs.retries`."""
    _variants: dict[tuple[Hashable, ...], Plan] = field(default_factory=dict)
    """The plans for inputs of which some are one object, or stateful."""
    _constants: list[frozenset[int]] = field(default_factory=list)
    """What stands for the constants of the graph, once somebody has asked."""
    _disorder: dict[int, str] = field(default_factory=dict)
    """What `disorder` has found."""
    _watched: set[int] = field(default_factory=set)
    """The slots of which `watched` calls know."""
    _readers_of: dict[int, list[int]] = field(default_factory=dict)
    """For each slot, the steps to which what is in it is handed; once somebody has asked."""

    def for_inputs(self, inputs: Sequence[Any]) -> Plan:
        """Itself; or one that knows that operators change an input that is another one as well, or a constant, and
        which inputs each use changes."""
        if len(self) < 2:
            return self
        same, stateful = self._alike(inputs), self._stateful(inputs)
        if not same and not stateful:
            return self
        plan = self._variants.get((same, stateful))
        if plan is None:
            if len(self._variants) >= MOST_VARIANTS:
                self._variants.clear()
            graph = in_order(self.graph, same) if same else self.graph
            plan = make_plan(in_turn(graph, dict(stateful)) if stateful else graph, same)
            self._variants[same, stateful] = plan
        return plan

    def _alike(self, inputs: Sequence[Any]) -> tuple[tuple[Hashable, ...], ...]:
        changed = frozenset(place for place, slot in enumerate(self.input_slots) if slot in self.live)
        if not changed:
            return ()
        if not self._constants:
            self._constants.append(constants_of(self.graph))
        return alike(inputs, self._constants[0], changed)

    def _stateful(self, inputs: Sequence[Any]) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The inputs that `in_turn` has to know of, as `names_of` says it."""
        constants: set[int] = set()
        if self.graph.stateful:
            constants = {id(each) for node in self.graph.nodes for each in stateful_constants(node)}
        found = names_of(inputs, constants)
        if len(found) == 1 and not constants and not self.disorder(found[0][0]):
            return ()
        return found

    def hold(self, slot: int, value: Any) -> Any:
        """What a run keeps in a slot whose value is handed out protected."""
        if slot in self.live:
            held = Held.live(bare(value))
        else:
            held = value if type(value) is Held else Held(value)  # a large one: somebody has looked through it
        if type(held.value) is not ndarray and slot not in self._watched and is_rebuilt(type(held.value)):
            self._watch(slot)
        return held

    def _watch(self, slot: int) -> None:
        """From now on calls that find a container in this slot may not change it. Whoever calls one meanwhile on what
        is there for the first time has yet to be handed it."""
        if not self._readers_of:
            readers: dict[int, list[int]] = {}
            for step, (node, slots) in enumerate(zip(self.nodes, self.reads, strict=True)):
                numbers = {leaf for argument in handed_to(node) for leaf in leaves(argument) if type(leaf) is Ref}
                for number, each in zip(node.reads, slots):
                    if number in numbers:
                        readers.setdefault(each, []).append(step)
            self._readers_of.update(readers)
        for step in self._readers_of.get(slot, ()):
            call = self.calls[step] = watched(self.calls[step], self.nodes[step], (slot,))
            if self.entered and self.kinds[step] < MANAGED:  # the others look here
                self.entered[step] = call
        self._watched.add(slot)

    def disorder(self, number: int) -> str:
        """`out_of_order` for one of the graph's values; asked for what can be read once."""
        found = self._disorder.get(number)
        if found is None:
            found = self._disorder[number] = out_of_order(self.graph, number)
        return found

    def __len__(self) -> int:
        return len(self.calls)

    def __repr__(self) -> str:
        return f"<Plan {self.graph.name}: {len(self.calls)} steps, {len(self.template)} slots>"


def make_plan(graph: Graph, same: Iterable[Sequence[Hashable]] = ()) -> Plan:
    """Compute everything that runs of this graph have in common; linear in its size, and never recursive.

    `same` are groups of inputs and constants that are one object, see `dataflow.graph.inout`.
    """
    first, nodes = len(graph.inputs), graph.nodes
    unusual = {spec for spec in {node.spec for node in nodes} if not is_usual(spec) or spec.kind is Kind.ASYNC}
    plain = not any(spec.kind is Kind.PLUMBING for spec in unusual)
    root, deps = _dependencies(graph, plain)
    order = priority_order([n for n in range(first, len(root)) if root[n] == n], deps, first)
    slot_of = _slots(root, order, first)
    steps = [nodes[number - first] for number in order]
    size, free = len(steps), len(root)
    template: list[Any] = [None] * free

    counts, successors = _successors(order, deps, slot_of)
    reads = [tuple([slot_of[number] for number in node.reads]) for node in steps]
    attached = {} if plain else _attached(graph, root, slot_of)
    shared = bytearray(free)
    changing = live(graph, same) if any(spec.inout for spec in unusual) else _NOTHING
    constants = Constants(template, shared, changing.constants)
    output = output_template(graph.output, slot_of, constants.slot)
    output_slots = frozenset(output.refs)
    released = reads.copy()  # with what a step releases besides
    readers, uses = _count_readers(released, attached, slot_of, output_slots, free)
    shared[:free] = bytearray([used > 1 for used in uses])
    for slot in slot_of[:first]:
        shared[slot] = 1
    parts: frozenset[int] = frozenset()
    if not plain:
        parts = frozenset(slot_of[number] for number, part in enumerate(_parts_of_inputs(graph, root)) if part)
        _share_parts(shared, parts, slot_of, attached)
        for number in graph.after:
            if nodes[number - first].spec.kind is Kind.PLUMBING:  # a part of a result, as it is after a change
                shared[slot_of[number]] |= shared[slot_of[nodes[number - first].reads[0]]]
    calls = [
        make_call(node, slot_of, constants.slot, shared, slots, usual=not unusual) for node, slots in zip(steps, reads)
    ]
    plumbing = {
        step: tuple([(slot_of[n], n, make_call(nodes[n - first], slot_of, constants.slot, shared)) for n in numbers])
        for step, numbers in attached.items()
    }

    def owned(number: int) -> bool:
        """Whether a number is a kernel's result that one step reads."""
        slot = slot_of[number]
        return slot < size and not shared[slot] and slot not in output_slots

    def none(_: int) -> bool:
        """What an attempt that failed half-way had written must not reach the next one."""
        return False

    taken: dict[int, tuple[int, ...]] = {}
    for step, node in enumerate(steps) if unusual else ():
        if node.spec.writes:
            fn = writing(node, none if retried(node) else owned)
            calls[step] = make_call(node, slot_of, constants.slot, shared, fn=fn)
            taken.update((slot_of[number], ()) for number in written(node) if owned(number))
    for number, fixed in graph.fixed.items():
        node = nodes[number - first]
        fixed = fixed._replace(places=tuple([path for path in fixed.places if path[0] not in node.spec.writes]))
        fn = unchanged(writing(node, none) if node.spec.writes else node.spec.fn, node, fixed)
        calls[slot_of[number]] = make_call(node, slot_of, constants.slot, shared, fn=fn)
    if taken:
        _say_whose(taken, steps, slot_of, shared)
    if constants.containers:
        _watch_constants(calls, steps, constants)
    kinds = bytes([_kind(node.spec) for node in steps]) if unusual else bytes(size)
    managed = [spec.options for spec in unusual if spec.options is not None and spec.kind is not Kind.ASYNC]
    releases = _last_uses(released, output_slots, free)
    return Plan(
        graph=graph,
        counts=counts,
        successors=successors,
        reads=released,
        readers=readers + [0] * (len(template) - free),  # constants: never released
        kinds=kinds,
        sources=[step for step, count in enumerate(counts) if not count],
        releases=releases,
        numbers=list(range(size)),
        last_read=[
            NONE if not slots else slots[0] if len(slots) == 1 and slots[0] != step else SEVERAL
            for step, slots in enumerate(releases)
        ],
        shown=Shown(size),
        calls=calls,
        settled=_settled(shared[:size], plumbing, output_slots),
        usual=[None] * size,
        shared=bytes(shared),
        parts=parts,
        taken=taken,
        live=frozenset(slot_of[number] for number in changing.parts),
        names=frozenset(slot_of[number] for number in changing.names),
        changed_constants=changing.constants,
        plumbing=plumbing,
        nodes=steps,
        template=template,
        input_slots=tuple(slot if readers[slot] else -1 for slot in slot_of[:first]),
        constants_from=free,
        made=constants.made,
        output=output,
        output_slots=output_slots,
        has_async=ON_LOOP in kinds or LIMITED_ON_LOOP in kinds,
        managed=any(spec.options is not None for spec in unusual),
        least_timeout=min((options.timeout for options in managed if options.timeout is not None), default=None),
    )


def _dependencies(graph: Graph, plain: bool) -> tuple[list[int], list[Sequence[int]]]:
    """For each number its root (see `_roots`) and, if it is a step, the numbers of the roots that it needs.

    In a `plain` graph there is no plumbing.
    """
    root = list(range(len(graph.inputs) + len(graph.nodes))) if plain else _roots(graph)
    deps: list[Sequence[int]] = [()] * len(graph.inputs)
    deps += [node.reads for node in graph.nodes]
    for edges in (graph.after, graph.waits):
        for number in edges:
            deps[number] = (*deps[number], *edges[number])
    if graph.after or graph.waits or not plain:
        deps = [
            tuple(dict.fromkeys([root[needed] for needed in deps[number]])) if root[number] == number else ()
            for number in range(len(root))
        ]
    return root, deps


def _roots(graph: Graph) -> list[int]:
    """For each number, the one whose evaluation brings it about: plumbing of a kernel belongs to the kernel.

    But not what comes after something else has changed the kernel's result.
    """
    first = len(graph.inputs)
    root = list(range(first + len(graph.nodes)))
    for node in graph.nodes:
        if node.spec.kind is Kind.PLUMBING and node.reads and node.number not in graph.after:
            origin = root[node.reads[0]]
            if origin >= first and _is_kernel(graph.nodes[origin - first].spec):
                root[node.number] = origin
    return root


def _is_kernel(spec: OpSpec) -> bool:
    """Whether a worker executes it as a step of its own."""
    return spec.kind in (Kind.KERNEL, Kind.RECORDED) and spec.options is None


def _kind(spec: OpSpec) -> int:
    options, on_loop = spec.options, spec.kind is Kind.ASYNC
    if options is None:
        return ON_LOOP if on_loop else KERNEL
    if options.limit is None:
        return ON_LOOP if on_loop else MANAGED
    return LIMITED_ON_LOOP if on_loop else LIMITED


def _slots(root: list[int], order: list[int], first: int) -> list[int]:
    """For each number its slot: steps in order of priority, then plumbing, then inputs."""
    slot_of = [-1] * len(root)
    for step, number in enumerate(order):
        slot_of[number] = step
    others = [number for number in range(first, len(root)) if root[number] != number] + list(range(first))
    for slot, number in enumerate(others, len(order)):
        slot_of[number] = slot
    return slot_of


def _successors(
    order: list[int], deps: list[Sequence[int]], slot_of: list[int]
) -> tuple[list[int], list[tuple[int, ...]]]:
    """For each step, how many steps it waits for, and which wait for it."""
    size = len(order)
    successors: list[list[int]] = [[] for _ in range(size)]
    counts = [0] * size
    for step, number in enumerate(order):
        for needed in deps[number]:
            slot = slot_of[needed]
            if slot < size:  # not an input
                successors[slot].append(step)
                counts[step] += 1
    return counts, list(map(tuple, successors))


def _count_readers(
    reads: list[tuple[int, ...]],
    attached: dict[int, list[int]],
    slot_of: list[int],
    output_slots: frozenset[int],
    free: int,
) -> tuple[list[int], list[int]]:
    """How many release each slot in the end, and how many see its value; adds to `reads` what else a step releases."""
    readers = [0] * free
    for slot in output_slots:
        readers[slot] = 1
    for slots in reads:
        for slot in slots:
            readers[slot] += 1
    uses = readers.copy()
    for step, numbers in attached.items():
        parts = [slot_of[number] for number in numbers]
        uses[step] += sum(readers[slot] for slot in parts)
        # What only further plumbing reads is evaluated, and done with, when the step is over.
        inner = [slot for slot in parts if not readers[slot]]
        for slot in inner:
            readers[slot] = 1
        reads[step] = (*reads[step], *inner)
    for step in range(len(reads)):
        if not readers[step]:  # its own last reader, see rule 3
            readers[step] = 1
            reads[step] = (*reads[step], step)
    return readers, uses


_NOTHING: Final = Live(frozenset(), frozenset(), frozenset())


def _settled(
    shared: bytearray, plumbing: dict[int, tuple[Plumbing, ...]], output_slots: frozenset[int]
) -> list[frozenset[type]]:
    settled = [PLAIN_RESULT if seen else ANY_RESULT for seen in shared]
    for step in output_slots:
        if step < len(settled):
            settled[step] = PLAIN_RESULT
    for step in plumbing:
        settled[step] = frozenset()
    return settled


_EQUAL_BY_VALUE: Final = frozenset({int, str, bool, type(None)})
"""Types of constants that share a slot where they are equal; 0.0 and -0.0 are equal, and not the same."""


def _watch_constants(calls: list[Caller], steps: list[Node], constants: Constants) -> None:
    for step, node in enumerate(steps):
        slots = constants.containers.intersection(map(constants.known, handed_to(node)))
        if slots:
            calls[step] = watched(calls[step], node, slots)


class Constants:
    """Gives constants their slots at the end of the template; small equal ones share theirs, and so do the same."""

    def __init__(self, template: list[Any], shared: bytearray, changed: frozenset[int] = frozenset()) -> None:
        self._changed = changed
        """The ids of those that operators change."""
        self._template = template
        self._shared = shared
        """Of each slot, whether its value is held; grows with the template."""
        self._small: dict[tuple[type, Any], int] = {}
        self._large: dict[int, int] = {}
        """By the id of what the template keeps alive."""
        self._made: list[tuple[int, Builder]] = []
        self.containers: set[int] = set()
        """The slots of those that are rebuilt for each reader."""

    def known(self, value: Any) -> int:
        """The slot of a large constant that has one; else -1."""
        return self._large.get(id(value), -1)

    @property
    def made(self) -> tuple[tuple[int, Builder], ...]:
        """What every run makes anew."""
        return tuple(self._made)

    def slot(self, value: Any) -> int:
        """The slot of a constant."""
        kind = type(value)
        if kind in PLAIN_RESULT:
            if kind not in _EQUAL_BY_VALUE:
                return self._add(value, held=False)
            key = (kind, value)
            slot = self._small.get(key)
            if slot is None:
                slot = self._small[key] = self._add(value, held=False)
            return slot
        slot = self._large.get(id(value))
        if slot is None:
            slot = self._large[id(value)] = self._literal(value) if kind is Literal else self._constant(value)
        return slot

    def _constant(self, value: Any) -> int:
        if self._is_changed(value):
            return self._add(Held.live(value), held=True)
        protected = any(readonly.knows(type(leaf)) for leaf in leaves(value))
        return self._add(Held(value) if protected else value, held=protected, rebuilt=type(value))

    def _literal(self, literal: Literal) -> int:
        """One slot for all who read it: in a run, they get the same object, or what is protected of the same."""
        if self._is_changed(literal):
            return self._add(Held.live(literal.value), held=True)
        protected = not literal.fresh or any(readonly.knows(type(leaf)) for leaf in leaves(literal.value))
        value = literal.value
        slot = self._add(Held(value) if protected else value, held=protected, rebuilt=type(value))
        make = self._make(literal)
        self._made.append((slot, (lambda v: Held(make(v))) if protected else make))
        return slot

    def _make(self, literal: Literal) -> Builder:
        if not literal.fresh:
            return lambda _: literal.value
        if literal.part is None:
            return literal.builder()
        whole, place = literal.part
        slot = self._large.get(id(whole))
        if slot is None:
            slot = self._large[id(whole)] = self._add(whole, held=False)
            self._made.append((slot, whole.builder()))
        return lambda v: v[slot][place]

    def _is_changed(self, value: Any) -> bool:
        return bool(self._changed) and not self._changed.isdisjoint(keys_of(value))

    def _add(self, value: Any, *, held: bool, rebuilt: type | None = None) -> int:
        if held and rebuilt is not None and is_rebuilt(rebuilt):
            self.containers.add(len(self._template))
        self._template.append(value)
        self._shared.append(held)
        return len(self._template) - 1


def _last_uses(reads: list[tuple[int, ...]], pinned: frozenset[int], free: int) -> list[tuple[int, ...]]:
    """For each step, what it reads that no later step does; outputs are pinned."""
    uses: list[tuple[int, ...]] = [()] * len(reads)
    done = bytearray(free)
    for slot in pinned:
        done[slot] = 1
    for step in range(len(reads) - 1, -1, -1):
        last = [slot for slot in reads[step] if not done[slot]]
        if last:
            uses[step] = tuple(last)
            for slot in last:
                done[slot] = 1
    return uses


def _parts_of_inputs(graph: Graph, root: list[int]) -> list[bool]:
    """For each number, whether it is an input, or an attribute or item of one."""
    first = len(graph.inputs)
    of_caller = [True] * first + [False] * len(graph.nodes)
    for node in graph.nodes:
        if node.spec.kind is Kind.PLUMBING and node.reads and root[node.number] == node.number:
            of_caller[node.number] = of_caller[node.reads[0]]
    return of_caller


def _share_parts(shared: bytearray, parts: frozenset[int], slot_of: list[int], attached: dict[int, list[int]]) -> None:
    """Parts of inputs are the caller's; parts of a result that is shared may be on the same memory."""
    for slot in parts:
        shared[slot] = 1
    for step, numbers in attached.items():
        for number in numbers:
            shared[slot_of[number]] |= shared[step]


def _say_whose(taken: dict[int, tuple[int, ...]], steps: list[Node], slot_of: list[int], shared: Sequence[int]) -> None:
    """A kernel may hand on a list of the caller's, and the next one, too; what is taken is copied if that happens."""
    others: set[int] = set()
    for step, node in enumerate(steps):
        found = tuple(slot for number in node.reads if shared[slot := slot_of[number]] or slot in others)
        if step in taken:
            taken[step] = found
        elif found or any(type(value) is Literal for value in (*node.args, *node.kwargs.values())):
            others.add(step)


def _attached(graph: Graph, root: list[int], slot_of: list[int]) -> dict[int, list[int]]:
    """For a step with plumbing, the numbers of what is evaluated after it, in order."""
    attached: dict[int, list[int]] = {}
    for number in range(len(graph.inputs), len(root)):
        if root[number] != number:
            attached.setdefault(slot_of[root[number]], []).append(number)
    return attached
