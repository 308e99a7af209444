"""Calls of numpy's and scipy.ndimage's public functions, generated from what is installed.

By the names of its parameters, each function is given arguments that it accepts. Where none of the guesses is accepted,
`EXAMPLES` has some.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.lib.recfunctions

__all__ = ["EXAMPLES", "GUESSES", "INTEGERS", "MASK", "METHODS", "SQUARE", "TEXT", "UNINITIALISED", "VECTOR"]
__all__ += ["calls", "functions", "parameters", "plain"]

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
    "ndimage.affine_transform": [((SQUARE, SQUARE[:2, :2]), {}), ((SQUARE, VECTOR[:2]), {"offset": 0.5, "order": 1})],
    "ndimage.map_coordinates": [((SQUARE, np.array([[0.5, 1.0], [1.0, 1.5]])), {"order": 1})],
    "ndimage.geometric_transform": [((SQUARE, lambda place: place), {"order": 1})],
    "ndimage.convolve": [
        ((SQUARE, SQUARE), {"mode": "nearest"}),
        ((SQUARE, SQUARE), {"cval": 1.0, "mode": "constant"}),
    ],
    "ndimage.correlate": [((SQUARE, SQUARE), {"origin": 1})],
    "ndimage.convolve1d": [((SQUARE, VECTOR), {"axis": 0})],
    "ndimage.correlate1d": [((SQUARE, VECTOR), {"axis": 0})],
    "ndimage.fourier_ellipsoid": [((SQUARE, 1.5), {})],
    "ndimage.fourier_gaussian": [((SQUARE, 1.5), {})],
    "ndimage.fourier_shift": [((SQUARE, 1.5), {}), ((SQUARE, VECTOR[:2]), {})],
    "ndimage.fourier_uniform": [((SQUARE, 2), {})],
    "ndimage.gaussian_filter": [((SQUARE, 1.0), {}), ((SQUARE, (1, 0)), {"order": 1, "truncate": 2.0})],
    "ndimage.gaussian_filter1d": [((SQUARE, 1.0), {"axis": 0})],
    "ndimage.gaussian_gradient_magnitude": [((SQUARE, 1.0), {})],
    "ndimage.gaussian_laplace": [((SQUARE, 1.0), {})],
    "ndimage.generic_filter": [((SQUARE, np.sum), {"size": 2})],
    "ndimage.generic_filter1d": [((SQUARE, lambda line, out: None, 2), {})],
    "ndimage.generic_gradient_magnitude": [],
    "ndimage.generic_laplace": [],
    "ndimage.grey_closing": [((SQUARE,), {"size": 2})],
    "ndimage.grey_dilation": [((SQUARE, 2), {}), ((SQUARE,), {"footprint": SQUARE > 0.5})],
    "ndimage.grey_erosion": [((SQUARE, (2, 2)), {})],
    "ndimage.grey_opening": [((SQUARE, 2), {})],
    "ndimage.black_tophat": [((SQUARE, 2), {})],
    "ndimage.white_tophat": [((SQUARE, 2), {})],
    "ndimage.morphological_gradient": [((SQUARE, 2), {})],
    "ndimage.morphological_laplace": [((SQUARE, 2), {})],
    "ndimage.binary_hit_or_miss": [((SQUARE > 0.5, SQUARE > 1), {})],
    "ndimage.binary_propagation": [((SQUARE > 0.5,), {"mask": SQUARE > 0.4})],
    "ndimage.distance_transform_bf": [((SQUARE > 0.5,), {"metric": "chessboard"})],
    "ndimage.label": [((SQUARE > 0.5,), {"structure": np.ones((3, 3))})],
    "ndimage.labeled_comprehension": [((VECTOR, INTEGERS, [1, 2], np.sum, float, 0), {})],
    "ndimage.histogram": [((VECTOR, 0, 1, 3), {"labels": INTEGERS, "index": [1, 2]})],
    **{
        f"ndimage.{name}": [((VECTOR,), {}), ((VECTOR, INTEGERS), {"index": [1, 2]}), ((VECTOR, INTEGERS, 1), {})]
        for name in [
            "center_of_mass",
            "extrema",
            "maximum",
            "maximum_position",
            "mean",
            "median",
            "minimum",
            "minimum_position",
            "standard_deviation",
            "sum",
            "sum_labels",
            "variance",
        ]
    },
    "ndimage.value_indices": [((INTEGERS,), {"ignore_value": 1})],
    "ndimage.watershed_ift": [((INTEGERS[None].astype(np.uint8), INTEGERS[None].astype(np.int8)), {})],
    "ndimage.find_objects": [((INTEGERS,), {"max_label": 2})],
    "ndimage.iterate_structure": [((SQUARE > 0.5, 2), {})],
    "ndimage.generate_binary_structure": [((2, 1), {})],
    **{
        f"ndimage.{name}": [((SQUARE,), {"size": 2}), ((SQUARE, 2), {"mode": "wrap"})]
        for name in ["maximum_filter", "minimum_filter", "median_filter", "uniform_filter"]
    },
    **{
        f"ndimage.{name}": [((SQUARE, 2), {"axis": 0})]
        for name in ["maximum_filter1d", "minimum_filter1d", "uniform_filter1d"]
    },
    "ndimage.percentile_filter": [((SQUARE, 50, 2), {})],
    "ndimage.rank_filter": [((SQUARE, 1, 2), {})],
    "ndimage.rotate": [((SQUARE, 30.0), {"reshape": False}), ((SQUARE, 90), {})],
    "ndimage.shift": [((SQUARE, 0.5), {}), ((SQUARE, (1, 0)), {"order": 1})],
    "ndimage.zoom": [((SQUARE, 2), {}), ((SQUARE, (1, 0.5)), {"order": 1})],
    "ndimage.spline_filter": [((SQUARE,), {"order": 2})],
    "ndimage.spline_filter1d": [((SQUARE,), {"axis": 0})],
    "ndimage.vectorized_filter": [((SQUARE, np.sum), {"size": 2})],
    "ma.masked_where": [((MASK, VECTOR), {})],
    "ma.masked_inside": [((VECTOR, 0.3, 0.6), {})],
    "ma.masked_outside": [((VECTOR, 0.3, 0.6), {})],
    "ma.where": [((MASK, VECTOR, -VECTOR), {})],
    "ma.choose": [((INTEGERS, [VECTOR, VECTOR + 1, VECTOR + 2]), {})],
    "lib.stride_tricks.sliding_window_view": [((VECTOR, 2), {})],
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
    "typename", "from_dlpack", "bmat", "asmatrix", "ids", "as_strided",
    # iterate, and remember: no functions
    "nditer", "nested_iters", "ndenumerate", "ndindex", "broadcast", "flatiter", "vectorize",
}  # fmt: skip

UNINITIALISED = {"empty", "empty_like"}
"""Their values mean nothing; shape and dtype do."""

MODULES: dict[str, Any] = {"": np, "linalg.": np.linalg, "fft.": np.fft, "strings.": np.strings}

MORE: dict[str, Any] = {
    "ma.": np.ma,
    "char.": np.char,
    "rec.": np.rec,
    "emath.": np.emath,
    "polynomial.polynomial.": np.polynomial.polynomial,
    "polynomial.chebyshev.": np.polynomial.chebyshev,
    "lib.stride_tricks.": np.lib.stride_tricks,
    "lib.recfunctions.": np.lib.recfunctions,
}
"""Numpy's modules on top of arrays, which know less of numpy's protocols."""


def functions(modules: dict[str, Any] = MODULES) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions of these modules, under the names by which numpy's users call them."""
    for prefix, module in modules.items():
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
    """Arguments that this function accepts; the caller's own, whatever the function does to them."""
    return copy.deepcopy(_accepted(name, fn))


def _accepted(name: str, fn: Callable[..., Any]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
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
            plain(fn, copy.deepcopy(args), {})
        except Exception:
            continue
        found.append((args, {}))
        # One of the optional parameters, too: it may be ignored by numpy's dispatch, or baked in.
        for parameter in parameters(fn):
            if parameter.default is inspect.Parameter.empty or parameter.name in ("out", "dtype", "like", "device"):
                continue
            for value in GUESSES.get(parameter.name, [])[:1]:
                try:
                    plain(fn, *copy.deepcopy((args, {parameter.name: value})))
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
