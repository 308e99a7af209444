"""The house of DESIGN.md, enforced: who may import whom, who may start threads, who may read the environment.

Every rule is a function from the parsed sources to a list of complaints. It is applied to `dataflow/`, and then
to a house in miniature with one violation planted, which it must find: a rule that finds nothing proves nothing.

    tools, annexes          4      dataflow/__init__.py and __main__.py stand on top of all (5)
    frontend                3
    engine                  2
    graph  threads  events  1      these three do not know each other
    errors                  0
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGE = "dataflow"

LAYERS = {
    "": 5,
    "__main__": 5,
    "tools": 4,
    "dask": 4,
    "distributed": 4,
    "onnx": 4,
    "frontend": 3,
    "engine": 2,
    "graph": 1,
    "threads": 1,
    "events": 1,
    "errors": 0,
}
STRANGERS = {"graph", "threads", "events"}
"""The parts of one layer that must not import each other."""

ASYNCIO = {"asyncio", "uvloop"}
ASYNCIO_LAYERS = {2, 3, 4}
CORE = f"{PACKAGE}.engine.scheduler"
STARTERS = {f"{PACKAGE}.engine.executors", f"{PACKAGE}.engine.monitor"}
CORE_REFUSES = {"_thread", "asyncio", "concurrent", "logging", "numpy", "os", "threading", "time", "uvloop"}

OPTIONAL_EXTRAS = {"IPython", "PIL", "dask", "distributed", "matplotlib", "onnx", "opentelemetry", "uvloop"}
"""What may be imported inside a function: packages that a user may do without, or that would make import slow. At the
top of a module only where `import dataflow` does not come by."""

THREAD_STARTERS = {
    "_thread.start_joinable_thread",
    "_thread.start_new",
    "_thread.start_new_thread",
    "asyncio.to_thread",
    "concurrent.futures.ThreadPoolExecutor",
    "concurrent.futures.thread.ThreadPoolExecutor",
    "multiprocessing.pool.ThreadPool",
    "threading.Thread",
    "threading.Timer",
}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"}

TOP_LEVEL = {"dataflow", "tests", "demos", "pyproject.toml", "README.md"}


# ---------------------------------------------------------------- reading the sources


@dataclass(frozen=True)
class Import:
    target: str
    """The dotted name of a module, or of something in it: `from a import b` is "a.b"."""
    line: int
    in_function: bool
    for_types_only: bool


@dataclass(frozen=True)
class Module:
    name: str
    is_package: bool
    tree: ast.Module

    @property
    def part(self) -> str:
        """The part of the house that it belongs to: "engine" for dataflow.engine.pool, "" for dataflow itself."""
        return self.name.partition(".")[2].partition(".")[0]

    def at(self, line: int, complaint: str) -> str:
        return f"{self.name}:{line} {complaint}"

    def imports(self) -> Iterator[Import]:
        yield from self._imports_in(self.tree, in_function=False, for_types_only=False)

    def _imports_in(self, node: ast.AST, *, in_function: bool, for_types_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function, for_types_only)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(f"{self._source(node)}.{alias.name}", node.lineno, in_function, for_types_only)
        in_function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else []
        for child in ast.iter_child_nodes(node):
            yield from self._imports_in(
                child, in_function=in_function, for_types_only=for_types_only or child in guarded
            )

    def _source(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*parts, node.module] if node.module else parts)

    def mentions(self) -> Iterator[tuple[str, int]]:
        """Every dotted name in the code, with what its first part was imported as, annotations left out."""
        names = self._imported_names()
        annotations = set(_annotations(self.tree))
        todo: list[ast.AST] = [self.tree]
        while todo:
            node = todo.pop()
            if node in annotations:
                continue
            if isinstance(node, ast.Attribute | ast.Name):
                first, dot, rest = _dotted(node).partition(".")
                yield names.get(first, first) + dot + rest, node.lineno
            todo += ast.iter_child_nodes(node)

    def _imported_names(self) -> dict[str, str]:
        names = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names |= {alias.asname: alias.name for alias in node.names if alias.asname}
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: f"{self._source(node)}.{alias.name}" for alias in node.names}
        return names


def _is_type_checking(test: ast.expr) -> bool:
    return _dotted(test).rpartition(".")[2] == "TYPE_CHECKING"


def _annotations(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if annotation := getattr(node, field, None):
                yield annotation


def _dotted(node: ast.AST) -> str:
    """The text of `a.b.c`; of `f().b.c` it is "().b.c", for what is called or indexed has no name."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "()"


