"""All of numpy's public functions, with a placeholder in each argument position: the right result, or a TraceError.

The calls are generated from the numpy that is installed: by the names of its parameters, each function is given
arguments that it accepts. Where none of the guesses is accepted, `EXAMPLES` has some. What is covered is counted.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dataflow as flow

Array = np.ndarray[Any, Any]

SQUARE = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]])
VECTOR = np.array([0.5, 0.25, 0.75])
INTEGERS = np.array([2, 0, 1])
MASK = np.array([True, False, True])
TEXT = np.array(["one", "two", "three"])

GUESSES: dict[str, list[Any]] = {
    "axis": [0],
    "axes": [(0, 1), [0], 0],
    "axis1": [0],
    "axis2": [1],
    "dtype": [np.float64],
    "shape": [(3, 3), 3],
    "newshape": [(9,)],
    "new_shape": [(9,)],
    "n": [3, 2],
    "N": [3],
    "M": [3],
    "k": [1, 0],
    "num": [4],
    "start": [1.0, 1],
    "stop": [4.0, 3],
    "step": [1],
    "indices": [INTEGERS],
    "indices_or_sections": [3],
    "ind": [INTEGERS],
    "condition": [MASK],
    "mask": [MASK],
    "obj": [1],
    "values": [VECTOR],
    "v": [VECTOR],
    "q": [0.5],
    "p": [VECTOR],
    "repeats": [2],
    "reps": [2],
    "shift": [1],
    "source": [0],
    "destination": [1],
    "choices": [[VECTOR, VECTOR + 1, VECTOR + 2]],
    "choicelist": [[VECTOR, VECTOR]],
    "condlist": [[MASK, ~MASK]],
    "funclist": [[1.0, 2.0]],
    "arrays": [[VECTOR, VECTOR]],
    "tup": [(VECTOR, VECTOR)],
    "array_list": [[VECTOR, VECTOR]],
    "bins": [np.array([0.0, 0.5, 1.0])],
    "xp": [VECTOR.cumsum()],
    "fp": [VECTOR],
    "deg": [1],
    "fill_value": [7.0],
    "a_min": [0.3],
    "a_max": [0.6],
    "min": [0.3],
    "max": [0.6],
    "kth": [1],
    "ord": [None],
    "pad_width": [1],
    "decimals": [1],
    "minlength": [5],
    "dims": [(3, 3)],
    "multi_index": [(INTEGERS, INTEGERS)],
    "from_": [np.int32],
    "to": [np.float64],
    "string": ["1 2 3"],
    "sep": [" "],
    "buffer": [VECTOR.tobytes()],
    "iterable": [[1.0, 2.0]],
    "function": [lambda *i: i[0] * 1.0],
    "func": [lambda x, *rest: x * 1.0],
    "func1d": [np.sum],
    "pyfunc": [abs],
    "element": [VECTOR],
    "test_elements": [VECTOR],
    "ar1": [INTEGERS],
    "ar2": [INTEGERS[:2]],
    "d": [0.5],
    "tensor": [SQUARE],
    "m": [SQUARE, 3],
    "y": [VECTOR, SQUARE],
    "x": [VECTOR, SQUARE],
    "x1": [VECTOR, INTEGERS, MASK, TEXT],
    "x2": [VECTOR, INTEGERS, MASK, TEXT],
    "a": [SQUARE, VECTOR, INTEGERS, TEXT],
    "b": [VECTOR, SQUARE, INTEGERS],
    "arr": [SQUARE, VECTOR],
    "ary": [SQUARE, VECTOR],
    "array": [SQUARE, VECTOR],
    "filt": [SQUARE],
    "seq": [VECTOR],
    "roots": [VECTOR],
    "datetimes": [np.array(["2026-01-05", "2026-01-06"], dtype="M8[D]")],
    "dates": [np.array(["2026-01-05", "2026-01-06"], dtype="M8[D]")],
    "offsets": [1],
    "begindates": [np.array(["2026-01-05"], dtype="M8[D]")],
    "enddates": [np.array(["2026-02-05"], dtype="M8[D]")],
    "old": ["e"],
    "new": ["X"],
    "sub": ["e"],
    "prefix": ["t"],
    "suffix": ["e"],
    "width": [6],
    "i": [2],
    "char": ["d"],
    "typechars": ["fd"],
    "subscripts": ["ij,jk->ik"],
    "number": [5],
    "base": [2],
    "file": [None],
}
OTHERWISE: list[Any] = [SQUARE, 3, 2.5, VECTOR, INTEGERS, MASK, "float64", [VECTOR, VECTOR]]

EXAMPLES: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "einsum": [(("ij,jk->ik", SQUARE, SQUARE), {})],
    "einsum_path": [(("ij,jk->ik", SQUARE, SQUARE), {})],
    "insert": [((VECTOR, 1, 9.0), {})],
    "pad": [((VECTOR, 1, "edge"), {}), ((VECTOR, (1, 2)), {"constant_values": 5.0})],
    "select": [(([MASK, ~MASK], [VECTOR, -VECTOR], 0.0), {})],
    "piecewise": [((VECTOR, [MASK, ~MASK], [1.0, 2.0]), {})],
    "take_along_axis": [((VECTOR, INTEGERS, 0), {})],
    "put_along_axis": [((VECTOR, INTEGERS, 1.0, 0), {})],
    "ravel_multi_index": [(((INTEGERS, INTEGERS), (3, 3)), {})],
    "unravel_index": [((INTEGERS, (3, 3)), {})],
    "tensordot": [((SQUARE, SQUARE), {"axes": 1})],
    "linalg.tensordot": [((SQUARE, SQUARE), {"axes": 1})],
    "linalg.tensorsolve": [((np.eye(4).reshape(2, 2, 2, 2), np.ones((2, 2))), {})],
    "linalg.tensorinv": [((np.eye(4).reshape(2, 2, 2, 2),), {"ind": 2})],
    "linalg.multi_dot": [(([SQUARE, SQUARE, VECTOR],), {})],
    "linalg.cross": [((VECTOR, VECTOR[::-1].copy()), {})],
    "linalg.matrix_power": [((SQUARE, 2), {})],
    "linalg.vecdot": [((VECTOR, VECTOR), {})],
    "linalg.trace": [((SQUARE,), {"offset": 1})],
    "nan_to_num": [((VECTOR,), {"nan": 1.0, "posinf": 2.0})],
    "full_like": [((VECTOR, 3.0), {})],
    "where": [((MASK, VECTOR, -VECTOR), {}), ((MASK,), {})],
    "clip": [((VECTOR, 0.3, 0.6), {})],
    "histogram": [((VECTOR, 3), {"range": (0.0, 1.0)}), ((VECTOR,), {"weights": VECTOR})],
    "histogram2d": [((VECTOR, VECTOR, 2), {})],
    "histogramdd": [((SQUARE, 2), {})],
    "interp": [((0.3, VECTOR.cumsum(), VECTOR), {"left": 0.0})],
    "gradient": [((VECTOR, 2.0), {})],
    "cov": [((SQUARE,), {"fweights": np.array([1, 2, 1])})],
    "average": [((SQUARE,), {"axis": 0, "weights": VECTOR})],
    "quantile": [((VECTOR, 0.5), {"method": "linear"})],
    "sum": [((SQUARE,), {"axis": 0, "where": MASK, "initial": 1.0})],
    "arange": [((1, 7, 2), {}), ((3,), {})],
    "linspace": [((0.0, 1.0, 5), {}), ((VECTOR, 2.0), {"num": 3})],
    "zeros": [(((3, 2),), {}), ((3,), {"dtype": np.int32})],
    "ones": [(((3, 2),), {})],
    "empty": [(((3, 2),), {})],
    "full": [(((3, 2), 5.0), {})],
    "eye": [((3,), {"k": 1})],
    "array": [((VECTOR,), {}), (([VECTOR, VECTOR],), {}), (([1.0, 2.0],), {})],
    "asarray": [((VECTOR,), {}), (([VECTOR, VECTOR],), {})],
    "dot": [((SQUARE, VECTOR), {})],
    "choose": [((INTEGERS, [VECTOR, VECTOR + 1, VECTOR + 2]), {})],
    "concatenate": [(([VECTOR, VECTOR],), {"axis": 0})],
    "stack": [(([VECTOR, VECTOR],), {"axis": 1})],
    "split": [((VECTOR, 3), {})],
    "array_split": [((VECTOR, 2), {})],
    "apply_along_axis": [((np.sum, 0, SQUARE), {})],
    "apply_over_axes": [((np.sum, SQUARE, [0]), {})],
    "fromfunction": [((lambda i, j: i + j, (2, 3)), {})],
    "frompyfunc": [((abs, 1, 1), {})],
    "is_busday": [((np.array(["2026-01-05"], dtype="M8[D]"),), {})],
    "busday_count": [((np.datetime64("2026-01-05"), np.datetime64("2026-02-05")), {})],
    "busday_offset": [((np.datetime64("2026-01-05"), 3), {})],
    "datetime_as_string": [((np.array(["2026-01-05"], dtype="M8[D]"),), {})],
    "isnat": [((np.array(["2026-01-05", "NaT"], dtype="M8[D]"),), {})],
    "block": [(([[SQUARE, SQUARE], [SQUARE, SQUARE]],), {})],
    "bincount": [((INTEGERS,), {"weights": VECTOR, "minlength": 5})],
    "digitize": [((VECTOR, np.array([0.0, 0.3, 0.6])), {})],
    "searchsorted": [((np.sort(VECTOR), 0.3), {})],
    "ldexp": [((VECTOR, INTEGERS), {})],
    "polyfit": [((np.arange(5.0), np.arange(5.0) ** 2, 2), {})],
    "unwrap": [((VECTOR * 20,), {})],
    "ix_": [((INTEGERS, INTEGERS), {})],
    "broadcast_to": [((VECTOR, (2, 3)), {})],
    "broadcast_arrays": [((VECTOR, SQUARE), {})],
    "broadcast_shapes": [(((3, 1), (1, 3)), {})],
    "meshgrid": [((VECTOR, VECTOR), {"indexing": "ij"})],
    "vectorize": [((abs,), {})],
    "lexsort": [(((INTEGERS, INTEGERS),), {})],
    "nditer": [],
    "fromiter": [(([1.0, 2.0], np.float64), {})],
    "frombuffer": [((VECTOR.tobytes(),), {})],
    "fromstring": [(("1 2 3",), {"sep": " "})],
    "copyto": [((SQUARE.copy(), VECTOR), {})],
    "putmask": [((VECTOR.copy(), MASK, VECTOR), {})],
    "place": [((VECTOR.copy(), MASK, VECTOR), {})],
    "put": [((VECTOR.copy(), [0, 1], VECTOR), {})],
    "fill_diagonal": [((SQUARE.copy(), 1.0), {})],
    "resize": [((VECTOR, (2, 3)), {})],
    "result_type": [((VECTOR, np.float32), {})],
    "can_cast": [((np.int32, np.float64), {})],
    "min_scalar_type": [((VECTOR,), {})],
    "promote_types": [((np.int32, np.float64), {})],
    "common_type": [((VECTOR, SQUARE), {})],
    "mintypecode": [(("fd",), {})],
    "shares_memory": [((VECTOR, VECTOR), {})],
    "may_share_memory": [((VECTOR, SQUARE), {})],
    "array2string": [((VECTOR,), {})],
    "array_repr": [((VECTOR,), {})],
    "array_str": [((VECTOR,), {})],
    "real_if_close": [((VECTOR + 0j,), {})],
    "trim_zeros": [((np.array([0.0, 1.0, 0.0]),), {})],
    "unstack": [((SQUARE,), {})],
    "extract": [((MASK, VECTOR), {})],
    "delete": [((VECTOR, 1), {})],
    "rot90": [((SQUARE,), {"k": 2})],
    "roll": [((VECTOR, 1), {})],
    "tile": [((VECTOR, 2), {})],
    "repeat": [((VECTOR, 2), {}), ((VECTOR, INTEGERS), {})],
    "diff": [((VECTOR,), {"n": 1, "prepend": 0.0})],
    "isin": [((INTEGERS, [0, 1]), {})],
    "cross": [((VECTOR, VECTOR[::-1].copy()), {})],
    "kron": [((VECTOR, VECTOR), {})],
    "vander": [((VECTOR, 3), {})],
    "tri": [((3,), {"k": 1})],
    "tril": [((SQUARE, 1), {})],
    "iscomplexobj": [((VECTOR,), {})],
    "ndim": [((SQUARE,), {})],
    "size": [((SQUARE, 0), {})],
    "shape": [((SQUARE,), {})],
    "datetime_data": [((np.dtype("M8[25s]"),), {})],
    "dsplit": [((np.arange(8.0).reshape(2, 2, 2), 2), {})],
    "hsplit": [((SQUARE, 3), {})],
    "vsplit": [((SQUARE, 3), {})],
    "isdtype": [((np.dtype("f8"), "real floating"), {})],
    "issubdtype": [((np.dtype("f8"), np.floating), {})],
    "mask_indices": [((3, np.triu), {})],
    "unpackbits": [((INTEGERS.astype(np.uint8),), {"count": 4})],
    "strings.decode": [((np.array([b"one", b"two"]),), {"encoding": "ascii"})],
    "strings.index": [((np.array(["one", "there"]), "e"), {"start": 0})],
    "strings.rindex": [((np.array(["one", "there"]), "e"), {})],
    **{
        f"strings.{name}": [((TEXT,), {})]
        for name in "isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle isupper str_len".split()  # noqa: SIM905
    },
}

SKIPPED = {
    # files, processes, global settings, text for people
    "save", "savez", "savez_compressed", "savetxt", "load", "loadtxt", "genfromtxt", "fromfile", "memmap", "fromregex",
    "test", "info", "show_config", "show_runtime", "get_include", "seterr", "geterr", "seterrcall", "geterrcall",
    "setbufsize", "getbufsize", "set_printoptions", "get_printoptions", "printoptions", "errstate",
    "typename", "from_dlpack", "bmat", "asmatrix",
    # iterate, and remember: no functions
    "nditer", "nested_iters", "ndenumerate", "ndindex", "broadcast", "flatiter", "vectorize",
}  # fmt: skip

UNINITIALISED = {"empty", "empty_like"}
"""Their values mean nothing; shape and dtype do."""

MODULES = {"": np, "linalg.": np.linalg, "fft.": np.fft, "strings.": np.strings}


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for prefix, module in MODULES.items():
        for name in sorted(getattr(module, "__all__", dir(module))):
            fn = getattr(module, name, None)
            if name.startswith("_") or name in SKIPPED or isinstance(fn, type) or not callable(fn):
                continue
            yield prefix + name, fn


def parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    if isinstance(fn, np.ufunc):
        names = ["x"] if fn.nin == 1 else [f"x{i + 1}" for i in range(fn.nin)]
        return [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    try:
        return list(inspect.signature(fn).parameters.values())
    except ValueError:
        return []


def calls(name: str, fn: Callable[..., Any]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments that this function accepts."""
    known = EXAMPLES.get(name) or EXAMPLES.get(name.rpartition(".")[2])
    if known:
        return known
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters(fn) if p.kind in kinds and p.default is inspect.Parameter.empty]
    if not needed:
        needed = ["x"]
    guesses = [[*GUESSES.get(parameter, []), *OTHERWISE][:8] for parameter in needed]
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    accepted = 0
    for args in itertools.islice(itertools.product(*guesses), 400):
        try:
            plain(fn, args, {})
        except Exception:
            continue
        found.append((args, {}))
        # One of the optional parameters, too: it may be ignored by numpy's dispatch, or baked in.
        for parameter in parameters(fn):
            if parameter.default is inspect.Parameter.empty or parameter.name in ("out", "dtype", "like", "device"):
                continue
            for value in GUESSES.get(parameter.name, [])[:1]:
                try:
                    plain(fn, args, {parameter.name: value})
                except Exception:
                    continue
                found.append((args, {parameter.name: value}))
        accepted += 1
        if accepted == 4:
            break
    return found


def plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fn(*args, **kwargs)


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


METHODS: dict[str, list[tuple[Any, ...]]] = {
    "all": [(), (0,)],
    "any": [()],
    "argmax": [(), (0,)],
    "argmin": [()],
    "argpartition": [(1,)],
    "argsort": [(), (0,)],
    "astype": [(np.float32,), ("int64",)],
    "byteswap": [()],
    "choose": [([VECTOR, VECTOR + 1, VECTOR + 2],)],
    "clip": [(0.3, 0.6)],
    "compress": [(MASK,)],
    "conj": [()],
    "conjugate": [()],
    "copy": [(), ("F",)],
    "cumprod": [(0,)],
    "cumsum": [(0,)],
    "diagonal": [(), (1,)],
    "dot": [(VECTOR,)],
    "dump": [],
    "dumps": [],
    "fill": [(1.0,)],
    "flatten": [(), ("F",)],
    "getfield": [(np.float32, 4)],
    "item": [((1, 2),), (3,)],
    "max": [(), (0,)],
    "mean": [(), (0,)],
    "min": [()],
    "nonzero": [()],
    "partition": [],
    "prod": [()],
    "put": [([0], 1.0)],
    "ravel": [()],
    "repeat": [(2,), (INTEGERS, 0)],
    "reshape": [(9,), (1, 9), ((9, 1),)],
    "resize": [],
    "round": [(1,)],
    "searchsorted": [(0.3,)],
    "setfield": [(1.0, np.float64)],
    "setflags": [(False,)],
    "sort": [(), (0,)],
    "squeeze": [()],
    "std": [(), (0,)],
    "sum": [(), (0,)],
    "swapaxes": [(0, 1)],
    "take": [(INTEGERS,), (INTEGERS, 1)],
    "to_device": [("cpu",)],
    "tobytes": [()],
    "tofile": [],
    "tolist": [()],
    "trace": [(), (1,)],
    "transpose": [(), ((1, 0),), (1, 0)],
    "var": [()],
    "view": [(np.int64,)],
}
"""For each method of arrays, arguments. None for what writes to a file, nor for what changes an array but makes
something new of other types (`partition`, `resize`): read-only protection sees to that."""

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
            with pytest.raises(flow.TraceError, match=rf"\.{name}\(\) of <placeholder 0: x> changes it, at "):
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
