"""What the records of runs say: when each step was ready, and when it was executed, and which chain took longest.

    RunRecord, … ──profiled──▶ ProfiledRun, …      each with its steps, its inner runs, its span

A step is *ready* when the last of those it depends on has ended, or when its run began. The steps of a batch, which are
recorded together, share its time equally. While a kernel or an async operator waits for a run inside of it, it does no
work: that time belongs to the inner run (unless several async operators were under way when it began: then nobody knows
whose it is). What a kernel does after its run is over is not looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter

from dataflow.engine.runs.record import LOOP, Entry, RunRecord
from dataflow.graph.nodes import Kind, Node
from dataflow.graph.plan import Plan
from dataflow.graph.text import in_one_line

__all__ = [
    "Operator",
    "ProfiledRun",
    "Step",
    "Stretch",
    "covered",
    "critical",
    "earlier",
    "is_async",
    "joined",
    "name_of",
    "operators_of",
    "overlap",
    "profiled",
    "scope_of",
    "shown",
    "without",
]

Stretch = tuple[float, float]
"""From one moment of `time.perf_counter` to another."""


@dataclass(slots=True)
class Step:
    """One step of a run."""

    number: int
    """In the plan."""
    thread: int
    """`threading.get_ident()`, or `LOOP`; of several attempts, that of the last."""
    ready: float
    """When it could have begun."""
    attempts: list[Stretch]
    in_order: bool
    """Whether it is of a batch, so that its time is that of the batch's average."""
    own: list[Stretch] = field(default_factory=list)
    """The attempts without the time in which it waited for inner runs."""
    inner: list[ProfiledRun] = field(default_factory=list)

    @property
    def began(self) -> float:
        """When the first attempt began."""
        return self.attempts[0][0]

    @property
    def ended(self) -> float:
        """When the last one ended."""
        return self.attempts[-1][1]

    @property
    def seconds(self) -> float:
        """For how long it was executed, without inner runs."""
        return sum(ended - began for began, ended in self.own)

    @property
    def longest(self) -> float:
        """The seconds of its longest attempt, inner runs included."""
        return max(ended - began for began, ended in self.attempts)

    @property
    def wait(self) -> float:
        """Seconds that it was ready before it first began."""
        return max(self.began - self.ready, 0.0)


@dataclass(frozen=True)
class Operator:
    """What was recorded of one operator in one scope."""

    scope: str
    name: str
    calls: int
    seconds: float
    """Of all calls together, without runs inside of them."""
    wait: float
    """Seconds that a call was ready before it began, on average: for a thread, a limit, or the event loop."""
    longest: float
    """Seconds of the longest attempt; of calls in order, which are recorded together, the average of their batch."""
    is_async: bool


class ProfiledRun:
    """One recorded run, as it was when this was made."""

    def __init__(self, record: RunRecord, before: Sequence[Sequence[int]], now: float) -> None:
        self.record = record
        self.plan: Plan = record.plan
        self.before = before
        self.outcome = record.outcome
        """ "done", "failed" or "cancelled"; empty if it has not ended."""
        self.began = record.began
        self.ended = now if record.ended is None else record.ended
        """When its outcome was taken; if it has not been, when this was made."""
        self.rows: dict[int, list[Entry]] = {thread: list(row) for thread, row in list(record.rows.items())}
        """The entries by thread; see `record`."""
        under_way = [(step, began, now) for step, began in list(record.started.items())]
        if under_way:
            self.rows.setdefault(LOOP, []).extend(under_way)
        self.steps = _steps(self, before)
        """By number in the plan, in order."""
        self.inside = False
        """Whether it is the inner run of a recorded one, which was over after it."""

    @property
    def pipeline(self) -> str:
        """The name of the pipeline."""
        return self.plan.graph.name

    @property
    def work(self) -> float:
        """The seconds of its kernels, without inner runs; async operators do no work."""
        return sum(step.seconds for step in self.steps.values() if step.thread != LOOP)

    @property
    def lengths(self) -> dict[int, float]:
        """The seconds of each step on unlimited threads: its own work, and the spans of its inner runs."""
        return {
            number: step.seconds + sum(run.span for run in step.inner) if step.inner else step.seconds
            for number, step in self.steps.items()
        }

    @property
    def span(self) -> float:
        """The seconds of the longest chain of dependent steps."""
        return critical(self.lengths, self.before)[0]

    @property
    def chain(self) -> list[int]:
        """The steps of that chain."""
        return critical(self.lengths, self.before)[1]

    def __repr__(self) -> str:
        outcome = self.outcome or "under way"
        return f"<run {self.record.number} of {self.pipeline!r}: {len(self.steps)} steps, {outcome}>"


