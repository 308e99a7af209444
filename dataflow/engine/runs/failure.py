"""What becomes of an exception on its way from an operator to the awaiter.

The awaiter gets the operator's own exception, so that `except ValueError` works, with one note that says where it
comes from. Five kinds would be mistaken for something else on the way and travel as the cause of an OperatorError.

An exception that is raised again (a module-level instance, a cached one) must not grow: our notes are replaced, not
added to, and the traceback of an earlier delivery is cut off. Nothing here keeps a frame of ours alive: the
traceback that leaves starts in the user's function.

Such an instance may be raised by several threads at the same moment, and its traceback may hold frames that another
thread executes. So of a traceback's entries only `tb_next`, `tb_lasti`, `tb_lineno` and the frame's `f_code` are read,
which never change: reading `f_locals` or `f_back` of a frame that runs elsewhere crashes a free-threaded interpreter.
What an entry cannot tell, the exception itself is marked with (`_MARK`). Notes are replaced by one assignment.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from types import CodeType, TracebackType
from typing import Any

import numpy as np

from dataflow import errors
from dataflow.errors import OperatorError, OperatorTimeout
from dataflow.graph.diagnostics.bytecode import raises
from dataflow.graph.nodes import Graph, Kind, Node, Ref
from dataflow.graph.once import close_coroutines, described, is_coroutine, is_generator, is_later, is_once
from dataflow.graph.plan import Plan
from dataflow.graph.readonly import PLAIN_RESULT
from dataflow.graph.stateful import is_stateful

__all__ = [
    "NO_RUN",
    "also_failed",
    "annotate",
    "arrive",
    "attempted",
    "cut",
    "delivered",
    "forget_item",
    "in_item",
    "in_one_line",
    "timed_out",
    "trimmed",
    "wrong_result",
]

_PREFIX = "dataflow: "
_PACKAGE = os.path.dirname(os.path.abspath(errors.__file__)) + os.sep
_NEVER_RAW = (StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit)
_DELIVERS = frozenset({"outcome", "serial"})
"""The functions of ours that raise in front of an awaiter what an operator had raised."""
_MARK = "__dataflow_inside__"
"""The attribute that says of a delivered exception which run the delivering one was inside of."""
_IN_ITEM = f"{_PREFIX}in item "
_ITEM = "__dataflow_item__"
"""The attribute that says which number we have put into `item`."""


NO_RUN = 0
"""The number of no run: marks what was delivered by a run that is inside of no other."""


def delivered(exc: BaseException, run: int, outer: int, node: Node | None, graph: Graph) -> None:
    """An exception is about to be delivered by this run, which is inside of run `outer`: say so on it.

    Where it failed at a node for an item of a map, say that as well; it may be in an item of a map inside of this one.
    """
    if _marked(exc) != run:
        forget_item(exc)
    item = None if node is None else graph.item_of(node)
    if item is not None:
        in_item(exc, item, f"the {graph.name}")
    mark(exc, outer)


def mark(exc: BaseException, outer: int) -> None:
    """Note that a run delivers this exception that is inside of run `outer`.

    Whoever meets the exception again can tell an inner run's failure on its way out from an instance that was raised
    anew. The exception's own `__setattr__` is passed by: a frozen one takes the mark as well.
    """
    with suppress(Exception):
        object.__setattr__(exc, _MARK, outer)


def _marked(exc: BaseException) -> int | None:
    """The number that `mark` left; None: no run has delivered it yet."""
    try:
        found = object.__getattribute__(exc, _MARK)
    except AttributeError:
        return None
    return found if isinstance(found, int) else None


def annotate(exc: BaseException, node: Node, graph: Graph, values: Any, run: int, outer: int) -> None:
    """Only the note, unless an inner run has left one: its is nearer to the cause. For `run`, inside of `outer`."""
    _set_note(exc, _note(exc, node, graph, values), keep=_marked(exc) == run)
    delivered(exc, run, outer, node, graph)


def arrive(exc: BaseException, node: Node, graph: Graph, values: Any, run: int) -> BaseException:
    """The exception that the awaiter of this run gets for `exc`, which this node's operator raised on these values."""
    nested = cut(exc, run)
    note = _note(exc, node, graph, values)
    if isinstance(exc, _NEVER_RAW):
        error: BaseException = OperatorError(
            f"operator {node.spec.name!r} raised {type(exc).__name__}, which cannot be passed on as it is"
        )
        error.__cause__ = exc
        mark(exc, NO_RUN)  # it is delivered with the error
    else:
        error = exc
    _set_note(error, note, keep=nested)
    return error


def also_failed(error: BaseException, others: list[tuple[Node, BaseException]], graph: Graph) -> None:
    """Attach to the failure that is delivered the ones that came to light with it."""
    for node, other in others:
        item = graph.item_of(node)
        where = "" if item is None else f" in item {item}"
        _add_note(error, f"{_PREFIX}also failed: operator {node.spec.name!r}{where}, {in_one_line(other)}")


