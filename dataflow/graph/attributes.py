"""The attributes of an object that are its own, and not its class's: which these are is said here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

__all__ = ["dict_of", "has_attributes", "own_attributes"]


def own_attributes(value: object) -> Iterator[tuple[str, Any]]:
    """The names and values of what an object has in its `__dict__`, and then in the slots of its classes.

    What its class has does not count, nor properties, slots that were never set, and the slots `__dict__` and
    `__weakref__`. A private slot has the name under which Python finds it. Runs no code of the object's class, and
    another thread may set attributes meanwhile.

    >>> class Point:
    ...     __slots__ = ("x", "y", "__dict__")
    ...     kind = "point"
    >>> point = Point()
    >>> point.x, point.label = 1, "a"
    >>> list(own_attributes(point))
    [('label', 'a'), ('x', 1)]
    """
    kind: Any = type(value)
    yield from dict(dict_of(value)).items()
    for name in _slots(kind):
        try:
            yield name, object.__getattribute__(value, name)
        except AttributeError:
            pass  # declared, never set


@lru_cache(maxsize=1024)
def has_attributes(kind: Any) -> bool:
    """Whether objects of this type may have attributes of their own."""
    return kind.__dictoffset__ != 0 or bool(_slots(kind))


def dict_of(value: object) -> Mapping[str, Any]:
    """The `__dict__` of an object itself, also to be changed; an empty one if all its attributes are in slots."""
    try:
        return cast("Mapping[str, Any]", object.__getattribute__(value, "__dict__"))
    except AttributeError:
        return {}


@lru_cache(maxsize=1024)
def _slots(kind: Any) -> tuple[str, ...]:
    found: list[str] = []
    for each in kind.__mro__:
        names = each.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            private = name.startswith("__") and not name.endswith("__")
            found.append(f"_{each.__name__.lstrip('_')}{name}" if private else name)
    return tuple(name for name in dict.fromkeys(found) if name not in ("__dict__", "__weakref__"))
