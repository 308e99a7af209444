"""Containers that operators change though they are not theirs: seen by all, or an error with a remedy; never lost."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow


@dataclass
class Record:
    mean: Any
    count: int = 0
    _cache: Any = None
    history: list[Any] = field(default_factory=list)

    @functools.cached_property
    def doubled(self) -> Any:
        return self.mean * 2


class Pair(NamedTuple):
    first: Any
    notes: list[Any]


def a() -> np.ndarray[Any, Any]:
    return np.zeros(3)


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "dict new": (lambda: {"w": a()}, lambda d: d.update(x=1)),
    "dict replaced": (lambda: {"w": a(), "n": 1}, lambda d: d.update(n=2)),
    "dict popped": (lambda: {"w": a(), "n": 1}, lambda d: d.pop("n")),
    "dict renamed": (lambda: {"w": a(), "n": 1}, lambda d: d.update(m=d.pop("n"))),
    "dict inner": (lambda: {"w": a(), "in": {"b": a()}}, lambda d: d["in"].update(n=2)),
    "list append": (lambda: [a()], lambda v: v.append(1)),
    "list sort": (lambda: [a(), 2, 1], lambda v: v.reverse()),
    "list item": (lambda: [a(), 2], lambda v: v.__setitem__(0, a())),
    "deque": (lambda: deque([a()], maxlen=1), lambda v: v.append(1)),
    "namedtuple": (lambda: Pair(a(), [a()]), lambda v: v.notes.clear()),
    "tuple": (lambda: (1, [a()]), lambda v: v[1].clear()),
    "record": (lambda: Record(a()), lambda r: setattr(r, "count", 1)),
    "record inner": (lambda: Record(a(), history=[a()]), lambda r: r.history.append(1)),
}


@pytest.fixture(params=CHANGES, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return CHANGES[request.param]


def changing(change: Callable[[Any], Any], **options: Any) -> Any:
    @flow.op(**options)
    def spoil(value: Any, x: Any) -> Any:
        change(value)
        return x

    return spoil


REFUSED = r"'spoil' changed a \w+ that others read as well"


def test_of_the_caller(case: Any) -> None:
    make, change = case
    spoil = changing(change)

    @flow.pipeline
    def p(value: Any, x: Any) -> Any:
        return spoil(value, x)

    for _ in range(2):
        given = make()
        before = str(given)
        with pytest.raises(ValueError, match=REFUSED) as error:
            p.run(given, 1)
        assert "spoil" in error.value.__notes__[0]
        assert str(given) == before


def test_a_constant_from_outside(case: Any) -> None:
    make, change = case
    constant = make()
    spoil = changing(change)

    @flow.pipeline
    def p(x: Any) -> Any:
        return spoil(constant, x=x)

    with pytest.raises(ValueError, match=REFUSED):
        p.run(1)


def test_a_result_that_others_read(case: Any) -> None:
    make, change = case
    spoil, make_one, read = changing(change), flow.op(make), flow.op(lambda value: len(str(value)))

    @flow.pipeline
    def p(x: Any) -> Any:
        made = make_one()
        return spoil(made, x), read(made)

    with pytest.raises(ValueError, match=REFUSED):
        p.run(1)

    @flow.pipeline
    def alone(x: Any) -> Any:
        return spoil(make_one(), x)

    assert alone.run(1) == 1, "what it alone reads is its own"


def test_the_remedies(case: Any) -> None:
    make, change = case
    expected, given = make(), make()
    change(expected)

    @flow.pipeline
    def p(value: Any, x: Any) -> Any:
        return spoil(value, x)

    spoil = changing(change, inout="value")
    p.run(given, 1)
    assert str(given) == str(expected)

    spoil = changing(change, writes="value")
    given = make()
    p.run(given, 1)
    assert str(given) == str(make())


def test_in_an_async_operator_and_on_the_second_run(case: Any) -> None:
    make, change = case
    wanted = False

    @flow.op
    async def spoil(value: Any, x: Any) -> Any:
        await asyncio.sleep(0)
        if wanted:
            change(value)
        return x

    @flow.pipeline
    def p(value: Any, x: Any) -> Any:
        return spoil(value, x)

    assert p.run(1.0, 1) == 1
    assert p.run(make(), 1) == 1
    wanted = True
    with pytest.raises(ValueError, match=REFUSED):
        p.run(make(), 1)


def test_with_retries_and_in_debug(case: Any) -> None:
    make, change = case
    spoil = changing(change)

    @flow.pipeline
    def p(value: Any, x: Any) -> Any:
        return spoil(value, x)

    with pytest.raises(ValueError, match=REFUSED):
        p.debug(make(), 1)


def test_what_is_no_change() -> None:
    @flow.op
    def look(record: Record, parts: Any) -> float:
        record._cache = 1
        for name in list(parts):
            parts[name] = parts[name]
        return float(record.doubled.sum()) + sum(map(len, parts.values()))

    @flow.pipeline
    def p(record: Any, parts: Any) -> Any:
        return look(record, parts), look(record, parts)

    assert p.run(Record(np.ones(2)), {"a": a(), "b": a()}) == (10.0, 10.0)


def test_without_arrays_it_is_the_object_itself() -> None:
    seen: list[Any] = []

    @flow.op
    def remember(into: Any, x: Any) -> Any:
        into.append(x)
        return x

    @flow.pipeline
    def p(x: Any) -> Any:
        return remember(seen, x)

    p.run(1)
    p.run(2)
    assert seen == [1, 2]


def test_what_is_changed_and_read_in_one_call() -> None:
    """The caller's own is changed, as was declared; what is read beside it is a copy of the moment of the call."""

    @flow.op(inout="out")
    def move(out: Any, source: Any) -> Any:
        out["n"] = out.get("n", 0) + 1
        return len(source)

    @flow.pipeline
    def p(d: Any) -> Any:
        return move(d, d), move(d, source=[d][0])

    given = {"w": a()}
    p.run(given)
    assert given["n"] == 2


