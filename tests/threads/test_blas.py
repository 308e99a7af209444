"""blas: numpy's own library as it is, and libraries of other kinds as they are described."""

from __future__ import annotations

import doctest
import json
import sys
import threading
import types
from collections.abc import Iterator

import numpy as np
import pytest
import threadpoolctl

from dataflow.threads import blas
from dataflow.threads.blas import Blas, Library, Reach

np.dot(np.ones((2, 2)), np.ones((2, 2)))  # numpy's BLAS is loaded


def in_thread(call):
    """What a call returns in a thread of its own."""
    results: list = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture
def openblas() -> Iterator[Library]:
    found = Blas({})
    found.refresh()
    library = next((library for library in found.libraries if library.kind == "openblas"), None)
    if library is None or library.reach is not Reach.PROCESS:
        pytest.fail("these tests are for numpy from a wheel, whose OpenBLAS has threads of its own")
    before = library.count()
    yield library
    library.put(before)


def test_it_finds_what_threadpoolctl_finds():
    found = Blas({})
    assert found.refresh()
    assert {library.path for library in found.libraries} == {
        info["filepath"] for info in threadpoolctl.threadpool_info()
    }
    assert not found.refresh()


def test_a_set_holds_in_all_threads_whoever_sets(openblas):
    for threads in (1, 2, 1):
        assert in_thread(lambda n=threads: openblas.put(n)) == threads
        assert openblas.count() == threads
        assert in_thread(openblas.count) == threads
        (info,) = [info for info in threadpoolctl.threadpool_info() if info["filepath"] == openblas.path]
        assert info["num_threads"] == threads


def test_zero_and_negatives_never_reach_the_library(openblas):
    before = openblas.count()
    for threads in (0, -1):
        with pytest.raises(AssertionError):
            openblas.put(threads)
    assert openblas.count() == before


def test_after_a_fork_it_is_put_back_without_starting_threads(openblas):
    openblas.put_back(1)
    assert openblas.count() == 1
    openblas.put_back(2)
    assert openblas.count() == 2


def test_what_it_tells_is_json_safe(openblas):
    told = openblas.told()
    assert json.loads(json.dumps(told)) == told
    assert told["threads"] == openblas.count()
    assert told["set for"] == "process"


def test_libraries_loaded_later_are_found(monkeypatch):
    there = [Library("openblas", get=lambda: 2, put=None, reach=Reach.PROCESS, path="/a")]
    found = Blas({}, lambda: iter(there))
    assert found.refresh()
    first = found.libraries[0]
    there.append(Library("openblas", get=lambda: 2, put=None, reach=Reach.PROCESS, path="/b"))
    assert not found.refresh()  # nothing was imported
    monkeypatch.setitem(sys.modules, "dataflow_test_module", types.ModuleType("dataflow_test_module"))
    assert found.refresh()
    assert [library.path for library in found.libraries] == ["/a", "/b"]
    assert found.libraries[0] is first


def test_a_listing_that_fails_is_logged_and_finds_nothing(monkeypatch, caplog):
    def broken():
        raise RuntimeWarning("two OpenMP libraries")

    monkeypatch.setattr(blas.threadpoolctl, "ThreadpoolController", broken)
    found = Blas({})
    assert not found.refresh()
    assert "could not be listed" in caplog.text


@pytest.mark.parametrize(
    ("kind", "environ", "cap"),
    [
        ("openblas", {}, None),
        ("openblas", {"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "1"}, 3),
        ("openblas", {"OMP_NUM_THREADS": "2"}, 2),
        ("openblas", {"OPENBLAS_NUM_THREADS": "0", "OMP_NUM_THREADS": "2"}, 2),
        ("openblas", {"MKL_NUM_THREADS": "1"}, None),
        ("mkl", {"MKL_NUM_THREADS": "1"}, 1),
        ("mkl", {"OPENBLAS_NUM_THREADS": "1"}, None),
        ("openmp", {"OMP_NUM_THREADS": "4,2"}, 4),
        ("openmp", {"OMP_NUM_THREADS": "many"}, None),
        ("unheard of", {"OMP_NUM_THREADS": "1"}, None),
    ],
)
def test_what_the_environment_allows(kind, environ, cap):
    assert blas._cap(kind, environ) == cap


def test_never_more_than_allowed():
    library = Library("openblas", get=None, put=None, reach=Reach.PROCESS, cap=2)
    assert [library.allowed(n) for n in (1, 2, 8)] == [1, 2, 2]


def test_a_library_without_the_functions_cannot_be_set():
    library = Library("accelerate", get=None, put=None, reach=Reach.PROCESS)
    assert library.reach is Reach.NOBODY
    assert library.count() is None
    assert library.put(2) is None


def test_openblas_on_openmp_is_asked_as_openmp():
    info = {"filepath": "/nowhere/libopenblas.so", "internal_api": "openblas", "threading_layer": "openmp"}
    assert blas._library(info, {}).reach is Reach.NOBODY  # it is not there; but nothing was raised
    assert blas._FUNCTIONS["openmp"][2] is Reach.THREAD


@pytest.mark.parametrize(
    ("version", "wrong"),
    [
        ("0.2.20", "1844"),
        ("0.3.3", "1844"),
        ("0.3.27", "5836"),
        ("0.3.28", "29391"),
        ("0.3.30.0.8", "29391"),
        ("0.3.31.188.0", "5836"),
        ("0.3.33", "5836"),
    ],
)
def test_versions_known_to_be_wrong(version, wrong):
    assert wrong in blas.flaws("openblas", version)


@pytest.mark.parametrize(("kind", "version"), [("openblas", "0.3.34"), ("openblas", "0.4.0"), ("mkl", "0.3.29")])
def test_versions_that_are_not(kind, version):
    assert blas.flaws(kind, version) is None
    assert blas.flaws(kind, None) is None


@pytest.mark.parametrize(("text", "seconds"), [("", 0.1), ("x", 0.1), ("0", 0.1), ("4", 1e-8), ("99", 1.0)])
def test_how_long_workers_spin(text, seconds):
    assert blas.spin_seconds({"OPENBLAS_THREAD_TIMEOUT": text}) == pytest.approx(seconds, rel=0.6)


def test_the_examples_in_the_docstrings():
    results = doctest.testmod(blas)
    assert results.attempted
    assert not results.failed