def attempted(error: BaseException, attempts: int) -> None:
    """Say in a further note how many attempts were made, of which this failure ended the last."""
    _add_note(error, f"{_PREFIX}{attempts} attempts were made, and this is how the last one failed")


def timed_out(node: Node, graph: Graph, seconds: float) -> OperatorTimeout:
    """The failure of an attempt that took longer than it may."""
    spec = node.spec
    remedy = (
        "look at what it awaits, or give it a longer timeout"
        if spec.kind is Kind.ASYNC
        else "a kernel cannot be interrupted, so this one keeps its inter-op thread until it returns: let it call "
        "flow.checkpoint() now and then, or give it a longer timeout"
    )
    return OperatorTimeout(
        f"operator {spec.name!r}, node {node.number} of pipeline {graph.name!r}, took longer than its timeout of "
        f"{seconds:g} s; {remedy}"
    )


def in_item(exc: BaseException, number: int, of: str) -> None:
    """Say which item of a stream or a map failed: in a note, and by the attribute `item`.

    What is inside of others has a note for each, and the number in the outermost that it has left: that is the number
    of what its awaiter gave. An attribute `item` that the exception has of its own is left alone.
    """
    _add_note(exc, f"{_IN_ITEM}{number} of {of} (the first is item 0)")
    with suppress(Exception):
        held = object.__getattribute__(exc, "__dict__")
        if _is_ours(held) or not ("item" in held or any("item" in vars(cls) for cls in type(exc).__mro__)):
            held["item"] = held[_ITEM] = number


def forget_item(exc: BaseException) -> None:
    """What an earlier delivery said of its item is true no more."""
    with suppress(Exception):
        held = object.__getattribute__(exc, "__dict__")
        if _is_ours(held):
            del held["item"]
        held.pop(_ITEM, None)
        if any(_begins(note, _IN_ITEM) for note in held.get("__notes__", ())):
            held["__notes__"] = [note for note in held["__notes__"] if not _begins(note, _IN_ITEM)]


def _is_ours(held: dict[str, Any]) -> bool:
    """Whether the attribute `item` among these is one that we have set."""
    return _ITEM in held and held.get("item") is held[_ITEM]


def trimmed(exc: BaseException) -> BaseException:
    """The exception without our frames at the beginning of its traceback; what was raised by no operator."""
    return BaseException.with_traceback(exc, _behind_ours(exc.__traceback__))


def cut(exc: BaseException, run: int) -> bool:
    """Cut our frames, and those of earlier deliveries, off the traceback; returns whether an inner run delivered it.

        never delivered      ours ▸ kernel ▸ helper
        by an inner run      ours ▸ kernel ▸ … outcome ▸ inner kernel ▸ helper
        raised again         ours ▸ kernel ▸ helper │ earlier awaiters ▸ … outcome ▸ earlier kernel ▸ earlier helper

    Entries are added in front as an exception passes through frames, so what is new ends with whoever raised.
    """
    traceback = _behind_ours(exc.__traceback__)
    delivered_inside = _marked(exc)
    inner = delivered_inside == run
    if delivered_inside is not None and not inner:
        traceback = _newest(traceback)
    BaseException.with_traceback(exc, traceback)
    return inner


