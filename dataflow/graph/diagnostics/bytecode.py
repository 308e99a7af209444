"""What the interpreter's bytecode says of a user's instruction; no other module reads bytecode.

    a, b = node            names_to_unpack    2
    E[ids]                 reads_item
    y[mask] = 0            writes_item
    np.zeros(x.shape)      variables_read     np, x
    h += g                 is_in_place
    W * node               operator_of
    "text" % node          formats_nothing
    np.random.rand(3)      calls_in           np, random, rand
    raise error            raises
    f(node, 2)             span_of_call
    isinstance(node, T)    asks_for_type
    hasattr(node, name)    asks_for_attribute
    ascii(node)            asks_for_ascii
    f(*node)               unpacks_into_call
    f(**node), {**node}    unpacks_mapping
    operator.concat(a, b)  names_in_call
    with lock: f(node)     has_statements, enclosing, names_of_context, calls_by_name

An instruction is a code object and an offset into it, `lasti`, as frames, tracebacks and nodes keep them. What is read
there holds on every Python from 3.11 on, for four reasons:

1. `co_code` is the code as it was compiled: without the interpreter's specialisations, and without what debuggers,
   coverage and `sys.monitoring` have put there.
2. `lasti` may lie behind the instruction, in one of its caches: Python 3.11 and 3.12 leave a caller there while a
   function of Python runs that they have called without a call in C.
3. The upper bytes of a large argument stand before the instruction, as EXTENDED_ARG.
4. Where an instruction is in the source may be unknown: `python -X no_debug_ranges` keeps its line only.

What differs from version to version stands in `OPCODES`. Sources: CPython's `Python/bytecodes.c`, and the documentation
of `dis`.
"""

from __future__ import annotations

import dis
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from functools import lru_cache
from itertools import islice
from types import CodeType, FrameType
from typing import Final, NamedTuple

__all__ = [
    "ASKS",
    "CALLS",
    "LOADS_ATTRIBUTE",
    "OPCODES",
    "Around",
    "Called",
    "Use",
    "asks_for_ascii",
    "asks_for_attribute",
    "asks_for_type",
    "calls_by_name",
    "calls_in",
    "enclosing",
    "formats_nothing",
    "has_statements",
    "instruction_at",
    "instruction_of",
    "is_in_place",
    "line_of",
    "matches_length",
    "names_bound",
    "names_in",
    "names_in_call",
    "names_of_context",
    "names_to_unpack",
    "operator_of",
    "place_of",
    "raises",
    "reads_item",
    "span_of_call",
    "unpacks_into_call",
    "unpacks_mapping",
    "variables_read",
    "writes_item",
]

# ------------------------------------------------------------------------------------------------ what differs


class Use(Enum):
    """What an instruction is looked for."""

    ENCODING = auto()
    """A part of the instruction that comes before or after it."""
    UNPACKS = auto()
    RAISES = auto()
    COMPARES = auto()
    CALLS = auto()
    """Its argument is how many arguments there are; but of CALL_FUNCTION_EX."""
    ASKS_LENGTH = auto()
    """Of what is matched against a sequence."""
    LOADS_ATTRIBUTE = auto()
    """Also of what is called at once: then its argument is odd, or it is LOAD_METHOD."""
    HANDLES = auto()
    """At the beginning of what a `with` or a `try` does about an exception; the compiler's own handlers have none."""
    EXITS = auto()
    """Behind that, in a `with`."""
    FILLS = auto()
    """An instruction that does nothing, but stands for a line, or for what did not happen."""
    READS_ITEM = auto()
    """BINARY_OP only if its argument says so, which else is an operator."""
    WRITES_ITEM = auto()
    """Or deletes it."""
    READS_VARIABLE = auto()
    """Its names are one, or two where the compiler joins instructions."""
    BINDS_OUTER = auto()
    """A variable that is not the function's own, or that functions in it share."""
    MARKS_CALL = auto()
    """Beside what is called."""
    UNPACKS_MAPPING = auto()
    SHOWS = auto()
    """In an f-string; its argument says how, in the lowest bits."""
    SAVES_VARIABLE = auto()
    """At the beginning of a comprehension that runs in its function's frame: the variable is the comprehension's until
    its end, also if the end is an exception."""


