"""What a refusal says to do: each remedy is followed here, and gives what was meant."""

from __future__ import annotations

import copy
import json
import linecache
import math
import operator
import os.path
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.diagnostics.source import function_called

Body = Callable[[Any], Any]


def scipy(name: str) -> Any:
    return pytest.importorskip(f"scipy.{name}")


A = np.eye(3) * 4
V = np.array([1.0, 2.0, 3.0])


def refused(body: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(flow.TraceError) as caught:
        flow.pipeline(body, **options).graph()
    message = str(caught.value)
    assert f", at {__file__}:{body.__code__.co_firstlineno}" in message
    return message


def same(left: Any, right: Any) -> bool:
    return (
        type(left) is type(right)
        and np.array_equal(left, right)
        and getattr(left, "dtype", 0) == getattr(right, "dtype", 0)
    )


def given(*args: Any, **kwargs: Any) -> Any:
    return [*args, *sorted(kwargs.items())]


def given_by_names(x: Any) -> Any:
    a, b = x
    return given(a, b)


def extended(x: Any) -> Any:
    items = [1]
    items.extend(x)
    return items


def updated(x: Any) -> Any:
    table = {"b": 1}
    return table.update(x) or table


TAKES_ITEMS = "(flow.op(lambda items: f(*items))(node))"
TAKES_KEYS = "(flow.op(lambda items: f(**items))(node))"

# The body that is refused, what the remedy says, the body that follows it, and a value.
FOLLOWED: list[tuple[Body, str, Body, Any]] = [
    (lambda x: np.float32(x), "node.astype(np.float32)", lambda x: x.astype(np.float32), V),
    (lambda x: np.int64(x), "node.astype(np.int64)", lambda x: x.astype(np.int64), V),
    (lambda x: np.vectorize(abs)(x), "flow.op(np.vectorize(abs))(...)", lambda x: flow.op(np.vectorize(abs))(x), -V),
    (lambda x: np.take(A, x), "flow.op(np.take)(...)", lambda x: flow.op(np.take)(A, x), np.array([1, 0])),
    (lambda x: np.arange(x), "flow.op(np.arange)(...)", lambda x: flow.op(np.arange)(x), 4),
    (lambda x: np.zeros(x.shape), "np.zeros_like(node)", lambda x: np.zeros_like(x), V),
    (lambda x: np.ones(x.shape), "np.ones_like(node)", lambda x: np.ones_like(x), V),
    (lambda x: np.empty(x.shape).shape, "np.empty_like(node)", lambda x: np.empty_like(x).shape, V),
    (lambda x: np.zeros(x), "flow.op(np.zeros)(...)", lambda x: flow.op(np.zeros)(x), 3),
    (lambda x: A.reshape(x), "flow.op(A.reshape)(...)", lambda x: flow.op(A.reshape)(x), (9,)),
    (lambda x: math.sqrt(x), "flow.op(math.sqrt)(...)", lambda x: flow.op(math.sqrt)(x), 9.0),
    (lambda x: math.gcd(x, 4), "flow.op(math.gcd)(...)", lambda x: flow.op(math.gcd)(x, 4), 6),
    (lambda x: Fraction(x), "flow.op(Fraction)(...)", lambda x: flow.op(Fraction)(x), 0.5),
    (lambda x: json.dumps(x), "flow.op(json.dumps)(...)", lambda x: flow.op(json.dumps)(x), [1, 2]),
    (lambda x: os.path.join("a", x), "flow.op(os.path.join)(...)", lambda x: flow.op(os.path.join)("a", x), "b"),
    (lambda x: max(x, 2), "flow.op(max)(...)", lambda x: flow.op(max)(x, 2), 3),
    (lambda x: sorted(x), "flow.op(sorted)(...)", lambda x: flow.op(sorted)(x), [2, 1]),
    (lambda x: sum(x), "flow.op(sum)(...)", lambda x: flow.op(sum)(x), [2, 1]),
    (lambda x: "".join(x), "flow.op(''.join)(...)", lambda x: flow.op("".join)(x), ["a", "b"]),
    (lambda x: np.full_like(A, x), "np.where or arithmetic", lambda x: np.zeros_like(A) + x, 2.0),
    (lambda x: A[x], "flow.op(operator.getitem)", lambda x: flow.op(operator.getitem)(A, x), np.array([0, 2])),
    (
        lambda x: A[x],
        "flow.op(operator.getitem)",
        lambda x: flow.op(operator.getitem)(A, x),
        np.array([True, False, True]),
    ),
    (lambda x: "abc"[x], "flow.op(operator.getitem)", lambda x: flow.op(operator.getitem)("abc", x), 1),
    (lambda x: "a" in x, "flow.op(operator.contains)", lambda x: flow.op(operator.contains)(x, "a"), {"a": 1}),
    (lambda x: copy.deepcopy(x), "flow.op(copy.deepcopy)", lambda x: flow.op(copy.deepcopy)(x), [[1, 3], [2, 4]]),
    (lambda x: len(x), "flow.op(len)", lambda x: flow.op(len)(x), [1, 2]),
    (lambda x: x if x > 0 else -x, "flow.cond", lambda x: flow.cond(x > 0, operator.pos, operator.neg, x), -2),
    (lambda x: list(x), "node[0], node[1]", lambda x: [x[0], x[1]], (1, 2)),
    (lambda x: np.array([x, x]), "np.stack", lambda x: np.stack([x, x]), V),
    (lambda x: float(x), "node.astype", lambda x: flow.op(float)(x), np.float32(2)),
    (lambda x: int(x), "convert it inside an op", lambda x: flow.op(int)(x), 2.5),
    (lambda x: given(*x), "a, b = node, then f(a, b)", given_by_names, (1, 2)),
    (lambda x: given(*x), TAKES_ITEMS, lambda x: flow.op(lambda items: given(*items))(x), (1, 2)),
    (lambda x: given(**x)[0][1], "f(a=node['a'], b=node['b'])", lambda x: given(a=x["a"])[0][1], {"a": 1}),
    (lambda x: given(b=2, **x), TAKES_KEYS, lambda x: flow.op(lambda items: given(b=2, **items))(x), {"a": 1}),
    (lambda x: {**x}, "`{} | node`", lambda x: {} | x, {"a": 1}),
    (lambda x: {"b": 2, **x}, "{'a': node['a']}", lambda x: {"b": 2, "a": x["a"]}, {"a": 1}),
    (lambda x: [*x], "node[0], node[1]", lambda x: [x[0], x[1]], (1, 2)),
    (lambda x: dict(x), "flow.op(dict)(...)", lambda x: flow.op(dict)(x), {"a": 1}),
    (lambda x: str(x), "an op can print the value", lambda x: flow.op(str)(x), 2.5),
]


@pytest.mark.parametrize(("body", "remedy", "follows", "value"), FOLLOWED)
def test_the_remedy_gives_what_the_plain_body_does(body: Body, remedy: str, follows: Body, value: Any) -> None:
    assert remedy in refused(body)
    wanted, got = body(value), flow.pipeline(follows).run(value)
    assert same(got, wanted)


@pytest.mark.parametrize(
    ("body", "follows", "value"),
    [(extended, lambda x: operator.add([1], x), [2]), (updated, lambda x: {"b": 1} | x, {"a": 2})],
)
def test_a_container_of_the_body_is_filled_by_an_operator(body: Body, follows: Body, value: Any) -> None:
    with pytest.raises(flow.TraceError, match=r"write the plain operator \(`a = a \+ node`, `a = a \| node`\)"):
        flow.pipeline(body).graph()
    assert flow.pipeline(follows).run(value) == body(value)


@pytest.mark.parametrize("options", [[], ["-X", "no_debug_ranges"]])
def test_items_in_a_call_are_told_apart_whatever_the_interpreters_options(options: list[str]) -> None:
    script = "import dataflow as flow\ndef f(*args, **kwargs): ...\n"
    for body in ("lambda x: f(*x)", "lambda x: f(**x)"):
        script += f"try: flow.pipeline({body}).graph()\nexcept flow.TraceError as error: print(error)\n"
    done = subprocess.run([sys.executable, *options, "-c", script], capture_output=True, text=True, check=True)
    assert "then f(a, b)" in done.stdout
    assert "`**` of <placeholder 0: x>" in done.stdout


def test_the_shape_of_an_argument_may_be_a_python_value() -> None:
    body = lambda x: (np.zeros(x.shape), [x[i] for i in range(len(x))], np.ones((x.shape[0], 2)), A.reshape(x.shape))
    assert "shapes=" in refused(lambda x: np.zeros(x.shape))
    assert "shapes=" in refused(lambda x: len(x))
    assert "shapes=" in refused(lambda x: range(x.shape[0]))
    got = flow.pipeline(shapes=("x",))(body).run(np.ones((3, 3)))
    for one, other in zip(got, body(np.ones((3, 3)))):
        np.testing.assert_array_equal(one, other)


def test_an_argument_that_decides_may_be_static() -> None:
    body = lambda x, n: x[: int(n)] if isinstance(n, float) else x[n:]
    assert "static=" in refused(body)
    pipeline = flow.pipeline(static=("n",))(body)
    np.testing.assert_array_equal(pipeline.run(V, 1), V[1:])
    np.testing.assert_array_equal(pipeline.run(V, 2.0), V[:2])


# ---------------------------------------------------------------------------------------------- probing functions in C

PROBES: list[tuple[str, Body, Any]] = [
    ("flow.op(scipy('linalg').blas.dgemm)", lambda x: scipy("linalg").blas.dgemm(x, A, A), 2.0),
    ("flow.op(scipy('linalg').blas.dgemm)", lambda x: scipy("linalg").blas.dgemm(1.0, x, A), A),
    ("flow.op(scipy('linalg').blas.dgemm)", lambda x: scipy("linalg").blas.dgemm(1.0, A, A, beta=x.T), 2.0),
    ("flow.op(scipy('linalg').blas.ddot)", lambda x: scipy("linalg").blas.ddot(V, V, n=x), 2),
    ("flow.op(scipy('linalg').blas.dscal)", lambda x: scipy("linalg").blas.dscal(x[0], V.copy()), (2.0,)),
    ("flow.op(scipy('linalg').cholesky)", lambda x: scipy("linalg").cholesky(A, lower=x), True),
    ("flow.op(scipy('linalg').lapack.dpotrf)", lambda x: scipy("linalg").lapack.dpotrf(A, lower=x), 1),
    ("flow.op(scipy('ndimage').gaussian_filter)", lambda x: scipy("ndimage").gaussian_filter(x, 2), A),
    ("flow.op(scipy('ndimage').gaussian_filter)", lambda x: scipy("ndimage").gaussian_filter(A, x), 2.0),
    ("flow.op(scipy('linalg').inv)", lambda x: scipy("linalg").inv(x), A),
    ("flow.op(scipy('linalg').solve)", lambda x: scipy("linalg").solve(A, x), V),
]


@pytest.mark.parametrize(("remedy", "body", "value"), PROBES)
def test_a_function_in_c_that_asks_for_item_after_item_is_refused(remedy: str, body: Body, value: Any) -> None:
    """f2py takes the first item of what is no number, and the first item of that."""
    pytest.importorskip("scipy")
    message = refused(body)
    assert remedy in message
    assert " of <placeholder" in message


def test_it_is_called_inside_an_op() -> None:
    """The remedy, followed."""
    linalg, ndimage = scipy("linalg"), scipy("ndimage")
    multiply, factor, blurred = flow.op(linalg.blas.dgemm), flow.op(linalg.cholesky), flow.op(ndimage.gaussian_filter)
    np.testing.assert_array_equal(flow.pipeline(lambda x: multiply(x, A, A)).run(2.0), linalg.blas.dgemm(2.0, A, A))
    np.testing.assert_array_equal(flow.pipeline(lambda x: factor(A, lower=x)).run(True), linalg.cholesky(A, lower=True))
    np.testing.assert_array_equal(flow.pipeline(lambda x: blurred(x, 2)).run(A), ndimage.gaussian_filter(A, 2))


def test_items_that_functions_in_c_take_are_recorded() -> None:
    body = lambda x: [operator.getitem(x, 0), operator.itemgetter(1)(x), *map(operator.itemgetter(0), [x, x])]
    assert flow.pipeline(body).run([1, 2]) == body([1, 2])


# ---------------------------------------------------------------------------------------------- how it was called


def calling(source: str) -> str:
    """What the refusal at the call in this body names."""
    scope: dict[str, Any] = {"np": np, "json": json, "math": math, "f": math.sqrt, "fs": [math.sqrt]}
    file = f"<{source}>"
    text = f"def body(x):\n    {source}\n    return x\n"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    exec(compile(text, file, "exec"), scope)
    with pytest.raises(flow.TraceError) as caught:
        flow.pipeline(scope["body"]).graph()
    before, found, _ = str(caught.value).partition(")(...)")
    return before.rpartition("flow.op(")[2] if found else ""


@pytest.mark.parametrize(
    ("source", "called"),
    [
        ("f(x)", "f"),
        ("a = 1 + f(x) * 2", "f"),
        ("fs[0](x)", "fs[0]"),
        ("math.sqrt(x)", "math.sqrt"),
        ("math.pow(2, (math.sqrt(x)))", "math.sqrt"),
        ("math.pow(\n        2,\n        x,\n    )", "math.pow"),
        ("a = 'äöü', math.sqrt(x)", "math.sqrt"),
        ("(lambda y: math.sqrt(y))(x)", "math.sqrt"),
        ("[math.sqrt(y) for y in [x]]", "math.sqrt"),
        ("np.vectorize(math.sqrt)(x)", "np.vectorize(math.sqrt)"),
        ("math.sqrt(*[x])", "math.sqrt"),
        ("json.dumps(obj=x)", "json.dumps"),
        ("json.dumps(**{'obj': x})", "json.dumps"),
        ("float(x)", ""),
        ("a = [1, 2][x]", ""),
    ],
)
def test_the_function_is_named_as_it_is_called(source: str, called: str) -> None:
    assert calling(source) == called


def test_without_a_source_nothing_is_named() -> None:
    code = compile("f(x)", "<no such file>", "eval")
    assert {function_called(code, lasti) for lasti in range(-2, len(code.co_code) + 2)} == {""}
    script = "import math, dataflow as flow\ntry: flow.pipeline(lambda x: math.sqrt(x)).graph()\n"
    script += "except flow.TraceError as error: print(error)"
    for options in ([], ["-X", "no_debug_ranges"]):
        done = subprocess.run([sys.executable, *options, "-c", script], capture_output=True, text=True, check=True)
        assert "float() of <placeholder 0: x> while" in done.stdout
        assert "at <string>:2: its value is not known yet; " in done.stdout
        assert "inside an op" in done.stdout
