"""Function → Graph: a body runs once, on placeholders, and what it does with them is recorded.

    tracer.py        Trace: the nodes so far, who may add to them, the user's line
    capture.py       arguments and results: placeholders → Refs, containers rebuilt
    constants.py     the user's arrays among them, watched while the body runs
    fixed.py         what operators may not change: others would not see it, or other runs would
    literals.py      the containers among them: which the body made, and which are from outside
    changed.py       what operators change among them: that must be somebody else's
    closures.py      functions among them whose variables the body binds again
    operations.py    what can be done with a placeholder, as OpSpecs
    placeholder.py   Placeholder: what records it, what is refused
    annotations.py   after, label, scope

Beside this folder: `diagnostics/`, with advice.py (what to do instead), blame.py (whether a placeholder provoked an
error), holders.py (who holds a placeholder that outlives its trace) and bytecode.py (what the user's instruction says),
and `inline.py`, a graph as a part of another.

Every recorded call stays in the graph, read or not, and no two are merged; only unread plumbing is dropped.
Nothing here recurses over the graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import copy_context
from typing import Any
from weakref import ref

from dataflow.errors import TraceError
from dataflow.graph.diagnostics import advice
from dataflow.graph.diagnostics.blame import (
    calls_itself,
    foreign,
    provoked_at,
    refused_before,
    tells_of_placeholder,
    text_of,
)
from dataflow.graph.diagnostics.bytecode import formats_nothing, names_in_call, place_of
from dataflow.graph.diagnostics.early import Early, caught_at, early, warn, warn_of_variables
from dataflow.graph.diagnostics.holders import Outlived, outlived
from dataflow.graph.inout import at_their_places, in_order
from dataflow.graph.nodes import Graph
from dataflow.graph.stateful import in_turn
from dataflow.graph.tracing.capture import Scan
from dataflow.graph.tracing.changed import Changed
from dataflow.graph.tracing.closures import Closures
from dataflow.graph.tracing.constants import Constants
from dataflow.graph.tracing.fixed import Around, with_own
from dataflow.graph.tracing.operations import CONCAT
from dataflow.graph.tracing.placeholder import (
    PendingPlaceholder,
    Placeholder,
    input_placeholder,
    is_placeholder,
    record,
)
from dataflow.graph.tracing.tracer import (
    PASSED_OVER,
    Trace,
    array_changed,
    container_changed,
    current,
    refusal,
    trace_of_context,
    variable_rebound,
)

__all__ = ["Placeholder", "Trace", "current", "is_placeholder", "record", "trace"]


def trace(
    name: str, inputs: tuple[str, ...], body: Callable[[list[Placeholder]], Any], *, owner: object | None = None
) -> Graph:
    """Run `body` once on one placeholder per input; the graph of what it recorded and returned.

    With an `owner` (an instance, not a class), input 0 stands for it: wherever it is an argument, the graph has Ref(0).
    Raises TraceError for what cannot be recorded, also if the body, or numpy, caught the refusal and went on: on values
    it would have gone another way. If a placeholder provoked an error of numpy, Python or another library, that is the
    cause of a TraceError; any other exception of the body passes through. No placeholder outlives the trace: one that
    something still holds is a TraceError, too. Statements of the body that are over before what is recorded inside them
    runs are a TraceWarning.
    """
    recording, before = Trace(name, inputs, owner), copy_context()
    still = ref(recording)
    graph, overtaken = _recorded(recording, body)
    del recording
    if still() is not None and (held := outlived(still, graph)) is not None:
        raise _outlived(graph, held, _declared(body))
    warn(overtaken, name)
    warn_of_variables(body, before, name)
    return graph


def _recorded(recording: Trace, body: Callable[[list[Placeholder]], Any]) -> tuple[Graph, list[Early]]:
    name, inputs = recording.name, recording.inputs
    token = trace_of_context.set(recording)
    try:
        returned = body([input_placeholder(recording, number) for number in range(len(inputs))])
        if recording.refused:
            went_on = f"the refusal was caught, and {name!r} went on without the value"
            if caught := caught_at(recording.refused_at):
                went_on += f": {advice.CAUGHT.format(where=caught)}"
            raise TraceError(f"{recording.refused[0]} ({went_on})")
        _refuse_formats(recording, body)
        _tell_concat(recording)
        scan = Scan(recording, {}, None, _declared(body))
        output = [scan.whole(returned)]  # so that nothing else here refers to it
        recording.around.add(scan.around)
        fixed = recording.fixed | recording.around.read_later(recording.nodes, recording.first)
        recording.around = Around()
        del returned, scan
        if written := recording.constants.changed():
            raise array_changed(written)
        if rebound := recording.closures.rebound():
            raise variable_rebound(rebound)
        recording.constants, recording.closures = Constants(), Closures()
        stateful = recording.stateful
        inout = Changed(recording) if recording.changing or stateful else None
        if changed := recording.literals.settle(recording.nodes, output):
            raise container_changed(changed)
        fixed = with_own(fixed, recording.nodes, recording.literals.overtaken, recording.things.values())
        recording.things = {}
        if inout is not None:
            inout.refuse_own()
        graph = Graph(
            name,
            inputs,
            tuple(recording.nodes),
            output[0],
            after=recording.afters,
            labels=recording.labels,
            scopes=recording.scopes,
            names=recording.names,
            stateful=stateful,
            fixed=fixed,
        )
        overtaken = early(graph.nodes, recording.lines)
        recording.failed = False
        if recording.changing:
            graph = in_order(at_their_places(graph, recording.late))
        return in_turn(graph) if stateful else graph, overtaken
    except TraceError as error:
        if refused := foreign(error, recording.refused):
            raise TraceError(f"{refused} ({error})") from error
        raise
    except RecursionError as error:
        if (found := calls_itself(error)) is None:
            raise
        way = f" by way of {found.way}" if found.way else ""
        what = f"the pipeline {found.name!r} calls itself{way} in its body until Python's stack ends"
        raise refusal(what, advice.NO_END, found.where) from error
    except Exception as error:
        at = provoked_at(error, recording.refused)
        if at is None:
            if tells_of_placeholder(error):
                error.add_note(advice.RAISED.format(name=name))
            raise
        if refused := refused_before(error, recording.refused, at.where):
            raise TraceError(f"{refused} ({type(error).__name__}: {text_of(error)})") from error
        what = f"{type(error).__name__} because of a placeholder while {name!r} is traced: {text_of(error)}"
        raise refusal(what, advice.inside_an_op(at.code, at.lasti), at.where) from error
    finally:
        trace_of_context.reset(token)
        recording.close()


def _refuse_formats(recording: Trace, body: Callable[..., Any]) -> None:
    """A text without a format takes every placeholder, and says nothing."""
    own = getattr(inspect.unwrap(body), "__code__", None)
    codes = [code for code, _ in recording.lines.codes.values() if code is not own]
    for code in codes if own is None else [own, *codes]:
        if line := formats_nothing(code):
            what = f"`%` with a text that has no place for a value, in the body of {recording.name!r}"
            raise refusal(what, advice.FORMATS_NOTHING, f"{code.co_filename}:{line}")


def _tell_concat(recording: Trace) -> None:
    """Let `operator.concat` and `iconcat` be what they are, which ask for a sum."""
    codes = [code for code, _ in recording.lines.codes.values() if not CONCAT.keys().isdisjoint(code.co_names)]
    for place, node in enumerate(recording.nodes if codes else ()):
        if node.code is not None and node.code in codes and node.spec.name in ("add", "iadd"):
            named = CONCAT.keys() & names_in_call(node.code, node.lasti)
            if named:
                recording.nodes[place] = node._replace(spec=CONCAT[named.pop()])


def _outlived(graph: Graph, held: Outlived, declared: str) -> TraceError:
    placeholder, first = held.placeholder, len(graph.inputs)
    number = placeholder._ref
    if isinstance(placeholder, PendingPlaceholder) and number is None:
        _, spec, _, code, lasti, _ = placeholder._call
        what, where = spec.name, place_of(code, lasti)
    elif number is not None and number >= first:
        node = graph.nodes[number - first]
        what, where = node.spec.name, node.where
    else:
        what, where = graph.inputs[number or 0], declared
    return TraceError(  # no refusal: the trace is over, and another around it is not concerned
        f"the placeholder of {what!r} outlives the body of {graph.name!r}: it is held by {held.holder}, at {where}:"
        f" {advice.NOT_KEPT}"
    )


def _declared(body: Callable[..., Any]) -> str:
    """Where a body of the user's begins; empty for one that a face wrapped without saying what it wraps."""
    code = getattr(inspect.unwrap(body), "__code__", None)
    if code is None or PASSED_OVER[code.co_filename]:
        return ""
    return f"{code.co_filename}:{code.co_firstlineno}"
