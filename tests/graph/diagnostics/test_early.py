"""`with`, `try` and context variables around what is recorded are over before it runs: a warning, once a line."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import functools
import inspect
import io
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import pytest

import dataflow as flow

LOCK = threading.Lock()
TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
inc = flow.op(lambda x: x + 1, name="inc")


def helper(x: Any) -> Any:
    return inc(x)


def deeper(x: Any) -> Any:
    return helper(x) * 2


class Layer:
    def forward(self, x: Any) -> Any:
        return inc(x)

    def locked(self, x: Any) -> Any:
        with LOCK:
            return self.forward(x)


@flow.pipeline
def inner(x: Any) -> Any:
    return inc(x)


@contextmanager
def tenant(name: str) -> Iterator[None]:
    token = TENANT.set(name)
    try:
        yield
    finally:
        TENANT.reset(token)


@contextmanager
def block(name: str) -> Iterator[None]:
    with flow.scope(name):
        yield


# Each body with the offsets of the lines that are named, from its `def`, and what they are.


def under_a_lock(x: Any) -> Any:
    with LOCK:
        return inc(x)


def under_two(x: Any) -> Any:
    y = x + 1
    with (
        LOCK,
        io.StringIO() as file,
    ):
        y = inc(y)
        file.write("text")
    return y


def under_errstate(x: Any) -> Any:
    with np.errstate(all="ignore"):
        y = 1 / x
    return y


def under_a_context_variable(x: Any) -> Any:
    with tenant("a"):
        return inc(x)


def in_a_loop(x: Any) -> Any:
    for i in range(5):
        with LOCK:
            if i == 3:
                break
            x = inc(x)
    return x


def nested(x: Any) -> Any:
    with LOCK:
        y = 1
        with suppress(ValueError):
            x = inc(x)
    return x, y


def in_a_helper(x: Any) -> Any:
    with LOCK:
        y = deeper(x)
    return y


def in_a_second_call_of_a_helper(x: Any) -> Any:
    y = deeper(x)
    with LOCK:
        return deeper(y)


def in_a_method(x: Any) -> Any:
    layer = Layer()
    y = layer.forward(x)
    with LOCK:
        return layer.forward(y)


def in_a_nested_function(x: Any) -> Any:
    def step(y: Any) -> Any:
        return inc(y)

    y = step(x)
    with LOCK:
        return step(y)


def in_a_pipeline(x: Any) -> Any:
    with LOCK:
        return inner(x)


def as_a_callback(x: Any) -> Any:
    with LOCK:
        return list(map(helper, [x, x]))


def in_a_comprehension(x: Any) -> Any:
    with LOCK:
        return [inc(x) for _ in range(3)]


def tried(x: Any) -> Any:
    try:
        y = inc(x)
    except ValueError:
        y = x
    return y


def tried_and_finished(x: Any) -> Any:
    y = x
    try:
        y = inc(x)
    except ValueError as error:
        print(error)
    else:
        y = inc(y)
    finally:
        y = inc(y)
    return y


def finished(x: Any) -> Any:
    file = io.StringIO()
    try:
        return inc(x)
    finally:
        file.close()


def suppressed(x: Any) -> Any:
    with suppress(ZeroDivisionError):
        x = x / 0
    return x


def tried_in_a_lambda(x: Any) -> Any:
    step = lambda y: inc(y)
    try:
        return step(x)
    except KeyError:
        return None


def of_numpy(x: Any) -> Any:
    with LOCK:
        return np.sqrt(x)


def of_attributes(x: Any) -> Any:
    with LOCK:
        return x.mean()


def items(x: Any) -> Any:
    pair = inc(x)
    try:
        return pair[5]
    except IndexError:
        return pair[0]


def items_that_nothing_reads(x: Any) -> Any:
    try:
        x[5]
    except IndexError:
        return inc(x)
    return x


def attributes_alone(x: Any) -> Any:
    try:
        y = x.shape
    except AttributeError:
        y = ()
    return y


def names_alone(x: Any) -> Any:
    try:
        a, b = x
    except ValueError:
        a = b = x
    return a, b


def last(x: Any) -> Any:
    return x[-1]


def items_in_a_helper(x: Any) -> Any:
    try:
        return last(x)
    except IndexError:
        return None


def items_in_a_nested_function(x: Any) -> Any:
    with suppress(IndexError):
        return [part[0] for part in (x, inc(x))]


def arithmetic(x: Any) -> Any:
    try:
        return -x / 0
    except ZeroDivisionError:
        return x


def suppressed_attributes(x: Any) -> Any:
    with suppress(AttributeError):
        x.shape
    return x


EARLY: list[tuple[Callable[[Any], Any], list[tuple[int, str]]]] = [
    (under_a_lock, [(1, "with")]),
    (under_two, [(3, "with"), (4, "with")] if sys.version_info >= (3, 13) else [(2, "with")]),
    (under_errstate, [(1, "with")]),
    (under_a_context_variable, [(1, "with")]),
    (in_a_loop, [(2, "with")]),
    (nested, [(3, "with"), (1, "with")]),
    (in_a_helper, [(1, "with")]),
    (in_a_second_call_of_a_helper, [(2, "with")]),
    (in_a_method, [(3, "with")]),
    (in_a_nested_function, [(5, "with")]),
    (in_a_pipeline, [(1, "with")]),
    (as_a_callback, [(1, "with")]),
    (in_a_comprehension, [(1, "with")]),
    (tried, [(1, "try")]),
    (tried_and_finished, [(2, "try")]),
    (finished, [(2, "try")]),
    (suppressed, [(1, "with")]),
    (tried_in_a_lambda, [(2, "try")]),
    (of_numpy, [(1, "with")]),
    (of_attributes, [(1, "with")]),
    (items, [(2, "try")]),
    (items_that_nothing_reads, [(1, "try")]),
    (attributes_alone, [(1, "try")]),
    (names_alone, [(1, "try")]),
    (items_in_a_helper, [(1, "try")]),
    (items_in_a_nested_function, [(1, "with")]),
    (arithmetic, [(1, "try")]),
    (suppressed_attributes, [(1, "with")]),
]


def warned(body: Callable[..., Any], *args: Any) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flow.pipeline(body, name="edges").graph(*args)
    return caught


@pytest.mark.parametrize(("body", "statements"), EARLY)
def test_a_statement_that_is_over_is_named(body: Callable[[Any], Any], statements: list[tuple[int, str]]) -> None:
    caught = warned(body)
    assert all(each.category is flow.TraceWarning for each in caught)
    first = body.__code__.co_firstlineno
    assert sorted(each.lineno for each in caught) == sorted(first + offset for offset, _ in statements)
    for each in caught:
        (name,) = [name for offset, name in statements if first + offset == each.lineno]
        assert str(each.message).startswith(f"the `{name}` in the body of 'edges' is over before ")
        assert f", at {__file__}:{each.lineno}: " in str(each.message)
        assert "into an op" in str(each.message)
        assert each.filename == __file__


def test_a_lock_beside_a_context_that_does_nothing() -> None:
    (caught,) = warned(with_a_lock_after_one_that_does_nothing)
    assert caught.lineno == with_a_lock_after_one_that_does_nothing.__code__.co_firstlineno + 1


def test_what_was_recorded_is_named() -> None:
    (under,) = warned(under_a_lock)
    assert "is over before 'inc' runs" in str(under.message)
    (second,) = warned(in_a_second_call_of_a_helper)
    assert "is over before what deeper records runs" in str(second.message)


def test_a_method_that_is_locked_inside() -> None:
    (caught,) = warned(Layer().locked)
    assert caught.lineno == Layer.locked.__code__.co_firstlineno + 1


# ---------------------------------------------------------------------------------------------- nothing to say


def with_ours(x: Any) -> Any:
    with flow.scope("a"), flow.after(x):
        y = inc(x)
    with flow.scope("b"):
        with flow.after(y):
            z = helper(x)
        z = deeper(z)
    return y, z


def with_ours_inside_of_the_users(x: Any) -> Any:
    with block("a"):
        y = inc(x)
        with block("b"), flow.after(y):
            return helper(y)


def with_one_that_does_nothing(x: Any) -> Any:
    with nullcontext():
        x = inc(x)
    with contextlib.nullcontext(x) as y, flow.scope("a") if x is not None else nullcontext():
        return inc(y)


def before_and_after(x: Any) -> Any:
    y = inc(x)
    with LOCK:
        depth = 3
    try:
        depth = int("4")
    except ValueError:
        depth = 5
    finally:
        y = inc(y)
    with suppress(KeyError):
        depth = {}["a"]
    return inc(y) * depth


def in_a_handler(x: Any) -> Any:
    try:
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        return inc(x)
    return x


def in_comprehensions(x: Any) -> Any:
    rows = [inc(x) for i in range(3)]
    return [[inc(row) for row in rows] for _ in range(2)], {i: inc(x) for i in range(2)}, list(inc(y) for y in rows)  # noqa: C400


def with_a_lock_after_one_that_does_nothing(x: Any) -> Any:
    with nullcontext(), LOCK:
        return inc(x)


def with_a_helper_of_its_own(x: Any) -> Any:
    y = helper(x)
    with LOCK:
        names = {"helper": 1}
        names.get("helper")
    return y


def with_plumbing_alone(x: Any) -> Any:
    return inc(x.shape[0])


def with_a_lock_around_plumbing(x: Any) -> Any:
    with LOCK:
        rows = x.shape[0]
    try:
        count = int("3")
    except ValueError:
        count = 4
    return inc(rows) * count


def with_a_helper_that_finds_its_own_way(x: Any) -> Any:
    return inc(x) * quiet({"a": 1})


def quiet(table: dict[str, int]) -> int:
    try:
        return table["b"]
    except KeyError:
        return 2


NOTHING = [
    with_a_lock_around_plumbing,
    with_a_helper_that_finds_its_own_way,
    with_ours,
    with_ours_inside_of_the_users,
    with_one_that_does_nothing,
    before_and_after,
    in_a_handler,
    in_comprehensions,
    with_a_helper_of_its_own,
    with_plumbing_alone,
]


@pytest.mark.parametrize("body", NOTHING)
def test_there_is_nothing_to_say(body: Callable[[Any], Any]) -> None:
    assert [str(each.message) for each in warned(body)] == []


def test_a_statement_around_a_trace_is_not_around_what_it_records() -> None:
    with LOCK, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert flow.pipeline(lambda x: inc(helper(x))).run(1) == 3
        finally:
            pass


# ---------------------------------------------------------------------------------------------- how it is said


def test_once_for_each_line_by_default() -> None:
    scope: dict[str, Any] = {"inc": inc, "LOCK": LOCK, "__name__": "a_module"}
    source = "def body(x, n):\n    with LOCK:\n        for _ in range(n): x = inc(x)\n    return x"
    exec(compile(source, "<body>", "exec"), scope)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        pipeline = flow.pipeline(static=("n",))(scope["body"])
        for n in range(1, 4):
            assert pipeline.run(1, n) == 1 + n
        pipeline.retrace()
        pipeline.run(1, 1)
    assert [each.lineno for each in caught] == [2]


def test_as_an_error_nothing_is_traced() -> None:
    pipeline = flow.pipeline(under_a_lock)
    with warnings.catch_warnings():
        warnings.simplefilter("error", flow.TraceWarning)
        for _ in range(2):
            with pytest.raises(flow.TraceWarning, match="is over before 'inc' runs"):
                pipeline.run(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", flow.TraceWarning)
        assert pipeline.run(1) == 2


def test_inside_an_op_the_statement_holds() -> None:
    """The remedies, followed."""
    held: list[bool] = []

    @flow.op
    def locked(x: Any) -> Any:
        with LOCK:
            held.append(LOCK.locked())
            return x + 1

    @flow.op
    def attempted(x: Any) -> Any:
        try:
            return x / 0
        except ZeroDivisionError:
            return "none"
        finally:
            held.append(True)

    body = lambda x: (locked(x), attempted(x))
    assert warned(body) == []
    assert flow.pipeline(body).run(1) == (2, "none")
    assert held == [True, True]
    try:
        flow.pipeline(lambda x: flow.op(lambda y: y / 0)(x)).run(1)
    except ZeroDivisionError:
        held.append(True)
    assert len(held) == 3


# ---------------------------------------------------------------------------------------------- decorators


@np.errstate(all="ignore")
def decorated_by_numpy(x: Any) -> Any:
    return inc(x)


@tenant("a")
def decorated(x: Any) -> Any:
    return inc(x)


@tenant("a")
def decorated_around_a_helper(x: Any) -> Any:
    return helper(x)


class Timed(contextlib.ContextDecorator):
    def __enter__(self) -> None: ...
    def __exit__(self, *args: Any) -> None: ...


@tenant("a")
@Timed()
def decorated_twice(x: Any) -> Any:
    return inc(x)


def by_a_function_of_the_users(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def wrapper(x: Any) -> Any:
        with LOCK:
            return function(x)

    return wrapper


@by_a_function_of_the_users
def decorated_by_the_user(x: Any) -> Any:
    return inc(x)


DECORATED = [
    (decorated_by_numpy, ["'errstate' of decorated_by_numpy"]),
    (decorated, ["'tenant' of decorated"]),
    (decorated_around_a_helper, ["'tenant' of decorated_around_a_helper"]),
    (decorated_twice, ["'Timed' of decorated_twice", "'tenant' of decorated_twice"]),
]


@pytest.mark.parametrize(("function", "names"), DECORATED)
@pytest.mark.parametrize("is_body", [True, False])
def test_a_context_manager_that_decorates_is_named(
    function: Callable[[Any], Any], names: list[str], is_body: bool
) -> None:
    caught = warned(function if is_body else lambda x: function(x) + 1, 1)
    line = inspect.unwrap(function).__code__.co_firstlineno
    assert [(each.filename, each.lineno) for each in caught] == [(__file__, line)] * len(names)
    messages = [str(each.message) for each in caught]
    assert [message.partition(" in the body of 'edges'")[0] for message in messages] == [
        f"what the decorator {name}" for name in names
    ]
    assert all("put the decorator on an op" in message for message in messages)


def test_a_decorator_of_the_users_is_a_with_like_others() -> None:
    (caught,) = warned(decorated_by_the_user, 1)
    assert caught.lineno == by_a_function_of_the_users.__code__.co_firstlineno + 3


@flow.scope("a")
def decorated_by_ours(x: Any) -> Any:
    return inc(x)


@block("a")
def decorated_by_ours_inside_of_the_users(x: Any) -> Any:
    return helper(x)


@tenant("a")
def decorated_around_plumbing(x: Any) -> Any:
    return x.shape[0]


@np.errstate(all="ignore")
def decorated_around_values() -> Any:
    return np.float64(1) / 0


@pytest.mark.parametrize(
    "body",
    [
        decorated_by_ours,
        decorated_by_ours_inside_of_the_users,
        lambda x: decorated_by_ours(decorated_by_ours_inside_of_the_users(x)),
        lambda x: inc(decorated_around_plumbing(x)),
        lambda x: inc(x) + decorated_around_values(),
    ],
)
def test_a_decorator_about_which_there_is_nothing_to_say(body: Callable[[Any], Any]) -> None:
    assert [str(each.message) for each in warned(body, 1)] == []


def test_the_decorator_on_an_op_holds() -> None:
    """The remedy, followed."""
    seen = flow.op(tenant("b")(lambda x: TENANT.get()))
    divided = flow.op(np.errstate(all="raise")(lambda x: x / 0.0))
    assert warned(lambda x: (seen(x), divided(x))) == []
    assert flow.pipeline(lambda x: seen(x)).run(1) == "b"
    with pytest.raises(FloatingPointError):
        flow.pipeline(lambda x: divided(x)).run(np.ones(1))


# ---------------------------------------------------------------------------------------------- context variables


def sets_a_variable(x: Any) -> Any:
    TENANT.set("a")
    return inc(x)


def sets_it_in_a_helper(x: Any) -> Any:
    setter()
    return inc(x)


def setter() -> None:
    TENANT.set("b")


def sets_numpys(x: Any) -> Any:
    np.seterr(all="ignore")
    return inc(x)


def reads_a_variable(x: Any) -> Any:
    decimal.getcontext()
    return inc(x), repr(TENANT)


@pytest.mark.parametrize(
    ("body", "name"),
    [(sets_a_variable, "'tenant'"), (sets_it_in_a_helper, "'tenant'"), (sets_numpys, "'.*'"), (reads_a_variable, "")],
)
def test_a_context_variable_that_the_body_sets_is_named(body: Callable[[Any], Any], name: str) -> None:
    caught = contextvars.Context().run(warned, body)
    if not name:
        assert caught == []
        return
    (each,) = caught
    message = rf"the body of 'edges' sets the context variable {name}, of which runs see nothing, at .*: each run has"
    with pytest.warns(flow.TraceWarning, match=message):
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    assert (each.filename, each.lineno) == (__file__, body.__code__.co_firstlineno)


class Of:
    variable = TENANT


def sets_it_back(x: Any) -> Any:
    token = TENANT.set("a")
    y = inc(x)
    TENANT.reset(token)
    return y


def sets_it_back_around_a_helper(x: Any) -> Any:
    token = Of.variable.set("a")
    x = helper(x)
    Of.variable.reset(token)
    return x


@pytest.mark.parametrize("body", [sets_it_back, sets_it_back_around_a_helper])
def test_a_context_variable_that_the_body_sets_back_is_named(body: Callable[[Any], Any]) -> None:
    (caught,) = warned(body)
    assert (caught.filename, caught.lineno) == (__file__, body.__code__.co_firstlineno + 1)
    assert re.match(
        "the body of 'edges' sets the context variable 'tenant' only until .* is recorded, and has set it back before "
        "that runs, at .*: each run has the context of its call; set it before",
        str(caught.message),
    )


def sets_it_back_at_last(x: Any) -> Any:
    token = TENANT.set("a")
    try:
        return inc(x)
    finally:
        TENANT.reset(token)


def test_a_context_variable_that_is_set_back_at_last_is_named_once() -> None:
    (caught,) = warned(sets_it_back_at_last)
    assert caught.lineno == sets_it_back_at_last.__code__.co_firstlineno + 2


def sets_it_back_before(x: Any) -> Any:
    token = TENANT.set("a")
    name = TENANT.name
    TENANT.reset(token)
    return inc(x), name


def test_a_context_variable_that_is_set_back_before_anything_is_recorded() -> None:
    assert warned(sets_it_back_before) == []


def test_a_variable_that_is_set_before_the_call_is_seen() -> None:
    """The remedy, followed."""
    pipeline = flow.pipeline(lambda x: flow.op(lambda y: TENANT.get())(x))

    async def main() -> list[Any]:
        TENANT.set("c")
        return [await pipeline(1), await pipeline(1)]

    assert asyncio.run(main()) == ["c", "c"]


# ---------------------------------------------------------------------------------------------- caught refusals


def guesses(x: Any) -> Any:
    y = x + 1
    try:
        count = len(x)
    except TypeError:
        count = 1
    return y * count


def guesses_in_a_helper(x: Any) -> Any:
    return x * counted(x)


def counted(x: Any) -> int:
    try:
        return len(x)
    except Exception:
        return 1


def guesses_around_a_helper(x: Any) -> Any:
    with suppress(TypeError):
        return decided(x)
    return x


def decided(x: Any) -> Any:
    return 1 if x else 2


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (guesses, guesses.__code__.co_firstlineno + 2),
        (guesses_in_a_helper, counted.__code__.co_firstlineno + 1),
        (guesses_around_a_helper, guesses_around_a_helper.__code__.co_firstlineno + 1),
    ],
)
def test_the_statement_that_caught_a_refusal_is_named(body: Callable[[Any], Any], line: int) -> None:
    pattern = (
        rf"\(the refusal was caught, and 'edges' went on .*: the statement at {__file__}:{line} decides .* into an op"
    )
    with pytest.raises(flow.TraceError, match=pattern):
        flow.pipeline(body, name="edges").graph()


def test_a_library_that_caught_a_refusal_is_not_the_users_statement() -> None:
    with pytest.raises(flow.TraceError, match=r"\(the refusal was caught, and 'edges' went on without the value\)$"):
        flow.pipeline(lambda x: (np.iterable(x), x), name="edges").graph()


def test_the_whole_statement_in_an_op_decides_on_the_value() -> None:
    """The remedy, followed."""
    count = flow.op(counted)
    assert flow.pipeline(lambda x: x * count(x)).run(3) == 3
    assert flow.pipeline(lambda x: x * count(x)).run([1, 2]) == [1, 2, 1, 2]


def test_an_exit_stack_is_a_with_like_others() -> None:
    def body(x: Any) -> Any:
        with ExitStack() as stack:
            stack.enter_context(LOCK)
            return inc(x)

    (caught,) = warned(body)
    assert caught.lineno == body.__code__.co_firstlineno + 1
