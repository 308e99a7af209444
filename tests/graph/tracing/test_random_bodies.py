"""Random bodies, written as source: what a trace of them gives is what the plain function gives, bit for bit.

Among their lines are in-place statements, containers, closures, and kernels that keep what they return or are given:
nobody else's values and flags may change, and results are the user's.
"""

from __future__ import annotations

import functools
import operator
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import dataflow as flow
from tests.soak.described import described


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Box:
    inner: Any
    label: str = "box"


@flow.op
def halves(x: Any) -> Any:
    return x[:, :2], x[:, 2:]


@flow.op
def scale(x: Any, by: float = 2.0, *, offset: Any = 0.0) -> Any:
    return x * by + offset


@flow.op
def gather(box: Any) -> Any:
    """A sum over whatever a container holds."""
    if isinstance(box, np.ndarray):
        return box.sum()
    if isinstance(box, dict):
        return sum(gather(box[k]) for k in box)
    if isinstance(box, (tuple, list)):
        return sum(gather(item) for item in box)
    return gather(box.inner)


KEPT: list[np.ndarray[Any, Any]] = []
"""What kernels keep for themselves."""
GLOBAL = np.arange(12.0).reshape(3, 4)
TABLE = {"weights": np.full((3, 4), 0.5), "names": ["a", "b"]}


@flow.op
def keeping(x: Any) -> Any:
    """Keeps what it returns."""
    KEPT.append(x * 2)
    return KEPT[-1]


@flow.op
def keeping_all(x: Any) -> Any:
    """Keeps an array, returns views of it."""
    KEPT.append(np.vstack([x, x + 1]))
    return {"top": KEPT[-1][:3], "bottom": KEPT[-1][3:], "both": [KEPT[-1]] * 2}


@flow.op
def passing(x: Any) -> Any:
    return x


@flow.op
def viewing(x: Any) -> Any:
    return x[::-1]


@flow.op
def a_global(x: Any) -> Any:
    return GLOBAL


@flow.op
def weights(x: Any, table: Any) -> Any:
    return table["weights"]


@flow.op
def counted(x: Any, into: Any, times: int = 1) -> Any:
    """Changes a container that the body made."""
    for _ in range(times):
        into.append(1) if not isinstance(into, dict) else into.update({len(into): 1})
    return x + len(into)


@flow.op(writes=("acc",))
def accumulated(acc: Any, x: Any) -> Any:
    acc += x
    return acc


NAMES = {"np": np, "Pair": Pair, "Box": Box, "GLOBAL": GLOBAL, "TABLE": TABLE, "functools": functools}
NAMES |= {"operator": operator, "deque": deque}
NAMES |= {fn.__name__: fn for fn in (halves, scale, gather, keeping, keeping_all, passing, viewing, a_global, weights)}
NAMES |= {"counted": counted, "accumulated": accumulated}

