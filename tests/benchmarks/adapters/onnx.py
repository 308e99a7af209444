"""onnxruntime in parallel mode, a C++ yardstick: it runs operators of its own, so its tasks are the least that it has.

A task is the maximum of one-element tensors. Those that read no other read one of 16 inputs of the graph.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.adapters.job import Blocking, Job
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["executed_nodes", "onnx_all", "onnx_one", "onnx_results", "session"]

INPUTS = 16


def onnx_all(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """All results are fetched, as everybody else has to; `kernel` is not used."""
    built, feed = session(tasks, sinks(tasks), threads), _feed(np.arange(INPUTS))
    return Blocking(lambda: list(built.run(None, feed)))


def onnx_one(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """Only the last result is fetched: the executor, without what fetching costs; `kernel` is not used."""
    built, feed = session(tasks, sinks(tasks)[-1:], threads), _feed(np.arange(INPUTS))
    return Blocking(lambda: list(built.run(None, feed)))


def session(tasks: Tasks, fetched: list[int], threads: int, profile: str = "") -> onnxruntime.InferenceSession:
    """The graph as a session; with `profile`, the start of a file's name, it records what it executes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # each task is a node
    options.inter_op_num_threads, options.intra_op_num_threads = threads, 1
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(_model(tasks, fetched), options, providers=["CPUExecutionProvider"])


def _model(tasks: Tasks, fetched: list[int]) -> bytes:
    from onnx import TensorProto, helper

    def tensor(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])

    nodes = [
        helper.make_node("Max", [f"t{i}" for i in reads] or [f"x{task % INPUTS}"], [f"t{task}"])
        for task, reads in enumerate(tasks)
    ]
    inputs, outputs = [tensor(f"x{i}") for i in range(INPUTS)], [tensor(f"t{task}") for task in fetched]
    graph = helper.make_graph(nodes, "tasks", inputs, outputs)
    # Versions that every onnxruntime of the last years reads: onnx writes its own newest if it is not told.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def _feed(inputs: np.ndarray) -> dict[str, np.ndarray]:
    return {f"x{i}": np.full(1, value, np.float32) for i, value in enumerate(inputs)}


def onnx_results(tasks: Tasks, inputs: np.ndarray, threads: int) -> list[float]:
    """What the session gives for the tasks that nobody reads."""
    return [float(value[0]) for value in session(tasks, sinks(tasks), threads).run(None, _feed(inputs))]


def executed_nodes(tasks: Tasks, threads: int) -> int:
    """How many nodes the session executes in one run, by its own records."""
    with tempfile.TemporaryDirectory() as folder:
        built = session(tasks, sinks(tasks)[-1:], threads, str(Path(folder) / "profile"))
        built.run(None, _feed(np.arange(INPUTS)))
        events = json.loads(Path(built.end_profiling()).read_text())
    return sum(event["name"].endswith("_kernel_time") for event in events)
