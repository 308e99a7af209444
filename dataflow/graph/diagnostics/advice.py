"""What to do instead: the remedies of what a placeholder refuses, chosen by the user's instruction where it says more.

What numpy asks of a placeholder is the same in all; what the user wrote is not:

    E[ids]              np.take(E, ids, axis=0)
    y[mask] = 0         np.where(mask, 0, y)
    np.array([a, b])    np.stack([a, b])
    np.float32(x)       x.astype(np.float32)
    f(x)                flow.op(f)(x)
"""

from __future__ import annotations

from types import CodeType
from typing import Final

import numpy as np

from dataflow.graph.diagnostics.bytecode import operator_of, reads_item, unpacks_into_call, writes_item
from dataflow.graph.diagnostics.source import function_called
from dataflow.graph.tracing.tracer import user_line

__all__ = [
    "ASK_NOT",
    "AS_TEXT",
    "BY_VALUE",
    "CAUGHT",
    "COMPARED",
    "EARLY",
    "FORMATS_NOTHING",
    "KEYS",
    "NOT_ADDED_TO",
    "NOT_ASKED",
    "NOT_BY_METHOD",
    "NOT_IN_PLACE",
    "NOT_KEPT",
    "NO_ATTRIBUTES",
    "NO_AWAIT",
    "NO_COPY",
    "NO_END",
    "NO_ITEMS",
    "NO_KEY",
    "NO_NAME",
    "NO_WITH",
    "as_array",
    "as_index",
    "as_items",
    "as_length",
    "as_text",
    "attribute",
    "choose",
    "convert",
    "inside_an_op",
    "mask",
    "of_type",
]

_CHOOSE: Final = (
    "its value is not known yet; use np.where for a choice per element, flow.cond for a choice per run, `&`, `|` and"
    " `~` for and, or and not, or name the argument that decides in static="
)
COMPARED: Final = (
    "which of the two is on the left decides, and Python does not tell; make it an array (np.asarray) or bytes before,"
    " or compare inside an op"
)
NOT_ASKED: Final = (
    "its value is not known yet; ask inside an op: flow.op(operator.contains)(node, item); for arrays also np.isin"
)
NO_NAME: Final = (
    "a placeholder has no names that begin with an underscore; call what has one inside an op"
    " (flow.op(lambda value: ...)(node))"
)
_INDEX_IT: Final = (
    "how many items it has is not known yet; index it (node[0], node[1]), unpack it into names (a, b = node), or pass"
    " how many as a static= argument"
)
_UNPACKED_IN_CALL: Final = (
    "how many items it has is not known yet; unpack it into names first (a, b = node, then f(a, b)), or pass it whole"
    " to an op that does it (flow.op(lambda items: f(*items))(node))"
)
KEYS: Final = (
    "its keys are not known yet; name them (f(a=node['a'], b=node['b']), {'a': node['a']}), use `{} | node` for a dict"
    " with all of its items, or pass it whole to an op that does it (flow.op(lambda items: f(**items))(node))"
)
ASK_NOT: Final = "its value is not known yet; make the call inside an op, or name the argument in static="
AS_TEXT: Final = "its value is not known yet; repr() shows the placeholder, and an op can print the value"
NO_COPY: Final = (
    "it only stands for a value of the graph; use it as it is, or copy the value inside an op"
    " (flow.op(copy.deepcopy)(node))"
)
NO_AWAIT: Final = "async ops are called without await in a body; whoever runs the pipeline awaits it"
NO_WITH: Final = "its value is not known yet; enter it inside an op"
NO_ATTRIBUTES: Final = "a node is not changed after it is made; build the new value in an op and use its result"
NO_ITEMS: Final = "a node is not changed after it is made; use np.where (np.delete), or write into a copy inside an op"
NOT_IN_PLACE: Final = (
    "a graph makes new values: use the result (`a = a + b`, np.where(mask, new, old)), or write inside an op"
)
NOT_ADDED_TO: Final = (
    "a graph makes new values: write the plain operator (`a = a + node`, `a = a | node`), or change a copy inside an op"
)
NO_END: Final = (
    "a call in a body is recorded at once, with all that it calls; use a loop, or let the pipeline be called when it"
    " is known whether: by flow.cond(pred, pipeline, otherwise, node), by flow.map(pipeline, nodes), or in an async op"
    " that awaits it"
)
NOT_KEPT: Final = (
    "nobody would ever put the value there; give it to an op as an argument of its own or in tuples, lists, dicts (as a"
    " value) and dataclasses, or return it from the body and keep the result of the run"
)
NOT_BY_METHOD: Final = (
    "a graph makes new values: use what the call gives without it (np.sort(node) for node.sort(),"
    " node = node.fillna(0) for inplace=True), change a copy inside an op, or what the caller owns in one with inout="
)
BY_VALUE: Final = "its value is not known yet; use np.where or arithmetic on the node, or make the call inside an op"
NO_KEY: Final = (
    "its value is not known yet, so it is neither found in a set nor as the key of a dict; name the argument in"
    " static=, look it up inside an op, or put placeholders into lists and the values of dicts"
)
_TYPE: Final = "its type is not known yet; look at it inside an op, or name the argument in static="

