"""Who still holds a placeholder when its body has returned: there it would be taken for a value.

    pd.Series([node])              given to an operator: nobody fills it in
    self.cache = node              the next trace finds it
    queue.put(lambda: node)        called when it means nothing any more

Placeholders refer to their trace, and only they, the trace itself and copies of its context do. So a trace that is
gone proves that no placeholder lives, which costs nothing. One that is not gone is looked at more closely, from here:
cost does not matter any more, but who only shows the body must not be taken for a holder. A debugger or a traceback may
hold its frames, and a log what was to be shown.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Container, Iterable
from functools import partial
from types import (
    AsyncGeneratorType,
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any, Final, NamedTuple
from weakref import ref

import numpy as np

from dataflow.graph.nodes import Graph
from dataflow.graph.templates import Literal
from dataflow.graph.tracing.tracer import Trace, Traced

__all__ = ["Outlived", "outlived"]


class Outlived(NamedTuple):
    """A placeholder that outlived its trace."""

    placeholder: Traced
    holder: str
    """Who holds it, in words."""


def outlived(trace: ref[Trace], graph: Graph) -> Outlived | None:
    """A placeholder of a finished trace that something holds; None if there is none. `graph` is what was recorded."""
    for generation in range(3):  # what the body left behind is young, unless it was much
        if trace() is None:
            return None
        gc.collect(generation)
    alive = _placeholders(trace)
    if not alive:
        return None  # a copy of the context holds the trace
    numbers = {id(each) for each in alive}
    found = _in_graph(graph, numbers)
    if found is not None:
        return found
    for placeholder in alive:
        if holder := _holder(placeholder, alive):
            return Outlived(placeholder, holder)
    return None


def _placeholders(trace: ref[Trace]) -> list[Traced]:
    """In the order of recording."""
    recording = trace()
    found = [] if recording is None else gc.get_referrers(recording)
    alive = [each for each in found if issubclass(type(each), Traced)]
    return sorted(alive, key=lambda each: sys.maxsize if each._ref is None else int(each._ref))


_ONLY_SHOW: Final = (FrameType, TracebackType, logging.LogRecord)

# ------------------------------------------------------------------------------------------------ down from the graph

_MOST: Final = 100_000
"""How many objects are looked at below what a graph holds."""
_HOLD_NOTHING: Final = (ModuleType, type, CodeType, str, bytes, int, float, complex, *_ONLY_SHOW)


def _in_graph(graph: Graph, wanted: set[int]) -> Outlived | None:
    """What was given to an operator, or returned, and holds a placeholder further inside than anybody fills it in."""
    seen: set[int] = set()
    for node in graph.nodes:
        for value in (*node.args, *node.kwargs.values()):
            found = _below(value, wanted, seen)
            if found is not None:
                return Outlived(found, f"{_a(value)} that {node.spec.name} is given at {node.where}")
    found = _below(graph.output, wanted, seen)
    return None if found is None else Outlived(found, f"{_a(graph.output)} that the body returned")


def _below(value: Any, wanted: set[int], seen: set[int]) -> Traced | None:
    todo = [value]
    while todo and len(seen) < _MOST:
        value = todo.pop()
        if id(value) in wanted:
            return value  # type: ignore[no-any-return]
        if id(value) not in seen and not issubclass(type(value), _HOLD_NOTHING):
            seen.add(id(value))
            todo += _referents(value)
    return None


def _referents(value: Any) -> Iterable[Any]:
    if type(value) is FunctionType:  # without its globals
        return (*(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__)
    if issubclass(type(value), np.ndarray):  # the collector does not know what an array holds
        return value.ravel()[:_MOST].tolist() if value.dtype == object else ()
    return gc.get_referents(value)


# ------------------------------------------------------------------------------------------------ up from a placeholder

_SAY_LITTLE: Final = (list, tuple, dict, set, frozenset, CellType, MethodType, partial, BaseException, Traced)
"""Containers of which it says more who holds them."""
_CALLED: Final = (FunctionType, GeneratorType, CoroutineType, AsyncGeneratorType, type)
_FAR: Final = 20
"""How many holders of holders are looked for."""
_UNSEEN: Final = "something that Python's collector does not look into, such as a Series or an array of objects"


def _holder(placeholder: Traced, alive: list[Traced]) -> str:
    """Who holds it, in words; empty for those who only show the body.

    Garbage is gone by now. So whatever holds it is held itself, and in the end by a module, by what the collector does
    not see, or by frames that somebody has kept; the last are no holders.
    """
    above: dict[int, tuple[Any, int]] = {id(placeholder): (placeholder, 0)}
    """All that hold it, each with the id of what it holds."""
    ours = {id(alive), id(above), *map(id, above.values())}
    level, shown = list(above), False
    for _ in range(_FAR):
        held = tuple([above[key][0] for key in level])  # the call below takes it as it is: no other is found
        unheld = set(level)
        ours.add(id(held))
        found: list[int] = []
        holders = gc.get_referrers(*held)  # looks at every object there is: once for all of a level
        for holder in holders:
            if id(holder) in ours:
                continue
            holds = unheld.intersection(map(id, gc.get_referents(holder)))
            unheld -= holds
            if issubclass(type(holder), _ONLY_SHOW):
                shown = True
            elif id(holder) not in above:
                key = next(iter(holds), 0) or _one_of(level, holder)
                above[id(holder)] = entry = holder, key
                ours.add(id(entry))
                found.append(id(holder))
        del holders, held  # they would be found as holders themselves
        last = next((key for key in level if key in unheld or _module_of(above[key][0])), 0)
        if last:
            return _described(above, last)
        if not found or len(above) > _MOST:
            break
        level = found
    return "" if shown else _described(above, level[0])


def _one_of(level: list[int], holder: Any) -> int:
    """What of these it holds."""
    return next(iter({*level}.intersection(map(id, gc.get_referents(holder)))), level[0])


def _described(above: dict[int, tuple[Any, int]], key: int) -> str:
    """What on the way down from here to the placeholder is closest to it and says something."""
    nearest = outermost = ""
    below = above[key][1]
    while below:
        holder, held = above[key][0], (below, above[below][1])
        nearest = _named(holder, held, above) or nearest
        outermost = outermost or ("" if issubclass(type(holder), Traced) else _a(holder))
        key, below = held
    return nearest or outermost or _UNSEEN


def _named(holder: Any, held: tuple[int, int], above: Container[int]) -> str:
    """How a holder is called, and where in it; empty for what others hold.

    `held` are what it holds and what that holds, which is more if that is its own dict; `above` are all on the way.
    """
    kind = type(holder)
    if kind is dict:
        module = _module_of(holder)
        return f"the global {_name_in(holder, held)!r} of {module}" if module else ""
    if kind is FunctionType:
        cells = zip(holder.__code__.co_freevars, holder.__closure__ or ())
        name = next((name for name, cell in cells if id(cell) in above), "")
        return f"the variable {name!r} of {_a(holder)}" if name else _a(holder)
    if issubclass(kind, _SAY_LITTLE):
        return ""
    if kind.__name__.startswith(("hamt", "Context", "Token")):
        return "a context variable"
    name = _name_in(getattr(holder, "__dict__", None), held)
    return f"the attribute {name!r} of {_a(holder)}" if name else _a(holder)


def _name_in(names: Any, held: tuple[int, int]) -> str:
    items = list(names.items()) if hasattr(type(names), "items") else []
    return next((str(key) for key, value in items if id(value) in held), "")


def _module_of(names: Any) -> str:
    """The module whose globals these are; empty for everything else."""
    name = names.get("__name__") if type(names) is dict else None
    module = sys.modules.get(name) if type(name) is str else None
    return str(name) if getattr(module, "__dict__", None) is names else ""


def _a(value: Any) -> str:
    value = value.value if type(value) is Literal else value
    name = type(value).__name__
    if issubclass(type(value), _CALLED):
        return f"the {name} {value.__qualname__}"
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
