"""Figures of single experiments hold what was found, and refuse what is none."""

import numpy as np
import pytest

from experiments.classifier_figures import ablation_bars
from experiments.ground_truth_figures import randomization_curves
from tests.figures import material
from vexplain.catalog import title_of
from vexplain.evaluation import CONTROLS
from vexplain.figures import style
from vexplain.figures.curves import PAPER


def test_what_survives_shuffling_begins_at_one_and_is_listed_by_its_end():
    stages = {
        "gradient": {"dense": 0.5, "conv": -0.1},
        PAPER: {"dense": 0.25, "conv": 0.125},
        CONTROLS[1]: {"dense": 1.0, "conv": 1.0},
        "constant": {"dense": 0.75, "conv": np.nan},
    }
    figure = randomization_curves(stages)
    written = material.texts(figure)
    places = [written.index(title_of(name)) for name in (CONTROLS[1], PAPER, "gradient", "constant")]
    assert places == sorted(places)
    assert [written[n - 1] for n in places] == ["1.00", "0.12", "−0.10", "–"]
    lines = {tuple(line.get_ydata()): line for line in figure.axes[0].lines}
    assert lines[1.0, 0.25, 0.125].get_color() == style.ACCENT
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["none", "dense", "conv"]
    low, high = figure.axes[0].get_ylim()
    assert low < -0.1
    assert high > 1
    assert not material.overlaps_or_clips(figure)
    with pytest.raises(ValueError, match="stages is empty"):
        randomization_curves({})
    with pytest.raises(ValueError, match=r"stages\['b'\] has groups \['x'\]: expected \['y'\]"):
        randomization_curves({"a": {"y": 0.5}, "b": {"x": 0.5}})


@pytest.mark.parametrize("accuracy", [0.0, 0.42, 1.0])
def test_an_ablation_shows_means_draws_and_the_intact_network(accuracy):
    draws = [0.5, 0.75, 1.0]
    figure = ablation_bars(
        accuracy, {"all layers": (0.25, draws), "a name as long as this one " * 2: (0, [0])}
    )
    written = material.texts(figure)
    for text in (f"intact {100 * accuracy:.1f} %", "25.0 %", "75.0 %", "all layers"):
        assert text in written
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.25, 0.75, 0, 0]
    points = [c.get_offsets()[:, 0].tolist() for c in figure.axes[0].collections if len(c.get_offsets()) == 3]
    assert draws in points
    assert not material.overlaps_or_clips(figure)


@pytest.mark.parametrize(
    ("accuracy", "groups", "message"),
    [
        (0.5, {}, "groups is empty: give at least one"),
        (0.5, {"all": (0.5, [])}, r"groups\['all'\] has no random draw"),
        (0.5, {"all": (0.5, [50.0])}, r"groups\['all'\]: an accuracy is 50, expected \[0, 1\]"),
        (50.0, {"all": (0.5, [0.5])}, r"accuracy is 50: expected \[0, 1\]"),
    ],
)
def test_bad_accuracies_are_named(accuracy, groups, message):
    with pytest.raises(ValueError, match=message):
        ablation_bars(accuracy, groups)
