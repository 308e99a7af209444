"""Placeholders: what a body holds instead of values; what it does with them is recorded or refused.

    def body(image):                    image            Placeholder 0
        fine = blur(image, 1)           blur(…)          Placeholder 1: the node is recorded here and now
        rows = fine.shape[0]            .shape, [0]      PendingPlaceholder: recorded when something first reads it
        return fine / rows              divide(…)        records .shape as 2, [0] as 3, and itself as 4

Whatever would need a placeholder's value is refused with a `TraceError`: what happened, the user's line, the remedy.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import get_ident
from types import CodeType, FrameType, MethodType
from typing import Any, Final, cast

import numpy as np

from dataflow.errors import TraceError
from dataflow.graph.diagnostics import advice
from dataflow.graph.diagnostics.bytecode import (
    ASKS,
    asks_for_ascii,
    asks_for_attribute,
    asks_for_type,
    is_in_place,
    matches_length,
    names_in_call,
    names_to_unpack,
    unpacks_mapping,
)
from dataflow.graph.nodes import OpSpec, Ref
from dataflow.graph.tracing.capture import LEAVES, Scan
from dataflow.graph.tracing.operations import (
    CALL,
    CHANGES_ITS_ARGUMENT,
    CHANGES_ITSELF,
    CONSTANT_GETITEM,
    GETITEM,
    LIKE,
    MUTABLE,
    POWER,
    ROUND,
    attribute,
    changes_itself,
    function_call,
    in_place,
    is_constant_index,
    like_call,
    method_call,
    place_of_out,
    recorded,
    ufunc_method_call,
    unpacking,
)
from dataflow.graph.tracing.tracer import (
    NO_KWARGS,
    NUMPY,
    OWN_THREAD,
    PASSED_OVER,
    Trace,
    Traced,
    of_user,
    refusal,
    stranger,
    trace_of_context,
    user_line,
)

__all__ = [
    "LENGTH",
    "PendingPlaceholder",
    "Placeholder",
    "ShapedPlaceholder",
    "input_placeholder",
    "is_placeholder",
    "record",
    "shaped",
]


LOOKS_FIRST: Final = frozenset(
    NUMPY + os.path.join(*path) for path in (("ma", "core.py"), ("ma", "extras.py"), ("_core", "defchararray.py"))
)
"""Files of numpy's that try one thing and go on with another, or compare classes by `is`: nothing there is recorded."""

_trace_here = trace_of_context.get  # bound: since 3.12 Python looks up methods of what is imported the slow way