# Each line reads earlier arrays (3 × 4, float64), `a` and `b`, and makes a new one, `new`; `t` is its own scratch name.
LINES = [
    "new = a + b",
    "new = a - 2.5",
    "new = 3 - a",
    "new = a * b",
    "new = a / (np.abs(b) + 1)",
    "new = 1 / (a * a + 1)",
    "new = a // 3 + b % 2",
    "new = -a",
    "new = abs(a) ** 0.5",
    "new = a.T.copy().T",
    "new = (a > b) * 1.0",
    "new = np.where((a > 0) & ~(b > 1) | (a == b), a, b)",
    "new = a @ b.T @ a / 1e3",
    "new = np.maximum(a, b)",
    "new = np.add.outer(a[:, 0], b[0])",
    "new = np.cumsum(a, axis=1)",
    "new = a.mean(axis=0, keepdims=True) + b",
    "new = a.clip(-1, 1)",
    "new = np.sort(a, axis=0)",
    "new = a[::-1]",
    "new = a[:, ::-1] + b[1]",
    "new = a[[2, 0, 1]]",
    "new = a[np.argsort(b[:, 0])]",
    "new = np.stack([a, b]).sum(axis=0)",
    "new = np.concatenate([a[:1], b[1:]])",
    "new = np.fft.irfft(np.fft.rfft(a, axis=1), n=4, axis=1)",
    "new = np.einsum('ij,ij->ij', a, b)",
    "new = a.reshape(4, 3).T + b",
    "new = a.ravel().reshape(b.shape)",
    "new = a + a.shape[0] * a.ndim",
    "new = divmod(a, 2.0)[1]",
    "new = a.round(2)",
    "t, new = np.divmod(a, 2.0)",
    "t, s = halves(a)\nnew = np.hstack([s, t])",
    "h, w = a.shape\nnew = a * h + w",
    "r0, r1, r2 = a\nnew = np.vstack([r2, r0, r1])",
    "(t, s), u = [halves(a), b]\nnew = np.hstack([t, s]) + u",
    "u, s, vt = np.linalg.svd(a, full_matrices=False)\nnew = (u * s) @ vt",
    "new = a + 0\nnew += b",
    "new = a + 0\nnew *= 2",
    "new = a.astype('f4')\nnew *= b",
    "new = a.round().astype(int)\nnew -= b.round().astype('i4')\nnew //= 2\nnew = new * 1.0",
    "new = a.T.copy().T\nnew /= abs(b) + 1\nnew -= b[0]",
    "new = abs(a)\nnew **= 2\nnew %= 3",
    "t = [1]\nt *= 3\nnew = a * len(t)",
    "new = scale(a)",
    "new = scale(a, 3, offset=b)",
    "new = scale(by=b, x=a)",
    "new = a + gather([a, (b, {'k': a})])",
    "new = b + gather(Pair(a, [b]))",
    "new = a - gather(Box({'x': b, 'y': Box(a)}))",
    "t = [a, b, {'k': a}]\nnew = t[2]['k'] + t[1]",
    "t = {'p': Pair(a, b)}\nnew = t['p'].left - t['p'].right",
    "t = [scale(x, i) for i, x in enumerate([a, b, a])]\nnew = sum(t)",
    "new = a\nfor i in range(3):\n    new = new * 0.5 + i",
    "new = (lambda x, y: x * y)(a, b)",
    "new = np.apply_along_axis(np.cumsum, 1, a)",
    "new = np.linalg.norm(a) * b",
    "new = a.astype(np.float32).astype(float)",
    "new = np.clip(a, b.min(), b.max())",
    "new = np.take(a, [0, 2, 1], axis=0)",
    "new = a.real + b.imag",
    "new = np.float64(2) * a",
    "new = np.ones((3, 4)) + a",
    "new = np.arange(12.0).reshape(3, 4) - b",
    # in place, of what containers hold
    "t = [a + 0, b]\nt[0] += t[1]\nnew = t[0]",
    "t = {'k': [a * 1]}\nt['k'][0] -= b\nt['k'] += [b]\nnew = t['k'][0] + t['k'][1]",
    "t = Box(a + 0)\nt.inner *= b\nnew = t.inner",
    "new, s = a + 0, b + 0\nnew, s = s, new\nnew += s\ns /= 3",
    "new = operator.iadd(a + 0, b)",
    "new = a + 0\nfor s in (b, 2, np.float32(0.5)):\n    new *= s",
    "new = a + 0\nnew += GLOBAL\nnew -= np.ones(4)",
    "new = scale(a)\nnew @= b.T @ b / 1e3",
    # containers
    "t = deque([a, b])\nt.rotate(1)\nnew = t[0] - t[1]",
    "t = [a]\nt.append(t[0] + b)\nt = [*t, *reversed(t)]\nnew = gather(t) + t[3]",
    "t = {**{'a': a}, 'b': b}\nnew = a + gather(dict(sorted(t.items(), reverse=True)))",
    "s = [a, b]\nt = (s, {'again': s})\nnew = gather(t) * t[1]['again'][1]",
    "t = Pair(a, b)._replace(left=b)\nnew = t.left + gather(t)",
    "new = sum(v * i for i, v in enumerate((a, b, a)))",
    "new = scale(*[a], **{'by': 2, 'offset': b})",
    "new = np.where(np.isin(np.arange(4), [1, 2]), a, b)",
    "new = counted(a, [])",
    "new = counted(a, [b, {'k': [1]}], times=2) + counted(b, {})",
    "t = deque()\nnew = counted(counted(a, t) + b, t)",
    # closures
    "def f(v=a):\n    return v + b\nnew = f() - f(b)",
    "def f():\n    nonlocal_ = a * 2\n    return (lambda: nonlocal_ + b)()\nnew = f()",
    "def f(n):\n    return a if n == 0 else f(n - 1) * 0.5 + b\nnew = f(3)",
    "t = functools.partial(scale, by=b)\nnew = t(a)",
    "new = functools.reduce(np.maximum, [a, b, a * 2])",
    "s, t = zip(*[(a, b), (b, a)])\nnew = s[0] - t[0]",
    "t = list(map(lambda v: v * b, [a, b]))\nnew = t[0] + t[1]",
    # kernels that keep what they return, or are given
    "new = keeping(a)",
    "new = keeping(a) + keeping(b)",
    "t = keeping_all(a)\nnew = t['top'] - t['bottom'] * b + t['both'][0][:3]",
    "new = keeping_all(b)['both'][1][1:4]",
    "new = passing(passing(a))",
    "new = viewing(a)",
    "new = viewing(keeping(a)) + passing(b)",
    "new = a_global(a)",
    "new = passing(GLOBAL) + a",
    "new = weights(a, TABLE)",
    "new = weights(b, {'weights': a, 'names': []})",
    "new = accumulated(a + 0, b)",
    "new = accumulated(keeping(a), b) + keeping(b)",
    "new = accumulated(GLOBAL * 1, a)",
    "new = accumulated(viewing(a) * 1, b)",
]

