"""The recording of one body: its nodes, who may add to it, and the user's line that does.

    body, on placeholders ──▶ record ──▶ Trace.add ──▶ Trace.nodes ──▶ Graph

A `Trace` records only in the context and in the thread that opened it, and only while its body runs. Whoever meets a
placeholder elsewhere is told which of these it was, at which line of his, and what to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from threading import get_ident
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

import numpy as np

from dataflow import errors
from dataflow.errors import TraceError
from dataflow.graph.diagnostics.bytecode import enclosing, has_statements, instruction_at, place_of
from dataflow.graph.nodes import Fixed, Kind, Node, OpSpec, Ref
from dataflow.graph.templates import Literal
from dataflow.graph.tracing.closures import Closures, Rebound
from dataflow.graph.tracing.constants import Constants
from dataflow.graph.tracing.fixed import Around
from dataflow.graph.tracing.literals import Literals

__all__ = [
    "NO_KWARGS",
    "NUMPY",
    "OWN_THREAD",
    "PACKAGE",
    "PASSED_OVER",
    "Decorated",
    "Lines",
    "Trace",
    "Traced",
    "array_changed",
    "container_changed",
    "current",
    "here",
    "is_module_of_user",
    "is_of_user",
    "label_taken",
    "of_user",
    "refusal",
    "stranger",
    "trace_of_context",
    "user_line",
    "variable_rebound",
]

trace_of_context: Final[ContextVar[Trace | None]] = ContextVar("dataflow.trace", default=None)
"""For operators, `record` and `trace`; others ask `current`."""
NO_KWARGS: Final[dict[str, Any]] = {}
"""Shared by all nodes without keyword arguments; nobody writes into a node."""

_tuple_new = tuple.__new__  # Node(...) takes twice as long: a NamedTuple's constructor is a Python function


class Trace:
    """One recording: the nodes of one body, in the order of its calls. Made and closed by `trace`."""

    __slots__ = (
        "__weakref__",
        "after",
        "afters",
        "around",
        "changing",
        "closures",
        "constants",
        "dispatches",
        "dispatching",
        "failed",
        "first",
        "fixed",
        "inputs",
        "labels",
        "late",
        "latest",
        "lines",
        "literals",
        "name",
        "names",
        "nodes",
        "owner",
        "plain",
        "refused",
        "refused_at",
        "refused_last",
        "scope",
        "scopes",
        "stateful",
        "things",
        "thread",
    )

    def __init__(self, name: str, inputs: tuple[str, ...], owner: object | None = None) -> None:
        self.name = name
        self.inputs = inputs
        self.first = len(inputs)
        """The number of the first node."""
        self.refused: list[str] = []
        """What was refused so far. If the body goes on after that, it goes a way that it would not go on values."""
        self.refused_at: list[tuple[CodeType, int]] = []
        """For the first of them, the instructions that led to it, the innermost first."""
        self.refused_last: tuple[CodeType, int] | None = None
        """The instruction at which something was refused last."""
        self.failed = True
        """Until the body is recorded to its end."""
        self.nodes: list[Node] = []
        self.constants = Constants()
        self.literals = Literals()
        self.around = Around()
        self.fixed: dict[int, Fixed] = {}
        """What the nodes of graphs that were recorded as parts of this one may not change."""
        self.things: dict[int, Literal] = {}
        """What stands for constants that are objects of the user's own, by the id of these."""
        self.closures = Closures()
        self.changing = False
        self.stateful = False
        """Whether some node changes what it is given."""
        self.late: dict[int, int] = {}
        """For plumbing that was recorded later than the body asked for it, how many nodes there were then."""
        self.dispatching: tuple[CodeType, int] | None = None
        """The instruction at which numpy's dispatch of functions is looking at the types of its arguments."""
        self.dispatches = 0
        """How often it has looked there, before it calls anything."""
        self.lines = Lines()
        self.latest: CodeType | None = None
        """The code that recorded the latest node, or asked for the latest plumbing."""
        self.plain: CodeType | None = None
        """The same, unless it is the user's own and has statements, such as `try`."""
        self.owner = owner
        self.after: tuple[int, ...] = ()
        """What is recorded now starts after these, too."""
        self.scope = ""
        self.afters: dict[int, tuple[int, ...]] = {}
        self.labels: dict[int, str] = {}
        self.names: dict[str, int] = {}
        self.scopes: dict[int, str] = {}
        self.thread = get_ident()  # 0 once closed, which is no thread's identity: one comparison checks both

    @property
    def open(self) -> bool:
        """Whether the body still runs."""
        return self.thread != 0

    @property
    def here(self) -> bool:
        """Whether it records in this context and in this thread."""
        return self is trace_of_context.get() and self.thread == get_ident()

    def add(
        self,
        spec: OpSpec,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        reads: tuple[int, ...],
        nested: bool,
        code: CodeType | None,
        lasti: int,
    ) -> Ref:
        """Append a node of these fields, frozen and checked by the caller; what refers to it."""
        if code is not self.latest:
            self.meet(code)
        nodes = self.nodes
        number = self.first + len(nodes)
        if self.after and spec.kind is not Kind.PLUMBING:
            self.afters[number] = self.after
        if self.scope:
            self.scopes[number] = self.scope
        if spec.inout:
            self.changing = True
        if spec.owner is not None:
            self.stateful = True
        nodes.append(_tuple_new(Node, (number, spec, args, kwargs, reads, nested, code, lasti)))
        return Ref(number)

    def meet(self, code: CodeType | None) -> None:
        """A node is recorded by this code, or plumbing asked for, which has not done the latest."""
        self.latest = code
        self.lines.meet(code)
        self.plain = None if id(code) in self.lines.guarded else code

    def ask(self, code: CodeType | None, lasti: int, name: str) -> None:
        """Plumbing is asked for by this code, which has statements or has not done the latest."""
        if code is not self.latest:
            self.meet(code)
        if self.plain is None:
            self.lines.plumbing.setdefault((id(code), lasti), name)

    def label(self, number: int, name: str) -> int:
        """Give a node a name in the scope of now; the number that has it, which is another if it was taken."""
        holder = self.names.setdefault(f"{self.scope}/{name}" if self.scope else name, number)
        if holder == number:
            self.labels[number] = name
        return holder

    def close(self) -> None:
        """Let go of everything: a placeholder that outlives its trace keeps neither nodes nor owner alive."""
        self.thread = 0
        self.nodes = []
        self.constants, self.literals, self.around, self.closures = Constants(), Literals(), Around(), Closures()
        self.things, self.fixed = {}, {}
        self.afters, self.labels, self.names, self.scopes, self.late = {}, {}, {}, {}, {}
        self.owner = None
        self.latest, self.plain, self.lines = None, None, Lines()
        self.refused_at, self.refused_last = [], None
        self.dispatching = None

    def __repr__(self) -> str:
        return f"<Trace {self.name}: {len(self.nodes)} nodes>" if self.open else f"<Trace {self.name}: closed>"


