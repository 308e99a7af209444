"""Operators and pipelines as class methods and static methods.

    @flow.pipeline      on every Python: the pipeline knows that it is bound to the class
    @classmethod

    @classmethod        up to Python 3.12 the same. Since 3.13, classmethod binds nothing below it: `Model.p(x)` calls
    @flow.pipeline      the pipeline with the class first, and `Model.p.run(x)` calls it without any class

Of the second, since 3.13, the call is what it was; all else would lose the class, and is refused.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

__all__ = ["CHAINS", "MethodKind", "bound_to", "class_body", "class_first", "is_hidden", "put_above", "unwrapped"]

MethodKind = type[Any] | None
"""classmethod or staticmethod, if one stands below; None for a plain function, which may be a method of instances."""

CHAINS: Final = sys.version_info < (3, 13)
"""Whether classmethod binds what is below it by its `__get__`."""


def unwrapped(method: Any) -> tuple[Any, MethodKind]:
    """The function that a classmethod or a staticmethod is made of, and which of them that is."""
    return method.__func__, classmethod if isinstance(method, classmethod) else staticmethod


def bound_to(kind: MethodKind, instance: Any, owner: type | None) -> Any:
    """What a method of this kind is bound to, when it is looked up so; None for nothing."""
    if kind is classmethod:
        if owner is not None:
            return owner
        return instance if isinstance(instance, type) else type(instance)  # bound anew, or looked up by hand
    return instance if kind is None else None


def class_body(fn: Any) -> Mapping[str, Any] | None:
    """The names of the class in whose body this function is declared, if a classmethod above could hide that class."""
    within = "" if CHAINS else getattr(fn, "__qualname__", "").rpartition(".")[0]
    if not within or within[-1] == ">":  # of a function, "<locals>"
        return None
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_FAR):
        if frame is None:
            break
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED and frame.f_locals.get("__qualname__") == within:
            return frame.f_locals
        frame = frame.f_back
    return None


_FAR: Final = 10
"""How many functions of the user's may be between a class and `flow.op` or `flow.pipeline`."""


def is_hidden(declared: Any, names: Mapping[str, Any]) -> bool:
    """Whether the class that has these names has this below a classmethod."""
    return any(isinstance(found, classmethod) and _is_of(found.__func__, declared) for found in list(names.values()))


def _is_of(below: Any, declared: Any) -> bool:
    """Also of what was made of one by `.on` and the like."""
    return isinstance(below, type(declared)) and below._fn is declared._fn


def class_first(declared: Any, args: tuple[Any, ...]) -> bool:
    """Whether the first argument is the class on which such a classmethod was called."""
    if not args or not isinstance(args[0], type):
        return False
    return any(is_hidden(declared, vars(each)) for each in args[0].__mro__)


def put_above(name: str, decorator: Callable[..., Any]) -> TypeError:
    """For what such a classmethod has left without its class."""
    above = f"@flow.{decorator.__name__}"
    return TypeError(
        f"{name} is below @classmethod, which since Python 3.13 does not tell it the class: put {above} above "
        "@classmethod"
    )
