"""What the source says of a call in the body: how the function is called there, to tell how an op is made of it.

    ndi.gaussian_filter(x, 2)      function_called     "ndi.gaussian_filter"
    np.vectorize(f)(x)             function_called     "np.vectorize(f)"

Read only where something is refused. Where there is no source (a file that is gone, `python -c`), nothing is known.
"""

from __future__ import annotations

import ast
import linecache
from types import CodeType

from dataflow.graph.diagnostics.bytecode import span_of_call

__all__ = ["function_called"]


def function_called(code: CodeType, lasti: int) -> str:
    """The expression of the function that this instruction calls; empty if it calls none, or none that is known."""
    span = span_of_call(code, lasti)
    if span is None:
        return ""
    line, end_line, column, end_column = span
    lines = [text.encode() for text in linecache.getlines(code.co_filename)[line - 1 : end_line]]
    if len(lines) != end_line - line + 1:
        return ""
    lines[-1] = lines[-1][:end_column]
    lines[0] = lines[0][column:]
    try:
        expression = ast.parse(b"(" + b"".join(lines) + b")", mode="eval").body
    except (SyntaxError, ValueError):  # the file has changed since
        return ""
    called = ast.unparse(expression.func) if isinstance(expression, ast.Call) else ""
    return called if len(called) <= 60 and "\n" not in called else ""
