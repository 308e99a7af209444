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
from types import FunctionType, MethodType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, cast, overload
from warnings import warn_explicit

from dataflow.engine.runs.driver import Driver, default_runtime
from dataflow.engine.service.runtime import Runtime
from dataflow.engine.service.stream import Stream
from dataflow.errors import TraceWarning
from dataflow.frontend.arguments import check_inputs
from dataflow.frontend.coroutines import GivesCoroutines, innermost
from dataflow.frontend.methods import (
    CHAINS,
    MethodKind,
    bound_to,
    class_body,
    class_first,
    is_hidden,
    put_above,
    unwrapped,
)
from dataflow.frontend.names import named_by
from dataflow.frontend.op import Call, Op
from dataflow.frontend.pickling import Pickled
from dataflow.frontend.plan_cache import Plans
from dataflow.frontend.signature import Binding, Parameters
from dataflow.frontend.streams import Full, Source, open_stream
from dataflow.graph.diagnostics.frozen import Frozen, frozen_calls
from dataflow.graph.inline import spliced
from dataflow.graph.nodes import Declared, Graph
from dataflow.graph.passes import replaced, selected
from dataflow.graph.plan import Plan, make_plan
from dataflow.graph.tracing.placeholder import Placeholder
from dataflow.graph.tracing.trace import trace
from dataflow.graph.tracing.tracer import Trace, current, refusal

__all__ = ["Pipeline", "pipeline"]

P = ParamSpec("P")
R = TypeVar("R")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")

_ALL_GIVEN: Hashable = ()
"""The key of the plan for which every argument is an input."""


