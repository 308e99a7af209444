"""Operators and pipelines in other processes: by name with pickle, by value with cloudpickle."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dataflow as flow

REPO = Path(__file__).resolve().parents[2]


@flow.op
def double(x: Any) -> Any:
    return 2 * x


@flow.op(name="named", timeout=5, retries=1, retry_on=KeyError)
def managed(x: Any, by: Any = 1) -> Any:
    return x + by


@flow.pipeline(static=("times",))
def many(x: Any, times: int = 2, *, offset: Any = 0, **more: Any) -> Any:
    for _ in range(times):
        x = flow.label(double(x), "last") if not _ else double(x)
    return managed(x) + offset, sorted(more)


def plain(x: Any) -> Any:
    return x + 100


of_plain = flow.op(plain)


class Model:
    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.kept = self.layer

    @flow.op
    def layer(self, x: Any) -> Any:
        return self.weight * x

    @flow.pipeline
    def forward(self, x: Any, gain: Any = 1) -> Any:
        return self.layer(x) * gain

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self.weight == other.weight

    def __hash__(self) -> int:
        return self.weight


def test_what_a_module_has_is_pickled_by_name() -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        for value in (double, managed, many, Model.layer, Model.forward):
            many.graph()
            pickled = pickle.dumps(value, protocol)
            assert pickle.loads(pickled) is value
            assert len(pickled) < 300  # no graph


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_made_of_it_is_pickled_as_that_and_the_changes(protocol: int) -> None:
    def back(value: Any) -> Any:
        return pickle.loads(pickle.dumps(value, protocol))

    assert back(managed.options(retries=0))._spec.options == managed.options(retries=0)._spec.options
    other = back(managed.options(name="other", retries=3))
    assert (other(1, by=2), other.name) == (3, "other")
    assert other._spec.options == managed.options(retries=3)._spec.options
    assert back(of_plain)(1) == back(back(of_plain)).options(name="x")(1) == 101
    assert back(many).run(1) == back(many.bind()).run(1) == (5, [])
    bound = back(many.bind(offset=10, times=1, b=3).bind(a=4))
    assert bound.run(1) == (13, ["a", "b"])
    with pytest.raises(TypeError, match="which is bound already"):
        bound.run(1, a=1)
    assert back(many.select("last")).run(1) == 2
    assert back(many.replace({double: of_plain})).run(1) == (202, [])
    assert back(many.replace({managed: plain, double: managed}).bind(times=1)).run(1) == (102, [])
    assert back(back(many.replace({managed: plain}).select("last"))).run(1) == 2
    assert back([double, double.options(name="x"), many])[2] is many


def test_on_an_instance(tmp_path: Path) -> None:
    for model in (Model(3), pickle.loads(pickle.dumps(Model(3)))):
        layer, forward = pickle.loads(pickle.dumps((model.layer, model.forward.bind(gain=10))))
        assert (layer(2), forward.run(2)) == (6, 60)
        assert layer._owner == model
        assert layer._owner.kept == layer._owner.layer
        assert pickle.loads(pickle.dumps(model.forward)).run(2) == 6


def test_copies() -> None:
    for value in (double, many, many.bind(offset=1)):
        assert copy.copy(value) is copy.deepcopy(value) is copy.deepcopy([value])[0] is value
    model = copy.deepcopy(Model(3))
    assert model.kept == model.layer
    bound = model.layer
    model.weight = 4
    assert copy.copy(bound)(2) == 8
    assert copy.deepcopy(bound)._owner is not model


def local() -> tuple[Any, Any]:
    weight = 3

    @flow.op
    def times(x: Any) -> Any:
        return weight * x

    @flow.pipeline
    def body(x: Any) -> Any:
        return times(x) + 1

    return times, body


def test_pickle_says_what_it_cannot_find() -> None:
    for value in (*local(), flow.op(lambda x: x), local()[1].bind(x=1)):
        with pytest.raises((pickle.PicklingError, AttributeError), match=r"local|lambda"):
            pickle.dumps(value)


def test_a_runtime_stays_where_it_is() -> None:
    runtime = flow.Runtime(max_runs=1)
    for value in (many, double, many.bind(times=1), local()[1], Model(3).forward, Model(3).layer):
        with pytest.raises(TypeError, match=r"bound to a Runtime, which .*pickle it without \.on"):
            pickle.dumps(value.on(runtime))
    there = pickle.loads(pickle.dumps(many))  # as the message says
    assert there.on(runtime).run(1) == (5, [])


def test_a_limit_is_one_for_all_that_is_sent_with_it() -> None:
    limit = flow.Limit(2)
    first, second = (managed.options(limit=limit), double.options(limit=limit))
    assert pickle.loads(pickle.dumps(first))._asked["limit"] is limit
    program = """
