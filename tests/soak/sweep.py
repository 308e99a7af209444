"""Every function, operator, method and attribute of numpy, and scipy.ndimage, on every kind of value, against plain.

    python -m tests.soak.sweep                     all of it, some minutes
    python -m tests.soak.sweep operators 10        of this group, every tenth
    python -m tests.soak.sweep functions 1 ravel   of this group, those whose line has this text

A program is one line, `r = np.add(x, a)`. Its body is run plainly and as a pipeline, on values that are made anew:

    same          the same type, bits, dtype, flags and layout, both for an operator that reads `r` and for the caller
    same error    an exception of the same type
    refused       a TraceError that names the line; or a TypeError of the run that says what to do, for methods that
                  change some kinds of values, and are harmless for others
    departure     anything else; there must be none

`r` may share memory with what the caller owns: the caller then gets a copy, which has the order of the original, but
neither its gaps nor its direction. So has what a statement like `r += a` changes.
"""

from __future__ import annotations

import asyncio
import builtins
import copy
import functools
import math
import operator
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from random import Random
from types import CodeType, FunctionType
from typing import Any

import numpy as np

import dataflow as flow
from tests.soak.calls import INTEGERS, MASK, METHODS, MODULES, MORE, SQUARE, VECTOR, calls, functions, parameters
from tests.soak.described import described
from tests.soak.kinds import KINDS

try:
    from scipy import ndimage
except ImportError:
    ndimage = None

__all__ = ["GROUPS", "Outcome", "Program", "Way", "check", "ndimage", "one_of", "sampled"]

FILE = "<sweep>"
LINES = (3, 4, 2, 1)
"""The line of a program, those that make its nodes and read its result, and that of the whole body."""


@flow.op
def seen(value: Any) -> tuple[Any, Any]:
    """What an operator sees of a value: its own layout, and that of a copy."""
    return described(value), described(value, "of a copy")


