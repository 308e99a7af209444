"""Calls as Python makes them: the signature is that of the function called, not of what it wraps."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Runner = Callable[[Any], Any]


def supplies(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(x: Any, by: Any = 8) -> Any:
        return fn("given", x, by)

    return wrapper


def renames(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(first: Any, second: Any = 8) -> Any:
        return fn(x=first, by=second)

    return wrapper


def reorders(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(by: Any, x: Any) -> Any:
        return fn(x, by)

    return wrapper


def passes_on(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def keywords_only(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(**named: Any) -> Any:
        return fn(*named.values())

    return wrapper


class Supplies:
    """A decorator that is a class."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn

    def __call__(self, x: Any, by: Any = 8) -> Any:
        return self.fn("given", x, by)


def two(x: Any, by: Any = 9) -> Any:
    return (x, by)


def three(word: Any, x: Any, by: Any = 9) -> Any:
    return (word, x, by)


WRAPPED: list[tuple[Callable[..., Any], list[Callable[[Any, Any], Any]]]] = [
    (supplies(three), [lambda f, x: f(x), lambda f, x: f(x, 2), lambda f, x: f(by=x, x=1), lambda f, x: f(x, by=3)]),
    (Supplies(three), [lambda f, x: f(x), lambda f, x: f(x, 2), lambda f, x: f(by=x, x=1), lambda f, x: f(x, by=3)]),
    (renames(two), [lambda f, x: f(x), lambda f, x: f(first=x), lambda f, x: f(1, second=x), lambda f, x: f(x, x)]),
    (reorders(two), [lambda f, x: f(x, 2), lambda f, x: f(x=x, by=3), lambda f, x: f(1, x=x)]),
    (passes_on(two), [lambda f, x: f(x), lambda f, x: f(x=x), lambda f, x: f(1, by=x), lambda f, x: f(x, 3)]),
    (keywords_only(two), [lambda f, x: f(b=x, a=1), lambda f, x: f(by=1, x=x), lambda f, x: f(x=x)]),
    (passes_on(reorders(two)), [lambda f, x: f(x, 2), lambda f, x: f(x=x, by=3)]),
    (reorders(passes_on(two)), [lambda f, x: f(x, 2), lambda f, x: f(x=x, by=3)]),
    (functools.partial(reorders(two), 5), [lambda f, x: f(x), lambda f, x: f(x=x)]),
    (functools.partial(supplies(three), by=5), [lambda f, x: f(x), lambda f, x: f(x=x), lambda f, x: f(x, by=6)]),
]


@pytest.mark.parametrize(
    ("function", "call"), [(function, call) for function, calls in WRAPPED for call in calls], ids=repr
)
def test_wrappers_get_what_is_written(run_async: Runner, function: Any, call: Any) -> None:
    plain, declared, body = call(function, 7), flow.op(function), flow.pipeline(function)
    assert call(declared, 7) == plain
    assert run_async(flow.pipeline(lambda x: call(declared, x))(7)) == plain
    assert run_async(flow.pipeline(lambda x: call(body, x))(7)) == plain
    assert run_async(call(body, 7)) == plain
    assert call(body.run, 7) == call(body.debug, 7) == plain


@pytest.mark.parametrize("wrapper", [supplies, Supplies])
def test_what_a_wrapper_does_not_take_is_refused(wrapper: Any) -> None:
    declared = flow.op(wrapper(three))
    for wrong in (lambda x: declared(x, 1, 2), lambda x: declared(word="w", x=x)):
        with pytest.raises(TypeError, match=r"three\(\) (too many|got an unexpected .*'word'.*it takes \(x, by=…\))"):
            flow.pipeline(wrong).graph()


def test_methods_and_copied_signatures(run_async: Runner) -> None:
    def method(self: Any, word: Any, x: Any, by: Any = 9) -> Any:
        return word, x, by

    method.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]

    def supplies(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)  # and that copies the signature, too
        def wrapper(self: Any, x: Any, by: Any = 8) -> Any:
            return fn(self, "given", x, by)

        return wrapper

    class Model:
        layer = flow.op(supplies(method))
        forward = flow.pipeline(supplies(method))

    model = Model()
    assert run_async(flow.pipeline(lambda x: model.layer(x))(1)) == run_async(model.forward(1)) == ("given", 1, 8)
    assert run_async(flow.pipeline(lambda x: model.layer(by=2, x=x))(1)) == run_async(model.forward(1, by=2))
    assert run_async(flow.pipeline(flow.op(supplies(method).__get__(model)))(1)) == ("given", 1, 8)


def test_partials_of_operators_and_pipelines(run_async: Runner) -> None:
    operator, whole = flow.op(supplies(three)), flow.pipeline(renames(two))

    class Model:
        layer = flow.op(lambda self, x, by=3: (x, by))

    for made, names in (
        (functools.partial(operator, by=5), ["x", "by"]),
        (functools.partial(whole, second=4), ["first", "second"]),
        (functools.partial(whole.bind(second=4)), ["first"]),
        (functools.partial(Model().layer, by=2), ["x", "by"]),
    ):
        assert list(flow.pipeline(made).parameters.signature.parameters) == names
    assert run_async(flow.pipeline(functools.partial(operator, by=5))(x=1)) == ("given", 1, 5)
    assert run_async(flow.pipeline(functools.partial(whole, second=4))(first=1)) == (1, 4)


def test_a_signature_that_the_user_gave_is_believed() -> None:
    def anything(*args: Any) -> Any:
        return args

    anything.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    )
    with pytest.raises(TypeError, match="too many positional arguments: it takes \\(x\\)"):
        flow.pipeline(anything)(1, 2)


