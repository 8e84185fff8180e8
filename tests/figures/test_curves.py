"""Curves and bars hold every method, ours apart from the others and the controls apart from both."""

import numpy as np
import pytest

from tests.figures import material
from vexplain.evaluation import CONTROLS, OURS, OWN, Score
from vexplain.figures import ablation_bars, iou_curves, randomization_curves, style


def lines_of(figure):
    return {tuple(line.get_ydata()): line for line in figure.axes[0].lines}


def test_the_legend_is_sorted_by_area_and_has_the_areas():
    figure = iou_curves(material.scores())
    written = material.texts(figure)
    order = ["Grad-CAM (conv_2)", OURS, "gradient", CONTROLS[1], CONTROLS[0]]
    places = [written.index(name) for name in order]
    assert places == sorted(places)
    assert [t for t in written if "±" in t][:2] == ["40.0 % ± 1.0", "35.0 % ± 1.0"]


def test_ours_is_bold_and_on_top_and_the_controls_are_dashed():
    scores = material.scores()
    lines = lines_of(iou_curves(scores))
    line = {name: lines[tuple(100 * score.curve)] for name, score in scores.items()}
    assert line[OURS].get_color() == style.OURS
    assert line[OURS].get_linewidth() > max(line[n].get_linewidth() for n in scores if n != OURS)
    assert line[OURS].get_zorder() == max(each.get_zorder() for each in line.values())
    for name in scores:
        assert (line[name].get_linestyle() == "--") == (name in CONTROLS)
        assert (line[name].get_color() == style.CONTROL) == (name in CONTROLS)


def test_twenty_methods_are_all_listed_and_look_different():
    areas, curve = {"IoU area": np.array([0.19, 0.21])}, np.linspace(0.4, 0, 101)
    scores = {f"method {n}": Score(areas, curve * (n + 1) / 20, "") for n in range(20)}
    figure = iou_curves(scores)
    looks = {(line.get_color(), str(line._dash_pattern)) for line in figure.axes[0].lines}
    assert len(looks) == 20
    assert not material.overlaps_or_clips(figure)


def test_our_own_map_is_dark_and_the_colors_of_the_others_do_not_hang_on_it():
    scores = material.scores()
    before = {data: line.get_color() for data, line in lines_of(iou_curves(scores)).items()}
    curve = np.linspace(0.9, 0, 101)
    own = Score({"IoU area": np.array([0.5, 0.6])}, curve, "")
    lines = lines_of(iou_curves(scores | {OWN: own}))
    assert lines[tuple(100 * curve)].get_color() == style.INK
    assert {data: line.get_color() for data, line in lines.items() if data in before} == before


def test_what_survives_shuffling_begins_at_one_and_is_listed_by_its_end():
    stages = {
        "gradient": {"dense": 0.5, "conv": -0.1},
        OURS: {"dense": 0.25, "conv": 0.125},
        CONTROLS[1]: {"dense": 1.0, "conv": 1.0},
        "constant": {"dense": 0.75, "conv": np.nan},
    }
    figure = randomization_curves(stages)
    written = material.texts(figure)
    places = [written.index(name) for name in (CONTROLS[1], OURS, "gradient", "constant")]
    assert places == sorted(places)
    assert [written[n - 1] for n in places] == ["1.00", "0.12", "−0.10", "–"]
    lines = lines_of(figure)
    assert lines[1.0, 0.25, 0.125].get_color() == style.OURS
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


def test_no_score_is_refused():
    with pytest.raises(ValueError, match=r"scores is empty: pass what evaluation.summarize"):
        iou_curves({})


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