@dataclass(frozen=True, slots=True)
class Program:
    """One line that makes `r`, the nodes in it by name, and its constants."""

    line: str
    nodes: dict[str, Any]
    """What makes each: the name of a kind, or a value that is copied."""
    constants: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.line}    with nodes {self.nodes}, constants {self.constants}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program; `told` says how it departs."""

    kind: str
    told: str = ""


def made(recipe: Any) -> Any:
    """The value of this kind, new."""
    return KINDS[recipe.name]() if isinstance(recipe, Kind) else copy.deepcopy(recipe)


@dataclass(frozen=True, slots=True)
class Kind:
    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"


ALL = [Kind(name) for name in KINDS]
Kinds = Callable[..., Iterable[Any]]
"""What makes the values that a line is tried with: of all kinds, and others that are known to fit."""


def every(*more: Any) -> Iterable[Any]:
    """All of them."""
    return *more, *ALL


def one_of(seed: int) -> Kinds:
    """One at random for each line; as often one that fits as any other."""
    random = Random(seed)
    return lambda *more: [random.choice(more if more and random.random() < 0.5 else ALL)]


# ------------------------------------------------------------------------------------------------ programs

BINARY = ["+", "-", "*", "/", "//", "%", "**", "@", "<<", ">>", "&", "|", "^", "==", "!=", "<", "<=", ">", ">="]
IN_PLACE = [f"{sign}=" for sign in BINARY[:13]]
UNARY = ["-x", "+x", "~x", "abs(x)", "round(x)", "round(x, 1)", "math.floor(x)", "math.ceil(x)", "math.trunc(x)"]
INDEXING = ["x[0]", "x[-1]", "x[...]", "x[None]", "x[1:]", "x[::-1]", "x[()]", "x[0, 1]", "x[..., 0]", "x['a']"]
INDEXING += ["x[['b', 'a']]", "x[[1, 0]]", "x[x]", "x[:, None]", "x[1, ...]", "x[True]", "x[a]", "a[x]", "x[:a]"]
INDEXING += ["x[a, 0]", "x[0, a]", "a[x, 0]", "a[:x]", "a[x:]"]
STATEMENTS = [
    "r, s = x",
    "r, *s = x",
    "(r, s), t = x",
    "r = [*x]",
    "r = x, [x], {'k': x}",
    "r = {x}",
    "r = str(x)",
    "r = f'{x}'",
    "r = 'a %s' % x",
    "r = len(x)",
    "r = bool(x)",
    "r = float(x)",
    "r = int(x)",
    "r = complex(x)",
    "r = list(x)",
    "r = tuple(x)",
    "r = sorted(x)",
    "r = sum(x)",
    "r = min(x, 1)",
    "r = max(x)",
    "r = a in x",
    "r = x in [a]",
    "r = isinstance(x, np.ndarray)",
    "r = x if x else a",
    "r = x and a",
    "r = not x",
    "r = x is None",
    "r = x(a)",
    "r = range(x)",
    "r = hash(x)",
    "r = memoryview(x)",
    "r = bytes(x)",
    "r = operator.index(x)",
    "r = copy.copy(x)",
    "r = copy.deepcopy(x)",
    "r = np.array([x, a])",
    "r = np.ndarray((2,), float, x)",
    "r = np.array(x)",
    "r = np.asarray(x)",
    "r = np.asanyarray(x)",
    "r = np.ascontiguousarray(x)",
    "r = np.matrix(x)",
    "r = np.ma.array(a, mask=x)",
    "r = np.float32(x)",
    "r = np.dtype(x)",
    "r = x; r[0] = a",
    "r = a; r[0] = x",
    "r = a; r[x] = 0",
    "r = a; r[...] = x",
    "r = x; r.shape = -1",
    "r = x; r.dtype = 'i4'",
    "r = x; r.name = 1",
    "r = x; del r[0]",
    "r = a; r.flat = x",
    "r = a.copy(); r += x",
    "r = pow(x, 2, 5)",
    "r = pow(a, x)",
    "r = divmod(x, a)",
    "r = divmod(a, x)",
    "r = operator.iadd(x, a)",
    "r = math.sqrt(x)",
    "r = math.hypot(x, a)",
    "r = functools.reduce(operator.add, [x, a, x])",
]


def operators(kinds: Kinds = every) -> Iterator[Program]:
    """The operators on each kind with each: the node on the left, on the right, and both."""
    signs = [f"r = {{}} {sign} {{}}" for sign in BINARY] + [f"r = {{}}; r {sign} {{}}" for sign in IN_PLACE]
    for line in signs:
        for left in kinds():
            for right in kinds():
                yield Program(line.format("x", "a"), {"x": left}, {"a": right})
                yield Program(line.format("a", "x"), {"x": right}, {"a": left})
                yield Program(line.format("x", "y"), {"x": left, "y": right}, {})


def statements(kinds: Kinds = every) -> Iterator[Program]:
    """Unary operators, indexing and other things that are done with a value."""
    for expression in (*UNARY, *INDEXING):
        for kind in kinds():
            yield from _with_constants(f"r = {expression}", kind)
    for line in STATEMENTS:
        for kind in kinds():
            yield from _with_constants(line, kind)


def _with_constants(line: str, kind: Kind) -> Iterator[Program]:
    if "a" in names_of(line):
        for other in (
            SQUARE,
            VECTOR,
            INTEGERS,
            MASK,
            1,
            Kind("masked"),
            Kind("matrix"),
            Kind("list"),
            Kind("structured"),
        ):
            yield Program(line, {"x": kind}, {"a": other})
    else:
        yield Program(line, {"x": kind}, {})


def numpy_functions(kinds: Kinds = every) -> Iterator[Program]:
    for name, fn in functions(MODULES):
        yield from _calls_of(f"np.{name}", name, fn, kinds)


def more_of_numpy(kinds: Kinds = every) -> Iterator[Program]:
    for name, fn in functions(MORE):
        yield from _calls_of(f"np.{name}", name, fn, kinds)


def of_ndimage(kinds: Kinds = every) -> Iterator[Program]:
    if ndimage is not None:
        for name, fn in functions({"ndimage.": ndimage}):
            yield from _calls_of(name, name, fn, kinds)


def _calls_of(path: str, name: str, fn: Callable[..., Any], kinds: Kinds) -> Iterator[Program]:
    how = [p.kind for p in parameters(fn)]
    names = [p.name for p in parameters(fn)]
    for args, kwargs in calls(name, fn)[:6]:
        written = [f"a{place}" for place in range(len(args))] + [f"{key}={key}_" for key in kwargs]
        constants = {**{f"a{i}": arg for i, arg in enumerate(args)}, **{f"{k}_": v for k, v in kwargs.items()}}
        for place, (text, key) in enumerate(zip(written, constants, strict=True)):
            prefix = text.removesuffix(key)
            yield from _in_place_of(kinds, path, written, place, f"{prefix}x", key, constants)
            value = constants[key]
            if isinstance(value, (list, tuple)) and value:
                rest = ", ".join(f"{key}[{i}]" for i in range(1, len(value)))
                inside = f"[x, {rest}]" if isinstance(value, list) else f"(x, {rest})"
                yield from _in_place_of(kinds, path, written, place, prefix + inside, key, constants, value[0])
            elif isinstance(value, np.ndarray):
                yield from _in_place_of(kinds, path, written, place, f"{prefix}[x, x]", key, constants)
            if place < min(len(args), len(names)) and how[place] is how[place].POSITIONAL_OR_KEYWORD:
                named = (
                    [f"{names[i]}={text}" for i, text in enumerate(written[place : len(args)], place)]
                    if len(args) <= len(names)
                    else []
                )
                if named and all(how[i] is how[i].POSITIONAL_OR_KEYWORD for i in range(place, len(args))):
                    all_named = [*written[:place], *named, *written[len(args) :]]
                    yield from _in_place_of(kinds, path, all_named, place, f"{names[place]}=x", key, constants)
        if len(args) > 1:
            both = ", ".join(["x", "y", *written[2:]])
            rest = {key: value for key, value in constants.items() if key not in ("a0", "a1")}
            for kind in kinds():
                yield Program(f"r = {path}({both})", {"x": kind, "y": args[1]}, rest)


def _in_place_of(
    kinds: Kinds,
    path: str,
    written: list[str],
    place: int,
    text: str,
    key: str,
    constants: dict[str, Any],
    own: Any = None,
) -> Iterator[Program]:
    line = f"r = {path}({', '.join([*written[:place], text, *written[place + 1 :]])})"
    rest = {name: value for name, value in constants.items() if name != key or key in text.replace(f"{key}=", "")}
    own = constants[key] if own is None else own
    for recipe in kinds(own):
        yield Program(line, {"x": recipe}, rest)


NOT_ASKED = {
    "base": "what an array is a view of: readers get views of their own",
    "ctypes": "has the address",
    "ids": "has the address",
    "dump": "writes a file",
    "tofile": "writes a file",
    "dumps": "is told by what it pickles",
}
"""Methods and attributes that are left out, and why."""


def methods(kinds: Kinds = every) -> Iterator[Program]:
    """Methods and attributes, of numpy's own subclasses too, with the node before and behind the dot."""
    owners = (np.ndarray, np.ma.MaskedArray, np.matrix, np.recarray, np.char.chararray, np.generic)
    names = sorted({name for owner in owners for name in dir(owner) if name[:1] != "_"} - NOT_ASKED.keys())
    for name in names:
        for kind in kinds():
            yield Program(f"r = x.{name}", {"x": kind}, {})
            yield Program(f"r = x.{name}()", {"x": kind}, {})
            for args in METHODS.get(name, []):
                yield from _method(name, args, kind)


