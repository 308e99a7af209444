"""Stale graphs: what a body names, itself or by way of helpers, is bound to something else; it is traced anew then."""

from __future__ import annotations

import functools
import gc
import importlib
import sys
import textwrap
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from tests.release import let_go, settles

Runner = Callable[[Any], Any]


class Notebook:
    """Cells that share their globals, as in a notebook or at the prompt."""

    def __init__(self, *cells: str) -> None:
        self.names: dict[str, Any] = {"flow": flow, "np": np, "functools": functools, "__name__": "__main__"}
        self.count = 0
        for cell in cells:
            self.run(cell)

    def run(self, cell: str) -> None:
        self.count += 1
        exec(compile(textwrap.dedent(cell), f"<cell {self.count}>", "exec"), self.names)

    def value(self, expression: str) -> Any:
        return eval(expression, self.names)


G = """
@flow.op
def g(x): return x * 2
"""
G_AGAIN = """
@flow.op
def g(x): return x * 100
"""
P = """
@flow.pipeline
def p(x): return g(x)
"""

# What is declared; what changes it; what `p.run(1)` gives before and after.
REBOUND: dict[str, tuple[tuple[str, ...], str, Any, Any]] = {
    "an operator": ((G, P), G_AGAIN, 2, 100),
    "a plain function": (("def g(x): return x * 2", P), "def g(x): return x * 100", 2, 100),
    "the code of a function": (
        ("def g(x): return x * 2\ndef other(x): return x * 100", P),
        "g.__code__ = other.__code__",
        2,
        100,
    ),
    "the code of the body": (
        ("def body(x): return x * 2\ndef other(x): return x * 100\np = flow.pipeline(body)",),
        "body.__code__ = other.__code__",
        2,
        100,
    ),
    "a number": (("N = 2\n@flow.pipeline\ndef p(x): return x * N",), "N = 100", 2, 100),
    "a number of another type": (
        ("N = 2\n@flow.pipeline\ndef p(x): return x * N, repr(N)",),
        "N = 2.0",
        (2, "2"),
        (2.0, "2.0"),
    ),
    "a sign": (("N = 0.0\n@flow.pipeline\ndef p(x): return x + 1, repr(N)",), "N = -0.0", (2, "0.0"), (2, "-0.0")),
    "text": (("N = 'a'\n@flow.pipeline\ndef p(x): return x, N",), "N = 'b'", (1, "a"), (1, "b")),
    "a list": (("N = [1]\n@flow.pipeline\ndef p(x): return x + N[0]",), "N = [2]", 2, 3),
    "an array": (("N = np.ones(1)\n@flow.pipeline\ndef p(x): return x + N",), "N = np.zeros(1)", 2, 1),
    "a helper": ((G, "def h(x): return g(x)", P.replace("g(", "h(")), "def h(x): return x * 100", 2, 100),
    "an operator of a helper": ((G, "def h(x): return g(x)", P.replace("g(", "h(")), G_AGAIN, 2, 100),
    "far below": (
        ("N = 2", "def a(x): return x * N", "def b(x): return a(x)", "def c(x): return b(x)", P.replace("g(", "c(")),
        "N = 100",
        2,
        100,
    ),
    "in a comprehension": (
        ("N = 2\n@flow.pipeline\ndef p(x): return [x * N for _ in range(1)][0]",),
        "N = 100",
        2,
        100,
    ),
    "in a lambda": (("N = 2\n@flow.pipeline\ndef p(x): return (lambda y: y * N)(x)",), "N = 100", 2, 100),
    "in a function of the body": (
        ("N = 2\n@flow.pipeline\ndef p(x):\n    def inner(y): return y * N\n    return inner(x)",),
        "N = 100",
        2,
        100,
    ),
    "a helper of a partial": (
        ("N = 2", "def times(by, x): return x * by * N", "h = functools.partial(times, 1)", P.replace("g(", "h(")),
        "N = 100",
        2,
        100,
    ),
    "below a decorator": (
        (
            "N = 2",
            "def logged(f):\n    @functools.wraps(f)\n    def inner(*a): return f(*a)\n    return inner",
            "@logged\ndef h(x): return x * N",
            P.replace("g(", "h("),
        ),
        "N = 100",
        2,
        100,
    ),
    "below a cache": (
        ("N = 2", "@functools.cache\ndef h(): return N", "@flow.pipeline\ndef p(x): return x * h()"),
        "N = 100\nh.cache_clear()",
        2,
        100,
    ),
    "a default": (("N = 2\ndef h(x): return x * N", "@flow.pipeline\ndef p(x, h=h): return h(x)"), "N = 100", 2, 100),
    "an inner pipeline": ((G, "@flow.pipeline\ndef q(x): return g(x)", P.replace("g(", "q(")), G_AGAIN, 2, 100),
    "another inner pipeline": (
        ("@flow.pipeline\ndef q(x): return x * 2", P.replace("g(", "q(")),
        "@flow.pipeline\ndef q(x): return x * 100",
        2,
        100,
    ),
    "an inner pipeline that was changed": (
        (G, "@flow.pipeline\ndef q(x): return flow.label(g(x), 'l')", "r = q.select('l')", P.replace("g(", "r(")),
        G_AGAIN,
        2,
        100,
    ),
    "of a static argument": (
        ("N = 2\ndef h(x): return x * N", "@flow.pipeline(static=('f',))\ndef q(x, f): return f(x)", "p = q.bind(f=h)"),
        "N = 100",
        2,
        100,
    ),
    "of a class": (
        (
            "class C:\n    N = 2\n    def m(self, x): return x * self.N\nc = C()",
            "@flow.pipeline\ndef p(x): return c.m(x)",
        ),
        "C.N = 100",
        2,
        100,
    ),
    "a method": (
        ("class C:\n    def m(self, x): return x * 2\nc = C()", "@flow.pipeline\ndef p(x): return c.m(x)"),
        "C.m = lambda self, x: x * 100",
        2,
        100,
    ),
    "a global of a method": (
        ("N = 2\nclass C:\n    def __call__(self, x): return x * N\nc = C()", "@flow.pipeline\ndef p(x): return c(x)"),
        "N = 100",
        2,
        100,
    ),
    "a static method": (
        ("N = 2\nclass C:\n    @staticmethod\n    def m(x): return x * N", "@flow.pipeline\ndef p(x): return C.m(x)"),
        "N = 100",
        2,
        100,
    ),
    "a property": (
        (
            "N = 2\nclass C:\n    @property\n    def n(self): return N\nc = C()",
            "@flow.pipeline\ndef p(x): return x * c.n",
        ),
        "N = 100",
        2,
        100,
    ),
    "a builtin": (("@flow.pipeline\ndef p(x): return x * max(1, 2)",), "def max(*n): return 100", 2, 100),
    "to nothing": (("N = None\n@flow.pipeline\ndef p(x): return x * 2 if N is None else x * N",), "N = 100", 2, 100),
    "a class": (("class C: n = 2\n@flow.pipeline\ndef p(x): return x * C.n",), "class C: n = 100", 2, 100),
}


