"""The thread settings: validates them, stores them, tells subscribers.

A *setting* is a number of threads and its *origin*: the API beats the environment, which beats the default. There
are two, inter-op and intra-op, behind one lock, since the default of either depends on the other: if only one of them
was given, the other is max(1, CPUs // given), so that the product fits the machine. It follows whenever the given one
changes. The environment and the CPUs are looked at when a number is first asked for, so that importing reads nothing.

*Subscribers* are the parts of this package that obey the numbers (the pool, the intra-op control). Each is told the
number as soon as there is one, and again at every set, always under the lock: the last number told is the last one
set. What a subscriber does about it may take longer and call user code: it returns that as a function, called
without the lock.
"""

from __future__ import annotations

import operator
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import SupportsIndex
from typing import cast as typed

from dataflow.threads import cpus

__all__ = [
    "Origin",
    "Setting",
    "Settings",
    "get_num_interop_threads",
    "get_num_threads",
    "process_settings",
    "set_num_interop_threads",
    "set_num_threads",
    "threads",
]

Subscriber = Callable[[int], Callable[[], object] | None]
IntraopSubscriber = Callable[[int | None], Callable[[], object] | None]
Acts = list[Callable[[], object]]

INTEROP_VARIABLE = "DATAFLOW_NUM_INTEROP_THREADS"
INTRAOP_VARIABLE = "DATAFLOW_NUM_THREADS"


class Origin(Enum):
    """Where the value of a setting came from; each beats those above it."""

    DEFAULT = "default"
    ENVIRONMENT = "environment"
    API = "API"


@dataclass(frozen=True, slots=True)
class Setting:
    """A number of threads and where it came from, in one object so that no reader sees half of a change."""

    value: int
    origin: Origin


