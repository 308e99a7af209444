"""Operators, nodes and graphs: plain data that knows nothing of running or drawing.

A graph numbers its values in the order of recording: the inputs first, then one number for each node.

    inputs     nodes
    0  1       2: blur(Ref(0), 1)      3: blur(Ref(0), 4)      4: subtract(Ref(2), Ref(3))
                                                               output: Ref(4)

Rules that hold for every graph:

1. An argument that is another value is a `Ref`, bare or inside tuples, lists, dicts and dataclasses.
   Everything else in an argument is a constant.
2. A node refers only to smaller numbers, so the order of recording is a topological order and no graph has a loop.
3. `Node.reads` holds the distinct numbers that the node's arguments refer to, in order of first appearance.
4. What `after` and `waits` say of a node refers only to smaller numbers, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import CodeType
from typing import Any, NamedTuple

from dataflow.graph.diagnostics.bytecode import place_of

__all__ = ["Declared", "Fixed", "Graph", "Kind", "Node", "OpSpec", "Options", "Path", "Ref", "Thing"]

Path = tuple[int | str, ...]
"""Where something is in the arguments of a node: which one, the item in it, the item in that."""


class Thing(NamedTuple):
    """An object of the user's own class."""

    value: Any
    names: tuple[str, ...]
    """Of the attributes that count; "" stands for its own items."""


class Fixed(NamedTuple):
    """What an operator may not change of what it is given."""

    places: tuple[Path, ...] = ()
    """Containers."""
    things: tuple[Thing, ...] = ()


class Declared:
    """What operators and pipelines have in common: a class with such attributes is a model, and no mere record.

    As a method of an instance one is *bound*: a value of its own, that shares everything with what it is made `of`.
    """

    _of: Any = None
    """Where this is bound: what it is made of, which is declared in the instance's class."""
    _owner: Any = None
    """Where this is bound: the instance."""
    _body: Any = None
    """Of a pipeline, the function that a trace runs."""

    @property
    def uses(self) -> Any:
        """What each call of it changes, if it is the method of something stateful: see `dataflow.graph.stateful`."""
        return None

    @property
    def is_managed_or_run(self) -> bool:
        """Whether a run is needed to call it as it is declared: a plain call would not do."""
        return True

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """On an instance: bound to it. On the class, or bound already: itself."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if self._of is None or not isinstance(other, Declared):
            return object.__eq__(self, other)
        return self._of is other._of and self._owner is other._owner

    def __hash__(self) -> int:
        return object.__hash__(self) if self._of is None else hash((id(self._of), id(self._owner)))


class Kind(Enum):
    """How a node is run."""

    KERNEL = "kernel"
    """A declared plain function: runs on an inter-op thread."""
    ASYNC = "async"
    """A declared coroutine function: runs on the event loop, holds no inter-op thread."""
    RECORDED = "recorded"
    """A numpy function, Python operator or method call found in a body: runs as a kernel does."""
    PLUMBING = "plumbing"
    """An attribute, or an index made of constants: evaluated beside the kernel it reads from."""


class Ref(int):
    """The number of a value, where it stands as an argument."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Ref({int(self)})"


@dataclass(frozen=True, slots=True)
class Options:
    """How the calls of an operator are *managed*: bounded in time and number, and tried again."""

    timeout: float | None = None
    """Seconds that one attempt may take; None: as long as it likes."""
    retries: int = 0
    """Attempts after the first."""
    retry_on: tuple[type[Exception], ...] = (Exception,)
    """The failures after which there is a further attempt."""
    backoff: float = 0.1
    """Seconds before the second attempt, at most; twice as many before each further one."""
    limit: Any = None
    """The `Limit` that it shares with others; the engine's, of which nothing is known here."""


@dataclass(frozen=True, slots=True, eq=False)
class OpSpec:
    """What is known of an operator apart from any call of it."""

    fn: Callable[..., Any]
    name: str
    kind: Kind
    declared: str = ""
    """Where the user declared it, `file:line`; empty for what a body merely used (numpy's functions)."""
    writes: tuple[int | str, ...] = ()
    """The arguments that it writes into, by position or by keyword."""
    inout: tuple[int | str, ...] = ()
    """The arguments that it changes for everybody, likewise."""
    options: Options | None = None
    """None: its calls are not managed."""
    owner: Any = None
    """The object whose bound method it is, if each call changes that: see `dataflow.graph.stateful`."""


class Node(NamedTuple):
    """One call of an operator. A tuple, because a graph may hold a million and frozen dataclasses build slowly."""

    number: int
    spec: OpSpec
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    reads: tuple[int, ...]
    nested: bool
    """Whether a Ref stands inside a container, so that a call has to rebuild its arguments."""
    code: CodeType | None
    lasti: int
    """With `code`: the instruction of the user's body that recorded this node."""

    @property
    def where(self) -> str:
        """The user's line that recorded this node, `file:line`."""
        return place_of(self.code, self.lasti)

    @property
    def given(self) -> dict[int | str, Any]:
        """The arguments, by position and by name."""
        given: dict[int | str, Any] = dict(enumerate(self.args))
        given.update(self.kwargs.items())
        return given

    def __repr__(self) -> str:
        arguments = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"<node {self.number}: {self.spec.name}({', '.join(arguments)})>"


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Inputs, nodes and outputs of one traced pipeline; immutable."""

    name: str
    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    output: Any
    """What the body returned, with a Ref wherever it held a placeholder."""
    after: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """What nodes start after besides what they read: those recorded inside `flow.after`, and those that read what
    another changes (see `dataflow.graph.inout` and `dataflow.graph.stateful`)."""
    labels: Mapping[int, str] = field(default_factory=dict)
    """The nodes that `flow.label` named; of several names of one, the last."""
    scopes: Mapping[int, str] = field(default_factory=dict)
    """The nodes recorded inside `flow.scope`, with the names of their scopes: "encoder/block3"."""
    names: Mapping[str, int] = field(default_factory=dict)
    """The node of each label, with the scope in which it was given: "encoder/block3/t17"."""
    items: Sequence[int] = ()
    """In the graph of a `flow.map`: for each item, the number of its first node."""
    waits: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """For nodes that change what others read: those that have read it before. See `dataflow.graph.inout`."""
    stateful: bool = False
    """Whether a constant is an object that each use changes. See `dataflow.graph.stateful`."""
    fixed: Mapping[int, Fixed] = field(default_factory=dict)
    """For operators that are given what they may not change, since others would not see it, or other runs would: where
    that is. See `dataflow.graph.watched`."""

    def __len__(self) -> int:
        return len(self.nodes)

    def item_of(self, node: Node) -> int | None:
        """The item of a `flow.map` for which this node was recorded; None in all other graphs."""
        return bisect_right(self.items, node.number) - 1 if self.items else None

    def __repr__(self) -> str:
        count = f"{len(self.nodes)} node{'s' * (len(self.nodes) != 1)}"
        return f"<Graph {self.name}({', '.join(self.inputs)}): {count}>"
