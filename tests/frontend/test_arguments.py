"""What is no value, or is there only once: coroutines and Tasks, iterators, and what merely can be awaited as well."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import itertools
import sys
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


@flow.op
def increment(x: Any) -> Any:
    return x + 1


@flow.op
def listed(items: Any) -> list[Any]:
    return list(items)


@flow.op
def counted(items: Any, *_: Any) -> int:
    return sum(1 for _ in items)


@flow.op
async def listed_on_loop(items: Any) -> list[Any]:
    return list(items)


async def fetch(x: Any = 1) -> Any:
    return x


@dataclass
class Record:
    value: Any
    more: Any = field(default_factory=list)


class Pair(NamedTuple):
    left: Any
    right: Any


INSIDE: dict[str, Callable[[Any], Any]] = {
    "itself": lambda later: later,
    "list": lambda later: [1, later],
    "deep": lambda later: {"a": (1, [2, {"b": [later]}])},
    "tuple": lambda later: (later,),
    "namedtuple": lambda later: Pair(later, 1),
    "dict": lambda later: {"k": later},
    "set": lambda later: {later},
    "deque": lambda later: [deque([later])],
    "dataclass": lambda later: Record(later),
}
"""Where a Task is waited for by `start`."""
HIDDEN: dict[str, Callable[[Any], Any]] = {
    "OrderedDict": lambda later: OrderedDict(k=later),
    "defaultdict": lambda later: defaultdict(list, k=later),
    "frozenset": lambda later: [frozenset([later])],
    "values": lambda later: {"k": later}.values(),
    "items": lambda later: {"k": later}.items(),
    "view of an OrderedDict": lambda later: OrderedDict(k=later).values(),
    "proxy": lambda later: MappingProxyType({"k": later}),
    "key": lambda later: {later: 1},
    "generator": lambda later: (each for each in [later]),
    "generator over a variable": lambda later: (later for _ in range(1)),
    "iterator": lambda later: iter([later]),
    "map": lambda later: map(str, (later,)),
    "zip": lambda later: zip([1], [later]),
    "kind of list": lambda later: type("Items", (list,), {})([later]),
}


@pytest.fixture(autouse=True)
def _nothing_is_left_unawaited() -> Iterator[None]:
    """A coroutine that was refused is closed: no warning comes after the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unraisable: list[Any] = []
        hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
        try:
            yield
            gc.collect()
        finally:
            sys.unraisablehook = hook
        assert not [each.exc_value for each in unraisable if isinstance(each.exc_value, RuntimeWarning)]


# ------------------------------------------------------------------------------------------------ a forgotten @op


class Service:
    async def load(self, x: Any) -> Any:
        return x