class _Unset(Enum):
    """Stands for a setting that a change leaves as it is."""

    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class _Known:
    """All that is known at one moment; replaced as a whole, under the lock."""

    interop_set: int | None = None
    """What the API gave."""
    intraop_set: int | None = None
    interop_found: int | None = None
    """What the environment holds; None as well while nobody has looked."""
    intraop_found: int | None = None
    cpus: int | None = None
    """How many CPUs this process may use; None: nobody has looked, neither at them nor at the environment."""

    @property
    def interop(self) -> Setting | None:
        """The inter-op setting; None while it takes a look."""
        return self._setting(self.interop_set, self.interop_found, self.intraop_given)

    @property
    def intraop(self) -> Setting | None:
        """The intra-op setting; None while it takes a look."""
        return self._setting(self.intraop_set, self.intraop_found, self.interop_given)

    @property
    def interop_given(self) -> int | None:
        """The number that the user gave in one way or the other."""
        return self.interop_set or self.interop_found

    @property
    def intraop_given(self) -> int | None:
        return self.intraop_set or self.intraop_found

    @property
    def too_many(self) -> bool:
        """Whether both were given and want more threads than there are CPUs."""
        inter, intra = self.interop_given, self.intraop_given
        return bool(inter and intra and self.cpus) and typed(int, inter) * typed(int, intra) > typed(int, self.cpus)

    def _setting(self, given: int | None, found: int | None, other: int | None) -> Setting | None:
        if given is not None:
            return Setting(given, Origin.API)
        if found is not None:
            return Setting(found, Origin.ENVIRONMENT)
        if self.cpus is None:
            return None
        return Setting(self.cpus if other is None else max(1, self.cpus // other), Origin.DEFAULT)


class Settings:
    """The thread settings of a process; every method may be called at any time, from any thread.

    `environ` is where the variables are, `usable_cpus` the default; neither is looked at before a number is asked
    for, nor once there is one.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, usable_cpus: Callable[[], int] = cpus.usable) -> None:
        self._environ = environ
        self._usable_cpus = usable_cpus
        self._lock = threading.Lock()
        self._known = _Known()  # written under the lock, read without
        self._subscribers: dict[object, Subscriber] = {}
        self._intraop_subscribers: dict[object, IntraopSubscriber] = {}
        self._told_too_many = False

    def interop(self) -> Setting:
        """How many kernels may execute at once, and where that number came from.

        Warns with RuntimeWarning, once, when the environment holds a number that is none.
        """
        return self._known.interop or typed(Setting, self._looked().interop)

    def intraop(self) -> Setting:
        """How many BLAS/OpenMP threads one kernel may use, and where that number came from; warns as `interop`."""
        return self._known.intraop or typed(Setting, self._looked().intraop)

    def cpus(self) -> int:
        """The number of CPUs that the defaults are made of."""
        return typed(int, self._known.cpus or self._looked().cpus)

    def set_interop(self, n: SupportsIndex) -> None:
        """Let at most `n` kernels execute at once; see `set_num_interop_threads`."""
        self._change(interop=_thread_count(n, "set_num_interop_threads"))

    def set_intraop(self, n: SupportsIndex) -> None:
        """Let kernels use `n` BLAS/OpenMP threads; see `set_num_threads`."""
        self._change(intraop=_thread_count(n, "set_num_threads"))

    @contextmanager
    def both(self, interop: SupportsIndex | None, intraop: SupportsIndex | None) -> Iterator[None]:
        """The settings given hold inside; see `threads`."""
        keep = _Unset.KEEP
        inter = keep if interop is None else _thread_count(interop, "threads", "interop=")
        intra = keep if intraop is None else _thread_count(intraop, "threads", "intraop=")
        before = self._change(inter, intra)
        try:
            yield
        finally:
            self._change(
                keep if inter is keep else before.interop_set,
                keep if intra is keep else before.intraop_set,
            )

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Tell `callback` the number of inter-op threads; the function returned ends that.

        It is told now if there is a number, otherwise when the first one is asked for or set, and then at every set:
        who has called `interop()` has been told, and may rely on what it was told alone. It is told under the lock,
        in the thread that set or asked: it must not call back into these settings (a deadlock), not block and not
        raise. Nor may anyone hold a lock that the callback takes while calling in here. If it returns a
        function, that is called right after, without the lock.
        """
        token = object()
        with self._lock:
            self._subscribers[token] = callback
            setting = self._known.interop
            act = callback(setting.value) if setting is not None else None
        if act is not None:
            act()
        return lambda: self._unsubscribe(token)

    def subscribe_intraop(self, callback: IntraopSubscriber) -> Callable[[], None]:
        """Tell `callback` the number of intra-op threads that was given, None as long as none was; as `subscribe`."""
        token = object()
        with self._lock:
            self._intraop_subscribers[token] = callback
            act = callback(self._known.intraop_given)
        if act is not None:
            act()
        return lambda: self._unsubscribe(token)

    def __repr__(self) -> str:
        known = self._known
        return f"<Settings interop={_shown(known.interop)} intraop={_shown(known.intraop)}>"

    def _unsubscribe(self, token: object) -> None:
        with self._lock:
            self._subscribers.pop(token, None)
            self._intraop_subscribers.pop(token, None)

    def _looked(self) -> _Known:
        """Look at the environment and the CPUs, unless somebody has."""
        # Outside the lock, which must not be held over files nor over warnings.showwarning, the user's own code.
        # Threads that meet here all read; the first one stores, and warns.
        texts = self._environ.get(INTEROP_VARIABLE), self._environ.get(INTRAOP_VARIABLE)
        inter, intra = (_parse(text) if text is not None else None for text in texts)
        usable = self._usable_cpus()
        with self._lock:
            known = self._known
            if known.cpus is not None:
                return known
            acts = self._store(replace(known, interop_found=inter, intraop_found=intra, cpus=usable))
            now = self._known
        for act in acts:
            act()
        # A bad variable beside a number that was set is one that nobody reads.
        if texts[0] is not None and inter is None and now.interop_set is None:
            _complain(INTEROP_VARIABLE, texts[0], typed(Setting, now.interop))
        if texts[1] is not None and intra is None and now.intraop_set is None:
            _complain(INTRAOP_VARIABLE, texts[1], typed(Setting, now.intraop))
        self._warn_of_too_many(stacklevel=5)
        return now

    def _change(self, interop: int | _Unset | None = _Unset.KEEP, intraop: int | _Unset | None = _Unset.KEEP) -> _Known:
        """Set what the API gave; None takes it back. Returns what was known before."""
        with self._lock:
            before = known = self._known
            if interop is not _Unset.KEEP:
                known = replace(known, interop_set=interop)
            if intraop is not _Unset.KEEP:
                known = replace(known, intraop_set=intraop)
            acts = self._store(known, again=interop is not _Unset.KEEP)
        for act in acts:
            act()
        if self._known.interop_given and self._known.intraop_given:
            self._warn_of_too_many(stacklevel=5)
        return before

    def _store(self, known: _Known, *, again: bool = False) -> Acts:
        """Store and tell, in one piece, with the lock held; returns what is to be called without it.

        `again`: tell the number of inter-op threads although it is what it was.
        """
        before, self._known = self._known, known
        acts: list[Callable[[], object] | None] = []
        if known.interop is not None and (again or known.interop != before.interop):
            acts += [callback(known.interop.value) for callback in self._subscribers.values()]
        if known.intraop_given != before.intraop_given:
            acts += [callback(known.intraop_given) for callback in self._intraop_subscribers.values()]
        return [act for act in acts if act is not None]

    def _warn_of_too_many(self, stacklevel: int) -> None:
        if self._told_too_many:
            return
        if self._known.cpus is None:
            self.cpus()  # looks, and comes back here
            return
        known = self._known
        if known.too_many:
            self._told_too_many = True
            warnings.warn(
                f"{known.interop_given} inter-op x {known.intraop_given} intra-op threads are more than the "
                f"{known.cpus} CPUs of this process: they will take turns; leave one of the two to its default",
                RuntimeWarning,
                stacklevel=stacklevel,
            )

    def _after_fork_in_child(self) -> None:
        # Another thread of the parent may have held the lock, and that thread does not exist here.
        self._lock = threading.Lock()


process_settings = Settings()

if hasattr(os, "register_at_fork"):  # not on Windows
    # Registered on import, and hooks run in that order: those of subscribers may already use the settings.
    os.register_at_fork(after_in_child=process_settings._after_fork_in_child)


def set_num_interop_threads(n: SupportsIndex) -> None:
    """Let at most `n` kernels execute at once in this process.

    `n` is an int or a numpy integer, at least 1. Callable at any time and from any thread, also while graphs run:
    growing acts at once on queued work; shrinking lets running kernels finish, and none starts until fewer than `n`
    run. It beats the environment variable DATAFLOW_NUM_INTEROP_THREADS. Warns with RuntimeWarning, once, if both
    settings were given and their product exceeds the CPUs of this process.

    Raises TypeError for anything that is not an integer (a bool or a float, too) and ValueError below 1; a failed
    call changes nothing.
    """
    process_settings.set_interop(n)


def get_num_interop_threads() -> int:
    """How many kernels may execute at once in this process.

    What `set_num_interop_threads` was last given; else DATAFLOW_NUM_INTEROP_THREADS; else the number of CPUs that
    this process may really use (affinity and cgroup quota), divided by the intra-op threads if only these were given.
    Found when first asked for. A bad value in the environment gives one RuntimeWarning and the default.
    """
    return process_settings.interop().value


def set_num_threads(n: SupportsIndex) -> None:
    """Let each kernel use `n` BLAS/OpenMP threads inside itself: the intra-op setting, for the whole process.

    `n` is an int or a numpy integer, at least 1. Callable at any time and from any thread: while kernels run it is in
    force at once, also in those that run (for their next BLAS call), whichever thread called. While none runs it is
    only noted: outside of kernels BLAS stays as it was found. It beats the environment variable DATAFLOW_NUM_THREADS
    and ends the adaptive default. Never more threads are used than OPENBLAS_NUM_THREADS, MKL_NUM_THREADS or
    OMP_NUM_THREADS allow; a library that does not take `n` is warned of once, with RuntimeWarning. Several kernels at
    once with `n` above 1 rely on a BLAS that is right under concurrency: see `parallel_info`.

    Raises TypeError and ValueError as `set_num_interop_threads`; a failed call changes nothing.
    """
    process_settings.set_intraop(n)


def get_num_threads() -> int:
    """How many BLAS/OpenMP threads one kernel may use.

    What `set_num_threads` was last given; else DATAFLOW_NUM_THREADS. If neither was given the number is adaptive: one
    thread while several kernels run, all CPUs while one runs alone. What is returned then is each kernel's share of
    the CPUs if the inter-op threads were given, max(1, CPUs // inter-op), and all CPUs if they were not either.
    """
    return process_settings.intraop().value


@contextmanager
def threads(*, interop: SupportsIndex | None = None, intraop: SupportsIndex | None = None) -> Iterator[None]:
    """Set one or both numbers of threads inside a `with` block; at its end they are what they were before it.

    They hold for the whole process, not only for what the block runs: of blocks that overlap in several threads or
    tasks, the last one to begin or end wins. Raises as the setters do, and then changes nothing.
    """
    with process_settings.both(interop, intraop):
        yield


def _complain(variable: str, text: str, instead: Setting) -> None:
    warnings.warn(
        f"{variable}={text!r} is not a number of threads: using the default, {instead.value}; "
        "set it to a whole number from 1 up, or unset it",
        RuntimeWarning,
        stacklevel=5,
    )


def _shown(setting: Setting | None) -> str:
    return f"{setting.value} from {setting.origin.value}" if setting else "not asked for yet"


def _thread_count(n: SupportsIndex, function: str, argument: str = "") -> int:
    """Check a number of threads that the user gave to `function`; the int it means."""
    # True would quietly mean one thread. numpy's bool has no __index__, nor has a float.
    if isinstance(n, bool):
        count = None
    else:
        try:
            count = operator.index(n)
        except TypeError:
            count = None
    if count is None:
        raise TypeError(
            f"{function}({argument}) takes an int, not {type(n).__name__}: pass a whole number of threads, 1 or more"
        )
    if count < 1:
        raise ValueError(f"{function}({argument}{count}): at least one thread must be left to run on; pass 1 or more")
    return count


def _parse(text: str) -> int | None:
    """The number of threads that a variable of the environment holds; None if it holds none.

    >>> _parse(" 4 "), _parse("0"), _parse("1_000"), _parse("2.0"), _parse("")
    (4, None, None, None, None)
    """
    digits = text.strip()
    # int() alone would take "1_000" and "٤" too, and raise on thousands of digits.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        return None
    return int(digits) or None
