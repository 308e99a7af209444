"""Function → Graph: a body runs once, on placeholders, and what it does with them is recorded.

    def body(image):                    image            Placeholder 0
        fine = blur(image, 1)           blur(…)          Placeholder 1: the node is recorded here and now
        rows = fine.shape[0]            .shape, [0]      Plumbing: recorded when something first reads it
        return fine / rows              divide(…)        records .shape as 2, [0] as 3, and itself as 4

Rules:

1. A `Trace` records only in the context and in the thread that opened it, and only while its body runs.
2. Whatever would need a placeholder's value is refused with a `TraceError`: what happened, the user's line, the remedy.
3. Arguments are frozen at the call: the lists, tuples and dicts in them are rebuilt, so a body that changes them
   later does not change the graph. Arrays and other objects are kept as they are.
4. Every recorded call stays in the graph, read or not, and no two are merged; only unread plumbing is dropped.
5. A graph never holds the owner of its trace (a method pipeline's `self`): it stands there as `Ref(0)`.

Nothing here recurses over the graph; only the scan of one argument recurses, into the containers of that argument.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from threading import get_ident
from types import (
    BuiltinFunctionType,
    CodeType,
    EllipsisType,
    FrameType,
    FunctionType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any, cast

import numpy as np

from dataflow.errors import TraceError
from dataflow.graph.nodes import Graph, Kind, Node, OpSpec, Ref

__all__ = ["Placeholder", "Trace", "current", "is_placeholder", "record", "trace"]


# ------------------------------------------------------------------------------------------------ the recording


class Trace:
    """One recording: the nodes of one body, in the order of its calls. Made and closed by `trace`."""

    __slots__ = ("_thread", "inputs", "name", "nodes", "owner")

    def __init__(self, name: str, inputs: tuple[str, ...], owner: object | None = None) -> None:
        self.name = name
        self.inputs = inputs
        self.nodes: list[Node] = []
        self.owner = owner
        self._thread = get_ident()  # 0 once closed, which is no thread's identity: one comparison checks both

    @property
    def open(self) -> bool:
        """Whether the body still runs."""
        return self._thread != 0

    def close(self) -> None:
        """Let go of everything: a placeholder that outlives its trace keeps neither nodes nor owner alive."""
        self._thread = 0
        self.nodes = []
        self.owner = None

    def __repr__(self) -> str:
        return f"<Trace {self.name}: {len(self.nodes)} nodes>" if self.open else f"<Trace {self.name}: closed>"


_tuple_new = tuple.__new__  # Node(...) takes twice as long: a NamedTuple's constructor is a Python function
_trace_of_context: ContextVar[Trace | None] = ContextVar("dataflow.trace", default=None)
_NO_KWARGS: dict[str, Any] = {}  # shared by all nodes without keyword arguments; nobody writes into a node


def current() -> Trace | None:
    """The trace of this context; None where no body is being traced, also in a task that outlives its trace."""
    found = _trace_of_context.get()
    return found if found is not None and found._thread else None


def trace(
    name: str, inputs: tuple[str, ...], body: Callable[[list[Placeholder]], Any], *, owner: object | None = None
) -> Graph:
    """Run `body` once on one placeholder per input; the graph of what it recorded and returned.

    With an `owner` (an instance, not a class), input 0 stands for it: wherever it is an argument, the graph has Ref(0).
    Raises TraceError for what cannot be recorded; any other exception of the body passes through.
    """
    recording = Trace(name, inputs, owner)
    token = _trace_of_context.set(recording)
    try:
        returned = body([_placeholder(recording, Ref(number)) for number in range(len(inputs))])
        output = _Scan(recording, {}, None, _declared(body)).whole(returned)
        return Graph(name, inputs, tuple(recording.nodes), output)
    finally:
        _trace_of_context.reset(token)
        recording.close()


def record(spec: OpSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Placeholder:
    """Record one call of `spec` in the trace of this context; the placeholder of its result.

    Long for one function, because it is the whole cost of tracing: every call in it is paid once a node.
    """
    recording = _trace_of_context.get()
    if recording is None or recording._thread != get_ident():
        raise _cannot_record(spec, args, recording)
    frozen: list[Any] = []
    reads: dict[int, None] = {}
    scan: _Scan | None = None
    for arg in args:
        kind = type(arg)
        if kind is Placeholder:
            if arg._trace is not recording:
                raise _stranger(arg)
            ref = arg._ref
            reads[+ref] = None  # a plain int
            frozen.append(ref)
        elif kind in _LEAVES:
            frozen.append(arg)
        else:
            scan = scan or _Scan(recording, reads, spec)
            frozen.append(scan.whole(arg))
    if kwargs:
        scan = scan or _Scan(recording, reads, spec)
        kwargs = {key: arg if type(arg) in _LEAVES else scan.whole(arg) for key, arg in kwargs.items()}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        frame = frame.f_back
    code, lasti = (None, -1) if frame is None else (frame.f_code, frame.f_lasti)
    nodes, nested = recording.nodes, scan is not None and scan.nested
    number = len(recording.inputs) + len(nodes)  # not before the scan, which may have recorded plumbing
    node = (number, spec, tuple(frozen), kwargs or _NO_KWARGS, tuple(reads), nested, code, lasti)
    nodes.append(_tuple_new(Node, node))
    return _placeholder(recording, Ref(number))


# ------------------------------------------------------------------------------------------------ the user's line

_NOT_THE_USER = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    os.path.dirname(os.path.abspath(np.__file__)) + os.sep,
    copy.__file__,  # a refused copy or deepcopy is the caller's doing
)


def _user_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        frame = frame.f_back
    return frame


def _declared(body: Callable[..., Any]) -> str:
    """Where a body of the user's begins; empty for one that a face wrapped without saying what it wraps."""
    code = getattr(inspect.unwrap(body), "__code__", None)
    if code is None or code.co_filename.startswith(_NOT_THE_USER):
        return ""
    return f"{code.co_filename}:{code.co_firstlineno}"


