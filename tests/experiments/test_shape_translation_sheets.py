"""Sheets of translations: what they show, and what they refuse."""

import colorsys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from experiments.shape_translation_sheets import translation_sheet
from tests.figures import material
from vexplain.figures import style

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


def test_a_translation_sheet_has_a_row_each_and_the_examples_below_each_other():
    images = shirts(4)
    figure = translation_sheet(images, {"translation": images / 2}, truths=1 - images)
    assert material.texts(figure) == ["input", "translation", "truth"]
    tiles = material.tiles(figure)
    assert len(tiles) == 12
    for row, shown in enumerate((images, images / 2, 1 - images)):
        expected = np.round(255 * shown[2, 6, 7])
        np.testing.assert_allclose(center(figure, tiles[4 * row + 2]), expected, atol=1)
    lefts = np.array([tile.get_window_extent().x0 for tile in tiles]).reshape(3, 4)
    assert (lefts == lefts[0]).all()


def test_enlarged_pixels_stay_sharp():
    images = np.zeros((1, 2, 2, 3), np.float32)
    images[0, 0, 0] = images[0, 1, 1] = 1
    figure = translation_sheet(images, {"copy": images})
    drawn = material.pixels_of(figure, material.tiles(figure)[0])[4:-4, 4:-4]
    assert np.isin(drawn, (0, 255)).mean() > 0.97


def test_only_the_first_examples_are_shown_and_the_sheet_says_so():
    images = shirts(5)
    sheet = translation_sheet(images, {"VAE": images}, max_columns=2)
    assert len(material.tiles(sheet)) == 4
    assert "2 of 5 examples" in material.texts(sheet)
    whole = translation_sheet(images, {"VAE": images})
    assert not any("examples" in text for text in material.texts(whole))


def test_models_stand_in_order_and_one_of_them_in_color():
    images = shirts()
    outputs = {"mean image": images, "VAE": images, "+ similarity": images}
    figure = translation_sheet(images, outputs, truths=images, bold="+ similarity")
    assert material.texts(figure) == ["input", *outputs, "truth"]
    assert len(material.tiles(figure)) == 5 * 3
    colored = [text.get_text() for text in figure.texts if text.get_color() == style.ACCENT]
    assert colored == ["+ similarity"]
    assert all(text.get_color() != style.ACCENT for text in translation_sheet(images, outputs).texts)


def test_models_of_other_sizes_keep_their_shape():
    images = shirts(2)
    figure = translation_sheet(images, {"tall": images[:, :, 2:8], "gray": images[..., :1]})
    figure.canvas.draw()
    sizes = [tile.get_window_extent() for tile in material.tiles(figure)[::2]]
    for box, ratio in zip(sizes, (12 / 14, 12 / 6, 12 / 14), strict=True):
        assert box.height / box.width == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize(
    ("num", "fonts"), [(3, style.FONTS), (1, ())]
)  # without fonts DejaVu Sans, the widest
def test_nothing_overlaps_or_is_clipped(num, fonts, monkeypatch):
    monkeypatch.setattr(style, "FONTS", fonts)
    images = shirts(num)
    figures = [
        translation_sheet(images, {LONG: images}, truths=images, bold=LONG, max_columns=2),
        translation_sheet(
            images, {LONG: images[:, :3], "b": images, LONG + "!": images}, truths=images, bold="b"
        ),
    ]
    for figure in figures:
        assert not material.overlaps_or_clips(figure)


def test_arrays_of_jax_draw_the_same_and_the_style_of_the_caller_changes_nothing():
    images, before = shirts(), dict(matplotlib.rcParams)
    drawn = material.canvas(translation_sheet(images, {"a": images}, truths=images))
    jax_images = jnp.asarray(images)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20}):
        again = material.canvas(translation_sheet(jax_images, {"a": jax_images}, truths=jax_images))
    np.testing.assert_array_equal(again, drawn)
    assert dict(matplotlib.rcParams) == before


IMAGES = shirts()
SAME = {"a": IMAGES}


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: translation_sheet(IMAGES, SAME, truths=IMAGES[:1]), "truths has 1 images"),
        (lambda: translation_sheet(IMAGES[0], SAME), r"images has shape \(12, 14, 3\).*pass x\[None\]"),
        (lambda: translation_sheet(IMAGES[:0], {"a": IMAGES[:0]}), "images is empty"),
        (lambda: translation_sheet(IMAGES, {"a": IMAGES * 2 - 1}), r"outputs.* goes from -.*\(x \+ 1\) / 2"),
        (lambda: translation_sheet(IMAGES * 255, SAME), "images goes from .*divide 8-bit images by 255"),
        (lambda: translation_sheet(IMAGES.astype(np.uint8), SAME), "images has dtype uint8"),
        (lambda: translation_sheet(IMAGES, {"a": IMAGES * np.nan}), r"outputs\['a'\] holds NaN"),
        (lambda: translation_sheet(IMAGES, SAME, max_columns=0), "max_columns is 0: expected 1 or more"),
        (lambda: translation_sheet(IMAGES, {}), "outputs is empty: give at least one model"),
        (lambda: translation_sheet(IMAGES, {"a": IMAGES[:2]}), r"\['a'\] has 2 images, but there are 3"),
        (lambda: translation_sheet(IMAGES, SAME, bold="b"), r"bold is 'b': outputs has \['a'\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named_with_the_way_out(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
