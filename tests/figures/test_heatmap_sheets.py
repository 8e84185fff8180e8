"""Maps of any methods over images: what is drawn where, and what does not fit is named."""

import numpy as np
import pytest

from tests.figures import material
from vexplain.figures import heatmap_sheet
from vexplain.figures.images import overlay

LONG = "an attribution method of a long name (a/very/long/path/to/conv_2)"


def case():
    rng = np.random.default_rng(3)
    return rng.uniform(size=(2, 6, 8, 3)).astype(np.float32), rng.uniform(size=(2, 6, 8)).astype(np.float32)


def test_columns_are_methods_and_a_map_is_scaled_and_laid_over_its_image():
    images, heatmaps = case()
    figure = heatmap_sheet(images, {"grad_cam": 5 * heatmaps - 2, "mine": heatmaps}, names=("cat", "dog"))
    written = [text.strip() for text in material.texts(figure)]
    assert written == ["image", "Grad-CAM", "mine", "cat", "dog", "heat 0", "1"]
    first, second = (material.pixels_of(figure, figure.axes[n]) for n in (1, 2))
    np.testing.assert_array_equal(first, second)  # neither scale nor offset counts
    scaled = (heatmaps - heatmaps.min((1, 2), keepdims=True)) / np.ptp(heatmaps, (1, 2), keepdims=True)
    for row in (0, 1):
        drawn = material.pixels_of(figure, figure.axes[3 * row + 1])
        height, width = drawn.shape[:2]
        for y, x in ((0, 0), (2, 5), (5, 7)):
            found = drawn[int((y + 0.5) * height / 6), int((x + 0.5) * width / 8)]
            expected = 255 * overlay(images[row], scaled[row])[y, x]
            np.testing.assert_allclose(found, expected, atol=2)


def test_of_signed_attributions_the_positive_part_is_shown():
    images, heatmaps = case()
    signed = np.where(heatmaps > 0.5, heatmaps, -9)[..., None]
    figure = heatmap_sheet(images, {"signed": signed, "part": np.where(heatmaps > 0.5, heatmaps, 0)})
    pictures = [material.pixels_of(figure, axes) for axes in figure.axes[1:3]]
    np.testing.assert_array_equal(*pictures)


def test_a_true_region_is_outlined_on_the_image_alone():
    images, heatmaps = case()
    masks = np.zeros((2, 6, 8), np.float32)
    masks[:, 1:4, 2:5] = 1
    plain, outlined = (heatmap_sheet(images, {"mine": heatmaps}, masks=m) for m in (None, masks))
    changed = [
        not np.array_equal(material.pixels_of(plain, a), material.pixels_of(outlined, b))
        for a, b in zip(plain.axes[:4], outlined.axes[:4], strict=True)
    ]
    assert changed == [True, False, True, False]


@pytest.mark.parametrize("names", [None, ("cat", LONG)])
def test_nothing_overlaps_or_is_clipped(names):
    images, heatmaps = case()
    assert not material.overlaps_or_clips(heatmap_sheet(images, {LONG: heatmaps}, names=names))
    assert not material.overlaps_or_clips(heatmap_sheet(images, dict.fromkeys("abc", heatmaps), names=names))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": {}}, "maps is empty: give at least one"),
        ({"maps": {"mine": np.zeros((3, 6, 8))}}, r"maps\['mine'\] has shape \(3, 6, 8\), but there are 2"),
        ({"maps": {"mine": np.zeros((2, 6))}}, r"expected heatmaps \(2, 6, 8\) or attributions"),
        ({"maps": {"mine": np.full((2, 6, 8), np.nan)}}, r"NaN or infinity in images \[0, 1\]"),
        ({"names": ["cat"]}, "names has 1 names, but there are 2 images: one each"),
        ({"masks": np.zeros((2, 6, 9))}, r"masks has shape \(2, 6, 9\)"),
        ({"images": np.full((2, 6, 8, 3), 2.0)}, "images"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    images, heatmaps = case()
    arguments = {"images": images, "maps": {"mine": heatmaps}, **options}
    with pytest.raises(ValueError, match=message):
        heatmap_sheet(**arguments)
