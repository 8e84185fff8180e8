"""Curves and bars hold every method, ours apart from the others and the controls apart from both."""

import numpy as np
import pytest

from tests.figures import material
from vexplain.catalog import title_of
from vexplain.evaluation import CONTROLS, Score
from vexplain.figures import iou_curves, style
from vexplain.figures.curves import OURS, PAPER


def lines_of(figure):
    return {tuple(line.get_ydata()): line for line in figure.axes[0].lines}


def test_the_legend_is_sorted_by_area_and_has_the_areas():
    figure = iou_curves(material.scores())
    written = material.texts(figure)
    order = ["Grad-CAM (conv_2)", PAPER, "gradient", CONTROLS[1], CONTROLS[0]]
    places = [written.index(title_of(name)) for name in order]
    assert places == sorted(places)
    assert [t for t in written if "±" in t][:2] == ["40.0 % ± 1.0", "35.0 % ± 1.0"]


def test_ours_is_bold_and_on_top_and_the_controls_are_dashed():
    scores = material.scores()
    lines = lines_of(iou_curves(scores))
    line = {name: lines[tuple(100 * score.curve)] for name, score in scores.items()}
    assert line[PAPER].get_color() == style.ACCENT
    assert line[PAPER].get_linewidth() > max(line[n].get_linewidth() for n in scores if n != PAPER)
    assert line[PAPER].get_zorder() == max(each.get_zorder() for each in line.values())
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
    lines = lines_of(iou_curves(scores | {OURS: own}))
    assert lines[tuple(100 * curve)].get_color() == style.INK
    assert {data: line.get_color() for data, line in lines.items() if data in before} == before


def test_no_score_is_refused():
    with pytest.raises(ValueError, match=r"scores is empty: pass what evaluation.summarize"):
        iou_curves({})
