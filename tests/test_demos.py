"""Every demo runs as a user runs it, in a process of its own, and keeps to what STYLE.md asks of demos."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
DEMOS = sorted(path for path in (REPO / "demos").glob("*.py") if re.fullmatch(r"\d\d_[a-z_]+", path.stem))

PRINTS = {
    "01_diamond": r"1,048,576 steps: its lowest 100 frequencies hold 99\.4% of its variance",
    "02_photo_features": r"(?s)grace_hopper\.png .*features_s1045\.png .*features_Minduka.*corners 0\.000",
    "03_inception": r"(?s)1 at once: .*\n4 at once: .* s at 1 inter-op thread, .* x",
    "04_inside_an_app": r"(?s)\d+ ticks .*largest gap was .* ms.*mean change 35\.0.*cancelled is True",
    "05_interop_threads": r"(?s)set to 4, get says 4, .*set to 1, get says 1, kernels at once: 1\n.*set to 2",
    "06_model": r"full attention: \d+ nodes, \d+ ms\ncausal attention: \d+ nodes, \d+ ms",
    "07_threads": r"(?s)chain +wide\n +1 x 1 inter-op x intra-op +[\d.]+ +[\d.]+\n.*  default inter-op .*On idle CPUs",
    "08_service": r"(?s)6 at once: 6 right.*40 at once: .*, [1-9]\d* to come.*running: \[\]\n.* 3 at once: [1-3] right",
    "09_audio_stream": r"100 frames of 20 ms as offline; latency [\d.]+ ms, at worst [\d.]+ ms\n",
    "10_memory_map": r"16 MB smoothed in place: a spread of 1\.000, then of 0\.577\n",
    "11_watch_it_run": r"(?s)5 × describe\nwall .*thread 1 .*corners/blur .*describe: measured .*json\.gz: open",
}
"""A pattern that the output of each must hold."""

NEEDS = {
    "02_photo_features": ["matplotlib", "PIL"],
    "03_inception": ["threadpoolctl"],
    "08_service": ["aiohttp"],
}
"""What a demo imports beyond numpy and dataflow."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[subprocess.CompletedProcess[str], Path]]:
    """Runs a demo, once for all tests, and tells the folder that it had."""

    @cache
    def run(demo: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
        folder = tmp_path_factory.mktemp(demo.stem)
        return run_in(folder, demo), folder

    return run


def run_in(folder: Path, demo: Path) -> subprocess.CompletedProcess[str]:
    """In another folder than the repository's, temporary files in it, every warning an error."""
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(folder), "MPLCONFIGDIR": str(folder)}
    command = [sys.executable, "-W", "error", str(demo)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.stem)
def test_a_demo_runs_and_says_what_it_found(demo, run):
    for package in NEEDS.get(demo.stem, []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done, _ = run(demo)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(PRINTS[demo.stem], done.stdout), done.stdout


def test_the_photographs_leave_pictures_behind(run):
    pytest.importorskip("matplotlib")
    pytest.importorskip("PIL")
    _, folder = run(REPO / "demos" / "02_photo_features.py")
    pictures = list(folder.glob("features_*.png"))
    assert len(pictures) == 3
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.stem)
def test_a_demo_fits_a_screen_and_draws_its_graph(demo):
    text = demo.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    drawing = (ast.get_docstring(ast.parse(text)) or "").split("\n\n", 1)[-1]
    assert drawing.isascii()
    assert "--" in drawing
    assert drawing.count("\n") >= 2


def test_every_demo_is_known_here():
    assert [demo.stem for demo in DEMOS] == sorted(PRINTS)