def _method(name: str, args: tuple[Any, ...], kind: Kind) -> Iterator[Program]:
    constants = {f"a{place}": arg for place, arg in enumerate(args)}
    yield Program(f"r = x.{name}({', '.join(constants)})", {"x": kind}, constants)
    for key in constants:
        written = ", ".join("x" if other == key else other for other in constants)
        rest = {other: value for other, value in constants.items() if other != key}
        target = INTEGERS if name == "choose" else SQUARE
        yield Program(f"r = a.{name}({written})", {"x": kind}, {"a": target, **rest})
        yield Program(f"r = y.{name}({written})", {"x": kind, "y": target}, rest)


def of_ufuncs(kinds: Kinds = every) -> Iterator[Program]:
    """The methods of ufuncs, and their keyword arguments."""
    for name in sorted(dir(np)):
        ufunc = getattr(np, name)
        if not isinstance(ufunc, np.ufunc) or ufunc.signature is not None:
            continue
        args = ", ".join(["x", "a"][: ufunc.nin])
        lines = [
            f"r = np.{name}({args}, {key})" for key in ("dtype='f4'", "where=a", "casting='unsafe'", "subok=False")
        ]
        lines += [f"r = np.{name}({args}, {key})" for key in ("out=a", "out=(a,)", "order='F'", "dtype=x", "where=x")]
        if ufunc.nin == 2 and ufunc.nout == 1:
            lines += [f"r = np.{name}.{call}" for call in ("reduce(x)", "reduce(x, axis=None)", "accumulate(x)")]
            lines += [f"r = np.{name}.{call}" for call in ("reduceat(x, [0, 1])", "reduceat(a, x)", "outer(x, a)")]
            lines += [
                f"r = np.{name}.{call}" for call in ("outer(a, x)", "at(x, [0], a)", "at(a, x, 1)", "at(a, [0], x)")
            ]
            lines += [
                f"r = np.{name}.{call}" for call in ("reduce(a, axis=x)", "reduce(a, initial=x)", "reduce([x, x])")
            ]
            lines += [f"r = np.{name}.{call}" for call in ("reduce(a, where=x)", "reduce(x, keepdims=True)")]
            lines += [f"r = np.{name}.{call}" for call in ("reduce(x, dtype='c8')", "accumulate(a, out=x)")]
        for line in lines:
            for kind in kinds():
                constants = {"a": VECTOR} if "a" in names_of(line) else {}
                if "where=a" in line:
                    constants = {"a": MASK}
                    line = line.replace("x, a, where", "x, x, where")
                yield Program(line, {"x": kind}, constants)


