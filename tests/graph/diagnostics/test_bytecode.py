"""What bytecode says of every form of statement, on the interpreter that runs the tests.

Each statement is compiled and run here: objects in it note from which instruction they are called, and what it raises
says where. So nothing depends on how an interpreter names or joins its instructions.
"""

from __future__ import annotations

import dis
import functools
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, suppress
from types import CodeType, FrameType, TracebackType
from typing import Any

import numpy as np
import pytest

import dataflow as flow
from dataflow.graph.diagnostics.bytecode import (
    OPCODES,
    Use,
    asks_for_attribute,
    enclosing,
    has_statements,
    instruction_of,
    is_in_place,
    line_of,
    names_to_unpack,
    operator_of,
    raises,
    reads_item,
    variables_read,
    writes_item,
)

Note = Callable[[FrameType], None]
COLUMNS = next(iter(compile("1", "<columns>", "eval").co_positions()))[2] is not None
"""Whether this interpreter keeps them: not under `python -X no_debug_ranges`."""

# ------------------------------------------------------------------------------------------------ the table

VERSION = sys.version_info[1]
OTHER_LOADS = {
    *("LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD", "LOAD_ZERO_SUPER_ATTR"),
    *("LOAD_ZERO_SUPER_METHOD", "LOAD_SPECIAL", "LOAD_LOCALS", "LOAD_BUILD_CLASS", "LOAD_ASSERTION_ERROR"),
    *("LOAD_CONST", "LOAD_COMMON_CONSTANT", "LOAD_SMALL_INT"),
}
"""They load no variable."""


@pytest.mark.parametrize("name", OPCODES)
def test_the_table_says_which_opcodes_this_interpreter_has(name: str) -> None:
    _, since, gone = OPCODES[name]
    assert (name in dis.opmap) == (since <= VERSION and (gone is None or gone > VERSION))


def test_the_table_says_what_every_load_is() -> None:
    """An interpreter with an instruction that nobody has looked at yet fails here."""
    plain = {name for name in dis.opmap if "LOAD_" in name and not name.startswith("INSTRUMENTED_")}
    assert plain - OTHER_LOADS <= set(OPCODES)
    assert not OTHER_LOADS & set(OPCODES)


def test_no_use_is_without_an_opcode() -> None:
    assert {use for use, *_ in OPCODES.values()} == set(Use)


# ------------------------------------------------------------------------------------------------ who is watched


@contextmanager
def plain() -> Iterator[None]:
    yield


@contextmanager
def traced() -> Iterator[None]:
    def watch(*_: Any) -> Any:
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def monitored() -> Iterator[None]:
    """As coverage and debuggers do it since 3.12: every instruction is instrumented."""
    if sys.version_info < (3, 12):
        with traced():
            yield
        return
    monitoring = sys.monitoring
    monitoring.use_tool_id(4, "test")
    monitoring.set_events(4, monitoring.events.LINE | monitoring.events.INSTRUCTION | monitoring.events.BRANCH)
    try:
        yield
    finally:
        monitoring.set_events(4, 0)
        monitoring.free_tool_id(4)


WATCHED = [plain, traced, monitored]
OFTEN = 40
"""Enough for the interpreter to specialise what runs."""


