"""Notebooks are shells: no outputs are kept. Their cells run in tests/experiments/test_an8flower.py."""

import json
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


def program(path):
    """The code of a notebook; a cell may be left out by its tag alone."""
    chosen = [cell for cell in code_cells(path) if not SKIPPED & set(cell["metadata"].get("tags", ()))]
    return "\n\n".join("".join(cell["source"]) for cell in chosen)
