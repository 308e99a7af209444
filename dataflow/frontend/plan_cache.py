"""The plans of one pipeline: a bounded cache, and for methods one for each instance, as long as that lives."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from dataflow.frontend.names import Names
from dataflow.graph.plan import Plan

__all__ = ["Plans"]

CACHED_PLANS = 128
"""Plans that a cache keeps; the one longest not used goes first."""
CACHED_NODES = 200_000
"""The nodes of all plans that a cache keeps, each of which takes about a kilobyte. The one used last is always kept."""


class Plans:
    """A bounded cache of plans, and the lock under which new ones are traced."""

    __slots__ = ("__weakref__", "_limit", "_lock", "_maps", "_nodes", "_owners", "_plans", "generation", "tracing")

    def __init__(self, nodes: int = CACHED_NODES) -> None:
        self.renew_locks()
        self._limit = nodes
        self._nodes = 0
        self._plans: OrderedDict[Hashable, tuple[Plan, Names | None]] = OrderedDict()
        self._owners: dict[int, tuple[weakref.ref[Any], Plans]] = {}
        """By id, since instances need be neither hashable nor different from their equals."""
        self._maps: Plans | None = None
        self.generation = 0
        """How often everything was forgotten."""
        _caches.add(self)

    def __reduce__(self) -> Any:
        """What `functools.wraps` copies to a plain function around a pipeline is pickled with that: as an empty one."""
        return Plans, ()

    def renew_locks(self) -> None:
        """Also in the child of a fork: another thread of the parent may have held them, and is not there."""
        self._lock = threading.Lock()
        self.tracing = threading.RLock()

    def get(self, key: Hashable) -> Plan | None:
        """The plan kept under this key, which is now the one used last; None if it is stale: see `Names`."""
        with self._lock:
            known = self._plans.get(key)
            if known is None:
                return None
            self._plans.move_to_end(key)
        plan, names = known
        return plan if names is None or names.same() else None

    def put(self, key: Hashable, plan: Plan, generation: int, names: Names | None = None) -> None:
        """Keep a plan, as long as these names stand for the same; let go of the one longest not used if there are too
        many.

        A plan that was begun in an earlier generation is not kept: it was traced before all were forgotten.
        """
        with self._lock:
            if generation != self.generation:
                return
            before = self._plans.pop(key, None)
            if before is not None:
                self._maps = None  # among them those made of what was stale
            self._plans[key] = plan, names
            self._nodes += len(plan.graph) - (len(before[0].graph) if before is not None else 0)
            while len(self._plans) > CACHED_PLANS or (self._nodes > self._limit and len(self._plans) > 1):
                self._nodes -= len(self._plans.popitem(last=False)[1][0].graph)

    def maps(self, nodes: int) -> Plans:
        """For `flow.map`: the plans of so many runs. They go with those that they are made of."""
        maps = self._maps
        if maps is None:
            maps = self._maps = Plans(nodes)
        return maps

    def of(self, owner: Any) -> Plans:
        """Those of one instance, which is held weakly; TypeError if it cannot be."""
        owners, key = self._owners, id(owner)
        known = owners.get(key)
        if known is not None and known[0]() is owner:
            return known[1]

        def forget(reference: weakref.ref[Any]) -> None:
            if key in owners and owners[key][0] is reference:
                del owners[key]

        entry = weakref.ref(owner, forget), Plans()
        with self._lock:  # concurrent first calls on one instance get the same
            known = owners.get(key)
            if known is not None and known[0]() is owner:
                return known[1]
            owners[key] = entry
        return entry[1]

    def clear(self) -> None:
        """Let go of all plans, and of those of all instances; a plan that is being made now is not kept."""
        with self._lock:
            self.generation += 1
            self._plans.clear()
            self._maps = None
            self._nodes = 0
            owners = list(self._owners.values())
            self._owners.clear()
        for _, plans in owners:
            plans.clear()

    def forget(self, owner: Any) -> None:
        """Let go of the plans of one instance."""
        known = self._owners.pop(id(owner), None)
        if known is not None:
            known[1].clear()


_caches: weakref.WeakSet[Plans] = weakref.WeakSet()


def _after_fork() -> None:
    for plans in list(_caches):
        plans.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
