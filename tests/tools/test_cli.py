"""`python -m dataflow`: each command as a process, with its failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent.parent

PIPELINES = """
import time
import dataflow as flow
from beside import STEP

@flow.op
def nap(x, seconds=0.01):
    time.sleep(seconds)
    return x + STEP

@flow.pipeline
def two(x, y=0):
    return nap(nap(x)), y

@flow.pipeline
def fails(x):
    return nap(x, seconds="long")

class Model:
    @flow.pipeline
    def answer(self, x):
        return nap(x)

model = Model()
number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    (path / "pipelines.py").write_text(PIPELINES)
    (path / "beside.py").write_text("STEP = 1\n")
    (path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    (path / "broken.py").write_text("import nowhere_at_all\n")
    return path


def dataflow(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "dataflow", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def done(folder: Path, *arguments: str) -> str:
    process = dataflow(folder, *arguments)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


def test_info(folder: Path) -> None:
    assert "interop_threads" in done(folder, "info")
    assert json.loads(done(folder, "info", "--json"))["kernels"] == []


@pytest.mark.parametrize("where", ["pipelines", "pipelines.py"])
def test_run(folder: Path, where: str) -> None:
    assert done(folder, "run", f"{where}:two", "3") == "(5, 0)\n"
    assert done(folder, "run", f"{where}:two", "3", "y=[1, 2]", "--threads", "1") == "(5, [1, 2])\n"
    assert done(folder, "run", f"{where}:two", "3", "y=some text") == "(5, 'some text')\n"
    assert done(folder, "run", f"{where}:model.answer", "1") == "2\n"


def test_a_file_elsewhere(folder: Path, tmp_path: Path) -> None:
    assert done(tmp_path, "run", f"{folder / 'pipelines.py'}:two", "0") == "(2, 0)\n"


def test_graph(folder: Path) -> None:
    text = done(folder, "graph", "pipelines:two")
    assert text.splitlines()[0] == "Graph two(x): 2 nodes"
    assert "1  nap(0)" in text
    assert done(folder, "graph", "pipelines:two", "--mermaid").startswith("flowchart TD\n")
    assert done(folder, "graph", "pipelines:two", "--dot").startswith("digraph ")


def test_trace(folder: Path) -> None:
    text = done(folder, "trace", "pipelines:two", "0", "--runs", "2", "--what-if", "--save", "run.json")
    assert text.startswith("2 × two\nwall ")
    assert "two: measured" in text
    assert json.loads((folder / "run.json").read_text())["traceEvents"]


def test_tune(folder: Path) -> None:
    text = done(folder, "tune", "pipelines:two", "0", "y=1", "--budget", "10ms")
    assert text.startswith("two: inter-op × intra-op threads")
    assert "(now)" in text


def test_a_span_over_the_limit(folder: Path) -> None:
    process = dataflow(folder, "trace", "pipelines:two", "0", "--runs", "1", "--fail-if-span-over", "15ms")
    assert process.returncode == 3
    assert "the span is" in process.stderr
    assert done(folder, "trace", "pipelines:two", "0", "--runs", "1", "--fail-if-span-over", "60s")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "pipelines:fails", "1"], 1, "dataflow: in operator 'nap'"),
        (["trace", "pipelines:fails", "1"], 1, "dataflow: in operator 'nap'"),
        (["run", "pipelines:two"], 2, "missing a required argument: 'x'"),
        (["run", "pipelines:two", "1", "2", "3"], 2, "too many positional arguments"),
        (["graph", "pipelines:two", "z=2"], 2, "unexpected keyword argument 'z'"),
        (["run", "pipelines:two", "x=1", "x=2"], 2, "'x' is given twice"),
        (["run", ".pipelines:two", "1"], 2, "neither the name of a module"),
        (["run", "leaves:p"], 2, "ended the program when it was imported"),
        (["run", "broken:p"], 1, "No module named 'nowhere_at_all'"),
        (["graph", "broken.py:p"], 1, "No module named 'nowhere_at_all'"),
        (["run", "nothing:p"], 2, "there is no module 'nothing'"),
        (["run", "nothing.py:p"], 2, "there is no file 'nothing.py'"),
        (["run", "pipelines"], 2, "write module:name"),
        (["run", "pipelines:three"], 2, "the pipelines are two, fails"),
        (["run", "pipelines:number"], 2, "is no pipeline, but a int"),
        (["run", "pipelines:two", "y=1", "3"], 2, "has no name, and comes after one that has"),
        (["run", "pipelines:two", "3", "--threads", "0"], 2, "must be a number of at least 1"),
        (["trace", "pipelines:two", "3", "--runs", "x"], 2, "must be a number of at least 1"),
        (["trace", "pipelines:two", "3", "--save", "run.txt"], 2, ".json, .json.gz or .svg"),
        (["trace", "pipelines:two", "3", "--save", "no/folder/run.json"], 2, "cannot write"),
        (["trace", "pipelines:two", "3", "--fail-if-span-over", "20"], 2, "such as 20ms"),
        ([], 2, "required: command"),
        (["dance"], 2, "invalid choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_failures(folder: Path, arguments: list[str], code: int, told: str) -> None:
    process = dataflow(folder, *arguments)
    assert process.returncode == code, process.stderr
    assert told in process.stderr
    assert code == 1 or "Traceback" not in process.stderr


def test_a_console_without_bars(folder: Path) -> None:
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "dataflow", "trace", "pipelines:two", "0", "--runs", "1"]
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "ascii"}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=60, check=False)
    assert process.returncode == 0, process.stderr
    assert b"thread 1" in process.stdout


def test_what_is_no_literal_is_a_text(folder: Path) -> None:
    assert done(folder, "run", "pipelines:two", "3", "y={[]: 1}") == "(5, '{[]: 1}')\n"


def test_help(folder: Path) -> None:
    text = done(folder, "--help")
    assert all(command in text for command in ("info", "run", "graph", "trace", "tune", "Exit codes"))
    assert "--fail-if-span-over" in done(folder, "trace", "--help")
