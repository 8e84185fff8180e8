"""What the sheets show, that nothing on them overlaps, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tests.figures import material
from vexplain.figures import class_sheet, explanation_sheet, style, weights_overview
from vexplain.figures.images import overlay, pixels

LONG = "a class whose name is much longer than any of the others in this data set"


def test_a_class_sheet_has_names_weights_shares_and_marks_what_sees_all():
    views = [
        material.view(weight=1.0, layer="dense_1", channel=4, sees_whole_image=True),
        material.view(weight=3.0),
        material.view("dog & <co>", weight=9.0),
    ]
    figure = class_sheet(views, class_name="cat")
    written = material.texts(figure)
    assert written.index("conv_1[1]") < written.index("dense_1[4]")  # the heaviest first
    for text in ("cat", "2 relevant features", "weight 3", "weight 1", "75 %", "25 %"):
        assert text in written
    assert written.count("sees the whole image") == 1
    assert "sees 5 × 7 px" in written
    assert len(material.tiles(figure)) == 2 * (1 + 9)


def test_a_class_sheet_agrees_with_the_layer_table_where_a_window_is_larger_than_the_image():
    written = material.texts(class_sheet([material.view(receptive_field=(4, 6))]))
    assert "sees 4 × 6 px" in written


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_that_do_not_exist_are_light_gray(channels):
    crops = np.zeros((2, 5, 7, channels), np.float32)
    crops[:, :2] = np.nan
    figure = class_sheet([material.view(crops=crops, average=crops[0], shape=(5, 7, channels))])
    drawn = material.pixels_of(figure, material.tiles(figure)[0])
    gray = np.round(np.array(to_rgb(style.MISSING)) * 255)
    height, width = drawn.shape[:2]
    np.testing.assert_array_equal(drawn[height // 5, width // 2], gray)
    np.testing.assert_array_equal(drawn[4 * height // 5, width // 2], 0)


def test_characters_that_no_font_has_are_boxes_and_said_once(caplog):
    """The warning of matplotlib for each of them would be an error of this test."""
    name = "cat \U000f1234\U000f1235"  # for private use
    for _ in range(2):
        figure = class_sheet([material.view(name)])
        material.canvas(figure)
        assert material.texts(figure)[0] == f"cat {2 * style.NO_GLYPH}"
    [record] = caplog.records
    assert f"no installed font has {name[4:]}: pictures show boxes there" in record.getMessage()


def test_one_pixel_with_a_nan_in_one_channel_is_missing():
    image = np.full((2, 2, 3), 0.25)
    image[0, 1, 2] = np.nan
    np.testing.assert_allclose(pixels(image)[0, 1], to_rgb(style.MISSING))
    np.testing.assert_array_equal(pixels(image)[1], 0.25)


def test_an_overlay_without_heat_is_gray_and_more_heat_is_brighter():
    image = np.random.default_rng(0).uniform(0, 1, (4, 5, 3))
    cold = overlay(image, np.zeros((4, 5)))
    np.testing.assert_allclose(cold, cold[..., :1].repeat(3, -1))
    ramp = overlay(np.full((1, 50, 3), 0.2), np.linspace(0, 1, 50)[None])[0]
    assert (np.diff(ramp @ (0.299, 0.587, 0.114)) > -1e-3).all()


def test_an_explanation_sheet_shows_features_scores_and_a_dash_where_there_is_none():
    images, masks, explanation = material.explained()
    rivals = {"gradient": explanation.heatmaps, "Grad-CAM (conv_2)": explanation.heatmaps}
    figure = explanation_sheet(
        images, explanation, material.relevance(), masks=masks, rivals=rivals, labels=np.array([0, 1, 0])
    )
    written = material.texts(figure)
    assert written.count("stage/conv_2[1]") == 3
    assert written.count("conv_1[0]") == 2
    assert written.count("r = 0.12") == 5
    assert written.count("–") == 1
    assert sum("wrong" in text for text in written) == 1
    assert sum("correct" in text for text in written) == 2
    assert any(text.strip() == "gradient" for text in written)
    assert len(figure.axes) == 3 * (2 + 3 + 2) + 1


def test_arrays_of_jax_draw_the_same_as_arrays_of_numpy():
    images, masks, explanation = material.explained()
    options = {"masks": masks, "rivals": {"gradient": masks}, "labels": np.array([0, 1, 0])}
    drawn = material.canvas(explanation_sheet(images, explanation, material.relevance(), **options))
    images, explanation, options = jax.tree.map(jnp.asarray, (images, explanation, options))
    again = material.canvas(explanation_sheet(images, explanation, material.relevance(), **options))
    np.testing.assert_array_equal(again, drawn)


def test_the_mask_is_outlined_on_the_image_and_stands_beside_it():
    images, masks, explanation = material.explained()
    plain = explanation_sheet(images * 0, explanation, material.relevance(), masks=masks * 0)
    outlined = explanation_sheet(images * 0, explanation, material.relevance(), masks=masks)
    changed = [
        not np.array_equal(material.pixels_of(plain, a), material.pixels_of(outlined, b))
        for a, b in zip(plain.axes[:5], outlined.axes[:5], strict=True)
    ]
    assert changed == [True, True, False, False, False]
    mask = material.pixels_of(outlined, outlined.axes[1])
    np.testing.assert_allclose((mask > 127).mean(), (masks[0] > 0.5).mean(), atol=0.05)


def test_a_class_that_was_asked_for_is_named_beside_the_predicted_one():
    images, _, explanation = material.explained()
    explanation = explanation._replace(targets=np.array([2, 1, 2]))
    written = material.texts(explanation_sheet(images, explanation, material.relevance()))
    assert [text.replace("\n", " ") for text in written if "explained" in text] == [
        "explained: cost $5 or $6"
    ]


def test_the_overview_shows_every_class_layer_and_channel():
    figure = weights_overview(material.relevance())
    written = material.texts(figure)
    for text in ("conv_1", "stage/conv_2", "dense_1", *material.CLASSES, "2 features", "3 features", "none"):
        assert text in written
    bars = figure.axes[0].patches
    assert len(bars) == 5
    assert sum(bar.get_facecolor()[:3] == to_rgb(style.PAPER) for bar in bars) == 1  # the negative weight


@pytest.mark.parametrize("fonts", [style.FONTS, ()])  # without any of them it is DejaVu Sans, the widest
@pytest.mark.parametrize("name", ["cat", LONG])
def test_nothing_overlaps_or_is_clipped(name, fonts, monkeypatch):
    monkeypatch.setattr(style, "FONTS", fonts)
    images, masks, explanation = material.explained()
    relevance = material.relevance()
    names = (name, "dog", name + " too")
    layout = (("conv_1", 2), ("a/very/long/path/to/conv_2", 3), ("dense_1", 2))
    renamed = dataclasses.replace(relevance, layout=layout, class_names=names)
    rivals = {"an attribution method of a long name (a/very/long/path/to/conv_2)": explanation.heatmaps}
    sheet = explanation_sheet(
        images, explanation, renamed, masks=masks, rivals=rivals, labels=np.array([2, 1, 0])
    )
    assert not material.overlaps_or_clips(sheet)
    views = [material.view(name, layer="a/very/long/path/to/a/block/of/conv_2"), material.view(name)]
    assert not material.overlaps_or_clips(class_sheet(views))
    assert not material.overlaps_or_clips(weights_overview(renamed))


def test_the_settings_of_the_caller_stay_as_they_are():
    before = dict(matplotlib.rcParams)
    class_sheet([material.view()])
    weights_overview(material.relevance())
    assert dict(matplotlib.rcParams) == before


def test_the_style_of_the_caller_changes_nothing():
    plain = material.canvas(weights_overview(material.relevance()))
    strange = {"axes.facecolor": "black", "font.size": 20, "figure.constrained_layout.use": True}
    with matplotlib.rc_context(strange):
        drawn = material.canvas(weights_overview(material.relevance()))
    np.testing.assert_array_equal(drawn, plain)


@pytest.mark.parametrize(
    ("views", "options", "message"),
    [
        ([], {}, "views is empty: pass what interpret"),
        ([material.view("a"), material.view("b")], {}, r"2 classes, \['a', 'b'\]: choose one by class_name"),
        ([material.view("a")], {"class_name": "c"}, r"class_name is 'c': views has \['a'\]"),
        ([material.view(shape=(5, 5, 2))], {}, r"shape \(5, 5, 2\): expected \(height, width, 1 or 3\)"),
    ],
)
def test_bad_views_are_named(views, options, message):
    with pytest.raises(ValueError, match=message):
        class_sheet(views, **options)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, m: {"masks": m[:2]}, r"masks has shape \(2, 6, 8\), but there are 3 images"),
        (lambda x, m: {"masks": m * 255}, "masks goes from 0 to 255: expected"),
        (lambda x, m: {"images": x[:2]}, "explanation.heatmaps has shape .* but there are 2 images"),
        (lambda x, m: {"images": x[..., :2]}, "with 1 channel"),
        (lambda x, m: {"images": x * 255}, "divide 8-bit images by 255"),
        (lambda x, m: {"rivals": {"CAM": m - 0.5}}, r"rivals\['CAM'\] goes from -0.5.*positive_heatmaps"),
        (lambda x, m: {"rivals": {"gradient": m * np.nan}}, r"rivals\['gradient'\] goes from nan"),
        (lambda x, m: {"labels": np.array([0, 1])}, r"labels has shape \(2,\), but there are 3 images"),
        (lambda x, m: {"labels": np.array([0, 1, 3])}, "labels go from 0 to 3: expected 0 to 2"),
        (lambda x, m: {"class_names": ["a"]}, "class_names has 1 names, but the relevance has 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_named(spoil, message):
    images, masks, explanation = material.explained()
    arguments = {"images": images} | spoil(images, masks)
    with pytest.raises(ValueError, match=message):
        explanation_sheet(arguments.pop("images"), explanation, material.relevance(), **arguments)


def test_no_relevant_feature_at_all_is_refused():
    relevance = material.relevance()
    relevance.weights[:] = 0
    with pytest.raises(ValueError, match=r"no relevant feature in any class.*dead network"):
        weights_overview(relevance)
