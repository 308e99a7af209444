"""Templates: what holds Refs, and the way back to values. Arguments of a node, and what a body returned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from dataflow.graph.nodes import Ref

__all__ = ["Numbering", "Template", "fill", "holds_ref", "output_template", "rebuild_tuple", "refilled", "renumber"]


Known = Mapping[int, Any] | Sequence[Any]
Numbering = Mapping[int, int] | Sequence[int]
"""For each of a graph's numbers that occur, the slot."""


def fill(template: Any, known: Known) -> Any:
    """The template with every Ref replaced by its value; containers are new, everything else is passed on."""
    kind = type(template)
    if kind is Ref:
        return known[template]
    if isinstance(template, list):
        items = [known[item] if type(item) is Ref else fill(item, known) for item in template]
        return items if kind is list else refilled(template, items)
    if isinstance(template, dict):
        return refilled(template, {key: fill(item, known) for key, item in template.items()})
    if isinstance(template, tuple):
        items = [known[item] if type(item) is Ref else fill(item, known) for item in template]
        return tuple(items) if kind is tuple and items else rebuild_tuple(template, items)
    if is_dataclass(template) and not isinstance(template, type):
        if not holds_ref(template):
            return template
        same = copy.copy(template)
        for field in fields(template):
            if hasattr(template, field.name):
                object.__setattr__(same, field.name, fill(getattr(template, field.name), known))
        return same
    return template


def refilled(like: Any, items: Any) -> Any:
    """A list or dict of the same type with other items; of a subclass, whatever else it is stays."""
    if type(like) is type(items):
        return items
    same = copy.copy(like)
    if isinstance(like, list):
        list.__setitem__(same, slice(None), items)
    else:
        for key, item in items.items():
            dict.__setitem__(same, key, item)
    return same


def renumber(template: Any, slot_of: Numbering) -> Any:
    """The template with slots instead of the graph's numbers."""
    return fill(template, {number: Ref(slot_of[number]) for number in _refs(template)})


def rebuild_tuple(like: tuple[Any, ...], items: Sequence[Any]) -> tuple[Any, ...]:
    """A tuple of the same type: plain, or a namedtuple."""
    if all(new is old for new, old in zip(items, like, strict=True)):
        return like  # also the ones that nobody else can build, like sys.version_info
    if type(like) is tuple:
        return tuple(items)
    make: Callable[[Sequence[Any]], tuple[Any, ...]] | None = getattr(type(like), "_make", None)
    return make(items) if make is not None else type(like)(items)


def _refs(template: Any) -> Iterator[int]:
    kind = type(template)
    if kind is Ref:
        yield int(template)
    elif isinstance(template, (list, tuple)):
        for item in template:
            yield from _refs(item)
    elif isinstance(template, dict):
        for item in template.values():
            yield from _refs(item)
    elif is_dataclass(template) and not isinstance(template, type):
        for field in fields(template):
            yield from _refs(getattr(template, field.name, None))


def holds_ref(template: Any) -> bool:
    return next(_refs(template), None) is not None


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The shape of what a body returned."""

    shape: Any
    refs: tuple[int, ...]
    plain: bool = False
    """Whether it is made of lists, tuples, dicts and Refs only, so that filling it copies all of it."""

    def renumbered(self, slot_of: Sequence[int]) -> Template:
        """The same shape over slots instead of the graph's numbers."""
        shape = renumber(self.shape, slot_of)
        return Template(shape, tuple(slot_of[number] for number in self.refs), _is_plain(shape))

    def build(self, values: Sequence[Any]) -> Any:
        """The result of a run. Constants in it are copied: nobody gets hold of what the graph keeps."""
        if type(self.shape) is Ref:
            return values[self.shape]
        return fill(self.shape if self.plain else _fresh(self.shape), values)


def output_template(output: Any) -> Template:
    """What a body returned, as a template."""
    return Template(output, tuple(dict.fromkeys(_refs(output))))


def _is_plain(shape: Any) -> bool:
    kind = type(shape)
    if kind is list or kind is tuple:
        return all(map(_is_plain, shape))
    if kind is dict:
        return all(map(_is_plain, shape.values()))
    return kind is Ref


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
