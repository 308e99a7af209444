"""Statements of a body that are over before anything runs: `with` and `try` around what is recorded.

    with lock:                     entered and left while the body is traced
        y = count(x)               recorded here, runs much later
    try:
        z = load(y)                recorded here; what it raises at run time, it raises into the run
        a = z[5]                   the same
    except OSError: ...
    tenant.set("a")                a context variable: runs have the context of their call
    @np.errstate(all="ignore")     of the body, or of what it calls: a `with` around it

Statements are found when the trace has ended, by the instructions that recorded nodes and the calls that led there. A
function that was met once is known by its name further on: a second call of it may stand in another statement.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from contextvars import Context, ContextVar, copy_context
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

from dataflow.errors import TraceWarning
from dataflow.graph.diagnostics import advice
from dataflow.graph.diagnostics.bytecode import (
    Around,
    Called,
    calls_by_name,
    calls_in,
    enclosing,
    has_statements,
    names_of_context,
)
from dataflow.graph.nodes import Kind, Node
from dataflow.graph.tracing.tracer import PASSED_OVER, Lines

__all__ = ["Early", "caught_at", "early", "warn", "warn_of_variables"]

_SET_BY_THEMSELVES: Final = frozenset({"decimal_context"})
"""Context variables that are set by being read."""
_DO_NOTHING: Final = frozenset({"nullcontext"})
"""Context managers of which it does not matter when they are over."""


class Early(NamedTuple):
    """A statement that is over before something that was recorded inside runs."""

    around: Around
    code: CodeType
    names: dict[str, Any]
    """The globals there."""
    recorded: str
    """What, in words."""


def early(nodes: Sequence[Node], lines: Lines) -> list[Early]:
    """All such statements around these nodes; each line once."""
    found: dict[tuple[str, int], Early] = {}
    for code, names in lines.codes.values():
        before = len(found)
        if has_statements(code):
            for lasti, recorded, is_plumbing in _recording_or_reading(code, names, nodes, lines):
                for around in enclosing(code, lasti):
                    where = code.co_filename, around.line
                    if is_plumbing and not _handles_errors(code, around):
                        continue
                    if where not in found and not _excepted(code, around, lines):
                        found[where] = Early(around, code, names, recorded)
        if len(found) == before:  # else this is said of the `try` whose `finally` sets it back
            for each in _set_back(code, names, nodes, lines):
                found.setdefault((code.co_filename, each.around.line), each)
    return [*found.values(), *(_decorated(nodes, lines) if lines.decorated else ())]


def _recording_or_reading(
    code: CodeType, names: dict[str, Any], nodes: Sequence[Node], lines: Lines
) -> Iterator[tuple[int, str, bool]]:
    """As `_recording`, and plumbing, recorded or not: then it says so."""
    yield from ((lasti, recorded, False) for lasti, recorded in _recording(code, names, nodes, lines))
    plumbing = {node.lasti: node.spec.name for node in nodes if node.code is code and node.spec.kind is Kind.PLUMBING}
    plumbing |= {lasti: name for (of, lasti), name in lines.plumbing.items() if of == id(code)}
    yield from ((lasti, repr(name), True) for lasti, name in plumbing.items())


def _handles_errors(code: CodeType, around: Around) -> bool:
    """Attributes and items of what nobody changes are the same at any time, but raise where they are evaluated."""
    return around.name == "try" or "suppress" in names_of_context(code, around)


def _decorated(nodes: Sequence[Node], lines: Lines) -> Iterator[Early]:
    """Functions that record and are decorated with a context manager."""
    recording = {id(node.code) for node in nodes if node.spec.kind is not Kind.PLUMBING} | lines.calls.keys()
    for key, (_, manager, code) in lines.decorated.items():
        if id(code) in recording and (key, 0) not in lines.entered and not isinstance(manager, nullcontext):
            name = getattr(getattr(manager, "func", manager), "__name__", type(manager).__name__)
            recorded = f"{name!r} of {code.co_name}"
            yield Early(Around(code.co_firstlineno, "decorator", 0, 0), code, lines.codes[id(code)][1], recorded)


def _set_back(code: CodeType, names: dict[str, Any], nodes: Sequence[Node], lines: Lines) -> Iterator[Early]:
    """Context variables that are set before something is recorded, and set back after it."""
    if not {"set", "reset"}.issubset(code.co_names):
        return
    calls = [(each, _variable(each, names)) for each in calls_in(code)]
    calls = [(each, variable) for each, variable in calls if variable is not None]
    for each, variable in calls:
        last = max((back.lasti for back, of in calls if of is variable and back.names[-1] == "reset"), default=-1)
        for lasti, recorded in _recording(code, names, nodes, lines):
            if each.names[-1] == "set" and each.lasti < lasti < last:
                what = f"{variable.name!r} only until {recorded} is recorded, and has set it back before that"
                yield Early(Around(each.line, "reset", each.lasti, lasti), code, names, what)
                break


def _variable(called: Called, names: dict[str, Any]) -> Any:
    """The context variable of which this is a method; None for other calls."""
    if called.is_local or called.names[-1] not in ("set", "reset"):
        return None
    first, *others = called.names[:-1] or ("",)
    found = names.get(first)
    for name in others:
        found = inspect.getattr_static(found, name, None)
    return found if type(found) is ContextVar else None


def _recording(code: CodeType, names: dict[str, Any], nodes: Sequence[Node], lines: Lines) -> Iterator[tuple[int, str]]:
    """The instructions of a code object that record more than plumbing, or may call what does, and what."""
    latest = {node.lasti: node for node in nodes if node.code is code and node.spec.kind is not Kind.PLUMBING}
    yield from ((lasti, repr(node.spec.name)) for lasti, node in latest.items())
    yield from ((lasti, "what is recorded inside") for lasti in lines.calls.get(id(code), ()))
    met = [each for each, _ in lines.codes.values() if each is not code]
    for lasti, name, of_object in calls_by_name(code):
        called = names.get(name)
        if any(each.co_name == name and _is_called(each, called, of_object) for each in met):
            yield lasti, f"what {name} records"


def _is_called(code: CodeType, called: Any, of_object: bool) -> bool:
    """Whether what was loaded by the name of a code object is likely the function with this code."""
    if isinstance(called, FunctionType) and not of_object:
        return called.__code__ is code
    return code.co_varnames[:1] == ("self",) if of_object else called is None


def _excepted(code: CodeType, around: Around, lines: Lines) -> bool:
    if around.name != "with":
        return False
    return (id(code), around.entered) in lines.entered or not _DO_NOTHING.isdisjoint(names_of_context(code, around))


def warn(found: Sequence[Early], name: str) -> None:
    """Say so of each, at its line."""
    for around, code, names, recorded in found:
        what, remedy = advice.EARLY[around.name]
        _warn(what.format(recorded=recorded, name=name), remedy, code.co_filename, around.line, names)


def warn_of_variables(body: Callable[..., Any], before: Context, name: str) -> None:
    """Say so of the context variables that the body has set, at the line where it begins."""
    after = copy_context()
    changed = [var for var, value in after.items() if value is not before.get(var, before)]
    changed = [var for var in changed if var.name not in _SET_BY_THEMSELVES]
    function = inspect.unwrap(body)
    if changed and isinstance(function, FunctionType):
        code, (what, remedy) = function.__code__, advice.EARLY["set"]
        what = what.format(recorded=", ".join(repr(var.name) for var in changed), name=name)
        _warn(what, remedy, code.co_filename, code.co_firstlineno, function.__globals__)


def _warn(what: str, remedy: str, file: str, line: int, names: dict[str, Any]) -> None:
    message, registry = f"{what}, at {file}:{line}: {remedy}", names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(TraceWarning(message), None, file, line, names.get("__name__"), registry)


def caught_at(instructions: Sequence[tuple[CodeType, int]]) -> str:
    """The user's `try`, or `with`, that caught what these instructions led to, `file:line`; empty for a library's."""
    for code, lasti in instructions:
        for around in enclosing(code, lasti):
            return "" if PASSED_OVER[code.co_filename] else f"{code.co_filename}:{around.line}"
    return ""
