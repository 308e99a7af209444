"""What the record of a run says: when each step was ready, began and ended, and which chain of steps took longest.

    RunRecord ──steps_of──▶ Step, Step, …      ──critical──▶ the chain of steps that nothing could have shortened

A step is *ready* when the last of those it depends on has ended, or when its run began. The steps of a batch, which are
recorded together, share its time equally.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataflow.engine.runs.record import LOOP, RunRecord
from dataflow.graph.nodes import Kind, Node
from dataflow.graph.plan import Plan

__all__ = [
    "Operator",
    "ProfiledRun",
    "Step",
    "covered",
    "critical",
    "earlier",
    "is_async",
    "joined",
    "name_of",
    "scope_of",
    "shown",
    "steps_of",
]


@dataclass(frozen=True, slots=True)
class Step:
    """One execution of a step; of one with retries, its last attempt, and all attempts in `seconds`."""

    number: int
    """In the plan."""
    thread: int
    """`threading.get_ident()`, or `LOOP`."""
    ready: float
    began: float
    ended: float
    """Moments of `time.perf_counter`."""
    seconds: float
    """For how long it was executed."""
    in_order: bool
    """Whether it is of a batch, so that its time is that of the batch's average."""


def earlier(plan: Plan) -> list[list[int]]:
    """For each step, those that it depends on."""
    found: list[list[int]] = [[] for _ in range(len(plan))]
    for step, followers in enumerate(plan.successors):
        for each in followers:
            found[each].append(step)
    return found


def steps_of(record: RunRecord, before: Sequence[Sequence[int]]) -> dict[int, Step]:
    """The steps that were executed, in the order of the plan; `before` is what `earlier` says."""
    told: dict[int, tuple[int, float, float, float, bool]] = {}
    for thread, row in list(record.rows.items()):
        for steps, began, ended in list(row):
            if isinstance(steps, int):
                previous = told.get(steps)
                spent = ended - began + (previous[3] if previous is not None else 0.0)
                told[steps] = thread, began, ended, spent, False
                continue
            each = (ended - began) / max(len(steps), 1)
            for place, step in enumerate(steps):
                told[step] = thread, began + place * each, began + (place + 1) * each, each, True
    found: dict[int, Step] = {}
    for step in sorted(told):
        thread, began, ended, seconds, in_order = told[step]
        ready = max((found[other].ended for other in before[step] if other in found), default=record.began)
        found[step] = Step(step, thread, min(ready, began), began, ended, seconds, in_order)
    return found


def critical(seconds: Mapping[int, float], before: Sequence[Sequence[int]]) -> tuple[float, list[int]]:
    """The longest chain of dependent steps: its length in seconds, and the steps on it in order."""
    length: dict[int, float] = {}
    via: dict[int, int] = {}
    for step in sorted(seconds):
        last = max((other for other in before[step] if other in length), key=length.__getitem__, default=-1)
        length[step] = seconds[step] + (length[last] if last >= 0 else 0.0)
        via[step] = last
    if not length:
        return 0.0, []
    step = max(length, key=length.__getitem__)
    span, chain = length[step], []
    while step >= 0:
        chain.append(step)
        step = via[step]
    return span, chain[::-1]


@dataclass(frozen=True)
class Operator:
    """What was recorded of one operator in one scope."""

    scope: str
    name: str
    calls: int
    seconds: float
    """Of all calls together."""
    wait: float
    """Seconds that a call was ready before it began, on average."""
    longest: float
    """Seconds of the longest call; of calls in order, which are recorded together, the average of their batch."""
    is_async: bool


class ProfiledRun:
    """One recorded run."""

    def __init__(self, record: RunRecord, before: list[list[int]]) -> None:
        self.record = record
        self.plan: Plan = record.plan
        self.steps: dict[int, Step] = steps_of(record, before)
        """By number in the plan."""
        self.span, self.chain = critical({step: each.seconds for step, each in self.steps.items()}, before)
        """The seconds of the longest chain of dependent steps, and the steps on it."""

    @property
    def pipeline(self) -> str:
        """The name of the pipeline."""
        return self.plan.graph.name

    @property
    def began(self) -> float:
        """A moment of `time.perf_counter`."""
        return self.record.began

    @property
    def ended(self) -> float:
        """When its outcome was taken; if it has not been, when its last step ended."""
        if self.record.ended is not None:
            return self.record.ended
        return max((step.ended for step in self.steps.values()), default=self.began)

    @property
    def outcome(self) -> str:
        """ "done", "failed" or "cancelled"; empty if it has not ended."""
        return self.record.outcome

    @property
    def work(self) -> float:
        """The seconds of its kernels; async operators do no work."""
        return sum(step.seconds for step in self.steps.values() if step.thread != LOOP)

    def __repr__(self) -> str:
        return (
            f"<run {self.record.number} of {self.pipeline!r}: {len(self.steps)} steps, {self.outcome or 'under way'}>"
        )


def covered(stretches: Iterable[tuple[float, float]]) -> float:
    """The length of what these cover together."""
    return sum(ended - began for began, ended in joined(stretches))


def joined(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """These, where those that meet are one, in order."""
    found: list[tuple[float, float]] = []
    for began, ended in sorted(stretches):
        if found and began <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], ended)
        else:
            found.append((began, ended))
    return found


def name_of(node: Node, plan: Plan) -> str:
    """What a node is called where there is room for one word: its label, or its operator."""
    return plan.graph.labels.get(node.number) or node.spec.name


def scope_of(node: Node, plan: Plan) -> str:
    """The scope in which it was recorded, or nothing."""
    return plan.graph.scopes.get(node.number, "")


def is_async(node: Node) -> bool:
    """Whether it is an async operator, which takes no worker."""
    return node.spec.kind is Kind.ASYNC


def shown(seconds: float) -> str:
    """A length of time with its unit."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e6:.0f} µs" if seconds >= 1e-5 or not seconds else f"{seconds * 1e6:.1f} µs"