def test_wrappers_in_c_pass_on_what_they_get(run_async: Runner) -> None:
    @functools.cache
    def cached(x: Any, by: Any = 9) -> Any:
        return x, by

    declared = flow.op(cached)
    assert run_async(flow.pipeline(lambda x: declared(by=x, x=2))(1)) == (2, 1)
    assert str(inspect.signature(flow.pipeline(cached))) == "(x: 'Any', by: 'Any' = 9) -> 'Any'"
    assert run_async(flow.pipeline(static=("by", "x"))(cached)(1, by=3)) == (1, 3)


# Names of parameters, in `writes` and `static`.


def add(acc: Any, x: Any) -> Any:
    acc += x
    return acc


def taken_by_another_name(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(x: Any, into: Any) -> Any:
        return fn(into, x)

    return wrapper


def test_writes_names_what_the_called_function_takes(run_async: Runner) -> None:
    wrapped = flow.op(writes=("into",))(taken_by_another_name(add))
    mine = np.zeros(2)
    assert run_async(flow.pipeline(lambda x: wrapped(1, x))(mine)).tolist() == [1, 1]
    assert run_async(flow.pipeline(lambda x: wrapped(into=x, x=1))(mine)).tolist() == [1, 1]
    assert mine.tolist() == [0, 0]
    with pytest.raises(TypeError, match="writes names 'acc', which is no single parameter"):
        flow.op(writes=("acc",))(taken_by_another_name(add))


def test_names_behind_a_wrapper_that_takes_anything_are_refused(run_async: Runner) -> None:
    with pytest.raises(TypeError, match=r"writes names 'acc'.* add\(\*args.*declare it below the decorator"):
        flow.op(writes=("acc",))(passes_on(add))
    with pytest.raises(
        TypeError, match=r"static names by, no parameter of two\(\*args.*declare it below the decorator"
    ):
        flow.pipeline(static=("by",))(passes_on(two))
    below = passes_on(flow.op(writes=("acc",))(add))
    mine = np.zeros(2)
    assert run_async(flow.pipeline(lambda x: below(x, 1))(mine)).tolist() == [1, 1]
    assert mine.tolist() == [0, 0]
    assert run_async(passes_on(flow.pipeline(static=("by",))(two))(1, by=2)) == (1, 2)


# Wrong calls.


@flow.op
def scaled(x: Any, /, by: Any = np.ones(100), *, offset: Any = 0) -> Any:  # noqa: B008
    return x * by + offset


@flow.pipeline
def whole(x: Any, depth: Any, *, offset: Any = 0) -> Any:
    return scaled(x, depth, offset=offset)


class Method:
    @flow.pipeline
    def whole(self, x: Any, depth: Any = 1) -> Any:
        return x

    @flow.op
    def part(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: scaled(x, of=1), r"scaled\(\) got an unexpected keyword argument 'of': it takes \(x, /, by=…, \*, "),
        (lambda x: scaled(x=x), r"scaled\(\) got an unexpected keyword argument 'x': it takes \(x, /, by=…"),
        (lambda x: scaled(), r"scaled\(\) missing a required argument: 'x': it takes \(x, /"),
        (lambda x: Method().part(y=x), r"part\(\) got an unexpected keyword argument 'y': it takes \(x\)$"),
    ],
)
def test_a_wrong_call_says_what_it_takes(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        flow.pipeline(call).graph()


def test_a_wrong_call_of_a_pipeline_says_what_it_takes() -> None:
    for call in (whole, whole.run, whole.debug):
        with pytest.raises(TypeError, match=r"whole\(\) got an .* 'deph': it takes \(x, depth, \*, offset=…\)"):
            call(1, deph=2)
    with pytest.raises(TypeError, match=r"whole\(\) missing a required argument: 'depth': it takes \(x, depth"):
        whole(1)
    with pytest.raises(TypeError, match=r"whole\(\) missing a required argument: 'x': it takes \(x, \*, offset=…\)"):
        whole.bind(depth=1)()
    with pytest.raises(TypeError, match=r"whole\(\) got an unexpected keyword argument 'y': it takes \(x, depth=…\)"):
        Method().whole(y=1)


def test_a_wrong_call_of_a_plain_function_is_python_s_own_error() -> None:
    """No placeholder is to blame for it."""

    def helper(a: Any, b: Any) -> Any:
        return a + b

    calls: list[Callable[[Any], Any]] = [
        lambda x: helper(x),  # type: ignore[call-arg]
        lambda x: helper(x, 1, 2),  # type: ignore[call-arg]
        lambda x: helper(x, c=1),  # type: ignore[call-arg]
        lambda x: helper(x, a=1),  # type: ignore[call-arg, misc]
        lambda x: np.zeros(3, size=x),  # type: ignore[call-overload]
    ]
    for call in calls:
        with pytest.raises(TypeError) as caught:
            flow.pipeline(call).graph()
        assert not isinstance(caught.value, flow.TraceError), caught.value


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_that_only_type_checkers_know() -> None:
    program = """
import dataflow as flow
@flow.op
def kernel(x: OnlyForTypes, by: Also = 2) -> Neither:
    return x * by
@flow.pipeline
def whole(x: OnlyForTypes) -> Neither:
    return kernel(x, by=3)
class Model:
    @flow.op
    def layer(self, x: OnlyForTypes): return x
    @flow.pipeline
    def forward(self, x: OnlyForTypes): return self.layer(x)
assert whole.run(1) == 3 and Model().forward.run(1) == 1
repr(whole)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
