"""settings: what is accepted, which origin wins, who is told, and that a fork carries it over."""

from __future__ import annotations

import doctest
import os
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from dataflow.threads import cpus, settings
from dataflow.threads.settings import Origin, Setting, Settings

VARIABLE = "DATAFLOW_NUM_INTEROP_THREADS"


def made(value: str | None = None, *, usable: int = 6) -> Settings:
    """Settings of a process with `usable` CPUs and this value in its environment."""
    return Settings({} if value is None else {VARIABLE: value}, lambda: usable)


@pytest.fixture
def process(monkeypatch) -> Iterator[Settings]:
    """Fresh settings in the place of the process's own, so that the public functions can be tried."""
    fresh = made()
    monkeypatch.setattr(settings, "process_settings", fresh)
    return fresh


# ---------------------------------------------------------------- what is accepted


class Eleven:
    def __index__(self) -> int:
        return 11


@pytest.mark.parametrize("n", [1, 2, 10_000, np.int8(3), np.uint64(4), np.int64(5), Eleven()])
def test_integers_of_all_kinds(process, n):
    settings.set_num_interop_threads(n)
    value = settings.get_num_interop_threads()
    assert value == int(n.__index__())
    assert type(value) is int


@pytest.mark.parametrize(
    ("n", "type_name"),
    [
        (True, "bool"),
        (False, "bool"),
        (np.True_, type(np.True_).__name__),
        (2.0, "float"),
        (np.float64(2), "float64"),
        ("2", "str"),
        (None, "NoneType"),
        ([2], "list"),
        (np.array([1, 2]), "ndarray"),
    ],
)
def test_everything_else_is_a_type_error_that_changes_nothing(process, n, type_name):
    settings.set_num_interop_threads(3)
    told: list[int] = []
    process.subscribe(told.append)
    with pytest.raises(TypeError, match=rf"^set_num_interop_threads\(\) takes an int, not {type_name}: pass a whole"):
        settings.set_num_interop_threads(n)
    assert process.interop() == Setting(3, Origin.API)
    assert told == [3]


@pytest.mark.parametrize("n", [0, -1, np.int64(-7), -(10**30)])
def test_below_one_is_a_value_error_that_changes_nothing(process, n):
    told: list[int] = []
    process.subscribe(told.append)
    with pytest.raises(ValueError, match=rf"^set_num_interop_threads\({n}\): at least one thread .*; pass 1 or more$"):
        settings.set_num_interop_threads(n)
    assert told == []
    assert process.interop() == Setting(6, Origin.DEFAULT)


def test_an_error_inside_index_is_passed_on(process):
    class Broken:
        def __index__(self) -> int:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        settings.set_num_interop_threads(Broken())


# ---------------------------------------------------------------- origins


def test_api_beats_environment_beats_default():
    assert made().interop() == Setting(6, Origin.DEFAULT)
    assert made("4").interop() == Setting(4, Origin.ENVIRONMENT)
    given = made("4")
    given.set_interop(2)
    assert given.interop() == Setting(2, Origin.API)


def test_api_beats_an_environment_that_was_already_read():
    given = made("4")
    assert given.interop().value == 4
    given.set_interop(9)
    assert given.interop() == Setting(9, Origin.API)


def test_the_default_is_what_this_process_may_really_use():
    assert Settings({}).interop().value == cpus.usable()


def test_the_environment_is_read_at_the_first_get_and_only_then():
    environ: dict[str, str] = {}
    given = Settings(environ, lambda: 6)
    environ[VARIABLE] = "4"
    assert given.interop().value == 4
    environ[VARIABLE] = "5"
    assert given.interop().value == 4


def test_setting_first_asks_neither_environment_nor_cpus():
    def never() -> int:
        raise AssertionError

    given = Settings({VARIABLE: "nonsense"}, never)
    given.set_interop(2)
    assert given.interop().value == 2  # and no warning, which would be an error here


@pytest.mark.parametrize("text", [" 4 ", "04", "4\n"])
def test_an_environment_with_blanks_or_zeros_in_front(text):
    assert made(text).interop() == Setting(4, Origin.ENVIRONMENT)


