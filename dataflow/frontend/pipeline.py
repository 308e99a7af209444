"""`@pipeline` declares a pipeline: a function whose body is traced into a graph once and then run many times.

    call ─▶ bind ─▶ plan (cached) ─▶ run

Binding sorts the arguments of a call into *inputs*, which differ from run to run, and *Python values*, which the
body sees as they are: arguments named in `static`, explicit None, and defaults that were left out. There is one
plan for each set of Python values, kept in a bounded cache; on methods one such cache for each `self`, as long as
that lives.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from dataflow.engine.hosting import Runtime
from dataflow.engine.runtime import Driver, default_runtime
from dataflow.frontend.op import BoundOp, Call, Op, pickled_as
from dataflow.frontend.plan_cache import Plans
from dataflow.frontend.signature import Binding, Parameters
from dataflow.frontend.streams import Streaming
from dataflow.graph.inline import spliced
from dataflow.graph.nodes import Declared, Graph, OpSpec
from dataflow.graph.passes import replaced, selected
from dataflow.graph.plan import Plan, make_plan
from dataflow.graph.tracing.placeholder import Placeholder, is_placeholder
from dataflow.graph.tracing.trace import trace
from dataflow.graph.tracing.tracer import Trace, current, refusal

__all__ = ["BoundPipeline", "Pipeline", "pipeline"]

P = ParamSpec("P")
R = TypeVar("R")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")

_ALL_GIVEN: Hashable = ()
"""The key of the plan for which every argument is an input."""


class Pipeline(Declared, Streaming[R], Generic[P, R]):
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
        self._parameters = Parameters(fn, self._name, static=static, tree=tree)
        self._runtime: Driver = default_runtime()
        self._passes: tuple[Callable[[Graph], Graph], ...] = ()
        self._plans = Plans()
        self._class: type | None = None
        """Where this is a method."""
        self._inner: dict[tuple[Hashable, ...], Pipeline[..., Any]] = {}
        """For `flow.map`, `flow.cond` and streams that carry state: the pipelines that call it."""

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
        recording = current()
        if recording is not None:
            return cast(Call[R], self._inlined(recording, None, args, kwargs))
        plan, inputs = self._bind(self._plans, None, args, kwargs)
        return cast(Call[R], _call(self._runtime, plan, inputs))

    def run(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the pipeline and return its result; blocks.

        In a script: on an event loop of its own (uvloop where installed). In a kernel: on that kernel's thread and
        on free lanes. On a thread with a running event loop: RuntimeError, since it would block the loop.
        """
        self._refuse_trace("run")
        plan, inputs = self._bind(self._plans, None, args, kwargs)
        del args, kwargs  # an exception would keep them with this frame
        return cast(R, self._runtime.block(plan, inputs, copy_context()))

    def debug(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run every operator one after another in the calling thread, for debuggers and profilers; blocks.

        Async operators run on an event loop of their own. Exceptions keep their whole traceback. Operators' `timeout`,
        `retries` and `limit` do not apply.
        """
        self._refuse_trace("debug")
        plan, inputs = self._bind(self._plans, None, args, kwargs)
        return cast(R, self._runtime.serial(plan, inputs, copy_context()))

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
        self._plans.clear()
        self._inner.clear()

    def on(self, runtime: Runtime, /) -> Pipeline[P, R]:
        """The same pipeline, with the same graphs, for runs in this runtime: within its bounds, until it is closed.

        `await p.on(rt)(...)` waits for a place first: it may raise Overloaded and RuntimeClosed, and cancelled while
        it waits it has done nothing. `.run` waits likewise; `.debug` needs no place, but raises RuntimeClosed. In a
        body the runtime does not count: the nodes become part of the pipeline that is traced.
        """
        if not isinstance(runtime, Runtime):
            raise TypeError(f"{self._name}.on() takes a flow.Runtime, not {type(runtime).__name__}")
        derived: Pipeline[P, R] = object.__new__(Pipeline)
        derived.__dict__.update(self.__dict__)
        derived._runtime = runtime
        return derived

    def bind(self, /, **fixed: Any) -> Pipeline[..., R]:
        """The same pipeline with these arguments fixed; what is left keeps its order.

        Fixed arguments are what they would be in a call: inputs, unless they are static. Raises TypeError for names
        that are no parameters, or are fixed already.
        """
        derived = self._derived()
        derived._parameters = self._parameters.fixed(fixed)
        derived.__dict__["__signature__"] = derived._parameters.open
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
        is traced. A function takes over the `timeout`, `retries` and `limit` of the operator that it stands for; an
        operator has its own.
        """
        new_of: dict[int, Op[..., Any]] = {}
        plain: set[int] = set()
        for old, new in functions.items():
            if not isinstance(old, Op):
                raise TypeError(f"{self._name}.replace() replaces operators, not {type(old).__name__}")
            new_of[id(old._fn)] = new if isinstance(new, Op) else Op(new)
            if not isinstance(new, Op):
                plain.add(id(old._fn))
        specs = {function: new._spec for function, new in new_of.items()}
        names = {id(old._fn): old.name for old in functions}
        swap = _swap(new_of, specs, plain)
        return self._derived(partial(replaced, functions=specs, plain=plain, names=names, swap=swap))

    def _derived(self, graph_pass: Callable[[Graph], Graph] | None = None) -> Pipeline[Any, Any]:
        derived: Pipeline[Any, Any] = object.__new__(Pipeline)
        derived.__dict__.update(self.__dict__)
        derived._plans, derived._inner = Plans(), {}
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
        return f"<pipeline {self._name}{self._parameters.open}>"

    def __reduce__(self) -> str:
        return pickled_as(self)

    def __set_name__(self, owner: type, name: str) -> None:
        self._class = owner

    def _parts(self) -> tuple[Pipeline[..., R], None]:
        return self, None

    # Binding and planning; `owner` is the instance where this is a method, else None.

    def _refuse_trace(self, verb: str) -> None:
        if current() is not None:
            raise refusal(
                f"{self._name}.{verb}() was called while a pipeline is traced, where nothing runs",
                f"call {self._name}(...) to record it into that pipeline",
            )

    def _bind(self, plans: Plans, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, list[Any]]:
        """The plan and the inputs of a call."""
        plans, owner, args = self._through_the_class(plans, owner, args)
        if (
            len(args) == self._parameters.positional
            and owner is None
            and not kwargs
            and not any(arg is None for arg in args)
        ):
            plan = plans.get(_ALL_GIVEN)  # the common case: every parameter given by position, none static
            if plan is not None:
                inputs = list(args)
                self._refuse_placeholders(inputs)
                return plan, inputs
        binding = self._parameters.sort(self._parameters.bind(owner, args, kwargs), owner)
        plan = self._plan(plans, owner, binding)
        self._refuse_placeholders(binding.inputs)
        return plan, binding.inputs

    def _through_the_class(self, plans: Plans, owner: Any, args: tuple[Any, ...]) -> tuple[Plans, Any, tuple[Any, ...]]:
        """`Model.forward(model, x)` is `model.forward(x)`."""
        if self._class is not None and owner is None and args and isinstance(args[0], self._class):
            return self._plans_of(args[0]), args[0], args[1:]
        return plans, owner, args

    def _plan(self, plans: Plans, owner: Any, binding: Binding) -> Plan:
        plan = plans.get(binding.key)
        if plan is None:
            with plans.tracing:  # concurrent first calls trace once
                plan = plans.get(binding.key)
                if plan is None:
                    generation = plans.generation
                    plan = make_plan(self._trace(binding, owner))
                    plans.put(binding.key, plan, generation)
        return plan

    def _graph(self, plans: Plans, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        plans, owner, args = self._through_the_class(plans, owner, args)
        bound = self._parameters.bind_partly(owner, args, kwargs)
        return self._plan(plans, owner, self._parameters.sort(bound, owner)).graph

    def _inlined(self, recording: Trace, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record it into the pipeline that is being traced: its body or, if passes changed it, its graph."""
        if self._passes:
            plans, owner, args = self._through_the_class(self._plans, owner, args)
            plans = plans if owner is None else self._plans_of(owner)
            binding = self._parameters.sort(self._parameters.bind(owner, args, kwargs), owner)
            return spliced(recording, self._plan(plans, owner, binding).graph, binding.inputs)
        if self._parameters.open is not self._parameters.signature:
            bound = self._parameters.bind(owner, args, kwargs)
            return self._fn(*bound.args, **bound.kwargs)
        return self._fn(*args, **kwargs) if owner is None else self._fn(owner, *args, **kwargs)

    def _refuse_placeholders(self, inputs: list[Any]) -> None:
        if any(is_placeholder(value) for value in inputs):
            raise TypeError(
                f"{self._name}() was called with a placeholder, outside of the body that it belongs to: "
                "a placeholder stands for a value only while its pipeline is traced"
            )

    def _trace(self, binding: Binding, owner: Any) -> Graph:
        def body(placeholders: list[Placeholder]) -> Any:
            bound = binding.with_placeholders(placeholders, method=owner is not None)
            return self._fn(*bound.args, **bound.kwargs)

        body.__wrapped__ = self._fn  # type: ignore[attr-defined]  # errors name the user's body, not this one
        graph = trace(self._name, tuple(binding.names), body, owner=owner)
        for graph_pass in self._passes:
            graph = graph_pass(graph)
        return graph

    def _plans_of(self, owner: Any) -> Plans:
        """The plans of a method's pipeline for one instance; identity counts, not equality."""
        try:
            return self._plans.of(owner)
        except TypeError:
            raise TypeError(
                f"pipeline {self._name!r} is a method of {type(owner).__name__}, whose instances cannot be referred "
                "to weakly: add '__weakref__' to its __slots__"
            ) from None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BoundPipeline(Streaming[R], Generic[P, R]):
    """A pipeline that is a method, on one instance: `self` is fixed, everything else is as in `Pipeline`."""

    _of: Pipeline[Any, R]
    _owner: Any

    @property
    def name(self) -> str:
        """What the pipeline is called in errors, tables and pictures."""
        return self._of.name

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """See `Pipeline.__call__`."""
        of = self._of
        recording = current()
        if recording is not None:
            return cast(Call[R], of._inlined(recording, self._owner, args, kwargs))
        plan, inputs = self._bind(args, kwargs)
        return cast(Call[R], _call(of._runtime, plan, inputs))

    def run(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Pipeline.run`."""
        self._of._refuse_trace("run")
        plan, inputs = self._bind(args, kwargs)
        del args, kwargs
        return cast(R, self._of._runtime.block(plan, inputs, copy_context()))

    def debug(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Pipeline.debug`."""
        self._of._refuse_trace("debug")
        plan, inputs = self._bind(args, kwargs)
        return cast(R, self._of._runtime.serial(plan, inputs, copy_context()))

    def graph(self, /, *args: Any, **kwargs: Any) -> Graph:
        """See `Pipeline.graph`."""
        self._of._refuse_trace("graph")
        return self._of._graph(self._of._plans_of(self._owner), self._owner, args, kwargs)

    def retrace(self) -> None:
        """Forget the graphs of this instance; see `Pipeline.retrace`."""
        self._of._plans.forget(self._owner)
        self._of._inner.clear()

    def on(self, runtime: Runtime, /) -> BoundPipeline[P, R]:
        """See `Pipeline.on`."""
        return BoundPipeline(self._of.on(runtime), self._owner)

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

    def _parts(self) -> tuple[Pipeline[..., R], Any]:
        return self._of, self._owner

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


def _call(runtime: Driver, plan: Plan, inputs: list[Any]) -> Any:
    """The coroutine, under the pipeline's name: asyncio shows it in tasks, and Python where it is never awaited."""
    coroutine: Any = runtime.execute(plan, inputs, copy_context())
    coroutine.__qualname__ = plan.graph.name
    return coroutine


def _swap(
    new_of: Mapping[int, Op[..., Any]], specs: Mapping[int, OpSpec], plain: set[int]
) -> Callable[[Any, set[int]], Any]:
    """What `replace` makes of an operator or a pipeline that is an argument, as for `flow.map`."""

    def swap(value: Any, called: set[int]) -> Any:
        if isinstance(value, Op):
            called.add(id(value._fn))
            new = new_of.get(id(value._fn), value)
            return new.options(**value._asked) if id(value._fn) in plain else new
        if isinstance(value, (BoundOp, BoundPipeline)):
            return type(value)(swap(value._of, called), value._owner)
        if isinstance(value, Pipeline):
            called.update(specs)  # what it calls is not known before it is traced
            return value._derived(partial(replaced, functions=specs, plain=plain, names={}, swap=swap))
        return value

    return swap
