"""The options of an operator that make its calls *managed*: what may be asked for, and what is refused.

    @flow.op(timeout=2, retries=3, retry_on=OSError, backoff=0.5, limit=camera)

What is asked for is kept as it was given, so that `Op.options` can change a part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import isfinite
from numbers import Real
from operator import index
from typing import Any, Final, SupportsIndex, TypeAlias, TypedDict, cast

from dataflow.engine.runs.limits import Limit
from dataflow.graph.nodes import Options

__all__ = ["Asked", "Changes", "RetryOn", "changed", "check_inout", "checked"]

RetryOn: TypeAlias = type[Exception] | tuple[type[Exception], ...]


class Asked(TypedDict, total=False):
    """What `op` is given; None is as good as nothing. `op` says what each means."""

    timeout: float | None
    retries: SupportsIndex
    retry_on: RetryOn | None
    backoff: float | None
    limit: Limit | None


class Changes(Asked, total=False):
    """What `Op.options` is given."""

    name: str | None
    writes: Iterable[str] | None
    inout: Iterable[str] | None


_NAMES: Final = frozenset(Asked.__annotations__)
_DEFAULT: Final = Options()


def checked(name: str, asked: Asked) -> Options | None:
    """The options of the operator of this name; None if nothing is asked for. TypeError, ValueError."""
    unknown = asked.keys() - _NAMES
    if unknown:
        raise TypeError(f"op {name!r}: there is no option {min(unknown)!r}")
    timeout, retry_on, backoff = asked.get("timeout"), asked.get("retry_on"), asked.get("backoff")
    retries, limit = asked.get("retries", 0), asked.get("limit")
    idle = timeout is None and retry_on is None and backoff is None and limit is None
    if idle and type(retries) is int and retries == 0:
        return None
    options = Options(
        timeout=_timeout(name, timeout),
        retries=_retries(name, retries),
        retry_on=_retry_on(name, retry_on),
        backoff=_backoff(name, backoff),
        limit=_limit(name, limit),
    )
    for without, value in (("retry_on", retry_on), ("backoff", backoff)):
        if not options.retries and value is not None:
            raise ValueError(f"op {name!r}: {without} does nothing without retries: give retries=1 or more as well")
    return None if options == _DEFAULT else options


def changed(asked: Asked, changes: Changes) -> Asked:
    """What is asked for after these changes. Without retries, what was said of them before is forgotten."""
    merged: Any = {**asked, **changes}  # names that are no options are refused by `checked`
    for other in ("name", "writes", "inout"):
        merged.pop(other, None)
    retries = changes.get("retries")
    if "retries" in changes and not retries:
        for idle in ("retry_on", "backoff"):
            if idle not in changes:
                merged.pop(idle, None)
    return cast(Asked, merged)


def check_inout(name: str, inout: Collection[str], writes: Collection[str], options: Options | None) -> None:
    """ValueError for what cannot be together with `inout`."""
    if both := [each for each in inout if each in writes]:
        raise ValueError(
            f"op {name!r}: {both[0]!r} is in writes and in inout: inout gives the object itself, which others see "
            "changed, and writes a copy, if others read it; name it in one of them"
        )
    if inout and options is not None and options.retries:
        raise ValueError(
            f"op {name!r}: inout cannot be together with retries, since a further attempt would find what the failed "
            "one has left: leave one of them out, or try again inside the operator"
        )


def _timeout(name: str, seconds: Any) -> float | None:
    if seconds is None:
        return None
    found = _seconds(name, "timeout", seconds)
    if not found > 0 or not isfinite(found):
        raise ValueError(f"op {name!r}: timeout must be above 0 seconds, not {seconds!r}; leave it out for no timeout")
    return found


def _backoff(name: str, seconds: Any) -> float:
    if seconds is None:
        return _DEFAULT.backoff
    found = _seconds(name, "backoff", seconds)
    if not found >= 0 or not isfinite(found):
        raise ValueError(f"op {name!r}: backoff must be 0 seconds or more, not {seconds!r}; 0 is no wait at all")
    return found


def _seconds(name: str, option: str, seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, Real):
        raise TypeError(f"op {name!r}: {option} must be a number of seconds, not {type(seconds).__name__}")
    return float(seconds)


def _retries(name: str, retries: Any) -> int:
    if isinstance(retries, bool) or not hasattr(type(retries), "__index__"):
        raise TypeError(
            f"op {name!r}: retries must be an int, how many attempts may follow the first, not {type(retries).__name__}"
        )
    if index(retries) < 0:
        raise ValueError(f"op {name!r}: retries must be 0 or more, not {retries}; 0 is one attempt only")
    return index(retries)


def _retry_on(name: str, classes: Any) -> tuple[type[Exception], ...]:
    if classes is None:
        return _DEFAULT.retry_on
    found = classes if isinstance(classes, tuple) else (classes,)
    for each in found or (classes,):
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise TypeError(
                f"op {name!r}: retry_on must be an exception class or a tuple of such, not {each!r}; "
                "leave it out for any Exception"
            )
        if not issubclass(each, Exception):
            raise TypeError(
                f"op {name!r}: retry_on cannot be {each.__name__}, after which nothing is tried again: "
                "name subclasses of Exception"
            )
    return found


def _limit(name: str, limit: Any) -> Limit | None:
    if limit is not None and not isinstance(limit, Limit):
        raise TypeError(
            f"op {name!r}: limit must be a flow.Limit, not {type(limit).__name__}: make one, limit = flow.Limit(n), "
            "and give it to all the operators that share it"
        )
    return limit