@lru_cache
def names_of(line: str) -> tuple[str, ...]:
    return compile(line, FILE, "exec").co_names


GROUPS: dict[str, Callable[[Kinds], Iterator[Program]]] = {
    "operators": operators,
    "statements": statements,
    "functions": numpy_functions,
    "more": more_of_numpy,
    "ndimage": of_ndimage,
    "methods": methods,
    "ufuncs": of_ufuncs,
}

# ------------------------------------------------------------------------------------------------ a program, both ways


class Way(Enum):
    """How a body comes to its values, and what becomes of its result."""

    GIVEN = "inputs, returned"
    MADE = "results of operators, returned"
    READ = "inputs, read only"

    @property
    def plain(self) -> str:
        """The way in which the plain body goes, which is asked for its result in any case."""
        return (Way.GIVEN if self is Way.READ else self).value


@lru_cache(maxsize=4096)
def code_of(line: str, nodes: tuple[str, ...], way: Way) -> CodeType:
    """The body of a program."""
    made_here = way is Way.MADE
    source = f"def body({'' if made_here else ', '.join(nodes)}):\n "
    source += "; ".join(f"{name} = make_{name}()" for name in nodes) if made_here else "pass"
    source += f"\n {line}\n return {'None' if way is Way.READ else 'r'}, seen(r)"
    module = compile(source, FILE, "exec")
    return next(constant for constant in module.co_consts if isinstance(constant, CodeType))


ANY = frozenset(KINDS)
TEXTS = frozenset({"text", "some bytes", "np.str_", "np.bytes_", "bytearray"})
BY_RULE = [
    (r"r = x; r \S+= |operator\.iadd\(x", {"read-only"}, "the copy that is changed can be written to"),
    (r"r \S+= (x|y|a)$|operator\.iadd", {"list in itself"}, "the copy that is changed holds the same items"),
    (r"r = a [<>=!]=? x", {"dtype"}, "recorded the other way round, so that `dtype == node.dtype` is recorded at all"),
    (r"np\.ma\.mask_(rows|cols|rowcols)\(a0, ", ANY, "the node is ignored, and the body's own constant returned"),
    (r"a\[.*x|np\.ma\.array\(a", {"None"}, "None is no node, and what the body makes of its constants is returned"),
    (r"np\.flip\(\[x", {"None"}, "the same"),
    (r"x is None|\.clip\(a0, x\)", {"None"}, "`is` asks nothing of a node"),
    (r"x\[.*None", {"matrix"}, "numpy itself makes no view of a matrix of three dimensions"),
    (r"np\.arg\w+\(.*x", {"masked record"}, "integers whose default is a record: numpy itself makes no view of them"),
    (r"\.fill_value", {kind for kind in KINDS if "masked" in kind}, "whoever asks for the default sets it"),
    (r"r = (a|'.*') % x|r = a; r %= x", TEXTS, "Python does not ask the node"),
]
"""Where a pipeline may give something else, and why: lines, and kinds of which some value is."""

