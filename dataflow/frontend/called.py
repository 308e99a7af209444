"""What is called: the signature of a function, and what a call with wrong arguments is told.

The signature is that of the function that is called. `functools.wraps` says that a wrapper looks like what it wraps; it
may supply, rename or reorder arguments all the same, so what it wraps tells nothing of a call. Of wrappers that are no
Python code (`functools.cache`, numba's and jax's) it does: they pass on what they get.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from functools import partial
from types import FunctionType, MethodType
from typing import Any, cast

from dataflow.graph.nodes import Declared

__all__ = ["BELOW_THE_WRAPPER", "call_error", "shown", "signature_of", "wraps_unseen"]

_HOW: dict[str, Any] = {"follow_wrapped": False}
if sys.version_info >= (3, 14):
    from annotationlib import Format

    _HOW["annotation_format"] = Format.FORWARDREF  # annotations may name what is imported for type checkers alone

BELOW_THE_WRAPPER = "declare it below the decorator that wraps it, next to the function"


def signature_of(fn: Any) -> inspect.Signature:
    """The signature of what is called. TypeError and ValueError if there is none, as of some builtins."""
    return inspect.signature(_own(fn), **_HOW)


def wraps_unseen(fn: Any) -> bool:
    """Whether this is a wrapper that takes anything, so that nobody knows which argument is which."""
    if not hasattr(fn, "__wrapped__"):
        return False
    try:
        parameters = signature_of(fn).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _passes_on(fn: Any) -> bool:
    """Whether this is a wrapper that is no Python code, and says nothing of parameters of its own."""
    if not hasattr(fn, "__wrapped__") or isinstance(fn, (FunctionType, MethodType, partial, type)):
        return False
    if isinstance(getattr(type(fn), "__call__", None), FunctionType):  # noqa: B004
        return False
    try:
        parameters = inspect.signature(fn, **_HOW).parameters.values()
    except (TypeError, ValueError):
        return True
    return all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _own(fn: Any) -> Any:
    """What is called in the end, without a `__signature__` that `functools.wraps` copied from what it wraps."""
    while isinstance(fn, Declared) or _passes_on(fn):
        given = getattr(fn, "__dict__", {}).get("__signature__")
        if given is not None:
            return _like(given)
        fn = fn.__wrapped__
    if isinstance(fn, partial):
        func = _own(fn.func)
        return fn if func is fn.func else partial(func, *fn.args, **fn.keywords)
    if isinstance(fn, MethodType):
        func = _own(fn.__func__)
        return fn if func is fn.__func__ else MethodType(func, fn.__self__)
    given = getattr(fn, "__dict__", {}).get("__signature__")
    wrapped = getattr(fn, "__wrapped__", None)
    if not isinstance(fn, FunctionType) or given is None or given is not getattr(wrapped, "__signature__", None):
        return fn
    bare = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    bare.__kwdefaults__ = fn.__kwdefaults__
    return bare


def _like(signature: inspect.Signature) -> FunctionType:
    """A function of this signature."""

    def stands_for(*args: Any, **kwargs: Any) -> None: ...

    stands_for.__signature__ = signature  # type: ignore[attr-defined]
    return cast(FunctionType, stands_for)


def call_error(
    name: str, parameters: Iterable[inspect.Parameter], kwargs: dict[str, Any], error: TypeError
) -> TypeError:
    """What a call is told that does not bind: the first keyword that there is not, and what there is."""
    parameters = list(parameters)
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    wrong = [] if any(p.kind is p.VAR_KEYWORD for p in parameters) else [key for key in kwargs if key not in names]
    what = f"got an unexpected keyword argument {wrong[0]!r}" if wrong else str(error)
    return TypeError(f"{name}() {what}: it takes {shown(parameters)}")


def shown(parameters: Iterable[inspect.Parameter]) -> str:
    """The names of parameters: "(x, by=…, *, offset=…)"."""
    bare = [p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else _DEFAULT) for p in parameters]
    return str(inspect.Signature(bare))


class _Default:
    def __repr__(self) -> str:
        return "…"


_DEFAULT = _Default()