def profiled(records: Iterable[RunRecord], earlier_of: Mapping[int, Sequence[Sequence[int]]]) -> list[ProfiledRun]:
    """These records, with inner runs found; `earlier_of` has what `earlier` says, by the id of the plan."""
    now = perf_counter()
    runs = [ProfiledRun(record, earlier_of[id(record.plan)], now) for record in records]
    by_number = {run.record.number: run for run in runs}
    begins: dict[tuple[int, int], list[tuple[float, int]]] = {}
    """Of the steps of a run in a thread, when they began, in order."""
    for run in runs:
        outer = by_number.get(run.record.outer)
        if outer is None or run.ended > outer.ended:  # nobody there waits for it
            continue
        run.inside = True
        key = outer.record.number, run.record.thread
        if key not in begins:
            steps = [step for step in outer.steps.values() if step.thread == run.record.thread]
            begins[key] = sorted((began, step.number) for step in steps for began, _ in step.attempts)
        place = bisect_right(begins[key], (run.began, len(outer.plan))) - 1
        if place >= 0 and outer.steps[begins[key][place][1]].ended >= run.began:
            _credit(outer.steps[begins[key][place][1]], run)
            continue
        # Async operators overlap: which of several has begun it, nobody knows.
        on_loop = (step for step in outer.steps.values() if step.thread == LOOP)
        under_way = [step for step in on_loop if step.began <= run.began <= step.ended]
        if len(under_way) == 1:
            _credit(under_way[0], run)
    return runs


def _credit(step: Step, run: ProfiledRun) -> None:
    step.inner.append(run)
    step.own = without(step.own, [(run.began, run.ended)])


def _steps(run: ProfiledRun, before: Sequence[Sequence[int]]) -> dict[int, Step]:
    told: dict[int, Step] = {}
    for thread, row in run.rows.items():
        for steps, began, ended in row:
            if began >= run.ended:
                continue
            ended = min(ended, run.ended)
            if isinstance(steps, int):
                step = told.setdefault(steps, Step(steps, thread, 0.0, [], False))
                step.thread = thread
                step.attempts.append((began, ended))
                continue
            each = (ended - began) / max(len(steps), 1)
            for place, number in enumerate(steps):
                told[number] = Step(number, thread, 0.0, [(began + place * each, began + (place + 1) * each)], True)
    found: dict[int, Step] = {}
    for number in sorted(told):
        step = found[number] = told[number]
        step.attempts.sort()
        step.own = list(step.attempts)
        ready = max((found[other].ended for other in before[number] if other in found), default=run.began)
        step.ready = min(ready, step.began)
    return found


def earlier(plan: Plan) -> list[list[int]]:
    """For each step, those that it depends on."""
    found: list[list[int]] = [[] for _ in range(len(plan))]
    for step, followers in enumerate(plan.successors):
        for each in followers:
            found[each].append(step)
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


def operators_of(runs: Iterable[ProfiledRun]) -> list[Operator]:
    """The operators of these runs, the one that took longest first."""
    found: dict[tuple[str, str, bool], list[Step]] = {}
    for run in runs:
        for number, step in run.steps.items():
            node = run.plan.nodes[number]
            found.setdefault((scope_of(node, run.plan), node.spec.name, is_async(node)), []).append(step)
    made = [
        Operator(
            scope,
            name,
            len(steps),
            sum(step.seconds for step in steps),
            sum(step.wait for step in steps) / len(steps),
            max(step.longest for step in steps),
            asynchronous,
        )
        for (scope, name, asynchronous), steps in found.items()
    ]
    return sorted(made, key=lambda operator: -operator.seconds)


# ------------------------------------------------------------------------------------------------ stretches of time


def covered(stretches: Iterable[Stretch]) -> float:
    """The length of what these cover together."""
    return sum(ended - began for began, ended in joined(stretches))


def joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    """These, where those that meet are one, in order."""
    found: list[Stretch] = []
    for began, ended in sorted(stretches):
        if found and began <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], ended)
        else:
            found.append((began, ended))
    return found


def without(some: Sequence[Stretch], others: Sequence[Stretch]) -> list[Stretch]:
    """What is left of these where the others are not; both in order."""
    left = list(some)
    for took, gave in others:
        cut: list[Stretch] = []
        for began, ended in left:
            if took < ended and began < gave:
                cut += [part for part in ((began, took), (gave, ended)) if part[0] < part[1]]
            else:
                cut.append((began, ended))
        left = cut
    return left


def overlap(runs: Sequence[ProfiledRun]) -> bool:
    """Whether some of these were under way at the same time."""
    ends = sorted((run.began, run.ended) for run in runs)
    return any(before[1] > after[0] for before, after in pairwise(ends))


# ------------------------------------------------------------------------------------------------ words


def name_of(node: Node, plan: Plan) -> str:
    """What a node is called where there is room for one word: its label, or its operator."""
    return in_one_line(plan.graph.labels.get(node.number) or node.spec.name)


def scope_of(node: Node, plan: Plan) -> str:
    """The scope in which it was recorded, or nothing."""
    return in_one_line(plan.graph.scopes.get(node.number, ""))


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
