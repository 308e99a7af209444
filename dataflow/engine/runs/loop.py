"""The event loop of the calling thread: asyncio's. Where there is none, or another library's, it is said what to do."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["loop_runs_here", "running_loop"]


def loop_runs_here() -> bool:
    """Whether this thread has an event loop that runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def running_loop(what: str, *, blocking: str = "asyncio.run, main()", otherwise: str = "") -> asyncio.AbstractEventLoop:
    """The running loop; RuntimeError if there is none, with what needs it and what to do instead.

    `blocking` is a function and its arguments that do the same in a thread of trio's, `otherwise` what to do where no
    such library runs.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    if _trio_runs_here():
        raise RuntimeError(
            f"{what} found no running event loop: dataflow runs on asyncio, and here runs trio. Run the program with "
            f"asyncio.run(main()), or this part of it in a thread: `await trio.to_thread.run_sync({blocking})`"
        )
    raise RuntimeError(otherwise or f"{what} found no running event loop: dataflow runs on asyncio, {_BY_HAND}")


_BY_HAND = "so call it in a coroutine that asyncio runs, `asyncio.run(main())`"


def _trio_runs_here() -> bool:
    """Whether a task of trio's runs in this thread."""
    trio = sys.modules.get("trio")  # never imported for this
    try:
        return trio is not None and trio.lowlevel.current_task() is not None
    except Exception:
        return False