Sources = Mapping[str, str]
"""Path relative to the package -> text."""
House = dict[str, Module]


def parse(sources: Sources) -> House:
    house = {}
    for path, text in sources.items():
        parts = [PACKAGE, *Path(path).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        house[name] = Module(name, is_package, ast.parse(text))
    return house


def resolve(house: House, target: str) -> str | None:
    """The module of the house that an import reaches; None for one from elsewhere."""
    while target.partition(".")[0] == PACKAGE:
        if target in house:
            return target
        target = target.rpartition(".")[0]
    return None


def edges(house: House) -> Iterator[tuple[Module, Module, Import]]:
    for module in house.values():
        for found in module.imports():
            if target := resolve(house, found.target):
                yield module, house[target], found


# ---------------------------------------------------------------- the rules


def every_module_has_a_layer(house: House) -> list[str]:
    return [f"{module.name} has no layer" for module in house.values() if module.part not in LAYERS]


def imports_go_down(house: House) -> list[str]:
    """Those for type checking, too: a layer that names a type of a higher one knows of it."""
    complaints = []
    for module, target, found in edges(house):
        higher = LAYERS.get(module.part, 0) < LAYERS.get(target.part, 0)
        strange = module.part != target.part and {module.part, target.part} <= STRANGERS
        if higher or strange:
            complaints.append(
                module.at(found.line, f"imports {target.name}, which is {'above' if higher else 'beside'} it")
            )
    return complaints


def no_cycles(house: House) -> list[str]:
    """Those for type checking do not run, and close one all the same: of two that name each other, neither is below."""
    graph: dict[str, set[str]] = {name: set() for name in house}
    for module, target, _ in edges(house):
        # `from . import x` in a package that has no x reaches the package itself: not a cycle, a missing name.
        if module is not target:
            graph[module.name].add(target.name)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        *cycle, _ = reversed(error.args[1])
        first = cycle.index(min(cycle))
        return [" imports ".join([*cycle[first:], *cycle[: first + 1]])]
    return []


def no_import_inside_a_function(house: House) -> list[str]:
    return [
        module.at(found.line, f"imports {found.target} inside a function")
        for module in house.values()
        for found in module.imports()
        if found.in_function and found.target.partition(".")[0] not in OPTIONAL_EXTRAS
    ]


def importing_the_package_imports_no_extra(house: House) -> list[str]:
    """Nor do modules that it imports; a module that is all about one is imported by itself."""
    reached, todo = set[str](), [PACKAGE] if PACKAGE in house else []
    complaints = []
    while todo:
        module = house[todo.pop()]
        if module.name in reached:
            continue
        reached.add(module.name)
        for found in module.imports():
            if found.in_function or found.for_types_only:
                continue
            if found.target.partition(".")[0] in OPTIONAL_EXTRAS:
                complaints.append(module.at(found.line, f"imports {found.target} whenever the package is imported"))
            elif target := resolve(house, found.target):
                todo.append(target)
    return complaints


def asyncio_only_where_it_is_driven(house: House) -> list[str]:
    return [
        module.at(found.line, f"imports {found.target}")
        for module in house.values()
        for found in module.imports()
        if found.target.partition(".")[0] in ASYNCIO
        and (LAYERS.get(module.part) not in ASYNCIO_LAYERS or module.name == CORE)
    ]


def the_core_is_pure(house: House) -> list[str]:
    if CORE not in house:
        return []
    return [
        house[CORE].at(found.line, f"imports {found.target}")
        for found in house[CORE].imports()
        if found.target.partition(".")[0] in CORE_REFUSES
    ]


def only_executors_and_the_monitor_start_threads(house: House) -> list[str]:
    """A mention is enough (a base class, a factory passed on); annotations are free."""
    return [
        module.at(line, f"starts threads: {name}")
        for module in house.values()
        if module.name not in STARTERS
        for name, line in module.mentions()
        if name in THREAD_STARTERS or name.endswith(".run_in_executor")
    ]


def only_threads_reads_the_environment(house: House) -> list[str]:
    return [
        module.at(line, f"uses {name}")
        for module in house.values()
        if module.part != "threads"
        for name, line in module.mentions()
        if name in ENVIRONMENT
    ]


Rule = Callable[[House], list[str]]
RULES: list[Rule] = [
    every_module_has_a_layer,
    imports_go_down,
    no_cycles,
    no_import_inside_a_function,
    importing_the_package_imports_no_extra,
    asyncio_only_where_it_is_driven,
    the_core_is_pure,
    only_executors_and_the_monitor_start_threads,
    only_threads_reads_the_environment,
]


# ---------------------------------------------------------------- the real house


@pytest.fixture(scope="module")
def house() -> House:
    root = REPO / PACKAGE
    return parse({str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in root.rglob("*.py")})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule, house):
    assert f"{PACKAGE}.errors" in house
    assert rule(house) == []