def test_a_write_into_an_array_of_a_nested_container_is_an_error_with_retries_too() -> None:
    @flow.op(retries=1, retry_on=(OSError,))
    def spoil(parts: Any) -> float:
        parts[0]["a"] += 1
        return 0.0

    @flow.pipeline
    def p(d: Any) -> Any:
        return spoil([d])

    given = {"a": a()}
    with pytest.raises(ValueError, match="read-only"):
        p.run(given)
    assert not given["a"].any()


@dataclass
class Image:
    _pixels: Any
    pixels: Any = None


def pixels(self: Image) -> Any:
    return self._pixels.view()


Image.pixels = property(pixels, lambda self, value: None)  # type: ignore[assignment]


def test_a_property_that_gives_something_new_each_time_is_no_change() -> None:
    @flow.op
    def total(image: Image) -> float:
        return float(image.pixels.sum())

    @flow.pipeline
    def p(image: Any) -> Any:
        return total(image), total(image)

    assert p.run(Image(np.ones(2))) == (2.0, 2.0)


def test_a_very_large_one_is_not_compared() -> None:
    @flow.op
    def add(value: Any) -> int:
        value["n"].append(1)
        return len(value["n"])

    @flow.pipeline
    def p(value: Any) -> Any:
        return add(value)

    assert p.run({"w": a(), "n": [1.0] * 20_000}) == 20_001


# ------------------------------------------------------------------------------------- containers around nodes


AROUND: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "dict": (lambda x: {"x": x}, lambda d: d.update(y=1)),
    "dict popped": (lambda x: {"x": x, "n": 1}, lambda d: d.pop("n")),
    "list": (lambda x: [x, 1], lambda v: v.append(1)),
    "list sorted": (lambda x: [x, 2, 1], lambda v: v.reverse()),
    "deque": (lambda x: deque([x], maxlen=1), lambda v: v.append(1)),
    "record": (Record, lambda r: setattr(r, "count", 1)),
    "inner": (lambda x: {"in": [{"x": x}]}, lambda d: d["in"][0].update(y=1)),
    "inner tuple": (lambda x: ([x], 1), lambda pair: pair[0].append(1)),
    "inner record": (lambda x: Record(1, history=[x]), lambda r: r.history.append(1)),
}

