"""`parallel_info`: what this process is set to, and what it does at the moment."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

import dataflow as flow
from dataflow.threads import cpus

Runner = Callable[[Any], Any]


def test_it_is_json_safe_and_reads_well() -> None:
    flow.set_num_interop_threads(3)
    info = flow.parallel_info()
    assert json.loads(json.dumps(info)) == info
    lines = str(info).splitlines()
    assert lines[0] == "interop_threads"
    assert "  target           3" in lines
    assert "  origin           API" in lines
    assert info["cpus"]["machine"] == os.cpu_count()
    assert info["cpus"]["usable"] == cpus.usable()


def test_what_there_is_none_of_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "cgroup_quota", lambda *_: None)
    assert "  quota            none" in str(flow.parallel_info()).splitlines()


def test_busy_queued_live_and_overrunning(run_async: Runner) -> None:
    flow.set_num_interop_threads(2)
    inside = threading.Semaphore(0)
    end = threading.Event()

    @flow.op
    def stay(i: int) -> int:
        inside.release()
        assert end.wait(20)
        return i

    @flow.pipeline
    def pipeline() -> Any:
        return [stay(i) for i in range(10)]

    def now() -> tuple[int, int, int]:
        interop = flow.parallel_info()["interop_threads"]
        return interop["busy"], interop["queued"], interop["overrunning"]

    async def main() -> None:
        running = asyncio.create_task(pipeline())
        for _ in range(2):
            await asyncio.to_thread(inside.acquire)
        assert now() == (2, 8, 0)
        assert flow.parallel_info()["interop_threads"]["live"] >= 2
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert now() == (2, 0, 1)
        end.set()
        await flow.quiet()
        while now() != (0, 0, 0):
            await asyncio.sleep(0)

    run_async(main())