def _error(what: str, remedy: str, where: str = "") -> TraceError:
    if not where:
        frame = _user_frame()
        where = "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return TraceError(f"{what}, at {where}: {remedy}")


def _usable(placeholder: Placeholder) -> bool:
    recording = placeholder._trace
    return recording is _trace_of_context.get() and recording._thread == get_ident()


def _stranger(placeholder: Placeholder, where: str = "") -> TraceError:
    """A placeholder met where it may not be used: say which of the four ways led there."""
    home, here = placeholder._trace, current()
    if not home.open:
        return _error(
            f"{placeholder!r} is used after the body of {home.name!r} has been traced",
            "a placeholder means something only while its body runs; return it from the body and await the pipeline",
            where,
        )
    if home._thread != get_ident():
        return _error(f"{placeholder!r} of {home.name!r} is used in another thread than its body", _OWN_THREAD, where)
    if here is None:
        return _error(
            f"{placeholder!r} is used outside the context in which the body of {home.name!r} is traced",
            "use it in the body itself, or in functions that the body calls",
            where,
        )
    return _error(
        f"{placeholder!r} of {home.name!r} is used while {here.name!r} is traced",
        f"pass it to {here.name!r} as an argument",
        where,
    )


def _cannot_record(spec: OpSpec, args: tuple[Any, ...], recording: Trace | None) -> TraceError:
    for arg in args:
        if isinstance(arg, Placeholder) and not _usable(arg):
            return _stranger(arg)
    if recording is not None and recording.open:
        what = f"{spec.name} is recorded in another thread than the body of {recording.name!r}"
        return _error(what, _OWN_THREAD)
    ended = "no pipeline is being traced" if recording is None else f"the trace of {recording.name!r} has ended"
    return _error(f"{spec.name} cannot be recorded: {ended}", "record it in the body of a pipeline")


_OWN_THREAD = "record in the thread that runs the body; kernels run at the same time by themselves"


# ------------------------------------------------------------------------------------------------ arguments

_LEAVES = frozenset(
    {str, int, float, bool, complex, bytes, NoneType, EllipsisType, type, ModuleType, range}
    | {FunctionType, BuiltinFunctionType, MethodType, np.ufunc, *np.sctypeDict.values()}
    | {type(np.dtype(char)) for char in "?bhilqpBHILQPefdgFDGSUVOMm"}
)
_NOT_REBUILT: tuple[type, ...] = (set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items()))
_REMEDY_CONTAINER = (
    "a placeholder may stand in tuples, lists, dicts (as a value) and dataclasses; put it into one of these, or pass it"
    " as an argument of its own"
)