@pytest.mark.parametrize("text", ["", "0", "-2", "two", "2.0", "1_000", "1e3", "٤", "True", "9" * 5000])
def test_a_bad_environment_gives_one_warning_and_the_default(text):
    given = made(text)
    with pytest.warns(RuntimeWarning) as record:
        assert given.interop() == Setting(6, Origin.DEFAULT)
    assert given.interop() == Setting(6, Origin.DEFAULT)
    (warning,) = record
    assert str(warning.message).startswith(f"{VARIABLE}={text!r} is not a number of threads: using the default, 6; ")


def test_the_warning_points_at_the_user_s_line(monkeypatch):
    monkeypatch.setattr(settings, "process_settings", made("two"))
    with pytest.warns(RuntimeWarning) as record:
        settings.get_num_interop_threads()
    assert record[0].filename == __file__


def test_a_warning_that_is_an_error_comes_once_and_leaves_the_default():
    given = made("two")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            given.interop()
    assert given.interop() == Setting(6, Origin.DEFAULT)


def test_threads_that_meet_at_the_first_get_warn_once_and_agree():
    meet = threading.Barrier(8)

    def usable() -> int:  # all eight are past the look at the stored value before any stores one
        return meet.wait(30) + 1

    given = Settings({VARIABLE: "two"}, usable)
    told: list[int] = []
    given.subscribe(told.append)
    seen: list[int] = []
    with pytest.warns(RuntimeWarning) as record:
        in_threads(8, lambda _: seen.append(given.interop().value))
    assert len(record) == 1
    assert seen == [given.interop().value] * 8
    assert told == seen[:1]


def test_a_set_that_comes_while_the_default_is_looked_up_wins():
    def usable() -> int:
        given.set_interop(2)
        return 6

    given = Settings({VARIABLE: "two"}, usable)
    assert given.interop() == Setting(2, Origin.API)  # and no warning for a value that nobody uses


# ---------------------------------------------------------------- subscribers


def test_a_subscriber_is_told_every_set():
    given, told = made(), []
    given.subscribe(told.append)
    assert told == []  # subscribing asks for no number
    given.set_interop(2)
    given.set_interop(2)
    given.set_interop(5)
    assert told == [2, 2, 5]


def test_who_has_asked_has_been_told():
    given, told = made(), []
    given.subscribe(told.append)
    assert given.interop().value == 6
    assert given.interop().value == 6
    assert told == [6]


def test_a_late_subscriber_is_told_at_once():
    given, told = made(), []
    given.set_interop(3)
    given.subscribe(told.append)
    assert told == [3]


def test_unsubscribe_ends_one_subscription_and_may_be_repeated():
    given, told = made(), []
    unsubscribe = given.subscribe(told.append)
    given.subscribe(told.append)
    unsubscribe()
    unsubscribe()
    given.set_interop(4)
    assert told == [4]


def test_set_from_eight_threads_the_last_told_is_the_last_set():
    given, told = made(), []
    given.subscribe(told.append)

    def set_many(seed: int) -> None:
        numbers = random.Random(seed)
        for _ in range(500):
            given.set_interop(numbers.randint(1, 1000))
            assert given.interop().value >= 1

    in_threads(8, set_many)
    assert len(told) == 8 * 500
    assert told[-1] == given.interop().value


def in_threads(count: int, work) -> None:
    """Run `work(i)` in `count` threads at once; the first error of theirs, if any, is raised here."""
    errors: list[BaseException] = []
    meet = threading.Barrier(count)

    def body(i: int) -> None:
        try:
            meet.wait(30)
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# ---------------------------------------------------------------- the process


def test_repr_asks_for_nothing():
    given = made("4")
    assert repr(given) == "<Settings interop=not asked for yet intraop=not asked for yet>"
    given.interop()
    assert repr(given) == "<Settings interop=4 from environment intraop=1 from default>"
    given.set_interop(2)
    assert repr(given) == "<Settings interop=2 from API intraop=3 from default>"


ALONE = """
import sys, types
package = types.ModuleType("dataflow")  # not the real one, which imports asyncio for its faces
package.__path__ = sys.argv[1:]
sys.modules["dataflow"] = package
"""


def python(program: str, **environ: str) -> str:
    """What a program prints in a process of its own, where `dataflow` holds nothing but its modules."""
    command = [sys.executable, "-W", "error", "-c", ALONE + program, *map(str, package_path())]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def package_path() -> list[str]:
    return [os.path.dirname(os.path.dirname(os.path.abspath(settings.__file__)))]


