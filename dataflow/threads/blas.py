"""The BLAS and OpenMP libraries of this process: which there are, how many threads each uses, and setting that.

threadpoolctl finds the libraries. Their counts are read and set here, through the libraries' own functions, for what
matters is what is in force:

- threadpoolctl's setter does nothing for OpenBLAS, silently, in any thread but the one that set first.
- OpenBLAS with threads of its own (the one in numpy's wheels) has one count for the process: set in any thread it is
  read back in all, and costs 0.3 µs (OpenBLAS 0.3.31). A call that is under way keeps the threads it has.
- 0 and negative numbers mean "as many as there ever were" there (64 after a set of 64), so they are never passed on;
  above 64, how many it was built for, it takes 64 without a word. So every set is read back.
- A higher count starts threads at once, and threads once started are never fewer. They spin for 2**28 ticks of the
  CPU's counter after each call: 85 to 95 ms of CPU time in every measurement, unless OPENBLAS_THREAD_TIMEOUT=n, from
  before the start, makes it 2**n. Setting the count to 1 does not stop them.
- Two threads that call multi-threaded products at once are not only in danger of wrong results (see `flaws`): tall
  products (200,000 x 4 by 4 x 2) ran 17 times slower than with one BLAS thread each (2 CPUs).
- OpenMP keeps one count for each thread, so whoever executes a kernel sets it (`Reach.THREAD`).

Nothing here starts a thread by itself, remembers a setting or decides anything; see `controller`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from itertools import product
from typing import Any

import threadpoolctl  # type: ignore[import-untyped]

__all__ = ["VARIABLES", "Blas", "Library", "Reach", "flaws", "spin_seconds"]

logger = logging.getLogger("dataflow")

Get = Callable[[], int]
Put = Callable[[int], object]


class Reach(Enum):
    """For whom a library's number of threads holds."""

    PROCESS = "process"
    THREAD = "thread"
    NOBODY = "nobody"
    """It cannot be set."""


_FUNCTIONS = {
    "openblas": ("openblas_get_num_threads", "openblas_set_num_threads", Reach.PROCESS),
    "openmp": ("omp_get_max_threads", "omp_set_num_threads", Reach.THREAD),
    # Not MKL_Set_Num_Threads_Local, which threadpoolctl uses: it holds for the calling thread.
    "mkl": ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads", Reach.PROCESS),
    # The process's in old versions, the thread's in new ones: set by each thread it is right in both.
    "blis": ("bli_thread_get_num_threads", "bli_thread_set_num_threads", Reach.THREAD),
    "flexiblas": ("flexiblas_get_num_threads", "flexiblas_set_num_threads", Reach.PROCESS),
}
"""For each kind of library, how its number of threads is read and set."""

_OPENBLAS_NAMES = tuple(product(("", "scipy_"), ("", "64_", "_64")))
"""What wheels put before and behind the names of OpenBLAS's functions."""