inc = flow.op(lambda x: x + 1)


@flow.op
def shown(container: Any) -> str:
    return repr(container)


@pytest.fixture(params=AROUND, ids=lambda name: name.replace(" ", "-"))
def around(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return AROUND[request.param]


@pytest.mark.parametrize("x", [1, np.zeros(2)], ids=["number", "array"])
@pytest.mark.parametrize("way", ["run", "debug"])
@pytest.mark.parametrize("later", ["read", "read inside", "returned", "by name"])
@pytest.mark.parametrize("is_async", [False, True], ids=["kernel", "async"])
def test_one_around_nodes_that_is_read_later(around: Any, later: str, way: str, x: Any, is_async: bool) -> None:
    make, change = around

    def changing(container: Any) -> None:
        change(container)

    async def changing_on_loop(container: Any) -> None:
        await asyncio.sleep(0)
        change(container)

    changes: Any = flow.op(changing_on_loop) if is_async else flow.op(changing)

    @flow.pipeline
    def p(x: Any) -> Any:
        container = make(inc(x))
        if later == "by name":
            changes(container=container)
        else:
            changes(container)
        if later == "returned":
            return container
        return shown([container] if later == "read inside" else container)

    with pytest.raises(ValueError, match=r"'changing\w*' changed a \w+ that the body goes on with"):
        getattr(p, way)(x)


def test_one_around_nodes_that_nobody_reads_later(around: Any) -> None:
    make, change = around
    changes = flow.op(change)

    @flow.pipeline
    def p(x: Any) -> Any:
        container = make(inc(x))
        before = shown(container)
        changes(container)
        return before, shown(make(inc(x)))

    told = repr(make(2))
    assert p.run(1) == (told, told)


def test_one_around_nodes_that_an_operator_writes_into(around: Any) -> None:
    make, change = around
    changes = flow.op(lambda container: change(container), writes=("container",))

    @flow.pipeline
    def p(x: Any) -> Any:
        container = make(inc(x))
        changes(container)
        return shown(container)

    assert p.run(1) == repr(make(2))


def test_the_remedies_of_one_around_nodes() -> None:
    @flow.op
    def added(d: dict[str, Any]) -> dict[str, Any]:
        return {**d, "n": 1}

    @flow.op(inout=("d",))
    def add(d: dict[str, Any]) -> None:
        d["n"] = 1

    @flow.pipeline
    def p(x: Any) -> Any:
        new = added({"x": x})
        made = flow.op(dict)(x=x)
        before = shown(made)
        add(made)
        return shown(new), before, shown(made)

    for x in (1, np.zeros(2)):
        told = repr({"x": x, "n": 1})
        assert p.run(x) == (told, repr({"x": x}), told)


def test_one_around_nodes_in_derived_pipelines_and_maps() -> None:
    @flow.op
    def add(d: dict[str, Any]) -> int:
        d["n"] = 1
        return len(d)

    @flow.pipeline
    def p(x: Any) -> Any:
        d = {"x": inc(x)}
        flow.label(add(d), "added")
        return flow.label(shown(d), "shown")

    q = flow.pipeline(lambda xs: flow.map(p, xs))
    r = flow.pipeline(lambda x: p(x))
    for pipeline, given in ((p.select("added", "shown"), 1), (q, [1, 2]), (r, 1)):
        with pytest.raises(ValueError, match="changed a dict"):
            pipeline.run(given)
    assert p.select("shown").run(1) == "{'x': 2}"
    assert p.replace({add: lambda d: 0}).run(1) == "{'x': 2}"


def test_attempts_find_one_around_nodes_as_it_was() -> None:
    attempts = []

    @flow.op(retries=1, backoff=0)
    def fails(d: dict[str, Any]) -> int:
        attempts.append(dict(d))
        d["n"] = 1
        raise KeyError("no")

    @flow.pipeline
    def p(x: Any) -> Any:
        d = {"x": inc(x)}
        return fails(d), shown(d)

    with pytest.raises(KeyError):
        p.run(1)
    assert attempts == [{"x": 2}, {"x": 2}]


OVERTAKEN: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1], lambda v: v.append(1)),
    "dict": (lambda: {"n": 1}, lambda d: d.update(n=2)),
    "set": (lambda: {1}, lambda s: s.add(2)),
    "deque": (lambda: deque([1]), lambda v: v.append(2)),
    "bytearray": (lambda: bytearray(b"ab"), lambda v: v.__setitem__(0, 0)),
    "numbers": (lambda: array("i", [1]), lambda v: v.append(2)),
    "counter": (lambda: Counter("a"), lambda c: c.update("b")),
    "record": (lambda: Record(1), lambda r: setattr(r, "count", 1)),
    "inner": (lambda: {"in": [1]}, lambda d: d["in"].append(1)),
    "arrays": (lambda: {"w": a(), "n": 1}, lambda d: d.update(n=2)),
}