def test_the_environment_of_a_process():
    program = (
        "from dataflow.threads.settings import *; print(get_num_interop_threads(), repr(process_settings).split()[1:4])"
    )
    assert python(program, **{VARIABLE: "7"}) == "7 ['interop=7', 'from', 'environment']"


def test_import_starts_no_thread_reads_no_variable_and_leaves_asyncio_alone():
    program = """
import os, threading
before = set(sys.modules)
class Watched(dict):
    def get(self, *_): raise AssertionError("read on import")
    __getitem__ = __contains__ = get
os.environ, real = Watched(), os.environ
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
import dataflow.threads.settings
os.environ = real
assert threading.active_count() == 1
assert not {"asyncio", "concurrent.futures", "numpy"} & set(sys.modules)
print([name for name in opened if name.startswith(("/proc", "/sys"))])
"""
    assert python(program) == "[]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_the_same_settings_and_a_lock_of_its_own():
    program = """
import os, threading
from dataflow.threads.settings import *
set_num_interop_threads(3)
inside, leave = threading.Event(), threading.Event()
def hold(_):  # another thread is inside set() for as long as the fork takes: its lock is held in the child, for ever
    inside.set()
    leave.wait()
def change():
    process_settings._subscribers[None] = hold
    set_num_interop_threads(5)
thread = threading.Thread(target=change)
thread.start()
inside.wait()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forking with threads: the very thing to be tried
child = os.fork()
if not child:
    process_settings._subscribers.clear()
    before = get_num_interop_threads()
    set_num_interop_threads(4)
    os._exit(before * 10 + get_num_interop_threads())
leave.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(program) == "54"


def test_the_examples_in_the_docstrings():
    results = doctest.testmod(settings)
    assert results.attempted
    assert not results.failed


# ---------------------------------------------------------------- intra-op beside inter-op


INTRAOP = "DATAFLOW_NUM_THREADS"


def both(environ: dict[str, str] | None = None, *, usable: int = 8) -> Settings:
    return Settings(environ or {}, lambda: usable)


def test_with_neither_given_both_are_the_cpus():
    given = both()
    assert given.intraop() == Setting(8, Origin.DEFAULT)
    assert given.interop() == Setting(8, Origin.DEFAULT)


@pytest.mark.parametrize(("one", "other"), [(1, 8), (2, 4), (3, 2), (8, 1), (64, 1)])
def test_one_given_leaves_the_other_its_share(one, other):
    given = both()
    given.set_interop(one)
    assert given.intraop() == Setting(other, Origin.DEFAULT)
    given = both()
    given.set_intraop(one)
    assert given.interop() == Setting(other, Origin.DEFAULT)
    assert both({VARIABLE: str(one)}).intraop() == Setting(other, Origin.DEFAULT)
    assert both({INTRAOP: str(one)}).interop() == Setting(other, Origin.DEFAULT)


def test_a_default_follows_the_other_setting_and_subscribers_hear_of_it():
    given, told = both(), []
    given.subscribe(told.append)
    assert given.interop().value == 8
    given.set_intraop(4)
    assert given.interop() == Setting(2, Origin.DEFAULT)
    given.set_intraop(4)
    given.set_interop(2)
    given.set_intraop(2)
    assert told == [8, 2, 2]


def test_intraop_origins():
    given = both({INTRAOP: "4"})
    assert given.intraop() == Setting(4, Origin.ENVIRONMENT)
    given.set_intraop(2)
    assert given.intraop() == Setting(2, Origin.API)


def test_both_given_are_obeyed_with_one_warning_if_they_are_too_many(monkeypatch):
    given = both()
    monkeypatch.setattr(settings, "process_settings", given)
    settings.set_num_interop_threads(4)
    settings.set_num_threads(2)
    with pytest.warns(RuntimeWarning, match="^4 inter-op x 3 intra-op threads are more than the 8 CPUs") as record:
        settings.set_num_threads(3)
        settings.set_num_interop_threads(64)
    assert len(record) == 1
    assert record[0].filename == __file__
    assert (given.interop().value, given.intraop().value) == (64, 3)


def test_too_many_from_the_environment_warn_when_first_asked():
    given = both({VARIABLE: "8", INTRAOP: "2"})
    with pytest.warns(RuntimeWarning, match="8 inter-op x 2 intra-op") as record:
        assert given.interop().value == 8
        assert given.intraop().value == 2
    assert len(record) == 1


def test_two_bad_variables_give_one_warning_each():
    given = both({VARIABLE: "two", INTRAOP: "0"})
    with pytest.warns(RuntimeWarning) as record:
        assert given.intraop() == given.interop() == Setting(8, Origin.DEFAULT)
    assert sorted(str(warning.message).split("=")[0] for warning in record) == [VARIABLE, INTRAOP]


@pytest.mark.parametrize("n", [True, False, np.True_, 2.0, "2", None])
def test_set_num_threads_takes_integers(process, n):
    settings.set_num_threads(3)
    with pytest.raises(TypeError, match=r"^set_num_threads\(\) takes an int, not "):
        settings.set_num_threads(n)
    assert settings.get_num_threads() == 3


@pytest.mark.parametrize("n", [0, -1, np.int64(-7)])
def test_set_num_threads_refuses_less_than_one(process, n):
    with pytest.raises(ValueError, match=rf"^set_num_threads\({n}\): at least one thread "):
        settings.set_num_threads(n)
    assert process.intraop() == Setting(6, Origin.DEFAULT)


def test_what_torch_s_users_expect(process):
    """Set, then get; and where torch raises or ignores: a second set, a set after work began."""
    settings.set_num_threads(np.int64(2))
    settings.set_num_interop_threads(2)
    assert (settings.get_num_threads(), settings.get_num_interop_threads()) == (2, 2)
    settings.set_num_interop_threads(3)
    settings.set_num_interop_threads(1)
    settings.set_num_threads(6)
    assert (settings.get_num_threads(), settings.get_num_interop_threads()) == (6, 1)


def test_intraop_subscribers_are_told_what_was_given_and_none_for_the_default():
    given, told = both({INTRAOP: "4"}), []
    unsubscribe = given.subscribe_intraop(told.append)
    given.intraop()
    given.set_intraop(2)
    given.set_interop(3)
    unsubscribe()
    given.set_intraop(1)
    assert told == [None, 4, 2]


def test_what_a_subscriber_returns_is_called_without_the_lock():
    given, seen = both(), []
    given.subscribe_intraop(lambda n: lambda: seen.append((n, given.intraop().value)))
    given.set_intraop(2)
    assert seen == [(None, 8), (2, 2)]


# ---------------------------------------------------------------- with threads(...)


def test_inside_the_block_they_hold_and_then_they_are_what_they_were(process):
    settings.set_num_interop_threads(3)
    with settings.threads(interop=2, intraop=2):
        assert (process.interop(), process.intraop()) == (Setting(2, Origin.API), Setting(2, Origin.API))
        with settings.threads(intraop=1):
            assert (process.interop().value, process.intraop().value) == (2, 1)
        assert process.intraop().value == 2
    assert (process.interop(), process.intraop()) == (Setting(3, Origin.API), Setting(2, Origin.DEFAULT))


def test_what_was_a_default_is_one_again_and_an_exception_passes(process):
    with pytest.raises(KeyError), settings.threads(interop=2):
        raise KeyError
    assert process.interop() == Setting(6, Origin.DEFAULT)


def test_what_the_block_does_not_name_may_be_set_inside(process):
    with settings.threads(interop=2):
        settings.set_num_threads(1)
    assert (process.interop(), process.intraop()) == (Setting(6, Origin.DEFAULT), Setting(1, Origin.API))


def test_what_came_from_the_environment_comes_from_there_again():
    given = both({INTRAOP: "2"})
    with given.both(None, 4):
        assert given.interop().value == 2  # which looks at the environment
    assert given.intraop() == Setting(2, Origin.ENVIRONMENT)


def test_a_block_that_is_refused_changes_nothing(process):
    settings.set_num_interop_threads(3)
    told: list[int] = []
    process.subscribe(told.append)
    with pytest.raises(ValueError, match=r"^threads\(intraop=0\)"), settings.threads(interop=2, intraop=0):
        pass
    with pytest.raises(TypeError, match=r"^threads\(interop=\) takes an int, not str"), settings.threads(interop="2"):
        pass
    assert told == [3]
