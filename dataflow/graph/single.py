"""One step of a plan as a plan of its own: for kernels of which the engine makes attempts.

    | result | what the node reads | constants |

Its graph and its node are those of the outer plan, so what is said of a failure names these. It has no inputs: whoever
makes a run of it copies what the node reads from the values of the outer run, held as it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dataflow.graph.call import Caller, make_call, retried, writing
from dataflow.graph.nodes import Ref
from dataflow.graph.plan import NONE, SEVERAL, Constants, Plan
from dataflow.graph.readonly import ANY_RESULT, PLAIN_RESULT
from dataflow.graph.shown import Shown
from dataflow.graph.templates import output_template

__all__ = ["one_step", "read_by"]


def read_by(plan: Plan, step: int) -> tuple[int, ...]:
    """The slots of the values that go into the plan of this one step, in order."""
    return plan.reads[step][: len(plan.nodes[step].reads)]


def one_step(plan: Plan, step: int, around: Callable[[Caller], Caller]) -> Plan:
    """The plan of this step alone; `around` gives what is called instead of its call."""
    node = plan.nodes[step]
    count = len(node.reads)
    slot_of = {number: slot for slot, number in enumerate(node.reads, 1)}
    slots = tuple(slot_of.values())
    outer = dict(zip(node.reads, read_by(plan, step), strict=True))
    template: list[Any] = [None] * (1 + count)
    shared = bytearray([0, *(plan.shared[slot] for slot in outer.values())])
    constants = Constants(template, shared, plan.changed_constants)

    def owned(number: int) -> bool:
        """As `make_plan` has it, for the outer plan."""
        slot = outer[number]
        return slot < len(plan) and not plan.shared[slot] and slot not in plan.output_slots and not retried(node)

    fn = writing(node, owned) if node.spec.writes else None
    call = around(make_call(node, slot_of, constants.slot, shared, fn=fn))
    # Copying what only looks read-only is for the attempt's thread; all else about the result, for the outer run.
    is_output = step in plan.output_slots
    return Plan(
        graph=plan.graph,
        counts=[0],
        successors=[()],
        reads=[slots],
        readers=[1] * (1 + count) + [0] * (len(template) - 1 - count),
        on_loop=b"\0",
        sources=[0],
        releases=[slots],
        numbers=[0],
        shown=Shown(1),
        last_read=[NONE if not slots else slots[0] if count == 1 else SEVERAL],
        calls=[call],
        settled=[PLAIN_RESULT if is_output else ANY_RESULT],
        usual=[None],
        shared=bytes(shared),
        parts=frozenset(),
        taken={},
        live=frozenset([0]) if step in plan.live else frozenset(),
        names=frozenset([0]) if step in plan.names else frozenset(),
        changed_constants=plan.changed_constants,
        plumbing={},
        nodes=[node],
        template=template,
        input_slots=(),
        constants_from=1 + count,
        made=constants.made,
        output=output_template(Ref(0), [0], constants.slot),
        output_slots=frozenset([0] if is_output else ()),
        has_async=False,
    )