VARIABLES = {
    "openblas": ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
    "openmp": ("OMP_NUM_THREADS",),
    "mkl": ("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    "blis": ("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
    "flexiblas": ("FLEXIBLAS_NUM_THREADS", "OMP_NUM_THREADS"),
}
"""Where a user bounds a library's threads; the first variable that holds a number counts, as it does in the library."""


class Library:
    """One loaded library."""

    __slots__ = ("_get", "_put", "architecture", "cap", "kind", "layer", "path", "reach", "version")

    def __init__(
        self,
        kind: str,
        *,
        get: Get | None,
        put: Put | None,
        reach: Reach,
        version: str | None = None,
        path: str = "",
        layer: str | None = None,
        architecture: str | None = None,
        cap: int | None = None,
    ) -> None:
        self.kind = kind
        self.version = version
        self.path = path
        self.layer = layer
        """What its threads are made of, as far as it says: "pthreads", "openmp"."""
        self.architecture = architecture
        """The kind of CPU that its kernels are for."""
        self.cap = cap
        """The most threads that the user's environment allows it; None: no word of it."""
        self.reach = reach if get is not None and put is not None else Reach.NOBODY
        self._get = get
        self._put = put

    def __repr__(self) -> str:
        return f"<Library {self.kind} {self.version or '?'}, {self.count()} threads for the {self.reach.value}>"

    def count(self) -> int | None:
        """How many threads it uses now, asked in this thread; None if it does not say."""
        if self._get is None:
            return None
        count = self._get()
        return 1 if count == -1 else count  # BLIS, as long as nobody has set anything

    def allowed(self, threads: int) -> int:
        """So many threads, or what the user's environment leaves of them."""
        return threads if self.cap is None else min(threads, self.cap)

    def put(self, threads: int) -> int | None:
        """Have it use so many threads, at least 1; returns what it uses then, as read back."""
        if self._put is None:
            return self.count()
        assert threads >= 1, threads
        self._put(threads)
        return self.count()

    def put_back(self, threads: int) -> None:
        """In a forked child: have it use so many threads, without starting any before they are needed.

        OpenBLAS's setter starts the threads anew, which the fork has left behind: 63 of them, perhaps, in each child
        of a pool of processes. Its first multi-threaded call does so as well.
        """
        count = self._variable("blas_cpu_number") if self.kind == "openblas" and self.reach is Reach.PROCESS else None
        if count is None:
            self.put(threads)
        else:
            count.value = threads

    def _variable(self, name: str) -> ctypes.c_int | None:
        try:
            return ctypes.c_int.in_dll(_handle(self.path), name)
        except (OSError, ValueError):
            return None

    def told(self) -> dict[str, Any]:
        """What `parallel_info` says of it, JSON-safe."""
        return {
            "kind": self.kind,
            "version": self.version,
            "threads": self.count(),
            "set for": self.reach.value,
            "threads of": self.layer,
            "kernels for": self.architecture,
            "at most": self.cap,
            "path": self.path,
        }


class Blas:
    """The libraries loaded by now; not safe for threads."""

    def __init__(
        self, environ: Mapping[str, str] = os.environ, find: Callable[[], Iterator[Library]] | None = None
    ) -> None:
        self._environ = environ
        self._find = find
        self._modules = -1
        self._known: dict[str, Library] = {}
        self.libraries: list[Library] = []

    def refresh(self) -> bool:
        """Look for libraries if modules were imported since the last look; returns whether there are new ones.

        A look takes 0.4 ms (the memory map of the process is read), the question whether to look 50 ns. A library
        that is loaded without importing anything is found at the look after that.
        """
        if len(sys.modules) == self._modules:
            return False
        self._modules = len(sys.modules)
        found = {library.path: library for library in (self._find or self._look)()}
        fresh = [path for path in found if path not in self._known]
        # Those known before stay the same objects; none is ever unloaded.
        self._known |= {path: found[path] for path in fresh}
        self.libraries = list(self._known.values())
        return bool(fresh)

    def _look(self) -> Iterator[Library]:
        try:
            controllers = threadpoolctl.ThreadpoolController().lib_controllers
        except Exception:  # it warns of pairs of OpenMP libraries, and warnings may be errors
            logger.warning("the BLAS libraries of this process could not be listed", exc_info=True)
            return
        for controller in controllers:
            if controller.filepath not in self._known:
                yield _library(controller.info(), self._environ)
            else:
                yield self._known[controller.filepath]


def _handle(path: str) -> ctypes.PyDLL:
    """The library, which is loaded. Not CDLL: giving up the interpreter's lock would cost more than these calls."""
    return ctypes.PyDLL(path, mode=getattr(os, "RTLD_NOLOAD", ctypes.DEFAULT_MODE))


def _library(info: Mapping[str, Any], environ: Mapping[str, str]) -> Library:
    kind = info["internal_api"]
    # OpenBLAS on OpenMP asks OpenMP in the calling thread, and its own setter frees buffers that others may be using.
    speaks = "openmp" if kind == "openblas" and info.get("threading_layer") == "openmp" else kind
    get, put, reach = _bind(info["filepath"], speaks)
    return Library(
        kind,
        get=get,
        put=put,
        reach=reach,
        version=info.get("version"),
        path=info["filepath"],
        layer=info.get("threading_layer"),
        architecture=info.get("architecture"),
        cap=_cap(kind, environ),
    )


def _bind(path: str, kind: str) -> tuple[Get | None, Put | None, Reach]:
    getter, setter, reach = _FUNCTIONS.get(kind, ("", "", Reach.NOBODY))
    try:
        handle = _handle(path)
    except OSError:
        return None, None, Reach.NOBODY
    for prefix, suffix in _OPENBLAS_NAMES if kind == "openblas" else (("", ""),):
        get = getattr(handle, f"{prefix}{getter}{suffix}", None) if getter else None
        put = getattr(handle, f"{prefix}{setter}{suffix}", None) if setter else None
        if get is not None:
            get.restype, get.argtypes = ctypes.c_int, []
            if put is not None:
                put.restype, put.argtypes = None, [ctypes.c_int]
            return get, put, reach
    return None, None, Reach.NOBODY


def _cap(kind: str, environ: Mapping[str, str]) -> int | None:
    for variable in VARIABLES.get(kind, ()):
        # OpenMP takes a list, one number for each level of nesting.
        first = re.match(r"\s*(\d{1,9})\s*(,|$)", environ.get(variable, ""))
        if first and int(first[1]) > 0:
            return int(first[1])
    return None


def spin_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """For how long idle BLAS workers spin: OpenBLAS's tenth of a second, or what its variable says.

    >>> spin_seconds({}), spin_seconds({"OPENBLAS_THREAD_TIMEOUT": "20"}) < 0.001
    (0.1, True)
    """
    text = environ.get("OPENBLAS_THREAD_TIMEOUT", "").strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and int(text)):
        return 0.1
    return float(2.0 ** min(max(int(text), 4), 30) / 2.6e9)  # ticks of 2.6 GHz; the order of magnitude is what counts


