"""The command line: what a process is set to, and pipelines run, drawn and watched without a program of one's own.

    python -m dataflow info                            threads, BLAS, CPUs of this machine
    python -m dataflow run   photos.py:describe 3      run a pipeline, print its result
    python -m dataflow graph photos:describe           its graph as text, --mermaid or --dot
    python -m dataflow trace photos:describe 3         run it some times, tell where the time went
    python -m dataflow tune  photos:describe 3         try it on different numbers of threads

Exit codes: 0 it worked; 1 the pipeline, or the module that has it, raised; 2 the command line is wrong; 3 a limit that
the command line sets was passed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from dataflow.engine.service.info import parallel_info
from dataflow.frontend.pipeline import Pipeline
from dataflow.threads.settings import set_num_interop_threads
from dataflow.tools.graphs import dot, mermaid
from dataflow.tools.profile import profile
from dataflow.tools.spans import shown
from dataflow.tools.tune import tune

__all__ = ["main"]

RAISED, WRONG, OVER_LIMIT = 1, 2, 3

_PIPELINE: Final = "where the pipeline is: module:name, or path/to/file.py:name; name may have dots"
_ARGUMENTS: Final = "its arguments as Python literals: 3, '[1, 2]', name=value; what is no literal is a text"
_UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


class _Wrong(Exception):
    """What the user asked for cannot be done; told without a traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that has no bars, or no umlauts
    asked = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = asked.command
    try:
        return command(asked)
    except _Wrong as wrong:
        print(f"dataflow: {wrong}", file=sys.stderr)
        return WRONG
    except BrokenPipeError:  # whoever reads us has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RAISED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dataflow",
        description="Graphs of numpy operators inside asyncio applications: run, draw and watch pipelines.",
        epilog="Options stand before the pipeline, or after all of its arguments. A file is imported: what it does at "
        "its end belongs below `if __name__ == '__main__':`. Exit codes: 0 it worked, 1 the pipeline raised, 2 wrong "
        "usage, 3 a limit was passed.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    info = commands.add_parser("info", help="threads, BLAS libraries and CPUs of this machine")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(command=_info)

    run = commands.add_parser("run", help="run a pipeline and print its result")
    run.set_defaults(command=_run)

    graph = commands.add_parser("graph", help="show the graph of a pipeline; nothing is run")
    how = graph.add_mutually_exclusive_group()
    how.add_argument("--mermaid", action="store_true", help="as a flowchart of Mermaid")
    how.add_argument("--dot", action="store_true", help="in the language of Graphviz")
    graph.set_defaults(command=_graph)

    trace = commands.add_parser("trace", help="run a pipeline some times, and tell where the time went")
    trace.add_argument("--runs", type=_number, default=5, metavar="N", help="how often, after one to warm up (5)")
    trace.add_argument(
        "--save", metavar="FILE", help="a trace for ui.perfetto.dev (.json, .json.gz), or a picture (.svg)"
    )
    trace.add_argument("--what-if", action="store_true", help="and what other numbers of threads would do")
    trace.add_argument(
        "--fail-if-span-over",
        type=_seconds,
        metavar="TIME",
        help="exit with 3 if the longest chain of operators of a run takes longer, as a median: 20ms, 1.5s",
    )
    trace.set_defaults(command=_trace)

    tuning = commands.add_parser("tune", help="try a pipeline on different numbers of inter-op and intra-op threads")
    tuning.add_argument("--budget", type=_seconds, default=5.0, metavar="TIME", help="how long, about: 10s (5s)")
    tuning.set_defaults(command=_tune)

    for command in (run, graph, trace, tuning):
        command.add_argument("pipeline", help=_PIPELINE)
        command.add_argument("arguments", nargs="*", help=_ARGUMENTS)
    for command in (run, trace):
        command.add_argument("--threads", type=_number, metavar="N", help="inter-op threads")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of at least 1, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(s|ms|us|µs)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"a number with s, ms or us, such as 20ms, not {text!r}")
    if not float(found[1]):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text!r}")
    return float(found[1]) * _UNITS[found[2]]


# ------------------------------------------------------------------------------------------------ commands


def _info(asked: argparse.Namespace) -> int:
    info = parallel_info()
    print(json.dumps(info, indent=2) if asked.json else info)
    return 0


def _run(asked: argparse.Namespace) -> int:
    pipeline, args, kwargs = _found(asked)
    if asked.threads is not None:
        set_num_interop_threads(asked.threads)
    try:
        result = str(pipeline.run(*args, **kwargs))
    except Exception:
        return _raised()
    print(result)
    return 0


