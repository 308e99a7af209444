"""State that items of a stream hand on: a body around the user's, in which async operators wait for it and pass it on.

    item i      receive ─▶ the user's body ─┬▶ result
                  ▲                         └▶ keep ─▶ hand on ─┐
                  └ channel i                      channel i + 1 ▼
    item i + 1                                               receive ─▶ the user's body ─┬▶ …

To the engine these are operators like any others: only what reads the state waits, and a wait holds no thread. `keep`
copies the state, so that it shares no memory with a result, and makes it read-only.

Where failing items are passed over ("yield"), a state is handed on only when its item has succeeded. If it went on at
once, it would depend on the moment of a failure which state the next item gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from typing import Any, cast

import numpy as np

from dataflow.frontend.op import Op
from dataflow.frontend.signature import planted, tree_of
from dataflow.frontend.target import Target
from dataflow.graph.plan import Plan
from dataflow.graph.readonly import bare, copied, readonly, renewed
from dataflow.graph.tracing.placeholder import is_placeholder
from dataflow.graph.tracing.tracer import current

__all__ = ["Carried", "CarryingCalls"]

_SCALARS = (bool, int, float, complex, str, bytes, np.generic)


class Carried:
    """The names of what is carried and, for parameters declared as trees, their structure: the same for all items."""

    __slots__ = ("_name", "_places", "_structures", "key", "names")

    def __init__(self, name: str, carry: Any, trees: frozenset[str]) -> None:
        self._name = name
        if not isinstance(carry, Mapping):
            raise TypeError(
                f"{name}.stream(): carry must be a dict of parameters and their first values, {{name: value}}, "
                f"not {type(carry).__name__}"
            )
        if not carry or not all(isinstance(key, str) for key in carry):
            raise ValueError(
                f"{name}.stream(): carry must name at least one parameter of the body, by a str, not {list(carry)!r}; "
                "leave it out if items are independent"
            )
        self.names = tuple(cast("Mapping[str, Any]", carry))
        self._places: dict[str, Any] = {}
        """For each name, a Ref to its leaf; for a tree, its template."""
        self._structures: dict[str, Hashable] = {}
        count = 0
        for each in self.names:
            self._check(each, carry[each])
            template, structure, leaves = tree_of(each, carry[each], nested=each in trees, first=count)
            self._places[each], self._structures[each] = template, structure
            count += len(leaves)
        self.key: Hashable = tuple(self._structures.items())
        """Equal keys share a body."""

    def leaves(self, state: Any) -> list[Any]:
        """A state taken apart into what is received one by one: copies, read-only. TypeError if it is not one."""
        self.check_names(state)
        found: list[Any] = []
        for name, before in self._structures.items():
            self._check(name, state[name])
            value = readonly(copied(bare(state[name])))
            _, structure, leaves = tree_of(name, value, nested=before is not None, first=0)
            if structure != before:
                raise TypeError(
                    f"{self._name}: the body returned another structure for {name!r}, which it declares as a tree, "
                    "than it was given: the state must keep its structure from item to item"
                )
            found += leaves
        return found

    def state(self, leaves: list[Any]) -> dict[str, Any]:
        """The way back."""
        return {name: planted(template, leaves) for name, template in self._places.items()}

    def received(self, link: Any) -> dict[str, Any]:
        """In the body: for each name what stands for its value."""
        asked: dict[int, Any] = {}
        for name, template in self._places.items():
            receive = _RECEIVE.options(name=f"receive {name}")
            for place in _places_in(template):
                asked[place] = receive(link, place)
        return {name: planted(template, asked) for name, template in self._places.items()}

    def pair(self, returned: Any) -> tuple[Any, Any]:
        """What a body returned: its result, and the state. TypeError if it is something else."""
        if type(returned) is not tuple or len(returned) != 2:
            found = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
            raise TypeError(
                f"{self._name}: a body that carries {self._named} must return (result, {{name: new state}}), "
                f"not {found}"
            )
        return returned

    def check_names(self, state: Any) -> None:
        """TypeError if it is not a dict of what is carried, no more and no less."""
        if not isinstance(state, dict):
            raise TypeError(
                f"{self._name}: a body that carries {self._named} must return (result, {{name: new state}}); the "
                f"state is {type(state).__name__}, not a dict"
            )
        wrong = [f"{name!r} is missing" for name in self.names if name not in state]
        wrong += [f"{name!r} is not carried" for name in state if name not in self.names]
        if wrong:
            raise TypeError(
                f"{self._name}: the state that the body returned must have the keys of carry, {self._named}: "
                f"{', '.join(wrong)}"
            )

    @property
    def _named(self) -> str:
        return ", ".join(map(repr, self.names))

    def _check(self, name: str, value: Any) -> None:
        waiting = [value]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                waiting += part.values()
            elif isinstance(part, (tuple, list)):
                waiting += part
            elif not isinstance(part, (np.ndarray, *_SCALARS)):
                raise TypeError(
                    f"{self._name}: {name!r} is carried from item to item and cannot hold {type(part).__name__}: "
                    "arrays and scalars can be, and tuples, lists and dicts of them"
                )


class Channel:
    """The state on its way from one item to the next; everything on the loop."""

    __slots__ = ("_arrived", "_onward", "leaves")

    def __init__(self, leaves: list[Any] | None = None) -> None:
        self.leaves = leaves
        """None until it is there."""
        self._arrived = asyncio.Event()
        self._onward: Channel | None = None
        if leaves is not None:
            self._arrived.set()

    async def receive(self) -> list[Any]:
        """Wait for the state. Cancelling this is harmless."""
        await self._arrived.wait()
        assert self.leaves is not None
        return self.leaves

    def put(self, leaves: list[Any]) -> None:
        """The state is there; also for those to whom it is passed."""
        channel: Channel | None = self
        while channel is not None:
            channel.leaves = leaves
            channel._arrived.set()
            onward, channel._onward = channel._onward, None
            channel = onward

    def pass_to(self, other: Channel) -> None:
        """What arrives here, or has, arrives there."""
        if self.leaves is None:
            self._onward = other
        else:
            other.put(self.leaves)


class Link:
    """The place of one item in the row: where its state comes from, and where the new one goes."""

    __slots__ = ("_early", "_offered", "after", "before")

    def __init__(self, before: Channel, *, early: bool) -> None:
        self.before = before
        self.after = Channel()
        self._early = early
        """Whether the state goes on as soon as it is there."""
        self._offered: list[Any] = []

    def hand_on(self, leaves: list[Any]) -> None:
        """The new state is there."""
        if self._early:
            self.after.put(leaves)
        else:
            self._offered = leaves

    def over(self, *, succeeded: bool) -> None:
        """The item has ended."""
        if self._early:
            return
        if succeeded:
            self.after.put(self._offered)
        else:
            self.before.pass_to(self.after)
        self._offered = []


async def _receive(link: Link, place: int) -> Any:
    leaves = await link.before.receive()
    return renewed(leaves[place])


async def _hand_on(link: Link, leaves: list[Any]) -> None:
    link.hand_on(leaves)


def _keep(state: Any, carried: Carried) -> list[Any]:
    return carried.leaves(state)


def _part(returned: Any, carried: Carried) -> tuple[Any, list[Any]]:
    result, state = carried.pair(returned)
    return result, carried.leaves(state)


_RECEIVE = Op(_receive, name="receive")
_HAND_ON = Op(_hand_on, name="hand on")
_KEEP = Op(_keep, name="keep")
_PART = Op(_part, name="keep")


class CarryingCalls:
    """A run of the target, in the body around it, for each item."""

    def __init__(self, target: Target, carried: Carried, first: Any, *, early: bool) -> None:
        self.name = target.name
        self._target = target
        self._carried = carried
        self._early = early
        self._latest = self._shown = Channel(carried.leaves(dict(first)))
        """What the next item receives, and what the items handed out have come to."""
        self._furthest = -1

    def bind(self, value: Any) -> tuple[Plan, list[Any], Link]:
        """As a call with one argument, and the state of the item before this one."""
        link = Link(self._latest, early=self._early)
        plan, inputs = _around(self._target, self._carried).prepare((value, link), {})
        self._latest = link.after  # not before: if this item's arguments do not bind, it has no part in the row
        return plan, inputs, link

    def ended(self, token: Link, *, succeeded: bool) -> None:
        """See `Link.over`."""
        token.over(succeeded=succeeded)

    def delivered(self, token: Link, number: int) -> None:
        """Remember where the row has come to."""
        if number > self._furthest and token.after.leaves is not None:
            self._furthest, self._shown = number, token.after

    def carried(self) -> dict[str, Any]:
        """The state that the items handed out have come to; a copy."""
        leaves = self._shown.leaves
        assert leaves is not None
        return cast("dict[str, Any]", copied(bare(self._carried.state(leaves))))


def _around(target: Target, carried: Carried) -> Target:
    """The target, in the body around it; traced once for all streams that carry the same."""

    def body(inner: Target, item: Any, link: Any) -> Any:
        return _traced(inner, carried, item, link)

    parameters = target.parameters
    item = next(name for name in parameters.open.parameters if name not in carried.names)
    return target.derive(
        ("carry", carried.key),
        body,
        static=("item",) if item in parameters.static else (),
        tree=("item",) if item in parameters.tree else (),
        shapes=("item",) if item in parameters.shapes else (),
    )


def _traced(target: Target, carried: Carried, item: Any, link: Any) -> Any:
    recording = current()
    assert recording is not None
    returned = target.bind(**carried.received(link)).inline(recording, (item,), {})
    if is_placeholder(returned):
        parts = _PART(returned, carried)
        result, leaves = parts[0], parts[1]
    else:
        result, state = carried.pair(returned)
        if not is_placeholder(state):
            carried.check_names(state)
        leaves = _KEEP(state, carried)
    hand_on: Any = _HAND_ON  # in a body it gives a node, nothing to be awaited
    hand_on(link, leaves)
    return result


def _places_in(template: Any) -> list[int]:
    """The leaves of a template, by number."""
    if isinstance(template, int):  # a Ref
        return [int(template)]
    if isinstance(template, dict):
        template = template.values()
    return [place for part in template or () for place in _places_in(part)]