def strangers_at_the_top(tracked: list[str]) -> set[str]:
    top = {path.partition("/")[0] for path in tracked}
    return {name for name in top - TOP_LEVEL if not name.startswith(".")}


@pytest.mark.skipif(not (REPO / ".git").exists(), reason="not a checkout")
def test_the_top_of_the_repository_holds_nothing_else():
    # safe.directory: a container may run the tests as another user than the one who owns the checkout.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    assert strangers_at_the_top(done.stdout.split("\0")[:-1]) == set()


def test_a_stranger_at_the_top_is_seen():
    tracked = ["README.md", ".ci/run", "dataflow/op.py", "setup.py", "docs/index.md"]
    assert strangers_at_the_top(tracked) == {"setup.py", "docs"}


# ---------------------------------------------------------------- the rules themselves, on a house in miniature

SOUND: dict[str, str] = {
    "__init__.py": "from dataflow.frontend.op import op as op\nfrom dataflow.tools.profile import profile as profile",
    "frontend/__init__.py": "",
    "frontend/op.py": "import asyncio\nfrom dataflow.engine import runtime\nfrom dataflow.graph.trace import trace",
    "engine/__init__.py": "",
    "engine/scheduler.py": "import heapq\nfrom dataflow.errors import InternalError",
    "engine/executors.py": "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(1)",
    "engine/pool.py": "import threading\nfrom .executors import Executors",
    "engine/runtime.py": "import asyncio\nfrom . import pool, scheduler\nfrom ..events import Event",
    "graph/__init__.py": "",
    "graph/nodes.py": "import threading as t\nlock = t.Lock()\ndef f(a: t.Thread) -> t.Thread: ...",
    "graph/trace.py": "from dataflow.graph.nodes import Graph\nfrom dataflow import errors",
    "threads/__init__.py": "",
    "threads/settings.py": "import os\nos.environ.get('X')",
    "events.py": "from .errors import InternalError",
    "errors.py": "import typing\nclass InternalError(Exception): ...",
    "tools/__init__.py": "",
    "tools/otel.py": "from opentelemetry import trace\nfrom dataflow.events import Event",
    "tools/profile.py": "import os.path\nfrom dataflow.frontend.op import op\ndef f():\n    import matplotlib.pyplot",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_miniature_is_sound(rule):
    assert rule(parse(SOUND)) == []


FOR_TYPES = "import typing\nif typing.TYPE_CHECKING:\n    "

PLANTED: dict[Rule, list[tuple[str, str, str]]] = {
    every_module_has_a_layer: [
        ("helpers.py", "", "has no layer"),
    ],
    imports_go_down: [
        ("engine/runtime.py", "import dataflow.frontend.op", ":1 imports dataflow.frontend.op, which is above it"),
        ("graph/trace.py", "from ..engine.pool import x", ":1 imports dataflow.engine.pool, which is above it"),
        ("graph/__init__.py", "from ..engine import pool", ":1 imports dataflow.engine.pool, which is above it"),
        (
            "graph/nodes.py",
            f"{FOR_TYPES}from dataflow.frontend import op",
            ":3 imports dataflow.frontend.op, which is above it",
        ),
        ("errors.py", "from dataflow.events import Event", ":1 imports dataflow.events, which is above it"),
        (
            "frontend/op.py",
            "from dataflow.tools import profile",
            ":1 imports dataflow.tools.profile, which is above it",
        ),
        ("tools/profile.py", "from dataflow import profile", ":1 imports dataflow, which is above it"),
        ("graph/nodes.py", "import dataflow.events", ":1 imports dataflow.events, which is beside it"),
        ("threads/settings.py", "from ..graph import nodes", ":1 imports dataflow.graph.nodes, which is beside it"),
        ("events.py", "from dataflow import threads", ":1 imports dataflow.threads, which is beside it"),
    ],
    no_cycles: [
        ("engine/pool.py", "from . import runtime", " imports dataflow.engine.runtime imports dataflow.engine.pool"),
        ("graph/nodes.py", f"{FOR_TYPES}0\nelse:\n    from . import trace", ".trace imports dataflow.graph.nodes"),
        ("graph/nodes.py", f"{FOR_TYPES}from .trace import trace", ".trace imports dataflow.graph.nodes"),
    ],
    no_import_inside_a_function: [
        ("frontend/op.py", "def f():\n    if f:\n        import json", ":3 imports json inside a function"),
        (
            "frontend/op.py",
            "class A:\n    async def f(self):\n        from .. import errors",
            ":3 imports dataflow.errors inside a function",
        ),
    ],
    importing_the_package_imports_no_extra: [
        ("__init__.py", "import matplotlib", ":1 imports matplotlib whenever the package is imported"),
        ("graph/nodes.py", "if 1:\n    from onnx import x", ":2 imports onnx.x whenever the package is imported"),
        ("tools/profile.py", "import IPython.display", ":1 imports IPython.display whenever the package is imported"),
    ],
    asyncio_only_where_it_is_driven: [
        ("graph/trace.py", "import asyncio", ":1 imports asyncio"),
        ("threads/settings.py", f"{FOR_TYPES}from asyncio import Task", ":3 imports asyncio.Task"),
        ("engine/scheduler.py", "import asyncio.events", ":1 imports asyncio.events"),
        ("__init__.py", "import uvloop", ":1 imports uvloop"),
    ],
    the_core_is_pure: [
        ("engine/scheduler.py", "from time import monotonic", ":1 imports time.monotonic"),
        ("engine/scheduler.py", "import numpy as np", ":1 imports numpy"),
        ("engine/scheduler.py", "import concurrent.futures", ":1 imports concurrent.futures"),
    ],
    only_executors_and_the_monitor_start_threads: [
        ("engine/runtime.py", "import threading as t\nt.Thread(target=f)", ":2 starts threads: threading.Thread"),
        ("op.py", "from threading import Timer as T\nclass A(T): ...", ":2 starts threads: threading.Timer"),
        ("op.py", "import _thread\n_thread.start_new_thread(f, ())", ":2 starts threads: _thread.start_new_thread"),
        (
            "frontend/op.py",
            "from concurrent import futures as f\nf.ThreadPoolExecutor(2)",
            ":2 starts threads: concurrent.futures.ThreadPoolExecutor",
        ),
        ("op.py", "async def f():\n    await loop.run_in_executor(None, f)", ":2 starts threads: loop.run_in_executor"),
        (
            "frontend/op.py",
            "import asyncio\nasyncio.get_running_loop().run_in_executor(None, f)",
            ":2 starts threads: ().run_in_executor",
        ),
    ],
    only_threads_reads_the_environment: [
        ("engine/pool.py", "import os as system\nsystem.environ['A']", ":2 uses os.environ"),
        ("tools/profile.py", "from os import getenv\ngetenv('A')", ":2 uses os.getenv"),
    ],
}


@pytest.mark.parametrize(
    ("rule", "path", "text", "complaint"), [(rule, *planted) for rule in PLANTED for planted in PLANTED[rule]]
)
def test_a_planted_violation_is_found(rule, path, text, complaint):
    (module,) = parse({path: text})
    (found,) = rule(parse(SOUND | {path: text}))
    assert found.startswith(module)
    assert found.endswith(complaint)


def test_every_rule_has_a_violation_planted():
    assert list(PLANTED) == RULES
