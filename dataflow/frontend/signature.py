"""The parameters of a pipeline, and the arguments of one call sorted into inputs and Python values.

Inputs differ from run to run, and the body sees placeholders for them. Python values are a part of the key under which
the plan is kept: arguments named in `static`, None, the structure of those named in `tree`, and which were left out.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from dataflow.errors import TraceError
from dataflow.frontend.arguments import refuse_later, refuse_once
from dataflow.frontend.called import BELOW_THE_WRAPPER, call_error, signature_of, wraps_unseen
from dataflow.frontend.shapes import key_of, seen_of
from dataflow.frontend.static_key import static_key
from dataflow.graph.nodes import Ref
from dataflow.graph.pytree import kind_of
from dataflow.graph.tracing.placeholder import Placeholder, shaped

__all__ = ["Binding", "Parameters", "planted", "tree_of"]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_NO_NAMES: frozenset[str] = frozenset()
_ANYTHING = object()
"""Stands for an input that is not given."""


class Parameters:
    """What a pipeline takes: the parameters of its function, which of them are Python values, which are fixed."""

    __slots__ = (
        "_fixed",
        "_free",
        "_instance",
        "_keywords",
        "_name",
        "_of_method",
        "_unseen",
        "open",
        "positional",
        "shapes",
        "signature",
        "static",
        "tree",
    )

    def __init__(
        self, fn: Any, name: str, *, static: Iterable[str], tree: Iterable[str], shapes: Iterable[str] = ()
    ) -> None:
        self.signature = signature_of(fn)
        self._unseen = wraps_unseen(fn)
        self.open = self._free = self.signature
        """What is left to give, when some arguments are fixed. Of a method, `_free` has the instance as well."""
        self._name = name
        self._fixed: dict[str, Any] = {}
        self._instance: str | None = None
        """Of a method, the parameter that the instance is given as."""
        self._of_method: Parameters | None = None
        self.static = self._names("static", static)
        self.tree = self._names("tree", tree)
        self.shapes = self._names("shapes", shapes)
        if both := self.static & self.tree:
            raise TypeError(f"pipeline {name!r}: {', '.join(sorted(both))} cannot be both static and a tree")
        if both := self.shapes & (self.static | self.tree):
            raise TypeError(
                f"pipeline {name!r}: {', '.join(sorted(both))} cannot be in shapes= and static or a tree as well"
            )
        parameters = self.signature.parameters.values()
        self._keywords = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        plain = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        self.positional = len(parameters) if plain and not self.static | self.tree | self.shapes else None
        """How many there are, if all can be given by position and are inputs unless they are None."""

    def _names(self, option: str, given: Iterable[str]) -> frozenset[str]:
        if given == ():
            return _NO_NAMES
        name, signature = self._name, self.signature
        if isinstance(given, str):
            raise TypeError(f"pipeline {name!r}: {option} must be a collection of names, e.g. {option}=({given!r},)")
        names = frozenset(given)
        allowed = {n for n, parameter in signature.parameters.items() if parameter.kind not in _VARIADIC}
        if unknown := sorted(names - allowed):
            remedy = f"; {BELOW_THE_WRAPPER}" if self._unseen else ""
            raise TypeError(
                f"pipeline {name!r}: {option} names {', '.join(unknown)}, no parameter of {name}{signature}{remedy}"
            )
        return names

    @property
    def all_fixed(self) -> dict[str, Any]:
        """By name what is fixed."""
        fixed = dict(self._fixed)
        free = fixed.pop(self._keywords or "", {})
        return {**fixed, **free}

    def fixed(self, values: dict[str, Any]) -> Parameters:
        """The same with some arguments fixed. TypeError for what is no parameter, or is fixed already."""
        parameters = self.open.parameters
        named = {n for n, p in parameters.items() if p.kind not in (*_VARIADIC, p.POSITIONAL_ONLY)}
        unknown = sorted(values.keys() - named)
        if unknown and (self._keywords is None or any(name in self.signature.parameters for name in unknown)):
            raise TypeError(
                f"{self._name}.bind() got {', '.join(unknown)}, which {self._name}{self.open} does not take"
            )
        for each, value in values.items():
            refuse_later(f"{self._name}.bind(): {each!r}", value)
            refuse_once(f"{self._name}.bind(): {each!r}", value, "every call reads it")
        changed = self._copy()
        changed._of_method = None
        changed._fixed = {**self._fixed, **{name: values[name] for name in values.keys() & named}}
        if unknown and self._keywords is not None:
            before = self._fixed.get(self._keywords, {})
            if twice := sorted(before.keys() & set(unknown)):
                raise TypeError(f"{self._name}.bind() got {', '.join(twice)}, which is bound already")
            changed._fixed[self._keywords] = {**before, **{name: values[name] for name in unknown}}
        changed.open = changed._free = self.open.replace(
            parameters=[p for name, p in parameters.items() if name not in values]
        )
        changed.positional = None
        return changed

    @property
    def of_method(self) -> Parameters:
        """The same for a method: the instance comes first in a call, and the body gets it as it is.

        TypeError for a function that takes no instance.
        """
        if self._of_method is None:
            first, *others = self.open.parameters.values() or (None,)
            if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
                raise TypeError(f"{self._name}{self.open} has no parameter for the instance that it is a method of")
            method = self._copy()
            method.open = self.open.replace(parameters=others)
            method._instance = first.name
            self._of_method = method
        return self._of_method

    def _copy(self) -> Parameters:
        copied = object.__new__(Parameters)
        for name in Parameters.__slots__:
            setattr(copied, name, getattr(self, name))
        return copied

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The arguments of a call, with those that are fixed. TypeError if they are wrong."""
        try:
            return self._with_fixed(self._free.bind(*args, **kwargs).arguments)
        except TypeError as exc:
            raise call_error(self._name, self.open.parameters.values(), kwargs, exc) from None

    def bind_partly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The same for a graph without a call: what is left out and has no default is some input."""
        given = self._free.bind_partial(*args, **kwargs).arguments
        for name, parameter in self._free.parameters.items():
            if parameter.default is not parameter.empty or parameter.kind in _VARIADIC or name in given:
                continue
            for names, what in ((self.static, "static"), (self.tree, "a tree"), (self.shapes, "in shapes=")):
                if name in names:
                    raise TypeError(f"{self._name}.graph() needs a value for {name!r}, which is {what}")
            given[name] = _ANYTHING
        return self._with_fixed(given)

    def _with_fixed(self, given: dict[str, Any]) -> inspect.BoundArguments:
        """In the order of the parameters."""
        free = given.get(self._keywords or "", {})
        given = {**self._fixed, **given}
        if self._keywords is not None and self._fixed:
            bound = self._fixed.get(self._keywords, {})
            if twice := sorted(free.keys() & (bound.keys() | self._fixed.keys())):
                raise TypeError(f"got {', '.join(twice)}, which is bound already")
            given[self._keywords] = {**bound, **free}
        ordered = OrderedDict((name, given[name]) for name in self.signature.parameters if name in given)
        return inspect.BoundArguments(self.signature, ordered)

    def sort(self, bound: inspect.BoundArguments) -> Binding:
        """Sort the arguments of a call into inputs and Python values."""
        binding = Binding(bound)
        for name, parameter in self.signature.parameters.items():
            if name == self._instance:
                binding.add_input(name, bound.arguments[name], None)
            elif name not in bound.arguments:
                binding.key_parts.append((name, "omitted"))
            elif name in self.static:
                binding.key_parts.append((name, self._static_key(name, bound.arguments[name])))
            elif name in self.tree:
                self._add_tree(binding, name, bound.arguments[name])
            elif name in self.shapes and bound.arguments[name] is not None:
                value = bound.arguments[name]
                binding.add_shaped(name, value, seen_of(f"{self._name}(): {name!r}", value))
            elif parameter.kind is parameter.VAR_POSITIONAL:
                for index, value in enumerate(bound.arguments[name]):
                    binding.add(f"{name}[{index}]", value, (name, index))
            elif parameter.kind is parameter.VAR_KEYWORD:
                for key, value in bound.arguments[name].items():
                    binding.add(f"{name}[{key!r}]", value, (name, key))
            else:
                binding.add(name, bound.arguments[name], (name, None))
        return binding

    def _add_tree(self, binding: Binding, name: str, value: Any) -> None:
        try:
            binding.add_tree(name, value)
        except RecursionError:
            raise TypeError(
                f"{self._name}(): {name!r} is a tree that contains itself, or is nested too deeply"
            ) from None

    def _static_key(self, name: str, value: Any) -> Hashable:
        try:
            return static_key(value)
        except TraceError:  # a placeholder
            raise
        except TypeError:
            raise TypeError(
                f"{self._name}(): {name!r} is static and must be hashable, got {type(value).__name__}; "
                "pass a tuple instead of a list, or do not declare it static"
            ) from None

    def key_now(self, binding: Binding) -> Hashable:
        """The key of the same call again: of static arguments that the body has changed, another one."""
        arguments = binding.bound.arguments
        return tuple(
            (part[0], static_key(arguments[part[0]])) if part[0] in self.static and part[0] in arguments else part
            for part in binding.key_parts
        )


class Binding:
    """The arguments of one call, sorted."""

    __slots__ = ("_places", "_seen", "_trees", "bound", "inputs", "key_parts", "names")

    def __init__(self, bound: inspect.BoundArguments) -> None:
        self.bound = bound
        self.names: list[str] = []
        self.inputs: list[Any] = []
        self.key_parts: list[tuple[Hashable, ...]] = []
        self._places: list[tuple[str, int | str | None] | None] = []
        """Where each input stands: (parameter, its place in a variadic one); None where the body gets no placeholder of
        its own for it, as for the leaf of a tree and the instance of a method."""
        self._trees: dict[str, Any] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        """For the arguments named in `shapes`."""

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

    def add_input(self, label: str, value: Any, place: tuple[str, int | str | None] | None) -> None:
        """One argument that is an input, whatever it is."""
        self.names.append(label)
        self.inputs.append(value)
        self._places.append(place)

    def add_shaped(self, name: str, value: Any, seen: dict[str, Any]) -> None:
        """An argument that is an input, of which the body sees this as Python values."""
        self.key_parts.append((name, key_of(seen)))
        self._seen[name] = seen
        self.add_input(name, value, (name, None))

    def add_tree(self, name: str, value: Any) -> None:
        """An argument whose structure is a Python value and whose leaves are inputs."""
        template, structure = self._grown(name, value)
        self._trees[name] = template
        self.key_parts.append((name, structure))

    def _grown(self, label: str, value: Any) -> tuple[Any, Hashable]:
        """The tree with a Ref to an input for each leaf, and its structure. It recurses into one argument's tree."""
        if value is None:
            return None, "None"
        if isinstance(value, Placeholder):  # where this pipeline's graph becomes a part of another
            return self._leaf(label, value)
        if isinstance(value, dict):
            grown = {key: self._grown(f"{label}[{key!r}]", item) for key, item in value.items()}
            leaves = {key: leaf for key, (leaf, _) in grown.items()}
            structure = tuple((static_key(key), inner) for key, (_, inner) in grown.items())
            return _refilled(value, leaves), (type(value), structure)
        kind = kind_of(type(value))
        if isinstance(value, list) or (isinstance(value, tuple) and kind is not None):
            parts = [self._grown(f"{label}[{index}]", item) for index, item in enumerate(value)]
            items = [leaf for leaf, _ in parts]
            template = _refilled(value, items) if kind is None else kind.make(value, items)
            return template, (type(value), tuple(inner for _, inner in parts))
        return self._leaf(label, value)

    def _leaf(self, label: str, value: Any) -> tuple[Ref, Hashable]:
        self.names.append(label)
        self.inputs.append(value)
        self._places.append(None)
        return Ref(len(self.inputs) - 1), "leaf"

    def with_placeholders(self, placeholders: list[Placeholder]) -> inspect.BoundArguments:
        """The same arguments with a placeholder for each input; the body of a method gets its real `self`."""
        arguments: dict[str, Any] = {}
        for name, value in self.bound.arguments.items():
            kind = self.bound.signature.parameters[name].kind
            arguments[name] = list(value) if kind is _VARIADIC[0] else dict(value) if kind is _VARIADIC[1] else value
        for name, template in self._trees.items():
            arguments[name] = planted(template, placeholders)
        for place, placeholder in zip(self._places, placeholders, strict=True):
            if place is None:
                continue
            name, key = place
            if key is None:
                seen = self._seen.get(name)
                arguments[name] = placeholder if seen is None else shaped(placeholder, seen)
            else:
                arguments[name][key] = placeholder
        return inspect.BoundArguments(self.bound.signature, OrderedDict(arguments))


def tree_of(name: str, value: Any, *, nested: bool, first: int) -> tuple[Any, Hashable, list[Any]]:
    """A value as template, structure and leaves; the Refs count from `first`. It is one leaf unless `nested`."""
    if not nested:
        return Ref(first), None, [value]
    binding = Binding(inspect.BoundArguments(inspect.Signature(), OrderedDict()))
    binding.add_tree(name, value)
    leaves = binding.inputs
    template = planted(binding._trees[name], [Ref(first + place) for place in range(len(leaves))])
    return template, binding.key, leaves


def planted(template: Any, known: Mapping[int, Any] | Sequence[Any]) -> Any:
    """A template of `tree_of`, with what is known for each leaf."""
    if type(template) is Ref:
        return known[template]
    if isinstance(template, dict):
        return _refilled(template, {key: planted(item, known) for key, item in template.items()})
    if isinstance(template, list):
        return _refilled(template, [planted(item, known) for item in template])
    if isinstance(template, tuple) and (kind := kind_of(type(template))) is not None:
        return kind.make(template, [planted(item, known) for item in template])
    return template


def _refilled(like: Any, items: Any) -> Any:
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