class _Scan:
    """Freezes the arguments of one call, or the output: a Ref for each placeholder, fresh lists, tuples and dicts."""

    __slots__ = ("_busy_dataclasses", "_done", "_reads", "_refs", "_spec", "_trace", "_where", "nested")

    def __init__(self, recording: Trace, reads: dict[int, None], spec: OpSpec | None, where: str = "") -> None:
        self.nested = False
        self._reads = reads
        self._trace = recording
        self._spec = spec  # None for the output
        self._where = where
        self._refs = 0  # how many Refs were put so far: a container in whose scan it grew holds one
        # By id, so that what is shared stays shared and is scanned once: (frozen, its Refs); None while its scan lasts.
        self._done: dict[int, tuple[Any, int] | None] | None = None
        self._busy_dataclasses: tuple[int, ...] = ()  # those that were met again inside themselves

    def whole(self, value: Any) -> Any:
        """Freeze one argument."""
        try:
            return self._freeze(value)
        except RecursionError as deep:
            raise self._error("is nested too deeply", "pass the nodes in a flat list") from deep

    def _freeze(self, value: Any) -> Any:
        kind = type(value)
        if kind is Placeholder or kind is _Plumbing:
            return self._ref(value)
        if kind in _LEAVES:
            return value
        if kind is np.ndarray and not value.dtype.hasobject:
            return value
        if value is self._trace.owner and value is not None:
            self._refuse_hidden(_attributes(value), value)
            return self._put(Ref(0))
        if kind is slice:
            return self._slice(value)
        if isinstance(value, tuple | list | dict) or (is_dataclass(value) and not isinstance(value, type)):
            return self._container(value)
        self._refuse_hidden(_contents(value), value)
        return value

    def _put(self, ref: Ref) -> Ref:
        self._reads[+ref] = None
        self._refs += 1
        return ref

    def _ref(self, placeholder: Placeholder) -> Ref:
        if placeholder._trace is not self._trace:
            raise _stranger(placeholder, self._where)
        return self._put(_read(placeholder))

    def _slice(self, value: slice) -> Any:
        parts = (value.start, value.stop, value.step)
        if any(isinstance(part, Placeholder) for part in parts):
            return self._ref(record(_SLICE, parts, _NO_KWARGS))
        return value

    def _container(self, value: Any) -> Any:
        key = id(value)
        done = self._done
        if done is None:
            done = self._done = {}
        if key in done:
            known = done[key]
            if known is not None:
                self._refs += known[1]
                return known[0]
            # A tree of objects with links to their parents is a fine constant; it is refused only if it holds nodes.
            if isinstance(value, tuple | list | dict):
                raise self._error(f"is a {type(value).__name__} that contains itself", "pass its parts separately")
            self._busy_dataclasses += (key,)
            return value
        done[key] = None
        before = self._refs
        if isinstance(value, tuple):
            frozen = self._tuple(value)
        elif isinstance(value, list):
            frozen = self._list(value)
        elif isinstance(value, dict):
            frozen = self._dict(value)
        else:
            frozen = self._dataclass(value)
        put = self._refs - before
        self.nested = self.nested or put > 0
        done[key] = (frozen, put)
        return frozen

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        before = self._refs
        items = [self._freeze(item) for item in value]
        if all(map(operator.is_, items, value)):
            return value
        kind = type(value)
        if kind is tuple:
            return tuple(items)
        if hasattr(kind, "_make"):
            return kind._make(items)
        if self._refs > before:
            raise self._error(f"holds a placeholder inside a {kind.__name__}", _REMEDY_CONTAINER)
        return value

    def _list(self, value: list[Any]) -> list[Any]:
        items = [self._freeze(item) for item in value]
        if type(value) is list:
            return items
        same_kind = copy.copy(value)
        list.__setitem__(same_kind, slice(None), items)
        return same_kind

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        for key in value:
            if _holds(key):
                raise self._error("has a placeholder as the key of a dict", "use names as keys, placeholders as values")
        items = {key: self._freeze(item) for key, item in value.items()}
        if type(value) is dict:
            return items
        same_kind = copy.copy(value)
        for key, item in items.items():
            dict.__setitem__(same_kind, key, item)
        return same_kind

    def _dataclass(self, value: Any) -> Any:
        before = self._refs
        # A field without a value (init=False, not yet set) stays without one.
        held = {field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)}
        frozen = {name: self._freeze(item) for name, item in held.items()}
        if self._refs == before:
            return value
        if id(value) in self._busy_dataclasses:
            raise self._error(f"is a {type(value).__name__} that contains itself", "pass its parts separately")
        rebuilt = copy.copy(value)
        for name, item in frozen.items():
            if item is not held[name]:
                object.__setattr__(rebuilt, name, item)
        return rebuilt

    def _refuse_hidden(self, contents: Iterable[Any], holder: object) -> None:
        for content in contents:
            if _holds(content):
                raise self._error(f"holds a placeholder inside a {type(holder).__name__}", _REMEDY_CONTAINER)

    def _error(self, what: str, remedy: str) -> TraceError:
        whose = (
            f"what the body of {self._trace.name!r} returned"
            if self._spec is None
            else f"an argument of {self._spec.name}"
        )
        return _error(f"{whose} {what}", remedy, self._where)


