"""What the interpreter's bytecode tells of an instruction."""

from __future__ import annotations

import dis
from types import CodeType

__all__ = ["raises"]


def raises(code: CodeType, lasti: int) -> bool:
    """Whether the instruction there raises by itself (`raise ...`), rather than calls something that raised."""
    return 0 <= lasti < len(code.co_code) and dis.opname[code.co_code[lasti]] == "RAISE_VARARGS"