FORGOTTEN: dict[str, Callable[[Any], Any]] = {
    "returned": lambda x: fetch(x),
    "returned in a list": lambda x: [x, {"a": fetch(x)}],
    "given to an operator": lambda x: increment(fetch(x)),
    "given by name": lambda x: increment(x=fetch(x)),
    "added": lambda x: x + fetch(x),
    "given to numpy": lambda x: np.add(fetch(x), x),
    "in a set": lambda x: listed({fetch(x)}),
    "in a deque": lambda x: listed(deque([fetch(x)])),
    "in a view": lambda x: listed({"a": fetch(x)}.values()),
    "for each item": lambda x: flow.map(increment, [fetch(x), fetch(x)]),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_an_async_def_that_is_no_operator_is_refused_at_the_trace(name: str) -> None:
    p = flow.pipeline(FORGOTTEN[name])
    with pytest.raises(
        flow.TraceError, match=r"the coroutine 'fetch'.*test_arguments\.py:\d+: put @flow\.op above `as"
    ):
        p.graph()


def test_the_remedy_for_a_forgotten_operator_is_one(run_async: Runner) -> None:
    with pytest.raises(flow.TraceError, match=r"'Service\.load'.*@flow\.op above `async def load`"):
        flow.pipeline(lambda x: Service().load(x)).graph()
    fetches = flow.op(fetch)
    assert run_async(flow.pipeline(lambda x: increment(fetches(x)))(1)) == 2


def test_a_future_of_a_body_is_refused(run_async: Runner) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        task = increment.start(1)
        for later, name in ((future, "an asyncio Future"), (asyncio.create_task(fetch()), "an asyncio Task")):
            with pytest.raises(flow.TraceError, match=f"{name}, which is no value yet, .*: await it before"):
                flow.pipeline(lambda x, later=later: increment(later)).graph()
        for inside in (lambda: task, lambda: [task], lambda: {"a": task}, lambda: {task}):
            with pytest.raises(flow.TraceError, match=r"a Task, which is no value yet, .*: await it before"):
                flow.pipeline(lambda x, inside=inside: (x, inside())).graph()
        assert await flow.pipeline(lambda x, y: x + y)(await future, await task) == 3

    run_async(main())


# ------------------------------------------------------------------------------------------------ arguments of runs


class Model:
    @flow.pipeline
    def forward(self, x: Any, y: Any = None) -> Any:
        return counted([x, y])


CALLS: dict[str, Callable[[], Callable[..., Any]]] = {
    "call": lambda: flow.pipeline(lambda x: counted([x])),
    "run": lambda: flow.pipeline(lambda x: counted([x])).run,
    "debug": lambda: flow.pipeline(lambda x: counted([x])).debug,
    "method": lambda: Model().forward,
    "on a runtime": lambda: flow.pipeline(lambda x: counted([x])).on(flow.Runtime(max_runs=1)),
    "bind": lambda: lambda x: flow.pipeline(lambda x: counted([x])).bind(x=x),
    "tree": lambda: flow.pipeline(tree=("x",))(lambda x: listed([x])),
    "unread": lambda: flow.pipeline(lambda x: 1),
}


@pytest.mark.parametrize("how", CALLS)
@pytest.mark.parametrize("where", INSIDE | HIDDEN)
def test_a_coroutine_is_no_argument_of_a_run(how: str, where: str) -> None:
    if how == "tree" and where in ("OrderedDict", "defaultdict", "kind of list", "key"):
        return  # the placeholders in it are refused before
    call = CALLS[how]()
    given = (INSIDE | HIDDEN)[where](fetch(5))
    with pytest.raises(TypeError, match=r"[\"']x.*the coroutine 'fetch'.*pass what `await fetch\(\.\.\.\)` gives"):
        call(given)


def test_nor_are_tasks_and_futures(run_async: Runner) -> None:
    p = flow.pipeline(lambda x, rest=None: increment(x))

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result(4)
        for later, named in (
            (increment.start(3), "a Task"),
            (asyncio.create_task(fetch(4)), "an asyncio Task"),
            (future, "an asyncio Future"),
        ):
            with pytest.raises(TypeError, match=f"argument 'x' is {named}, .*: await it before, and pass its result"):
                p(later)
            with pytest.raises(TypeError, match=f"argument 'rest' holds {named}, "):
                p(1, rest={"k": [later]})
            assert await p(await later) == 5

    run_async(main())


def test_in_a_stream_it_is_the_failure_of_its_item(run_async: Runner) -> None:
    async def main() -> None:
        stream = flow.pipeline(lambda x: increment(x)).stream([1, fetch(), 3], on_error="yield", in_flight=1)
        one, bad, three = [y async for y in stream]
        assert (one, three) == (2, 4)
        assert isinstance(bad, TypeError)
        assert "the coroutine 'fetch'" in str(bad)

    run_async(main())


def test_of_a_long_list_the_beginning_is_looked_at(run_async: Runner) -> None:
    p = flow.pipeline(lambda xs: counted(xs))
    with pytest.raises(TypeError, match="holds the coroutine 'fetch'"):
        p.run([*range(500), fetch()])
    assert p.run([0.5] * 1_000_000) == 1_000_000


# ------------------------------------------------------------------------------------------------ arguments of start


@pytest.mark.parametrize("where", INSIDE | HIDDEN)
def test_a_coroutine_is_no_argument_of_start(run_async: Runner, where: str) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"was given the coroutine 'fetch'.*`await fetch\(\.\.\.\)`"):
            listed.start((INSIDE | HIDDEN)[where](fetch(5)))
        fetched = flow.op(fetch)
        assert await listed.start([await fetch(5)]) == await listed.start([fetched.start(5)]) == [5]

    run_async(main())