OPCODES: Final[Mapping[str, tuple[Use, int, int | None]]] = {
    # The first Python 3.x that has it, and the first that has it no more.
    "CACHE": (Use.ENCODING, 11, None),
    "EXTENDED_ARG": (Use.ENCODING, 11, None),
    "UNPACK_SEQUENCE": (Use.UNPACKS, 11, None),
    "RAISE_VARARGS": (Use.RAISES, 11, None),
    "COMPARE_OP": (Use.COMPARES, 11, None),
    "PRECALL": (Use.CALLS, 11, 12),  # which calls what is written in C by itself
    "CALL": (Use.CALLS, 11, None),
    "CALL_KW": (Use.CALLS, 13, None),
    "CALL_FUNCTION_EX": (Use.CALLS, 11, None),
    "DICT_MERGE": (Use.UNPACKS_MAPPING, 11, None),
    "DICT_UPDATE": (Use.UNPACKS_MAPPING, 11, None),
    "GET_LEN": (Use.ASKS_LENGTH, 11, None),
    "LOAD_ATTR": (Use.LOADS_ATTRIBUTE, 11, None),
    "LOAD_METHOD": (Use.LOADS_ATTRIBUTE, 11, 14),  # since 3.12, the compiler turns it into LOAD_ATTR
    "BINARY_SUBSCR": (Use.READS_ITEM, 11, 14),
    "BINARY_OP": (Use.READS_ITEM, 11, None),  # since 3.14, with the argument SUBSCRIPT
    "BINARY_SLICE": (Use.READS_ITEM, 12, None),
    "STORE_SUBSCR": (Use.WRITES_ITEM, 11, None),
    "STORE_SLICE": (Use.WRITES_ITEM, 12, None),
    "DELETE_SUBSCR": (Use.WRITES_ITEM, 11, None),
    "LOAD_NAME": (Use.READS_VARIABLE, 11, None),
    "LOAD_GLOBAL": (Use.READS_VARIABLE, 11, None),
    "LOAD_FAST": (Use.READS_VARIABLE, 11, None),
    "LOAD_FAST_CHECK": (Use.READS_VARIABLE, 12, None),
    "LOAD_FAST_LOAD_FAST": (Use.READS_VARIABLE, 13, None),
    "LOAD_FAST_BORROW": (Use.READS_VARIABLE, 14, None),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": (Use.READS_VARIABLE, 14, None),
    "STORE_FAST_LOAD_FAST": (Use.READS_VARIABLE, 13, None),
    "LOAD_DEREF": (Use.READS_VARIABLE, 11, None),
    "LOAD_CLOSURE": (Use.READS_VARIABLE, 11, None),  # since 3.13, the compiler turns it into LOAD_FAST
    "LOAD_CLASSDEREF": (Use.READS_VARIABLE, 11, 12),
    "LOAD_FROM_DICT_OR_DEREF": (Use.READS_VARIABLE, 12, None),
    "LOAD_FROM_DICT_OR_GLOBALS": (Use.READS_VARIABLE, 12, None),
    "STORE_GLOBAL": (Use.BINDS_OUTER, 11, None),
    "STORE_DEREF": (Use.BINDS_OUTER, 11, None),
    "PUSH_NULL": (Use.MARKS_CALL, 11, None),
    "FORMAT_VALUE": (Use.SHOWS, 11, 13),
    "CONVERT_VALUE": (Use.SHOWS, 13, None),
    "LOAD_FAST_AND_CLEAR": (Use.SAVES_VARIABLE, 12, None),
    "PUSH_EXC_INFO": (Use.HANDLES, 11, None),
    "WITH_EXCEPT_START": (Use.EXITS, 11, None),
    "NOP": (Use.FILLS, 11, None),
    "NOT_TAKEN": (Use.FILLS, 14, None),
}

