"""The arguments of one call of a pipeline, sorted into inputs and Python values.

Inputs differ from run to run, and the body sees placeholders for them. Python values are a part of the key under which
the plan is kept: arguments named in `static`, None, the structure of those named in `tree`, and which were left out.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from dataflow.graph.fill import fill
from dataflow.graph.nodes import Ref
from dataflow.graph.placeholder import Placeholder

__all__ = ["Binding", "static_key"]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Binding:
    """The arguments of one call, sorted."""

    __slots__ = ("_places", "_trees", "bound", "inputs", "key_parts", "names")

    def __init__(self, bound: inspect.BoundArguments) -> None:
        self.bound = bound
        self.names: list[str] = []
        self.inputs: list[Any] = []
        self.key_parts: list[tuple[Hashable, ...]] = []
        self._places: list[tuple[str, int | str | None] | None] = []
        """Where each input stands: (parameter, its place in a variadic one); None for the leaf of a tree."""
        self._trees: dict[str, Any] = {}

    @property
    def key(self) -> Hashable:
        """Equal keys share a plan."""
        return tuple(self.key_parts)

    def add(self, label: str, value: Any, place: tuple[str, int | str | None]) -> None:
        """One argument: an input, unless it is None."""
        if value is None:
            self.key_parts.append((label, "None"))
            return
        if place[1] is not None:
            self.key_parts.append((label, "given"))
        self.add_input(label, value, place)

    def add_input(self, label: str, value: Any, place: tuple[str, int | str | None]) -> None:
        """One argument that is an input, whatever it is."""
        self.names.append(label)
        self.inputs.append(value)
        self._places.append(place)

    def add_tree(self, name: str, value: Any) -> None:
        """An argument whose structure is a Python value and whose leaves are inputs."""
        template, structure = self._grown(name, value)
        self._trees[name] = template
        self.key_parts.append((name, structure))

    def _grown(self, label: str, value: Any) -> tuple[Any, Hashable]:
        """The tree with a Ref to an input for each leaf, and its structure. It recurses into one argument's tree."""
        if value is None:
            return None, "None"
        if type(value) is dict:
            grown = {key: self._grown(f"{label}[{key!r}]", item) for key, item in value.items()}
            template: Any = {key: leaf for key, (leaf, _) in grown.items()}
            return template, (dict, tuple((key, structure) for key, (_, structure) in grown.items()))
        if isinstance(value, (list, tuple)):
            parts = [self._grown(f"{label}[{index}]", item) for index, item in enumerate(value)]
            leaves, kind = [leaf for leaf, _ in parts], type(value)
            make = getattr(kind, "_make", kind)
            return make(leaves), (kind, tuple(structure for _, structure in parts))
        self.names.append(label)
        self.inputs.append(value)
        self._places.append(None)
        return Ref(len(self.inputs) - 1), "leaf"

    def with_placeholders(self, placeholders: list[Placeholder], *, method: bool) -> inspect.BoundArguments:
        """The same arguments with a placeholder for each input; the body of a method gets its real `self`."""
        arguments: dict[str, Any] = {}
        for name, value in self.bound.arguments.items():
            kind = self.bound.signature.parameters[name].kind
            arguments[name] = list(value) if kind is _VARIADIC[0] else dict(value) if kind is _VARIADIC[1] else value
        for name, template in self._trees.items():
            arguments[name] = fill(template, placeholders)
        for place, placeholder in list(zip(self._places, placeholders, strict=True))[method:]:
            if place is None:
                continue
            name, key = place
            if key is None:
                arguments[name] = placeholder
            else:
                arguments[name][key] = placeholder
        return inspect.BoundArguments(self.bound.signature, OrderedDict(arguments))


def static_key(value: Any, name: str, pipeline_name: str) -> tuple[Hashable, ...]:
    """Type and value, also within tuples: 1, 1.0 and True are three graphs."""
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{pipeline_name}(): {name!r} is static and must be hashable, got {type(value).__name__}; "
            "pass a tuple instead of a list, or do not declare it static"
        ) from None
    return (_typed(value),)


def _typed(value: Any) -> Hashable:
    if type(value) is tuple:
        return (tuple, *map(_typed, value))
    if type(value) is float:
        return (float, value.hex())  # 0.0 and -0.0 are equal, and nan is not
    return (type(value), value)
