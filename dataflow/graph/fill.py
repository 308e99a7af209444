"""Putting values back where a graph's Refs stand: in the arguments of a node, and in what a body returned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from dataflow.graph.guard import guard_constant
from dataflow.graph.nodes import Node, Ref

__all__ = ["Call", "Template", "direct", "fill", "output_template"]


def direct(node: Node) -> bool:
    """Whether the arguments of this node are all positional, and none holds a Ref inside."""
    return not node.nested and not node.kwargs


class Call:
    """Calls a node's function with arguments that are rebuilt from the values it reads."""

    __slots__ = ("_args", "_fn", "_kwargs", "_reads")

    def __init__(self, node: Node) -> None:
        self._fn: Callable[..., Any] = node.spec.fn
        self._reads = node.reads
        self._args = tuple(a if _holds_ref(a) else guard_constant(a) for a in node.args)
        self._kwargs = {k: v if _holds_ref(v) else guard_constant(v) for k, v in node.kwargs.items()}

    def __call__(self, *values: Any) -> Any:
        known = dict(zip(self._reads, values, strict=True))
        args = [fill(a, known) for a in self._args]
        kwargs = {k: fill(v, known) for k, v in self._kwargs.items()}
        del known, values
        return self._fn(*args, **kwargs)


def fill(template: Any, known: Mapping[int, Any]) -> Any:
    """The template with every Ref replaced by its value; containers are new, everything else is passed on."""
    kind = type(template)
    if kind is Ref:
        return known[template]
    if kind is list:
        return [fill(item, known) for item in template]
    if kind is dict:
        return {key: fill(item, known) for key, item in template.items()}
    if isinstance(template, tuple):
        items = [fill(item, known) for item in template]
        return rebuild_tuple(template, items)
    if is_dataclass(template) and not isinstance(template, type):
        if not _holds_ref(template):
            return template
        filled = copy.copy(template)
        for field in fields(template):
            object.__setattr__(filled, field.name, fill(getattr(template, field.name), known))
        return filled
    return template


def rebuild_tuple(like: tuple[Any, ...], items: Sequence[Any]) -> tuple[Any, ...]:
    """A tuple of the same type: plain, or a namedtuple."""
    if type(like) is tuple:
        return tuple(items)
    make: Callable[[Sequence[Any]], tuple[Any, ...]] | None = getattr(type(like), "_make", None)
    return make(items) if make is not None else type(like)(items)


def _refs(template: Any) -> Iterator[int]:
    kind = type(template)
    if kind is Ref:
        yield int(template)
    elif kind is list or isinstance(template, tuple):
        for item in template:
            yield from _refs(item)
    elif kind is dict:
        for item in template.values():
            yield from _refs(item)
    elif is_dataclass(template) and not isinstance(template, type):
        for field in fields(template):
            yield from _refs(getattr(template, field.name, None))


def _holds_ref(template: Any) -> bool:
    return next(_refs(template), None) is not None


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The shape of what a body returned."""

    shape: Any
    refs: tuple[int, ...]

    def renumbered(self, slot_of: Sequence[int]) -> Template:
        """The same shape over slots instead of the graph's numbers."""
        known = {number: Ref(slot_of[number]) for number in self.refs}
        return Template(fill(self.shape, known), tuple(slot_of[number] for number in self.refs))

    def build(self, values: Sequence[Any]) -> Any:
        """The result of a run. Constants in it are copied: nobody gets hold of what the graph keeps."""
        if type(self.shape) is Ref:
            return values[self.shape]
        return fill(_fresh(self.shape), {slot: values[slot] for slot in self.refs})


def output_template(output: Any) -> Template:
    """What a body returned, as a template."""
    return Template(output, tuple(dict.fromkeys(_refs(output))))


def _fresh(shape: Any) -> Any:
    """A copy of the constants in a shape; what cannot be copied (a lock, a module) is passed on as it is."""
    kind = type(shape)
    if kind in (Ref, int, float, str, bool, type(None)):
        return shape
    if kind is list:
        return [_fresh(item) for item in shape]
    if kind is dict:
        return {key: _fresh(item) for key, item in shape.items()}
    if isinstance(shape, tuple):
        return rebuild_tuple(shape, [_fresh(item) for item in shape])
    try:
        return copy.deepcopy(shape)
    except Exception:
        return shape
