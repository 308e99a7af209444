"""When there is a further attempt at an operator with `retries`, and how long it is until then."""

from __future__ import annotations

import logging
from typing import cast

from dataflow.engine.runs.clock import Clock
from dataflow.engine.runs.failure import in_one_line
from dataflow.engine.runs.notify import tell
from dataflow.engine.runs.run import Run
from dataflow.events import Retrying, observed
from dataflow.graph.nodes import Options
from dataflow.graph.plan import Plan

__all__ = ["LONGEST_BACKOFF", "delay_after", "options_of", "process_clock", "tell_retrying"]

logger = logging.getLogger("dataflow")

LONGEST_BACKOFF = 60.0
"""Seconds to which the wait before an attempt grows, unless it began with more."""

process_clock = Clock()


def options_of(plan: Plan, step: int) -> Options:
    """Of a managed step."""
    return cast(Options, plan.nodes[step].spec.options)


def delay_after(run: Run, step: int, made: int, error: BaseException, clock: Clock) -> float | None:
    """Seconds before the next attempt, if there is to be one after so many of which the last failed with this.

    Any number up to a bound that doubles, so that those who failed together do not come back together ("full jitter";
    Brooker, "Exponential Backoff And Jitter", AWS, 2015). The CancelledError of a run is no Exception, so it is never
    one of those after which there is a further attempt.
    """
    options = options_of(run.plan, step)
    if made > options.retries or run.core.stopped or not isinstance(error, options.retry_on):
        return None
    first = options.backoff
    return min(first * 2.0 ** min(made - 1, 64), max(first, LONGEST_BACKOFF)) * clock.random()


def tell_retrying(run: Run, step: int, made: int, delay: float, error: BaseException) -> None:
    """The log and the observers, that there will be another attempt."""
    name, pipeline = run.plan.nodes[step].spec.name, run.plan.graph.name
    logger.warning(
        "attempt %d of %d at operator %r in a run of %r failed, the next one is in %.3g s: %s",
        *(made, options_of(run.plan, step).retries + 1, name, pipeline, delay, in_one_line(error)),
    )
    if observed(Retrying):
        assert isinstance(error, Exception)
        tell(run.context, Retrying(run.number, pipeline, name, made, delay, error))
