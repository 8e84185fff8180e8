"""Values of Quantus 0.6.0, scikit-learn's ROC curve, and random order of ties by brute force."""

import jax
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from tests.evaluation.heatmap_case import ATTRIBUTIONS, MASKS
from vexplain import evaluation
from vexplain.evaluation import top_k_precision

iou_at_mask_area, iou_curve, mask_auc, relevance_rank = map(
    jax.jit,
    (evaluation.iou_at_mask_area, evaluation.iou_curve, evaluation.mask_auc, evaluation.relevance_rank),
)
pointing_game = jax.jit(evaluation.pointing_game, static_argnames="tolerance")


def tied_maps_and_masks():
    """Maps with four levels only, so that a threshold nearly always falls on equal pixels."""
    rng = np.random.default_rng(3)
    maps = (rng.integers(-1, 3, (6, 5, 7)) / 2.0).astype(np.float32)
    return maps, rng.random((6, 5, 7)).astype(np.float32) ** 2


def box():
    """The mask of a box of 12 pixels among 35."""
    mask = np.zeros((1, 5, 7), np.float32)
    mask[:, 1:4, 2:6] = 1
    return mask


def test_against_quantus():
    np.testing.assert_allclose(relevance_rank(ATTRIBUTIONS, MASKS), 0.75)
    np.testing.assert_allclose(top_k_precision(ATTRIBUTIONS, MASKS, k=4), 0.75)
    np.testing.assert_array_equal(pointing_game(ATTRIBUTIONS, MASKS), 1)
    np.testing.assert_allclose(mask_auc(ATTRIBUTIONS, MASKS), 0.979167, atol=1e-6)


def test_absolute_values_keep_the_order_of_that_case():
    """Their other convention takes |a| first: -0.4 is then the sixth pixel, behind those of the mask."""
    signless = np.abs(ATTRIBUTIONS)
    np.testing.assert_allclose(relevance_rank(signless, MASKS), 0.75)
    np.testing.assert_allclose(mask_auc(signless, MASKS), 0.979167, atol=1e-6)


def test_auc_against_scikit_learn():
    heatmaps, masks = tied_maps_and_masks()
    expected = [roc_auc_score(np.ravel(m >= 0.5), np.ravel(h)) for h, m in zip(heatmaps, masks, strict=True)]
    np.testing.assert_allclose(mask_auc(heatmaps, masks), expected, rtol=1e-5)


def test_auc_of_a_map_as_large_as_a_photograph():
    heatmaps = np.random.default_rng(0).normal(size=(1, 224, 224)).round(1).astype(np.float32)
    masks = np.zeros((1, 224, 224), np.float32)
    masks[:, 50:170, 30:200] = 1
    expected = roc_auc_score(np.ravel(masks), np.ravel(heatmaps))
    np.testing.assert_allclose(mask_auc(heatmaps, masks), expected, atol=2e-6)


def test_no_pixel_inside_or_none_outside_is_chance():
    heatmaps = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    masks = np.stack([np.zeros((5, 7), np.float32), np.ones((5, 7), np.float32)])
    np.testing.assert_array_equal(mask_auc(heatmaps, masks), 0.5)
    np.testing.assert_array_equal(iou_at_mask_area(heatmaps, masks), [0, 1])
    np.testing.assert_array_equal(relevance_rank(heatmaps, masks), [0, 1])
    np.testing.assert_array_equal(pointing_game(heatmaps, masks, tolerance=2.0), [0, 1])


def test_rank_is_the_mean_over_random_orders_of_equal_pixels():
    heatmaps, masks = tied_maps_and_masks()
    rng = np.random.default_rng(0)
    for heatmap, mask, found in zip(heatmaps, masks, relevance_rank(heatmaps, masks), strict=True):
        values, truth = np.ravel(heatmap), np.ravel(mask >= 0.5)
        orders = [np.lexsort((rng.random(values.size), -values))[: truth.sum()] for _ in range(2000)]
        np.testing.assert_allclose(found, np.mean([truth[o].mean() for o in orders]), atol=0.02)


def test_iou_at_the_area_lies_on_the_curve_where_nothing_is_tied():
    levels = np.linspace(0, 1, 101, dtype=np.float32)[:35]
    heatmaps = np.random.default_rng(0).permutation(levels).reshape(1, 5, 7)
    masks = box()
    curve = iou_curve(heatmaps, masks)
    threshold = 35 - int(masks.sum())  # in hundredths: above it are as many pixels as in the mask
    np.testing.assert_allclose(iou_at_mask_area(heatmaps, masks), curve[:, threshold], rtol=1e-6)


def test_the_mask_reaches_the_ceiling_and_a_constant_map_the_level_of_chance():
    masks = box()
    area = 12
    for score in (iou_at_mask_area, relevance_rank, mask_auc, pointing_game):
        np.testing.assert_allclose(score(masks, masks), 1, rtol=1e-6)
    flat = np.full((1, 5, 7), 0.3, np.float32)
    inside = area**2 / 35
    np.testing.assert_allclose(iou_at_mask_area(flat, masks), inside / (2 * area - inside), rtol=1e-6)
    np.testing.assert_allclose(relevance_rank(flat, masks), area / 35, rtol=1e-6)
    np.testing.assert_allclose(pointing_game(flat, masks), area / 35, rtol=1e-6)
    np.testing.assert_allclose(mask_auc(flat, masks), 0.5, rtol=1e-6)


@pytest.mark.parametrize("tolerance", [1.0, 2.5])
def test_tolerance_against_scipys_distances(tolerance):
    masks = np.zeros((1, 9, 11), np.float32)
    masks[:, 2, 3] = masks[:, 6:8, 7] = 1
    near = ndimage.distance_transform_edt(masks[0] < 0.5) <= tolerance
    pixels = np.eye(99, dtype=np.float32).reshape(99, 9, 11)  # one pixel at a time is the highest
    hits = pointing_game(pixels, np.broadcast_to(masks, pixels.shape), tolerance=tolerance)
    np.testing.assert_array_equal(np.reshape(hits, (9, 11)), near)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="k is 17: expected a number of pixels from 1 to 16"):
        top_k_precision(ATTRIBUTIONS, MASKS, k=17)
    with pytest.raises(ValueError, match="tolerance is -1"):
        evaluation.pointing_game(ATTRIBUTIONS, MASKS, tolerance=-1.0)
