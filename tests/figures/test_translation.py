"""Sheets of translations, loss curves and hue histograms: what they show, and what they refuse."""

import colorsys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tests.figures import material
from vexplain.figures import (
    hue_histogram,
    interpolation_sheet,
    ladder_sheet,
    loss_curves,
    style,
    translation_sheet,
)
from vexplain.figures._loss_curves import number
from vexplain.figures.histograms import hue_heaps

LONG = "a model whose name is much longer than those of the others: nearest/neighbor/of/latents"


def shirts(num=3, size=12):
    """Shirts of random hues, (num, size, size + 2, 3)."""
    y, x = np.mgrid[:size, : size + 2] / size - 0.5
    shirt = ((abs(x) < 0.2) & (abs(y) < 0.4)) | ((abs(x) < 0.45) & (y > -0.4) & (y < -0.1))
    hues = np.random.default_rng(0).uniform(0, 1, num)
    colors = np.array([colorsys.hsv_to_rgb(hue, 0.75, 0.8) for hue in hues])
    return np.where(shirt[..., None], colors[:, None, None], 0.95).astype(np.float32)


def center(figure, axes):
    drawn = material.pixels_of(figure, axes)
    return drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]


def colors_of(bars):
    return [bar.get_facecolor()[:3] for bar in bars]


def heaps(mean, spread, num):
    return (np.random.default_rng(2).normal(mean, spread, num) + 180) % 360 - 180


def test_a_translation_sheet_has_a_row_each_and_the_examples_below_each_other():
    images = shirts(4)
    figure = translation_sheet(images, images / 2, truths=1 - images, title="shirts → pants, 4 hues")
    assert material.texts(figure) == ["shirts → pants, 4 hues", "input", "translation", "truth"]
    assert len(figure.axes) == 12
    for row, shown in enumerate((images, images / 2, 1 - images)):
        expected = np.round(255 * shown[2, 6, 7])
        np.testing.assert_allclose(center(figure, figure.axes[4 * row + 2]), expected, atol=1)
    lefts = np.array([axes.get_position().x0 for axes in figure.axes]).reshape(3, 4)
    assert (lefts == lefts[0]).all()


def test_enlarged_pixels_stay_sharp():
    images = np.zeros((1, 2, 2, 3), np.float32)
    images[0, 0, 0] = images[0, 1, 1] = 1
    figure = translation_sheet(images, images)
    drawn = material.pixels_of(figure, figure.axes[0])[4:-4, 4:-4]
    assert np.isin(drawn, (0, 255)).mean() > 0.97


def test_only_the_first_examples_are_shown_and_the_sheet_says_so():
    images = shirts(5)
    ladder = ladder_sheet(images, {"VAE": images}, max_columns=2)
    for sheet in (ladder, translation_sheet(images, images, max_columns=2)):
        assert len(sheet.axes) == 4
        assert "2 of 5 examples" in material.texts(sheet)
    assert not any("examples" in text for text in material.texts(translation_sheet(images, images)))


def test_two_names_are_enough_without_truths():
    images = shirts()
    assert material.texts(translation_sheet(images, images, names=("shirt", "pants"))) == ["shirt", "pants"]


def test_a_ladder_has_models_in_order_and_one_of_them_in_color():
    images = shirts()
    outputs = {"mean image": images, "VAE": images, "+ similarity": images}
    figure = ladder_sheet(images, outputs, truths=images, bold="+ similarity")
    assert material.texts(figure) == ["input", *outputs, "truth"]
    assert len(figure.axes) == 5 * 3
    colored = [text.get_text() for text in figure.texts if text.get_color() == style.OURS]
    assert colored == ["+ similarity"]
    assert all(text.get_color() != style.OURS for text in ladder_sheet(images, outputs).texts)


def test_models_of_other_sizes_keep_their_shape():
    images = shirts(2)
    figure = ladder_sheet(images, {"tall": images[:, :, 2:8], "gray": images[..., :1]})
    figure.canvas.draw()
    sizes = [axes.get_window_extent() for axes in figure.axes[::2]]
    for box, ratio in zip(sizes, (12 / 14, 12 / 6, 12 / 14), strict=True):
        assert box.height / box.width == pytest.approx(ratio, rel=0.02)