def _holds(value: Any) -> bool:
    """Whether this is a placeholder, or a tuple of some: what may stand in a set or as a key."""
    kind = type(value)
    if kind is tuple:
        return any(isinstance(item, Placeholder) for item in value)
    return kind is Placeholder or kind is _Plumbing


def _contents(value: Any) -> Iterable[Any]:
    """What an object that is not rebuilt holds, one level deep: enough for the usual mistakes, and cheap."""
    if isinstance(value, _NOT_REBUILT):
        return list(cast(Iterable[Any], value))
    if isinstance(value, np.ndarray):
        return cast(Iterable[Any], value.ravel().tolist()) if value.dtype == object else ()
    if isinstance(value, partial):
        return (*value.args, *value.keywords.values())
    return _attributes(value)


def _attributes(value: object) -> Iterator[Any]:
    """The values of an object's own attributes, in `__dict__` and in slots; runs no code of its class."""
    try:
        yield from list(object.__getattribute__(value, "__dict__").values())
    except AttributeError:
        pass  # all its attributes are in slots
    for cls in type(value).__mro__:
        names = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            mangled = f"_{cls.__name__.lstrip('_')}{name}" if name[:2] == "__" and name[-2:] != "__" else name
            try:
                yield object.__getattribute__(value, mangled)
            except AttributeError:
                pass  # declared, never set


# ------------------------------------------------------------------------------------------------ what is recorded


