"""Whether it was a placeholder that made numpy or Python raise: then the user is told where, as for any refusal.

    np.zeros(x.shape)       TypeError in C, called from the user's line; that line loads `x`, a placeholder
    np.quantile(…, x)       ValueError in numpy's Python, in a frame whose locals hold a placeholder
    raise ValueError(…)     the user's own: passes through, whatever its frame holds
    struct.pack("d", x)     struct.error in C, which has dropped the refusal: it was at this very line
    p(x), inside of p       RecursionError, after some hundred calls of it
    blur()                  our own TypeError on wrong arguments: passes through

Only errors that nobody caught are looked at, once, when a trace has failed anyway: cost does not matter here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, NamedTuple

from dataflow.errors import DataflowError, TraceError
from dataflow.graph.attributes import own_attributes
from dataflow.graph.diagnostics.bytecode import raises, variables_read
from dataflow.graph.nodes import Declared
from dataflow.graph.tracing.tracer import PACKAGE, PASSED_OVER, Traced, of_user

__all__ = [
    "Provoked",
    "Recursion",
    "calls_itself",
    "foreign",
    "provoked_at",
    "refused_before",
    "tells_of_placeholder",
    "text_of",
]

_WRONG_CALL = re.compile(
    r"\(\) (missing \d+ required |got (an unexpected keyword|some positional-only|multiple values for) "
    r"|takes (no (keyword )?arguments|.*positional arguments? but |(at most|at least|exactly) \S+ argument))"
)
"""What Python says of a call whose arguments do not fit, whatever they stand for."""

_NO_EXCEPTION = "must derive from BaseException"
"""What Python says of `raise node`, whatever it stands for."""
_BY_VALUE = (TypeError, ValueError, AttributeError, BufferError)
"""What Python itself raises for a value that it cannot use; a missing key or name is another matter. Of libraries, any
error of theirs may be meant so."""


class Provoked(NamedTuple):
    """The user's line at which a placeholder provoked an error."""

    where: str
    """`file:line`."""
    code: CodeType
    lasti: int


def provoked_at(error: Exception, refusals: Sequence[str] = ()) -> Provoked | None:
    """Where a placeholder provoked this error; None if it is the user's own, or ours. `refusals` are all there were."""
    steps = list(_steps(error.__traceback__))
    places = [place for place, (frame, *_) in enumerate(steps) if of_user(frame)]
    places = places or [i for i, (frame, *_) in enumerate(steps) if not PASSED_OVER[frame.f_code.co_filename]]
    last_of_user = places[-1] if places else None
    if last_of_user is None:
        return None
    frame, lasti, line = steps[last_of_user]
    found = Provoked(f"{frame.f_code.co_filename}:{line}", frame.f_code, lasti)
    inner = [frame for frame, *_ in steps[last_of_user + 1 :]]
    if inner and all(frame.f_code.co_filename.startswith(PACKAGE) for frame in inner):
        return None
    text = text_of(error)
    if not inner and raises(frame.f_code, lasti) and not (isinstance(error, TypeError) and _NO_EXCEPTION in text):
        return None
    if not inner and isinstance(error, TypeError) and _WRONG_CALL.search(text):
        return None
    if refused_before(error, refusals, found.where):
        return found
    if not inner and type(error).__module__ == "builtins" and not isinstance(error, _BY_VALUE):
        return None
    if (
        "<placeholder" in text
        or any(_holds(value) for frame in inner for value in frame.f_locals.values())
        or any(_holds(value) for value in _values_read(frame, lasti))
    ):
        return found
    return None


def foreign(error: TraceError, refusals: Sequence[str]) -> str:
    """The refusal behind an error of our class that a library made; empty if we made it.

    Libraries raise anew what they catch, with the class that it had and words of their own.
    """
    text = str(error)
    if not refusals or any(refused in text for refused in refusals):
        return ""
    behind: BaseException | None = error
    for _ in range(100):
        behind = None if behind is None else behind.__cause__ or behind.__context__
        if str(behind) in refusals:
            return str(behind)
    steps = {f"{frame.f_code.co_filename}:{line}" for frame, _, line in _steps(error.__traceback__)}
    return next((refused for refused in reversed(refusals) if any(f", at {at}: " in refused for at in steps)), "")


def text_of(error: BaseException) -> str:
    """What an error says; while a body is traced, `str` would ask a placeholder for its text."""
    return ", ".join(map(repr, error.args)) if any(map(_holds, error.args)) else str(error)


def tells_of_placeholder(error: BaseException) -> bool:
    """Whether an error of the user's holds a placeholder, or a text that shows one."""
    held = (*error.args, *(part for _, part in own_attributes(error)))
    if isinstance(error, BaseExceptionGroup):
        return any(map(tells_of_placeholder, error.exceptions))
    return any(_holds(value) or (isinstance(value, str) and "<placeholder" in value) for value in held)


class Recursion(NamedTuple):
    """A pipeline whose body calls it."""

    name: str
    way: str
    """By way of which others, in words; empty for none."""
    where: str
    """The user's line of the innermost call, `file:line`."""


_OFTEN: Final = 5
"""How often a pipeline has to be in its own body, to be what Python's stack was too small for."""


def calls_itself(error: RecursionError) -> Recursion | None:
    """The pipeline that is recorded into itself without an end; None if it is something else that does not end.

    A body may call its pipeline: on static values, that ends.
    """
    traceback = error.__traceback__
    outer: list[tuple[FrameType, int]] = []
    frame = None if traceback is None else traceback.tb_frame.f_back
    while frame is not None:
        outer.append((frame, frame.f_lineno))
        frame = frame.f_back
    calls: list[tuple[Declared, str]] = []
    where = "?"
    for frame, line in [*reversed(outer), *((frame, line) for frame, _, line in _steps(traceback))]:
        if of_user(frame):
            where = f"{frame.f_code.co_filename}:{line}"
        elif frame.f_code.co_name == "inline" and isinstance(called := frame.f_locals.get("self"), Declared):
            calls.append((called, where))
    bodies = [called._body for called, _ in calls]
    if not bodies or bodies.count(bodies[-1]) < _OFTEN:
        return None
    last, where = calls[-1]
    before = len(bodies) - 2 - bodies[-2::-1].index(bodies[-1])
    others = dict.fromkeys(repr(_name(called)) for called, _ in calls[before + 1 : -1])
    return Recursion(_name(last), " and ".join(others), where)


def _name(declared: Any) -> str:
    return str(declared.name)


def _steps(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno
        traceback = traceback.tb_next


def refused_before(error: BaseException | None, refusals: Sequence[str] = (), where: str = "") -> str:
    """The refusal of ours that is behind an error, empty if there is none: libraries often answer with their own.

    Code in C may have dropped it; `refusals` are all that there were, of which one at the line of the error counts.
    """
    seen = 0
    while error is not None and seen < 100:
        if isinstance(error, DataflowError):
            return str(error)
        error, seen = error.__cause__ or error.__context__, seen + 1
    return next((refused for refused in reversed(refusals) if f", at {where}: " in refused), "")


def _values_read(frame: FrameType, lasti: int) -> Iterator[Any]:
    """The values of the variables in the expression that this instruction evaluates."""
    local = frame.f_locals  # since 3.13 a view of the frame, before that a copy
    for name in variables_read(frame.f_code, lasti):
        yield local.get(name, frame.f_globals.get(name))


def _holds(value: Any, depth: int = 3) -> bool:
    if isinstance(value, Traced):
        return True
    if depth and isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        return any(_holds(item, depth - 1) for item in list(items)[:100])
    return False
