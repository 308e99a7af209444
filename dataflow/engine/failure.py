"""What becomes of an exception on its way from an operator to the awaiter.

The awaiter gets the operator's own exception, so that `except ValueError` works, with one note that says where it
comes from. Five kinds would be mistaken for something else on the way and travel as the cause of an OperatorError.

An exception that is raised again (a module-level instance, a cached one) must not grow: our notes are replaced, not
added to, and the traceback of an earlier delivery is cut off. Nothing here keeps a frame of ours alive: the
traceback that leaves starts in the user's function.
"""

from __future__ import annotations

import asyncio
import dis
import inspect
import os
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from dataflow.errors import OperatorError, OperatorTimeout
from dataflow.graph.nodes import Graph, Kind, Node

__all__ = [
    "also_failed",
    "annotate",
    "arrive",
    "attempted",
    "cut",
    "in_item",
    "in_one_line",
    "timed_out",
    "trimmed",
    "wrong_result",
]

_PREFIX = "dataflow: "
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_NEVER_RAW = (StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit)


def annotate(exc: BaseException, node: Node, graph: Graph, values: Any, run: int) -> None:
    """Only the note, unless an inner run has left one: its is nearer to the cause."""
    inner = False
    entry = exc.__traceback__  # begins in our caller, which still runs: its locals hold the exception
    entry = entry.tb_next if entry is not None else None
    while entry is not None and not inner:
        number = _delivered(entry)
        inner = number is not None and number > run
        entry = entry.tb_next
    _set_note(exc, _note(exc, node, graph, values), keep=inner)


def arrive(exc: BaseException, node: Node, graph: Graph, values: Any, run: int) -> BaseException:
    """The exception that the awaiter of this run gets for `exc`, which this node's operator raised on these values."""
    nested = cut(exc, run)
    note = _note(exc, node, graph, values)
    if isinstance(exc, _NEVER_RAW):
        error: BaseException = OperatorError(
            f"operator {node.spec.name!r} raised {type(exc).__name__}, which cannot be passed on as it is"
        )
        error.__cause__ = exc
    else:
        error = exc
    _set_note(error, note, keep=nested)
    return error


def also_failed(error: BaseException, others: list[tuple[Node, BaseException]]) -> None:
    """Attach to the failure that is delivered the ones that came to light with it."""
    for node, other in others:
        _add_note(error, f"{_PREFIX}also failed: operator {node.spec.name!r}, {in_one_line(other)}")


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


def in_item(exc: BaseException, number: int) -> None:
    """Note which item of a stream failed; what an earlier delivery said of that is replaced."""
    prefix = f"{_PREFIX}in item "
    with suppress(Exception):
        notes: list[Any] = exc.__notes__
        exc.__notes__ = [note for note in notes if not (isinstance(note, str) and note.startswith(prefix))]
    _add_note(exc, f"{prefix}{number} of the stream (the first is item 0)")


def trimmed(exc: BaseException) -> BaseException:
    """The exception without our frames at the beginning of its traceback; what was raised by no operator."""
    traceback = exc.__traceback__
    while traceback is not None and _ours(traceback.tb_frame) and _delivered(traceback) is None:
        traceback = traceback.tb_next
    return BaseException.with_traceback(exc, traceback)


def cut(exc: BaseException, run: int) -> bool:
    """Cut our frames, and those of earlier deliveries, off the traceback; returns whether an inner run's are left."""
    traceback = exc.__traceback__
    while traceback is not None and _ours(traceback.tb_frame) and _delivered(traceback) is None:
        traceback = traceback.tb_next
    entries: list[TracebackType] = []
    border = None
    inner = False
    entry = traceback
    while entry is not None:
        delivered = _delivered(entry)
        if delivered is not None:
            if delivered <= run:
                border = _border(entries)
                break
            inner = True
        entries.append(entry)
        entry = entry.tb_next
    if border is None and entries and isinstance(exc, _NEVER_RAW):  # never delivered itself: only called frames are new
        border = _border(entries)
    if border is not None:
        traceback = None
        inner = any(_delivered(entry) is not None for entry in entries[: border + 1])
        for entry in reversed(entries[: border + 1]):
            traceback = TracebackType(traceback, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    BaseException.with_traceback(exc, traceback)
    return inner


def _delivered(entry: TracebackType) -> int | None:
    """The number of the run that raised here what an operator of it had raised; runs that begin later are inner."""
    frame = entry.tb_frame
    if frame.f_code.co_name in ("outcome", "serial") and _ours(frame):
        return frame.f_locals.get("number")
    return None


def _border(entries: list[TracebackType]) -> int:
    """The last entry that belongs to the raise: behind it comes an awaiter of an earlier delivery."""
    for position in range(len(entries) - 1):
        entry, after = entries[position], entries[position + 1].tb_frame
        if _delivered(entry) is not None or after.f_back is entry.tb_frame:
            continue
        # Python 3.11 forgets who awaited a coroutine that has ended; if the one before did not raise, it awaited.
        code = entry.tb_frame.f_code
        awaited = after.f_back is None and after.f_code.co_flags & code.co_flags & inspect.CO_COROUTINE
        if not awaited or dis.opname[code.co_code[entry.tb_lasti]] == "RAISE_VARARGS":
            return position
    return len(entries) - 1


def wrong_result(result: Any, name: str) -> TypeError | None:
    """The error for a plain function that returned something still to be awaited or iterated; None if it did not."""
    if hasattr(type(result), "__await__"):
        with suppress(Exception):
            result.close()  # else a "never awaited" warning would follow the error
        return TypeError(
            f"operator {name!r} is a plain function but returned an awaitable ({type(result).__name__}): "
            "declare it with `async def`, or return the value itself"
        )
    if type(result).__name__ in ("generator", "async_generator"):
        return TypeError(
            f"operator {name!r} returned a generator: an operator's result is one value; "
            "return a list or an array instead of using `yield`"
        )
    return None


def _ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


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
    if isinstance(exc, ValueError) and any(word in _text(exc) for word in ("read-only", "WRITEABLE", "readonly")):
        text += "\n  An array that others read too is handed out read-only: work on a copy of it (`x = x.copy()`)."
    return text


def _shapes(values: Any) -> list[str]:
    found: list[str] = []
    for value in values:
        if isinstance(value, np.ndarray):
            found.append(f"{value.dtype}[{', '.join(map(str, value.shape))}]")
        elif isinstance(value, (list, tuple, dict)):
            items = list(value.values()) if isinstance(value, dict) else value
            if any(isinstance(item, np.ndarray) for item in items):
                inner = ", ".join(_shapes(items[:8]))
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


def _has_note(exc: BaseException) -> bool:
    notes = getattr(exc, "__notes__", None)
    return isinstance(notes, list) and any(isinstance(note, str) and note.startswith(_PREFIX) for note in notes)


def _set_note(exc: BaseException, note: str, *, keep: bool) -> None:
    """Our one note. What an inner run said (`keep`) is nearer to the cause than what we could add."""
    if _has_note(exc):
        if keep:
            return
        with suppress(Exception):
            notes: list[Any] = exc.__notes__
            exc.__notes__ = [n for n in notes if not (isinstance(n, str) and n.startswith(_PREFIX))]
    _add_note(exc, note)


def _add_note(exc: BaseException, note: str) -> None:
    with suppress(Exception):  # an exception may refuse attributes; it is delivered all the same
        exc.add_note(note)
