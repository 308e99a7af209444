"""What a stream runs for each item: the little of a pipeline that `streams` and `scan` need to know.

    pipeline ──▶ streams ──▶ scan
        └───────────┴──────────┴──▶ target

A pipeline is a target, also one that is bound to an instance: then the instance is none of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

from dataflow.engine.runs.driver import Driver
from dataflow.frontend.signature import Parameters
from dataflow.graph.plan import Plan
from dataflow.graph.tracing.tracer import Trace

__all__ = ["Target"]


class Target(Protocol):
    """Something with a graph, that is called."""

    @property
    def name(self) -> str:
        """What it is called in errors."""

    @property
    def parameters(self) -> Parameters:
        """What it takes; `open` is what is left to give."""

    @property
    def runtime(self) -> Driver:
        """Where its runs are started."""

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, list[Any]]:
        """The plan and the inputs of a call; traced now, if it was not yet. TypeError for wrong arguments."""

    def inline(self, recording: Trace, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call into the body that is being traced; what it gives, as placeholders."""

    def bind(self, /, **fixed: Any) -> Target:
        """The same with these arguments fixed."""

    def derive(
        self,
        key: Hashable,
        body: Callable[..., Any],
        *,
        static: Iterable[str] = (),
        tree: Iterable[str] = (),
        shapes: Iterable[str] = (),
    ) -> Target:
        """A pipeline around this one, of the same name: its body is `body`, called with this one first.

        It is kept with this one, so that equal keys get the same, with the same graphs, until these are forgotten.
        """
