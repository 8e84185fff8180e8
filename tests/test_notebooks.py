"""Notebooks are shells: no outputs are kept, and the cells of each run on small data.

Those of colab.ipynb run in tests/experiments/test_an8flower.py.
"""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SKIPPED = {"install", "display"}  # what only a notebook server has: pip, git, pictures
SMALL = {  # in place of the cell of sizes; what they render and train is shared where it is alike
    "first_map": "SIZE, NUM_PER_CLASS, BATCH_SIZE, NUM_EPOCHS = 16, 4, 24, 0",
    "ground_truth": """
SIZE, NUM_PER_CLASS, BATCH_SIZE, NUM_EPOCHS = 16, 4, 24, 1
WIDTHS, NUM_TEST, NUM_DRAWS = (4, 6, 8), 8, 1
METHODS = ["gradient", "input_x_gradient"]""",
    "relevant_features": """
SIZE, NUM_PER_CLASS, BATCH_SIZE, NUM_EPOCHS = 16, 4, 24, 1
WIDTHS, NUM_CROPS = (4, 6, 8), 3""",
    "scale": "SIZE, NUM_PER_CLASS, BATCH_SIZE, NUM_EPOCHS = 16, 4, 8, 0",
    "vit": """
SIZE, NUM_PER_CLASS, BATCH_SIZE, NUM_EPOCHS = 16, 4, 24, 0
NETWORK = {"patch_size": 4, "depth": 1, "width": 8, "num_heads": 2}""",
}


def cells(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def code_cells(path):
    return [cell for cell in cells(path) if cell["cell_type"] == "code"]


def tags(cell):
    return set(cell["metadata"].get("tags", ()))


def program(path, sizes=None):
    """The code of a notebook; a cell may be left out by its tag alone, and that of sizes be another one."""
    chosen = [cell for cell in code_cells(path) if not SKIPPED & tags(cell)]
    return "\n\n".join(sizes if sizes and "sizes" in tags(c) else "".join(c["source"]) for c in chosen)


def assigned(code):
    return [ast.unparse(node.targets[0]) for node in ast.parse(code).body if isinstance(node, ast.Assign)]


def test_each_is_run():
    assert [path.stem for path in NOTEBOOKS] == sorted([*SMALL, "colab"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped_and_the_first_cell_of_code_installs(path):
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    first, *others = code_cells(path)
    assert first["source"] == code_cells(ROOT / "notebooks/colab.ipynb")[0]["source"]
    assert "install" in tags(first)
    assert not [cell for cell in others if "install" in tags(cell)]


def test_the_page_lists_each_with_its_title():
    page = (ROOT / "docs/notebooks.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| \[([^]]+)\]\(\.\./notebooks/([^)]+)\)", page, flags=re.M))
    titles = {"".join(cells(path)[0]["source"]).split("\n")[0].removeprefix("# "): path for path in NOTEBOOKS}
    assert listed == {title: path.name for title, path in titles.items()}


def test_the_first_map_takes_twelve_lines():
    (cell,) = (c for c in code_cells(ROOT / "notebooks/first_map.ipynb") if "lines" in tags(c))
    assert len([line for line in cell["source"] if line.strip()]) == 12


@pytest.mark.parametrize("name", SMALL)
def test_its_cells_run_on_small_data(name, tmp_path, monkeypatch):
    path = ROOT / f"notebooks/{name}.ipynb"
    (sizes,) = ("".join(cell["source"]) for cell in code_cells(path) if "sizes" in tags(cell))
    assert assigned(sizes) == assigned(SMALL[name])
    monkeypatch.chdir(tmp_path)
    exec(compile(program(path, SMALL[name]), str(path), "exec"), {"__name__": name})
    shown = re.findall(r'Image\("(.+?)"\)', "".join("".join(c["source"]) for c in code_cells(path)))
    assert all((tmp_path / file).stat().st_size > 5_000 for file in shown)
    assert bool(shown) == (name != "scale")