class Method:
    """Calls one method by its name: `Method("mean")(array, axis=0)` is `array.mean(axis=0)`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(target, self.name)(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Method({self.name!r})"


@lru_cache(maxsize=1024)
def _method(name: str) -> OpSpec:
    return OpSpec(Method(name), name, Kind.RECORDED)


@lru_cache(maxsize=1024)
def _attribute(name: str) -> OpSpec:
    return OpSpec(operator.attrgetter(name), name, Kind.PLUMBING)


@lru_cache(maxsize=1024)
def _function(function: Callable[..., Any]) -> OpSpec:
    return OpSpec(function, getattr(function, "__name__", type(function).__name__), Kind.RECORDED)


@lru_cache(maxsize=1024)
def _ufunc_method(ufunc: np.ufunc, method: str) -> OpSpec:
    return OpSpec(getattr(ufunc, method), f"{ufunc.__name__}.{method}", Kind.RECORDED)


_CALL = OpSpec(operator.call, "call", Kind.RECORDED)
_POWER = OpSpec(operator.pow, "power", Kind.RECORDED)
_POWER_MODULO = OpSpec(pow, "power", Kind.RECORDED)
_ROUND = OpSpec(round, "round", Kind.RECORDED)
_SLICE = OpSpec(slice, "slice", Kind.RECORDED)
_GETITEM = OpSpec(operator.getitem, "getitem", Kind.RECORDED)
_CONSTANT_GETITEM = OpSpec(operator.getitem, "getitem", Kind.PLUMBING)

_INDEX_LEAVES = frozenset({int, NoneType, EllipsisType, str})  # by exact type: True is an index of another kind
_SLICE_LEAVES = frozenset({int, NoneType})


def _constant_part(key: Any) -> bool:
    kind = type(key)
    if kind is slice:
        return type(key.start) in _SLICE_LEAVES and type(key.stop) in _SLICE_LEAVES and type(key.step) in _SLICE_LEAVES
    return kind in _INDEX_LEAVES


def _constant_index(key: Any) -> bool:
    return all(map(_constant_part, key)) if type(key) is tuple else _constant_part(key)


_CHANGES_ITS_ARGUMENT: frozenset[Any] = frozenset(
    {np.copyto, np.put, np.place, np.putmask, np.put_along_axis, np.fill_diagonal}
)
_REMEDY_IN_PLACE = (
    "a graph makes new values: use the result (`a = a + b`, np.where(mask, new, old)), or write inside an op"
)


@lru_cache(maxsize=1024)
def _place_of_out(function: Callable[..., Any]) -> int:
    """Where a numpy function takes `out` when it is passed by position."""
    if function in (np.dot, np.concatenate):  # written in C; not every numpy knows their signature
        return 2
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        return sys.maxsize
    for place, parameter in enumerate(parameters):
        if parameter.name == "out" and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            return place
    return sys.maxsize


# ------------------------------------------------------------------------------------------------ placeholders


def _unary(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    spec = OpSpec(function, name, Kind.RECORDED)
    return lambda self: record(spec, (self,), _NO_KWARGS)


def _binary(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    spec = OpSpec(function, name, Kind.RECORDED)
    return lambda self, other: record(spec, (self, other), _NO_KWARGS)


def _pair(function: Callable[..., Any], name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """An operator and its reflected form, which share one spec."""
    spec = OpSpec(function, name, Kind.RECORDED)
    return (
        lambda self, other: record(spec, (self, other), _NO_KWARGS),
        lambda self, other: record(spec, (other, self), _NO_KWARGS),
    )


def _refused(doing: str, remedy: str) -> Callable[..., Any]:
    """A method of Placeholder that cannot be recorded."""

    def refuse(self: Placeholder, *args: Any, **kwargs: Any) -> Any:
        if not _usable(self):
            raise _stranger(self)
        shown = doing.format(self, name=args[0] if args else "")
        raise _error(f"{shown} while {self._trace.name!r} is traced", remedy)

    return refuse


_CHOOSE = (
    "its value is not known yet; use np.where for a choice per element, flow.cond for a choice per run, `&`, `|` and"
    " `~` for and, or and not, or name the argument that decides in static="
)
_INDEX_IT = "how many items it has is not known yet; index it: node[0], node[1]"
_CONVERT = "its value is not known yet; keep it as a node (node.astype), or convert it, or index with it, inside an op"
_AS_ARRAY = (
    "its value is not known yet; use it as the array it will be (np.stack for an array of nodes), or convert it inside"
    " an op"
)
_AS_TEXT = "its value is not known yet; repr() shows the placeholder, and an op can print the value"
_NO_COPY = "it only stands for a value of the graph; use it as it is, or record a copy of the value with node.copy()"
_NO_AWAIT = "async ops are called without await in a body; whoever runs the pipeline awaits it"
_NO_WITH = "its value is not known yet; enter it inside an op"
_NO_ATTRIBUTES = "a node is not changed after it is made; build the new value in an op and use its result"
_NO_ITEMS = "a node is not changed after it is made; use np.where (np.delete), or write into a copy inside an op"


class Placeholder:
    """What a body holds for a value while it is traced; what is done with it becomes a node.

    Compares by recording, hashes by identity. All of its own attributes begin with an underscore, and it answers
    AttributeError for any other such name, so that `hasattr` probes of numpy and of other libraries find nothing.
    """

    __slots__ = ("_ref", "_trace")

    _ref: Ref
    _trace: Trace

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        if not self._trace.open:
            return f"<placeholder {self._ref:d}>"
        number, inputs = int(self._ref), self._trace.inputs
        name = inputs[number] if number < len(inputs) else self._trace.nodes[number - len(inputs)].spec.name
        return f"<placeholder {number}: {name}>"

    def __getattr__(self, name: str) -> Any:
        if name[:1] == "_" or "." in name:
            raise AttributeError(f"{name!r}: a placeholder has no names that begin with an underscore")
        return _plumbing(self, _attribute(name), ())

    def __getitem__(self, key: Any) -> Placeholder:
        if _constant_index(key):
            return _plumbing(self, _CONSTANT_GETITEM, (key,))
        return record(_GETITEM, (self, key), _NO_KWARGS)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Placeholder:
        return record(_CALL, (self, *args), kwargs)

    __add__, __radd__ = _pair(operator.add, "add")
    __sub__, __rsub__ = _pair(operator.sub, "subtract")
    __mul__, __rmul__ = _pair(operator.mul, "multiply")
    __truediv__, __rtruediv__ = _pair(operator.truediv, "divide")
    __floordiv__, __rfloordiv__ = _pair(operator.floordiv, "floor_divide")
    __mod__, __rmod__ = _pair(operator.mod, "remainder")
    __divmod__, __rdivmod__ = _pair(divmod, "divmod")
    __matmul__, __rmatmul__ = _pair(operator.matmul, "matmul")
    __lshift__, __rlshift__ = _pair(operator.lshift, "left_shift")
    __rshift__, __rrshift__ = _pair(operator.rshift, "right_shift")
    __and__, __rand__ = _pair(operator.and_, "bitwise_and")
    __or__, __ror__ = _pair(operator.or_, "bitwise_or")
    __xor__, __rxor__ = _pair(operator.xor, "bitwise_xor")
    __eq__ = _binary(operator.eq, "equal")
    __ne__ = _binary(operator.ne, "not_equal")
    __lt__ = _binary(operator.lt, "less")
    __le__ = _binary(operator.le, "less_equal")
    __gt__ = _binary(operator.gt, "greater")
    __ge__ = _binary(operator.ge, "greater_equal")
    __neg__ = _unary(operator.neg, "negative")
    __pos__ = _unary(operator.pos, "positive")
    __invert__ = _unary(operator.invert, "invert")
    __abs__ = _unary(abs, "absolute")
    __floor__ = _unary(math.floor, "floor")
    __ceil__ = _unary(math.ceil, "ceil")
    __trunc__ = _unary(math.trunc, "trunc")

    def __pow__(self, other: Any, modulo: Any = None) -> Placeholder:
        if modulo is None:
            return record(_POWER, (self, other), _NO_KWARGS)
        return record(_POWER_MODULO, (self, other, modulo), _NO_KWARGS)

    def __rpow__(self, other: Any, modulo: Any = None) -> Placeholder:
        if modulo is None:
            return record(_POWER, (other, self), _NO_KWARGS)
        return record(_POWER_MODULO, (other, self, modulo), _NO_KWARGS)

    def __round__(self, digits: Any = None) -> Placeholder:
        return record(_ROUND, (self,) if digits is None else (self, digits), _NO_KWARGS)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, /, *inputs: Any, **kwargs: Any) -> Placeholder:
        if method == "at":
            raise _error(f"numpy.{ufunc.__name__}.at writes into its argument", _REMEDY_IN_PLACE)
        if "out" in kwargs:  # also `array += node`, which numpy sends here so
            what = f"numpy.{ufunc.__name__} writes into an array (out= or an augmented assignment)"
            raise _error(what, _REMEDY_IN_PLACE)
        spec = _function(ufunc) if method == "__call__" else _ufunc_method(ufunc, method)
        return record(spec, inputs, kwargs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Placeholder:
        spec = _function(function)
        if function in _CHANGES_ITS_ARGUMENT:
            raise _error(f"numpy.{spec.name} writes into its argument", _REMEDY_IN_PLACE)
        place = _place_of_out(function)
        if kwargs.get("out") is not None or (place < len(args) and args[place] is not None):
            raise _error(f"numpy.{spec.name} writes into an array (out=)", _REMEDY_IN_PLACE)
        return record(spec, args, kwargs)

    __bool__ = _refused("bool() of {!r}", _CHOOSE)
    __iter__ = _refused("iteration over {!r}", _INDEX_IT)
    __next__ = _refused("next() of {!r}", _INDEX_IT)
    __reversed__ = _refused("reversed() of {!r}", "its length is not known yet; index it: node[::-1]")
    __len__ = _refused("len() of {!r}", "its length is not known yet; use node.shape[0], or a static= argument")
    __contains__ = _refused("`in` {!r}", "its value is not known yet; use (node == item).any(), or np.isin")
    __float__ = _refused("float() of {!r}", _CONVERT)
    __int__ = _refused("int() of {!r}", _CONVERT)
    __complex__ = _refused("complex() of {!r}", _CONVERT)
    __index__ = _refused("{!r} as an index or a count", _CONVERT)
    __array__ = _refused("conversion of {!r} to an array", _AS_ARRAY)
    __buffer__ = _refused("the buffer of {!r}", _AS_ARRAY)
    __setitem__ = _refused("assignment to an item of {!r}", _NO_ITEMS)
    __delitem__ = _refused("deletion of an item of {!r}", _NO_ITEMS)
    __setattr__ = _refused("assignment to the attribute {name!r} of {!r}", _NO_ATTRIBUTES)
    __delattr__ = _refused("deletion of the attribute {name!r} of {!r}", _NO_ATTRIBUTES)
    __str__ = _refused("str() of {!r}", _AS_TEXT)
    __format__ = _refused("format() of {!r}", _AS_TEXT + " (in an f-string: {node!r})")
    __bytes__ = _refused("bytes() of {!r}", _CONVERT)
    __reduce_ex__ = _refused("pickling of {!r}", _NO_COPY)
    __copy__ = _refused("copying of {!r}", _NO_COPY)
    __deepcopy__ = _refused("copying of {!r}", _NO_COPY)
    __await__ = _refused("await of {!r}", _NO_AWAIT)
    __enter__ = _refused("`with` {!r}", _NO_WITH)
    __exit__ = _refused("`with` {!r}", _NO_WITH)
    __aenter__ = _refused("`async with` {!r}", _NO_WITH)
    __aexit__ = _refused("`async with` {!r}", _NO_WITH)


class _Plumbing(Placeholder):
    """An attribute or a constant index: pending, outside the graph, until something reads it."""

    __slots__ = ("_pending",)

    _ref: Ref | None  # type: ignore[assignment]  # None while pending
    _pending: tuple[Placeholder, OpSpec, tuple[Any, ...], CodeType | None, int]

    def __repr__(self) -> str:
        return f"<placeholder: {self._pending[1].name}>" if self._ref is None else super().__repr__()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Placeholder:
        source, spec, rest, *_ = self._pending
        if rest:
            return record(_CALL, (self, *args), kwargs)
        return record(_method(spec.name), (source, *args), kwargs)  # a method call is one node


# Placeholder refuses assignment, so its slots are filled through their descriptors (faster than object.__setattr__).
_new = object.__new__
_set_ref = cast(Any, Placeholder.__dict__["_ref"]).__set__
_set_trace = cast(Any, Placeholder.__dict__["_trace"]).__set__
_set_pending = cast(Any, _Plumbing.__dict__["_pending"]).__set__


def _placeholder(recording: Trace, ref: Ref) -> Placeholder:
    made = _new(Placeholder)
    _set_ref(made, ref)
    _set_trace(made, recording)
    return made


def _plumbing(source: Placeholder, spec: OpSpec, rest: tuple[Any, ...]) -> Placeholder:
    recording = source._trace
    if recording is not _trace_of_context.get() or recording._thread != get_ident():
        raise _stranger(source)
    frame: FrameType | None = sys._getframe(2)  # our caller is a method of Placeholder
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        frame = frame.f_back
    code, lasti = (None, -1) if frame is None else (frame.f_code, frame.f_lasti)
    made = _new(_Plumbing)
    _set_ref(made, None)
    _set_trace(made, recording)
    _set_pending(made, (source, spec, rest, code, lasti))
    return made


def _read(placeholder: Placeholder) -> Ref:
    """The Ref of a placeholder; pending plumbing is recorded now, with the plumbing that it reads from."""
    pending: list[_Plumbing] = []
    while isinstance(placeholder, _Plumbing) and placeholder._ref is None:
        pending.append(placeholder)
        placeholder = placeholder._pending[0]
    ref = placeholder._ref
    for plumbing in reversed(pending):
        _, spec, rest, code, lasti = plumbing._pending
        nodes, inputs = plumbing._trace.nodes, plumbing._trace.inputs
        node = (len(inputs) + len(nodes), spec, (ref, *rest), _NO_KWARGS, (+ref,), False, code, lasti)
        nodes.append(_tuple_new(Node, node))
        ref = Ref(node[0])
        _set_ref(plumbing, ref)
    return ref


def is_placeholder(value: object) -> bool:
    """Whether this stands for a value of a graph that is being traced."""
    return isinstance(value, Placeholder)
