"""`shapes=`: what the body sees of an argument whose shape and dtype are Python values; what its graph is kept under.

@flow.pipeline(shapes=("x",))
def total(x):                        len(x), x.shape, x.ndim, x.size and x.dtype are those of the call
    return sum_of([x[i] for i in range(len(x))])
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from dataflow.frontend.static_key import static_key
from dataflow.graph.tracing.placeholder import LENGTH, Placeholder, ShapedPlaceholder
from dataflow.graph.tracing.tracer import refusal

__all__ = ["key_of", "seen_of"]

_SEEN = ("shape", "ndim", "size", "dtype")


def seen_of(where: str, value: Any) -> dict[str, Any]:
    """What a body sees of a value. TypeError for one without a shape; TraceError for a node, if it is not known yet."""
    kind = type(value)
    if issubclass(kind, Placeholder):
        if issubclass(kind, ShapedPlaceholder):
            return dict(value._seen)
        raise refusal(
            f"{where} is given {value!r}, whose shape is not known yet",
            "name the argument that it comes from in shapes=, of the pipeline that is traced, and pass that on",
        )
    if issubclass(kind, (np.ndarray, np.generic)):
        seen = {name: getattr(value, name) for name in _SEEN}
        return {**seen, LENGTH: value.shape[0] if value.shape else TypeError("len() of unsized object")}
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or not all(isinstance(length, (int, np.integer)) for length in shape):
        raise TypeError(
            f"{where} is named in shapes= and must have a shape, as arrays have, not {kind.__name__}: pass "
            "np.asarray(...) of it, or leave it out of shapes="
        )
    return {name: getattr(value, name) for name in _SEEN if hasattr(value, name)} | {LENGTH: _length(value)}


def _length(value: Any) -> int | TypeError:
    try:
        return len(value)
    except TypeError as error:  # of sparse matrices, say
        return TypeError(*error.args)


def key_of(seen: dict[str, Any]) -> Hashable:
    """Equal keys are values of which a body sees the same."""
    return tuple((name, static_key(str(part) if name == LENGTH else part)) for name, part in seen.items())