EARLY: Final = {
    "with": (
        "the `with` in the body of {name!r} is over before {recorded} runs",
        "what a body records runs later; put the `with` and what it is for into an op",
    ),
    "try": (
        "the `try` in the body of {name!r} is over before {recorded} runs",
        "what a body records raises later; put the `try` into an op, or around the run of the pipeline",
    ),
    "decorator": (
        "what the decorator {recorded} in the body of {name!r} does is over before anything runs",
        "what a body records runs later; put the decorator on an op, or its `with` into one",
    ),
    "reset": (
        "the body of {name!r} sets the context variable {recorded} runs",
        "each run has the context of its call; set it before the call, or inside an op",
    ),
    "set": (
        "the body of {name!r} sets the context variable {recorded}, of which runs see nothing",
        "each run has the context of its call; set it before the call, or inside an op",
    ),
}
"""For statements that are over before what is recorded runs: what happens, and the remedy."""
FORMATS_NOTHING: Final = "give it a format (%s), and apply it inside an op, which knows the value"
CAUGHT: Final = "the statement at {where} decides before there is one; put it into an op, or let the refusal pass"
_MASK: Final = (
    "its value is not known yet; ask inside an op: flow.op(np.ma.is_masked)(node), flow.op(np.ma.getmask)(node)"
)

_CONVERT: Final = (
    "its value is not known yet; keep it as a node (node.astype), convert it inside an op, or name the argument in"
    " static="
)
_AS_ARRAY: Final = (
    "its value is not known yet; use it as the array it will be (np.stack for an array of nodes), or convert it inside"
    " an op"
)
_COUNT: Final = (
    "its value is not known yet; name the argument in static=, or the array whose shape it is in shapes=, or count"
    " inside an op"
)
_LENGTH: Final = (
    "its length is not known yet; name the argument in shapes= (of an array), use the node node.shape[0], or"
    " flow.op(len)(node)"
)
_TAKE: Final = (
    "its value is not known yet; index inside an op (flow.op(operator.getitem)(E, ids) for E[ids]), or name the"
    " argument in static="
)
_FILL: Final = (
    "its value is not known yet; use np.where(mask, new, old) for a masked write, np.stack(rows) for an array that is"
    " filled row by row, or write inside an op"
)


def choose() -> str:
    """For its truth."""
    return _as_op() or _CHOOSE


def of_type() -> str:
    """For a question about its type, be it by the class of another operand."""
    return _for_operator() or _as_op() or _TYPE


def attribute() -> str:
    """For a question about what it has."""
    return _as_op() or _TYPE


def mask() -> str:
    """For the mask that a masked array has, and nothing else."""
    return _for_operator() or _MASK