class Probe:
    """Notes each frame that does something with it, and then does as a number or a list of two would."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, note: Note) -> None:
        self.note = note

    def __iter__(self) -> Iterator[int]:
        self.note(sys._getframe(1))
        return iter([1, 2])

    def __bool__(self) -> bool:
        self.note(sys._getframe(1))
        return True

    def _one(self, *_: Any) -> Any:
        self.note(sys._getframe(1))
        return 1

    __index__ = __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __matmul__ = _one
    __lshift__ = __rshift__ = __and__ = __or__ = __xor__ = __pow__ = __neg__ = _one
    __call__ = __contains__ = __lt__ = __eq__ = _one


class Rows:
    """A sequence written in Python, which some interpreters call without a call in C."""

    def __init__(self, note: Note) -> None:
        self.note = note

    def __getitem__(self, key: Any) -> int:
        self.note(sys._getframe(1))
        return 1

    def __setitem__(self, key: Any, value: Any) -> None:
        self.note(sys._getframe(1))

    def __delitem__(self, key: Any) -> None:
        self.note(sys._getframe(1))


def run(statement: str, note: Note, watched: Callable[[], Any] = plain) -> None:
    """Runs a statement of `p`, `rows`, `E` and `f` in a function, `2 * OFTEN` times: half of them watched."""
    scope: dict[str, Any] = {"f": lambda *args, **kwargs: None, "suppress": suppress}
    exec(compile(f"def body(p, rows, E):\n    {statement}", "<statement>", "exec"), scope)
    for watching in (plain, watched):
        with watching():
            for _ in range(OFTEN):
                scope["body"](Probe(note), Rows(note), [0, 1, 2, 3])


# ------------------------------------------------------------------------------------------------ items

SIGNS = ["+", "-", "*", "/", "//", "%", "@", "<<", ">>", "&", "|", "^", "**"]
ITEMS = [
    *[(f"a = {of}[{key}]", ["reads"]) for of in ("rows", "E") for key in ("p", "p:", ":p", "0:p:2")],
    *[(f"{of}[{key}] = [0]", ["writes"]) for of in ("rows", "E") for key in ("p", "p:", ":p")],
    *[(f"del {of}[{key}]", ["writes"]) for of in ("rows", "E") for key in ("p", "p:", ":p", "0:p:2")],
    ("rows[p] += 1", ["reads", "writes"]),
    ("rows[0] = rows[1] + rows['k']", ["reads", "reads", "writes"]),
    ("f(rows[0], k=rows['a', ...])", ["reads", "reads"]),
    ("f(range(p), k=range(p))", ["", ""]),
    ("E.insert(p, 0)", [""]),
    ("E.pop(*[p])", [""]),
    *[(f"a = p {sign} 2", [""]) for sign in [*SIGNS, "<", "=="]],
    *[(f"p {sign}= 2", [""]) for sign in SIGNS],
    ("a = -p", [""]),
    ("a = 1 in p", [""]),
    ("a = 1 if p else 2", [""]),
    ("p(1)", [""]),
    ("a, b = p", [""]),
    ("a = [rows[i] for i in (0, 1)]", ["reads", "reads"]),
    ("a = (lambda: rows[0])()", ["reads"]),
    ("a = {rows[0]: rows[1]}", ["reads", "reads"]),
]


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize(("statement", "wanted"), ITEMS)
def test_items_read_and_written(statement: str, wanted: list[str], watched: Callable[[], Any]) -> None:
    seen: list[str] = []

    def note(frame: FrameType) -> None:
        at = frame.f_code, frame.f_lasti
        seen.append("reads" * reads_item(*at) + "writes" * writes_item(*at))

    run(statement, note, watched)
    assert seen == wanted * 2 * OFTEN


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("sign", SIGNS)
def test_augmented_assignments(sign: str, watched: Callable[[], Any]) -> None:
    for statement, wanted in [
        (f"p {sign}= 2", [True]),
        (f"E = [p]; E[0] {sign}= 2", [True]),
        (f"f.p = p; f.p {sign}= 2", [True]),
        (f"a = p {sign} 2", [False]),
        (f"a = [p {sign} 2]", [False]),
        ("p(1)", [False]),
        ("a = p < 2", [False]),
        ("a = -p", [False]),
    ]:
        seen: list[bool] = []
        run(statement, lambda frame, seen=seen: seen.append(is_in_place(frame.f_code, frame.f_lasti)), watched)  # type: ignore[misc]
        assert seen == wanted * 2 * OFTEN


OPERATORS = {
    **dict(zip(SIGNS, ["add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "lshift", "rshift"])),
    **dict(zip(["&", "|", "^", "**", "<", "=="], ["and_", "or_", "xor", "pow", "lt", "eq"])),
}


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("sign", OPERATORS)
def test_operators(sign: str, watched: Callable[[], Any]) -> None:
    for statement, wanted in [
        (f"a = p {sign} 2", [OPERATORS[sign]]),
        (f"f(p {sign} 2, k=[p {sign} 3])", [OPERATORS[sign]] * 2),
        (f"a = 1 if p {sign} 2 else 3", [OPERATORS[sign]]),
        *([(f"p {sign}= 2", [OPERATORS[sign]])] if sign in SIGNS else []),
        ("a = p(1)", [""]),
        ("a = rows[0]", [""]),
        ("a = 1 in p", [""]),
        ("a = -p", [""]),
        ("a, b = p", [""]),
    ]:
        seen: list[str] = []
        note = lambda frame, seen=seen: seen.append(operator_of(frame.f_code, frame.f_lasti))
        run(statement, note, watched)
        assert seen == wanted * 2 * OFTEN


class Named:
    """Notes who asks for an attribute that it has not."""

    def __init__(self, note: Note) -> None:
        self.note = note

    def __getattr__(self, name: str) -> int:
        self.note(sys._getframe(1))
        return 1


ATTRIBUTES = [
    ("a = p.name", [False]),
    ("p.name.real", [False]),
    ("f(p.name, k=p.other)", [False, False]),
    ("a = getattr(p, 'name')", [False]),
    ("a = getattr(p, 'name', None)", [True]),
    ("a = hasattr(p, 'name')", [True]),
    ("a = 1 if hasattr(p, 'name') else 2", [True]),
    ("a = p.name if hasattr(p, 'name') else 2", [True, False]),
    ("ask = hasattr; ask(p, 'name')", [True]),
    ("a = list(map(hasattr, [p, p], ['k', 'l']))", [True, True]),
    ("a = any(hasattr(p, name) for name in ('k',))", [True]),
    ("a = [hasattr(q, 'name') for q in (p, p)]", [True, True]),
    ("a = (lambda q: hasattr(q, 'name'))(p)", [True]),
    ("a = getattr(*[p, 'name'])", [False]),
    ("import operator; operator.attrgetter('name')(p)", [False]),
    ("p.__getattr__('name')", [False]),
]


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize(("statement", "wanted"), ATTRIBUTES)
def test_who_asks_for_an_attribute(statement: str, wanted: list[bool], watched: Callable[[], Any]) -> None:
    seen: list[bool] = []
    scope: dict[str, Any] = {"f": lambda *args, **kwargs: None}
    exec(compile(f"def body(p):\n    {statement}", "<statement>", "exec"), scope)
    for watching in (plain, watched):
        with watching():
            for _ in range(OFTEN):
                scope["body"](Named(lambda frame: seen.append(asks_for_attribute(frame))))
    assert seen == wanted * 2 * OFTEN


# ------------------------------------------------------------------------------------------------ statements around

STATEMENTS = """
def body(x, lock):
    with lock:
        x.w3
    try:
        x.t5
        x.t5
    except ValueError as e:
        x.t5
        try: x.t10_t5
        finally: x.t5
    else:
        x.t5
    finally:
        x.none
    with lock as a, open("b") as b:
        x.w16
        try:
            with lock:
                x.w19_t18_w16
            x.t18_w16
        except:
            pass
    for i in x.none:
        with lock:
            if x.w25: break
            continue
    try:
        for i in y:
            try:
                with lock:
                    x.w31_t30_t28
            except KeyError: pass
    finally:
        pass
    with (x.none
       + 1
    ):
        x.w36
    try: x.t40
    except KeyError: pass
    try:
        try:
            x.t43_t42
        except KeyError: pass
    except ValueError: pass
    if x.none: pass
    try:
        x.t48
        x.t48
    except* KeyError: pass
    while x.none:
        with lock:
            return x.w53
    match x.none:
        case 1:
            with lock: x.w57
    def inner():
        x.none
    with lock: inner = lambda: 1
    return [i.none for i in y]
