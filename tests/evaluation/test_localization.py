"""Closed forms, and scikit-learn's Jaccard score at every threshold."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import jaccard_score

from vexplain.evaluation import best_iou, iou_area, iou_curve


def test_curve_against_scikit_learn(key):
    heatmaps = jax.random.uniform(key, (3, 7, 5))
    masks = jax.random.uniform(jax.random.key(1), (3, 7, 5))
    curve = iou_curve(heatmaps, masks)
    assert curve.shape == (3, 101)
    for n, t in enumerate(np.linspace(0, 1, 101, dtype=np.float32)):
        for image in range(3):
            truth, region = np.ravel(masks[image] >= 0.5), np.ravel(heatmaps[image] >= t)
            expected = jaccard_score(truth, region, zero_division=0)
            np.testing.assert_allclose(curve[image, n], expected, rtol=1e-6)


def test_the_mask_itself_reaches_the_ceiling():
    masks = jnp.zeros((1, 4, 4)).at[0, 1, 2:].set(1.0)
    curve = iou_curve(masks, masks)
    assert best_iou(curve) == 1
    np.testing.assert_allclose(iou_area(curve), (0.5 * (2 / 16 + 1) + 99) / 100, rtol=1e-6)


def test_a_constant_map_covers_the_image_at_threshold_zero_only():
    masks = jnp.zeros((1, 4, 4)).at[0, 0, 0].set(1.0)
    curve = iou_curve(jnp.zeros((1, 4, 4)), masks)
    assert curve[0, 0] == 1 / 16
    assert not curve[0, 1:].any()


def test_an_empty_mask_scores_zero():
    assert not iou_curve(jnp.linspace(0, 1, 12).reshape(1, 3, 4), jnp.zeros((1, 3, 4))).any()
