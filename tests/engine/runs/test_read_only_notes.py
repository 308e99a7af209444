"""Who writes to what is handed out read-only is told what to do, whichever library it is that refuses."""

from __future__ import annotations

import ctypes
import io
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dataflow as flow


def refuse(error: Exception) -> Callable[[Any], Any]:
    """What a library that is not installed here says."""

    def write(x: Any) -> Any:
        assert not x.flags.writeable
        raise error

    return write


class TypingError(Exception):
    """numba's is derived from nothing that one could catch it by."""


def receive(x: Any) -> int:
    left, right = socket.socketpair()
    with left, right:
        left.send(b"abc")
        return right.recv_into(x)


def read(x: Any) -> int:
    with open(__file__, "rb", buffering=0) as file:
        return file.readinto(x) or 0


def resize(x: Any) -> None:
    x.resize(3, refcheck=False)


WRITES: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda x: x.fill(1),
    "numpy's out": lambda x: np.add(x, 1, out=x),
    "numpy's dot": lambda x: np.dot(np.eye(16), np.ones(16), out=x),
    "numpy's random out": lambda x: np.random.default_rng().random(out=x),
    "numpy's shuffle, which is Cython": lambda x: np.random.default_rng().shuffle(x),
    "numpy's iterator": lambda x: np.nditer(x, op_flags=["readwrite"]),
    "numpy's flags": lambda x: x.setflags(write=True),
    "numpy's resize": resize,
    "item of a memoryview": lambda x: memoryview(x).__setitem__(0, 1.0),
    "ctypes' from_buffer": lambda x: (ctypes.c_double * 4).from_buffer(x),
    "numpy's as_ctypes": np.ctypeslib.as_ctypes,
    "readinto": lambda x: io.BytesIO(b"abcd").readinto(x),
    "readinto of a file": read,
    "recv_into": receive,
    "pack_into": lambda x: struct.pack_into("d", x, 0, 1.0),
    "Struct.pack_into": lambda x: struct.Struct("d").pack_into(x, 0, 1.0),
    "Cython": refuse(ValueError("buffer source array is read-only")),
    "numba": refuse(TypingError("Cannot modify readonly array of type: readonly array(float64, 1d, C)")),
    "numba with a signature": refuse(TypeError("No matching definition for argument type(s) readonly array(float64)")),
    "h5py": refuse(TypeError("Array must be C-contiguous and writable")),
    "a buffer": refuse(BufferError("Object is not writable.")),
    "xarray": refuse(ValueError("Assignment destination is a view.  Do you want to .copy() array first?")),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("way", ["run", "debug"])
def test_each_refusal_comes_with_the_remedies(write: Callable[[Any], Any], way: str) -> None:
    p = flow.pipeline(flow.op(write, name="the_writer"))
    with pytest.raises(Exception, match=r".") as caught:
        getattr(p, way)(np.zeros(16))
    note = "\n".join(caught.value.__notes__)
    assert "'the_writer'" in note
    for remedy in ("`x = x.copy()`", 'writes=("x",)', 'inout=("x",)'):
        assert remedy in note


@pytest.mark.parametrize(
    "name", [name for name, write in WRITES.items() if write.__qualname__ != refuse(OSError()).__qualname__]
)
def test_the_remedies_work(name: str) -> None:
    write = WRITES[name]
    if name == "numpy's resize":
        write = lambda x: x.resize(32, refcheck=False)
    mine = np.zeros(16)
    flow.pipeline(flow.op(lambda x: write(x.copy()) is None)).run(mine)
    flow.pipeline(flow.op(lambda x: write(x) is None, writes=("x",))).run(mine)
    assert not mine.any()


def test_values_that_hold_themselves_are_told_of_too() -> None:
    mine: list[Any] = [np.zeros(3)]
    mine.append(mine)
    table: dict[str, Any] = {"x": np.zeros(2)}
    table["self"] = table
    for value in (mine, table, [mine, np.zeros(1)]):
        with pytest.raises(ValueError, match="no such") as caught:
            flow.pipeline(flow.op(lambda _: int("no such"), name="reader")).run(value)
        assert "'reader'" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "error",
    [
        OSError(30, "Read-only file system"),
        AttributeError("readonly attribute"),
        KeyError("read-only"),
        ValueError("no such value"),
    ],
)
def test_other_errors_come_without(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        flow.pipeline(flow.op(refuse(error))).run(np.zeros(3))
    assert "read-only:" not in "\n".join(caught.value.__notes__)


def test_an_operator_that_is_given_nothing_that_is_read_only_is_told_nothing_of_it() -> None:
    def configure(_: int) -> None:
        raise ValueError("the setting is read-only")

    with pytest.raises(ValueError, match="the setting") as caught:
        flow.pipeline(flow.op(configure)).run(3)
    assert ".copy()" not in "\n".join(caught.value.__notes__)