KILLS = [
    (r"\.byteswap", {"StringDType", "np.bytes_", "np.void", "np.record", "np.str_"}),
    (r"np\.place", {"StringDType"}),
    (r"\.accumulate\(a, out=x\)", {"0-d"}),
    (r"np\.dstack", {"matrix", "masked square"}),
]
"""Where numpy itself ends the process, or returns memory of somebody else: lines, and kinds of a value."""


async def check(program: Program, way: Way) -> Outcome:
    """Run it plainly and as a pipeline."""
    recipes = (*program.nodes.values(), *program.constants.values())
    kinds = {recipe.name for recipe in recipes if isinstance(recipe, Kind)}
    if any(re.search(line, program.line) and among & kinds for line, among in KILLS):
        return Outcome("not asked")
    outcome = await _checked(program, way)
    if outcome.kind == "departure":
        for line, among, _ in BY_RULE:
            if re.search(line, program.line) and (among is ANY or among & kinds):
                return Outcome("by rule")
    return outcome


async def _checked(program: Program, way: Way) -> Outcome:
    scope = {"np": np, "ndimage": ndimage, "seen": seen, "math": math, "copy": copy, "operator": operator}
    scope["functools"] = functools
    for name, recipe in program.nodes.items():
        scope[f"make_{name}"] = flow.op(lambda recipe=recipe: made(recipe))
    own_code, plain_code = (code_of(program.line, tuple(program.nodes), w) for w in (way, Way(way.plain)))

    def fresh(code: CodeType) -> tuple[Any, list[Any], dict[str, Any]]:
        constants = {name: made(recipe) for name, recipe in program.constants.items()}
        inputs = [] if way is Way.MADE else [made(recipe) for recipe in program.nodes.values()]
        return FunctionType(code, {**scope, **constants, "__builtins__": builtins}, "body"), inputs, constants

    def plainly() -> tuple[Expected | None, Exception | None, Any]:
        body, inputs, constants = fresh(plain_code)
        try:
            value, told = body(*inputs)
        except Exception as error:
            return None, error, described(constants)
        shares = _shares(value, (*inputs, *constants.values()))
        return Expected(value, told, shares), None, described(constants)

    expected, raised, constants_after = plainly()
    body, inputs, constants = fresh(own_code)
    before = described((inputs, _flags(inputs))), described((constants, _flags(constants)))
    try:
        result, told = await flow.pipeline(body)(*inputs)
    except flow.TraceError as error:
        named = any(f"{FILE}:{line}" in str(error) for line in LINES)
        return Outcome("refused") if named else Outcome("departure", f"a TraceError without the line: {error}")
    except Exception as error:
        if type(error) is TypeError and "inside an op" in str(error):  # only the value could tell
            named = any(f"{FILE}:{line}" in note for line in LINES for note in error.__notes__)
            return Outcome("refused" if named else "departure", str(error))
        if type(error) is not type(raised):
            plain = repr(raised) if expected is None else _shown(expected.value)
            notes = " ".join(getattr(error, "__notes__", []))
            return Outcome("departure", f"plain {plain}, ours {error!r} {notes}")
        outcome = Outcome("same error")
    else:
        if expected is None:
            return Outcome("departure", f"plain {raised!r}, ours {_shown(result)}")
        owned = [*inputs, *constants.values()]
        outcome = _compared(expected, result, told, way, bool(IS_IN_PLACE.search(program.line)))
        if outcome.kind == "departure" and (UNWRITTEN.search(program.line) or _meaningless(plainly)):
            return Outcome("meaningless")
        if outcome.kind == "same" and _shares(_but(result, owned), owned):
            told = f"returns what shares memory with what is the caller's: {_shown(result)}"
            outcome = Outcome("departure", told)
    if described((inputs, _flags(inputs))) != before[0]:
        return Outcome("departure", "changes its input")
    if described((constants, _flags(constants))) != before[1] and described(constants) != constants_after:
        return Outcome("departure", "changes a constant")
    return outcome


@dataclass(frozen=True, slots=True)
class Expected:
    """What the plain functions give: a value, and what an operator tells of it."""

    value: Any
    told: Any
    shares: bool
    """Whether it is on memory of what the caller owns."""