@pytest.mark.parametrize("where", INSIDE)
def test_a_task_is_waited_for_where_it_is_documented(run_async: Runner, where: str) -> None:
    same = flow.op(lambda x: x)

    async def main() -> None:
        assert await same.start(INSIDE[where](increment.start(1))) == INSIDE[where](2)

    run_async(main())


@pytest.mark.parametrize("where", HIDDEN)
def test_a_task_elsewhere_is_refused(run_async: Runner, where: str) -> None:
    async def main() -> None:
        task = increment.start(1)
        with pytest.raises(TypeError, match=r"was given a Task inside of .* put it into a list, a tuple"):
            listed.start((INSIDE | HIDDEN)[where](task))
        assert await listed.start([task]) == await listed.start([await task]) == [2]

    run_async(main())


def test_a_million_numbers_and_a_task_among_them(run_async: Runner) -> None:
    async def main() -> None:
        numbers: list[Any] = [0.5] * 1_000_000
        assert await counted.start(numbers) == 1_000_000
        numbers[700_000] = increment.start(1)
        counts = await flow.op(lambda xs: (len(xs), xs[700_000], xs[-1])).start(numbers)
        assert counts == (1_000_000, 2, 0.5)
        numbers[700_000] = fetch()
        with pytest.raises(TypeError, match="the coroutine 'fetch'"):
            await counted.start(numbers)

    run_async(main())


def test_what_holds_no_task_is_passed_as_it_is_and_what_is_shared_stays_shared(run_async: Runner) -> None:
    seen: list[Any] = []

    @flow.op
    def keep(*args: Any) -> None:
        seen.append(args)

    async def main() -> None:
        task = increment.start(1)
        plain, holder = [1, 2], [task]
        record = Record(holder, more=plain)
        loop: list[Any] = [task]
        loop.append((loop,))
        await keep.start(plain, holder, {"a": holder, "b": (plain, task)}, record, loop)
        assert holder == [task]
        assert record.value is holder

    run_async(main())
    ((plain, holder, both, record, loop),) = seen
    assert (plain, holder) == ([1, 2], [2])
    assert both == {"a": [2], "b": ([1, 2], 2)}
    assert both["a"] is holder is record.value
    assert record.more is plain
    assert loop[0] == 2
    assert loop[1][0] is loop


def test_a_list_may_be_used_again_once_start_has_returned(run_async: Runner) -> None:
    async def main() -> None:
        batch, sums = [], []
        for x in range(6):
            batch.append(increment.start(x))
            if len(batch) == 3:
                sums.append(flow.op(sum).start(batch))
                batch.clear()
        assert [await each for each in sums] == [6, 15]

    run_async(main())


def test_depth_is_no_matter_of_the_stack(run_async: Runner) -> None:
    @flow.op
    def depth(nested: Any) -> int:
        deep = 0
        while isinstance(nested, (list, tuple)):
            nested, deep = nested[0], deep + 1
        return deep if nested == 2 else -1

    async def main() -> None:
        nested: Any = increment.start(1)
        for level in range(50_000):
            nested = [nested] if level % 2 else (nested,)
        assert await depth.start(nested) == 50_000

    run_async(main())


# ------------------------------------------------------------------------------------------------ iterators


class Countdown:
    """An iterator of one's own."""

    def __init__(self, start: int) -> None:
        self.left = start

    def __iter__(self) -> Countdown:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "rows.csv"
    found.write_text("1,2\n3,4\n")
    return found


ITERATORS: dict[str, Callable[[Path], Any]] = {
    "generator": lambda path: (x for x in range(3)),
    "list": lambda path: iter([1, 2, 3]),
    "dict": lambda path: iter({"a": 1}),
    "items": lambda path: iter({"a": 1}.items()),
    "map": lambda path: map(str, [1, 2]),
    "zip": lambda path: zip([1], [2]),
    "enumerate": lambda path: enumerate([1, 2]),
    "reversed": lambda path: reversed([1, 2]),
    "islice": lambda path: itertools.islice([1, 2, 3], 2),
    "chain": lambda path: itertools.chain([1], [2]),
    "csv.reader": lambda path: csv.reader(["1,2", "3,4"]),
    "DictReader": lambda path: csv.DictReader(["a,b", "3,4"]),
    "text file": lambda path: path.open(),
    "binary file": lambda path: path.open("rb"),
    "unbuffered file": lambda path: path.open("rb", buffering=0),
    "flat": lambda path: np.arange(3).flat,
    "ndenumerate": lambda path: np.ndenumerate(np.arange(3)),
    "its own": lambda path: Countdown(3),
}


