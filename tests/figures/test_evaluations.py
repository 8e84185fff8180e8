"""The figure of an evaluation orders the methods of each metric as its ranking does."""

import numpy as np
import pytest

from tests.figures import material
from vexplain.catalog import title_of
from vexplain.evaluation import CONTROLS, METRICS, Evaluation
from vexplain.figures import evaluation_figure, style
from vexplain.figures.curves import OURS, PAPER


def evaluation(methods, metrics, *, step, undefined=()):
    """Methods are `step` apart, in this order where high values are better and in the other where low are."""
    noise = np.random.default_rng(0).normal(size=(len(methods), 20))
    values = {
        name: {m: np.zeros(0) if name in undefined else noise[n] - n * step for n, m in enumerate(methods)}
        for name in metrics
    }
    return Evaluation(values, {name: METRICS[name] for name in metrics}, 20, num_resamples=50)


def panels(figure):
    """The axes with rows, and the texts of each panel from the top to the bottom."""
    axes = [a for a in figure.axes if a.lines]
    return axes, [t for t in figure.texts if t.get_text().strip()]


def test_methods_are_ordered_and_their_intervals_drawn():
    methods = ("gradient", PAPER, OURS, CONTROLS[0])
    found = evaluation(methods, ("sparseness", "complexity"), step=30)
    figure = evaluation_figure(found)
    axes, texts = panels(figure)
    assert len(axes) == 2
    names = [t.get_text() for t in texts if t.get_text() in map(title_of, methods)]
    assert names == [*map(title_of, methods), *map(title_of, methods[::-1])]
    for panel, name, order in ((axes[0], "sparseness", methods), (axes[1], "complexity", methods[::-1])):
        lines = [line.get_xdata() for line in panel.lines]
        np.testing.assert_allclose(lines[::2], [found.intervals(name)[m] for m in order])
        np.testing.assert_allclose(np.ravel(lines[1::2]), [found.mean(name, m) for m in order])
        colors = {m: line.get_color() for m, line in zip(order, panel.lines[::2], strict=True)}
        assert colors == dict(
            zip(methods, (style.RIVALS[0], style.ACCENT, style.INK, style.CONTROL), strict=True)
        )
    assert len(separators(figure)) == 2 * (len(methods) - 1)
    assert material.texts(figure).count("order changes in 0 % of resamplings") == 2


def separators(figure):
    return [a for a in figure.artists if a.get_height() > 0]


def test_methods_that_do_not_differ_have_intervals_of_ranks_and_no_line_between_them():
    figure = evaluation_figure(evaluation(("gradient", "grad_cam"), ("sparseness",), step=0))
    assert not separators(figure)
    assert material.texts(figure).count("1–2") == 2


def test_twenty_methods_by_twelve_metrics_do_not_overlap():
    methods = tuple(f"a method with a long name, {n}" for n in range(20))
    found = evaluation(methods, tuple(METRICS)[:12], step=0.2, undefined=tuple(METRICS)[3:4])
    figure = evaluation_figure(found)
    assert len(panels(figure)[0]) == 11
    assert "undefined for every image" in material.texts(figure)
    assert not material.overlaps_or_clips(figure)


def test_an_evaluation_without_a_metric_and_no_column_are_refused():
    with pytest.raises(ValueError, match=r"evaluation has no metric: pass what evaluation\.evaluate"):
        evaluation_figure(Evaluation({}, {}, 0))
    with pytest.raises(ValueError, match="num_columns is 0: expected at least 1"):
        evaluation_figure(evaluation(("gradient",), ("sparseness",), step=1), num_columns=0)