def _compared(expected: Expected, result: Any, told: Any, way: Way, in_place: bool) -> Outcome:
    value = expected.value
    of_a_copy = in_place or (way is not Way.READ and (expected.shares or _is_locked(value)))
    if told[of_a_copy] != expected.told[of_a_copy]:
        difference = _difference(expected.told[of_a_copy], told[of_a_copy])
        return Outcome("departure", f"an operator sees {difference} of {_shown(value)}")
    if way is Way.READ:
        return Outcome("same")
    got, wanted = seen(result)[of_a_copy], seen(value)[of_a_copy]
    if got != wanted:
        return Outcome("departure", f"returns {_difference(wanted, got)} of {_shown(value)}")
    for array, plain in zip(_arrays(result), _arrays(value), strict=True):
        if not array.flags.writeable and plain.flags.writeable and not _repeats(array):
            return Outcome("departure", f"returns what is read-only: {_shown(result)}")
    return Outcome("same")


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # numpy's own trouble
        return f"<{type(value).__name__}: {error}>"


def _is_locked(value: Any) -> bool:
    """Whether it is read-only, which a copy is not."""
    return not all(array.flags.writeable for array in _arrays(value))


def _repeats(array: np.ndarray[Any, Any]) -> bool:
    return any(stride == 0 and length > 1 for stride, length in zip(array.strides, array.shape))


def _but(result: Any, owned: list[Any]) -> list[Any]:
    """The arrays of a result; but an input or a constant that is returned is that very object."""
    own = {id(array) for array in _arrays(owned)}
    return [array for array in _arrays(result) if id(array) not in own]


UNWRITTEN = re.compile(r"np\.(empty|[a-z_0-9]+\(.*where=)")
"""What returns memory that nobody has written to; where memory comes from malloc, asking for it again may not tell."""

IS_IN_PLACE = re.compile(r"; r \S+= |operator\.i[a-z]")
"""Statements that change a copy."""


def _difference(wanted: Any, got: Any) -> str:
    if isinstance(wanted, (tuple, list)) and isinstance(got, (tuple, list)) and len(wanted) == len(got):
        return ", ".join(_difference(a, b) for a, b in zip(wanted, got, strict=True) if a != b)
    return f"{got!r} for {wanted!r}"


def _arrays(value: Any, depth: int = 4) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, np.ma.MaskedArray) and value.mask is not np.ma.nomask and value is not np.ma.masked:
        yield value.mask
    if isinstance(value, np.ndarray):
        yield value
    elif depth and isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _arrays(item, depth - 1)


def _flags(value: Any) -> list[bool]:
    items = value.values() if isinstance(value, dict) else value
    return [array.flags.writeable for item in items for array in _arrays(item)]


def _shares(result: Any, owned: Iterable[Any]) -> bool:
    theirs = [array for value in owned for array in _arrays(value) if array is not np.ma.masked]
    theirs += [np.asarray(value) for value in owned if isinstance(value, memoryview)]
    return any(np.may_share_memory(a, b) for a in _arrays(result) for b in theirs)


def _meaningless(plainly: Callable[[], Any]) -> bool:
    """Whether the plain function returns memory that nobody has written to."""
    told = []
    for byte in (0x11, 0x77):
        kept = [np.full(size, byte, np.uint8) for size in range(1, 1025) for _ in range(3)]
        del kept
        told.append(plainly()[0].told)
    return bool(told[0] != told[1])


def sampled(programs: Iterable[Program], share: int, seed: int) -> Iterator[Program]:
    """One in `share` of them."""
    random = Random(seed)
    return (program for program in programs if random.random() * share < 1)


async def _main(arguments: list[str]) -> int:
    groups = [arguments[0]] if arguments and arguments[0] != "all" else list(GROUPS)
    share = int(arguments[1]) if len(arguments) > 1 else 1
    text = arguments[2] if len(arguments) > 2 else ""
    total: Counter[str] = Counter()
    ways = list(Way)
    for group in groups:
        counts: Counter[str] = Counter()
        for program in sampled(GROUPS[group](every), share, seed=1):
            if text not in program.line:
                continue
            way = ways[sum(counts.values()) % len(ways)]
            outcome = await check(program, way)
            counts[outcome.kind] += 1
            if outcome.kind == "departure":
                print(f"{way.name}: {program!r}\n    {outcome.told}", flush=True)
        print(f"{group}: {dict(counts)}", flush=True)
        total += counts
    print(f"all: {dict(total)} on Python {sys.version.split()[0]}, numpy {np.__version__}")
    return 1 if total["departure"] else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with np.errstate(all="ignore"):
        sys.exit(asyncio.run(_main(sys.argv[1:])))
