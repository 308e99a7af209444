"""The thread settings: validates them, stores them, tells subscribers.

A *setting* is a number of threads and its *origin*: the API beats the environment, which beats the default. The
environment and the CPUs are looked at when the number is first asked for, so that importing this reads nothing.

*Subscribers* are the parts of this package that obey the number (the lanes). Each is told the number as soon as
there is one, and again at every set, always under the lock: the last number told is the last one set. What a
subscriber does about it may take longer and call user code: it returns that as a function, called without the lock.

Today there is one setting, inter-op threads. The intra-op setting belongs beside it in `Settings`: the default of
either depends on whether the other was given, so that one lock must guard both.
"""

from __future__ import annotations

import operator
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import SupportsIndex

from dataflow.threads import cpus

__all__ = ["Origin", "Setting", "Settings", "get_num_interop_threads", "process_settings", "set_num_interop_threads"]

Subscriber = Callable[[int], Callable[[], object] | None]

INTEROP_VARIABLE = "DATAFLOW_NUM_INTEROP_THREADS"


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


class Settings:
    """The thread settings of a process; every method may be called at any time, from any thread.

    `environ` is where the variables are, `usable_cpus` the default; neither is looked at before a number is asked
    for, nor once there is one.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, usable_cpus: Callable[[], int] = cpus.usable) -> None:
        self._environ = environ
        self._usable_cpus = usable_cpus
        self._lock = threading.Lock()
        self._interop: Setting | None = None  # written under the lock, read without; None: not asked for yet
        self._subscribers: dict[object, Subscriber] = {}

    def interop(self) -> Setting:
        """How many kernels may execute at once, and where that number came from.

        Warns with RuntimeWarning, once, when the environment holds a number that is none.
        """
        setting = self._interop
        if setting is not None:
            return setting
        # Outside the lock, which must not be held over files nor over warnings.showwarning, the user's own code.
        # Threads that meet here all read; the first one stores, and warns.
        found, complaint = self._interop_from_environment()
        with self._lock:
            setting = self._interop
            if setting is not None:
                return setting
            acts = self._change_interop(found)
        for act in acts:
            act()
        if complaint is not None:
            warnings.warn(complaint, RuntimeWarning, stacklevel=3)
        return found

    def set_interop(self, n: SupportsIndex) -> None:
        """Let at most `n` kernels execute at once; see `set_num_interop_threads`."""
        setting = Setting(_thread_count(n, "set_num_interop_threads"), Origin.API)
        with self._lock:
            acts = self._change_interop(setting)
        for act in acts:
            act()

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
            act = callback(self._interop.value) if self._interop is not None else None
        if act is not None:
            act()

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers.pop(token, None)

        return unsubscribe

    def __repr__(self) -> str:
        setting = self._interop
        interop = f"{setting.value} from {setting.origin.value}" if setting else "not asked for yet"
        return f"<Settings interop={interop}>"

    def _change_interop(self, setting: Setting) -> list[Callable[[], object]]:
        """Store and tell, in one piece, with the lock held; returns what is to be called without it."""
        self._interop = setting
        acts = [callback(setting.value) for callback in self._subscribers.values()]
        return [act for act in acts if act is not None]

    def _interop_from_environment(self) -> tuple[Setting, str | None]:
        """The number for a process that set none, and what is to be warned about."""
        text = self._environ.get(INTEROP_VARIABLE)
        if text is not None and (count := _parse(text)) is not None:
            return Setting(count, Origin.ENVIRONMENT), None
        default = Setting(self._usable_cpus(), Origin.DEFAULT)
        if text is None:
            return default, None
        return default, (
            f"{INTEROP_VARIABLE}={text!r} is not a number of threads: using the default, {default.value}; "
            "set it to a whole number from 1 up, or unset it"
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
    run. It beats the environment variable DATAFLOW_NUM_INTEROP_THREADS.

    Raises TypeError for anything that is not an integer (a bool or a float, too) and ValueError below 1; a failed
    call changes nothing.
    """
    process_settings.set_interop(n)


def get_num_interop_threads() -> int:
    """How many kernels may execute at once in this process.

    What `set_num_interop_threads` was last given; else DATAFLOW_NUM_INTEROP_THREADS; else the number of CPUs that
    this process may really use (affinity and cgroup quota), found when first asked for. A bad value in the environment
    gives one RuntimeWarning and the default.
    """
    return process_settings.interop().value


def _thread_count(n: SupportsIndex, function: str) -> int:
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
        raise TypeError(f"{function}() takes an int, not {type(n).__name__}: pass a whole number of threads, 1 or more")
    if count < 1:
        raise ValueError(f"{function}({count}): at least one thread must be left to run on; pass 1 or more")
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