@pytest.mark.parametrize("case", OVERTAKEN, ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize("around", [False, True], ids=["alone", "inside"])
def test_one_that_the_body_changes_after_an_operator_was_given_it(case: str, around: bool) -> None:
    make, change = OVERTAKEN[case]
    changes = flow.op(lambda given, x: change(given["it"] if around else given))

    @flow.pipeline(static=("goes_on",))
    def p(x: Any, goes_on: bool) -> Any:
        own = make()
        changes({"it": own, "x": x} if around else own, x)
        if goes_on:
            change(own)
        return inc(x)

    with pytest.raises(ValueError, match=r"changed a \w+ that the body goes on with"):
        p.run(1, True)
    if case != "arrays":  # one that is protected is watched in any case
        assert p.run(1, False) == 2


def test_one_that_the_body_changes_and_operators_do_not() -> None:
    @flow.pipeline
    def p(x: Any) -> Any:
        names: list[str] = []
        told = []
        for name in "abc":
            names.append(name)
            told.append(shown([names, x]))
        return told

    assert p.run(1) == ["[['a'], 1]", "[['a', 'b'], 1]", "[['a', 'b', 'c'], 1]"]


# ------------------------------------------------------------------------------- objects that the body made


class Tally:
    def __init__(self) -> None:
        self.count = 0
        self.seen: list[Any] = []
        self._cache: Any = None

    @functools.cached_property
    def size(self) -> int:
        return len(self.seen)


class Slotted:
    __slots__ = ("inner",)

    def __init__(self) -> None:
        self.inner = {"n": 0}


class Registry(dict[str, Any]):
    def __init__(self, **known: Any) -> None:
        super().__init__(**known)
        self.hits = 0


class Names(list[str]):
    def append(self, name: str) -> None:
        super().append(name.lower())


OBJECTS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "number": (Tally, lambda t: setattr(t, "count", t.count + 1)),
    "list": (Tally, lambda t: t.seen.append(1)),
    "slots": (Slotted, lambda s: s.inner.update(n=1)),
    "items": (Registry, lambda r: r.update(a=1)),
    "hits": (Registry, lambda r: setattr(r, "hits", 1)),
    "names": (Names, lambda n: n.append("A")),
    "deleted": (Tally, lambda t: delattr(t, "seen")),
}
PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "alone": lambda thing, x: thing,
    "tuple": lambda thing, x: (1, thing),
    "inside": lambda thing, x: {"thing": [thing], "n": 1},
    "beside a node": lambda thing, x: [x, thing],
    "deeper": lambda thing, x: [{"thing": [(1, thing)]}, {"thing": [(x, thing)]}],
}


def found(given: Any) -> Any:
    while not isinstance(given, (Tally, Slotted, Registry, Names)):
        given = given["thing"] if isinstance(given, dict) else given[-1] if len(given) > 1 else given[0]
    return given


