"""Notebooks are shells: no outputs are kept, and their cells run in order, on the CPU at the smoke preset."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SKIPPED = {"install", "display"}  # what only a notebook server has: pip, git, pictures


def code_cells(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_is_one():
    assert [path.name for path in NOTEBOOKS] == ["colab.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_run_in_order(path, tmp_path):
    """In one namespace of a process of their own; a cell may be left out by its tag alone."""
    sources = [
        "".join(cell["source"])
        for cell in code_cells(path)
        if not SKIPPED & set(cell["metadata"].get("tags", ()))
    ]
    program = "\n\n".join(sources)
    assert "an8flower.main(" in program
    assert "vx.explain(" in program
    environment = os.environ | {"VEXPLAIN_PRESET": "smoke", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "held-out accuracy" in ended.stdout
    out = tmp_path / "runs" / "colab"
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "my_network.png").stat().st_size > 10_000
