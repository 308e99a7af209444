"""intraop: what the policy says is in force in the libraries while kernels run, and what was found is put back."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest

from dataflow.threads import controller
from dataflow.threads.blas import Blas, Library, Reach
from dataflow.threads.controller import Controller
from dataflow.threads.settings import Settings


class Faked(Library):
    """A library whose number of threads is a number, for the process or for each thread."""

    def __init__(self, count: int = 2, *, reach: Reach = Reach.PROCESS, most: int = 64, **more: Any) -> None:
        self.counts: dict[int, int] = {}
        self.sets: list[int] = []
        self.found = count

        def key() -> int:
            return threading.get_ident() if reach is Reach.THREAD else 0

        def put(threads: int) -> None:
            assert threads >= 1
            self.sets.append(threads)
            self.counts[key()] = min(threads, most)

        more = {"kind": "openblas", "version": "0.3.34", "path": f"/{id(self)}"} | more
        super().__init__(get=lambda: self.counts.get(key(), self.found), put=put, reach=reach, **more)


def made(*libraries: Library, environ: dict[str, str] | None = None, cpus: int = 2) -> tuple[Controller, Settings]:
    settings = Settings(environ or {}, lambda: cpus)
    return Controller(settings, Blas({}, lambda: iter(libraries)), environ or {}), settings


def test_it_begins_as_found_and_ends_as_found():
    library = Faked(7)
    control, _ = made(library, cpus=4)
    assert control.threads is None
    member = control.come()
    assert library.sets == []
    control.start(member)
    assert (library.count(), control.threads) == (4, 4)
    control.end(member)
    assert (library.count(), control.threads) == (7, None)
    control.go(member)
    assert library.sets == [4, 7]


def test_two_at_once_have_one_thread_each():
    library = Faked(2)
    control, _ = made(library)
    first, second = control.come(), control.come()
    control.start(first)
    control.start(second)
    assert library.count() == 1
    control.end(first)
    control.go(first)
    assert library.count() == 2  # the other goes on alone, nobody knows how long
    control.end(second)
    assert library.count() == 2


def test_a_number_set_while_a_kernel_runs_is_in_force_at_once_from_any_thread():
    library = Faked(2)
    control, settings = made(library)
    member = control.come()
    control.start(member)
    thread = threading.Thread(target=settings.set_intraop, args=(5,))
    thread.start()
    thread.join()
    assert library.count() == 5
    control.end(member)
    assert library.count() == 2


def test_a_number_set_while_none_runs_waits_for_the_first():
    library = Faked(2)
    control, settings = made(library)
    settings.set_intraop(5)
    assert library.sets == []
    member = control.come()
    settings.set_intraop(6)
    assert library.sets == []
    control.start(member)
    assert library.count() == 6


def test_what_somebody_else_has_set_meanwhile_is_set_again():
    library = Faked(2)
    control, settings = made(library)
    settings.set_intraop(3)
    member = control.come()
    control.start(member)
    library.put(9)
    control.end(member)
    control.start(member)
    assert library.count() == 3


def test_never_above_what_the_environment_allows():
    library = Faked(2, cap=2)
    control, settings = made(library, cpus=8)
    member = control.come()
    control.start(member)  # by default eight: no word about it
    assert library.count() == 2
    control.end(member)
    with pytest.warns(RuntimeWarning, match="does not use 4 intra-op threads: the environment allows it 2") as record:
        settings.set_intraop(4)
        control.start(member)
        control.end(member)
        control.start(member)
    assert len(record) == 1
    assert library.count() == 2


def test_where_the_environment_allows_one_thread_there_is_nothing_to_manage():
    library, other = Faked(1, cap=1), Faked(2)
    control, settings = made(library)
    assert control.come() is None
    settings.set_intraop(2)
    with pytest.warns(RuntimeWarning, match="does not use 2 intra-op threads: the environment allows it 1"):
        control.start(control.come())
    assert library.count() == 1
    control, _ = made(library, other)
    assert control.come() is not None


def test_a_library_that_clamps_is_warned_of_once():
    library = Faked(2, most=64)
    control, settings = made(library)
    settings.set_intraop(100)
    member = control.come()
    with pytest.warns(RuntimeWarning, match="does not use 100 intra-op threads: it uses 64 threads, as read") as record:
        for _ in range(3):
            control.start(member)
            control.end(member)
    assert len(record) == 1


def test_a_library_that_cannot_be_controlled_is_warned_of_once():
    library = Library("accelerate", get=lambda: 4, put=None, reach=Reach.PROCESS, path="/a")
    control, _ = made(library)
    first, second = control.come(), control.come()
    with pytest.warns(RuntimeWarning, match="accelerate does not use 2 intra-op threads: it cannot be") as record:
        for _ in range(2):
            control.start(first)
            control.start(second)
            control.end(second)
            control.end(first)
    assert len(record) == 1


def test_where_warnings_are_errors_a_lane_goes_on_and_the_log_has_it(caplog):
    control, settings = made(Faked(2, most=64))
    settings.set_intraop(100)
    member = control.come()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        control.start(member)
    assert "does not use 100 intra-op threads" in caplog.text


def test_several_kernels_with_several_threads_in_a_flawed_version_are_warned_of_once():
    control, settings = made(Faked(2, version="0.3.29"))
    settings.set_intraop(2)
    first, second = control.come(), control.come()
    control.start(first)
    with pytest.warns(RuntimeWarning, match=r"openblas 0\.3\.29 multi-threaded products .*numpy 29391") as record:
        control.start(second)
        control.end(second)
        control.start(second)
    assert len(record) == 1


@pytest.mark.parametrize("by", ["small", "end", "go", "resume"])
def test_whatever_brings_a_flaw_out_warns_of_it(by: str) -> None:
    """A complaint counts as told only where somebody is told."""
    control, settings = made(Faked(2, version="0.3.31"))
    settings.set_intraop(2)
    first, second = control.come(), control.come()
    control.start(first)
    with pytest.warns(RuntimeWarning, match="wrong"):
        if by == "resume":
            control._here.member = second
            control._policy.resume(second)
            control.resume(second)
        elif by == "small":
            control.small(second)
        else:
            control._policy.small(second)  # nobody has looked yet
            third = control.come()
            control._policy.small(third)
            control.end(third) if by == "end" else control.go(third)
    control.end(first)


def test_of_openmp_each_thread_has_its_own_number():
    library = Faked(8, reach=Reach.THREAD)
    control, _ = made(library)
    counts: list[int] = []
    here = control.come()
    control.start(here)

    def lane() -> None:
        member = control.come()
        control.start(member)
        counts.append(library.count())
        control.end(member)
        control.go(member)

    thread = threading.Thread(target=lane)
    thread.start()
    thread.join()
    assert counts == [1]
    control.end(here)
    control.start(here)
    assert library.count() == 2  # set by this thread, for itself


def test_a_library_loaded_while_kernels_run_is_covered(monkeypatch):
    import sys
    import types

    first, second = Faked(2), Faked(3)
    there = [first]
    control, _ = made()
    control._blas = Blas({}, lambda: iter(there))
    member = control.come()
    control.start(member)
    there.append(second)
    monkeypatch.setitem(sys.modules, "dataflow_test_module", types.ModuleType("dataflow_test_module"))
    other = control.come()
    control.start(other)
    assert (first.count(), second.count()) == (1, 1)
    control.end(other)
    control.end(member)
    assert (first.count(), second.count()) == (2, 3)


# ---------------------------------------------------------------- off


@pytest.mark.parametrize("text", ["0", "false", "No", " off "])
def test_off_by_the_environment(text):
    library = Faked(2)
    control, _ = made(library, environ={"DATAFLOW_MANAGE_BLAS": text})
    assert control.managing is False
    assert control.come() is None
    control.before_fork()
    assert library.sets == []
    control.manage(True)
    assert control.come() is not None


def test_a_bad_variable_is_warned_of_once_and_means_on():
    control, _ = made(Faked(2), environ={"DATAFLOW_MANAGE_BLAS": "maybe"})
    with pytest.warns(RuntimeWarning, match="DATAFLOW_MANAGE_BLAS='maybe' is neither 0 nor 1") as record:
        assert control.managing
        assert control.managing
    assert len(record) == 1


def test_turned_off_while_kernels_run_it_puts_back_and_leaves_alone():
    library = Faked(7)
    control, settings = made(library)
    member = control.come()
    control.start(member)
    control.manage(False)
    assert library.count() == 7
    settings.set_intraop(3)
    control.end(member)
    control.start(member)
    control.go(member)
    assert library.sets == [2, 7]


def test_turned_on_while_kernels_run_it_holds_at_once():
    library = Faked(7)
    control, _ = made(library)
    member = control.come()
    control.manage(False)
    control.start(member)
    assert library.count() == 7
    control.manage(True)
    assert library.count() == 2
    control.end(member)
    assert library.count() == 7


@pytest.mark.parametrize("on", [0, 1, None, "no"])
def test_manage_blas_takes_true_or_false(on):
    with pytest.raises(TypeError, match=r"^manage_blas\(\) takes True or False, not"):
        controller.manage_blas(on)


def test_without_libraries_there_is_nothing_to_do():
    assert made()[0].come() is None


# ---------------------------------------------------------------- teams


def hot(control: Controller) -> None:
    member = control.come()
    control.start(member)
    control._policy.end(member, member.began, hot=True)
    control.go(member)


def test_at_a_fork_there_is_one_thread_and_then_what_was():
    library = Faked(7)
    control, _ = made(library)
    control.before_fork()  # no kernel has ever run: not our business
    assert library.sets == []
    member = control.come()
    control.before_fork()
    assert library.count() == 1
    control.after_fork_in_parent()
    assert library.count() == 7
    control.start(member)
    control.before_fork()
    assert library.count() == 1
    control.after_fork_in_parent()
    assert library.count() == 2
    control.end(member)
    assert library.count() == 7


@pytest.mark.parametrize("in_child", [False, True])
def test_of_two_forks_at_once_the_second_begins_and_ends_like_the_first(in_child: bool):
    library = Faked(7)
    control, _ = made(library)
    control.come()
    control.before_fork()
    control.before_fork()
    control.after_fork_in_parent()
    assert library.count() == 1
    (control.after_fork_in_child if in_child else control.after_fork_in_parent)()
    assert library.count() == 7


def test_the_child_has_what_was_found_and_no_kernels():
    library = Faked(7)
    control, _ = made(library)
    member = control.come()
    control.start(member)
    control.before_fork()
    control._lock.acquire()  # another thread of the parent
    control.after_fork_in_child()
    assert library.count() == 7
    assert control.threads is None
    fresh = control.come()
    control.start(fresh)
    assert library.count() == 2
    control.end(fresh)
    assert library.count() == 7
