"""The README's programs run, and print what the README says below them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
README = (REPO / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


SHOWN = re.findall(r"^```python\n((?:(?!```).*\n)*?)```\n\n```text\n((?:(?!```).*\n)*?)```", README, re.MULTILINE)


def test_the_first_thing_shown_is_a_program_and_what_it_prints() -> None:
    assert SHOWN[0] == (BLOCKS[0][1], BLOCKS[1][1])


@pytest.mark.parametrize(("program", "printed"), SHOWN)
def test_a_program_prints_what_stands_below_it(program: str, printed: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_its_file_of_tests_passes_with_the_settings_above_it(tmp_path: Path) -> None:
    [settings] = [text for language, text in BLOCKS if language == "toml"]
    [tests] = [text for language, text in BLOCKS if language == "python" and "def test_" in text]
    (tmp_path / "pyproject.toml").write_text(settings)
    (tmp_path / "test_yours.py").write_text(tests)
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-W", "error"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{tests.count('def test_')} passed" in done.stdout


@pytest.mark.parametrize("program", [text for language, text in BLOCKS if language == "python"])
def test_the_other_pieces_are_python(program: str) -> None:
    compile(program, "README.md", "exec")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:demos|tests)/[\w/.]+)`", README))))
def test_the_files_it_speaks_of_exist(path: str) -> None:
    assert (REPO / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`flow\.(\w+)", README))))
def test_the_functions_it_speaks_of_exist(name: str) -> None:
    import dataflow as flow

    assert hasattr(flow, name)