def flaws(kind: str, version: str | None) -> str | None:
    """What is known to be wrong in this version when several threads call it at once; None if nothing is.

    OpenBLAS is meant to let one multi-threaded product run at a time. The lock for that is one for each variant of the
    product (plain, transposed, ...), so `A @ B` and `A @ B.T` run at the same time and overwrite each other's blocks:
    https://github.com/OpenMathLib/OpenBLAS/issues/5836, fixed by pull request 5838, in 0.3.34.
    0.3.28 to 0.3.30 let even products of one variant run at once, which gave wrong results in numpy:
    https://github.com/numpy/numpy/issues/29391 (taken back in 0.3.31). Before 0.3.4 matrix-vector products shared a
    buffer: https://github.com/OpenMathLib/OpenBLAS/issues/1844.

    Under the default setting no two multi-threaded BLAS calls of kernels run at once, so none of this is met.

    >>> flaws("openblas", "0.3.29"), flaws("openblas", "0.3.34.106.0"), flaws("mkl", "2024.1")
    ('multi-threaded products that run at once may be wrong (numpy 29391, OpenBLAS 5836)', None, None)
    """
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version or "")
    if kind != "openblas" or not numbers:
        return None
    release = tuple(map(int, numbers.groups()))
    if release >= (0, 3, 34):
        return None
    if release >= (0, 3, 31):
        return "multi-threaded products of different variants that run at once may be wrong (OpenBLAS 5836)"
    if release >= (0, 3, 28):
        return "multi-threaded products that run at once may be wrong (numpy 29391, OpenBLAS 5836)"
    if release >= (0, 3, 4):
        return "multi-threaded products of different variants that run at once may be wrong (OpenBLAS 5836)"
    return "multi-threaded products that run at once may be wrong (OpenBLAS 1844, 5836)"
