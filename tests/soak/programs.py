"""Random programs for `tests.soak.composer`: what one is, how it is made from a seed, told, and made smaller.

A program is plain data: graphs of nodes, *acts* that run them (each on one of several event loops), and resizes of the
inter-op setting at moments of their own. Values are pairs of a run's number and a sum; the sum of a node follows from
its number and the sums of what it takes, so that a plain loop (`expected`) knows what a run has to give, and how often
each kernel is to be called.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

ERRORS: dict[str, Callable[[str], BaseException]] = {}
"""What a kernel may raise, by name."""

Path = tuple[Any, ...]
"""The numbers of a node and of those that it is inside of; names for the helpers of `map` and `cond`."""

SIMPLE = ("kernel", "async")
NESTING = ("run", "await", "map", "cond")


class Stop(BaseException):
    """A BaseException of the user's own."""


NEVER_RAW = (StopIteration, CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit)
for _kind in (ValueError, OSError, KeyError, Stop, *NEVER_RAW):
    ERRORS[_kind.__name__] = _kind


@dataclass(frozen=True)
class Node:
    """A call of an operator of its own."""

    number: int
    takes: tuple[int, ...] = ()
    """The numbers of the nodes that are its arguments; without any, it takes the input."""
    kind: str = "kernel"
    """"kernel", "async", "plain" (recorded numpy), or what runs an inner graph: "run" (`p.run` in a kernel), "await"
    (`await p` in an async op), "map", "cond"."""
    does: str = "nothing"
    """"nothing", "sleep", "spin", "numpy", "blas", "checks" (`checkpoint`, again and again), or "meet": wait until so
    many others of the run are there as well."""
    micros: int = 0
    fails: str = ""
    failing: int = 1_000
    """How many first attempts fail."""
    retries: int = 0
    timeout: float | None = None
    limit: int | None = None
    after: int | None = None
    """The number of a node that it starts after, though it takes nothing of it."""
    inner: tuple[Node, ...] = ()
    """What a nesting node runs; one node alone is called as an operator, several as a pipeline."""
    items: int = 0
    """How many items a "map" has."""

    def __str__(self) -> str:
        told = f"{self.number}({', '.join(map(str, self.takes)) or 'x'}) {self.kind}"
        if self.does != "nothing":
            told += f" {self.does} {self.micros}µs" if self.does != "meet" else " meet"
        if self.fails:
            told += f" raises {self.fails}" + (f" {self.failing} times" if self.failing < 1_000 else "")
        for name in ("retries", "timeout", "limit", "after"):
            value = getattr(self, name)
            if value is not None and (value or name != "retries"):
                told += f" {name}={value}"
        if self.inner:
            of = f" of {self.items}" if self.kind == "map" else ""
            told += f"{of} [{'; '.join(map(str, self.inner))}]"
        return told


Nodes = tuple[Node, ...]


@dataclass(frozen=True)
class Act:
    """Something that an application does."""

    name: str
    way: str
    """"await", "script" (`p.run` in a thread of its own), "debug" (likewise), "tasks" (`op.start`), "stream"."""
    graph: int = 0
    loop: int = 0
    delay: int = 0
    """Microseconds from the beginning of the program."""
    copies: int = 1
    """How many runs side by side; of a stream, how many items."""
    cancel: int | None = None
    """Microseconds from the beginning of the act to when something of it is cancelled."""
    cancels: str = "all"
    """"one", "all" or "timeout" (`asyncio.timeout`)."""
    stream: dict[str, Any] = field(default_factory=dict)
    leaves: int | None = None
    """After how many results a stream is left."""
    left: bool = False
    """Whether the loop ends without waiting for it, and so cancels what there is of it."""
    source: str = "list"
    """"list", "generator", "async" or "fails": an async one that fails in the end."""

    def __str__(self) -> str:
        told = f"{self.name}: {self.way} graph {self.graph} ×{self.copies} on loop {self.loop} at {self.delay}µs"
        if self.way == "stream":
            told += f", {self.source} {self.stream}" + (
                f", left after {self.leaves}" if self.leaves is not None else ""
            )
        if self.left:
            told += ", left to the end of the loop"
        if self.cancel is not None:
            told += f", {self.cancels} cancelled after {self.cancel}µs"
        return told