SUBSCRIPT: Final = 26
"""The argument with which BINARY_OP reads an item (CPython's NB_SUBSCR); before 3.14 no operator had it."""
IN_PLACE: Final = range(13, 26)
"""The arguments with which BINARY_OP is an augmented assignment (CPython's NB_INPLACE_ADD to NB_INPLACE_XOR)."""
_OPERATORS: Final = (
    *("add", "and_", "floordiv", "lshift", "matmul", "mul", "mod", "or_", "pow", "rshift", "sub", "truediv", "xor"),
)
"""What BINARY_OP does by its argument (NB_ADD to NB_XOR); thirteen further on, in place."""
_FORMATS: Final = (_OPERATORS.index("mod"), _OPERATORS.index("mod") + 13)
_NO_PART: Final = ("EXTENDED_ARG", "NOP", "PUSH_NULL")
_COMPARE_SHIFT: Final = 0 if sys.version_info < (3, 12) else 4 if sys.version_info < (3, 13) else 5
"""Where the argument of COMPARE_OP says which comparison it is."""
_COMPARISONS: Final = {"<": "lt", "<=": "le", "==": "eq", "!=": "ne", ">": "gt", ">=": "ge"}


def _named(use: Use) -> frozenset[str]:
    return frozenset(name for name, (used, *_) in OPCODES.items() if used is use)


_READS_ITEM: Final = _named(Use.READS_ITEM)
_WRITES_ITEM: Final = _named(Use.WRITES_ITEM)
_READS_VARIABLE: Final = _named(Use.READS_VARIABLE)
_SAVES_VARIABLE: Final = _named(Use.SAVES_VARIABLE)
_CALLS: Final = _named(Use.CALLS)
_LOADS_ATTRIBUTE: Final = _named(Use.LOADS_ATTRIBUTE)
LOADS_ATTRIBUTE: Final = frozenset(dis.opmap[name] for name in _LOADS_ATTRIBUTE if name in dis.opmap)
"""The opcodes of `x.name`."""
_MARKS_CALL: Final = _named(Use.MARKS_CALL)
_BINDS_OUTER: Final = _named(Use.BINDS_OUTER)
_BINDS_OUTER_CODES: Final = frozenset(dis.opmap[name] for name in _BINDS_OUTER)
(_HANDLES,) = _named(Use.HANDLES)
(_EXITS,) = _named(Use.EXITS)
_FILLS: Final = _named(Use.FILLS)
_UNPACKS_MAPPING: Final = _named(Use.UNPACKS_MAPPING)
_SHOWS: Final = _named(Use.SHOWS)
_AS_ASCII: Final = 3
"""The argument with which these are `!a` (CPython's FVC_ASCII)."""
_CACHE: Final = dis.opmap["CACHE"]
CALLS: Final = frozenset(dis.opmap[name] for name in _CALLS if name in dis.opmap)
"""The opcodes of calls. What such an instruction asks of a placeholder, a function in C does, or `hasattr`."""
ASKS: Final = CALLS | {dis.opmap[name] for name in _UNPACKS_MAPPING}
"""These, and the opcodes of `**`."""
_EXTENDED: Final = dis.opmap["EXTENDED_ARG"]
_UNPACK: Final = dis.opmap["UNPACK_SEQUENCE"]

# ------------------------------------------------------------------------------------------------ one instruction


def names_to_unpack(frame: FrameType | None) -> int | None:
    """How many names the instruction of this frame unpacks into; None if it does not unpack.

    `a, b = node` asks for an iterator while its frame executes UNPACK_SEQUENCE 2. Anything else that iterates (`for`,
    `list(node)`, `f(*node)`, `a, *b = node`) does not know beforehand how many items it will take.
    """
    if frame is None:
        return None
    units, at = frame.f_code.co_code, frame.f_lasti
    # The interpreter calls `__iter__` at the instruction itself, never behind it: there is no cache to step over.
    return _argument(units, at) if at >= 0 and units[at] == _UNPACK else None