class Lines:
    """The user's code that recorded, and the calls that led there."""

    __slots__ = ("calls", "codes", "decorated", "entered", "guarded", "plumbing")

    def __init__(self) -> None:
        self.codes: dict[int, tuple[CodeType, dict[str, Any]]] = {}
        """By id, with its globals."""
        self.calls: dict[int, set[int]] = {}
        """By the id of the code of the caller, the instructions that call."""
        self.entered: set[tuple[int, int]] = set()
        """The instructions that entered a context manager of ours, by id of the code; and the functions that one of
        ours decorates, by id, with 0."""
        self.decorated: dict[int, Decorated] = {}
        """By id of the function, those that a context manager decorates."""
        self.guarded: set[int] = set()
        """The ids of the user's own code that has statements."""
        self.plumbing: dict[tuple[int, int], str] = {}
        """What plumbing of such code does, read or not; by id of the code and instruction."""

    def meet(self, code: CodeType | None) -> None:
        """A node is recorded by this code, or plumbing asked for, which has not done the latest."""
        if id(code) in self.codes:
            return
        called: FrameType | None = None
        for frame in _frames():
            if PASSED_OVER[frame.f_code.co_filename]:
                if called is not None and _is_decorator(frame) and "func" in (local := frame.f_locals):
                    self.decorated[id(local["func"])] = Decorated(local["func"], local.get("self"), called.f_code)
            elif called is not None or frame.f_code is code:
                called = frame
                self.codes[id(frame.f_code)] = frame.f_code, frame.f_globals
                if has_statements(frame.f_code) and of_user(frame):
                    self.guarded.add(id(frame.f_code))
                if frame.f_code is not code:
                    self.calls.setdefault(id(frame.f_code), set()).add(frame.f_lasti)

    def enter(self) -> None:
        """A context manager of ours is entered, perhaps by one of the user's, perhaps as a decorator."""
        for frame in _frames():
            if not PASSED_OVER[frame.f_code.co_filename]:
                self.entered.add((id(frame.f_code), instruction_at(frame.f_code, frame.f_lasti)))
            elif _is_decorator(frame) and not enclosing(frame.f_code, frame.f_lasti):
                self.entered.add((id(frame.f_locals.get("func")), 0))


