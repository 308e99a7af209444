"""`@op` declares an operator: a function that pipelines can record and the engine can run.

An operator called while a pipeline's body is traced records a node; called anywhere else it is the plain function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from contextvars import copy_context
from functools import partial, update_wrapper
from types import FunctionType, MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    SupportsIndex,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from dataflow.engine.runs.driver import Driver, default_runtime
from dataflow.engine.runs.limits import Limit
from dataflow.engine.service.runtime import Runtime
from dataflow.frontend.arguments import check_inputs
from dataflow.frontend.called import BELOW_THE_WRAPPER, call_error, signature_of, wraps_unseen
from dataflow.frontend.coroutines import GivesCoroutines, gives_coroutines
from dataflow.frontend.methods import CHAINS, MethodKind, bound_to, class_body, is_hidden, put_above, unwrapped
from dataflow.frontend.options import Asked, Changes, RetryOn, changed, check_inout, checked
from dataflow.frontend.pickling import Pickled
from dataflow.frontend.plan_cache import Plans
from dataflow.frontend.task import Task
from dataflow.graph.nodes import Kind, OpSpec
from dataflow.graph.plan import Plan, make_plan
from dataflow.graph.stateful import owner_of
from dataflow.graph.tracing.capture import CLOSED_OVER, closes_over
from dataflow.graph.tracing.placeholder import record
from dataflow.graph.tracing.trace import trace
from dataflow.graph.tracing.tracer import NO_KWARGS, current, refusal, trace_of_context, user_line

__all__ = ["Call", "Op", "op"]

_new = object.__new__
_trace_of_context = trace_of_context.get  # bound: it is asked at every call of an operator

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")

_BOUND: tuple[int, int, tuple[str, ...]] = (1, 0, ())
"""The arity of a bound operator: no call is certainly right before the instance is put first. So a call of any other
need not ask whether it is bound."""


if TYPE_CHECKING:

    class Call(Coroutine[Any, Any, R_co], Any):  # type: ignore[misc]  # the base Any is the point
        """What calling an async operator or a pipeline gives; `await` gives the result.

        In a pipeline's body the same call gives a placeholder; the base `Any` lets bodies use it as the value it
        stands for.
        """

else:

    class Call(Generic[R_co]):
        """For type checkers: what calling an async operator or a pipeline gives.

        At run time such a call gives a native coroutine; nothing is an instance of this class.
        """


class Op(Pickled, GivesCoroutines, Generic[P, R]):
    """An operator. Made by `op`; immutable, safe to share, and as good as the plain function outside of a trace."""

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        writes: Iterable[str] = (),
        inout: Iterable[str] = (),
        **asked: Unpack[Asked],
    ) -> None:
        if isinstance(fn, Op):
            raise TypeError(f"op: {fn!r} is an operator already; use {fn.name}.options(...) to change its options")
        method_kind: MethodKind = None
        if isinstance(fn, (classmethod, staticmethod)):
            fn, method_kind = unwrapped(fn)
        if not callable(fn):
            raise TypeError(f"op: expected a function, got {type(fn).__name__}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"op: name must be a str, got {type(name).__name__}")
        if isinstance(fn, FunctionType) and fn.__closure__ is not None and (recording := current()) is not None:
            if closes_over(fn):
                raise refusal(f"the operator {_name_of(fn)!r} uses a placeholder from outside", CLOSED_OVER)
            recording.closures.watch(fn, user_line())
        update_wrapper(self, fn)  # first: it copies the attributes of what may be an operator itself, `@wraps`-ed
        self.__dict__.pop("__signature__", None)  # the wrapped function's, which has it still
        self._of = self._owner = None
        self._method_kind = method_kind
        self._fn = self._plain = fn
        """The function, and what this is outside of a trace: where it is bound, the method."""
        kind = Kind.ASYNC if gives_coroutines(fn) else Kind.KERNEL
        self._writes = (writes,) if isinstance(writes, str) else tuple(writes)
        self._inout = (inout,) if isinstance(inout, str) else tuple(inout)
        name = name or _name_of(fn)
        self._asked = asked
        options = checked(name, asked)
        self.__dict__.setdefault("__name__", name)
        check_inout(name, self._inout, self._writes, options)
        written, changed = (
            _places(which, names, fn, name) for which, names in (("writes", self._writes), ("inout", self._inout))
        )
        owner = None if type(fn) is FunctionType else owner_of(fn)
        self._spec = OpSpec(fn, name, kind, _declared_at(fn), written, changed, options, owner)
        self._arity: tuple[int, int, tuple[str, ...]] | None = None
        """Read once, at the first call in a body, and so is this, at the first that needs it."""
        self._signature_read: tuple[inspect.Signature | None] | None = None
        self._runtime: Driver = default_runtime()
        self._plans: dict[tuple[int, tuple[str, ...]], Plan] = {}
        """For `start`: the plan of one call, for each number of arguments."""
        self._maps: Plans | None = None
        """See `_map_plans`."""
        self._inner: dict[tuple[str, bool], Any] = {}
        """For `flow.cond`: the pipelines that call it."""
        self._within = None if CHAINS else class_body(fn)
        """Until somebody asks whether a classmethod above hides the class."""
        self._hidden = False

    @property
    def name(self) -> str:
        """What the operator is called in errors, tables and pictures."""
        return self._spec.name

    def options(self, **changes: Unpack[Changes]) -> Op[P, R]:
        """The same operator with other options: any of those that `op` takes. What is not given stays as it is.

        `timeout=None`, `retries=0` and `limit=None` take back what was set. Errors are those of `op`.
        """
        if self._of is not None:
            return cast("Op[P, R]", self._of.options(**changes).__get__(self._owner))
        name, writes, inout = changes.get("name"), changes.get("writes"), changes.get("inout")
        self._refuse_hidden("options")
        derived: Op[P, R] = Op(
            self._fn if self._method_kind is None else self._method_kind(self._fn),
            name=self.name if name is None else name,
            writes=self._writes if writes is None else writes,
            inout=self._inout if inout is None else inout,
            **changed(self._asked, changes),
        )
        derived._runtime = self._runtime
        return derived

    def on(self, runtime: Runtime, /) -> Op[P, R]:
        """The same operator, of which `start` begins Tasks in this runtime: within its bounds, until it is closed.

        A Task first waits for the Tasks among its arguments, then for a place: it may fail with Overloaded and
        RuntimeClosed. Called, it is the plain function, or a node of the pipeline that is traced, all the same.
        """
        if not isinstance(runtime, Runtime):
            raise TypeError(f"{self.name}.on() takes a flow.Runtime, not {type(runtime).__name__}")
        if self._of is not None:
            return cast("Op[P, R]", self._of.on(runtime).__get__(self._owner))
        self._refuse_hidden("on")
        derived: Op[P, R] = object.__new__(Op)
        derived.__dict__.update(self.__dict__)
        derived._runtime = runtime
        return derived

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The plain function; while a pipeline is traced, a new node of it, as a placeholder.

        The plain function knows nothing of `timeout`, `retries` and `limit`: these are for runs, of which `start` makes
        one.
        """
        recording = _trace_of_context()  # as `current()`, which would be a call more for each node
        if recording is None or not recording.thread:
            return self._plain(*args, **kwargs)
        least, most, names = self._arity or self._read_arity()
        if not kwargs and least <= len(args) <= most:
            return cast(R, record(self._spec, args, NO_KWARGS))
        given: tuple[Any, ...] = args
        if self._of is not None:
            given = (self._owner, *args)
            least, most, names = self._of._arity
            if not kwargs and least <= len(given) <= most:
                return cast(R, record(self._spec, given, NO_KWARGS))
        return cast(R, record(self._spec, *self._in_order(given, kwargs, names)))

    @overload
    def __get__(self, instance: None, owner: type) -> Op[P, R]: ...
    @overload
    def __get__(self: Op[Concatenate[S, Q], T], instance: S, owner: type | None = None) -> Op[Q, T]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """On an instance: the operator with `instance` as its first argument (a constant of the graph).

        As with the methods of Python, each access gives an object of its own, and those of one instance are equal.
        """
        if instance is None or self._of is not None or self._method_kind is not None:
            if self._of is not None or self._method_kind is not classmethod:
                return self
            instance = bound_to(classmethod, instance, owner)
        if self._arity is None:
            self._read_arity()
        # An operator is bound for each call: this takes half as long as to update the `__dict__` of a new one.
        shared = self.__dict__.copy()
        shared["_of"] = self
        shared["_owner"] = instance
        shared["_arity"] = _BOUND
        shared["_plain"] = shared["__wrapped__"] = MethodType(self._fn, instance)
        bound = _new(Op)
        bound.__dict__ = shared
        return bound

    def __set_name__(self, owner: type, name: str) -> None:
        self._within = None  # nothing is above it

    @overload
    def start(self: Op[P, Call[T]], /, *args: Any, **kwargs: Any) -> Task[T]: ...
    @overload
    def start(self, /, *args: Any, **kwargs: Any) -> Task[R]: ...
    def start(self, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """Begin now, and return a Task; needs a running event loop (RuntimeError).

        Arguments may be Tasks, also inside lists, tuples, dicts, sets, deques and dataclasses: then it begins when
        these are done, with their results. If one of them fails, this fails with the same exception. Cancelling the
        Task stops it as cancelling an awaited pipeline does. Wrong arguments are a TypeError here, as are coroutines,
        Futures, and Tasks elsewhere; with more than 2,000 arguments in all, the Task fails with that. In the body of a
        pipeline it is a TraceError.
        """
        if current() is not None:
            raise refusal(
                f"{self.name}.start() starts a task, which a body cannot do", f"call {self.name}(...) instead"
            )
        if self._of is not None:
            args = (self._owner, *args)
        else:
            self._refuse_hidden("start")
        self._refuse_wrong(args, kwargs)
        return Task(self._run, self.name, args, kwargs)

    def _alone(self) -> Op[P, R]:
        """One that is bound to an instance, as an operator whose function is the method; any other is itself."""
        if self._of is None:
            return self
        return Op(self._plain, name=self.name, writes=self._writes, inout=self._inout, **self._asked)

    @property
    def uses(self) -> Any:
        return self._spec.owner

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop."""
        return self._spec.kind is Kind.ASYNC

    @property
    def is_managed(self) -> bool:
        """Whether it has a timeout, retries or a limit."""
        return self._spec.options is not None

    @property
    def is_managed_or_run(self) -> bool:
        """Whether a plain call would leave out what it is declared with, or give a coroutine."""
        return self.is_async or self.is_managed or bool(self._writes or self._inout)

    @property
    def _gives_coroutine(self) -> bool:
        return self.is_async

    @property
    def runtime(self) -> Driver:
        """Where `start` begins its Tasks."""
        return self._runtime

    def _run(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """A run of one node."""
        plan, inputs = self._prepared(args, kwargs)
        return self._runtime.execute(plan, inputs, copy_context())

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, list[Any]]:
        """The plan of one call, and its inputs. TypeError for wrong arguments."""
        args = args if self._of is None else (self._owner, *args)
        self._refuse_wrong(args, kwargs)
        return self._prepared(args, kwargs)

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, list[Any]]:
        key = len(args), tuple(kwargs)
        plan = self._plans.get(key)
        if plan is None:
            parameters = self._own_arity()[2]
            names = tuple(f"argument {place}" for place in range(len(args))) + key[1]

            def body(given: list[Any]) -> Any:
                named = dict(zip(kwargs, given[len(args) :], strict=True))
                return record(self._spec, *self._in_order(tuple(given[: len(args)]), named, parameters))

            plan = self._plans[key] = make_plan(trace(self.name, names, body))
        inputs = [*args, *kwargs.values()]
        return check_inputs(self.name, plan, inputs), inputs

    def _map_plans(self, nodes: int) -> Plans:
        """For `flow.map`: the plans of so many calls, of so many nodes at most."""
        of = self if self._of is None else self._of
        if of._maps is None:
            of._maps = Plans(nodes)
        return cast(Plans, of._maps)

    def __repr__(self) -> str:
        of = "" if self._of is None else f" of {self._owner!r}"
        return f"<{'async ' if self.is_async else ''}op {self.name}{of}>"

    def _recipe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "writes": self._writes,
            "inout": self._inout,
            "method_kind": self._method_kind,
            **self._asked,
        }

    def _remake(self, fn: Any, recipe: dict[str, Any]) -> None:
        made_of = dict(recipe)
        kind = made_of.pop("method_kind", None)
        Op.__init__(self, fn if kind is None else kind(fn), **made_of)

    def _in_order(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """By position what can be. Wrong arguments fail on the line of the call, as they do in a plain one."""
        if kwargs and len(args) + len(kwargs) == len(names) and all(name in kwargs for name in names[len(args) :]):
            return (*args, *(kwargs[name] for name in names[len(args) :])), {}
        bound = self._bind(args, kwargs)
        return (args, kwargs) if bound is None else (bound.args, bound.kwargs)

    def _refuse_wrong(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """TypeError for arguments that the function does not take; the instance is among them."""
        least, most, _ = self._own_arity()
        if kwargs or not least <= len(args) <= most:
            self._bind(args, kwargs)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments | None:
        """None where nobody knows, as with some builtins."""
        of = self if self._of is None else self._of
        if of._signature_read is None:
            of._signature_read = (_signature(of._fn),)
        signature = of._signature_read[0]
        if signature is None:
            return None
        try:
            return signature.bind(*args, **kwargs)
        except TypeError as exc:
            parameters = list(signature.parameters.values())[self._of is not None :]
            raise call_error(self.name, parameters, kwargs, exc) from None

    def _refuse_hidden(self, verb: str) -> None:
        if self._within is not None:
            self._hidden, self._within = is_hidden(self, self._within), None
        if self._hidden:
            raise put_above(f"{self.name}.{verb}()", op)

    def _own_arity(self) -> tuple[int, int, tuple[str, ...]]:
        """That of the function, whose first argument is the instance."""
        of = self if self._of is None else self._of
        return of._arity or of._read_arity()

    def _read_arity(self) -> tuple[int, int, tuple[str, ...]]:
        self._arity = _arity(self._fn)
        return self._arity


@overload
def op(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Op[P, Call[R]]: ...
@overload
def op(fn: Callable[P, R], /) -> Op[P, R]: ...
@overload
def op(
    *,
    name: str | None = None,
    writes: Iterable[str] = (),
    inout: Iterable[str] = (),
    timeout: float | None = None,
    retries: SupportsIndex = 0,
    retry_on: RetryOn | None = None,
    backoff: float | None = None,
    limit: Limit | None = None,
) -> _OpDecorator: ...
def op(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    writes: Iterable[str] = (),
    inout: Iterable[str] = (),
    timeout: float | None = None,
    retries: SupportsIndex = 0,
    retry_on: RetryOn | None = None,
    backoff: float | None = None,
    limit: Limit | None = None,
) -> Any:
    """Declare an operator: `@op`, or `@op(name=...)`.

    A plain `def` is a kernel: in a run it is executed on an inter-op thread, in its own copy of the caller's
    context. Arrays that others read too are handed to it read-only. It must return a value, not a coroutine,
    a Future or a generator. An `async def` runs on the event loop and holds no inter-op thread.

    `name` is what errors, tables and pictures call it; by default the function's name.

    `writes=("acc",)` names the parameters that the function writes into: each gets the array itself if it is an
    operator's result that nobody else reads, and else a copy. With `retries`, each attempt gets a fresh copy.

    `inout=("out",)` names the parameters that the function changes for everybody: a preallocated result, a memory map,
    a DataFrame. Each gets that very object, no view and no copy. In a run, what the body calls before that reads it
    runs before, and what the body calls after that reads it runs after; two such calls run in the order of the body.
    Its attributes and items count as the object (`x["a"]`, `x[0]`, `x.T`), and what operators make of it, which may be
    a view, is ordered likewise. Runs are not ordered against each other: give the operator a `limit` for that. Lists,
    dicts and arrays that the body makes are new in every run; other objects that it makes are a TraceError. Not with
    `retries`: a further attempt would find what the failed one has left.

    `timeout` is how many seconds one attempt may take, counted from its start: neither waiting for an inter-op thread
    nor for a limit is part of it. Then the attempt fails with OperatorTimeout, which is an OperatorError and a
    TimeoutError. An async operator is cancelled, and awaited first. A kernel cannot be interrupted: the run fails at
    once, and the kernel goes on. It keeps its inter-op thread until it returns, counts as overrunning in
    `parallel_info()`, and `checkpoint()` in it raises CancelledError. What it returns is dropped; what it raises after
    that goes to the `dataflow` logger and to observers, as a late failure.

    `retries` is how many further attempts there may be after one that failed with `retry_on`: an exception class or a
    tuple of such, by default Exception. What no Exception is ends the run at once, and so does being cancelled.
    Attempts are independent: each has its own copy of the caller's context. Before the second there is a wait of up to
    `backoff` seconds (default 0.1), before each further one of up to twice as many, but no more than 60 or `backoff`;
    how long exactly is drawn at random, so that those who failed together do not come back together. Waiting holds
    neither a thread nor a limit. Each attempt that is followed by another is a warning of the `dataflow` logger and a
    `Retrying` event; what is raised in the end is the last one's exception, with a note of how many were made. A
    timeout is a failure like others: if `retry_on` covers OperatorTimeout, as the default does, and an attempt is
    left, the run does not fail at once, but waits until the kernel has returned, since it is not tried again while it
    runs. Give `retry_on` other classes where that may take for ever.

    `limit` is a `Limit` that the operator shares with others: so many of them execute at once.

    `timeout`, `retries` and `limit` hold in runs: of pipelines, of `start`, `map` and `cond`. `p.debug()` and the plain
    function do without. Such an operator costs some hundred microseconds more a call, since the event loop sees it
    through: they are for work that takes milliseconds. Cancelling ends each wait at once.

    Works on methods: `self` becomes a constant of the graph; put `@op` above `@classmethod` and `@staticmethod`. Called
    outside of a pipeline's body, an operator is the plain function. Raises TypeError for what is no function, and
    TypeError or ValueError for options that make no sense, also for `retry_on` and `backoff` without `retries`.
    """
    asked = Asked(timeout=timeout, retries=retries, retry_on=retry_on, backoff=backoff, limit=limit)
    if fn is None:
        return partial(Op, name=name, writes=writes, inout=inout, **asked)
    return Op(fn, name=name, writes=writes, inout=inout, **asked)


class _OpDecorator(Protocol):
    """For type checkers: what `op(name=...)` returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Op[P, Call[R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Op[P, R]: ...


def _name_of(fn: Callable[..., Any]) -> str:
    while isinstance(fn, partial):
        fn = fn.func
    return getattr(fn, "__name__", type(fn).__name__)


def _declared_at(fn: Callable[..., Any]) -> str:
    while isinstance(fn, partial):
        fn = fn.func
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def _places(option: str, names: tuple[str, ...], fn: Callable[..., Any], name: str) -> tuple[int | str, ...]:
    """Where the arguments with these names are in a call: by position or, if they can only be named, by name."""
    signature = _signature(fn) if names else None
    places: list[int | str] = []
    for wanted in names:
        parameters = signature.parameters if signature is not None else {}
        found = parameters.get(wanted)
        if found is None or found.kind in (found.VAR_POSITIONAL, found.VAR_KEYWORD):
            remedy = f"; {BELOW_THE_WRAPPER}" if wraps_unseen(fn) else ""
            raise TypeError(
                f"op {name!r}: {option} names {wanted!r}, which is no single parameter of {name}{signature}{remedy}"
            )
        places.append(wanted if found.kind is found.KEYWORD_ONLY else list(parameters).index(wanted))
    return tuple(places)


def _signature(fn: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return signature_of(fn)
    except (TypeError, ValueError):  # some builtins have none
        return None


_MANY: Final = 1 << 30


def _arity(fn: Callable[..., Any]) -> tuple[int, int, tuple[str, ...]]:
    """The least and the greatest number of positional arguments with which a call is certainly right, and the names of
    all parameters, if each can be given by name and by position."""
    if type(fn) is FunctionType and "__signature__" not in fn.__dict__:
        return _arity_of_code(fn)
    signature = _signature(fn)
    if signature is None:
        return 0, _MANY, ()
    least = most = 0
    parameters = signature.parameters.values()
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            least += parameter.default is parameter.empty
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = _MANY
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            least, most = 1, 0  # never right without keywords
            break
    both = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
    return least, most, tuple(signature.parameters) if both else ()


def _arity_of_code(fn: FunctionType) -> tuple[int, int, tuple[str, ...]]:
    """The same, in a twentieth of the time."""
    code, count = fn.__code__, fn.__code__.co_argcount
    variadic = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    names = () if variadic or code.co_posonlyargcount or code.co_kwonlyargcount else code.co_varnames[:count]
    named_only = code.co_varnames[count : count + code.co_kwonlyargcount]
    if named_only and not (fn.__kwdefaults__ or {}).keys() >= set(named_only):
        return 1, 0, names  # never right without keywords
    least = count - len(fn.__defaults__ or ())
    return least, _MANY if variadic & inspect.CO_VARARGS else count, names
