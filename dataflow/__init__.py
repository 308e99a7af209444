"""Graphs of numpy operators inside asyncio applications.

    import dataflow as flow

Operators are declared with `op`, composed with `pipeline`, and awaited. Those that do not depend on each other run
at the same time, on at most `get_num_interop_threads()` threads; the event loop stays free.
"""

from dataflow.engine.runs.driver import quiet
from dataflow.engine.runs.limits import Limit
from dataflow.engine.runs.run import checkpoint
from dataflow.engine.service.info import ParallelInfo, parallel_info
from dataflow.engine.service.running import RunningKernel, running
from dataflow.engine.service.runtime import Runtime
from dataflow.engine.service.stream import Stream
from dataflow.engine.service.ticket import StillRunning
from dataflow.errors import (
    DataflowError,
    GraphError,
    InternalError,
    OperatorError,
    OperatorTimeout,
    Overloaded,
    ResultWarning,
    RuntimeClosed,
    TraceError,
    TraceWarning,
)
from dataflow.events import observe
from dataflow.frontend.control import cond
from dataflow.frontend.control import map_ as map
from dataflow.frontend.op import Call, Op, op
from dataflow.frontend.pipeline import Pipeline, pipeline
from dataflow.frontend.task import Task
from dataflow.graph.nodes import Graph
from dataflow.graph.readonly import copied, readonly
from dataflow.graph.tracing.annotations import after, label, scope
from dataflow.threads.controller import manage_blas
from dataflow.threads.settings import (
    get_num_interop_threads,
    get_num_threads,
    set_num_interop_threads,
    set_num_threads,
    threads,
)
from dataflow.tools import notebook as _notebook  # noqa: F401  # what notebooks show
from dataflow.tools.graphs import dot, mermaid
from dataflow.tools.profile import Profile, profile
from dataflow.tools.tune import tune

__all__ = [
    "Call",
    "DataflowError",
    "Graph",
    "GraphError",
    "InternalError",
    "Limit",
    "Op",
    "OperatorError",
    "OperatorTimeout",
    "Overloaded",
    "ParallelInfo",
    "Pipeline",
    "Profile",
    "ResultWarning",
    "RunningKernel",
    "Runtime",
    "RuntimeClosed",
    "StillRunning",
    "Stream",
    "Task",
    "TraceError",
    "TraceWarning",
    "after",
    "checkpoint",
    "cond",
    "copied",
    "dot",
    "get_num_interop_threads",
    "get_num_threads",
    "label",
    "manage_blas",
    "map",
    "mermaid",
    "observe",
    "op",
    "parallel_info",
    "pipeline",
    "profile",
    "quiet",
    "readonly",
    "running",
    "scope",
    "set_num_interop_threads",
    "set_num_threads",
    "threads",
    "tune",
]