import pickle, sys
first, second = (pickle.loads(bytes.fromhex(each)) for each in sys.argv[1:])
limit = first._asked["limit"]
assert limit is second._asked["limit"] and limit.n == 2
assert pickle.loads(pickle.dumps(limit)) is limit
"""
    run(program, *(pickle.dumps(each).hex() for each in (first, second)))


def run(program: str, *arguments: str, folder: Path = REPO) -> str:
    """What a program prints, as a process of its own."""
    path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# By value: one process pickles, another one, which has nothing of it, unpickles and runs.

DECLARED = """
import functools, sys
from pathlib import Path
import dataflow as flow

weight = 3

@flow.op
def times(x):
    return weight * x

@flow.op
def countdown(x):
    return times(x) if x < 1 else countdown(x - 1)  # refers to itself, and here it is a function

def plain(x):
    return x + 100

of_plain = flow.op(plain)

@flow.pipeline(static=("n",))
def many(x, n=2):
    for _ in range(n):
        x = times(x)
    return flow.label(countdown(x), "last") + 1

@flow.op(timeout=5, limit=flow.Limit(2), name="t")
async def later(x, by=1):
    return x + by

quick = later.options(timeout=1)

@flow.op
def refers(x):
    return derived.name

derived = refers.options(name="derived")

@functools.wraps(many)
def around(x):
    return many.run(x)

class Model:
    def __init__(self, gain):
        self.gain = gain
        self.kept = self.layer
    @flow.op
    def layer(self, x):
        return self.gain * x
    @flow.pipeline
    def forward(self, x):
        return self.layer(x) + self.gain
    @staticmethod
    @flow.op
    def shift(x):
        return x + 1

def local(gain):
    @flow.op
    def scaled(x):
        return gain * x
    @flow.pipeline
    def both(x):
        return scaled(x), times(x)
    return scaled, both

model, (scaled, both) = Model(4), local(5)
many.run(1), both.graph(), model.forward.run(1)

VALUES = {
    "times": times, "countdown": countdown, "of_plain": of_plain, "inc": flow.op(lambda x: x + 1), "many": many,
    "bind": many.bind(n=1), "select": many.select("last"), "replace": many.replace({times: plain}),
    "quick": quick, "refers": refers, "derived": derived, "around": around, "shift": Model.shift,
    "layer": model.layer, "kept": model.kept, "forward": model.forward, "fixed": model.forward.bind(x=2),
    "static": Model.forward, "scaled": scaled, "both": both, "renamed": both.replace({scaled: times}),
    "lambda": flow.pipeline(lambda x: scaled(x) + 1), "partial": flow.op(functools.partial(pow, 2)),
    "mapped": flow.pipeline(lambda xs: flow.map(times, xs)), "all": [times, many, times],
}
"""

USED = """
import asyncio, pickle, sys
assert not hasattr(sys.modules["__main__"], "times")
for pickled, asked in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    value = pickle.loads(bytes.fromhex(pickled))
    print(eval(asked))
