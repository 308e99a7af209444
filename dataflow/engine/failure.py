"""What becomes of an exception on its way from an operator to the awaiter.

The awaiter gets the operator's own exception, so that `except ValueError` works, with one note that says where it
comes from. Five kinds would be mistaken for something else on the way and travel as the cause of an OperatorError.

An exception that is raised again (a module-level instance, a cached one) must not grow: our notes are replaced, not
added to, and the traceback of an earlier delivery is cut off. Nothing here keeps a frame of ours alive: the
traceback that leaves starts in the user's function.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from dataflow.errors import OperatorError
from dataflow.graph.nodes import Kind, Node

__all__ = ["also_failed", "arrive", "cut", "wrong_result"]

_PREFIX = "dataflow: "
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_NEVER_RAW = (StopIteration, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit)


def arrive(exc: BaseException, node: Node, pipeline: str, values: Any) -> BaseException:
    """The exception that the awaiter will get for `exc`, which this node's operator raised on these values."""
    nested = cut(exc)
    note = _note(exc, node, pipeline, values)
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
        _add_note(error, f"{_PREFIX}also failed: operator {node.spec.name!r}, {_line(other)}")


def cut(exc: BaseException) -> bool:
    """Cut our frames, and those of an earlier delivery, off the traceback; returns whether a nested run's are left."""
    traceback = exc.__traceback__
    while traceback is not None and _ours(traceback.tb_frame):
        traceback = traceback.tb_next
    if traceback is not None and _has_note(exc):
        traceback = _this_time_only(traceback)
    BaseException.with_traceback(exc, traceback)
    while traceback is not None:
        if _ours(traceback.tb_frame):
            return True
        traceback = traceback.tb_next
    return False


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


def _this_time_only(traceback: TracebackType) -> TracebackType:
    """The entries up to where the chain no longer follows the calls: what is behind was there before the raise."""
    entries = [traceback]
    while (after := entries[-1].tb_next) is not None and after.tb_frame.f_back is entries[-1].tb_frame:
        entries.append(after)
    kept: TracebackType | None = None
    for entry in reversed(entries):
        kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept or traceback


def _note(exc: BaseException, node: Node, pipeline: str, values: Any) -> str:
    spec = node.spec
    text = f"{_PREFIX}in operator {spec.name!r}, node {node.number} of pipeline {pipeline!r}"
    if spec.declared:
        text += f", declared at {spec.declared}"
    if spec.kind in (Kind.RECORDED, Kind.PLUMBING) or not spec.declared:
        text += f", recorded at {node.where}"
    arrays = list(_shapes(values))
    if arrays:
        text += f", on {', '.join(arrays)}"
    if isinstance(exc, ValueError) and any(word in str(exc) for word in ("read-only", "WRITEABLE", "readonly")):
        text += "\n  An array that others read too is handed out read-only: work on a copy of it (`x = x.copy()`)."
    return text


def _shapes(values: Any) -> list[str]:
    found: list[str] = []
    for value in values:
        if isinstance(value, np.ndarray):
            found.append(f"{value.dtype}[{', '.join(map(str, value.shape))}]")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, np.ndarray) for item in value):
            inner = ", ".join(_shapes(value[:8]))
            found.append(f"{type(value).__name__}({inner}{', …' if len(value) > 8 else ''})")
    return found


def _line(exc: BaseException) -> str:
    text = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {text[0]}" if text else type(exc).__name__


def _has_note(exc: BaseException) -> bool:
    return any(isinstance(note, str) and note.startswith(_PREFIX) for note in getattr(exc, "__notes__", ()))


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