@pytest.fixture(params=ITERATORS)
def make(request: pytest.FixtureRequest, path: Path) -> Iterator[Callable[[], Any]]:
    """Makes the iterator anew; what it opened is closed in the end."""
    opened: list[Any] = []

    def made() -> Any:
        opened.append(ITERATORS[request.param](path))
        return opened[-1]

    yield made
    for each in opened:
        if isinstance(each, io.IOBase):
            each.close()


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def test_an_iterator_with_one_reader_is_passed_on(run_async: Runner, make: Callable[[], Any]) -> None:
    expected = list(make())
    assert len(expected) > 0
    p = flow.pipeline(lambda x: listed(x))
    assert same(p.run(make()), expected)
    assert same(p.debug(make()), expected)
    assert same(run_async(p(make())), expected)
    assert same(run_async(flow.pipeline(lambda x: listed_on_loop(x))(make())), expected)
    inner = flow.pipeline(lambda x: flow.map(flow.op(lambda item: item), x))
    assert same(run_async(inner(make())), expected)

    async def main() -> Any:
        return await listed.start(make())

    assert same(run_async(main()), expected)


READERS: dict[str, Callable[[Any], Any]] = {
    "two": lambda x: (listed(x), counted(x)),
    "two of one operator": lambda x: (counted(x), counted(x)),
    "inside of lists": lambda x: (listed([x]), listed((x,))),
    "of an async operator": lambda x: (listed_on_loop(x), counted(x)),
    "a map": lambda x: (flow.map(increment, x), listed(x)),
    "a pipeline": lambda x: (flow.pipeline(lambda y: listed(y))(x), counted(x)),
    "a method": lambda x: (x.read(), listed(x)),
    "one that is tried again": lambda x: listed.options(retries=1)(x),
    "three, two in order": lambda x: counted(x, counted(x)) + counted(x),
}


@pytest.mark.parametrize("readers", READERS)
def test_an_iterator_with_several_readers_is_refused_at_the_call(make: Callable[[], Any], readers: str) -> None:
    p = flow.pipeline(READERS[readers])
    for given in (make(), [make()], {"a": (make(),)}):
        with pytest.raises(TypeError, match=r"argument 'x' (is|holds) .*which gives its items once.*list\(\.\.\.\)"):
            p(given)


def test_the_remedy_for_several_readers_is_one(run_async: Runner, make: Callable[[], Any]) -> None:
    expected = list(make())
    p = flow.pipeline(lambda x: (listed(x), counted(x)))
    assert same(run_async(p(list(make()))), (expected, len(expected)))


def test_readers_of_which_each_waits_for_the_one_before_are_as_plain_python(run_async: Runner, path: Path) -> None:
    first = flow.op(lambda rows: next(rows))
    rest = flow.op(lambda rows, *_: list(rows))

    def chained(rows: Any) -> Any:
        head = first(rows)
        return head, rest(rows, head)

    def after(rows: Any) -> Any:
        head = first(rows)
        with flow.after(head):
            return head, rest(rows)

    def through_others(rows: Any) -> Any:
        head = first(rows)
        return head, rest(rows, increment(increment(counted(head))))

    for body in (chained, after, through_others):
        p = flow.pipeline(body)
        for _ in range(20):
            assert run_async(p(csv.reader(["a,b", "1,2", "3,4"]))) == (["a", "b"], [["1", "2"], ["3", "4"]])


def test_names_and_modes_of_a_file_read_nothing_of_it(run_async: Runner, path: Path) -> None:
    p = flow.pipeline(lambda file: (file.name, file.mode, listed(file)))
    with path.open() as file:
        assert run_async(p(file)) == (str(path), "r", ["1,2\n", "3,4\n"])


def test_an_iterator_that_is_handed_back_is_that_iterator(run_async: Runner, make: Callable[[], Any]) -> None:
    given = make()
    assert run_async(flow.pipeline(lambda x: [x])(given))[0] is given
    items, back = run_async(flow.pipeline(lambda x: (listed(x), x))(given))
    assert back is given
    assert list(back) == []
    assert items != []