"""

EXPECTED = {
    "times": ("value(2), value.options(name='x')(2), value.name", (6, 6, "times")),
    "countdown": ("value(3), value._fn.__globals__['countdown'] is value", (0, True)),
    "of_plain": ("value(1)", 101),
    "inc": ("value(1)", 2),
    "many": ("value.run(1), value.run(1, n=1)", (1, 1)),
    "bind": ("value.run(1)", 1),
    "select": ("value.run(1)", 0),
    "replace": ("value.run(1), len(value.graph().nodes)", (1, 4)),
    "quick": (
        "asyncio.run(value(1, by=3)), value.name, value._asked['limit'].n, value._spec.options.timeout",
        (4, "t", 2, 1.0),
    ),
    "refers": ("value(1), value._fn.__globals__['derived']._fn is value._fn", ("derived", True)),
    "derived": ("value(1), value.name", ("derived", "derived")),
    "around": ("value(1)", 1),
    "shift": ("value(1)", 2),
    "layer": ("value(2), value._owner.kept == value._owner.layer, value == value._owner.layer", (8, True, True)),
    "kept": ("value(2)", 8),
    "forward": ("value.run(2), value == value._owner.forward", (12, True)),
    "fixed": ("value.run()", 12),
    "static": ("value._class.__name__, value._class.forward is value", ("Model", True)),
    "scaled": ("value(2)", 10),
    "both": ("value.run(2)", (10, 6)),
    "renamed": ("value.run(2)", (6, 6)),
    "lambda": ("value.run(2)", 11),
    "partial": ("value(3)", 8),
    "mapped": ("value.run([1, 2])", [3, 6]),
    "all": ("value[0] is value[2] is value[1]._fn.__globals__['times']", True),
}


@pytest.fixture(scope="module")
def sent() -> dict[str, str]:
    """What a process pickled that has all of it in `__main__`."""
    pytest.importorskip("cloudpickle")
    send = "import cloudpickle\nfor name, value in VALUES.items(): print(name, cloudpickle.dumps(value).hex())"
    return dict(line.split() for line in run(DECLARED + send).splitlines())  # type: ignore[misc]


@pytest.fixture(scope="module")
def answers(sent: dict[str, str]) -> dict[str, str]:
    """What a process that has nothing of it says of each value."""
    asked = [part for name, (question, _) in EXPECTED.items() for part in (sent[name], question)]
    return dict(zip(EXPECTED, run(USED, *asked).splitlines(), strict=True))


@pytest.mark.parametrize("name", EXPECTED)
def test_cloudpickle_sends_what_is_in_main_or_local_by_value(
    name: str, sent: dict[str, str], answers: dict[str, str]
) -> None:
    assert answers[name] == str(EXPECTED[name][1])
    assert len(sent[name]) < 30_000  # no graph


def test_what_was_sent_can_be_sent_on(sent: dict[str, str]) -> None:
    names = ("countdown", "both", "layer", "replace", "quick")
    on = """
import cloudpickle, pickle, sys
for pickled in sys.argv[1:]:
    print(cloudpickle.dumps(pickle.loads(bytes.fromhex(pickled))).hex())
"""
    sent_on = run(on, *(sent[name] for name in names)).splitlines()
    asked = [part for name, pickled in zip(names, sent_on, strict=True) for part in (pickled, EXPECTED[name][0])]
    assert run(USED, *asked).splitlines() == [str(EXPECTED[name][1]) for name in names]


def test_cloudpickle_sends_what_can_be_imported_by_name(tmp_path: Path) -> None:
    """Unless the module is registered."""
    pytest.importorskip("cloudpickle")
    (tmp_path / "declared.py").write_text(DECLARED)
    send = """
import cloudpickle, declared
for name in ("times", "many", "quick", "forward", "bind"):
    pickled = cloudpickle.dumps(declared.VALUES[name])
    assert len(pickled) < 1000, (name, len(pickled))
    print(pickled.hex())
cloudpickle.register_pickle_by_value(declared)
print(cloudpickle.dumps(declared.many).hex())
"""
    *named, by_value = run(send, folder=tmp_path).splitlines()
    use = """
import pickle, sys, declared
times, many, quick, forward, bind = (pickle.loads(bytes.fromhex(each)) for each in sys.argv[1:])
assert times is declared.times and many is declared.many
assert quick._spec.options == declared.quick._spec.options  # with the limit of that process
assert quick.options(retries=0, limit=None)._spec.options == declared.later.options(timeout=1, limit=None)._spec.options
assert forward.run(2) == 12 and bind.run(1) == 1
"""
    run(use, *named, folder=tmp_path)
    assert run(USED, by_value, "value.run(1)", folder=REPO) == "1"


def test_main_is_sent_by_name_with_pickle(tmp_path: Path) -> None:
    """As functions are: what multiprocessing starts has the same `__main__`."""
    program = (
        DECLARED
        + """
import concurrent.futures, multiprocessing, pickle
if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(many)) is many
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        print(pool.submit(times, 2).result(), pool.submit(many.bind(n=1).run, 1).result())
"""
    )
    (tmp_path / "program.py").write_text(program)
    path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["6", "1"], "")


def test_a_function_around_a_pipeline_can_be_sent() -> None:
    """`functools.wraps` gives it all attributes of the pipeline."""
    cloudpickle = pytest.importorskip("cloudpickle")
    many.run(1)

    @functools.wraps(many)
    def around(x: Any) -> Any:
        return many.run(x)

    assert pickle.loads(cloudpickle.dumps(around))(1) == (5, [])