@pytest.mark.parametrize("kind", REBOUND)
def test_what_was_bound_to_something_else_is_traced_anew(run_async: Runner, kind: str) -> None:
    cells, change, before, after = REBOUND[kind]
    notebook = Notebook(*cells)
    assert run_async(notebook.value("p(1)")) == notebook.value("p.run(1)") == before
    graph = notebook.value("p").graph(1)
    assert notebook.value("p").graph(1) is graph
    notebook.run(change)
    assert run_async(notebook.value("p(1)")) == notebook.value("p.run(1)") == notebook.value("p.debug(1)") == after
    assert notebook.value("p").graph(1) is not graph
    assert notebook.value("p").graph(1) is notebook.value("p").graph(1)


def test_streams_maps_and_what_is_made_of_it_see_it() -> None:
    notebook = Notebook(G, "def h(x): return flow.label(g(x), 'h')", P.replace("g(", "h("))
    notebook.run("""
    async def all_of(stream): return [y async for y in stream]
    import asyncio
    outer = flow.pipeline(lambda xs: (flow.map(p, xs), flow.cond(xs[0] > 0, p, p, xs[0])))
    bound, selected, replaced = p.bind(x=1), p.select("h"), p.replace({})
    class Model:
        @flow.pipeline
        def whole(self, x): return self.part(x)
        def part(self, x): return h(x)
    model = Model()
    """)
    asked = """
        outer.run([1, 2]), flow.map(p, [1]), bound.run(), selected.run(1), replaced.run(1), model.whole.run(1),
        asyncio.run(all_of(p.stream([1]))), asyncio.run(all_of(model.whole.stream([1])))
    """
    for factor in (2, 100):
        assert notebook.value(f"({asked})") == (
            ([factor, 2 * factor], factor), [factor], factor, factor, factor, factor, [factor], [factor],
        )  # fmt: skip
        notebook.run(G_AGAIN)