def test_the_ends_of_an_interpolation_are_framed_and_named():
    way = np.linspace(0, 1, 5, dtype=np.float32)[None, :, None, None, None]
    figure = interpolation_sheet(way * np.ones((2, 5, 6, 7, 3), np.float32))
    assert material.texts(figure) == ["start", "end"]
    frames = [axes.spines["left"].get_edgecolor()[:3] for axes in figure.axes]
    assert [frame == to_rgb(style.INK) for frame in frames] == 2 * [True, False, False, False, True]
    shades = [center(figure, axes)[0] for axes in figure.axes[:5]]
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
    images = shirts(num)
    figures = [
        translation_sheet(images, images, truths=images, title=LONG, names=(LONG, "b", LONG), max_columns=2),
        ladder_sheet(images, {LONG: images[:, :3], "b": images, LONG + "!": images}, truths=images, bold="b"),
        interpolation_sheet(np.stack([images] * (num + 1), 1)),
        loss_curves({LONG: [-1234.5, -123456.0], "b": [1e-9, 2.0], LONG + "!": [1, 1]}, steps=[0, 123_456]),
        hue_histogram({LONG: heaps(179, 9, 300), "b": np.repeat([-90.0, -60, 60, 180], 9)}),
    ]
    for figure in figures:
        assert not material.overlaps_or_clips(figure)


def test_arrays_of_jax_draw_the_same_and_the_style_of_the_caller_changes_nothing():
    images, before = shirts(), dict(matplotlib.rcParams)
    drawn = material.canvas(translation_sheet(images, images, truths=images))
    jax_images = jnp.asarray(images)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20}):
        again = material.canvas(translation_sheet(jax_images, jax_images, truths=jax_images))
    np.testing.assert_array_equal(again, drawn)
    assert dict(matplotlib.rcParams) == before


IMAGES = shirts()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: translation_sheet(IMAGES, IMAGES[:2]), "translations has 2 images, but there are 3 inputs"),
        (lambda: translation_sheet(IMAGES, IMAGES, truths=IMAGES[:1]), "truths has 1 images"),
        (lambda: translation_sheet(IMAGES[0], IMAGES), r"images has shape \(12, 14, 3\).*pass x\[None\]"),
        (lambda: translation_sheet(IMAGES[:0], IMAGES[:0]), "images is empty"),
        (lambda: translation_sheet(IMAGES, IMAGES * 2 - 1), r"translations goes from -.*\(x \+ 1\) / 2"),
        (lambda: translation_sheet(IMAGES * 255, IMAGES), "images goes from .*divide 8-bit images by 255"),
        (lambda: translation_sheet(IMAGES.astype(np.uint8), IMAGES), "images has dtype uint8"),
        (lambda: translation_sheet(IMAGES, IMAGES * np.nan), "translations holds NaN"),
        (lambda: translation_sheet(IMAGES, IMAGES, names=("a",)), "names has 1 names.*expected 2"),
        (lambda: translation_sheet(IMAGES, IMAGES, max_columns=0), "max_columns is 0: expected 1 or more"),
        (lambda: ladder_sheet(IMAGES, {}), "outputs is empty: give at least one model"),
        (lambda: ladder_sheet(IMAGES, {"a": IMAGES[:2]}), r"outputs\['a'\] has 2 images, but there are 3"),
        (lambda: ladder_sheet(IMAGES, {"a": IMAGES}, bold="b"), r"bold is 'b': outputs has \['a'\]"),
        (lambda: interpolation_sheet(IMAGES), r"images has shape .*pass images\[None\]"),
        (lambda: interpolation_sheet(IMAGES[:, None]), r"with 2 steps or more"),
        (lambda: interpolation_sheet(IMAGES[None] + 1), "images goes from .*expected"),
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