def test_a_file_open_for_writing_is_passed_as_it_is(run_async: Runner, tmp_path: Path) -> None:
    write = flow.op(lambda file, text: file.write(text))
    p = flow.pipeline(lambda file: (write(file, "one"), write(file, "two")))
    with (tmp_path / "out").open("w") as file:
        assert run_async(p(file)) == (3, 3)
        assert run_async(flow.pipeline(lambda x: write(file, x))("more")) == 4
    assert sorted((tmp_path / "out").read_text()) == sorted("onetwomore")
    with (tmp_path / "both").open("w+b") as file, io.BytesIO() as buffer, io.StringIO() as text:
        assert run_async(p.bind()(text)) == (3, 3)
        binary = flow.pipeline(lambda a, b: [write(a, b"x"), write(b, b"y"), write(a, b"x"), write(b, b"y")])
        assert run_async(binary(file, buffer)) == [1, 1, 1, 1]
        assert buffer.getvalue() == b"yy"


def test_an_iterator_is_no_constant_of_a_graph(make: Callable[[], Any]) -> None:
    kept = make()
    for body in (
        lambda x: listed(make()),
        lambda x: listed(kept),
        lambda x: listed([x, {"k": make()}]),
        lambda x: listed(deque([make()])),
        lambda x: (x, make()),
        lambda x: listed(items=make()),
        lambda x: x.join(make()),
    ):
        with pytest.raises(flow.TraceError, match=r"gives its items once, at .*: make it a list, list\(\.\.\.\)"):
            flow.pipeline(body).graph()
    with pytest.raises(TypeError, match=r"bind\(\): 'x' is .*gives its items once, and every call reads it"):
        flow.pipeline(lambda x: listed(x)).bind(x=make())


def test_the_remedies_for_a_constant_are_some(run_async: Runner, make: Callable[[], Any]) -> None:
    expected, made = list(make()), flow.op(lambda: list(make()))
    for body in (lambda x: listed(list(make())), lambda x: made()):
        p = flow.pipeline(body)
        assert same(run_async(p(1)), expected)
        assert same(run_async(p(1)), expected)


def test_a_kernel_may_return_one_for_one_reader(run_async: Runner, make: Callable[[], Any]) -> None:
    opens = flow.op(lambda x: make())
    on_loop = flow.op(lambda x: x)
    if type(make()).__name__ == "generator":
        with pytest.raises(TypeError, match="returned a generator"):
            run_async(flow.pipeline(lambda x: opens(x))(1))
        return
    expected = list(make())
    assert same(run_async(flow.pipeline(lambda x: listed(opens(x)))(1)), expected)
    assert same(list(run_async(flow.pipeline(lambda x: opens(x))(1))), expected)
    for body in (
        lambda x: [READERS["two"](on_loop(opens(x)))],
        lambda x: READERS["one that is tried again"](opens(x)),
        lambda x: READERS["two"](opens([x])),
        lambda x: READERS["two"](flow.op(lambda x: {"a": make()})(x)["a"]),
        lambda x: READERS["two"](flow.op(lambda x: (1, make()))(x)[1]),
    ):
        p = flow.pipeline(body)
        with pytest.raises(TypeError, match=r"gives its items once, and .*return a list") as caught:
            run_async(p(1))
        assert "dataflow: in operator" in caught.value.__notes__[0]


def test_a_model_that_is_its_own_iterator_is_a_model(run_async: Runner) -> None:
    class Camera(Countdown):
        @flow.op
        def frame(self, scale: int, *_: int) -> int:
            return next(self) * scale

        @flow.pipeline
        def two(self, scale: int) -> Any:
            first = self.frame(scale)
            return first, self.frame(scale, first)

    camera = Camera(10)
    assert run_async(camera.two(2)) == (18, 16)
    assert run_async(flow.pipeline(lambda x: camera.frame(x))(1)) == 7


