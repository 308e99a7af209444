"""Arguments that no run can take: placeholders, what is to be awaited first, and what can be read once but is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataflow.graph.once import ORDINARY, close_coroutines, described, is_coroutine, later_within, once_within
from dataflow.graph.plan import Plan
from dataflow.graph.tracing.placeholder import is_placeholder

__all__ = ["await_it", "check_inputs", "refuse_later", "refuse_once"]


def check_inputs(name: str, plan: Plan, inputs: Sequence[Any]) -> Plan:
    """The plan for these inputs. TypeError for one that a run of it cannot take; it names the argument."""
    unusual = False
    for place, value in enumerate(inputs):
        if type(value) not in ORDINARY:
            _check(name, plan, place, value)
            unusual = True
    return plan.for_inputs(inputs) if unusual or plan.live else plan


def _check(name: str, plan: Plan, place: int, value: Any) -> None:
    if is_placeholder(value):
        raise TypeError(
            f"{name}() was called with a placeholder, outside of the body that it belongs to: "
            "a placeholder stands for a value only while its pipeline is traced"
        )
    argument = f"{name}(): argument {plan.graph.inputs[place]!r}"
    refuse_later(argument, value)
    once = once_within(value)
    if once is not None and (reason := plan.disorder(place)):
        raise TypeError(
            f"{argument} {_has(once, value)}, which gives its items once, and {reason}: "
            "pass a list, list(...), or let one operator read it"
        )


def refuse_later(argument: str, value: Any) -> None:
    """TypeError for an argument that is, or holds, something to be awaited first; a coroutine is closed with that."""
    later = later_within(value)
    if later is None:
        return
    what = f"{argument} {_has(later, value)}, which is no value before it is awaited"
    close_coroutines(value)
    raise TypeError(f"{what}: {await_it(later)}")


def await_it(later: Any) -> str:
    """What to do instead of passing this."""
    kind: Any = type(later)
    if is_coroutine(kind):
        return f"pass what `await {later.__name__}(...)` gives"
    return "await it before, and pass its result"


def refuse_once(argument: str, value: Any, why: str) -> None:
    """TypeError for an argument that is, or holds, something that can be read once."""
    once = once_within(value)
    if once is not None:
        raise TypeError(
            f"{argument} {_has(once, value)}, which gives its items once, and {why}: pass a list, list(...)"
        )


def _has(found: Any, value: Any) -> str:
    return f"{'is' if found is value else 'holds'} {described(found)}"