"""


@pytest.mark.parametrize("padding", [0, 300])
def test_the_statements_around_an_instruction(padding: int) -> None:
    """Also behind so much code that the table of exceptions needs longer numbers."""
    before = "".join(f"    x.a{i} = x.b{i} + {i}\n" for i in range(padding))
    source = STATEMENTS.replace("    with lock:\n        x.w3", f"{before}    with lock:\n        x.w3")
    scope: dict[str, Any] = {}
    exec(compile(source, "<statements>", "exec"), scope)
    code, seen = scope["body"].__code__, 0
    for each in dis.get_instructions(code):
        if isinstance(each.argval, str) and re.fullmatch(r"none|[wt]\d+(_[wt]\d+)*", each.argval):
            wanted = [] if each.argval == "none" else each.argval.split("_")
            got = [f"{around.name[0]}{around.line - padding}" for around in enclosing(code, each.offset)]
            assert list(dict.fromkeys(got)) == wanted, each.argval
            seen += 1
    assert seen >= 23
    assert has_statements(code)


@pytest.mark.parametrize(
    "source",
    ["return x", "return [i for i in x]", "for i in x: pass", "yield x", "return {i: [j for j in i] for i in x}"],
)
def test_the_compilers_own_handlers_are_no_statements(source: str) -> None:
    scope: dict[str, Any] = {}
    exec(compile(f"def body(x):\n    {source}", "<own>", "exec"), scope)
    code = scope["body"].__code__
    assert not has_statements(code)
    assert [enclosing(code, lasti) for lasti in range(0, len(code.co_code), 2)].count([]) == len(code.co_code) // 2


# ------------------------------------------------------------------------------------------------ unpacking

UNPACKED: list[tuple[str, list[int | None]]] = [
    ("a, b = p", [2]),
    ("[a, b] = p", [2]),
    ("a, E[0] = p", [2]),
    ("(a, b), c = p, 1", [2]),
    ("a, b = c, d = p", [2, 2]),
    ("for a, b in [p, p]: pass", [2, 2]),
    ("c = [a for a, b in [p]]", [2]),
    ("c = list(a for a, b in [p])", [2]),
    ("c = [[a for a, b in [q]] for q in [p]]", [2]),
    ("c = (lambda q: [a for a, b in [q]])(p)", [2]),
    ("class A: a, b = p", [2]),
    ("a, *b = p", [None]),
    ("for a in p: pass", [None]),
    ("c = [a for a in p]", [None]),
    ("c = [*p]", [None]),
    ("c = {*p}", [None]),
    ("f(*p)", [None]),
    ("list(p)", [None]),
    ("p.__iter__()", [None]),
    ("iter(p)", [None]),
    ("E[:2] = p", [None]),
    ("a, b = list(p)", [None]),
    ("a, b = tuple(p)", [None]),
]


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize(("statement", "wanted"), UNPACKED)
def test_how_many_names_are_unpacked_into(statement: str, wanted: list[int | None], watched: Callable[[], Any]) -> None:
    seen: list[int | None] = []
    run(statement, lambda frame: seen.append(names_to_unpack(frame)), watched)
    assert seen == wanted * 2 * OFTEN


def test_no_frame_unpacks_nothing() -> None:
    assert names_to_unpack(None) is None


@pytest.mark.parametrize("count", [1, 2, 16, 255, 256, 257, 300, 70_000])
def test_any_number_of_names(count: int) -> None:
    names = ", ".join(f"a{i}" for i in range(count))
    scope: dict[str, Any] = {}
    exec(f"def body(x):\n    [{names}] = x\n    return a{count - 1}, a0", scope)
    assert flow.pipeline(scope["body"]).debug(list(range(count))) == (count - 1, 0)


# ------------------------------------------------------------------------------------------------ what raised


def failing(source: str, **scope: Any) -> tuple[CodeType, int]:
    """The innermost instruction of this source that an exception came by, when it has been run often."""
    code = compile(source, "<failing>", "exec")
    traceback: TracebackType | None = None
    for _ in range(OFTEN):
        try:
            exec(code, scope)
        except Exception as error:
            traceback = error.__traceback__
        else:
            raise AssertionError(f"nothing failed in {source}")
    entries = []
    while traceback is not None:
        entries.append((traceback.tb_frame.f_code, traceback.tb_lasti))
        traceback = traceback.tb_next
    return [entry for entry in entries if entry[0].co_filename == "<failing>"][-1]


def boom(*_: Any, **__: Any) -> None:
    raise ValueError


RAISED = [
    ("raise KeyError", True),
    ("raise KeyError from ValueError()", True),
    ("assert not E, 'text'", True),
    ("try: int('x')\nexcept ValueError as e: raise KeyError from e", True),
    ("if E:\n    for a in E: raise ValueError(a)", True),
    ("[a for a in E if (_ for _ in ()).throw(KeyError)]", False),
    ("int('x')", False),
    ("boom()", False),
    ("boom(*E, k=1)", False),
    ("boom(k=1)", False),
    ("1 / 0", False),
    ("E[10]", False),
    ("unknown", False),
    ("E.unknown", False),
    ("a, b = 1", False),
    ("for a in 1: pass", False),
    ("import unknown_module", False),
    ("with E: pass", False),
    ("try: boom()\nexcept ValueError: raise", False),
    ("try: int('x')\nexcept KeyError: pass", False),
    ("try: int('x')\nfinally: len(E)", False),
    ("try: boom()\nexcept* KeyError: pass", False),
    ("with suppress(KeyError): boom()", False),
]


@pytest.mark.parametrize(("source", "itself"), RAISED)
@pytest.mark.parametrize("inside", ["", "def body():\n"])
def test_who_raised(source: str, itself: bool, inside: str) -> None:
    if inside:
        source = inside + "".join(f"    {line}\n" for line in source.splitlines()) + "body()"
    assert raises(*failing(source, E=[1, 2], boom=boom, suppress=suppress)) is itself


def test_any_offset_may_be_asked() -> None:
    code = compile("try: f(x[0])\nexcept KeyError as e: raise ValueError from e", "<offsets>", "exec")
    offsets = {each.offset for each in dis.get_instructions(code) if each.opname == "RAISE_VARARGS"}
    around = range(-20, len(code.co_code) + 20)
    assert {lasti for lasti in around if raises(code, lasti)} == offsets
    for lasti in around:
        name, argument = instruction_of(code, lasti)
        assert bool(name) == (lasti % 2 == 0 and 0 <= lasti < len(code.co_code))
        assert isinstance(line_of(code, lasti), int | None)
        assert isinstance(variables_read(code, lasti), tuple)
        assert not (reads_item(code, lasti) and writes_item(code, lasti))
        assert argument >= 0


def test_an_instruction_is_what_dis_says() -> None:
    """With arguments beyond 255, and with the caches behind it."""
    names = ", ".join(f"x.a{i} + y[{i}]" for i in range(400))
    code = compile(f"def body(x, y):\n    return [{names}]\n", "<wide>", "exec").co_consts[0]
    assert isinstance(code, CodeType)
    known = {each.offset: (each.opname, each.arg or 0) for each in dis.get_instructions(code)}
    last = ("", 0)
    for lasti in range(0, len(code.co_code), 2):
        last = known.get(lasti, last)
        got = instruction_of(code, lasti)
        if last[0] in ("EXTENDED_ARG", "RESUME", "RETURN_GENERATOR"):
            continue
        if known.get(lasti) is not None or code.co_code[lasti] == dis.opmap["CACHE"]:
            assert (got[0], got[1] if dis.opmap[got[0]] >= dis.HAVE_ARGUMENT else 0) == last


# ------------------------------------------------------------------------------------------------ lines, variables


def test_the_line_of_an_instruction() -> None:
    lines: list[int | None] = []
    source = "note()\nf(note(),\n  note())\nif True:\n    [note()\n     for _ in (1,)]\n"

    def note() -> None:
        frame = sys._getframe(1)
        lines.append(line_of(frame.f_code, frame.f_lasti))

    exec(compile(source, "<lines>", "exec"), {"note": note, "f": lambda *_: None})
    assert lines == [1, 2, 3, 5]


SAVED = VERSION >= 12
"""Comprehensions run in the frame of their function."""


def words(source: str) -> set[str]:
    """What may be read in a line: also what the interpreter hands from frame to frame there."""
    return {*re.findall(r"\w+", source), "__name__", ".0"}


VARIABLES: list[tuple[str, set[str]]] = [
    ("return fails()", {"fails"}),
    ("return fails(x, y)", {"fails", "x", "y"}),
    ("return x + fails(y)", {"fails", "y"}),
    ("return f(x, fails(y, z))", {"fails", "y", "z"}),
    ("return f(fails(x.real.imag), z)", {"fails", "x"}),
    ("return f(fails, x.y.z)", {"x"}),
    ("return fails('y', x)", {"fails", "x"}),
    ("return fails(x, z=y)", {"fails", "x", "y"}),
    ("return fails(*y, **z)", {"fails", "y", "z"}),
    ("return x, E[f(y)]", {"E", "f", "y"}),
    ("return x, E['a']", {"E"}),
    ("return x, E.index(f(y))", {"E", "f", "y"}),
    ("return f(x, y, fails(z))", {"fails", "z"}),
    ("return f(x, y, -E)", {"E"}),
    ("return x + -y", {"y"}),
    ("return x, E(y, z)", {"E", "y", "z"}),
    ("return f(x, y, z if fails(E) else x)", {"fails", "E"}),
    ("return f(x, y, [fails(i) for i in E])", {"fails", "i"} | ({"E"} if SAVED else set())),
    ("return f(x, y, {i: fails(i) for i in E if i})", {"fails", "i"} | ({"E"} if SAVED else set())),
    ("return f(x, y, {fails(i) for i in E if i if z})", {"fails", "i"} | ({"E", "z"} if SAVED else set())),
    ("return f(x, y, z and fails(E) or E)", {"fails", "E"}),
    ("return f(x, y, z if z else x, fails(E))", {"fails", "E"}),
    ("return f(x, y, 0 < x < fails(E))", {"fails", "E"}),
    ("return x, E(y if x else z, 1, *y)", {"E", "x", "y", "z"}),
    ("return f(x, y, f'{y} {fails(z)!r:>3}')", {"fails", "z"}),
    ("return f(x, y, (a := fails(z)))", {"fails", "z"}),
    ("return f(x, y, lambda: z, fails(z))", {"fails", "z"}),
    ("return f(x, y, [*E, fails(z)], {**z, 'a': 1})", {"fails", "z"}),
    ("E[f(y)] = x", {"E", "f", "y"}),
    ("a = y; return fails(a)", {"fails", "a"}),
    ("return z, (lambda: fails(z))()", {"fails", "z"}),
    ("return z, (lambda y: fails(y))(x)", {"fails", "y"}),
    ("return z, [fails(i) for i in E]", {"fails", "i"} | ({"E"} if SAVED else set())),
    ("return x, {fails(i): z for i in E if y}", {"fails", "i"} | ({"E", "y", "z"} if SAVED else set())),
    ("return f(y, [fails(z) for i in E])", {"fails", "z"}),
    ("return z, [[fails(j) for j in (i,)] for i in E]", {"fails", "j"} | ({"i", "E"} if SAVED else set())),
    ("return z, [fails(i, j) for i, j in [E]]", {"fails", "i", "j"} | ({"E"} if SAVED else set())),
    ("return z, list(fails(i) for i in E)", {"fails", "i"}),
    ("class A: y = fails(x)", {"fails", "x"}),
    ("class A: y = z, [fails(i) for i in E]", {"fails", "i"} | ({"E"} if SAVED else set())),
    ("class A: z = x; y = fails(z)", {"fails", "z"}),
    ("y = 1; del x; return x", {"x"}),
    ("global g; g = y; return fails(g)", {"fails", "g"}),
]


@pytest.mark.parametrize(("body", "wanted"), VARIABLES)
def test_the_variables_of_an_expression(body: str, wanted: set[str]) -> None:
    source = f"def body(x, y, z, E):\n    {body}\nbody(1, [1, 2], {{'k': 1}}, [1, 2])"
    found = variables_read(*failing(source, f=lambda *_: None, fails={}.__getitem__))
    assert len(found) == len(set(found))
    assert wanted <= set(found) <= (wanted if COLUMNS else words(body))


MODULES: list[tuple[str, set[str]]] = [
    ("fails(x)", {"fails", "x"}),
    ("f(fails(x), y)", {"fails", "x"}),
    ("f(y, [fails(i) for i in [x]])", {"fails", "i"} | ({"x"} if SAVED else set())),
    ("class A: z = y, fails(x)", {"fails", "x"}),
]


@pytest.mark.parametrize(("source", "wanted"), MODULES)
def test_the_variables_of_an_expression_of_a_module(source: str, wanted: set[str]) -> None:
    found = set(variables_read(*failing(source, x=1, y=2, f=lambda *_: None, fails={}.__getitem__)))
    assert wanted <= found <= (wanted if COLUMNS else words(source))


# ------------------------------------------------------------------------------------------------ questions of type

A = np.ones(3)


def under_another_name(x: Any) -> Any:
    check = isinstance
    return 1 if check(x, float) else 2


def matched(x: Any) -> Any:
    match x:
        case float():
            return 1
    return 2


def in_turn(x: Any) -> Any:
    """The instruction that calls numpy is the one that asks, later."""
    return [call(x, None if call is np.sum else float) for call in (np.sum, np.sum, isinstance)]


ASKED: list[Callable[[Any], Any]] = [
    lambda x: isinstance(x, float),
    lambda x: isinstance(x.T, (float, np.ndarray)),
    lambda x: isinstance(np.stack([A, x]), float),
    lambda x: [isinstance(each, float) for each in (1, x)],
    lambda x: list(map(isinstance, [x], [float])),
    lambda x: list(filter(functools.partial(isinstance, x), [float])),
    lambda x: operator.call(isinstance, x, float),
    lambda x: getattr(x, "__class__"),  # noqa: B009
    lambda x: operator.attrgetter("__class__")(x),
    lambda x: x.__class__(1),
    lambda x: x.__class__ is float,
    lambda x: isinstance(*(x, float)),
    lambda x: isinstance(x, Sized),
    lambda x: float.__subclasscheck__(x.__class__),
    lambda x: type(float).__instancecheck__(float, x),
    under_another_name,
    matched,
    in_turn,
]


@pytest.mark.parametrize("body", ASKED)
@pytest.mark.parametrize("watched", WATCHED)
def test_whoever_asks_for_the_type_is_refused(body: Callable[[Any], Any], watched: Callable[[], Any]) -> None:
    with watched(), pytest.raises(flow.TraceError, match=r"isinstance\(\) or the class of .*test_bytecode.py:\d+: "):
        flow.pipeline(body).graph()


class Kind(np.ndarray[Any, Any]):
    """numpy asks whether a placeholder is one."""


KIND = A.view(Kind)
SORTED: list[Callable[[Any], Any]] = [
    lambda x: np.stack([A, x]),
    lambda x: np.stack([KIND, x.T, x]),
    lambda x: np.stack([x, A, KIND, x.T]),
    lambda x: np.where(A, x, x.T),
    lambda x: list(map(np.dot, [A, KIND], [x, x.T])),
    lambda x: functools.partial(np.where, A)(x, x.T),
    lambda x: operator.call(np.dot, A, x),
    lambda x: [np.dot(each, x) for each in (A, KIND)],
    lambda x: functools.reduce(np.dot, [A, x, A, x]),
    lambda x: np.concatenate(*([A, x],)),
    lambda x: np.einsum("i,i", A, x),
    lambda x: np.zeros(3, like=x),
    lambda x: A + x,
]


@pytest.mark.parametrize("body", SORTED)
@pytest.mark.parametrize("watched", WATCHED)
def test_numpy_may_sort_its_arguments_by_type(body: Callable[[Any], Any], watched: Callable[[], Any]) -> None:
    for _ in range(2):
        with watched():
            graph = flow.pipeline(body).graph()
        assert len(graph)


def test_what_a_placeholder_has_can_be_listed() -> None:
    seen: list[list[str]] = []
    flow.pipeline(lambda x: (seen.append(dir(x)), x)[1]).graph()
    assert "__array_function__" in seen[0]


# ------------------------------------------------------------------------------------------------ without columns


@pytest.mark.skipif(not COLUMNS, reason="this is the run without")
def test_without_columns_all_of_this_holds() -> None:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # others would read code without columns
    command = [sys.executable, "-X", "no_debug_ranges", "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
