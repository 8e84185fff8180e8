"""The study of what a network needs, in small."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import necessity
from experiments.necessity_measures import CONTROLS, OURS, PAPER, RANDOM, REPLACEMENTS


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("necessity")
    return out, necessity.main(dataclasses.replace(necessity.PRESETS["smoke"][1], out=out, devices=1))


def test_every_ranking_is_compared(found):
    out, measured = found
    assert json.loads((out / "necessity.json").read_text()) == json.loads(json.dumps(measured))
    assert (out / "necessity.png").stat().st_size > 10_000
    paper = measured["selections"][PAPER]
    assert set(paper) == set(REPLACEMENTS)
    for compared in paper.values():
        assert set(compared["union"]) == {"nothing", "selection", *CONTROLS, RANDOM}
        assert len(compared["union"][RANDOM]) == 2
        for classes in compared["per_class"].values():
            values = np.array([classes["own"], classes["others"]])
            assert values.min() >= 0
            assert values.max() <= 1
    assert len({compared["union"]["nothing"] for compared in paper.values()}) == 1
    assert sum(measured["by_layer"][PAPER].values()) == measured["num_union"][PAPER]
    removed, kept = measured["removed"], measured["kept"]
    nothing = paper["zero"]["union"]["nothing"]
    for curve in (removed[OURS], removed[CONTROLS[0]], *removed[RANDOM]):
        assert curve[0] == pytest.approx(nothing)  # without no feature
    assert {curve[0] for curve in kept[RANDOM]} == {kept[PAPER][0]}  # all of the layer are at their mean


def test_the_table_has_a_line_for_each_ranking(found):
    text = (found[0] / "necessity.md").read_text()
    assert text.count("| random |") == 2
    assert f"| **{PAPER}** |" in text
    assert all(
        len(line.split("|")) == 12 for line in text.split(OURS)[0].splitlines() if line.startswith("|")
    )