@dataclass(frozen=True)
class Program:
    """All that happens, derived from one seed."""

    seed: int
    threads: int
    graphs: tuple[Nodes, ...]
    acts: tuple[Act, ...]
    limits: tuple[int, ...] = ()
    resizes: tuple[tuple[int, int], ...] = ()
    """Microseconds from the one before, and the number of threads from then on."""
    runtime: tuple[int, int | None] | None = None
    """`max_runs` and `max_waiting`."""
    closes: tuple[int, float] | None = None
    """Microseconds after which the runtime is closed, and the timeout."""
    observed: bool = False
    rounds: int = 1
    """How often the acts are done, one time after another: later runs go by what the first have shown."""

    def __str__(self) -> str:
        lines = [f"program {self.seed}: {self.threads} threads, {self.rounds} rounds{', observed' * self.observed}"]
        if self.limits:
            lines.append(f"  limits {self.limits}")
        if self.resizes:
            lines.append("  resizes " + ", ".join(f"+{micros}µs to {to}" for micros, to in self.resizes))
        if self.runtime:
            lines.append(f"  runtime {self.runtime}" + (f", closed {self.closes}" if self.closes else ""))
        for number, nodes in enumerate(self.graphs):
            lines.append(f"  graph {number}: " + "\n           ".join(map(str, nodes)))
        return "\n".join([*lines, *(f"  {act}" for act in self.acts)])


# What has to come out.


def mix(number: int, sums: list[int]) -> int:
    """The sum of a node."""
    total = number + 1
    for one in sums:
        total = (total * 31 + one) % 1_000_003
    return total


def sinks(nodes: Nodes) -> list[int]:
    """The numbers of the nodes that nobody takes: what a graph returns."""
    taken = {number for node in nodes for number in node.takes}
    return [node.number for node in nodes if node.number not in taken]


def expected(nodes: Nodes, x: int, calls: Counter[Path], inside: Path = ()) -> list[int]:
    """The sums that a graph returns for an input; counts how often each kernel is called."""
    sums: dict[int, int] = {}
    for node in nodes:
        path = (*inside, node.number)
        given = [sums[number] for number in node.takes] or [x]
        sums[node.number] = _expected_of(node, given, calls, path)
    return [sums[number] for number in sinks(nodes)]


def _expected_of(node: Node, given: list[int], calls: Counter[Path], path: Path) -> int:
    if node.kind == "plain":
        return max(given)
    own = mix(node.number, given)
    if node.kind == "map":
        calls[(*path, "split")] += 1
        calls[(*path, "join")] += 1
        results = [_called(node.inner, own + item, calls, path) for item in range(node.items)]
        return mix(node.number, given + results)
    if node.kind == "cond":
        calls[(*path, "ask")] += 1
        calls[(*path, "join")] += 1
        chosen = node.inner[:1] if given[0] % 2 else node.inner[1:]
        return mix(node.number, [*given, _called(chosen, given[0], calls, path)])
    calls[path] += 1
    if node.inner:
        return mix(node.number, expected(node.inner, own, calls, path))
    return own


def _called(nodes: Nodes, x: int, calls: Counter[Path], path: Path) -> int:
    return mix(0, expected(nodes, x, calls, path))


def every(nodes: Nodes, inside: Path = ()) -> Iterator[tuple[Path, Node]]:
    """All nodes, inner ones too."""
    for node in nodes:
        yield (*inside, node.number), node
        yield from every(node.inner, (*inside, node.number))