class Pipeline(Pickled, GivesCoroutines, Generic[P, R]):
    """A pipeline. Made by `pipeline`; may be called from any number of tasks, threads and loops at once."""

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        static: Iterable[str] = (),
        tree: Iterable[str] = (),
        shapes: Iterable[str] = (),
    ) -> None:
        method_kind: MethodKind = None
        if isinstance(fn, (classmethod, staticmethod)):
            fn, method_kind = unwrapped(fn)
        if isinstance(fn, Pipeline) or not callable(fn):
            raise TypeError(f"pipeline: expected a function, got {type(fn).__name__}")
        update_wrapper(self, fn)  # first: it copies the attributes of what may be a pipeline itself, `@wraps`-ed
        self.__dict__.pop("__signature__", None)  # the wrapped function's, which has it still
        self._of = self._owner = None
        self._method_kind = method_kind
        self._fn = fn
        self._name = name if name is not None else getattr(fn, "__name__", type(fn).__name__)
        if not isinstance(innermost(fn), Declared) and _is_no_plain_function(fn):
            raise TypeError(
                f"pipeline {self._name!r}: the body must be a plain `def`: it is traced, not run. "
                "Call async operators in it without `await`, and return instead of `yield`"
            )
        self.__dict__.setdefault("__name__", self._name)
        self._parameters = Parameters(fn, self._name, static=static, tree=tree, shapes=shapes)
        self._runtime: Driver = default_runtime()
        self._passes: tuple[Callable[[Graph], Graph], ...] = ()
        self._plans = Plans()
        self._warned: set[Frozen] = set()
        self._class: type | None = None
        """Where this is a method of instances."""
        self._within = None if CHAINS else class_body(fn)
        """Until somebody asks whether a classmethod above hides the class."""
        self._hidden = False
        self._inner: dict[tuple[Hashable, ...], Pipeline[..., Any]] = {}
        """For `flow.cond` and `derive`: the pipelines that call it."""

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
            return cast(Call[R], self.inline(recording, args, kwargs))
        plan, inputs = self.prepare(args, kwargs)
        return cast(Call[R], _call(self._runtime, plan, inputs))

    def run(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the pipeline and return its result; blocks.

        In a script: on an event loop of its own (uvloop where installed). In a kernel: on that kernel's thread and
        on free workers. On a thread with a running event loop: RuntimeError, since it would block the loop.
        """
        self._refuse_trace("run")
        plan, inputs = self.prepare(args, kwargs)
        del args, kwargs  # an exception would keep them with this frame
        return cast(R, self._runtime.block(plan, inputs, copy_context()))

    def debug(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run every operator in the calling thread, in the order of the body, for debuggers and profilers; blocks.

        So do the runs that its operators wait for. Async operators run on an event loop of their own. Exceptions keep
        their whole traceback. Operators' `timeout`, `retries` and `limit` do not apply.
        """
        self._refuse_trace("debug")
        plan, inputs = self.prepare(args, kwargs)
        return cast(R, self._runtime.serial(plan, inputs, copy_context()))

    def graph(self, /, *args: Any, **kwargs: Any) -> Graph:
        """The graph that a call with these arguments runs; traced now, if it was not yet.

        Arguments that are left out and have no default count as inputs, so `p.graph()` is a check at start-up.
        """
        self._refuse_trace("graph")
        self._refuse_hidden("graph")
        method = self._of_instance(args)
        if method is not None:
            return method.graph(*args[1:], **kwargs)
        parameters = self.parameters
        return self._plan(self._own_plans(), parameters.sort(parameters.bind_partly(self._given(args), kwargs))).graph

    def retrace(self) -> None:
        """Forget all graphs: the next call traces anew, with what globals, closures and their objects hold by then.

        On an instance, those of this instance. Runs that are under way finish on their old graph.
        """
        if self._of is None:
            self._plans.clear()
            self._inner.clear()
            return
        self._plans.forget(self._owner)
        for inner in list(self._inner.values()):
            inner._plans.forget(self._owner)

    def on(self, runtime: Runtime, /) -> Pipeline[P, R]:
        """The same pipeline, with the same graphs, for runs in this runtime: within its bounds, until it is closed.

        `await p.on(rt)(...)` waits for a place first: it may raise Overloaded and RuntimeClosed, and cancelled while
        it waits it has done nothing. `.run` waits likewise; `.debug` needs no place, but raises RuntimeClosed. In a
        body the runtime does not count: the nodes become part of the pipeline that is traced.
        """
        if not isinstance(runtime, Runtime):
            raise TypeError(f"{self._name}.on() takes a flow.Runtime, not {type(runtime).__name__}")
        if self._of is not None:
            return cast("Pipeline[P, R]", self._of.on(runtime).__get__(self._owner))
        self._refuse_hidden("on")
        derived: Pipeline[P, R] = object.__new__(Pipeline)
        derived.__dict__.update(self.__dict__)
        derived._runtime = runtime
        return derived

    def bind(self, /, **fixed: Any) -> Pipeline[..., R]:
        """The same pipeline with these arguments fixed; what is left keeps its order.

        Fixed arguments are what they would be in a call: inputs, unless they are static. Raises TypeError for names
        that are no parameters, or are fixed already.
        """
        if self._of is not None:
            self.parameters.fixed(fixed)  # its instance is fixed already
            return cast("Pipeline[..., R]", self._of.bind(**fixed).__get__(self._owner))
        self._refuse_hidden("bind")
        derived = self._derived()
        derived._fix(fixed)
        return derived

    def select(self, /, *labels: str) -> Pipeline[P, Any]:
        """The pipeline of the nodes with these labels and of what they need; nothing else runs.

        Gives the value of the node, or a tuple of several. A label that no node has is a GraphError when it is traced.
        """
        if self._of is not None:
            return cast("Pipeline[P, Any]", self._of.select(*labels).__get__(self._owner))
        self._refuse_hidden("select")
        if not labels or not all(isinstance(name, str) for name in labels):
            raise TypeError(f"{self._name}.select() takes labels of nodes, such as flow.label gives")
        return self._derived(partial(selected, labels=labels))

    def replace(self, functions: Mapping[Op[..., Any], Callable[..., Any]], /) -> Pipeline[P, R]:
        """The same pipeline with other functions for some operators: for tests, with fakes of what is slow or far away.

        `functions` maps operators to functions or operators; one that is never called is a GraphError when the pipeline
        is traced. A function takes over the `timeout`, `retries` and `limit` of the operator that it stands for; an
        operator has its own.
        """
        if self._of is not None:
            return cast("Pipeline[P, R]", self._of.replace(functions).__get__(self._owner))
        self._refuse_hidden("replace")
        pairs: list[tuple[Op[..., Any], Op[..., Any], bool]] = []
        for old, new in functions.items():
            if not isinstance(old, Op):
                raise TypeError(f"{self._name}.replace() replaces operators, not {type(old).__name__}")
            if old._of is not None and isinstance(old._owner, type):  # a class method, which its class has so
                old = old._of
            if old._of is not None:
                raise TypeError(
                    f"{self._name}.replace() replaces an operator for all instances: give it as its class has it "
                    f"({type(old._owner).__name__}.{old.name}); what stands for it is called with the instance first"
                )
            pairs.append((old, new._alone() if isinstance(new, Op) else Op(new), not isinstance(new, Op)))
        return self._derived(_Replacement(tuple(pairs), all_called=True))

    @overload
    def stream(
        self,
        source: Source,
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
        on_full: Full = "wait",
        carry: None = None,
        copy: bool = False,
    ) -> Stream[R]: ...
    @overload
    def stream(
        self,
        source: Source,
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        on_error: Literal["yield"],
        on_full: Full = "wait",
        carry: None = None,
        copy: bool = False,
    ) -> Stream[R | Exception]: ...
    @overload
    def stream(
        self,
        source: Source,
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise", "yield"] = "raise",
        on_full: Full = "wait",
        carry: Mapping[str, Any],
        copy: bool = False,
    ) -> Stream[Any]: ...
    def stream(
        self,
        source: Source,
        /,
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        on_error: str = "raise",
        on_full: str = "wait",
        carry: Mapping[str, Any] | None = None,
        copy: bool = False,
    ) -> Stream[Any]:
        """Run the pipeline on every item of a source, several items at a time; gives an async iterator of the results.

        `async with p.stream(source) as s: async for y in s`, or `async for y in p.stream(source)`. Each item is the
        one positional argument of a run; `p.bind(rate=48000)` fixes other arguments. Runs overlap: item 2 is in the
        first operator while item 1 is in the last. The context is captured here; nothing starts before the stream is
        entered. See `Stream` for how it ends.

        `source`: an iterable or an async iterable, also an endless one. It is pulled on the event loop, so the `next`
        of a plain iterable must be quick (what waits is to be an async iterable). Its exception is raised after the
        results of the items before it. Generators are closed at the end.

        `in_flight`: at most so many items are pulled and not yet handed to the consumer, finished or not; the source
        waits meanwhile. Default: twice the inter-op threads, at least 2.

        `ordered`: results in the order of the source, or (False) as they end.

        `on_error`: "raise": the first failing item, in the order of the results, ends the stream; what is in flight is
        stopped, and the operator's exception is raised as by `await p(...)`. "yield": the exception takes the place of
        the result, and the stream goes on. In both cases it has the number of the item, counted from 0, as the
        attribute `item` (unless it has one of its own) and in a note.

        `on_full`: with "drop_oldest" the source is never kept waiting: when as many items are in flight as may be, the
        oldest is dropped for the next one (its run is stopped), and `Stream.dropped` counts it. For live sources.

        `carry`: state from item to item, as in `jax.lax.scan`: `carry={"tail": zeros}` gives the first item's body
        `tail`, and the body returns `(result, {"tail": new})`. Operators that read `tail` wait for that of the item
        before, everything else overlaps. Arrays and scalars, and tuples, lists and dicts of them; they are copied, and
        arrive read-only. With `on_error="yield"` an item gets the state from before a failed one, and for that a
        state is handed on only when its whole item has succeeded. Not with "drop_oldest".

        `copy`: copy the arrays of an item (also inside tuples, lists, dicts and dataclasses) before the next is pulled,
        for sources that fill one buffer again and again.

        `p.on(rt).stream(...)` takes one place in the runtime, for all of its items, from when it is entered until it
        has ended; see `Stream`.

        Raises TypeError and ValueError for wrong values, TypeError for pipelines that need more than one argument, and
        TraceError in the body of a pipeline.
        """
        self._refuse_trace("stream")
        self._refuse_hidden("stream")
        return open_stream(
            self,
            source,
            in_flight=in_flight,
            ordered=ordered,
            on_error=on_error,
            on_full=on_full,
            carry=carry,
            copy=copy,
        )

    @overload
    def __get__(self, instance: None, owner: type) -> Pipeline[P, R]: ...
    @overload
    def __get__(self: Pipeline[Concatenate[S, Q], T], instance: S, owner: type | None = None) -> Pipeline[Q, T]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """On an instance: the pipeline with `self` fixed; its graphs are kept as long as the instance lives.

        As with the methods of Python, each access gives an object of its own, and those of one instance are equal.
        """
        if instance is None or self._of is not None or self._method_kind is not None:
            if self._of is not None or self._method_kind is not classmethod:
                return self
            instance = bound_to(classmethod, instance, owner)
        return self._bound(instance)

    def _bound(self, instance: Any) -> Pipeline[..., R]:
        shared = self.__dict__.copy()  # as operators do it
        shared["_of"] = self
        shared["_owner"] = instance
        shared["__wrapped__"] = MethodType(self._fn, instance)
        if "__signature__" in shared:
            shared["__signature__"] = self._parameters.of_method.open
        bound: Pipeline[..., R] = object.__new__(Pipeline)
        bound.__dict__ = shared
        return bound

    def __set_name__(self, owner: type, name: str) -> None:
        self._within = None  # nothing is above it
        if self._method_kind is None:
            self._class = owner

    def __repr__(self) -> str:
        return f"<pipeline {self._name}{self._parameters.open if self._of is None else f' of {self._owner!r}'}>"

    def _recipe(self) -> dict[str, Any]:
        parameters = self._parameters
        made_of: dict[str, Any] = {
            "name": self._name,
            "static": parameters.static,
            "tree": parameters.tree,
            "shapes": parameters.shapes,
        }
        made_of |= {"fixed": parameters.all_fixed, "passes": self._passes}
        return {**made_of, "of_class": self._class, "method_kind": self._method_kind}

    def _remake(self, fn: Any, recipe: dict[str, Any]) -> None:
        made_of = dict(recipe)
        fixed, passes, of_class = made_of.pop("fixed"), made_of.pop("passes"), made_of.pop("of_class")
        kind = made_of.pop("method_kind", None)
        Pipeline.__init__(self, fn if kind is None else kind(fn), **made_of)
        self._passes, self._class = passes, of_class
        if fixed:
            self._fix(fixed)

    # What streams need of it: see `Target`.

    @property
    def parameters(self) -> Parameters:
        """What it takes; `open` is what is left to give."""
        return self._parameters if self._of is None else self._parameters.of_method

    @property
    def runtime(self) -> Driver:
        """Where its runs are started."""
        return self._runtime

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, list[Any]]:
        """The plan and the inputs of a call; traced now, if it was not yet. TypeError for wrong arguments."""
        if self._of is not None:
            plans, given = self._own_plans(), (self._owner, *args)
        elif self._class is not None and (method := self._of_instance(args)) is not None:
            return method.prepare(args[1:], kwargs)
        else:
            plans, given = self._plans, args
        if len(given) == self._parameters.positional and not kwargs and not any(arg is None for arg in args):
            plan = plans.get(_ALL_GIVEN)  # the common case: every parameter given by position, none static
            if plan is not None:
                inputs = list(given)
                return check_inputs(self._name, plan, inputs), inputs
        if self._of is None and self._class is None:
            if class_first(self, args):
                return self._bound(args[0]).prepare(args[1:], kwargs)
            if self._is_hidden:
                raise put_above(self._name, pipeline)
        parameters = self.parameters
        binding = parameters.sort(parameters.bind(given, kwargs))
        plan = self._plan(plans, binding)
        return check_inputs(self._name, plan, binding.inputs), binding.inputs

    def inline(self, recording: Trace, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record it into the pipeline that is being traced: its body or, if passes changed it, its graph."""
        if self._passes:
            method = self._of_instance(args)
            if method is not None:
                return method.inline(recording, args[1:], kwargs)
            parameters = self.parameters
            binding = parameters.sort(parameters.bind(self._given(args), kwargs))
            return spliced(recording, self._plan(self._own_plans(), binding).graph, binding.inputs)
        if self._parameters.open is not self._parameters.signature:
            bound = self._parameters.bind(self._given(args), kwargs)
            return self._fn(*bound.args, **bound.kwargs)
        return self._fn(*self._given(args), **kwargs)

    def derive(
        self,
        key: Hashable,
        body: Callable[..., Any],
        *,
        static: Iterable[str] = (),
        tree: Iterable[str] = (),
        shapes: Iterable[str] = (),
    ) -> Pipeline[..., Any]:
        """A pipeline around this one, of the same name: its body is `body`, called with this one first.

        It is kept with this one, so that equal keys get the same, with the same graphs, until these are forgotten.
        """
        of, known = self._of, ("derived", self._of is None, key)
        made = self._inner.get(known)
        if made is None:
            around = partial(body, self) if of is None else _method(body, of)
            made = Pipeline(around, name=self._name, static=static, tree=tree, shapes=shapes)
            made = self._inner.setdefault(known, made)
        return made if of is None else made.__get__(self._owner)

    # Planning.

    @property
    def _gives_coroutine(self) -> bool:
        return True

    @property
    def _body(self) -> Any:
        return self._fn

    def _refuse_trace(self, verb: str) -> None:
        if current() is not None:
            raise refusal(
                f"{self._name}.{verb}() was called while a pipeline is traced, where nothing runs",
                f"call {self._name}(...) to record it into that pipeline",
            )

    @property
    def _is_hidden(self) -> bool:
        if self._within is not None:
            self._hidden, self._within = is_hidden(self, self._within), None
        return self._hidden

    def _refuse_hidden(self, verb: str) -> None:
        if self._of is None and self._class is None and self._is_hidden:
            raise put_above(f"{self._name}.{verb}()", pipeline)

    def _given(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the function is given: to a method, the instance first."""
        return args if self._of is None else (self._owner, *args)

    def _of_instance(self, args: tuple[Any, ...]) -> Pipeline[..., R] | None:
        """`Model.forward(model, x)` is `model.forward(x)`; None if it is called in another way."""
        if self._of is None and self._class is not None and args and isinstance(args[0], self._class):
            return cast("Pipeline[..., R]", self.__get__(args[0]))
        return None

    def _own_plans(self) -> Plans:
        """Its plans; those of a method are kept for one instance. Identity counts, not equality."""
        if self._of is None:
            return self._plans
        try:
            return self._plans.of(self._owner)
        except TypeError:
            raise TypeError(
                f"pipeline {self._name!r} is a method of {type(self._owner).__name__}, whose instances cannot be "
                "referred to weakly: add '__weakref__' to its __slots__"
            ) from None

    def _map_plans(self, nodes: int) -> Plans:
        """For `flow.map`: the plans of so many runs, of so many nodes at most; of a method, for one instance."""
        return self._own_plans().maps(nodes)

    def _plan(self, plans: Plans, binding: Binding) -> Plan:
        plan = plans.get(binding.key)
        if plan is None:
            with plans.tracing:  # concurrent first calls trace once
                plan = plans.get(binding.key)
                if plan is None:
                    generation = plans.generation
                    plan = make_plan(self._trace(binding))
                    values = [binding.bound.arguments.get(name) for name in self._parameters.static]
                    # After the trace, since the body may bind some of them itself.
                    names, functions = named_by(self._fn, self._owner, values)
                    plans.put(binding.key, plan, generation, names)
                    if self._parameters.static:
                        plans.put(self._parameters.key_now(binding), plan, generation, names)
                    self._warn(functions)
        return plan

    def _warn(self, functions: list[FunctionType]) -> None:
        """Of what the body asked of the clock, or of random numbers; once, also where a body is declared many times."""
        for asked, names in frozen_calls(self._fn, self._owner, functions):
            if asked not in self._warned:
                self._warned.add(asked)
                registry = names.setdefault("__warningregistry__", {})
                warn_explicit(str(asked), TraceWarning, asked.file, asked.line, names.get("__name__"), registry)

    def _trace(self, binding: Binding) -> Graph:
        def body(placeholders: list[Placeholder]) -> Any:
            bound = binding.with_placeholders(placeholders)
            return self._fn(*bound.args, **bound.kwargs)

        body.__wrapped__ = self._fn  # type: ignore[attr-defined]  # errors name the user's body, not this one
        graph = trace(self._name, tuple(binding.names), body, owner=self._owner)
        for graph_pass in self._passes:
            graph = graph_pass(graph)
        return graph

    def _fix(self, values: dict[str, Any]) -> None:
        self._parameters = self._parameters.fixed(values)
        self.__dict__["__signature__"] = self._parameters.open

    def _derived(self, graph_pass: Callable[[Graph], Graph] | None = None) -> Pipeline[Any, Any]:
        derived: Pipeline[Any, Any] = object.__new__(Pipeline)
        derived.__dict__.update(self.__dict__)
        derived._plans, derived._inner = Plans(), {}
        if graph_pass is not None:
            derived._passes = (*self._passes, graph_pass)
        return derived


@overload
def pipeline(fn: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(
    *, name: str | None = None, static: Iterable[str] = (), tree: Iterable[str] = (), shapes: Iterable[str] = ()
) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    static: Iterable[str] = (),
    tree: Iterable[str] = (),
    shapes: Iterable[str] = (),
) -> Any:
    """Declare a pipeline: `@pipeline`, or `@pipeline(static=("depth",))`.

    The body runs once, on placeholders, when the pipeline is first called; what it does with them is recorded.
    Globals and closures are read at that moment. When one that the body names, itself or by way of plain functions, is
    bound to something else, the next call traces anew; what is inside of a list, a dict or an object is not looked at
    (see `retrace`). Where the body asks for the time or for random numbers, all runs get what it got: a TraceWarning.

    `static` names the parameters that the body sees as Python values, for loops and branches: one graph for each
    type and value; they must be hashable. An object counts with its attributes of that moment: when it was changed, the
    body is traced anew. `tree` names parameters that take a dict, list or tuple, nested, whose structure the body sees
    and whose leaves are inputs: weights, say. `shapes` names parameters that take arrays, of which the body sees
    `shape`, `ndim`, `size`, `dtype` and `len()` as Python values: one graph for each shape and dtype. `name` is what
    errors, tables and pictures call the pipeline.

    Works on methods, with graphs for each `self`; put `@pipeline` above `@classmethod` and `@staticmethod`.

    Raises TypeError for an `async def` or generator body, and for names in `static`, `tree` or `shapes` that are no
    parameters.
    """
    if fn is None:
        return lambda body: Pipeline(body, name=name, static=static, tree=tree, shapes=shapes)
    return Pipeline(fn, name=name, static=static, tree=tree, shapes=shapes)


def _is_no_plain_function(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn)


def _method(body: Callable[..., Any], of: Pipeline[..., Any]) -> Callable[..., Any]:
    """The body of a pipeline around one that is a method: its first argument is the instance."""

    def around(instance: Any, /, *args: Any) -> Any:
        return body(of.__get__(instance), *args)

    around.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
    return around


def _call(runtime: Driver, plan: Plan, inputs: list[Any]) -> Any:
    """The coroutine, under the pipeline's name: asyncio shows it in tasks, and Python where it is never awaited."""
    coroutine: Any = runtime.execute(plan, inputs, copy_context())
    coroutine.__qualname__ = plan.graph.name
    return coroutine


@dataclass(frozen=True, slots=True, eq=False)
class _Replacement:
    """The graph pass of `replace`. Functions are found by identity, which is another one in another process."""

    pairs: tuple[tuple[Op[..., Any], Op[..., Any], bool], ...]
    """An operator, what stands for it, and whether that is made of a plain function."""
    all_called: bool
    """Whether each has to be called."""

    def __call__(self, graph: Graph) -> Graph:
        specs = {id(old._fn): new._spec for old, new, _ in self.pairs}
        plain = {id(old._fn) for old, _, plain in self.pairs if plain}
        names = {id(old._fn): old.name for old, *_ in self.pairs if self.all_called}
        return replaced(graph, functions=specs, plain=plain, names=names, swap=self._swap)

    def _swap(self, value: Any, called: set[int]) -> Any:
        """What stands for an operator or a pipeline that is an argument, as for `flow.map`."""
        if not isinstance(value, Declared):
            return value
        if value._of is not None:
            return self._swap(value._of, called).__get__(value._owner)
        if isinstance(value, Pipeline):
            called.update(id(old._fn) for old, *_ in self.pairs)  # what it calls is not known before it is traced
            return value._derived(_Replacement(self.pairs, all_called=False))
        assert isinstance(value, Op)
        called.add(id(value._fn))
        for old, new, plain in self.pairs:
            if old._fn is value._fn:
                return new.options(**value._asked) if plain else new
        return value