class Decorated(NamedTuple):
    """A function that a context manager decorates: `@np.errstate(...)`."""

    function: Any
    manager: Any
    code: CodeType
    """What it runs, of the user's."""


def _is_decorator(frame: FrameType) -> bool:
    """Whether this is the function with which `contextlib`, or numpy, decorates another."""
    code = frame.f_code
    return code.co_name == "inner" and code.co_qualname.endswith(".__call__.<locals>.inner")


class Traced:
    """What stands for a value of a trace, without what can be done with it: that is `Placeholder`'s."""

    __slots__ = ("_ref", "_trace")

    _ref: Ref | None
    _trace: Trace

    def _read(self) -> Ref:
        """What refers to it in the graph; records it first, if it is still pending."""
        raise NotImplementedError


def current() -> Trace | None:
    """The trace of this context; None where no body is being traced, also in a task that outlives its trace."""
    found = trace_of_context.get()
    return found if found is not None and found.thread else None


# ------------------------------------------------------------------------------------------------ the user's line

PACKAGE: Final = os.path.dirname(os.path.abspath(errors.__file__)) + os.sep
NUMPY: Final = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
_TRACE: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trace.py")
_STDLIB: Final = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED: Final = f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}"


class _PassedOver(dict[str, bool]):
    """Whether the frames of a file are passed over on the way to the user's line; by its name, asked once."""

    def __missing__(self, file: str) -> bool:
        ours = file.startswith((PACKAGE, NUMPY, "<__array_function__", "<frozen ", "<attrs generated"))
        # An application that is installed is its author's code, though it lies below the standard library.
        library = file.startswith(_STDLIB) and not any(place in file for place in _INSTALLED)
        self[file] = ours or library or file.endswith((".pyx", ".pxd", ".pxi", "stringsource", "<stringsource>"))
        return self[file]


PASSED_OVER: Final = _PassedOver()
"""The package, numpy, the standard library (`copy.copy(node)`, `json.dumps(node)`) and compiled code."""


def user_line() -> tuple[CodeType | None, int]:
    """The user's instruction that led here, as a node keeps it; (None, -1) if there is none."""
    frame = _user_frame()
    return (None, -1) if frame is None else (frame.f_code, frame.f_lasti)


def here() -> str:
    """The user's line that led here, as `file:line`."""
    frame = _user_frame()
    return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _frames() -> Iterator[FrameType]:
    """The frames of the body and of what it calls, the innermost first."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != _TRACE:
        yield frame
        frame = frame.f_back


def _user_frame() -> FrameType | None:
    """The innermost frame of the user's; one of an installed library only if the body itself is installed."""
    frame: FrameType | None = sys._getframe(2)
    library: FrameType | None = None
    while frame is not None and frame.f_code.co_filename != _TRACE:
        if of_user(frame):
            return frame
        if library is None and not PASSED_OVER[frame.f_code.co_filename]:
            library = frame
        frame = frame.f_back
    return library


