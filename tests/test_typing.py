"""What type checkers make of the faces: `typing/uses.py` says what each line reveals, and which lines are errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

USES = Path(__file__).parent / "typing" / "uses.py"
REPO = USES.parents[2]
LINES = dict(enumerate(USES.read_text(encoding="utf-8").splitlines(), 1))
REVEALED = {number: found[1] for number, line in LINES.items() if (found := re.search(r"# reveal: (.*)$", line))}
ERRORS = {number for number, line in LINES.items() if line.endswith("# error")}


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=REPO, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout


def test_the_file_says_something_of_most_lines() -> None:
    assert len(REVEALED) > 20
    assert len(ERRORS) > 12


def test_mypy_strict(tmp_path: Path) -> None:
    told = run("mypy", "--strict", "--cache-dir", str(tmp_path), "--hide-error-context", str(USES))
    revealed, errors = {}, {}
    for number, kind, text in re.findall(r"uses\.py:(\d+): (\w+): (.*)", told):
        if kind == "note" and (found := re.match(r'Revealed type is "(.*)"', text)):
            revealed[int(number)] = found[1].replace("builtins.", "")
        elif kind == "error":
            errors[int(number)] = text
    assert revealed == REVEALED
    assert errors.keys() == ERRORS, {number: errors[number] for number in errors.keys() - ERRORS}


def test_pyright() -> None:
    told = json.loads(run("basedpyright", "--outputjson", str(USES)))
    revealed, errors = {}, {}
    for entry in told["generalDiagnostics"]:
        number, text = entry["range"]["start"]["line"] + 1, entry["message"]
        if found := re.match(r'Type of ".*" is "(.*)"', text, re.DOTALL):
            revealed[number] = found[1]
        elif entry["severity"] == "error":
            errors[number] = text
    assert revealed == REVEALED
    assert errors.keys() == ERRORS, {number: errors[number] for number in errors.keys() - ERRORS}
