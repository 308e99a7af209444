"""How many names a user's instruction unpacks into: `a, b = node` asks for an iterator, and the bytecode knows of two.

    UNPACK_SEQUENCE 2          what the caller's frame is executing while it calls `__iter__`
    STORE_FAST a, STORE_FAST b

Anything else that iterates (`for`, `list(node)`, `f(*node)`) does not know beforehand how many it will take.

`co_code` is the code as it was compiled: without the interpreter's specialisations and without what debuggers, coverage
and `sys.monitoring` have put there. Sources: CPython's `Python/bytecodes.c`, and the documentation of `dis`.
"""

from __future__ import annotations

import dis
from types import FrameType
from typing import Final

__all__ = ["names_to_unpack", "unpack"]

_UNPACK: Final = dis.opmap["UNPACK_SEQUENCE"]
_EXTENDED: Final = dis.opmap["EXTENDED_ARG"]


def names_to_unpack(frame: FrameType | None) -> int | None:
    """How many names the instruction of this frame unpacks into; None if it does not unpack."""
    if frame is None:
        return None
    code, at = frame.f_code.co_code, frame.f_lasti
    if at < 0 or code[at] != _UNPACK:
        return None
    count, shift = code[at + 1], 8
    while at >= 2 and code[at - 2] == _EXTENDED:
        at -= 2
        count |= code[at + 1] << shift
        shift += 8
    return count


def unpack(value: object, count: int) -> tuple[object, ...]:
    """What `a, b = value` does at run time: exactly `count` items, or the ValueError of the statement.

    >>> unpack("ab", 2)
    ('a', 'b')
    """
    items: list[object] = []
    for item in value:  # type: ignore[attr-defined]  # TypeError if it cannot be iterated, as the statement's
        if len(items) == count:
            raise ValueError(f"too many values to unpack (expected {count})")
        items.append(item)
    if len(items) < count:
        raise ValueError(f"not enough values to unpack (expected {count}, got {len(items)})")
    return tuple(items)