def record(spec: OpSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Placeholder:
    """Record one call of `spec` in the trace of this context; the placeholder of its result.

    Long for one function, because it is the whole cost of tracing: every call in it is paid once a node.
    """
    recording = _trace_here()
    if recording is None or recording.thread != get_ident():
        raise _cannot_record(spec, args, recording)
    frozen: list[Any] = []
    reads: dict[int, None] = {}
    scan: Scan | None = None
    for arg in args:
        kind = type(arg)
        if kind is Placeholder:
            if arg._trace is not recording:
                raise stranger(arg)
            ref = arg._ref
            reads[+ref] = None  # a plain int
            frozen.append(ref)
        elif kind in LEAVES:
            frozen.append(arg)
        else:
            scan = scan or Scan(recording, reads, spec)
            frozen.append(scan.whole(arg, len(frozen)))
    if kwargs:
        scan = scan or Scan(recording, reads, spec)
        kwargs = {key: arg if type(arg) in LEAVES else scan.whole(arg, key) for key, arg in kwargs.items()}
    frame: FrameType | None = sys._getframe(2)  # our caller is never the user: a face, or a method of Placeholder
    while frame is not None and PASSED_OVER[frame.f_code.co_filename]:
        if frame.f_code.co_filename in LOOKS_FIRST:
            raise _looks_first(frame)
        frame = frame.f_back
    code, lasti = (None, -1) if frame is None else (frame.f_code, frame.f_lasti)
    nested = scan is not None and scan.nested
    ref = recording.add(spec, tuple(frozen), kwargs or NO_KWARGS, tuple(reads), nested, code, lasti)
    if nested:
        assert scan is not None
        recording.around.add(scan.around, ref)
    made = _new(Placeholder)
    _set_ref(made, ref)
    _set_trace(made, recording)
    return made


def _cannot_record(spec: OpSpec, args: tuple[Any, ...], recording: Trace | None) -> TraceError:
    for arg in args:
        if isinstance(arg, Placeholder) and not arg._trace.here:
            return stranger(arg)
    if recording is not None and recording.open:
        return refusal(f"{spec.name} is recorded in another thread than the body of {recording.name!r}", OWN_THREAD)
    ended = "no pipeline is being traced" if recording is None else f"the trace of {recording.name!r} has ended"
    return refusal(f"{spec.name} cannot be recorded: {ended}", "record it in the body of a pipeline")


def is_placeholder(value: object) -> bool:
    """Whether this stands for a value of a graph that is being traced."""
    return isinstance(value, Placeholder)


# ------------------------------------------------------------------------------------------------ makers of methods


def _unary(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    spec = recorded(function, name)

    def operation(self: Placeholder) -> Placeholder:
        return record(spec, (self,), NO_KWARGS)

    return operation


_OPERATORS: dict[np.ufunc, OpSpec] = {np.power: POWER}
"""The operator that numpy makes of a ufunc, if an array or a number of numpy's is its left operand."""


_MUTABLE: Final = frozenset(MUTABLE)


def _pair(function: Callable[..., Any], name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """An operator, under the name of numpy's ufunc, and its reflected form, which share one spec."""
    spec = _OPERATORS[getattr(np, name)] = recorded(function, name)

    def operation(self: Placeholder, other: Any) -> Placeholder:
        return record(spec, (self, other), NO_KWARGS)

    def reflected(self: Placeholder, other: Any) -> Placeholder:
        if type(other) in _MUTABLE:
            _refuse_in_place(other, sys._getframe(1))
        self._trace.dispatching = None  # numpy looked at the operator, and left it to us
        return record(spec, (other, self), NO_KWARGS)

    return operation, reflected


def _comparison(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A comparison, of which Python does not tell whether it was written so, or the other way round."""
    spec = _OPERATORS[getattr(np, name)] = recorded(function, name)

    def compared(self: Placeholder, other: Any) -> Placeholder:
        if type(other) in _OF_BYTES:
            raise refusal(f"a comparison of {self!r} with a {type(other).__name__}", advice.COMPARED)
        return record(spec, (self, other), NO_KWARGS)

    return compared


_IN_PLACE: Final = frozenset({"iadd", "iand", "iconcat", "imul", "ior", "isub", "ixor"})
"""What the module `operator` calls augmented assignments to containers."""
_OF_BYTES: Final = frozenset({bytearray, memoryview})
"""Builtins that compare themselves with whatever has a buffer, in another way than arrays do."""


def _in_place(operation: Callable[[Any, Any], Any], ufunc: np.ufunc | None = None) -> Callable[..., Any]:
    spec = in_place(operation, ufunc)

    def changed(self: Placeholder, other: Any) -> Placeholder:
        return record(spec, (self, other), NO_KWARGS)

    return changed


def _refuse_in_place(container: Any, frame: FrameType) -> None:
    """A container of the body's to which a placeholder is added: plain Python changes it, whoever holds it."""
    code, lasti = frame.f_code, frame.f_lasti
    if is_in_place(code, lasti) or not _IN_PLACE.isdisjoint(names_in_call(code, lasti)):
        what = f"an augmented assignment would change a {type(container).__name__} by a placeholder"
        raise refusal(what, advice.NOT_ADDED_TO)


def _refused(doing: str, remedy: str | Callable[[], str]) -> Callable[..., Any]:
    """A method of Placeholder that cannot be recorded."""

    def refused(self: Placeholder, *args: Any, **kwargs: Any) -> Any:
        if not self._trace.here:
            raise stranger(self)
        shown = doing.format(self, name=args[0] if args else "")
        instead = remedy if isinstance(remedy, str) else remedy()
        raise refusal(f"{shown} while {self._trace.name!r} is traced", instead)

    return refused


def _writes_in_place(what: str, frame: FrameType | None) -> TraceError:
    """For a write; one that numpy does inside a function of its own is told by the name of that function."""
    if asked := _asked_of_numpy(frame):
        return refusal(f"numpy.{asked} takes no placeholder here: inside, {what}", advice.BY_VALUE)
    return refusal(what, advice.NOT_IN_PLACE)


def _asked_of_numpy(frame: FrameType | None) -> str:
    """The function of numpy's that the user's code has called, if this frame is one of numpy's."""
    asked = ""
    while frame is not None and frame.f_code.co_filename.startswith(NUMPY):
        asked, frame = frame.f_code.co_name, frame.f_back
    return asked


def _looks_first(frame: FrameType) -> TraceError:
    module = "numpy.ma" if frame.f_code.co_filename.startswith(f"{NUMPY}ma") else "numpy.char"
    return refusal(f"{module}.{_asked_of_numpy(frame)} looks at what it is given, a placeholder here", advice.ASK_NOT)


def _called_by_library(frame: FrameType) -> bool:
    """Whether it is not the user who calls: a library takes a placeholder for a function, and reads what it returns."""
    file = frame.f_code.co_filename
    if file.startswith(NUMPY):
        return True
    return not PASSED_OVER[file] and not of_user(frame) and user_line()[0] is not frame.f_code


def _has_numpys_operator(kind: type, spec: OpSpec) -> bool:
    """Not so a class that has called its base's, and goes on with the result; nor a placeholder."""
    method = f"__{spec.fn.__name__.rstrip('_')}__"
    own = getattr(kind, method, None) is getattr(np.ndarray, method)
    return issubclass(kind, np.generic) or (own and issubclass(kind, np.ndarray))


_LEAVES_IT: Final = frozenset({"_delegate_binop", "_disables_array_ufunc"})
"""The functions with which masked arrays, and classes with numpy's mixin of operators, do what ndarray does in C: ask
whether they should leave the operation to the right operand."""


class _Dispatch:
    """The method `__array_function__` or `__array_ufunc__`, which notes where numpy looks it up.

    numpy's dispatch looks it up in the type of an argument, asks of the argument whether it is an instance of the types
    of others (`np.stack([array, node])`: of ndarray; `np.add(node.T, node)`: of a kind of node), and calls the method;
    all in C, at one instruction of its caller. Only so can `__class__` know that question from any other `isinstance`.

    It also tells an operator from its ufunc, whatever was written (`array * node`, `operator.mul(array, node)`,
    `sum(…)`): `np.multiply(array, node)` looks once, while ndarray's operator looks first whether it should leave the
    operation to the right operand, and then calls the ufunc, which looks again. Numpy's scalars look more often still.
    """

    __slots__ = ("_method",)

    def __init__(self, method: Callable[..., Placeholder]) -> None:
        self._method = method

    def __get__(self, instance: Placeholder | None, owner: type | None = None) -> Callable[..., Placeholder] | None:
        if instance is not None:
            # None says that an operator is left to the right operand; who only calls the method never asks the instance
            return None if sys._getframe(1).f_code.co_name in _LEAVES_IT else MethodType(self._method, instance)
        recording = _trace_here()
        if recording is not None:
            frame = sys._getframe(1)
            at = frame.f_code, frame.f_lasti
            recording.dispatches = recording.dispatches + 1 if recording.dispatching == at else 1
            recording.dispatching = at
        return self._method


# ------------------------------------------------------------------------------------------------ placeholders


class Placeholder(Traced):
    """What a body holds for a value while it is traced; what is done with it becomes a node.

    Compares by recording. All of its own attributes begin with an underscore, and it answers
    AttributeError for any other such name, so that `hasattr` probes of numpy and of other libraries find nothing.
    """

    __slots__ = ()

    __pandas_priority__ = sys.maxsize  # operators of pandas leave it to the right operand

    _ref: Ref

    def __repr__(self) -> str:
        if self._trace.here and asks_for_ascii(sys._getframe(1)):
            raise self._refuse_ascii()
        return self._shown()

    def _shown(self) -> str:
        if not self._trace.open:
            return f"<placeholder {self._ref:d}>"
        number, inputs = int(self._ref), self._trace.inputs
        name = inputs[number] if number < len(inputs) else self._trace.nodes[number - len(inputs)].spec.name
        return f"<placeholder {number}: {name}>"

    @property  # type: ignore[misc]  # mypy's object lets it be assigned
    def __class__(self) -> type[Any]:
        """What `isinstance` asks after the true type: on values a body would go the way of the value's type."""
        if not self._trace.here or not asks_for_type(sys._getframe(1), self._trace.dispatching):
            return type(self)
        raise self._refuse_type()

    def __str__(self) -> str:
        return self._shown() if self._is_left_over() else cast(str, self._refuse_text())

    def __format__(self, spec: str) -> str:
        return self._shown() if self._is_left_over() else cast(str, self._refuse_format())

    def _is_left_over(self) -> bool:
        """Whether this is in the exception with which its body ended, and is shown with it."""
        return not self._trace.open and self._trace.failed and _trace_here() is None

    def __dir__(self) -> list[str]:
        """The names of its class, in which object.__dir__ would look after asking for `__class__`."""
        return dir(type(self))

    def _read(self) -> Ref:
        return self._ref

    def __getattr__(self, name: str) -> Any:
        frame = sys._getframe(1)
        if name[:1] == "_" or "." in name:
            if name == "_mask" and frame.f_code.co_filename.startswith(NUMPY):
                raise self._refuse_mask()
            raise AttributeError(f"{name!r}: {advice.NO_NAME}")
        return _pending(self, attribute(name), (), frame)

    def __getitem__(self, key: Any) -> Placeholder:
        if type(key) is int or is_constant_index(key):
            return _pending(self, CONSTANT_GETITEM, (key,), sys._getframe(1))
        return record(GETITEM, (self, key), NO_KWARGS)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Placeholder:
        if _called_by_library(sys._getframe(1)):
            raise self._refuse_callable()
        return record(CALL, (self, *args), kwargs)

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
    __iadd__ = _in_place(operator.iadd, np.add)
    __isub__ = _in_place(operator.isub, np.subtract)
    __imul__ = _in_place(operator.imul, np.multiply)
    __itruediv__ = _in_place(operator.itruediv, np.true_divide)
    __ifloordiv__ = _in_place(operator.ifloordiv, np.floor_divide)
    __imod__ = _in_place(operator.imod, np.remainder)
    __ilshift__ = _in_place(operator.ilshift, np.left_shift)
    __irshift__ = _in_place(operator.irshift, np.right_shift)
    __iand__ = _in_place(operator.iand, np.bitwise_and)
    __ior__ = _in_place(operator.ior, np.bitwise_or)
    __ixor__ = _in_place(operator.ixor, np.bitwise_xor)
    __imatmul__ = _in_place(operator.imatmul)  # numpy's look at the operands first
    __ipow__ = _in_place(operator.ipow)
    __eq__ = _comparison(operator.eq, "equal")
    __ne__ = _comparison(operator.ne, "not_equal")
    __lt__ = _comparison(operator.lt, "less")
    __le__ = _comparison(operator.le, "less_equal")
    __gt__ = _comparison(operator.gt, "greater")
    __ge__ = _comparison(operator.ge, "greater_equal")
    __neg__ = _unary(operator.neg, "negative")
    __pos__ = _unary(operator.pos, "positive")
    __invert__ = _unary(operator.invert, "invert")
    __abs__ = _unary(abs, "absolute")
    __floor__ = _unary(math.floor, "floor")
    __ceil__ = _unary(math.ceil, "ceil")
    __trunc__ = _unary(math.trunc, "trunc")

    def __pow__(self, other: Any, modulo: Any = None) -> Placeholder:
        return record(POWER, (self, other) if modulo is None else (self, other, modulo), NO_KWARGS)

    def __rpow__(self, other: Any, modulo: Any = None) -> Placeholder:
        return record(POWER, (other, self) if modulo is None else (other, self, modulo), NO_KWARGS)

    def __round__(self, digits: Any = None) -> Placeholder:
        return record(ROUND, (self,) if digits is None else (self, digits), NO_KWARGS)

    @_Dispatch
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, /, *inputs: Any, **kwargs: Any) -> Placeholder:
        self._trace.dispatching = None
        if method == "at":
            raise _writes_in_place(f"numpy.{ufunc.__name__}.at writes into its argument", sys._getframe(1))
        if "out" in kwargs:  # also `array += node`, which numpy sends here so
            what = f"numpy.{ufunc.__name__} writes into an array (out= or an augmented assignment)"
            raise _writes_in_place(what, sys._getframe(1))
        if self._trace.dispatches > 1 and method == "__call__" and not kwargs and ufunc in _OPERATORS:
            left, spec = inputs[0], _OPERATORS[ufunc]
            kind = type(left)
            if kind is np.ndarray or _has_numpys_operator(kind, spec):
                # Comparisons make an array of a scalar, which looks more than twice.
                scalar = self._trace.dispatches > 2 and kind is np.ndarray and not left.ndim
                return record(spec, (left[()] if scalar else left, self), NO_KWARGS)
        spec = function_call(ufunc) if method == "__call__" else ufunc_method_call(ufunc, method)
        return record(spec, inputs, kwargs)

    @_Dispatch
    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Placeholder:
        self._trace.dispatching = None
        spec = function_call(function)
        if spec.name in CHANGES_ITS_ARGUMENT:
            raise _writes_in_place(f"numpy.{spec.name} writes into its argument", sys._getframe(1))
        place = place_of_out(function)
        if kwargs.get("out") is not None or (place < len(args) and args[place] is not None):
            raise _writes_in_place(f"numpy.{spec.name} writes into an array (out=)", sys._getframe(1))
        if spec.name in LIKE and function is getattr(np, spec.name, None):
            return record(like_call(function), args, {**kwargs, "like": self})
        return record(spec, args, kwargs)

    def __iter__(self) -> Iterator[Placeholder]:
        frame = sys._getframe(1)
        count = names_to_unpack(frame)
        if count is None:
            raise self._refuse_iteration()
        whole = _pending(self, unpacking(count), (), frame)
        return iter([_pending(whole, CONSTANT_GETITEM, (place,), frame) for place in range(count)])

    __hash__ = _refused("hash() of {!r}", advice.NO_KEY)
    __bool__ = _refused("bool() of {!r}", advice.choose)
    _refuse_type = _refused("isinstance() or the class of {!r}", advice.of_type)
    _refuse_attribute = _refused("whether {!r} has an attribute {name!r} is asked", advice.attribute)
    _refuse_items = _refused("an item of {!r}, which was refused before,", advice.convert)
    _refuse_mask = _refused("the mask of {!r} is asked for", advice.mask)
    _refuse_callable = _refused("a library took {!r} for a function", advice.ASK_NOT)
    _refuse_iteration = _refused("iteration over {!r}", advice.as_items)
    _refuse_keys = _refused("`**` of {!r}", advice.KEYS)
    __next__ = _refused("next() of {!r}", advice.as_items)
    __reversed__ = _refused("reversed() of {!r}", "its length is not known yet; index it: node[::-1]")
    __len__ = _refuse_length = _refused("len() of {!r}", advice.as_length)
    __contains__ = _refused("`in` {!r}", advice.NOT_ASKED)
    __float__ = _refused("float() of {!r}", advice.convert)
    __int__ = _refused("int() of {!r}", advice.convert)
    __complex__ = _refused("complex() of {!r}", advice.convert)
    __index__ = _refused("{!r} as an index or a count", advice.as_index)
    __array__ = _refused("conversion of {!r} to an array", advice.as_array)
    __buffer__ = _refused("the buffer of {!r}", advice.as_array)
    __setitem__ = _refused("assignment to an item of {!r}", advice.NO_ITEMS)
    __delitem__ = _refused("deletion of an item of {!r}", advice.NO_ITEMS)
    __setattr__ = _refused("assignment to the attribute {name!r} of {!r}", advice.NO_ATTRIBUTES)
    __delattr__ = _refused("deletion of the attribute {name!r} of {!r}", advice.NO_ATTRIBUTES)
    _refuse_text = _refused("str() of {!r}", advice.as_text)
    _refuse_format = _refused("format() of {!r}", advice.AS_TEXT + " (in an f-string: {node!r})")
    _refuse_ascii = _refused("ascii() of {!r}", advice.as_text)
    __bytes__ = _refused("bytes() of {!r}", advice.convert)
    __reduce_ex__ = _refused("pickling of {!r}", advice.NO_COPY)
    __copy__ = _refused("copying of {!r}", advice.NO_COPY)
    __deepcopy__ = _refused("copying of {!r}", advice.NO_COPY)
    __await__ = _refused("await of {!r}", advice.NO_AWAIT)
    __enter__ = _refused("`with` {!r}", advice.NO_WITH)
    __exit__ = _refused("`with` {!r}", advice.NO_WITH)
    __aenter__ = _refused("`async with` {!r}", advice.NO_WITH)
    __aexit__ = _refused("`async with` {!r}", advice.NO_WITH)


def _refuse_change(target: Placeholder, name: str, kwargs: Mapping[str, Any]) -> None:
    if how := changes_itself(name, kwargs):
        raise refusal(f"{how} of {target!r} changes what others may read", advice.NOT_BY_METHOD)


class PendingPlaceholder(Placeholder):
    """Plumbing, an attribute or a constant index: outside the graph until something reads it."""

    __slots__ = ("_call",)

    _ref: Ref | None  # type: ignore[assignment]  # None while pending
    _call: tuple[Placeholder, OpSpec, tuple[Any, ...], CodeType | None, int, int]
    """What it reads from, what it does, and where: in the bytecode, and after how many nodes."""

    def _shown(self) -> str:
        return f"<placeholder: {self._call[1].name}>" if self._ref is None else super()._shown()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Placeholder:
        source, spec, rest, *_ = self._call
        if rest:  # an index
            return record(CALL, (self, *args), kwargs)
        if kwargs or spec.name in CHANGES_ITSELF or spec.name[-1] == "_":  # most calls are none of these
            _refuse_change(source, spec.name, kwargs)
        return record(method_call(spec.name), (source, *args), kwargs)

    def _read(self) -> Ref:
        """Record it, after the plumbing that it reads from; a loop, since nothing may recurse over the graph."""
        unread: list[PendingPlaceholder] = []
        source: Placeholder = self
        while type(source) is PendingPlaceholder and source._ref is None:
            unread.append(source)
            source = source._call[0]
        ref = source._ref
        recording = self._trace
        for plumbing in reversed(unread):
            _, spec, rest, code, lasti, place = plumbing._call
            late = place != len(recording.nodes)
            ref = recording.add(spec, (ref, *rest), NO_KWARGS, (+ref,), False, code, lasti)
            if late:
                recording.late[+ref] = place
            _set_ref(plumbing, ref)
        return ref


def _attribute_seen(name: str) -> Any:
    """An attribute that the body sees; of an object without it, what any placeholder makes of that name."""

    def seen(self: ShapedPlaceholder) -> Any:
        try:
            return self._seen[name]
        except KeyError:
            raise AttributeError(name) from None

    return property(seen)


LENGTH: Final = "len()"
"""What a `ShapedPlaceholder` knows beside attributes: its length, or the TypeError of an object that has none."""


class ShapedPlaceholder(Placeholder):
    """An input whose shape and dtype the body sees, since there is a graph for each."""

    __slots__ = ("_seen",)

    _seen: Mapping[str, Any]

    shape, ndim, size, dtype = map(_attribute_seen, ("shape", "ndim", "size", "dtype"))

    def __len__(self) -> int:
        frame = sys._getframe(1)
        if matches_length(frame):  # `case [a, b]`, which no array is
            raise self._refuse_length()
        length = self._seen[LENGTH]
        if isinstance(length, TypeError):
            raise TypeError(*length.args)
        return cast(int, length)


Sequence.register(Placeholder)  # so that `case [a, b]:` asks for its length, instead of going on to the next case

# Placeholder refuses assignment, so its slots are filled through their descriptors (faster than object.__setattr__).
_new = object.__new__
_set_ref = cast(Any, Traced.__dict__["_ref"]).__set__
_set_trace = cast(Any, Traced.__dict__["_trace"]).__set__
_set_call = cast(Any, PendingPlaceholder.__dict__["_call"]).__set__
_set_seen = cast(Any, ShapedPlaceholder.__dict__["_seen"]).__set__


def input_placeholder(recording: Trace, number: int) -> Placeholder:
    """What the body gets for an input."""
    made = _new(Placeholder)
    _set_ref(made, Ref(number))
    _set_trace(made, recording)
    return made


def shaped(placeholder: Placeholder, seen: Mapping[str, Any]) -> Placeholder:
    """The same input, of which the body sees this."""
    made = _new(ShapedPlaceholder)
    _set_ref(made, placeholder._ref)
    _set_trace(made, placeholder._trace)
    _set_seen(made, seen)
    return made


MOST_FIRST_ITEMS: Final = 200
"""How often one call of the user's may ask for the first item of the first item of … a node."""


def _refuse_question(
    source: Placeholder, spec: OpSpec, rest: tuple[Any, ...], frame: FrameType, code: CodeType | None, lasti: int
) -> None:
    """A function is called that looks at `source`, maybe to decide by what it finds; or `**` takes all of its items.

    Functions made from Fortran look for a number in whatever has items: in the first of these, and so on. That would
    end with the stack of the process.
    """
    if not rest:
        if spec.name == "keys" and unpacks_mapping(frame.f_code, frame.f_lasti):
            raise source._refuse_keys()
        if asks_for_attribute(frame):
            raise source._refuse_attribute(spec.name)
        return
    if source._trace.refused_last == (frame.f_code, frame.f_lasti):
        raise source._refuse_items()
    depth, part = 0, source
    while type(part) is PendingPlaceholder and part._call[2:5] == ((0,), code, lasti):
        depth, part = depth + 1, part._call[0]
        if depth > MOST_FIRST_ITEMS:
            raise refusal(f"a function of C looks for a number in {part!r}", advice.ASK_NOT)


def _pending(source: Placeholder, spec: OpSpec, rest: tuple[Any, ...], frame: FrameType) -> Placeholder:
    """What reads from `source` in this frame."""
    recording = source._trace
    # As in `record`, nothing is called that can be spelled out: neither `recording.here` nor `user_line()`.
    if recording is not _trace_here() or recording.thread != get_ident():
        raise stranger(source)
    code: CodeType | None
    code, lasti = frame.f_code, frame.f_lasti
    asked = code.co_code[lasti] in ASKS
    if PASSED_OVER[code.co_filename]:
        code, lasti = _users(frame)
    if asked:
        _refuse_question(source, spec, rest, frame, code, lasti)
    if code is not recording.plain:
        recording.ask(code, lasti, spec.name)
    made = _new(PendingPlaceholder)
    _set_ref(made, None)
    _set_trace(made, recording)
    _set_call(made, (source, spec, rest, code, lasti, len(recording.nodes)))
    return made


def _users(frame: FrameType | None) -> tuple[CodeType | None, int]:
    """The user's instruction that led to this frame."""
    while frame is not None and PASSED_OVER[frame.f_code.co_filename]:
        if frame.f_code.co_filename in LOOKS_FIRST:
            raise _looks_first(frame)
        frame = frame.f_back
    return (None, -1) if frame is None else (frame.f_code, frame.f_lasti)