def length(program: Program) -> float:
    """Seconds that it takes if everything happens one after another, retries and waits included."""
    seconds = 0.0
    for act in program.acts:
        of_one = 0.0
        for path, node in every(program.graphs[act.graph]):
            # An inner node of a map comes once for each item; no deeper than two maps.
            times = 4 ** (len(path) - 1)
            of_one += times * (1 + node.retries) * (node.micros / 1e6 + 0.001)
        seconds += act.copies * of_one + (act.delay + (act.cancel or 0)) / 1e6
    seconds += sum(micros for micros, _ in program.resizes) / 1e6
    return seconds * program.rounds


# How they are made.


def compose(seed: int) -> Program:
    """The program of a seed."""
    random = Random(seed)
    threads = random.choice((1, 2, 2, 2, 3, 4, 8))
    resizes: tuple[tuple[int, int], ...] = ()
    if random.random() < 0.4:
        resizes = tuple((_moment(random), random.randint(1, 8)) for _ in range(random.randint(1, 5)))
    least = min([threads, *(to for _, to in resizes)])
    limits = tuple(random.randint(1, 3) for _ in range(random.choice((0, 0, 1, 2))))
    long = random.random() < 0.06
    loops = random.choice((1, 1, 1, 2, 3))
    sizes = [200 if long else random.choice((1, 3, 8, 25)) for _ in range(random.choice((1, 1, 2)))]
    graphs = [_graph(random, size, len(limits), depth=0) for size in sizes]
    acts = [_act(random, number, len(graphs), loops, long) for number in range(random.choice((1, 1, 2, 3, 5)))]
    if random.random() < 0.2 and least >= 2:
        graphs, acts = _meeting(random, graphs, acts, least)
    runtime = closes = None
    if random.random() < 0.2:
        runtime = random.randint(1, 3), random.choice((None, 0, 1, 3))
        if random.random() < 0.3:
            closes = _moment(random), random.choice((0, 0.001, 0.01, 10))
    rounds = random.choice((1, 1, 1, 2, 4))
    for place, act in enumerate(acts):
        if act.way == "debug" and _cancels_itself(graphs[act.graph]):
            acts[place] = replace(act, way="script")
        elif act.way == "await" and random.random() < 0.1:
            acts[place] = replace(act, left=True)
    return Program(
        seed,
        threads,
        tuple(graphs),
        tuple(acts),
        limits=limits,
        resizes=resizes,
        runtime=runtime,
        closes=closes,
        observed=random.random() < 0.2,
        rounds=1 if closes else rounds,
    )


def _cancels_itself(nodes: Nodes) -> bool:
    """Whether an async operator raises CancelledError, of which in `debug` the task is left to the collector."""
    return any(node.kind == "async" and node.fails == "CancelledError" for _, node in every(nodes))


def _moment(random: Random) -> int:
    return random.choice((0, random.randint(0, 300), random.randint(0, 2_000), random.randint(0, 10_000)))


def _act(random: Random, number: int, graphs: int, loops: int, long: bool) -> Act:
    way = random.choices(("await", "script", "debug", "tasks", "stream"), (8, 2, 0.4, 0 if long else 3, 4))[0]
    act = Act(
        name=f"act{number}",
        way=way,
        graph=random.randrange(graphs),
        loop=random.randrange(loops),
        delay=random.choice((0, _moment(random))),
        copies=random.choice((1, 1, 2, 3, 6)),
    )
    if way not in ("script", "debug") and random.random() < 0.35:
        act = replace(act, cancel=_moment(random), cancels=random.choice(("one", "all", "timeout")))
    if way != "stream":
        return act
    options: dict[str, Any] = {}
    if random.random() < 0.4:
        options["ordered"] = False
    if random.random() < 0.5:
        options["on_error"] = "yield"
    if random.random() < 0.3:
        options["in_flight"] = random.randint(1, 4)
    rest = random.random()
    if rest < 0.25:
        options["carry"] = True
    elif rest < 0.5:
        options["on_full"] = "drop_oldest"
    return replace(
        act,
        copies=random.choice((0, 1, 3, 8)),
        stream=options,
        leaves=random.choice((None, None, None, 0, 1, 2)),
        source=random.choice(("list", "generator", "async", "fails")),
    )