def _graph(asked: argparse.Namespace) -> int:
    pipeline, args, kwargs = _found(asked)
    try:
        graph = pipeline.graph(*args, **kwargs)
        text = mermaid(graph) if asked.mermaid else dot(graph) if asked.dot else str(graph)
    except Exception:
        return _raised()
    print(text.rstrip("\n"))
    return 0


def _trace(asked: argparse.Namespace) -> int:
    if asked.save is not None and not asked.save.endswith((".json", ".json.gz", ".svg")):
        raise _Wrong(f"--save writes .json, .json.gz or .svg, not {asked.save!r}")
    pipeline, args, kwargs = _found(asked)
    if asked.threads is not None:
        set_num_interop_threads(asked.threads)
    try:
        pipeline.run(*args, **kwargs)
        with profile() as prof:
            for _ in range(asked.runs):
                pipeline.run(*args, **kwargs)
    except Exception:
        return _raised()
    print(prof)
    if asked.what_if:
        print(f"\n{prof.what_if()}")
    if asked.save is not None:
        try:
            prof.save(asked.save)
        except OSError as error:
            raise _Wrong(f"cannot write {asked.save!r}: {error.strerror}") from error
        print(f"\n{asked.save}{'' if asked.save.endswith('.svg') else ': open it at ui.perfetto.dev'}")
    spans = sorted(run.span for run in prof.outer)
    span = spans[len(spans) // 2]
    if asked.fail_if_span_over is not None and span > asked.fail_if_span_over:
        print(f"dataflow: the span is {shown(span)}, over {shown(asked.fail_if_span_over)}", file=sys.stderr)
        return OVER_LIMIT
    return 0


def _tune(asked: argparse.Namespace) -> int:
    pipeline, args, kwargs = _found(asked)
    if taken := {"budget", "interop", "intraop"} & kwargs.keys():
        raise _Wrong(f"{min(taken)!r} is a parameter of tune itself: give the pipeline's by its position")
    try:
        found = str(tune(pipeline, *args, **{**kwargs, "budget": asked.budget}))
    except Exception:
        return _raised()
    print(found)
    return 0


def _raised() -> int:
    traceback.print_exc()
    return RAISED


# ------------------------------------------------------------------------------------------------ what is named


def _found(asked: argparse.Namespace) -> tuple[Pipeline[..., Any], list[Any], dict[str, Any]]:
    where, _, name = asked.pipeline.rpartition(":")
    if not where or not name:
        raise _Wrong(f"{asked.pipeline!r} does not say which pipeline: write module:name, or file.py:name")
    found: Any = _module(where)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            _absent(where, name, found, part)
    if not isinstance(found, Pipeline):
        raise _Wrong(f"{asked.pipeline!r} is no pipeline, but a {type(found).__name__}: put @flow.pipeline above it")
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in asked.arguments:
        key, equals, value = text.partition("=")
        if equals and key.isidentifier():
            if key in kwargs:
                raise _Wrong(f"the argument {key!r} is given twice")
            kwargs[key] = _literal(value)
        elif kwargs:
            raise _Wrong(f"the argument {text!r} has no name, and comes after one that has")
        else:
            args.append(_literal(text))
    signature = inspect.signature(found)
    try:
        bind = signature.bind_partial if asked.command is _graph else signature.bind
        bind(*args, **kwargs)
    except TypeError as error:
        raise _Wrong(f"{asked.pipeline}{signature}: {error}") from error
    return found, args, kwargs


def _absent(where: str, name: str, found: Any, part: str) -> NoReturn:
    there = [each for each, value in getattr(found, "__dict__", {}).items() if isinstance(value, Pipeline)]
    known = f"; the pipelines are {', '.join(there)}" if there else ""
    raise _Wrong(f"{where!r} has no {name!r}: nothing is named {part!r} there{known}")


def _module(where: str) -> Any:
    """A module by its name, or a file; what is beside it can be imported, as in `python file.py`."""
    path = Path(where)
    if path.suffix == ".py" and not path.is_file():
        raise _Wrong(f"there is no file {where!r}")
    if path.suffix != ".py" and where.startswith("."):
        raise _Wrong(f"{where!r} is neither the name of a module nor that of a file, such as photos.py")
    try:
        if path.suffix == ".py":
            return _of_file(path)
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{where}.".startswith(f"{error.name}."):
            raise _Wrong(f"there is no module {where!r} in {os.getcwd()!r}, nor elsewhere on Python's path") from error
        raise SystemExit(_raised()) from error
    except SystemExit as error:
        raise _Wrong(f"{where!r} ended the program when it was imported, with {error.code!r}") from error
    except Exception as error:
        raise SystemExit(_raised()) from error


def _of_file(path: Path) -> Any:
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