def _behind_ours(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and _ours(traceback.tb_frame.f_code) and not _delivers(traceback):
        traceback = traceback.tb_next
    return traceback


def _newest(traceback: TracebackType | None) -> TracebackType | None:
    """A copy of the entries up to the one that raised the instance this time.

    An instance that C code has raised (the result of a future) has no such entry: then all up to the awaiters of the
    earlier delivery stay, and the next delivery cuts them off.
    """
    entries: list[TracebackType] = []
    entry = traceback
    while entry is not None and not _delivers(entry):
        entries.append(entry)
        after = entry.tb_next
        raises_here = raises(entry.tb_frame.f_code, entry.tb_lasti)
        # `except E as e: raise e` has two entries for its frame: the raise, and the call that it was raised by.
        if raises_here and (after is None or after.tb_frame is not entry.tb_frame):
            break
        entry = after
    else:
        while len(entries) > 1 and _ours(entries[-1].tb_frame.f_code):
            entries.pop()
    copied = None
    for entry in reversed(entries):
        copied = TracebackType(copied, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return copied


def _delivers(entry: TracebackType) -> bool:
    """Whether a run raised here what an operator of it had raised."""
    code = entry.tb_frame.f_code
    return code.co_name in _DELIVERS and _ours(code)


def wrong_result(result: Any, node: Node, plan: Plan) -> TypeError | None:
    """The error for a result that is no value: still to be awaited, a generator, or gone for its second reader.

    What merely can be awaited as well is a value. An `async def` may return generators and Futures, but no coroutine.
    """
    kind: Any = type(result)
    name = node.spec.name
    if node.spec.kind is Kind.ASYNC:
        if is_coroutine(kind):
            what = described(result)
            close_coroutines(result)
            return TypeError(
                f"async operator {name!r} returned {what}, which nobody has awaited: await it there, `return await ...`"
            )
    elif is_later(kind):
        what = described(result)
        close_coroutines(result)
        return TypeError(
            f"operator {name!r} is a plain function but returned an awaitable, {what}: "
            "declare it with `async def`, or return the value itself"
        )
    elif is_generator(kind):
        return TypeError(
            f"operator {name!r} returned a generator: an operator's result is one value; "
            "return a list or an array instead of using `yield`"
        )
    if is_once(result) and (reason := plan.disorder(node.number)):
        return TypeError(
            f"operator {name!r} returned {described(result)}, which gives its items once, and {reason}: "
            "return a list, list(...), or let one operator read it"
        )
    if is_stateful(kind) and (reason := plan.disorder(node.number)):
        return TypeError(
            f"operator {name!r} returned {described(result)}, which each use changes, and {reason}: "
            "declare with inout= that they change it, or put the later one into `with flow.after(...)`"
        )
    return None


def _ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_PACKAGE)


def _note(exc: BaseException, node: Node, graph: Graph, values: Any) -> str:
    spec = node.spec
    label, scope = graph.labels.get(node.number), graph.scopes.get(node.number)
    named = f"{node.number}{f' {label!r}' if label else ''}{f' in scope {scope!r}' if scope else ''}"
    text = f"{_PREFIX}in operator {spec.name!r}, node {named} of pipeline {graph.name!r}"
    if spec.declared:
        text += f", declared at {spec.declared}"
    if spec.kind in (Kind.RECORDED, Kind.PLUMBING) or not spec.declared:
        text += f", recorded at {node.where}"
    arrays = _shapes([*values, *node.args, *node.kwargs.values()])
    if arrays:
        text += f", on {', '.join(arrays)}"
    given = [*values, *(argument for argument in node.args if type(argument) is not Ref)]
    if _wrote_to_read_only(exc) and not PLAIN_RESULT.issuperset(map(type, given)):
        text += _REMEDY
    return text


_READ_ONLY = re.compile(
    r"read[- ]?only|read-write|writ(e)?able|output array is not acceptable|cannot resize this array"
    r"|Assignment destination is a view",
    re.IGNORECASE,
)
"""What numpy, Python, ctypes, Cython, numba, xarray and h5py say when somebody writes to what is read-only."""
_REMEDY = (
    "\n  What others read too, or what is the caller's, is handed out read-only: work on a copy of it "
    '(`x = x.copy()`), or say what the operator writes into: with `@flow.op(writes=("x",))` it is given a copy, with '
    '`inout=("x",)` the very object that the caller has.'
)


def _wrote_to_read_only(exc: BaseException) -> bool:
    """Whether this says that a buffer is read-only; attributes and files may be as well, which is another matter."""
    return (
        isinstance(exc, Exception)
        and not isinstance(exc, (OSError, AttributeError, LookupError))
        and _READ_ONLY.search(_text(exc)) is not None
    )


def _shapes(values: Any, depth: int = 4) -> list[str]:
    """Of the arrays among them, and of those in lists and the like; which may be in themselves."""
    found: list[str] = []
    for value in values:
        if isinstance(value, np.ndarray):
            found.append(f"{value.dtype}[{', '.join(map(str, value.shape))}]")
        elif depth and isinstance(value, (list, tuple, dict)):
            items = list(value.values()) if isinstance(value, dict) else value
            if any(isinstance(item, np.ndarray) for item in items):
                inner = ", ".join(_shapes(items[:8], depth - 1))
                found.append(f"{type(value).__name__}({inner}{', …' if len(items) > 8 else ''})")
    return found


def in_one_line(exc: BaseException) -> str:
    """Its type, and the first line of what it says."""
    text = _text(exc).strip().splitlines()
    return f"{type(exc).__name__}: {text[0]}" if text else type(exc).__name__


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # its own trouble must not take its place
        return ""


def _set_note(exc: BaseException, note: str, *, keep: bool) -> None:
    """Our one note. What an inner run said (`keep`) is nearer to the cause than what we could add."""
    with suppress(Exception):
        if not keep or not any(_begins(old, _PREFIX) for old in getattr(exc, "__notes__", [])):
            _replace_note(exc, _PREFIX, note)


def _add_note(exc: BaseException, note: str) -> None:
    with suppress(Exception):  # an exception may refuse attributes; it is delivered all the same
        exc.add_note(note)


def _replace_note(exc: BaseException, prefix: str, note: str) -> None:
    """The note in place of those that begin with the prefix.

    All at once: two threads that note one instance at the same moment leave one note, not two.
    """
    with suppress(Exception):
        notes: list[Any] = getattr(exc, "__notes__", [])
        exc.__notes__ = [*(old for old in notes if not _begins(old, prefix)), note]


def _begins(note: Any, prefix: str) -> bool:
    return isinstance(note, str) and note.startswith(prefix)
