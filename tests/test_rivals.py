"""The comparison of solvers, at the smallest size, with those that the tests have."""

import dataclasses
import sys

import numpy as np
import pytest

from benchmarks import rivals
from benchmarks.rivals import Case, Config, comparison

CASES = {"signed": Case(60, 3, 90, 0.5, nonnegative=False), "nonnegative": Case(60, 3, 90, 0.1)}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    draw = rivals.draw
    monkeypatch.setattr(rivals, "CASES", CASES)
    monkeypatch.setattr(rivals, "draw", lambda case: draw(case, num_causes=4, num_planted=10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rivals")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("solver", ["ours, host", "ours, device", "lars_path_gram", "LassoLars"])
def test_each_solver_solves_the_same_problem(name, solver, folder):
    data = folder / name
    if not data.exists():
        data.mkdir()
        rivals._write(data, CASES[name])
    task = {"solver": solver, "data": str(data), "seconds": 5.0} | dataclasses.asdict(CASES[name])
    row = rivals.run(task)
    assert row["classes"] == 3
    assert row["gap"] < 1e-9
    assert row["support"] == (np.load(next(data.glob("found-*.npz")))["support"]).mean() > 1


def test_a_missing_or_broken_solver_is_named(folder, tmp_path):
    """The processes are those of an interpreter that is not there, and of one without the solver."""
    config = Config(
        cases=("signed",),
        solvers=("adelie",),
        folder=tmp_path,
        python_of_adelie=str(tmp_path / "python"),
        limit=0.001,
    )
    slow, missing = comparison(config, "signed")
    assert slow == {"solver": "ours, host", "error": "not done in 0.005 s"}
    assert missing == {"solver": "adelie", "error": f"not installed ({tmp_path / 'python'})"}
    task = {"solver": "no such solver", "data": str(tmp_path), "seconds": 1.0}
    broken = rivals._in_process(sys.executable, task | dataclasses.asdict(CASES["signed"]), 60)
    assert "no such solver" in broken["error"]
