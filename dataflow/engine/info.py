"""`parallel_info`: what this process is set to, and what it does at the moment."""

from __future__ import annotations

import os
import threading
from typing import Any

from dataflow.engine.lanes import THREAD_NAME, process_pool
from dataflow.engine.strays import strays
from dataflow.threads import cpus
from dataflow.threads.settings import process_settings

__all__ = ["ParallelInfo", "parallel_info"]


class ParallelInfo(dict[str, Any]):
    """A JSON-safe dict whose `str()` is a table."""

    def __str__(self) -> str:
        lines: list[str] = []
        for group, entries in self.items():
            lines.append(group)
            lines += [f"  {name:<16} {'none' if value is None else value}" for name, value in entries.items()]
        return "\n".join(lines)


def parallel_info() -> ParallelInfo:
    """Threads and CPUs of this process, now. Starts no thread.

    Under "interop_threads": `target` is the setting and `origin` where it came from ("default", "environment" or
    "API"); `live` threads exist, `busy` ones hold a slot and execute kernels; `queued` kernels are ready and wait for
    a slot; `overrunning` runs are over while a kernel of theirs still runs. Under "cpus": the machine's, those in the
    affinity mask, the cgroup quota (in CPUs, None if there is no limit), and how many that leaves.
    """
    pool = process_pool()
    setting = process_settings.interop()
    return ParallelInfo(
        interop_threads={
            "target": setting.value,
            "origin": setting.origin.value,
            "live": _live_threads(),
            "busy": pool.busy,
            "queued": pool.queued,
            "overrunning": len(strays),
        },
        cpus={
            "machine": os.cpu_count(),
            "affinity": cpus.affinity(),
            "quota": cpus.cgroup_quota(),
            "usable": cpus.usable(),
        },
    )


def _live_threads() -> int:
    """How many threads of the pool exist; of a child forked inside a kernel, its main thread is none of them."""
    main = threading.main_thread()
    return sum(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate() if thread is not main)