def _graph(random: Random, most: int, limits: int, depth: int) -> Nodes:
    count = random.randint(max(1, most // 2), most)
    shape = random.choice(("random", "chain", "wide", "diamonds"))
    tiny = most > 25 or random.random() < 0.25
    """Kernels that do nothing, nearly all of them."""
    troubled = random.random() < 0.4
    nodes: list[Node] = []
    for number in range(count):
        takes = _takes(random, shape, number)
        node = Node(number, takes)
        if random.random() < (0.05 if tiny else 0.95):
            node = _work(random, node, depth, limits, quick=most > 25)
        if random.random() < 0.1 and node.takes and node.kind in SIMPLE:
            node = replace(node, after=random.randrange(number))
        if troubled and node.kind in SIMPLE and random.random() < 1.5 / count:
            node = replace(node, fails=random.choice(("ValueError", "ValueError", *ERRORS)))
            if random.random() < 0.5:
                node = replace(node, retries=random.randint(1, 2), failing=random.choice((1, 1, 2, 1_000)))
        nodes.append(node)
    return tuple(nodes)


def _takes(random: Random, shape: str, number: int) -> tuple[int, ...]:
    if not number:
        return ()
    if shape == "chain":
        return (number - 1,)
    if shape == "wide":
        return () if random.random() < 0.9 else (random.randrange(number),)
    if shape == "diamonds":
        place = number % 4
        return (number - 1, number - 2) if place == 3 and number > 1 else (number - place if place else number - 1,)
    return tuple(sorted(random.sample(range(number), min(number, random.choice((0, 1, 1, 2, 3))))))


def _work(random: Random, node: Node, depth: int, limits: int, quick: bool) -> Node:
    kind = random.choices(
        ("kernel", "async", "plain", "run", "await", "map", "cond"),
        (10, 3, 1, *((1, 0.5, 0.7, 0.7) if depth < 2 else (0,) * 4)),
    )[0]
    if quick and kind in NESTING:
        kind = "kernel"
    node = replace(node, kind=kind)
    if kind in NESTING:
        few = 1 if kind in ("map", "cond") and random.random() < 0.6 else random.choice((1, 2, 5))
        inner = _graph(random, few, limits, depth + 1)
        if kind == "cond":
            inner = (replace(inner[0], number=0, takes=(), after=None), Node(1, (), "kernel"))
        return replace(node, inner=inner, items=random.choice((0, 1, 2, 4)) if kind == "map" else 0)
    if kind == "plain":
        return node if node.takes else replace(node, kind="kernel")
    micros = random.choice((0, 5, 20, 100) if quick else (0, 20, 100, 500, 1_500, 4_000))
    node = replace(node, does=random.choice(("nothing", "sleep", "spin", "numpy", "blas", "checks")), micros=micros)
    if node.does == "nothing" or (kind == "async" and node.does != "sleep"):
        node = replace(node, does="nothing" if kind == "kernel" or random.random() < 0.5 else "sleep")
    if node.does == "nothing":
        node = replace(node, micros=0)
    if random.random() < 0.06:
        node = replace(node, timeout=random.choice((0.0005, 0.003, 5.0)))
    if limits and random.random() < 0.2:
        node = replace(node, limit=random.randrange(limits))
    return node


def _meeting(random: Random, graphs: list[Nodes], acts: list[Act], slots: int) -> tuple[list[Nodes], list[Act]]:
    """Kernels of one run wait for each other: no more of them than there are slots, in all that goes on at once."""
    together = random.randint(2, slots)
    first = len(graphs[0])
    meeting = tuple(Node(first + place, (), does="meet", micros=together) for place in range(together))
    graphs = [graphs[0] + meeting, *graphs[1:]]
    # Of Tasks each is a run of its own: one that is cancelled would leave the others waiting.
    way = "await" if acts[0].way in ("tasks", "debug") else acts[0].way
    first_act = replace(acts[0], graph=0, copies=1, way=way)
    if len(graphs) == 1:
        return graphs, [first_act]
    return graphs, [first_act, *(replace(act, graph=len(graphs) - 1) for act in acts[1:])]


# How they are made smaller.


def simpler(program: Program) -> Iterator[tuple[str, Program]]:
    """Each program that lacks one part of this one, by the name of the part."""
    for act in program.acts:
        if len(program.acts) > 1:
            yield act.name, replace(program, acts=tuple(one for one in program.acts if one is not act))
        for name, changed in _simpler_act(act):
            yield (
                f"{act.name}.{name}",
                replace(program, acts=tuple(changed if one is act else one for one in program.acts)),
            )
    for number in range(len(program.resizes)):
        resizes = program.resizes[:number] + program.resizes[number + 1 :]
        yield f"resize{number}of{len(program.resizes)}", replace(program, resizes=resizes)
    if program.closes is not None:
        yield "closes", replace(program, closes=None)
    if program.runtime is not None:
        yield "runtime", replace(program, runtime=None, closes=None)
    if program.observed:
        yield "observed", replace(program, observed=False)
    if program.rounds > 1:
        yield "rounds", replace(program, rounds=1)
    for place, nodes in enumerate(program.graphs):
        for name, smaller in _simpler_graph(nodes):
            graphs = (*program.graphs[:place], smaller, *program.graphs[place + 1 :])
            yield f"graph{place}.{name}", replace(program, graphs=graphs)


def without(program: Program, parts: list[str]) -> Program:
    """The program without these parts, dropped one after another."""
    for part in parts:
        found = dict(simpler(program))
        program = found[part]
    return program


def _simpler_act(act: Act) -> Iterator[tuple[str, Act]]:
    if act.copies > 1:
        yield "copies", replace(act, copies=1)
    if act.cancel is not None:
        yield "cancel", replace(act, cancel=None)
    if act.left:
        yield "left", replace(act, left=False)
    if act.delay:
        yield "delay", replace(act, delay=0)
    if act.leaves is not None:
        yield "leaves", replace(act, leaves=None)
    if act.loop:
        yield "loop", replace(act, loop=0)
    if act.source != "list":
        yield "source", replace(act, source="list")
    for name in act.stream:
        yield name, replace(act, stream={key: value for key, value in act.stream.items() if key != name})


def _simpler_graph(nodes: Nodes) -> Iterator[tuple[str, Nodes]]:
    for half, kept in (("first", nodes[: len(nodes) // 2]), ("second", nodes[len(nodes) // 2 :])):
        if len(nodes) > 3 and not any(node.does == "meet" for node in nodes):
            yield f"only_{half}_of_{len(nodes)}", _closed(kept)
    for node in nodes:
        if len(nodes) > 1 and node.does != "meet":
            yield f"node{node.number}", _closed(tuple(one for one in nodes if one is not node))
        plain = Node(node.number, node.takes)
        if node.does == "meet" or node == plain:
            continue
        yield f"node{node.number}.all", _with(nodes, node, plain)
        for name in ("fails", "timeout", "retries", "limit", "after"):
            default = getattr(plain, name)
            if getattr(node, name) != default:
                yield f"node{node.number}.{name}", _with(nodes, node, replace(node, **{name: default}))
        if len(node.inner) > 1 and node.kind != "cond":
            for name, inner in _simpler_graph(node.inner):
                yield f"node{node.number}.{name}", _with(nodes, node, replace(node, inner=inner))


def _with(nodes: Nodes, node: Node, changed: Node) -> Nodes:
    return tuple(changed if one is node else one for one in nodes)


def _closed(nodes: Nodes) -> Nodes:
    """Without what refers to nodes that are gone."""
    there = {node.number for node in nodes}
    return tuple(
        replace(
            node,
            takes=tuple(number for number in node.takes if number in there),
            after=node.after if node.after in there else None,
            kind="kernel" if node.kind == "plain" and not there & set(node.takes) else node.kind,
        )
        for node in nodes
    )
