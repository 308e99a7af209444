"""Values of pandas, xarray and scipy.sparse: protected, copied, and the user's when they come out."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.libraries import LIBRARIES

# All three have wheels for every Python that is supported, and CI installs them: they are no reason to skip.
pd = pytest.importorskip("pandas")
xr = pytest.importorskip("xarray")
sparse = pytest.importorskip("scipy.sparse")


def frame() -> Any:
    return pd.DataFrame({"v": [1, 5, 9], "w": [0.5, 1.5, 2.5], "name": ["a", "b", "c"]})


def data_array() -> Any:
    coords = {"y": [1.0, 2.0], "label": ("x", np.array([1, 2, 3]))}
    return xr.DataArray(np.zeros((2, 3)), dims=("y", "x"), coords=coords, attrs={"unit": "m"}, name="depth")


def matrix(kind: str = "csr_array") -> Any:
    dense = np.array([[0.0, 1, 0], [2, 0, 3], [0, 4, 0]])
    return getattr(sparse, kind)(dense)


VALUES: dict[str, Callable[[], Any]] = {
    "DataFrame": frame,
    "Series": lambda: frame()["w"],
    "Index": lambda: pd.Index([3, 1, 2], name="i"),
    "MultiIndex": lambda: pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
    "Categorical": lambda: pd.Categorical(["a", "b", "a"]),
    "masked integers": lambda: frame().assign(v=pd.array([1, None, 3], dtype="Int64")),
    "DataArray": data_array,
    "Dataset": lambda: xr.Dataset({"v": data_array(), "w": ("x", np.arange(3))}, attrs={"a": 1}),
    "Variable": lambda: xr.Variable(("x",), np.arange(3.0)),
    "DataTree": lambda: xr.DataTree.from_dict(
        {"/": xr.Dataset({"v": ("x", np.arange(3))}), "/a": data_array().to_dataset()}
    ),
    **{
        f"{kind}_{how}": lambda kind=kind, how=how: matrix(f"{kind}_{how}")
        for kind in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
        for how in ("array", "matrix")
    },
}
"""A value of each type."""

WRITES: dict[str, list[Callable[[Any], object]]] = {
    "DataFrame": [
        lambda v: v.loc.__setitem__((0, "v"), 99),
        lambda v: v.iloc.__setitem__((0, 1), 99),
        lambda v: v.__setitem__("new", 1),
        lambda v: v.pop("v"),
        lambda v: v.fillna(0, inplace=True),
        lambda v: v.sort_values("v", ascending=False, inplace=True),
        lambda v: setattr(v, "columns", ["a", "b", "c"]),
        lambda v: v["v"].to_numpy().__setitem__(0, 99),
        lambda v: v.attrs.update(a=1),
    ],
    "Series": [lambda v: v.iloc.__setitem__(0, 99), lambda v: setattr(v, "name", "z"), lambda v: v.pop(0)],
    "Index": [lambda v: setattr(v, "name", "z"), lambda v: setattr(v, "names", ["z"])],
    "Categorical": [lambda v: v.__setitem__(0, "b")],
    "masked integers": [lambda v: v.loc.__setitem__((0, "v"), 99)],
    "DataArray": [
        lambda v: v.__setitem__((0, 0), 99),
        lambda v: v.loc.__setitem__({"y": 1.0}, 99),
        lambda v: v.values.__setitem__((0, 0), 99),
        lambda v: v.data.__setitem__((0, 0), 99),
        lambda v: v.coords["label"].values.__setitem__(0, 99),
        lambda v: v.attrs.update(unit="km"),
        lambda v: setattr(v, "name", "z"),
    ],
    "Dataset": [
        lambda v: v.__setitem__("new", 1),
        lambda v: v["v"].__setitem__((0, 0), 99),
        lambda v: v["w"].values.__setitem__(0, 99),
        lambda v: v.__delitem__("v"),
    ],
    "Variable": [lambda v: v.__setitem__(0, 99), lambda v: setattr(v, "data", np.zeros(3))],
    "DataTree": [lambda v: v["v"].values.__setitem__(0, 99), lambda v: v.__setitem__("new", xr.Dataset())],
}
for _name in VALUES:
    if _name.endswith(("_array", "_matrix")):
        WRITES[_name] = [
            lambda v: (v.data[0] if v.format == "lil" else v.data if v.format != "dok" else v).__setitem__(0, 99),
            lambda v: v.__setitem__((0, 1), 99),
            lambda v: v.__setitem__((0, 0), 99),
            lambda v: v.__imul__(2),
            lambda v: v.setdiag(7),
            lambda v: v.eliminate_zeros(),
            lambda v: v.resize(2, 2),
            lambda v: v.rows[0].clear() if v.format == "lil" else setattr(v, "data", v.data * 0),
        ]


def shown(value: Any) -> str:
    """All that can be told of a value."""
    if hasattr(value, "toarray"):
        return repr((type(value), value.toarray().tolist(), value.shape))
    if isinstance(value, (pd.Index, pd.api.extensions.ExtensionArray)):
        return repr((type(value), list(value), getattr(value, "names", None)))
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return repr((type(value), value.to_dict(), getattr(value, "name", None), value.attrs))
    return repr(value.to_dict())


@flow.op
def write(value: Any, how: Callable[[Any], object]) -> Any:
    how(value)
    return value


@flow.op(writes=("value",))
def write_into(value: Any, how: Callable[[Any], object]) -> Any:
    how(value)
    return value


show = flow.op(shown)
make = flow.op(lambda make: make())


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sparse matrices, which would rather be asked another way
        yield


@pytest.mark.parametrize("name", VALUES)
def test_readers_get_equal_values_of_the_same_type(name: str) -> None:
    value = VALUES[name]()
    seen = flow.readonly(value)
    assert type(seen) is type(value)
    assert seen is not value
    assert shown(seen) == shown(value) == shown(flow.copied(value))


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("source", ["input", "result", "constant", "in a list"])
def test_what_one_reader_writes_nobody_else_sees(name: str, source: str) -> None:
    mine = VALUES[name]()
    before = shown(mine)
    refused = 0
    for how in WRITES[name]:

        def body(value: Any, how: Any = how) -> Any:
            if source == "input":
                shared = value
            elif source == "result":
                shared = make(VALUES[name])
            elif source == "constant":
                shared = mine
            else:
                return [show(value), flow.op(lambda values: how(values[0]) and 0)([value]), show(value)]
            return [show(shared), write(shared, how), show(shared)]

        p = flow.pipeline(body)
        for way in (p.run, p.debug):
            try:
                first, _, last = way(mine)
                assert first == last == before
            except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
                refused += "read-only" in str(error) or "is a view" in str(error)
                assert "operator" in error.__notes__[0]
                if "read-only" in str(error):
                    assert ".copy()" in error.__notes__[0]
            assert shown(mine) == before


@pytest.mark.parametrize("name", WRITES)
def test_what_writes_gets_a_copy(name: str) -> None:
    mine = VALUES[name]()
    before = shown(mine)
    for how in WRITES[name]:
        try:
            how(VALUES[name]())
        except (ValueError, TypeError, AttributeError, NotImplementedError):
            continue  # not of this type
        result, seen = flow.pipeline(lambda value, how=how: (write_into(value, how), show(value))).run(mine)
        assert seen == shown(mine) == before
        plain = VALUES[name]()
        how(plain)
        assert shown(result) == shown(plain)


def test_readers_and_a_writer_see_the_same_in_every_run(run_async: Callable[[Any], Any]) -> None:
    @flow.op
    def clip(df: Any) -> Any:
        df.loc[0, "v"] = 99
        return df

    total = flow.op(lambda df: int(df["v"].sum()))
    p = flow.pipeline(lambda df: (total(df), total(clip(df))))
    mine = frame()
    assert {run_async(p(mine)) for _ in range(50)} == {(15, 113)}
    assert mine["v"].tolist() == [1, 5, 9]


@pytest.mark.parametrize(
    ("version", "on_write", "deep"),
    [
        ("2.2.3", False, True),
        ("2.2.3", "warn", True),
        ("2.2.3", True, False),
        ("3.0.0", None, False),
        ("10.1", None, False),
    ],
)
def test_pandas_without_copy_on_write_is_copied(
    monkeypatch: pytest.MonkeyPatch, version: str, on_write: Any, deep: bool
) -> None:
    class Frame:
        def copy(self, *, deep: bool) -> str:
            return f"deep={deep}"

    others = {name: type(name, (), {}) for name in ("Series", "Index")}
    extensions = SimpleNamespace(ExtensionArray=type("ExtensionArray", (), {}))
    fake = SimpleNamespace(
        __version__=version,
        get_option={"mode.copy_on_write": on_write}.__getitem__,
        DataFrame=Frame,
        api=SimpleNamespace(extensions=extensions),
        **others,
    )
    monkeypatch.setitem(sys.modules, "pandas", fake)
    described = LIBRARIES["pandas"][1]()[Frame]
    assert described.readonly(Frame()) == f"deep={deep}"
    assert described.copied(Frame()) == "deep=True"


if int(pd.__version__.partition(".")[0]) < 3:  # where it can be switched

    @pytest.mark.parametrize("on_write", [False, True])
    def test_a_frame_is_protected_with_copy_on_write_and_without(on_write: bool) -> None:
        with pd.option_context("mode.copy_on_write", on_write):
            mine = frame()
            flow.readonly(mine).iloc[0, 0] = 99
            assert mine["v"].tolist() == [1, 5, 9]


def test_a_subclass_of_a_frame_stays_one() -> None:
    class Table(pd.DataFrame):
        @property
        def _constructor(self) -> Any:
            return Table

    mine = Table({"v": [1, 2]})
    assert type(flow.readonly(mine)) is type(flow.copied(mine)) is Table
    assert flow.pipeline(flow.op(lambda t: type(t).__name__)).run(mine) == "Table"


def test_what_a_matrix_does_in_place_when_it_is_read_it_does_to_a_copy() -> None:
    biggest = flow.op(lambda m: float(m.max()))
    twofold = flow.op(lambda m: (m + m).toarray().tolist())
    data, indices, indptr = np.array([1.0, 2, 3]), np.array([2, 0, 0]), np.array([0, 2, 3])
    for kind in (sparse.csr_array, sparse.csr_matrix):
        mine = kind((data.copy(), indices.copy(), indptr.copy()), shape=(2, 3))
        twice = kind((np.ones(3), np.array([1, 1, 0]), indptr.copy()), shape=(2, 3))
        for value in (mine, twice):
            before = value.data.tolist(), value.indices.tolist()
            assert flow.pipeline(lambda m: (biggest(m), twofold(m))).run(value) == (
                value.toarray().max(),
                (2 * value.toarray()).tolist(),
            )
            assert (value.data.tolist(), value.indices.tolist()) == before


def test_reading_works_on_read_only_matrices() -> None:
    dense = matrix().toarray()
    for kind in (
        "csr_array",
        "csc_array",
        "coo_array",
        "bsr_array",
        "dia_array",
        "lil_array",
        "dok_array",
        "csr_matrix",
    ):
        body = lambda m: flow.op(lambda m: (m @ np.ones(3), (m @ m).toarray(), m.T.toarray(), m.sum(), m.copy()))(m)
        product, square, turned, total, same = flow.pipeline(body).run(matrix(kind))
        np.testing.assert_array_equal(product, dense @ np.ones(3))
        np.testing.assert_array_equal(square, dense @ dense)
        np.testing.assert_array_equal(turned, dense.T)
        assert total == 10
        assert type(same).__name__ == kind


def test_nothing_is_imported_for_their_sake() -> None:
    program = """
