"""Random bodies, written as source: what a trace of them gives is what the plain function gives, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import dataflow as flow


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


NAMES = {"np": np, "Pair": Pair, "Box": Box, "halves": halves, "scale": scale, "gather": gather}

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
]

RETURNS = [
    "return {0}",
    "return {0}, {1}",
    "return [{0}, ({1}, {0})]",
    "return {{'x': {0}, 'y': [{1}, None, 'text']}}",
    "return Pair({0}, Box({1}))",
    "return {0}.sum(), {1}.shape, {0}.dtype, {1}[0, 0]",
    "first, *_ = [{0}, {1}]\n    return first",
]


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


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.dtype == right.dtype and left.tobytes() == right.tobytes()
    if type(left) is not type(right):
        return False
    if isinstance(left, (tuple, list)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, Box):
        return same((left.inner, left.label), (right.inner, right.label))
    return bool(left == right) or left != left


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(source=sources(), seed=st.integers(0, 1000))
def test_a_traced_body_gives_what_the_plain_function_gives(source: str, seed: int) -> None:
    note(source)
    scope: dict[str, Any] = dict(NAMES)
    exec(source, scope)
    x, y = np.random.default_rng(seed).standard_normal((2, 3, 4))
    with np.errstate(all="ignore"):
        expected = scope["body"](x.copy(), y.copy())
        pipeline = flow.pipeline(scope["body"])
        before = x.tobytes(), y.tobytes()
        for result in (pipeline.debug(x, y), pipeline.run(x, y), pipeline.run(x, y)):
            assert same(expected, result)
        assert (x.tobytes(), y.tobytes()) == before