def names_of_context(code: CodeType, around: Around) -> Iterator[str]:
    """The names in the expression that a `with` enters."""
    span = _span(code, around.entered)
    spans = list(code.co_positions())
    for each in reversed([each for each in dis.get_instructions(code) if each.offset < around.entered]):
        # Up to 3.13, the span is that of the whole statement.
        if span is None or each.opname == "BEFORE_WITH" or not _within(spans[each.offset // 2], span):
            return
        if type(each.argval) is str:
            yield each.argval


def calls_by_name(code: CodeType) -> Iterator[tuple[int, str, bool]]:
    """The names of what may be called in a code object: where each is loaded, and whether as an attribute."""
    for each in dis.get_instructions(code):
        if each.opname in _READS_VARIABLE or each.opcode in LOADS_ATTRIBUTE:
            for name in each.argval if isinstance(each.argval, tuple) else (each.argval,):
                yield each.offset, name, each.opcode in LOADS_ATTRIBUTE


def matches_length(frame: FrameType) -> bool:
    """Whether the instruction of this frame asks for a length because of `case [a, b]`."""
    return instruction_of(frame.f_code, frame.f_lasti)[0] == "GET_LEN"


def unpacks_mapping(code: CodeType, lasti: int) -> bool:
    """Whether this instruction takes all items of a mapping: `f(**a)`, or `{**a}`."""
    return instruction_of(code, lasti)[0] in _UNPACKS_MAPPING


def unpacks_into_call(code: CodeType, lasti: int) -> bool:
    """Whether this instruction is `f(*a)`: it makes a tuple of what it is given, and calls."""
    return instruction_of(code, lasti)[0] == "CALL_FUNCTION_EX"


def raises(code: CodeType, lasti: int) -> bool:
    """Whether this instruction raises by itself (`raise`, `assert`), rather than calls something that raised."""
    return instruction_of(code, lasti)[0] == "RAISE_VARARGS"


def reads_item(code: CodeType, lasti: int) -> bool:
    """Whether this instruction is `a[b]`, to be read."""
    name, argument = instruction_of(code, lasti)
    return name in _READS_ITEM and (name != "BINARY_OP" or argument == SUBSCRIPT)


def writes_item(code: CodeType, lasti: int) -> bool:
    """Whether this instruction assigns to `a[b]`, or deletes it."""
    return instruction_of(code, lasti)[0] in _WRITES_ITEM


def is_in_place(code: CodeType, lasti: int) -> bool:
    """Whether this instruction is the operator of an augmented assignment, `a += b`."""
    name, argument = instruction_of(code, lasti)
    return name == "BINARY_OP" and argument in IN_PLACE


def operator_of(code: CodeType, lasti: int) -> str:
    """The operator with two operands that this instruction is, as the module `operator` calls it; empty for others.

    Of an augmented assignment it is the plain one.
    """
    name, argument = instruction_of(code, lasti)
    if name == "COMPARE_OP":
        return _COMPARISONS[dis.cmp_op[argument >> _COMPARE_SHIFT]]
    return _OPERATORS[argument % 13] if name == "BINARY_OP" and argument < IN_PLACE.stop else ""


def instruction_of(code: CodeType, lasti: int) -> tuple[str, int]:
    """The name and the argument of the instruction at `lasti`; ("", 0) if `lasti` is none of this code's offsets."""
    units = code.co_code  # the interpreter makes it once a code object
    if lasti % 2 or not 0 <= lasti < len(units):
        return "", 0
    lasti = instruction_at(code, lasti)
    return dis.opname[units[lasti]], _argument(units, lasti)


@lru_cache(maxsize=64)
def formats_nothing(code: CodeType) -> int | None:
    """The line of a `%` with a text on its left that has no place for what is on its right; None if there is none.

    It raises for most values, and gives the text for arrays, lists and dicts: so it would for every placeholder.
    """
    texts = [text for text in code.co_consts if isinstance(text, (str, bytes)) and not _has_place(text)]
    if not texts:
        return None
    spans = list(code.co_positions())
    instructions = [each for each in dis.get_instructions(code) if each.opname not in _NO_PART]
    for place, each in enumerate(instructions):
        span = spans[each.offset // 2]
        if each.opname != "BINARY_OP" or each.arg not in _FORMATS or span[2] is None:
            continue
        inside = [part for part in instructions[:place] if _within(spans[part.offset // 2], span)]
        # The left operand is evaluated first; it is a constant if what comes next is about another place.
        if len(inside) > 1 and inside[0].opname.startswith("LOAD_CONST") and inside[0].argval in texts:
            text, after = spans[inside[0].offset // 2], spans[inside[1].offset // 2]
            if not _within(text, after):
                return span[0]
    return None


def _has_place(text: str | bytes) -> bool:
    percent, escaped = ("%", "%%") if isinstance(text, str) else (b"%", b"%%")
    return percent in text.replace(escaped, escaped[:0])  # type: ignore[operator, arg-type]


def instruction_at(code: CodeType, lasti: int) -> int:
    """The offset of the instruction at `lasti`, which may lie in one of its caches."""
    units = code.co_code
    while lasti > 0 and units[lasti] == _CACHE:
        lasti -= 2
    return lasti


def _argument(units: bytes, at: int) -> int:
    argument, shift = units[at + 1], 8
    while at >= 2 and units[at - 2] == _EXTENDED:
        at -= 2
        argument |= units[at + 1] << shift
        shift += 8
    return argument


# ------------------------------------------------------------------------------------------------ the source of it

_Span = tuple[int | None, int | None, int | None, int | None]
"""First and last line, first and last column."""


@lru_cache(maxsize=1024)
def names_in(code: CodeType) -> tuple[str, ...]:
    """All names of a code, and of the functions in it: of globals, attributes, modules."""
    found = dict.fromkeys(code.co_names)
    waiting = list(code.co_consts)
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, CodeType):
            found |= dict.fromkeys(inner.co_names)
            waiting += inner.co_consts
    return tuple(found)


@lru_cache(maxsize=1024)
def names_bound(code: CodeType) -> frozenset[str]:
    """The globals and the variables of closures that a code, or a function in it, binds itself."""
    found: set[str] = set()
    if not _BINDS_OUTER_CODES.isdisjoint(code.co_code[::2]):  # few do, and it takes a while to find out which
        found = {each.argval for each in dis.get_instructions(code) if each.opname in _BINDS_OUTER}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= names_bound(inner)
    return frozenset(found)


class Called(NamedTuple):
    """A call of something that has a name."""

    names: tuple[str, ...]
    """`np.random.rand` is three."""
    is_local: bool
    """Whether the first is a variable of the function itself."""
    line: int
    bare: bool
    """Whether it is called without arguments."""
    lasti: int
    """The instruction that begins it."""


@lru_cache(maxsize=512)
def calls_in(code: CodeType) -> tuple[Called, ...]:
    """The calls that this code makes of what it finds under a name, also in comprehensions."""
    found = list(_calls(code))
    for inner in code.co_consts:
        if isinstance(inner, CodeType) and inner.co_name in _COMPREHENSIONS:
            found += [call for call in calls_in(inner) if not call.is_local]
    return tuple(found)


_COMPREHENSIONS: Final = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


def _calls(code: CodeType) -> Iterator[Called]:
    instructions = [each for each in dis.get_instructions(code) if each.opname not in ("EXTENDED_ARG", "PRECALL")]
    place = 0
    while place < len(instructions):
        first = last = instructions[place]
        before = instructions[place - 1].opname if place else ""
        place += 1
        if first.opname not in _READS_VARIABLE:
            continue
        names = [first.argval[-1] if isinstance(first.argval, tuple) else first.argval]
        while place < len(instructions) and instructions[place].opname in _LOADS_ATTRIBUTE:
            last = instructions[place]
            names.append(last.argval)
            place += 1
        after = [each.opname for each in instructions[place : place + 2]]
        marked = after[:1] and after[0] in _MARKS_CALL
        if marked or _calls_at_once(first, last) or (before in _MARKS_CALL and sys.version_info < (3, 13)):
            following = instructions[place + bool(marked)] if place + bool(marked) < len(instructions) else first
            bare = following.opname == "CALL" and following.arg == 0
            yield Called(tuple(names), "FAST" in first.opname, line_of(code, first.offset) or 0, bare, first.offset)


def _calls_at_once(first: dis.Instruction, last: dis.Instruction) -> bool:
    """Whether what is loaded is loaded to be called."""
    if last.opname == "LOAD_METHOD" or (first.opname == "LOAD_GLOBAL" and (first.arg or 0) & 1):
        return True
    return sys.version_info >= (3, 12) and last.opname == "LOAD_ATTR" and bool((last.arg or 0) & 1)


def line_of(code: CodeType, lasti: int) -> int | None:
    """The line of this instruction; None if it has none."""
    span = _span(code, lasti)
    return None if span is None else span[0]


def span_of_call(code: CodeType, lasti: int) -> tuple[int, int, int, int] | None:
    """Where a call is in the source: first and last line, first and last column, in bytes; None for all else."""
    line, end_line, column, end_column = _span(code, lasti) or (None, None, None, None)
    if instruction_of(code, lasti)[0] not in _CALLS or line is None or end_line is None:
        return None
    return None if column is None or end_column is None else (line, end_line, column, end_column)


def place_of(code: CodeType | None, lasti: int) -> str:
    """Where this instruction is, `file:line`; where its function begins if it has no line, and "?" for no code."""
    if code is None:
        return "?"
    line = line_of(code, lasti)
    return f"{code.co_filename}:{code.co_firstlineno if line is None else line}"


def variables_read(code: CodeType, lasti: int) -> tuple[str, ...]:
    """The names of the variables in the expression that this instruction evaluates, in the order of the bytecode.

    Without columns these are the variables of its line. In a comprehension that runs in its function's frame, which
    all do since 3.12, Python forgets the value of the loop's variable as soon as something raises; so a name that a
    comprehension binds brings with it the names of the whole comprehension, among them what it goes through.
    """
    span = _span(code, lasti)
    if span is None:
        return ()
    found = dict.fromkeys(_names_within(code, span, _READS_VARIABLE))
    comprehensions = [(around, name) for around, name in _names(code, _SAVES_VARIABLE) if _within(span, around)]
    for around, name in reversed(comprehensions):  # the innermost begins last
        if name in found:
            found |= dict.fromkeys(_names_within(code, around, _READS_VARIABLE))
    return tuple(found)


def names_in_call(code: CodeType, lasti: int) -> frozenset[str]:
    """The names of variables and attributes in the call that this instruction is; none for all else."""
    span = _span(code, lasti)
    if span is None or instruction_of(code, lasti)[0] not in _CALLS:
        return frozenset()
    return frozenset(_names_within(code, span, _READS_VARIABLE | _LOADS_ATTRIBUTE))


def _span(code: CodeType, lasti: int) -> _Span | None:
    # One entry for every two bytes: caches have that of their instruction.
    return next(islice(code.co_positions(), lasti // 2, None), None) if lasti >= 0 else None


def _names_within(code: CodeType, span: _Span, opcodes: frozenset[str]) -> Iterator[str]:
    return (name for at, name in _names(code, opcodes) if _within(at, span))


def _names(code: CodeType, opcodes: frozenset[str]) -> Iterator[tuple[_Span, str]]:
    """The names of the variables that these instructions are about, and where in the source."""
    spans = list(code.co_positions())
    instructions = list(dis.get_instructions(code))
    for place, each in enumerate(instructions):
        if each.opname not in opcodes:
            continue
        span = spans[each.offset // 2]
        if not isinstance(each.argval, tuple):
            yield span, each.argval
            continue
        # Two instructions joined, of which the interpreter knows only where the first is: the second is with its user.
        if not each.opname.startswith("STORE_"):
            yield span, each.argval[0]
        yield (span if span[2] is None else spans[_user(instructions, place + 1) // 2]), each.argval[1]


_PUSHES_NOTHING: Final = ("END_", "EXTENDED_ARG", "JUMP_", "LIST_APPEND", "MAP_ADD", "NO", "POP_", "SET_ADD", "STORE_")
"""How the names of instructions begin that push nothing; of those that stand in expressions."""


def _user(instructions: list[dis.Instruction], place: int) -> int:
    """The offset of the instruction that takes what is on top of the stack before the one at this place.

    It is found on a way on which loops have ended and conditions hold: an expression leaves the stack alike on all.
    """
    places = {each.offset: place for place, each in enumerate(instructions)}
    depth = 0
    while True:
        each = instructions[place]
        jumps = each.opname in ("FOR_ITER", "JUMP_FORWARD")
        depth += dis.stack_effect(each.opcode, each.arg, jump=jumps)
        pushed = 0 if each.opname.startswith(_PUSHES_NOTHING) else 1
        swapped = each.opname == "SWAP" and (each.arg or 0) > depth  # a comprehension fetches what it goes through
        if swapped or depth < pushed or place + 1 == len(instructions):
            return each.offset
        place = places[each.argval] if jumps else place + 1


def _within(inner: _Span, outer: _Span) -> bool:
    line, end_line, column, end_column = inner
    first_line, last_line, first_column, last_column = outer
    if line is None or end_line is None or first_line is None or last_line is None:
        return False
    if column is None or end_column is None or first_column is None or last_column is None:
        return line == first_line
    return (first_line, first_column) <= (line, column) and (end_line, end_column) <= (last_line, last_column)


# ------------------------------------------------------------------------------------------------ statements around


class Around(NamedTuple):
    """A `with` or a `try` around an instruction."""

    line: int
    name: str
    """"with" or "try"."""
    entered: int
    """The instruction before the block: of a `with`, the one that enters it."""
    begin: int
    """The first instruction of the block."""


def enclosing(code: CodeType, lasti: int) -> list[Around]:
    """The `with` and `try` statements in whose blocks this instruction is, the innermost first.

    Handlers (`except`, and `finally` after an exception) are no part of the block.
    """
    handlers = _handlers(code)
    found: list[Around] = []
    for target in _targets(handlers.entries, lasti):
        name = handlers.statement(target)
        if name:
            # If nothing of an outer statement is before an inner one, it is one step further back.
            nested = sum(each.begin == handlers.begin(target) for each in found)
            found.append(handlers.around(code, name, target, nested))
    return found


def has_statements(code: CodeType) -> bool:
    """Whether there is any `with` or `try` in it: the compiler has handlers of its own as well."""
    if not code.co_exceptiontable:
        return False
    handlers = _handlers(code)
    return any(handlers.statement(each.target) for each in handlers.entries)


class _Entry(NamedTuple):
    start: int
    end: int
    target: int


class _Handlers(NamedTuple):
    """Who handles the exceptions of a code object."""

    entries: list[_Entry]
    instructions: list[tuple[int, str]]
    """The offsets and names of its instructions, without caches."""

    def statement(self, target: int) -> str:
        """What has this handler; empty for the compiler's own."""
        names = [name for _, name in self.instructions[self.place(target) :][:4] if name not in _FILLS]
        if names[:1] != [_HANDLES]:
            return ""
        return "with" if names[1:2] == [_EXITS] else "try"

    def place(self, offset: int) -> int:
        """The place of the instruction at this offset."""
        return bisect_left(self.instructions, (offset, ""))

    def begin(self, target: int) -> int:
        """Where the block begins, whose inner statements have handlers of their own."""
        return min(each.start for each in self.entries if target in _targets(self.entries, each.start))

    def around(self, code: CodeType, name: str, target: int, nested: int) -> Around:
        begin = self.begin(target)
        place = self.place(begin)
        before = self.instructions[max(0, place - 1)]
        line = line_of(code, before[0] if name == "with" else begin)
        # A `try` is an instruction that does nothing, if its block does not begin on the same line.
        for offset, filling in reversed(self.instructions[max(0, place - 1 - nested) : place]):
            if name == "with" or filling not in _FILLS:
                break
            line = line_of(code, offset) or line
        return Around(line or code.co_firstlineno, name, before[0], begin)


@lru_cache(maxsize=64)
def _handlers(code: CodeType) -> _Handlers:
    units = code.co_code
    named = [(at, dis.opname[units[at]]) for at in range(0, len(units), 2) if units[at] != _CACHE]
    return _Handlers(list(_entries(code.co_exceptiontable)), named)


def _entries(table: bytes) -> Iterator[_Entry]:
    """CPython's Objects/exception_handling_notes.txt: four numbers an entry, in units of two bytes."""
    numbers: list[int] = []
    number = 0
    for byte in table:
        number = number << 6 | byte & 63
        if not byte & 64:  # the last of this number
            numbers.append(number)
            number = 0
    for start, length, target in zip(numbers[::4], numbers[1::4], numbers[2::4]):
        yield _Entry(2 * start, 2 * (start + length), 2 * target)


def _targets(entries: list[_Entry], lasti: int) -> list[int]:
    """Who handles what is raised here, who handles what that raises, and so on: from the inside out."""
    found: list[int] = []
    while True:
        target = next((each.target for each in entries if each.start <= lasti < each.end), None)
        if target is None or target in found:
            return found
        found.append(target)
        lasti = target


# ------------------------------------------------------------------------------------------------ questions

_BETWEEN: Final = frozenset({"abc", "typing", "_collections_abc"})
"""Modules that `isinstance` goes through on its way to the object."""
_ONLY_LOOK: Final = frozenset(
    {"logging", "pdb", "bdb", "pprint", "reprlib", "rlcompleter", "IPython", "_pydevd_bundle", "debugpy"}
)
"""Modules that ask for the type of what they are about to show, and go no other way because of it."""
_LEAVES_IT: Final = frozenset({("numpy.ma.core", "_delegate_binop"), ("numpy.matrixlib.defmatrix", "__mul__")})
"""Functions of operators that ask for the type of the right operand, and leave the operation to it."""


def asks_for_type(frame: FrameType | None, dispatching: tuple[CodeType, int] | None) -> bool:
    """Whether `__class__` is read to decide by it: by whoever this frame runs, or through it `isinstance`.

    All who read it do so to decide, by whatever way they came to `isinstance`, but for three: those who only show the
    object; numpy's dispatch of functions, which sorts the types of the arguments; and operators that leave what they do
    not know to the right operand. `dispatching` is the instruction that called the dispatch, if it is at work.
    """
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    if frame is not None and frame.f_code.co_name == "isscalar":
        frame = frame if frame.f_back is None or not _leaves_it(frame.f_back) else frame.f_back
    if frame is None or str(frame.f_globals.get("__name__")).partition(".")[0] in _ONLY_LOOK or _leaves_it(frame):
        return False
    return (frame.f_code, frame.f_lasti) != dispatching


def asks_for_attribute(frame: FrameType) -> bool:
    """Whether this frame calls `hasattr`, or `getattr` with a default, by whatever name: to decide by an attribute."""
    name, arguments = instruction_of(frame.f_code, frame.f_lasti)
    if name not in _CALLS or str(frame.f_globals.get("__name__")).partition(".")[0] in _ONLY_LOOK:
        return False
    local = frame.f_locals
    for variable in variables_read(frame.f_code, frame.f_lasti):
        value = local.get(variable, frame.f_globals.get(variable, frame.f_builtins.get(variable)))
        if value is hasattr or (value is getattr and arguments == 3 and name != "CALL_FUNCTION_EX"):
            return True
    return False


def asks_for_ascii(frame: FrameType) -> bool:
    """Whether this frame asks for the text that `ascii` gives, by that name, or as `!a`; it is made of the repr."""
    name, argument = instruction_of(frame.f_code, frame.f_lasti)
    if name in _SHOWS:
        return argument & _AS_ASCII == _AS_ASCII
    return "ascii" in names_in_call(frame.f_code, frame.f_lasti)


def _leaves_it(frame: FrameType) -> bool:
    return (frame.f_globals.get("__name__"), frame.f_code.co_name) in _LEAVES_IT
