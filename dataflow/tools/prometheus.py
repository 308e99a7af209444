"""Metrics as Prometheus reads them, without a client library: for the handler of `/metrics`.

    from dataflow.tools import prometheus

    async def metrics(request):
        return web.Response(text=prometheus.text(rt), headers={"Content-Type": prometheus.CONTENT_TYPE})

Counters are of the whole life of this process, gauges of the moment. Nothing is counted for this: it is what
`parallel_info()` and `Runtime.info()` tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from dataflow.engine.service.info import parallel_info
from dataflow.engine.service.runtime import Runtime

__all__ = ["CONTENT_TYPE", "text"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[dict[str, str], float]
"""Labels, and a value."""


def text(*runtimes: Runtime) -> str:
    """The metrics of this process, and of these runtimes, in Prometheus's text format.

    | metric | kind | labels |
    |---|---|---|
    | dataflow_runs_started_total | counter | |
    | dataflow_runs_ended_total | counter | outcome: done, failed, cancelled |
    | dataflow_runs_in_progress | gauge | |
    | dataflow_interop_threads | gauge | state: target, live, busy |
    | dataflow_kernels_queued, dataflow_kernels_overrunning | gauge | |
    | dataflow_kernel_longest_seconds | gauge | |
    | dataflow_runtime_runs | gauge | runtime; state: running, waiting |
    | dataflow_runtime_ended_total | counter | runtime; outcome: done, failed, cancelled, refused |
    | dataflow_runtime_run_seconds | gauge | runtime |

    `dataflow_kernel_longest_seconds` is for how long the kernel has been executed that has been so the longest: 0 if
    there is none. `dataflow_runtime_run_seconds` is the mean over recent runs. ValueError if two runtimes have one
    name: Prometheus could not tell them apart.
    """
    info = parallel_info()
    runs, threads = info["runs"], info["interop_threads"]
    longest = max((kernel["seconds"] for kernel in info["kernels"]), default=0.0)
    lines = [
        *_metric("dataflow_runs_started_total", "counter", "Runs that began.", [({}, runs["started"])]),
        *_metric(
            "dataflow_runs_ended_total",
            "counter",
            "Runs that ended, by their outcome.",
            [({"outcome": outcome}, runs[outcome]) for outcome in ("done", "failed", "cancelled")],
        ),
        *_metric("dataflow_runs_in_progress", "gauge", "Runs under way.", [({}, runs["in_progress"])]),
        *_metric(
            "dataflow_interop_threads",
            "gauge",
            "Inter-op threads: the setting, those that exist, those that execute kernels.",
            [({"state": state}, threads[state]) for state in ("target", "live", "busy")],
        ),
        *_metric("dataflow_kernels_queued", "gauge", "Kernels that wait for a thread.", [({}, threads["queued"])]),
        *_metric(
            "dataflow_kernels_overrunning",
            "gauge",
            "Runs and attempts that are over while a kernel of theirs is still executed.",
            [({}, threads["overrunning"])],
        ),
        *_metric(
            "dataflow_kernel_longest_seconds",
            "gauge",
            "For how long a kernel has been executed that is under way, at most.",
            [({}, longest)],
        ),
    ]
    return "".join(f"{line}\n" for line in [*lines, *_of_runtimes(runtimes)])


def _of_runtimes(runtimes: Iterable[Runtime]) -> Iterable[str]:
    told = [(info["runtime"]["name"], info["runs"]) for info in (runtime.info() for runtime in runtimes)]
    names = [name for name, _ in told]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two runtimes have the name {twice[0]!r}: give each a name of its own, Runtime(name=...)")
    if not told:
        return
    yield from _metric(
        "dataflow_runtime_runs",
        "gauge",
        "Runs of a runtime: that are under way, and that wait for a place.",
        [({"runtime": name, "state": state}, runs[state]) for name, runs in told for state in ("running", "waiting")],
    )
    yield from _metric(
        "dataflow_runtime_ended_total",
        "counter",
        "Runs of a runtime that ended, or were refused.",
        [
            ({"runtime": name, "outcome": outcome}, runs[outcome])
            for name, runs in told
            for outcome in ("done", "failed", "cancelled", "refused")
        ],
    )
    yield from _metric(
        "dataflow_runtime_run_seconds",
        "gauge",
        "The mean time of recent runs of a runtime.",
        [({"runtime": name}, runs["mean_seconds"]) for name, runs in told if runs["mean_seconds"] is not None],
    )


def _metric(name: str, kind: str, told: str, samples: Iterable[Sample]) -> Iterable[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for labels, measured in samples:
        listed = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
        yield f"{name}{{{listed}}} {_number(measured)}" if listed else f"{name} {_number(measured)}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
