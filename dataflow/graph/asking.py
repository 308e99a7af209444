"""Whether somebody asks for the type of a placeholder: `isinstance`, `match`, `__class__`, `singledispatch`.

`isinstance(node, T)` reads `node.__class__`, and so does numpy, in C, to sort the types of a call's arguments; only the
first goes another way for it. The caller's bytecode tells them apart.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType, FrameType
from typing import Final

__all__ = ["asks_for_type"]

_BETWEEN: Final = frozenset({"abc", "typing", "_collections_abc"})
"""Modules that `isinstance` goes through on its way to the object."""
_ONLY_LOOK: Final = frozenset(
    {"logging", "pdb", "bdb", "pprint", "reprlib", "rlcompleter", "IPython", "_pydevd_bundle", "debugpy"}
)
"""Modules that ask for the type of what they are about to show, and go no other way because of it."""

_CALLS: Final = frozenset({"CALL", "PRECALL"})
"""Python 3.11 calls a specialised `isinstance` in its first half."""


def asks_for_type(frame: FrameType | None) -> bool:
    """Whether this frame, or who called `isinstance` through it, reads `__class__` to decide by it."""
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    if frame is None or str(frame.f_globals.get("__name__")).partition(".")[0] in _ONLY_LOOK:
        return False
    return _asks(frame.f_code, frame.f_lasti)


@lru_cache(maxsize=4096)
def _asks(code: CodeType, lasti: int) -> bool:
    instructions = list(dis.get_instructions(code))
    asking = next((each for each in instructions if each.offset == lasti), None)
    if asking is None:
        return False
    if asking.opname == "MATCH_CLASS":
        return True
    if asking.opname == "LOAD_ATTR":
        return bool(asking.argval == "__class__")
    if asking.opname not in _CALLS or asking.positions is None or asking.positions.col_offset is None:
        return False  # without columns (python -X no_debug_ranges) nobody knows what is called
    begin = asking.positions.lineno, asking.positions.col_offset
    return any(
        each.argval == "isinstance" and each.positions and begin == (each.positions.lineno, each.positions.col_offset)
        for each in instructions
        if each.opname.startswith("LOAD_")
    )