RETURNS = [
    "return {0}",
    "return {0}, {1}",
    "return [{0}, ({1}, {0})]",
    "return {{'x': {0}, 'y': [{1}, None, 'text']}}",
    "return Pair({0}, Box({1}))",
    "return {0}.sum(), {1}.shape, {0}.dtype, {1}[0, 0]",
    "first, *_ = [{0}, {1}]\n    return first",
    "return GLOBAL, TABLE, {0}",
    "return {0}[::2], {1}.T, {0}[:0]",
    "return deque([{0}, [{1}]])",
    "same = [{0}]\n    return same, same, {0}",
]

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": lambda x: x.copy(),
    "F": np.asfortranarray,
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "unaligned": lambda x: np.frombuffer(bytearray(b"?" + x.tobytes()), np.uint8)[1:].view(np.float64).reshape(3, 4),
}


@st.composite
def sources(draw: st.DrawFn) -> str:
    names = ["x", "y"]
    lines = ["def body(x, y):"]
    for number in range(draw(st.integers(1, 12))):
        line = draw(st.sampled_from(LINES))
        a, b = draw(st.sampled_from(names[-4:])), draw(st.sampled_from(names))
        lines += [f"    a, b = {a}, {b}", *[f"    {part}" for part in line.split("\n")], f"    v{number} = new"]
        names.append(f"v{number}")
    ending = draw(st.sampled_from(RETURNS))
    lines.append("    " + ending.format(names[-1], draw(st.sampled_from(names))))
    return "\n".join(lines)


def arrays(value: Any) -> list[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Box):
        return arrays(value.inner)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, deque)) else ()
    return [array for item in items for array in arrays(item)]


def state(*values: Any) -> Any:
    """The bits and flags of arrays of somebody else."""
    return [(described(array), array.flags.writeable) for array in arrays(values)]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(source=sources(), seed=st.integers(0, 1000), layout=st.sampled_from(sorted(LAYOUTS)))
def test_a_traced_body_gives_what_the_plain_function_gives(source: str, seed: int, layout: str) -> None:
    note(f"{source}\n# on arrays that are {layout}")
    scope: dict[str, Any] = dict(NAMES)
    exec(source, scope)
    x, y = map(LAYOUTS[layout], np.random.default_rng(seed).standard_normal((2, 3, 4)))
    owned = GLOBAL, TABLE, x, y
    before = state(*owned)
    with np.errstate(all="ignore"):
        expected = described(scope["body"](*map(LAYOUTS[layout], (x, y))), "of a copy")
        assert state(*owned) == before
        pipeline = flow.pipeline(scope["body"])
        for run in (pipeline.debug, pipeline.run, pipeline.run):
            KEPT.clear()
            result = run(x, y)
            assert described(result, "of a copy") == expected
            assert state(*owned) == before
            assert all(array.flags.writeable for array in KEPT)
            for array in arrays(result):
                assert array.flags.writeable
                assert not any(np.shares_memory(array, other) for other in (x, y) if array is not other)
