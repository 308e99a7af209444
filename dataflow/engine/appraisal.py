"""How lanes get on together: what they tell the costs of a plan, so that these can tell what is worth several.

At the end of a turn a lane looks at what all lanes have done for its plan since the end of its turn before. That says
how many times as quick as one lane they were, provided that all of them were with that plan meanwhile:

    lane A   ──────turn──────┤──────turn──────┤          A's look: the work of A and B in A's turn, over its length
    lane B     ───turn───┤────────turn────────┤──
"""

from __future__ import annotations

from collections.abc import Iterable

from dataflow.engine.lane import Lane, Mark
from dataflow.engine.scheduler import BATCH_SECONDS
from dataflow.engine.segment import END
from dataflow.graph.costs import Costs

__all__ = ["appraise"]

TOGETHER = 0.75
"""For how much of a turn, at its end, all lanes must have been with its plan, for that turn to tell how they get on. If
it must be all, lanes that come and go are never judged; if less, one that was alone is taken for two."""


def appraise(lane: Lane, costs: Costs, step: int, lanes: Iterable[Lane]) -> bool:
    """A lane has ended a turn for the plan of these costs, which began with this heavy step (`END`: light ones).

    `lanes` are all that hold a slot of their own; the guest of a kernel is none of these. Returns whether it was found
    that the step is not worth several: then heaps are out of date.
    """
    now, before = lane.ended, lane.mark
    if before is None or before.costs is not costs:
        lane.mark = Mark(costs, lane.came if before is None else now, now, costs.worked)
        return False
    lane.mark = Mark(costs, before.since, now, costs.worked)
    if step == END or costs.seconds[step] >= BATCH_SECONDS:
        return False
    together, seconds = list(lanes), now - before.at
    if len(together) < 2 or not all(_was_with(other, costs, now - TOGETHER * seconds) for other in together):
        return False
    return costs.shared(costs.seconds[step], (costs.worked - before.worked) / seconds, seconds)


def _was_with(lane: Lane, costs: Costs, since: float) -> bool:
    """Whether a lane serves a run of this plan, and has served no others since then, or since it came before that."""
    run, mark = lane.run, lane.mark
    if run is None or run.plan.costs is not costs:
        return False
    return lane.came <= since if mark is None else mark.costs is costs and mark.since <= since
