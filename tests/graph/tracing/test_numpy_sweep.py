"""All of numpy's public functions, with a placeholder in each argument position: the right result, or a TraceError.

The calls are generated from the numpy that is installed: by the names of its parameters, each function is given
arguments that it accepts. Where none of the guesses is accepted, `EXAMPLES` has some. What is covered is counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from tests.soak.calls import INTEGERS, METHODS, SQUARE, UNINITIALISED, VECTOR, calls, functions, plain

Array = np.ndarray[Any, Any]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, (tuple, list)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        equal_nan = left.dtype.kind in "fcmM"
        return (
            isinstance(right, np.ndarray)
            and left.dtype == right.dtype
            and np.array_equal(left, right, equal_nan=equal_nan)
        )
    if callable(left):
        return callable(right)
    return type(left) is type(right) and bool(left == right or left != left)


def variants(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    """For each position: (what it is called, its value, the call with something else there)."""
    for place, value in enumerate(args):
        yield f"argument {place}", value, lambda x, place=place: ((*args[:place], x, *args[place + 1 :]), kwargs)
        if isinstance(value, (list, tuple)) and value:
            kind = type(value)
            yield (
                f"argument {place}[0]",
                value[0],
                lambda x, place=place, value=value, kind=kind: (
                    (*args[:place], kind([x, *value[1:]]), *args[place + 1 :]),
                    kwargs,
                ),
            )
    for key, value in kwargs.items():
        yield key, value, lambda x, key=key: (args, {**kwargs, key: x})


def check(name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, str]]:
    """What became of each position: recorded or refused; AssertionError for everything else."""
    own = getattr(fn, "__code__", None) if getattr(fn, "__module__", None) == __name__ else None
    outcomes = []
    expected = plain(fn, args, kwargs)
    for where, value, substituted in variants(args, kwargs):
        if value is None or callable(value) or isinstance(value, type):
            continue

        def body(x: Any, substituted: Any = substituted) -> Any:
            new_args, new_kwargs = substituted(x)
            return fn(*new_args, **new_kwargs)  # the line that refusals name

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = flow.pipeline(body).debug(value)
            except flow.TraceError as refused:
                line = own.co_firstlineno + 1 if own is not None else body.__code__.co_firstlineno + 2
                assert f"{__file__}:{line}" in str(refused), f"{name}, {where}: {refused}"
                outcomes.append((where, "refused"))
                continue
        if name.rpartition(".")[2] in UNINITIALISED:
            assert (result.shape, result.dtype) == (expected.shape, expected.dtype), f"{name}, {where}"
        else:
            assert same(expected, result), f"{name}, {where}: {expected!r} != {result!r}"
        outcomes.append((where, "recorded"))
    return outcomes


ALL = dict(functions())
covered: dict[str, list[tuple[str, str]]] = {}


@pytest.mark.parametrize("name", ALL)
def test_a_placeholder_in_each_position(name: str) -> None:
    found = calls(name, ALL[name])
    if not found:
        pytest.fail("no arguments found that it accepts: add some to EXAMPLES")
    covered[name] = [outcome for args, kwargs in found for outcome in check(name, ALL[name], args, kwargs)]


TARGETS: dict[str, Array] = {"choose": INTEGERS, "searchsorted": np.sort(VECTOR), "dot": SQUARE, "compress": SQUARE}
ATTRIBUTES = ["T", "mT", "dtype", "flat", "imag", "itemsize", "nbytes", "ndim", "real", "shape", "size", "strides"]


def test_no_method_of_arrays_is_forgotten() -> None:
    names = {name for name in dir(np.ndarray) if not name.startswith("_") and callable(getattr(SQUARE, name, None))}
    assert names - METHODS.keys() - {"newbyteorder", "itemset", "ptp", "tostring"} == set()


@pytest.mark.parametrize("name", [name for name in METHODS if hasattr(SQUARE, name)])
def test_methods_of_arrays(name: str) -> None:
    for args in METHODS[name]:
        target = TARGETS.get(name, SQUARE)
        if name in {"fill", "put", "setfield", "setflags", "sort"}:
            with pytest.raises(flow.TraceError, match=rf"\.{name}\(\) of <.*> changes what others may read, at "):
                flow.pipeline(lambda x, args=args: getattr(x, name)(*args)).graph()
            continue

        def call(x: Any, *rest: Any) -> Any:
            return getattr(x, name)(*rest)

        covered[f"ndarray.{name}"] = check(f"ndarray.{name}", call, (target, *args), {})


@pytest.mark.parametrize("name", [name for name in ATTRIBUTES if name != "flat"])
def test_attributes_of_arrays(name: str) -> None:
    def read(x: Any) -> Any:
        return getattr(x, name)

    covered[f"ndarray.{name}"] = check(f"ndarray.{name}", read, (SQUARE,), {})


@pytest.mark.parametrize("name", sorted(name for name in dir(np) if isinstance(getattr(np, name), np.ufunc)))
def test_methods_of_ufuncs(name: str) -> None:
    ufunc = getattr(np, name)
    if ufunc.nin != 2 or ufunc.nout != 1 or ufunc.signature is not None:
        return
    for method, args in [("reduce", (VECTOR,)), ("accumulate", (VECTOR,)), ("outer", (VECTOR, VECTOR)), ("at", ())]:
        fn = getattr(ufunc, method)
        if method == "at":
            with pytest.raises(flow.TraceError, match=rf"numpy\.{ufunc.__name__}\.at writes into its argument"):
                flow.pipeline(lambda x, fn=fn: fn(x, [0], x)).graph()
            continue
        for sample in (args, tuple((4 * arg).astype(int) for arg in args)):
            try:
                plain(fn, sample, {})
            except TypeError:
                continue
            covered[f"{name}.{method}"] = check(f"{name}.{method}", fn, sample, {})


def test_what_was_covered() -> None:
    """Only if all of the above ran in this process, before."""
    if not covered.keys() >= ALL.keys():
        return
    outcomes = [outcome for all_of_one in covered.values() for _, outcome in all_of_one]
    assert len(covered) > 600
    assert outcomes.count("recorded") > 2000
    assert outcomes.count("recorded") > outcomes.count("refused")
