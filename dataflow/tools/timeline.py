"""A profile as text: threads as bars over time, sums, a table of operators. Plain; it may go into a log or a file."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Final

from dataflow.engine.runs.record import LOOP
from dataflow.graph.text import in_one_line
from dataflow.tools.spans import Operator, ProfiledRun, Stretch, covered, joined, operators_of, overlap, shown

__all__ = ["drawn"]

WIDTH: Final = 60
"""Columns of a bar."""
MOST_ROWS: Final = 12
"""Operators in the table."""
MOST_NAMES: Final = 5
"""Pipelines that are named."""
TOO_SMALL: Final = 5e-6
"""Seconds: an operator that takes less is hardly worth a node of its own."""
_LEVELS: Final = " ▁▂▃▄▅▆▇█"


def drawn(runs: Sequence[ProfiledRun], dropped: int) -> str:
    """The text of these runs."""
    outer = [run for run in runs if not run.inside]
    if not outer:
        return "no run was recorded: begin one inside `with flow.profile()`"
    operators = operators_of(runs)
    lines = [*_sums(outer, runs), "", *_bars(outer, runs), "", *_table(operators), *_small(operators)]
    if dropped:
        lines.append(f"{dropped} further runs were not recorded, since there was no room: see most= of flow.profile")
    return "\n".join(lines)


def _sums(outer: Sequence[ProfiledRun], runs: Sequence[ProfiledRun]) -> list[str]:
    names = Counter(in_one_line(run.pipeline) for run in outer)
    listed = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in names.most_common(MOST_NAMES))
    if len(names) > MOST_NAMES:
        listed += f" and {len(names) - MOST_NAMES} more"
    outcomes = Counter(run.outcome or "under way" for run in outer if run.outcome != "done")
    if outcomes:
        listed += f" ({', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())})"
    wall = covered((run.began, run.ended) for run in outer)
    work, span = sum(run.work for run in runs), sum(run.span for run in outer)
    parallelism = f"parallelism {work / wall if wall else 0:.2f}"
    if overlap(outer):
        parallelism += " (several runs at once)"
    elif span:
        parallelism += f" of at most {work / span:.2f}"
    return [listed, f"wall {shown(wall)}   work {shown(work)}   span {shown(span)}   {parallelism}"]


def _bars(outer: Sequence[ProfiledRun], runs: Sequence[ProfiledRun]) -> list[str]:
    """Only the time in which some run was under way is drawn."""
    under_way = joined((run.began, run.ended) for run in outer)
    begins = [began for began, _ in under_way]
    before = [0.0]
    for began, ended in under_way:
        before.append(before[-1] + ended - began)
    whole = before[-1]

    def place(moment: float) -> float:
        """How much of the drawn time is over then."""
        number = max(bisect_right(begins, moment) - 1, 0)
        began, ended = under_way[number]
        return before[number] + min(max(moment - began, 0.0), ended - began)

    rows: dict[int, list[Stretch]] = {}
    waited: list[Stretch] = []
    for run in runs:
        for step in run.steps.values():
            stretches = step.attempts if step.thread == LOOP else step.own
            rows.setdefault(step.thread, []).extend((place(began), place(ended)) for began, ended in stretches)
            if step.thread != LOOP and step.wait:
                waited.append((place(step.ready), place(step.began)))
    waiting = joined(waited)
    begin = {thread: min(row, default=(whole, whole)) for thread, row in rows.items() if thread != LOOP}
    threads = sorted(begin, key=begin.__getitem__)
    names = {thread: f"thread {number}" for number, thread in enumerate(threads, 1)}
    lines = []
    for thread in threads:
        busy = joined(rows[thread])
        share = covered(busy) / whole if whole else 0.0
        idle = whole - covered(busy)
        late = _length(_common(waiting, _gaps(busy, whole)))
        told = f"{share:4.0%} busy"
        if idle > whole / 100:
            told += f", idle {shown(idle)}: nothing was ready {shown(max(idle - late, 0.0))}"
            told += f", something was {shown(late)}" if late > whole / 1000 else ""
        lines.append(f"{names[thread]:<9} {_bar(busy, whole)} {told}")
    if LOOP in rows:
        busy = joined(rows[LOOP])
        lines.append(f"{'loop':<9} {_bar(busy, whole)} {covered(busy) / whole if whole else 0:4.0%} async operators")
    most = max(run.record.threads for run in runs)
    if len(threads) < most:
        lines.append(f"{most - len(threads)} of {most} inter-op threads had nothing to do")
    return lines


def _bar(busy: Sequence[Stretch], whole: float) -> str:
    if not whole:
        return " " * WIDTH
    filled = [0.0] * WIDTH
    column = whole / WIDTH
    for began, ended in busy:
        first, last = min(int(began / column), WIDTH - 1), min(int(ended / column), WIDTH - 1)
        for number in range(first, last + 1):
            filled[number] += max(0.0, min(ended, (number + 1) * column) - max(began, number * column))
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[min(top, round(each / column * top))] for each in filled)


def _gaps(busy: Sequence[Stretch], whole: float) -> list[Stretch]:
    found, at = [], 0.0
    for began, ended in busy:
        if began > at:
            found.append((at, began))
        at = max(at, ended)
    return [*found, (at, whole)] if at < whole else found


def _common(some: Sequence[Stretch], others: Sequence[Stretch]) -> list[Stretch]:
    """What two ordered rows of stretches have in common."""
    found, a, b = [], 0, 0
    while a < len(some) and b < len(others):
        began, ended = max(some[a][0], others[b][0]), min(some[a][1], others[b][1])
        if began < ended:
            found.append((began, ended))
        if some[a][1] < others[b][1]:
            a += 1
        else:
            b += 1
    return found


def _length(stretches: Sequence[Stretch]) -> float:
    return sum(ended - began for began, ended in stretches)


def _table(operators: Sequence[Operator]) -> list[str]:
    whole = sum(each.seconds for each in operators) or 1.0
    names = [_name(each) for each in operators[:MOST_ROWS]]
    width = max([len("operator"), *map(len, names)])
    lines = [f"{'operator':<{width}} {'calls':>8} {'total':>10} {'share':>6} {'wait':>10} {'longest':>10}"]
    for name, each in zip(names, operators, strict=False):
        lines.append(
            f"{name:<{width}} {each.calls:>8,} {shown(each.seconds):>10} {each.seconds / whole:>6.0%} "
            f"{shown(each.wait):>10} {shown(each.longest):>10}"
        )
    if len(operators) > MOST_ROWS:
        rest = operators[MOST_ROWS:]
        seconds = sum(each.seconds for each in rest)
        calls = sum(each.calls for each in rest)
        lines.append(f"{f'{len(rest)} more':<{width}} {calls:>8,} {shown(seconds):>10} {seconds / whole:>6.0%}")
    return lines


def _name(operator: Operator) -> str:
    name = in_one_line(f"{operator.scope}/{operator.name}" if operator.scope else operator.name)
    name = f"{name} (async)" if operator.is_async else name
    return name if len(name) <= 40 else f"{name[:18]}…{name[-21:]}"


def _small(operators: Sequence[Operator]) -> list[str]:
    small = [
        each for each in operators if not each.is_async and each.calls > 1 and each.seconds / each.calls < TOO_SMALL
    ]
    if not small:
        return []
    listed = ", ".join(f"{in_one_line(each.name)} ({shown(each.seconds / each.calls)})" for each in small[:MOST_NAMES])
    return [f"hardly worth a node each, so do more in one operator: {listed}"]
