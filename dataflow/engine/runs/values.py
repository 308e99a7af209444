"""The values of a run: what is held for its readers, what is let go of, and what becomes of a result.

    inputs ─▶ held ─▶ a kernel's result ─▶ settle: refused, copied or held ─▶ readers ─▶ released at the last use
                                                                          └─▶ result: the user's

Rules:

1. A slot is written by the one who runs its step, before the step is reported, and read by steps that were taken after
   that; it is emptied by the one whom the scheduler told to release it. None of this needs a lock.
2. What is let go of under the engine's lock is kept as *trash* until after it: freeing a value may call user code.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import Context
from typing import Any

from numpy import ndarray

from dataflow.engine.runs.failure import wrong_result
from dataflow.graph.inout import changed_by
from dataflow.graph.nodes import Node, Ref
from dataflow.graph.owning import Given, own, own_part
from dataflow.graph.plan import Plan
from dataflow.graph.pytree import leaves
from dataflow.graph.readonly import ANY_RESULT, PLAIN_RESULT, bare, copied
from dataflow.graph.templates import Literal

__all__ = ["Values"]


class Values:
    """Those of one run, by slot, and what is known of their origin."""

    __slots__ = ("_blame", "_late", "_trash", "context", "plan", "values")

    def __init__(self, plan: Plan, inputs: list[Any], context: Context) -> None:
        self.plan = plan
        self.context = context
        """What each kernel and async op gets a copy of; from `begin` on that in which observers were told of it."""
        self.values = values = plan.template.copy()
        for slot, value in zip(plan.input_slots, inputs, strict=True):
            if slot >= 0:
                values[slot] = value if type(value) in PLAIN_RESULT else plan.hold(slot, value)
        for slot, make in plan.made:
            values[slot] = make(values)
        self._blame: dict[int, int] = {}
        """For a step whose plumbing is being evaluated, the number of that."""
        self._late: list[int] = []
        """The slots of outputs that are made the user's in the end: what they are a part of may yet be changed."""
        self._trash: list[Any] = []
        """What was let go of under the lock, by which it is replaced, too; see `take_trash`."""

    def settle(self, step: int, result: Any) -> Any:
        """Hold a result that is shared, evaluate its plumbing, refuse what is no value; returns what to store."""
        plan = self.plan
        if type(result) not in PLAIN_RESULT:
            if type(result) is not ndarray:
                wrong = wrong_result(result, plan.nodes[step], plan)
                if wrong is not None:
                    raise wrong
            if step in plan.output_slots:
                result = self._as_output(step, step, result)
            elif step in plan.taken and self._given(step).includes(result, plan.taken[step]):
                result = copied(result)  # whoever writes into it would write into what is somebody else's
            if plan.shared[step]:
                result = plan.hold(step, result)
        attached = plan.plumbing.get(step)
        if attached is not None:
            values = self.values
            values[step] = result
            copy = self.context.copy
            for slot, number, call in attached:
                self._blame[step] = number
                value = copy().run(call, values)
                if type(value) not in PLAIN_RESULT:
                    if type(value) not in ANY_RESULT:
                        wrong = wrong_result(value, plan.graph.nodes[number - len(plan.graph.inputs)], plan)
                        if wrong is not None:
                            raise wrong
                    if slot in plan.output_slots:
                        value = self._as_output(step, slot, value)
                    if plan.shared[slot]:
                        value = plan.hold(slot, value)
                values[slot] = value
            del self._blame[step]
        return result

    def _as_output(self, step: int, slot: int, value: Any) -> Any:
        """What of a result, or of plumbing beside it, is handed back in the end: what is the user's to write to."""
        plan = self.plan
        if slot in plan.names:  # what the caller has, or will have, changed
            return value
        if slot in plan.parts:
            owned = own_part(value)
        elif type(value) is ndarray and value.base is None and self._was_given_arrays(step):
            return value  # readers get views, which have a base: this one the kernel has made
        else:
            owned = own(value, self._given(step), plan.nodes[step].spec.name)
        if owned is not value and slot in plan.live and not plan.nodes[step].spec.inout:
            self._late.append(slot)  # what is changed after it, it sees as well
            return value
        return owned

    def _was_given_arrays(self, step: int) -> bool:
        """Whether all that a step was given are arrays, numbers and strings; no objects that may hold arrays."""
        node, values = self.plan.nodes[step], self.values
        for argument in (*node.args, *node.kwargs.values()):
            if type(argument) is not Ref and type(argument) not in ANY_RESULT:
                return False
        return all(type(bare(values[slot])) in ANY_RESULT for slot in self.plan.reads[step][: len(node.reads)])

    def _given(self, step: int) -> Given:
        """What a step was given, but what it changes; as `seen_by`."""
        plan, node = self.plan, self.plan.nodes[step]
        values, slots, changed = self.values, plan.reads[step][: len(node.reads)], []
        if node.spec.inout:
            slot_of = dict(zip(node.reads, slots))
            for leaf in leaves(changed_by(node)):
                value = values[slot_of[leaf]] if type(leaf) is Ref else leaf
                changed.append(value.value if type(value) is Literal else bare(value))
        return Given(values, slots, plan.shared, (*node.args, *node.kwargs.values()), changed)

    def blamed(self, step: int) -> Node:
        """The node at which a step failed: its own, or plumbing beside it; to be asked once."""
        number = self._blame.pop(step, None)
        graph = self.plan.graph
        return self.plan.nodes[step] if number is None else graph.nodes[number - len(graph.inputs)]

    def seen_by(self, step: int) -> Any:
        """The values that this step was called with, but constants; only while it has not been reported. None any more
        if the run has come to its end in this very moment, as one may whose last kernel returns when its time is up."""
        values = self.values.copy()
        made = {step, *(slot for slot, *_ in self.plan.plumbing.get(step, ()))}
        return [bare(values[slot]) for slot in self.plan.reads[step] if slot not in made] if values else []

    def result(self) -> Any:
        """What the body returned. Leaves nothing behind."""
        values = self.values
        for slot in (*self.plan.output_slots, *(slot for slot, _ in self.plan.made)):
            values[slot] = bare(values[slot])
        for slot in self._late:
            values[slot] = own_part(values[slot])
        result = self.plan.output.build(values)
        values.clear()  # in place: frames of what kernels raised and caught may refer to the list
        return result

    # Under the engine's lock.

    def release(self, slots: Iterable[int]) -> None:
        """Let go of what is in these."""
        values = self.values
        for slot in slots:
            self._trash.append(values[slot])
            values[slot] = None

    def drop(self, in_kernels: Iterable[int]) -> None:
        """Let go of everything, but what a worker may be about to hand to a kernel of these steps, which have begun."""
        values, plan = self.values, self.plan
        if not values:
            return
        kept: set[int] = set()
        for step in in_kernels:
            kept.update(plan.reads[step], (step,), (slot for slot, *_ in plan.plumbing.get(step, ())))
        self._trash += values
        begin = 0
        for slot in (*sorted(kept), plan.constants_from):  # never emptied and put back: workers read without the lock
            values[begin:slot] = [None] * (slot - begin)
            begin = slot + 1

    def take_trash(self) -> list[Any]:
        """What was let go of, for the caller to drop after the lock: freeing values may call user code.

        The list is replaced, never emptied, and under the lock: another thread may be extending it otherwise, and then
        what was taken would come back, or be freed under the lock.
        """
        trash = self._trash
        if trash:
            self._trash = []
        return trash