def of_user(frame: FrameType) -> bool:
    """Whether this runs a file of the user's own."""
    return is_of_user(frame.f_code.co_filename)


def is_of_user(file: str) -> bool:
    """Whether a file is the user's own, and not of the package, Python or a library that is installed."""
    return not PASSED_OVER[file] and not any(place in file for place in _INSTALLED)


def is_module_of_user(name: str) -> bool:
    """Whether a module is the user's own, by its name. One that has no file is, if it is not built in: a notebook's."""
    if name == "__main__":
        return True
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    return module is None or (is_of_user(file) if file is not None else name not in sys.builtin_module_names)


# ------------------------------------------------------------------------------------------------ refusals

OWN_THREAD: Final = "record in the thread that runs the body; kernels run at the same time by themselves"


def refusal(what: str, remedy: str, where: str = "") -> TraceError:
    """The error to raise; `where` is the user's line, unless given because no line of the body runs any more."""
    message = f"{what}, at {where or here()}: {remedy}"
    recording = current()
    if recording is not None and recording.thread == get_ident():
        instructions = list(_instructions())
        recording.refused_at = recording.refused_at or instructions
        recording.refused_last = instructions[0] if instructions else None
        recording.refused.append(message)
    return TraceError(message)


def _instructions() -> Iterator[tuple[CodeType, int]]:
    """Those that led here, also of libraries, the innermost first."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != _TRACE:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            yield frame.f_code, frame.f_lasti
        frame = frame.f_back


def array_changed(where: str) -> TraceError:
    """An array was written to, though a node that was recorded at this line reads it."""
    return refusal(
        "an array was written to after a node was recorded that reads it",
        "every node reads the array as it is in the end; give each its own (array.copy()), or write inside an op",
        where,
    )


def variable_rebound(rebound: Rebound) -> TraceError:
    """A variable of a closure that a node was given was bound to something else."""
    function, variable, at = rebound
    shown = "a lambda" if function == "<lambda>" else function
    return refusal(
        f"the variable {variable!r} of {shown} was bound to something else after a node was recorded that calls it",
        f"it is called when the body is over, and would find the last value; give it this one as a default"
        f" ({variable}={variable}), by functools.partial, or as an argument",
        place_of(*at),
    )


def container_changed(where: str) -> TraceError:
    """A list or its like from outside the body was changed, though a node that was recorded at this line gets it."""
    return refusal(
        "a container from outside the body was changed after a node was recorded that gets it",
        "the node gets that very object, as it is when it runs; give it a copy (list(items), dict(items)), or change it"
        " inside an op",
        where,
    )


def label_taken(name: str) -> TraceError:
    """Another node of this scope has the label already."""
    return refusal(
        f"the label {name!r} is given to a second node",
        "labels are unique in a scope; choose another, or call each part inside `with flow.scope(...)` of its own",
    )


def stranger(placeholder: Traced, where: str = "") -> TraceError:
    """A placeholder met where it may not be used: say which of the four ways led there."""
    home = placeholder._trace
    error = refusal(*_stranger(placeholder, home), where)
    if home.open and not home.here:
        home.refused.append(str(error))  # caught in a thread of the body's, say, it would be forgotten
    return error


def _stranger(placeholder: Traced, home: Trace) -> tuple[str, str]:
    """What happened, and what to do."""
    recording = current()
    if not home.open:
        return (
            f"{placeholder!r} is used after the body of {home.name!r} has been traced",
            "a placeholder means something only while its body runs; return it from the body and await the pipeline",
        )
    if home.thread != get_ident():
        return f"{placeholder!r} of {home.name!r} is used in another thread than its body", OWN_THREAD
    if recording is None:
        return (
            f"{placeholder!r} is used outside the context in which the body of {home.name!r} is traced",
            "use it in the body itself, or in functions that the body calls",
        )
    return (
        f"{placeholder!r} of {home.name!r} is used while {recording.name!r} is traced",
        f"pass it to {recording.name!r} as an argument",
    )
