"""`parallel_info`: what this process is set to, and what it does at the moment."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from dataflow.engine.executors import THREAD_NAME
from dataflow.engine.pool import process_pool
from dataflow.engine.runs.metrics import run_metrics
from dataflow.engine.runs.orphans import orphans
from dataflow.engine.service import running
from dataflow.threads import cpus
from dataflow.threads.blas import flaws
from dataflow.threads.controller import process_intraop
from dataflow.threads.environment import variables
from dataflow.threads.settings import Origin, process_settings

__all__ = ["ParallelInfo", "parallel_info"]


class ParallelInfo(dict[str, Any]):
    """A JSON-safe dict whose `str()` is a table."""

    def __str__(self) -> str:
        lines: list[str] = []
        for group, entries in self.items():
            for title, rows in _tables(group, entries):
                lines.append(title if rows else f"{title:<18} none")
                lines += [f"  {name:<16} {_shown(value)}" for name, value in rows.items()]
        return "\n".join(lines)


def parallel_info() -> ParallelInfo:
    """Threads, BLAS libraries and CPUs of this process, now. Starts no thread and changes nothing.

    Under "interop_threads": `target` is the setting and `origin` where it came from ("default", "environment" or
    "API"); `live` threads exist, `busy` ones hold a slot and execute kernels; `queued` kernels are ready and wait for
    a slot; `overrunning` runs, or attempts at a kernel that timed out, are over while a kernel of theirs still runs.

    Under "intraop_threads": `target` and `origin` likewise; `adaptive`: whether the number follows what runs (see
    `get_num_threads`); `managed`: whether BLAS is set at all (see `manage_blas`); `now`: what kernels have now,
    None while none runs.

    Under "kernels", a dict for each that is executed at the moment, as `running` tells it.

    Under "runs", those of this process, in every runtime and on every loop: how many were `started`, are `in_progress`,
    and ended as `done`, `failed` or `cancelled`. What `Op.start` begins is a run, and so is what a kernel runs inside.

    Under "blas", a dict for each BLAS and OpenMP library that is loaded: `threads` is what it uses at this moment, as
    read from it; `set for` whom its number holds ("process", "thread", "nobody" if it cannot be set); `at most` what
    the environment allows it; `flaw` what is known to be wrong in this version when several threads call it at once.

    Under "cpus": the machine's, those in the affinity mask, the cgroup quota (in CPUs, None if there is no limit), and
    how many that leaves. Under "environment": the variables that bear on all this, if set.
    """
    pool = process_pool()
    setting, intraop = process_settings.interop(), process_settings.intraop()
    return ParallelInfo(
        interop_threads={
            "target": setting.value,
            "origin": setting.origin.value,
            "live": _live_threads(),
            "busy": pool.busy,
            "queued": pool.queued,
            "overrunning": len(orphans),
        },
        intraop_threads={
            "target": intraop.value,
            "origin": intraop.origin.value,
            "adaptive": intraop.origin is Origin.DEFAULT,
            "managed": process_intraop.managing,
            "now": process_intraop.threads,
        },
        kernels=running.as_dicts(),
        runs=run_metrics.read(),
        blas=[
            library.told() | {"flaw": flaws(library.kind, library.version)} for library in process_intraop.libraries()
        ],
        cpus={
            "machine": os.cpu_count(),
            "affinity": cpus.affinity(),
            "quota": cpus.cgroup_quota(),
            "usable": cpus.usable(),
        },
        environment=variables(),
    )


def _tables(group: str, entries: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """One group as titled tables: of a list, one for each."""
    if isinstance(entries, dict):
        yield group, entries
    else:
        for number, entry in enumerate(entries, 1):
            yield f"{group} {number}", entry


def _shown(value: Any) -> str:
    return "none" if value is None else "yes" if value is True else "no" if value is False else str(value)


def _live_threads() -> int:
    """How many threads of the pool exist; of a child forked inside a kernel, its main thread is none of them."""
    main = threading.main_thread()
    return sum(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate() if thread is not main)