def test_closures(run_async: Runner) -> None:
    amount, later = 1, None

    def helper(x: Any) -> Any:
        return x * amount  # noqa: F821

    @flow.pipeline
    def p(x: Any) -> Any:
        return helper(x) if later is None else later(x)

    assert run_async(p(3)) == 3
    amount = 10
    assert run_async(p(3)) == 30
    later = helper
    amount = 20
    assert run_async(p(3)) == 60
    del amount
    with pytest.raises(NameError, match="amount"):
        p(3)


def test_modules_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "named_by_a_body.py"
    module.write_text("N = 2\ndef h(x): return x * N\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    ops = importlib.import_module("named_by_a_body")

    @flow.pipeline
    def p(x: Any) -> Any:
        return ops.h(x), ops.N

    try:
        assert p.run(1) == (2, 2)
        ops.N = 3
        assert p.run(1) == (3, 3)
        module.write_text("N = 100  # another length\ndef h(x): return x * N\n")
        importlib.reload(ops)
        assert p.run(1) == (100, 100)
    finally:
        del sys.modules["named_by_a_body"]


# What is no reason to trace again.


def traces_of(*cells: str) -> tuple[Notebook, list[Any]]:
    """A notebook with a pipeline `p(x)`, whose traces are counted in `traces`."""
    traces: list[Any] = []
    notebook = Notebook("import types")
    notebook.names["traces"] = traces
    for cell in cells:
        notebook.run(cell)
    return notebook, traces


@pytest.mark.parametrize(
    ("cell", "changes"),
    [
        ("N = 1234", ["N = 1000 + 234", "N = int('1234')", "N = 1234"]),
        ("N = 'some text'", ["N = 'some ' + 'text'", "N = ''.join(['some', ' text'])"]),
        ("N = 0.1", ["N = 1 / 10", "N = float('0.1')"]),
        ("N = (1, 'a', (2.5, None))", ["N = tuple([1, 'a', (5 / 2, None)])"]),
        ("N = np.float64(2)", ["N = np.float64('2')"]),
        ("N = float('nan')", ["N = float('nan')"]),
        ("N = 3 + 4j", ["N = complex('3+4j')"]),
        ("N = frozenset('ab')", ["N = frozenset('ba')"]),
        ("N = range(3)", ["N = range(0, 3)"]),
        ("N = [1]", ["N.append(2)", "N[0] = 5"]),
        ("N = {'a': 1}", ["N['a'] = 2", "N['b'] = 2"]),
        ("N = types.SimpleNamespace(a=1)", ["N.a = 2"]),
        ("N = 1\nOTHER = 1", ["OTHER = 2", "del OTHER", "def unrelated(): pass"]),
    ],
)
def test_equal_numbers_and_what_is_inside_of_objects_are_no_reason(cell: str, changes: list[str]) -> None:
    """Mutable objects are compared by identity: see `retrace`."""
    notebook, traces = traces_of(cell, "@flow.pipeline\ndef p(x):\n    traces.append(repr(N))\n    return x + 1")
    for change in ("", *changes):
        notebook.run(change)
        assert notebook.value("p.run(1)") == 2
    assert len(traces) == 1
    notebook.run("p.retrace()")
    assert notebook.value("p.run(1)") == 2
    assert traces[1] == repr(notebook.value("N"))


def test_what_a_body_binds_itself_is_no_reason() -> None:
    notebook, traces = traces_of("""
    count = 0
    @flow.pipeline(static=("n",))
    def p(x, n=0):
        global count
        count += 1
        traces.append(count)
        return helper(x) + n
    def helper(x):
        global seen
        seen = x.shape if x is None else None
        return x
    def outer():
        calls = 0
        @flow.pipeline(static=("n",))
        def q(x, n):
            nonlocal calls
            calls += 1
            traces.append(calls)
            return x + n
        return q
    q = outer()
    """)
    for _ in range(3):
        for n in range(3):
            assert notebook.value(f"p.run(1, {n})") == notebook.value(f"q.run(1, {n})") == 1 + n
    assert traces == [1, 1, 2, 2, 3, 3]


def test_proxies_that_know_nothing_outside_of_a_request_are_not_asked() -> None:
    """As those of werkzeug and others, whose class is that of what they stand for."""

    class Proxy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("working outside of a request")

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("working outside of a request")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("working outside of a request")

        __hash__ = None  # type: ignore[assignment]

    request = Proxy()

    @flow.pipeline
    def p(x: Any) -> Any:
        return x + 1 if request is not None else x

    assert [p.run(1), p.run(1)] == [2, 2]
    graph = p.graph(1)
    request = Proxy()
    assert p.run(1) == 2
    assert p.graph(1) is not graph


# What it keeps.


class Model:
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    @flow.pipeline
    def forward(self, x: Any) -> Any:
        return x * self.weight if current is self else x * current.weight


current: Any = None


def test_what_a_body_names_is_not_kept_alive_by_its_graph() -> None:
    """Also the very instance whose graph it is."""
    global current
    current = Model(3)
    assert current.forward.run(1) == 3
    gone = weakref.ref(current)
    current = Model(5)
    gc.collect()
    assert settles(lambda: let_go() or gone() is None)
    assert current.forward.run(1) == 5
    table = np.zeros(10)

    @flow.pipeline
    def p(x: Any) -> Any:
        return x + table.shape[0]

    assert p.run(1) == 11
    gone = weakref.ref(table)
    table = np.zeros(20)
    gc.collect()
    assert settles(lambda: let_go() or gone() is None)
    assert p.run(1) == 21
    current = None


def test_the_stale_graph_goes() -> None:
    weight = np.ones(3)

    @flow.pipeline
    def p(x: Any) -> Any:
        return x * weight

    p.run(1)
    gone = weakref.ref(weight)
    weight = np.zeros(3)
    assert p.run(1).tolist() == [0, 0, 0]
    gc.collect()
    assert settles(lambda: let_go() or gone() is None)


def test_concurrent_calls_trace_it_once() -> None:
    traces: list[int] = []
    amount = 1

    @flow.pipeline
    def p(x: Any) -> Any:
        traces.append(1)
        return x * amount

    assert p.run(1) == 1
    for amount in range(2, 12):
        begun = threading.Barrier(4)
        results: list[Any] = []

        def call() -> None:
            begun.wait(20)  # noqa: B023
            results.append(p.run(1))  # noqa: B023

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [amount] * 4
    assert len(traces) == 11


def test_many_functions_end() -> None:
    """Helpers that call each other, and more of them than are followed."""
    notebook = Notebook("N = 1\ndef f0(x): return x * N if x is None else f1(x)")
    notebook.run("\n".join(f"def f{i}(x): return f{i + 1}(x)" for i in range(1, 400)))
    notebook.run("def f400(x): return x + 1 if True else f0(x)")
    notebook.run("@flow.pipeline\ndef p(x): return f0(x)")
    assert notebook.value("p.run(1)") == 2
    notebook.run("def f10(x): return x * 100")
    assert notebook.value("p.run(1)") == 100
    assert isinstance(notebook.value("f0"), types.FunctionType)
