"""Whether somebody asks for the type of a placeholder: `isinstance`, `match`, `__class__`, `singledispatch`."""

from __future__ import annotations

from types import CodeType, FrameType
from typing import Final

__all__ = ["asks_for_type"]

_BETWEEN: Final = frozenset({"abc", "typing", "_collections_abc"})
"""Modules that `isinstance` goes through on its way to the object."""
_ONLY_LOOK: Final = frozenset(
    {"logging", "pdb", "bdb", "pprint", "reprlib", "rlcompleter", "IPython", "_pydevd_bundle", "debugpy"}
)
"""Modules that ask for the type of what they are about to show, and go no other way because of it."""


def asks_for_type(frame: FrameType | None, dispatching: tuple[CodeType, int] | None) -> bool:
    """Whether `__class__` is read to decide by it: by whoever this frame runs, or through it `isinstance`.

    All who read it do so to decide, by whatever way they came to `isinstance`, but for two: those who only show the
    object, and numpy's dispatch of functions, which sorts the types of the arguments. `dispatching` is the instruction
    that called the latter, if it is at work.
    """
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    if frame is None or str(frame.f_globals.get("__name__")).partition(".")[0] in _ONLY_LOOK:
        return False
    return (frame.f_code, frame.f_lasti) != dispatching
