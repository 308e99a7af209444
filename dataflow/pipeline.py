"""`@pipeline` declares a pipeline: a function whose body is traced into a graph once and then run many times.

    call ─▶ bind ─▶ plan (cached) ─▶ run

Binding sorts the arguments of a call into *inputs*, which differ from run to run, and *Python values*, which the
body sees as they are: arguments named in `static`, explicit None, and defaults that were left out. There is one
plan for each set of Python values, kept in a bounded cache; on methods one such cache for each `self`, as long as
that lives.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextvars import copy_context
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from dataflow.binding import Binding, static_key
from dataflow.engine.runtime import default_runtime
from dataflow.graph.nodes import Graph
from dataflow.graph.passes import replaced, selected
from dataflow.graph.placeholder import Placeholder, is_placeholder
from dataflow.graph.plan import Plan, make_plan
from dataflow.graph.recording import current
from dataflow.graph.trace import trace
from dataflow.op import Call, Op, pickled_as

__all__ = ["BoundPipeline", "Pipeline", "pipeline"]

P = ParamSpec("P")
R = TypeVar("R")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")

CACHED_PLANS = 128
"""Plans that a pipeline keeps; the one longest not used goes first."""


class Pipeline(Generic[P, R]):
    """A pipeline. Made by `pipeline`; may be called from any number of tasks, threads and loops at once."""

    def __init__(
        self, fn: Callable[P, R], *, name: str | None = None, static: Iterable[str] = (), tree: Iterable[str] = ()
    ) -> None:
        if isinstance(fn, Pipeline) or not callable(fn):
            raise TypeError(f"pipeline: expected a function, got {type(fn).__name__}")
        update_wrapper(self, fn)  # first: it copies the attributes of what may be a pipeline itself, `@wraps`-ed
        self._fn = fn
        self._name = name if name is not None else getattr(fn, "__name__", type(fn).__name__)
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
            raise TypeError(
                f"pipeline {self._name!r}: the body must be a plain `def`: it is traced, not run. "
                "Call async operators in it without `await`, and return instead of `yield`"
            )
        self._signature = inspect.signature(fn)
        self._open = self._signature
        """What is left to give, when some arguments are bound."""
        self._bound: dict[str, Any] = {}
        self._static = _names("static", static, self._signature, self._name)
        self._tree = _names("tree", tree, self._signature, self._name)
        if both := self._static & self._tree:
            raise TypeError(f"pipeline {self._name!r}: {', '.join(sorted(both))} cannot be both static and a tree")
        self._passes: tuple[Callable[[Graph], Graph], ...] = ()
        self._plans = _Plans()
        self._owners: dict[int, tuple[weakref.ref[Any], _Plans]] = {}
        self._class: type | None = None
        """Where this is a method."""
        self._positional = _only_positional(self._signature) if not self._static | self._tree else None
        self._inner: dict[tuple[str, bool], Pipeline[..., Any]] = {}
        """For `flow.map` and `flow.cond`: the pipelines that call it."""

    @property
    def name(self) -> str:
        """What the pipeline is called in errors, tables and pictures."""
        return self._name

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """A coroutine that runs the pipeline and gives its result, in the shape that the body returned.

        The arguments are bound here and now (TypeError), and so is the context; the run starts when it is awaited.
        An operator's exception arrives as it is, with a note that says where it comes from. Cancelling stops the
        run: no further kernel starts, async operators are cancelled and awaited, running kernels finish unseen.

        While another pipeline is traced, this one's body is recorded into it instead.
        """
        if current() is not None:
            return cast(Call[R], self._inlined(args, kwargs))
        plan, inputs = self._bind(self._plans, None, args, kwargs)
        return cast(Call[R], _call(plan, inputs))

    def run(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the pipeline and return its result; blocks.

        In a script: on an event loop of its own (uvloop where installed). In a kernel: on that kernel's thread and
        on free lanes. On a thread with a running event loop: RuntimeError, since it would block the loop.
        """
        self._refuse_trace("run")
        plan, inputs = self._bind(self._plans, None, args, kwargs)
        del args, kwargs  # an exception would keep them with this frame
        return cast(R, default_runtime().block(plan, inputs, copy_context()))

    def debug(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run every operator one after another in the calling thread, for debuggers and profilers; blocks.

        Async operators run on an event loop of their own. Exceptions keep their whole traceback.
        """
        self._refuse_trace("debug")
        plan, inputs = self._bind(self._plans, None, args, kwargs)
        return cast(R, default_runtime().serial(plan, inputs, copy_context()))

    def graph(self, /, *args: Any, **kwargs: Any) -> Graph:
        """The graph that a call with these arguments runs; traced now, if it was not yet.

        Arguments that are left out and have no default count as inputs, so `p.graph()` is a check at start-up.
        """
        self._refuse_trace("graph")
        return self._graph(self._plans, None, args, kwargs)

    def retrace(self) -> None:
        """Forget all graphs: the next call traces anew, with the globals, closures and settings of that time.

        Runs that are under way finish on their old graph.
        """
        self._plans = _Plans()
        self._owners = {}
        self._inner = {}

    def bind(self, /, **fixed: Any) -> Pipeline[..., R]:
        """The same pipeline with these arguments fixed; what is left keeps its order.

        Fixed arguments are what they would be in a call: inputs, unless they are static. Raises TypeError for names
        that are no parameters, or are fixed already.
        """
        allowed = {n for n, p in self._open.parameters.items() if p.kind not in (*_VARIADIC, p.POSITIONAL_ONLY)}
        unknown = sorted(fixed.keys() - allowed)
        if unknown:
            raise TypeError(
                f"{self._name}.bind() got {', '.join(unknown)}, which {self._name}{self._open} does not take"
            )
        derived = self._derived()
        derived._bound = {**self._bound, **fixed}
        left = [parameter for name, parameter in self._open.parameters.items() if name not in fixed]
        derived._open = self._open.replace(parameters=left)
        derived._positional = None
        derived.__dict__["__signature__"] = derived._open
        return derived

    def select(self, /, *labels: str) -> Pipeline[P, Any]:
        """The pipeline of the nodes with these labels and of what they need; nothing else runs.

        Gives the value of the node, or a tuple of several. A label that no node has is a GraphError when it is traced.
        """
        if not labels or not all(isinstance(name, str) for name in labels):
            raise TypeError(f"{self._name}.select() takes labels of nodes, such as flow.label gives")
        return self._derived(partial(selected, labels=labels))

    def replace(self, functions: Mapping[Op[..., Any], Callable[..., Any]], /) -> Pipeline[P, R]:
        """The same pipeline with other functions for some operators: for tests, with fakes of what is slow or far away.

        `functions` maps operators to functions or operators; one that is never called is a GraphError when the pipeline
        is traced.
        """
        specs = {}
        for old, new in functions.items():
            if not isinstance(old, Op):
                raise TypeError(f"{self._name}.replace() replaces operators, not {type(old).__name__}")
            specs[old._fn] = (new if isinstance(new, Op) else Op(new))._spec
        return self._derived(partial(replaced, functions=specs))

    def _derived(self, graph_pass: Callable[[Graph], Graph] | None = None) -> Pipeline[Any, Any]:
        derived: Pipeline[Any, Any] = object.__new__(Pipeline)
        derived.__dict__.update(self.__dict__)
        derived._plans, derived._owners, derived._inner = _Plans(), {}, {}
        if graph_pass is not None:
            derived._passes = (*self._passes, graph_pass)
        return derived

    @overload
    def __get__(self, instance: None, owner: type) -> Pipeline[P, R]: ...
    @overload
    def __get__(
        self: Pipeline[Concatenate[S, Q], T], instance: S, owner: type | None = None
    ) -> BoundPipeline[Q, T]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """On an instance: the pipeline with `self` fixed; its graphs are kept as long as the instance lives."""
        return self if instance is None else BoundPipeline(self, instance)

    def __repr__(self) -> str:
        return f"<pipeline {self._name}{self._signature}>"

    def __reduce__(self) -> str:
        return pickled_as(self)

    def __set_name__(self, owner: type, name: str) -> None:
        self._class = owner

    # Binding and planning; `owner` is the instance where this is a method, else None.

    def _refuse_trace(self, verb: str) -> None:
        if current() is not None:
            raise RuntimeError(
                f"{self._name}.{verb}() was called while a pipeline is traced: nothing runs there; "
                f"call {self._name}(...) to record it into that pipeline"
            )

    def _bind(self, plans: _Plans, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, list[Any]]:
        """The plan and the inputs of a call."""
        if self._class is not None and owner is None and args and isinstance(args[0], self._class):
            owner, args = args[0], args[1:]  # called through the class: `Model.forward(model, x)`
            plans = self._plans_of(owner)
        if len(args) == self._positional and owner is None and not kwargs and not any(arg is None for arg in args):
            plan = plans.get(_ALL_GIVEN)  # the common case: every parameter given by position, none static
            if plan is not None:
                inputs = list(args)
                if any(is_placeholder(arg) for arg in args):
                    self._stray_placeholder()
                return plan, inputs
        try:
            bound = self._all_arguments(self._open.bind(*((owner,) if owner is not None else ()), *args, **kwargs))
        except TypeError as exc:
            raise TypeError(f"{self._name}() {exc}") from None
        return self._plan(plans, owner, bound)

    def _plan(self, plans: _Plans, owner: Any, bound: inspect.BoundArguments) -> tuple[Plan, list[Any]]:
        binding = self._sort(bound, owner)
        plan = plans.get(binding.key)
        if plan is None:
            with plans.tracing:  # concurrent first calls trace once
                plan = plans.get(binding.key)
                if plan is None:
                    plan = make_plan(self._trace(binding, owner))
                    plans.put(binding.key, plan)
        if any(is_placeholder(value) for value in binding.inputs):
            self._stray_placeholder()
        return plan, binding.inputs

    def _all_arguments(self, bound: inspect.BoundArguments) -> inspect.BoundArguments:
        """The arguments of a call and the fixed ones, in the order of the parameters."""
        if not self._bound:
            return bound
        given = {**self._bound, **bound.arguments}
        ordered = OrderedDict((name, given[name]) for name in self._signature.parameters if name in given)
        return inspect.BoundArguments(self._signature, ordered)

    def _graph(self, plans: _Plans, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        if self._class is not None and owner is None and args and isinstance(args[0], self._class):
            owner, args = args[0], args[1:]
            plans = self._plans_of(owner)
        bound = self._open.bind_partial(*((owner,) if owner is not None else ()), *args, **kwargs)
        for name, parameter in self._open.parameters.items():
            if parameter.default is not parameter.empty or parameter.kind in _VARIADIC or name in bound.arguments:
                continue
            for names, what in ((self._static, "static"), (self._tree, "a tree")):
                if name in names:
                    raise TypeError(f"{self._name}.graph() needs a value for {name!r}, which is {what}")
            bound.arguments[name] = _ANYTHING
        ordered = OrderedDict((n, bound.arguments[n]) for n in self._open.parameters if n in bound.arguments)
        plan, _ = self._plan(plans, owner, self._all_arguments(inspect.BoundArguments(self._open, ordered)))
        return plan.graph

    def _inlined(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record the body into the pipeline that is being traced."""
        if self._passes:
            raise TypeError(
                f"{self._name!r} was changed by select() or replace(), and cannot be called in the body of another "
                "pipeline: await it in an async operator, or change the outer pipeline"
            )
        if not self._bound:
            return self._fn(*args, **kwargs)
        bound = self._all_arguments(self._open.bind(*args, **kwargs))
        return self._fn(*bound.args, **bound.kwargs)

    def _stray_placeholder(self) -> None:
        raise TypeError(
            f"{self._name}() was called with a placeholder, outside of the body that it belongs to: "
            "a placeholder stands for a value only while its pipeline is traced"
        )

    def _sort(self, bound: inspect.BoundArguments, owner: Any) -> Binding:
        """Sort the arguments of a call into inputs and Python values (see the module docstring)."""
        binding = Binding(bound)
        for position, (name, parameter) in enumerate(self._signature.parameters.items()):
            if owner is not None and position == 0:
                binding.add_input(name, owner, (name, None))
            elif name not in bound.arguments:
                binding.key_parts.append((name, "omitted"))
            elif name in self._static:
                binding.key_parts.append((name, *static_key(bound.arguments[name], name, self._name)))
            elif name in self._tree:
                binding.add_tree(name, bound.arguments[name])
            elif parameter.kind is parameter.VAR_POSITIONAL:
                for index, value in enumerate(bound.arguments[name]):
                    binding.add(f"{name}[{index}]", value, (name, index))
            elif parameter.kind is parameter.VAR_KEYWORD:
                for key, value in bound.arguments[name].items():
                    binding.add(f"{name}[{key!r}]", value, (name, key))
            else:
                binding.add(name, bound.arguments[name], (name, None))
        return binding

    def _trace(self, binding: Binding, owner: Any) -> Graph:
        def body(placeholders: list[Placeholder]) -> Any:
            bound = binding.with_placeholders(placeholders, method=owner is not None)
            return self._fn(*bound.args, **bound.kwargs)

        body.__wrapped__ = self._fn  # type: ignore[attr-defined]  # errors name the user's body, not this one
        graph = trace(self._name, tuple(binding.names), body, owner=owner)
        for graph_pass in self._passes:
            graph = graph_pass(graph)
        return graph

    def _plans_of(self, owner: Any) -> _Plans:
        """The plans of a method's pipeline for one instance; identity counts, not equality."""
        owners, key = self._owners, id(owner)
        known = owners.get(key)
        if known is not None and known[0]() is owner:
            return known[1]
        plans = _Plans()

        def forget(reference: weakref.ref[Any]) -> None:
            if key in owners and owners[key][0] is reference:
                del owners[key]

        try:
            entry = weakref.ref(owner, forget), plans
        except TypeError:
            raise TypeError(
                f"pipeline {self._name!r} is a method of {type(owner).__name__}, whose instances cannot be referred "
                "to weakly: add '__weakref__' to its __slots__"
            ) from None
        with self._plans.tracing:  # concurrent first calls on one instance get the same
            known = owners.get(key)
            if known is not None and known[0]() is owner:
                return known[1]
            owners[key] = entry
        return plans


class BoundPipeline(Generic[P, R]):
    """A pipeline that is a method, on one instance: `self` is fixed, everything else is as in `Pipeline`."""

    def __init__(self, of: Pipeline[Any, R], owner: Any) -> None:
        self._of = of
        self._owner = owner

    @property
    def name(self) -> str:
        """What the pipeline is called in errors, tables and pictures."""
        return self._of.name

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """See `Pipeline.__call__`."""
        of = self._of
        if current() is not None:
            return cast(Call[R], of._inlined((self._owner, *args), kwargs))
        plan, inputs = self._bind(args, kwargs)
        return cast(Call[R], _call(plan, inputs))

    def run(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Pipeline.run`."""
        self._of._refuse_trace("run")
        plan, inputs = self._bind(args, kwargs)
        del args, kwargs
        return cast(R, default_runtime().block(plan, inputs, copy_context()))

    def debug(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Pipeline.debug`."""
        self._of._refuse_trace("debug")
        plan, inputs = self._bind(args, kwargs)
        return cast(R, default_runtime().serial(plan, inputs, copy_context()))

    def graph(self, /, *args: Any, **kwargs: Any) -> Graph:
        """See `Pipeline.graph`."""
        self._of._refuse_trace("graph")
        return self._of._graph(self._of._plans_of(self._owner), self._owner, args, kwargs)

    def bind(self, /, **fixed: Any) -> BoundPipeline[..., R]:
        """See `Pipeline.bind`."""
        return BoundPipeline(self._of.bind(**fixed), self._owner)

    def select(self, /, *labels: str) -> BoundPipeline[P, Any]:
        """See `Pipeline.select`."""
        return BoundPipeline(self._of.select(*labels), self._owner)

    def replace(self, functions: Mapping[Op[..., Any], Callable[..., Any]], /) -> BoundPipeline[P, R]:
        """See `Pipeline.replace`."""
        return BoundPipeline(self._of.replace(functions), self._owner)

    def __repr__(self) -> str:
        return f"<pipeline {self._of.name} of {self._owner!r}>"

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, list[Any]]:
        return self._of._bind(self._of._plans_of(self._owner), self._owner, args, kwargs)


@overload
def pipeline(fn: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(
    *, name: str | None = None, static: Iterable[str] = (), tree: Iterable[str] = ()
) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    static: Iterable[str] = (),
    tree: Iterable[str] = (),
) -> Any:
    """Declare a pipeline: `@pipeline`, or `@pipeline(static=("depth",))`.

    The body runs once, on placeholders, when the pipeline is first called; what it does with them is recorded.
    Globals, closures, time and randomness are read at that moment and then stay as they are (see `retrace`).

    `static` names the parameters that the body sees as Python values, for loops and branches: one graph for each
    type and value; they must be hashable. `tree` names parameters that take a dict, list or tuple, nested, whose
    structure the body sees and whose leaves are inputs: weights, say. `name` is what errors, tables and pictures call
    the pipeline.

    Raises TypeError for an `async def` or generator body, and for names in `static` or `tree` that are no parameters.
    """
    if fn is None:
        return lambda body: Pipeline(body, name=name, static=static, tree=tree)
    return Pipeline(fn, name=name, static=static, tree=tree)


def _call(plan: Plan, inputs: list[Any]) -> Any:
    """The coroutine, under the pipeline's name: asyncio shows it in tasks, and Python where it is never awaited."""
    coroutine: Any = default_runtime().execute(plan, inputs, copy_context())
    coroutine.__qualname__ = plan.graph.name
    return coroutine


_ALL_GIVEN: Hashable = ()
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_ANYTHING = object()
"""Stands for an input that `graph()` was not given."""


class _Plans:
    """A bounded cache of plans, and the lock under which new ones are traced."""

    __slots__ = ("_lock", "_plans", "tracing")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: OrderedDict[Hashable, Plan] = OrderedDict()
        self.tracing = threading.RLock()

    def get(self, key: Hashable) -> Plan | None:
        """The plan kept under this key, which is now the one used last."""
        with self._lock:
            plan = self._plans.get(key)
            if plan is not None:
                self._plans.move_to_end(key)
            return plan

    def put(self, key: Hashable, plan: Plan) -> None:
        """Keep a plan, and let go of the one longest not used if there are too many."""
        with self._lock:
            self._plans[key] = plan
            while len(self._plans) > CACHED_PLANS:
                self._plans.popitem(last=False)


def _names(option: str, given: Iterable[str], signature: inspect.Signature, name: str) -> frozenset[str]:
    if isinstance(given, str):
        raise TypeError(f"pipeline {name!r}: {option} must be a collection of names, e.g. {option}=({given!r},)")
    names = frozenset(given)
    allowed = {n for n, parameter in signature.parameters.items() if parameter.kind not in _VARIADIC}
    unknown = sorted(names - allowed)
    if unknown:
        raise TypeError(f"pipeline {name!r}: {option} names {', '.join(unknown)}, no parameter of {name}{signature}")
    return names


def _only_positional(signature: inspect.Signature) -> int | None:
    """How many parameters there are, if all can be given by position; else None."""
    parameters = signature.parameters.values()
    if all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        return len(signature.parameters)
    return None