import sys, numpy as np, dataflow as flow
x = np.ma.array([1, 2], mask=[0, 1])
assert flow.pipeline(flow.op(lambda v: [v, {"a": np.zeros(2)}, object()])).run(x)
print([name for name in ("pandas", "xarray", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("module", ["pandas", "xarray", "scipy.sparse"])
def test_a_library_may_be_imported_at_any_time(module: str) -> None:
    program = f"""
import numpy as np, dataflow as flow
p = flow.pipeline(lambda v: (flow.op(lambda v: v)(v), flow.op(lambda v: type(v).__name__)(v)))
class pandas_like: __module__ = "{module}"
p.run(pandas_like())                      # a type that only looks like one of the library
import {module} as library
value = dict(
    DataFrame=lambda: library.DataFrame({{"v": np.arange(3)}}),
    DataArray=lambda: library.DataArray(np.arange(3)),
    csr_array=lambda: library.csr_array(np.eye(2)),
)
name = {{"pandas": "DataFrame", "xarray": "DataArray", "scipy.sparse": "csr_array"}}["{module}"]
mine = value[name]()
result, seen = p.run(mine)
assert seen == name and result is not mine
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- results


def buffers(value: Any) -> list[Any]:
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return [block for block in value._mgr.arrays if isinstance(block, np.ndarray)]
    if isinstance(value, xr.Dataset):
        return [variable.values for variable in value.data_vars.values()]
    if isinstance(value, (xr.DataArray, xr.Variable)):
        return [value.values]
    return [value.data]


WRAPS: dict[str, Callable[[Any], Any]] = {
    "csr_array": lambda x: sparse.csr_array((x, np.arange(4), np.arange(5)), shape=(4, 4)),
    "csc_matrix": lambda x: sparse.csc_matrix((x, np.arange(4), np.arange(5)), shape=(4, 4)),
    "coo_array": lambda x: sparse.coo_array((x, (np.arange(4), np.arange(4)))),
    "dia_array": lambda x: sparse.dia_array((x[None], [0]), shape=(4, 4)),
    "DataArray": lambda x: xr.DataArray(x, dims="x"),
    "Dataset": lambda x: xr.Dataset({"v": ("x", x)}),
    "Variable": lambda x: xr.Variable("x", x[1:]),
    "DataFrame": lambda x: pd.DataFrame({"v": x}, copy=False),
    "DataFrame of a table": lambda x: pd.DataFrame(x.reshape(2, 2), copy=False),
    "Series": lambda x: pd.Series(x, copy=False),
    "in a dict": lambda x: {"v": pd.Series(x[::2], copy=False)},
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("source", ["input", "constant", "result", "passed on"])
def test_what_wraps_an_argument_is_the_users(wrap: Callable[[Any], Any], source: str) -> None:
    mine = np.arange(1.0, 5)
    wraps = flow.op(wrap)

    def body(x: Any) -> Any:
        if source == "input":
            return wraps(x)
        if source == "constant":
            return wraps(mine)
        if source == "passed on":
            return flow.op(lambda value: value)(wraps(x))
        shared = flow.op(lambda x: x.copy())(x)
        return wraps(shared), shared

    result = flow.pipeline(body).run(mine)
    others = [mine]
    if source == "result":
        result, shared = result
        others.append(shared)
    value = result["v"] if isinstance(result, dict) else result
    assert shown(value) == shown(wrap(mine)["v"] if isinstance(result, dict) else wrap(mine))
    for buffer in buffers(value):
        assert not any(np.shares_memory(buffer, other) for other in others)
    if isinstance(value, (pd.DataFrame, pd.Series)):
        value.iloc[0] = 77
    elif isinstance(value, xr.Dataset):
        value["v"][0] = 77
    elif isinstance(value, (xr.DataArray, xr.Variable)):
        value[0] = 77
    else:
        value.data[0] = 77
    assert mine.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "name", ["DataFrame", "Series", "DataArray", "Dataset", "csr_array", "coo_matrix", "lil_array"]
)
def test_an_input_that_an_operator_hands_back_is_a_copy(name: str) -> None:
    mine = VALUES[name]()
    result = flow.pipeline(flow.op(lambda value: value)).run(mine)
    assert shown(result) == shown(mine)
    assert result is not mine
    assert flow.pipeline(lambda value: value).run(mine) is mine


def test_parts_of_an_input_are_copies() -> None:
    mine, grid, table = matrix(), data_array(), frame()
    data, values, column, numbers = flow.pipeline(
        lambda a, b, c: (a.data, b.values, c["w"], c["v"].to_numpy()), name="parts"
    ).run(mine, grid, table)
    data[:] = 7
    values[:] = 7
    column.iloc[0] = 7
    numbers[:] = 7
    assert mine.toarray().max() == 4
    assert not grid.values.any()
    assert table["w"].tolist() == [0.5, 1.5, 2.5]
    assert table["v"].tolist() == [1, 5, 9]


def test_streams_that_copy_copy_frames_and_matrices(run_async: Callable[[Any], Any]) -> None:
    buffers = [frame(), matrix(), data_array()]
    seen = flow.pipeline(flow.op(shown))

    async def refilled() -> Any:
        for buffer in buffers:
            for _ in range(2):
                yield buffer
                if hasattr(buffer, "iloc"):
                    buffer.iloc[0, 0] = 99
                elif hasattr(buffer, "toarray"):
                    buffer.data[0] = 99
                else:
                    buffer.values[0, 0] = 99

    async def main() -> list[Any]:
        return [text async for text in seen.stream(refilled(), copy=True, in_flight=6)]

    found = run_async(main())
    assert found[::2] == [shown(frame()), shown(matrix()), shown(data_array())]
    assert all("99" in text for text in found[1::2])
