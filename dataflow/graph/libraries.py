"""Values of pandas, xarray and scipy.sparse: what each reader gets of one, what a copy is, and which memory it is on.

Nothing is imported here. A value of a library proves that the program has imported it; then it is in `sys.modules`, and
its types are described when the first of them is met.

    pandas 3, or 2 with copy-on-write    each reader gets a shallow copy: what it writes to becomes its own
    pandas 2 without                     a copy; so of extension arrays (Categorical), which have no read-only views
    xarray                               a shallow copy over read-only views; what is not in memory, and indexes, which
                                         nobody can write to, are shared
    scipy.sparse                         the same format over read-only views; what holds lists or dicts (lil, dok), or
                                         would sort itself when it is read (unsorted, duplicates), is copied
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dataflow.graph.arrays import Array, locked, memory_of

__all__ = ["LIBRARIES", "Described"]


class Described(NamedTuple):
    """What is to be known of a type."""

    readonly: Callable[[Any], Any]
    copied: Callable[[Any], Any]
    memory: Callable[[Any], Iterator[Array]]


def _pandas() -> dict[type, Described]:
    pandas: Any = sys.modules["pandas"]
    always = int(pandas.__version__.partition(".")[0]) >= 3

    def on_write() -> bool:
        return always or pandas.get_option("mode.copy_on_write") is True

    def shallow(value: Any) -> Any:
        return value.copy(deep=not on_write())

    frame = Described(shallow, _deep_copy, _memory_of_frame)
    index = Described(shallow, _deep_copy, _no_memory)
    extension = Described(_own_copy, _own_copy, lambda value: memory_of_parts([value]))
    return {
        pandas.DataFrame: frame,
        pandas.Series: frame,
        pandas.Index: index,
        pandas.api.extensions.ExtensionArray: extension,
    }


def _memory_of_frame(frame: Any) -> Iterator[Array]:
    return memory_of_parts(frame._mgr.arrays)


def memory_of_parts(parts: Any) -> Iterator[Array]:
    """Of arrays, and of pandas' extension arrays, which are made of some."""
    for part in parts:
        held = [part] if isinstance(part, np.ndarray) else [getattr(part, name, None) for name in _PARTS]
        for array in held:
            if isinstance(array, np.ndarray):
                yield from memory_of(array)


_PARTS = ("_ndarray", "_data", "_mask")


def _xarray() -> dict[type, Described]:
    xarray: Any = sys.modules["xarray"]
    dataset = _over(lambda value: value.variables.values())
    described = {
        xarray.Dataset: dataset,
        xarray.DataArray: _over(lambda value: [value.variable, *(each.variable for each in value.coords.values())]),
        xarray.Variable: _over(lambda value: [value]),
    }
    if hasattr(xarray, "DataTree"):
        described[xarray.DataTree] = Described(
            lambda value: value.map_over_datasets(dataset.readonly),
            _deep_copy,
            lambda value: _memory_of_variables(each for node in value.subtree for each in node.variables.values()),
        )
    return described


def _over(variables: Callable[[Any], Iterable[Any]]) -> Described:
    """A type of xarray's, whose values are over these variables."""

    def readonly(value: Any) -> Any:
        new = value.copy(deep=False)
        _lock_variables(variables(new))
        return new

    return Described(readonly, _deep_copy, lambda value: _memory_of_variables(variables(value)))


def _lock_variables(variables: Any) -> None:
    for variable in variables:
        data = variable._data  # not `.data`, which would read a file
        if type(data) is np.ndarray:
            variable.data = locked(data)


def _memory_of_variables(variables: Any) -> Iterator[Array]:
    for variable in variables:
        if isinstance(variable._data, np.ndarray):
            yield from memory_of(variable._data)


def _sparse() -> dict[type, Described]:
    sparse: Any = sys.modules["scipy.sparse"]
    matrix = Described(_locked_sparse, _own_copy, _memory_of_sparse)
    return {getattr(sparse, name): matrix for name in ("sparray", "spmatrix") if hasattr(sparse, name)}


def _locked_sparse(matrix: Any) -> Any:
    if matrix.format in ("lil", "dok"):
        return matrix.copy()
    new = copy.copy(matrix)
    if not getattr(new, "has_canonical_format", True) and matrix.format != "coo":  # it sorts itself in place
        return matrix.copy()
    for name, value in vars(new).items():
        vars(new)[name] = _locked_part(value)
    return new


def _locked_part(value: Any) -> Any:
    if type(value) is np.ndarray:
        return locked(value)
    return tuple(map(_locked_part, value)) if type(value) is tuple else value  # the coordinates of coo


def _memory_of_sparse(matrix: Any) -> Iterator[Array]:
    for value in vars(matrix).values():
        for part in value if type(value) is tuple else (value,):
            if isinstance(part, np.ndarray):
                yield from memory_of(part)


def _deep_copy(value: Any) -> Any:
    return value.copy(deep=True)


def _own_copy(value: Any) -> Any:
    return value.copy()


def _no_memory(value: Any) -> Iterator[Array]:
    """Nobody can write to it."""
    return iter(())


LIBRARIES: dict[str, tuple[str, Callable[[], dict[type, Described]]]] = {
    "pandas": ("pandas", _pandas),
    "xarray": ("xarray", _xarray),
    "scipy": ("scipy.sparse", _sparse),
}
"""For the first part of a module's name: the module that has to be imported, and what describes its types."""