@pytest.mark.parametrize("place", PLACES, ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize("case", OBJECTS)
@pytest.mark.parametrize("is_async", [False, True], ids=["kernel", "async"])
def test_an_object_that_the_body_made(case: str, place: str, is_async: bool) -> None:
    """All runs have the same: each would see what others did to it."""
    make, change = OBJECTS[case]

    def changing(given: Any, x: Any) -> None:
        change(found(given))

    async def changing_on_loop(given: Any, x: Any) -> None:
        change(found(given))

    changes: Any = flow.op(changing_on_loop) if is_async else flow.op(changing)
    kind = make.__name__

    p = flow.pipeline(lambda x: changes(PLACES[place](make(), x), x))
    with pytest.raises(ValueError, match=rf"changed a {kind} that the body made.*flow.op\({kind}\)\(...\)"):
        p.run(1)

    made = flow.op(make)

    @flow.pipeline
    def remedy(x: Any) -> Any:
        own = made()
        with flow.after(changes(PLACES[place](own, x), x)):
            return flow.op(lambda thing: (vars(thing) if hasattr(thing, "__dict__") else thing.inner, repr(thing)))(own)

    assert repr(remedy.run(1)[0]) == repr(remedy.run(1)[0])


@pytest.mark.parametrize("place", PLACES, ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize("case", OBJECTS)
def test_an_object_from_outside_of_the_body(case: str, place: str) -> None:
    """It is that very object, in all runs; also if only something from outside holds it."""
    make, change = OBJECTS[case]
    outside, plain = make(), make()
    change(plain)
    changes = flow.op(lambda given, x: change(found(given)))
    flow.pipeline(lambda x: changes(PLACES[place](outside, x), x)).run(1)
    around = [PLACES[place](make(), 1)]
    flow.pipeline(lambda x: changes(around[0], x)).run(1)
    assert [*contents(found(around[0]))] == [*contents(plain)]
    assert [*contents(outside)] == [*contents(plain)]


def contents(thing: Any) -> Any:
    yield repr(getattr(thing, "__dict__", None)) if isinstance(thing, (Registry, Names)) else ""
    yield thing.inner if isinstance(thing, Slotted) else {n: v for n, v in vars(thing).items() if n != "x"}
    yield list(thing) if isinstance(thing, (dict, list)) else []


def test_what_is_no_change_of_an_object_that_the_body_made() -> None:
    def looks(tally: Tally, x: Any) -> Any:
        tally._cache = x  # was None: something computed once
        return tally.size + tally.count + len(tally.seen) + x

    p = flow.pipeline(lambda x: flow.op(looks)(Tally(), x))
    assert [p.run(1), p.run(1)] == [1, 1]


def test_an_object_that_the_body_made_and_keeps() -> None:
    """What others have as well is theirs."""
    kept = []

    @flow.op
    def changes(tally: Tally, x: Any) -> int:
        tally.count += 1
        return tally.count

    @flow.pipeline
    def p(x: Any) -> Any:
        kept.append(Tally())
        return changes(kept[0], x)

    assert [p.run(1), p.run(1)] == [1, 2]


class Job:
    def __init__(self, number: int) -> None:
        self.number = number


def test_objects_that_operators_take_out_of_a_list_of_the_body() -> None:
    shared = Job(0)
    pop = flow.op(lambda jobs: jobs.pop(0).number)
    swap = flow.op(lambda jobs, job: jobs.__setitem__(0, job))
    add = flow.op(lambda jobs, x: setattr(jobs[0], "number", jobs[0].number + x))

    @flow.pipeline
    def p(x: Any) -> Any:
        jobs = [Job(1), Job(2)]
        first = pop(jobs)
        with flow.after(first):
            second = pop(jobs)
        return first, second, x

    @flow.pipeline
    def q(x: Any) -> Any:
        jobs = [Job(1)]
        with flow.after(swap(jobs, shared)):
            return add(jobs, x)

    assert [p.run(1), p.run(1)] == [(1, 2, 1)] * 2
    q.run(3)
    assert shared.number == 3


class Logger:
    def __init__(self, log: list[Any]) -> None:
        self.log = log


class SlottedLogger:
    __slots__ = ("log",)

    def __init__(self, log: list[Any]) -> None:
        self.log = log


@pytest.mark.parametrize("kind", [Logger, SlottedLogger])
def test_what_is_from_outside_in_something_of_the_body(kind: Any) -> None:
    """It may be changed: it is the same for everybody."""
    log: list[Any] = []
    cache: dict[str, int] = {}
    writes = flow.op(lambda logger, x: logger.log.append(x))
    fill = flow.op(lambda held: held[0].update(n=1))
    size = flow.op(lambda held: len(held[0]))

    @flow.pipeline
    def p(x: Any) -> Any:
        held: list[Any] = [cache]
        filled = fill(held)
        held.append(1)
        with flow.after(filled, writes(kind(log), x)):
            return size(held)

    assert [p.run(1), p.run(2)] == [1, 1]
    assert (log, cache) == ([1, 2], {"n": 1})


def test_objects_of_libraries_are_their_own_affair() -> None:
    """Locks count, and much is computed once."""

    @flow.op
    def uses(lock: Any, formatter: Any, x: Any) -> str:
        with lock:
            record = logging.LogRecord("a", 1, "b", 2, f"{x}", (), None)
            return str(formatter.format(record))

    p = flow.pipeline(lambda x: [uses(threading.Semaphore(2), logging.Formatter(), x) for _ in range(2)])
    assert p.run(1) == ["1", "1"]


def test_attributes_whose_names_are_no_texts() -> None:
    odd = flow.op(lambda tally, x: tally.__dict__.update({1: x}) or x)

    @flow.pipeline
    def p(x: Any) -> Any:
        tally: Any = Tally()
        tally.__dict__[2] = None
        return odd(tally, x)

    assert p.run(1) == 1


def test_changes_by_way_of_map_cond_and_derived_pipelines() -> None:
    add = flow.op(lambda d: d.update(n=1))

    def mapped(x: Any) -> Any:
        d = {"x": x}
        with flow.after(flow.map(add, [d])):
            return shown(d)

    def chosen(x: Any) -> Any:
        d = {"x": x}
        with flow.after(flow.cond(x > 0, add, add, d)):
            return shown(d)

    def overtaken(x: Any) -> Any:
        d: dict[str, Any] = {}
        changed = flow.cond(x > 0, add, add, d)
        d["k"] = 2
        with flow.after(changed):
            return shown(d)

    @flow.pipeline
    def base(x: Any) -> Any:
        d = {"x": x}
        with flow.after(add(d)):
            return flow.label(shown(d), "a")

    derived = base.select("a")
    bodies: list[Any] = [mapped, chosen, overtaken, lambda x: derived(x)]
    for body in bodies:
        with pytest.raises(ValueError, match="changed a dict that the body goes on with"):
            flow.pipeline(body).run(1)


@dataclass
class Bag(list[Any]):
    tag: str = ""


@dataclass
class TaggedDict(dict[str, Any]):
    tag: str = ""


@pytest.mark.parametrize("kind", [Bag, TaggedDict])
def test_a_dataclass_that_is_a_container_as_well(kind: Any) -> None:
    looks = flow.op(lambda bag, x: (len(bag), bag.tag))
    fills = flow.op(lambda bag, x: bag.append(x) if isinstance(bag, list) else bag.update(n=x))

    def made() -> Any:
        bag = kind("tag")
        if isinstance(bag, list):
            bag.append(1)
        else:
            bag["a"] = 1
        return bag

    p, q = flow.pipeline(lambda x: looks(made(), x)), flow.pipeline(lambda x: fills(made(), x))
    assert p.run(1) == (1, "tag")
    with pytest.raises(ValueError, match=f"changed a {kind.__name__} that the body made"):
        q.run(1)