def convert() -> str:
    """For a conversion to a number."""
    return _as_op() or _for_item(read=_CONVERT, otherwise=_CONVERT)


def as_array() -> str:
    """For a conversion to an array."""
    return _for_operator() or _as_op() or _for_item(read=_TAKE, otherwise=_AS_ARRAY)


def as_index() -> str:
    """For an index or a count."""
    return (
        _for_operator()
        or _as_op(" in static=, or the array whose shape it is in shapes=")
        or _for_item(read=_TAKE, otherwise=_COUNT)
    )


def as_length() -> str:
    """For its length."""
    return _as_op() or _LENGTH


def as_text() -> str:
    """For its text."""
    return _as_op() or AS_TEXT


def as_items() -> str:
    """For its items, one after another."""
    code, lasti = user_line()
    if code is not None and unpacks_into_call(code, lasti):
        return _UNPACKED_IN_CALL
    return _as_op() or _INDEX_IT


def inside_an_op(code: CodeType, lasti: int) -> str:
    """For an error of the function that this instruction calls."""
    return _op_of(code, lasti) or "its value is not known yet; do this inside an op"


def _for_item(*, read: str, otherwise: str) -> str:
    """What fits the user's instruction: one that writes an item, one that reads an item, or another."""
    code, lasti = user_line()
    if code is None:
        return otherwise
    return _FILL if writes_item(code, lasti) else read if reads_item(code, lasti) else otherwise


def _for_operator() -> str:
    """What fits an operator whose left operand looks at the right one; empty for other instructions."""
    code, lasti = user_line()
    name = "" if code is None else operator_of(code, lasti)
    return name and (
        "its left operand decides by the right one, of which nothing is known yet; apply the operator in an op:"
        f" flow.op(operator.{name})(a, b)"
    )


_KNOWN: Final = frozenset(
    {"isinstance", "issubclass", "hasattr", "getattr", "callable", "type", "bool", "float", "int", "complex", "str"}
    | {"bytes", "repr", "format", "hash", "len", "iter", "next", "list", "tuple", "set", "frozenset", "range"}
    | {"enumerate", "zip", "map", "filter", "reversed", "print", "np.array", "np.asarray", "np.asanyarray"}
    | {"np.ascontiguousarray", "np.asfortranarray", "np.iterable", "np.isscalar", "operator.index"}
)
"""Functions of which more is known than that they can be made an op."""
_FILL_CONTAINERS: Final = frozenset(
    {"extend", "extendleft", "update", "difference_update", "intersection_update", "symmetric_difference_update"}
)
"""Methods of containers of the body's, which an op would change when nobody sees it."""
_OF_SHAPE: Final = frozenset({"zeros", "ones", "empty", "full"})
_TYPES: Final = frozenset(kind.__name__ for kind in np.sctypeDict.values())


def _as_op(where: str = " in static=") -> str:
    """What fits a call of a function that looks at what it is given; empty for other instructions."""
    code, lasti = user_line()
    return "" if code is None else _op_of(code, lasti, where)


def _op_of(code: CodeType, lasti: int, where: str = " in static=") -> str:
    called = function_called(code, lasti)
    module, _, name = called.rpartition(".")
    if module in ("np", "numpy") and name in _TYPES:
        return f"its value is not known yet; convert the node: node.astype({called})"
    if module and name in _FILL_CONTAINERS:
        return NOT_ADDED_TO
    if module in ("np", "numpy") and name in _OF_SHAPE:
        return (
            f"its value is not known yet; use {called}_like(node) for an array of its shape, or name the argument whose"
            f" shape it is in shapes=, or call it inside an op: flow.op({called})(...)"
        )
    if not called or name.startswith("__") or called.replace("numpy.", "np.") in _KNOWN:
        return ""
    return (
        f"its value is not known yet; call it inside an op: flow.op({called})(...), or name the argument that decides"
        f"{where}"
    )
