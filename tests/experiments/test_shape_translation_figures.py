"""Figures of the experiment with shape translation: what they show, and what they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from experiments.shape_translation_figures import interpolation_sheet, loss_curves, number
from experiments.shape_translation_hues import hue_heaps, hue_histogram
from tests.figures import material
from vexplain.figures import style

LONG = "a model whose name is much longer than those of the others: nearest/neighbor/of/latents"
IMAGES = np.random.default_rng(0).uniform(0, 1, (3, 12, 14, 3)).astype(np.float32)


def center(figure, axes):
    drawn = material.pixels_of(figure, axes)
    return drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]


def colors_of(bars):
    return [bar.get_facecolor()[:3] for bar in bars]


def heaps(mean, spread, num):
    return (np.random.default_rng(2).normal(mean, spread, num) + 180) % 360 - 180


def test_the_ends_of_an_interpolation_are_framed_and_named():
    way = np.linspace(0, 1, 5, dtype=np.float32)[None, :, None, None, None]
    figure = interpolation_sheet(way * np.ones((2, 5, 6, 7, 3), np.float32))
    assert material.texts(figure) == ["start", "end"]
    frames = [a.get_edgecolor()[:3] for a in figure.artists if isinstance(a, Rectangle)]
    assert [frame == to_rgb(style.INK) for frame in frames] == 2 * [True, False, False, False, True]
    shades = [center(figure, tile)[0] for tile in material.tiles(figure)[:5]]
    np.testing.assert_allclose(shades, [0, 64, 128, 191, 255], atol=1)


def test_losses_have_the_scale_their_values_need_and_their_last_value():
    history = {"cycle": [9.0, 0.5, 0.05], "KL": [3, 9.0, 12.5], "similarity": [-1.0, 5.0, 100.0]}
    figure = loss_curves(history, steps=[0, 500, 20_000])
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]
    written = material.texts(figure)
    for text in ("cycle", "0.05", "KL", "12.5", "similarity", "100"):
        assert text in written
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), history["KL"])
    assert {axes.get_xlim() for axes in figure.axes} == {(0, 20_000)}


@pytest.mark.parametrize("values", [[1.0], [0.0], [np.nan], [np.inf], [-3e9], [1e-12]])
def test_a_single_step_has_a_panel_whatever_its_value(values):
    figure = loss_curves({"loss": values}, steps=[7])
    assert not material.overlaps_or_clips(figure)
    value = next(text for text in figure.texts if text.get_text() == number(values[0]))
    assert (value.get_color() == style.WRONG) == (not np.isfinite(values[0]))


@pytest.mark.parametrize("high", [1.1e1, 3e2, 1e5, 1e12])
def test_a_logarithmic_panel_has_two_to_five_ticks(high):
    figure = loss_curves({"loss": [1.7, 1.7 * high]}, steps=[0, 1])
    assert 2 <= len(figure.axes[0].get_yticks()) <= 5


def test_ticks_of_a_narrow_range_can_be_told_apart():
    figure = loss_curves({"a": [14.811, 14.823], "b": [-1200.01, -1200.05], "c": [0.0, 9e8]}, steps=[0, 1])
    figure.canvas.draw()
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert len(set(labels)) == len(labels) > 2
    assert not material.overlaps_or_clips(figure)


def test_steps_are_labeled_on_the_lowest_panel_of_each_column():
    figure = loss_curves({f"loss {n}": [1.0, 2.0] for n in range(4)}, steps=[0, 10])
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "step", "step", "step"]


def test_heaps_of_hue_errors_away_from_0_are_red_and_carry_their_angle():
    figure = hue_histogram({"good": heaps(0, 8, 200), "turned": heaps(120, 4, 200)})
    good, turned = figure.axes
    assert len(good.patches) == 37
    assert set(colors_of(good.patches)) == {to_rgb(style.RANDOM)}
    red = [bar for bar in turned.patches if bar.get_facecolor()[:3] == to_rgb(style.WRONG)]
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in red] == [110, 120, 130]
    assert [text.get_text() for text in good.texts] == []
    assert [text.get_text()[:5] for text in turned.texts] == ["+120°"]
    assert good.get_xlim() == turned.get_xlim() == (-180, 180)
    assert good.get_ylim() == turned.get_ylim()
    drawn = material.pixels_of(figure, turned)
    assert (drawn == np.round(255 * np.array(to_rgb(style.WRONG)))).all(-1).mean() > 0.01


def test_the_median_is_that_of_the_absolute_errors():
    written = material.texts(hue_histogram({"a": np.array([-40.0, 10.0, 20.0]), "b": jnp.full(3, -7.0)}))
    assert [text for text in written if text.endswith(".0°")] == ["20.0°", "7.0°"]


def test_the_bin_at_180_degrees_is_one_and_stands_at_both_ends():
    figure = hue_histogram({"a": np.array([-180.0, 180.0, 179.0, -176.0, 175.0])})
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[0] == heights[-1] == 1
    assert sum(heights[1:-1]) == 0
    assert [text.get_text() for text in figure.axes[0].texts] == ["180°, 100 %"]


@pytest.mark.parametrize(
    ("errors", "angles"),
    [
        (heaps(5, 12, 500), []),
        (heaps(177, 14, 5000), [177]),
        (np.full(50, 20.0), []),
        (np.full(50, 35.0), [35]),
        (np.full(4, 90.0), []),  # too few
        (np.linspace(-180, 180, 360), []),  # chance
        (np.concatenate([np.full(30, -150.0), np.full(20, 180.0), np.full(25, 150.0)]), [-150, 150, 180]),
        (np.array([64.0, 66.0] * 20), [65]),  # on both sides of an edge: one heap
    ],
)
def test_heaps_are_found_where_they_are(errors, angles):
    assert [
        abs(round(h.angle)) if abs(h.angle) > 179 else round(h.angle) for h in hue_heaps(errors)
    ] == angles


@pytest.mark.parametrize(
    ("num", "fonts"), [(3, style.FONTS), (1, ())]
)  # without fonts DejaVu Sans, the widest
def test_nothing_overlaps_or_is_clipped(num, fonts, monkeypatch):
    monkeypatch.setattr(style, "FONTS", fonts)
    figures = [
        interpolation_sheet(np.stack([IMAGES[:num]] * (num + 1), 1)),
        loss_curves({LONG: [-1234.5, -123456.0], "b": [1e-9, 2.0], LONG + "!": [1, 1]}, steps=[0, 123_456]),
        hue_histogram({LONG: heaps(179, 9, 300), "b": np.repeat([-90.0, -60, 60, 180], 9)}),
    ]
    for figure in figures:
        assert not material.overlaps_or_clips(figure)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: interpolation_sheet(IMAGES), r"images has shape .*pass images\[None\]"),
        (lambda: interpolation_sheet(IMAGES[:, None]), r"with 2 steps or more"),
        (lambda: interpolation_sheet(IMAGES[None] + 1), "images go from .*expected"),
        (lambda: loss_curves({}, steps=[1]), "history is empty: give at least one loss"),
        (lambda: loss_curves({"a": [1.0]}, steps=[]), r"steps has shape \(0,\)"),
        (lambda: loss_curves({"a": [1.0]}, steps=[1, 2]), r"history\['a'\] has shape \(1,\).* 2 steps"),
        (lambda: loss_curves({"a": [1.0, 2.0]}, steps=[2, 1]), "steps do not increase: sort them"),
        (lambda: hue_histogram({}), "errors is empty: give at least one model"),
        (lambda: hue_histogram({"a": np.zeros(0)}), r"errors\['a'\] has shape \(0,\): expected \(n,\)"),
        (lambda: hue_histogram({"a": np.array([350.0])}), r"errors\['a'\] goes from 350.*% 360 - 180"),
        (lambda: hue_histogram({"a": np.array([np.nan])}), r"errors\['a'\] holds NaN.*leave out"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named_with_the_way_out(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