def test_what_an_async_generator_gives_is_read_once_as_well(run_async: Runner) -> None:
    async def numbers() -> Any:
        yield 1
        yield 2

    @flow.op
    async def collect(source: Any) -> list[int]:
        return [x async for x in source]

    assert run_async(flow.pipeline(lambda source: collect(source))(numbers())) == [1, 2]
    with pytest.raises(TypeError, match=r"'source' is the async generator '.*numbers', which gives its items once"):
        flow.pipeline(lambda source: (collect(source), collect(source)))(numbers())
    with pytest.raises(flow.TraceError, match="gives its items once"):
        flow.pipeline(lambda x: collect(numbers())).graph()


# ------------------------------------------------------------------------------------------------ what can be awaited


class Lazy:
    """A value with an interface for those who cannot wait: the handle of a query, a lazy collection."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.closed = 0

    def __await__(self) -> Any:
        return fetch(self.value).__await__()

    def close(self) -> None:
        self.closed += 1

    def __add__(self, other: int) -> Lazy:
        return Lazy(self.value + other)


class Coroutinelike(Lazy, Coroutine[Any, Any, Any]):
    """As the context managers of database drivers are."""

    def send(self, value: Any) -> Any:
        raise AssertionError

    def throw(self, *args: Any) -> Any:
        raise AssertionError


@pytest.mark.parametrize("kind", [Lazy, Coroutinelike])
def test_what_merely_can_be_awaited_is_a_value(run_async: Runner, kind: type[Lazy]) -> None:
    made: list[Lazy] = []

    def make(x: int) -> Lazy:
        made.append(kind(x))
        return made[-1]

    opens, value = flow.op(make), flow.op(lambda lazy: lazy.value)
    managed, on_loop = flow.op(timeout=10)(make), flow.op(lambda lazy: lazy)
    constant = kind(5)

    @flow.op
    async def opens_on_loop(x: int) -> Lazy:
        return make(x)

    def body(x: Any, given: Any) -> Any:
        one, two, three = opens(x), managed(x), opens_on_loop(x)
        shared = on_loop(one)
        return [value(each) for each in (one, two, three, shared, given, constant, one + 1)], one, given, [constant]

    given = kind(7)
    p = flow.pipeline(body)
    for run in (p.run, p.debug, lambda *args: run_async(p(*args))):
        made.clear()
        values, one, back, [kept] = run(3, given)
        assert values == [3, 3, 3, 3, 7, 5, 4]
        assert one in made
        assert back is given
        assert kept.value == 5

    async def main() -> None:
        assert await value.start(opens.start(2)) == 2
        assert await value.start(given) == 7
        assert await (await opens.start(2)) == 2

    run_async(main())
    assert not any(each.closed for each in (*made, given, constant))


def test_what_a_kernel_returns_by_mistake_is_refused(run_async: Runner) -> None:
    fetched = flow.op(lambda x: fetch(x), name="forgot")
    cases: dict[str, Any] = {
        "is a plain function but returned an awaitable, the coroutine 'fetch'": fetched,
        "returned a generator": flow.op(lambda x: (y for y in [x])),
    }

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        cases["returned an awaitable, an asyncio Future"] = flow.op(lambda x: future)
        task = asyncio.create_task(fetch())
        cases["returned an awaitable, an asyncio Task"] = flow.op(lambda x: task)

        async def numbers() -> Any:
            yield 1

        cases["returned a generator:"] = flow.op(lambda x: numbers())
        for message, op in cases.items():
            for body in (lambda x, op=op: op(x), lambda x, op=op: increment(op.options(timeout=5)(x))):
                with pytest.raises(TypeError, match=message):
                    await flow.pipeline(body)(1)
        assert await task == 1
        assert not future.cancelled()

    run_async(main())
    with pytest.raises(TypeError, match="'forgot' is a plain function but returned an awaitable"):
        flow.pipeline(lambda x: increment(fetched(x))).debug(1)


def test_an_async_operator_that_forgets_to_await_is_refused(run_async: Runner) -> None:
    @flow.op
    async def forgets(x: Any) -> Any:
        return fetch(x)

    @flow.op
    async def awaits(x: Any) -> Any:
        return await fetch(x)

    for op in (forgets, forgets.options(timeout=5)):
        with pytest.raises(TypeError, match=r"'forgets' returned the coroutine 'fetch', .*: await it there"):
            run_async(flow.pipeline(lambda x, op=op: increment(op(x)))(1))
    assert run_async(flow.pipeline(lambda x: increment(awaits(x)))(1)) == 2
