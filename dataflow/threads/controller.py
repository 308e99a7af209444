"""The controller: puts what the policy decides in force in the BLAS libraries, while kernels run.

    worker ── come, small, start, end, go ──▶ Controller ──▶ Policy      decides
                                                  └────────▶ Library     obeys: set, and read back

Outside of kernels nothing is touched: what a library was found to use when the first kernel started is put back
when the last one has ended, whatever became of it. Each change is made before the call that caused it returns.

What workers call, never under a lock of theirs (these take a lock, and may warn):

    member = come()          a worker begins to serve a run; None: nothing is managed, and no calls follow
    small(member)            before small kernels, unless the member's last call was this
    start(member, ready=…)   before a kernel that took `LONG` seconds or more the last time
    end(member)              after it, in any case
    go(member)               the worker leaves the run, in any case
    rest(member)             the worker waits within the run, for what is not its to execute
    pause() / resume(member) around a kernel's waiting for an inner run, in its thread

A small kernel costs nothing here, a long one some microseconds, and a worker that comes and goes as many.

Forks. A fork while OpenBLAS workers are in a call hangs the parent, whose fork waits for them to end, or the child,
whose first product waits for workers that are not there: 3 children and the parent within 7 forks, in the first try. So
before a fork BLAS gets one thread, which lets the call that is under way be the last one with several, and the fork
waits until no worker is awake: the rest of that call, and the tenth of a second for which they spin. Setting one thread
alone is not enough: the first fork of 30 hung. All this only in processes that have run kernels and manage BLAS.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from dataflow.threads.blas import Blas, Library, Reach, spin_seconds
from dataflow.threads.blas_threads import wait_for_workers, workers_awake
from dataflow.threads.policy import Member, Policy, State
from dataflow.threads.settings import Settings, process_settings
from dataflow.threads.warnings import of_flaw, of_refusal, warn

__all__ = ["LONG", "Controller", "manage_blas", "process_intraop"]

LONG = 200e-6
"""Seconds from which on a kernel is worth these calls: below that they would cost more than four parts in a hundred."""
FORK_PATIENCE = 10.0
"""Seconds for which a fork waits at the most for a BLAS call of a kernel, and a fifth of it for any other thread."""

MANAGE_VARIABLE = "DATAFLOW_MANAGE_BLAS"
_SAYS = {"0": False, "false": False, "no": False, "off": False, "1": True, "true": True, "yes": True, "on": True}


class _Here(threading.local):
    """What this thread is about."""

    member: Member | None = None


class Controller:
    """The controller of a process; every method may be called from any thread."""

    def __init__(self, settings: Settings, blas: Blas | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environ = environ
        self._blas = Blas(environ) if blas is None else blas
        self._lock = threading.Lock()
        self._here = _Here()
        self._managed: bool | None = None
        """What `manage` said; None: nobody has asked for it nor looked into the environment."""
        self._policy: Policy | None = None
        """Made when the first worker comes, since it takes the number of CPUs."""
        self._found: dict[str, int] | None = None
        """How many threads each library had when the first kernel started; None: no kernel runs."""
        self._warned: set[tuple[str, str]] = set()
        """What has been warned of."""
        self._forking = 0
        """How many threads fork."""

    def __repr__(self) -> str:
        return f"<Controller {'managing' if self.managing else 'off'} {self._policy!r}>"

    @property
    def managing(self) -> bool:
        """Whether BLAS is set while kernels run."""
        managed = self._managed
        return self._look() if managed is None else managed

    @property
    def threads(self) -> int | None:
        """How many BLAS threads kernels have at the moment; None if none runs."""
        policy = self._policy
        return None if self._found is None or policy is None else policy.threads

    def manage(self, on: bool) -> None:
        """See `manage_blas`."""
        with self._lock:
            self._managed = on
            warned: list[str] = []
            if not on:
                self._restore()
            elif self._policy is not None and self._policy.executing:
                warned = self._enforce()
        _warn_of(warned)

    def libraries(self) -> list[Library]:
        """The BLAS and OpenMP libraries that are loaded now."""
        with self._lock:
            self._blas.refresh()
            return list(self._blas.libraries)

    # What workers call.

    def come(self) -> Member | None:
        """A worker begins to serve a run. None: BLAS is not managed, or the environment leaves nothing to manage."""
        if not self.managing:
            return None
        if self._policy is None:
            self._begin()
        with self._lock:
            if self._blas.refresh() and self._found is not None:
                self._find()
            policy = self._needed
            if policy.fixed is None and not any(library.allowed(2) > 1 for library in self._blas.libraries):
                return None  # one thread is all they may have: there is nothing to decide, and no gain to be had
            member = self._here.member = policy.come()
            return member

    def small(self, member: Member) -> None:
        """It goes on with kernels that are not worth a call each."""
        self._told(Policy.small, member)

    def start(self, member: Member, *, ready: int = 0) -> None:
        """It is about to execute a long kernel, while `ready` others could be started as well."""
        self._told(Policy.start, member, ready)

    def end(self, member: Member) -> None:
        """Its kernel is over, in whatever way."""
        self._told(Policy.end, member, perf_counter())

    def go(self, member: Member) -> None:
        """The worker leaves the run."""
        self._here.member = None
        self._told(Policy.go, member)

    def pause(self) -> Member | None:
        """The kernel of this thread waits for an inner run, and executes nothing itself; what to `resume` with."""
        member = self._here.member
        if member is not None and member.state is not State.IDLE:
            self.rest(member)
            return member
        return None

    def rest(self, member: Member) -> None:
        """Its worker waits for something, and executes nothing until it says what it does next."""
        self._told(Policy.pause, member)

    def resume(self, member: Member | None) -> None:
        """It goes on."""
        self._here.member = member
        if member is not None:
            self._told(Policy.resume, member)

    def _told(self, what: Callable[..., None], member: Member, *more: Any) -> None:
        """Tell the policy, and put in force what it says then."""
        with self._lock:
            what(self._needed, member, *more)
            warned = self._enforce()
        _warn_of(warned)

    # Under the lock.

    @property
    def _needed(self) -> Policy:
        assert self._policy is not None
        return self._policy

    def _enforce(self) -> list[str]:
        """Have the libraries do what the policy says; returns what is to be warned of."""
        policy = self._needed
        if self._managed is False or self._forking:
            return []
        if not policy.executing:
            self._restore()
            return []
        if self._found is None:
            self._find()
        warned = []
        in_danger = policy.fixed is not None and policy.fixed > 1 and policy.executing > 1
        for library in self._blas.libraries:
            if in_danger and (flaw := of_flaw(library)) is not None:
                warned += self._complain("flaw", library, flaw)
            wanted = library.allowed(policy.threads)
            count = library.count()
            if count != wanted:
                count = library.put(wanted)
            told = policy.threads if policy.fixed is None else policy.fixed
            # Less than all CPUs, by default, is nobody's disappointment.
            if count != told and (policy.fixed is not None or count is None or count > told):
                warned += self._complain("refused", library, of_refusal(library, told, count))
        return warned

    def _find(self) -> None:
        found = self._found or {}
        for library in self._blas.libraries:
            count = library.count()
            if library.reach is Reach.PROCESS and count is not None:
                found.setdefault(library.path, count)
        self._found = found

    def _restore(self) -> None:
        found, self._found = self._found, None
        for library in self._blas.libraries if found else ():
            count = found.get(library.path) if found else None
            if count is not None and library.count() != count:
                library.put(count)

    def _complain(self, what: str, library: Library, complaint: str) -> list[str]:
        """The complaint, unless it has been made."""
        if (what, library.path) in self._warned:
            return []
        self._warned.add((what, library.path))
        return [complaint]

    # The beginning.

    def _look(self) -> bool:
        text = self._environ.get(MANAGE_VARIABLE)
        says = _SAYS.get(text.strip().lower()) if text is not None else True
        with self._lock:
            if self._managed is not None:
                return self._managed
            self._managed = on = says is not False
        if says is None:
            warn(f"{MANAGE_VARIABLE}={text!r} is neither 0 nor 1: BLAS is managed, the default")
        return on

    def _begin(self) -> None:
        cpus = self._settings.cpus()
        self._settings.intraop()  # may warn, and then whoever subscribes is told what the environment says
        with self._lock:
            if self._policy is not None:
                return
            self._policy = Policy(cpus, spin=spin_seconds(self._environ))
        self._settings.subscribe_intraop(self._set)

    def _set(self, fixed: int | None) -> Any:
        """Told by the settings, under their lock: note it there, and put it in force right after."""
        with self._lock:
            self._needed.set_fixed(fixed)
        return self._put_in_force

    def _put_in_force(self) -> None:
        with self._lock:
            warned = self._enforce()
        _warn_of(warned)

    # Forks.

    def before_fork(self) -> None:
        """Leave BLAS with one thread, and none at work."""
        if self._policy is None or not self.managing:
            return
        # Whoever holds the lock lets go of it soon; but that may be this thread, which a signal has interrupted.
        locked = self._lock.acquire(timeout=1.0)
        try:
            self._forking += 1
            ours = [library for library in self._blas.libraries if library.reach is Reach.PROCESS]
            if self._found is None:
                self._find()
            several = any((library.count() or 1) > 1 for library in ours)
            for library in ours:
                library.put(1)
            kernels = [member for member in self._needed.members if member.threads > 1 and member.state is State.LONG]
            recent = self._needed.hot(perf_counter())
        finally:
            if locked:
                self._lock.release()
        # The last: of a user's thread that began its call before a kernel had the number set to one.
        if several or kernels or recent or workers_awake():
            wait_for_workers(FORK_PATIENCE if kernels else FORK_PATIENCE / 5)

    def after_fork_in_parent(self) -> None:
        """Back to what the policy says."""
        if self._forking:
            with self._lock:
                self._forking -= 1
                warned = self._enforce()
            _warn_of(warned)

    def after_fork_in_child(self) -> None:
        """No kernel runs here, and no thread exists that could hold the lock."""
        self._lock = threading.Lock()
        self._here = _Here()
        if self._policy is not None:
            self._policy.members.clear()
        if self._forking:
            self._forking = 0
            for library in self._blas.libraries:
                if self._found and library.path in self._found:
                    library.put_back(self._found[library.path])
        self._found = None


def _warn_of(warned: list[str]) -> None:
    """Not under a lock: a warning may call user code."""
    for complaint in warned:
        warn(complaint)


process_intraop = Controller(process_settings)

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=process_intraop.before_fork,
        after_in_parent=process_intraop.after_fork_in_parent,
        after_in_child=process_intraop.after_fork_in_child,
    )


def manage_blas(on: bool) -> None:
    """Whether BLAS/OpenMP libraries are set to a number of threads while kernels run; off for hosts that own them.

    On is the default; DATAFLOW_MANAGE_BLAS=0 turns it off, and a call beats the variable. Turned off while kernels run,
    every library gets back what it was found with, and is left alone from then on, forks included.

    Raises TypeError for anything but True and False.
    """
    if not isinstance(on, bool):
        raise TypeError(f"manage_blas() takes True or False, not {type(on).__name__}")
    process_intraop.manage(on)
