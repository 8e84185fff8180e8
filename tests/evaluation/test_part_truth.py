"""Effects of parts on a network whose use of the pixels is known, as they travel with the batches."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation import own
from vexplain.datasets import ArraySource, in_memory
from vexplain.evaluation import ExplainedNetwork, heatmap_scores, summarize, with_part_effects
from vexplain.streaming import fold_epoch

NUM_IMAGES, NUM_PARTS, HEIGHT, WIDTH = 5, 3, 4, 6


class Changed(NamedTuple):
    images: np.ndarray
    masks: np.ndarray


def apply(weights, images):
    """Class 0 is the red of the upper row, class 1 the blue of all."""
    return jnp.stack([images[:, 0, :, 0].mean(1), images[..., 2].mean((1, 2))], axis=1) * weights


def test_every_image_has_its_masks_and_effects():
    rng = np.random.default_rng(0)
    images = rng.random((NUM_IMAGES, HEIGHT, WIDTH, 3)).astype(np.float32)
    parts = rng.integers(0, NUM_PARTS + 1, (NUM_IMAGES, HEIGHT, WIDTH))  # the last is no part
    masks = (parts[:, None] == np.arange(NUM_PARTS)[:, None, None]).astype(np.float32)
    colors = rng.random((NUM_IMAGES, NUM_PARTS, 1, 1, 3)).astype(np.float32)
    changed = np.where(masks[..., None] > 0, colors, images[:, None])
    asked = []

    def interventions(indices):
        asked.extend(indices)
        return Changed(changed[indices], masks[indices])

    source = ArraySource(images, np.zeros(NUM_IMAGES, int), masks[:, 0], class_names=("a", "b"))
    weights = jnp.array([1.0, 1.1])
    found = with_part_effects(apply, weights, source, interventions, batch_size=2)
    assert asked == [0, 1, 2, 3, 4, 0]  # each once; the last one fills the batch

    logits = np.stack([images[:, 0, :, 0].mean(1), 1.1 * images[..., 2].mean((1, 2))], axis=1)
    after = np.stack([changed[:, :, 0, :, 0].mean(2), 1.1 * changed[..., 2].mean((2, 3))], axis=2)
    target = logits.argmax(1)
    assert 0 < target.sum() < NUM_IMAGES
    rows = np.arange(NUM_IMAGES)
    expected = logits[rows, target][:, None] - after[rows, :, target]
    batch = found[np.array([4, 1])]
    np.testing.assert_allclose(batch["part_effects"], expected[[4, 1]], atol=1e-6)
    np.testing.assert_allclose(batch["part_masks"], masks[[4, 1]], atol=1e-6)
    np.testing.assert_array_equal(batch["images"], images[[4, 1]])
    assert (len(found), found.class_names) == (NUM_IMAGES, ("a", "b"))
    assert found[3]["part_effects"].shape == (NUM_PARTS,)
    kept = in_memory(found)[np.array([4, 1])]
    for name in ("part_effects", "part_masks"):
        np.testing.assert_allclose(kept[name], batch[name], atol=1e-6)

    def oracle(variables, images, targets, keys):
        """A map whose mass on each part is its effect."""
        which = jnp.asarray((images[:, None] == source.images).all((2, 3, 4))).argmax(1)
        shares = masks / np.maximum(masks.sum((2, 3), keepdims=True), 1)
        return jnp.asarray(np.einsum("bp,bphw->bhw", expected - expected.min() + 0.1, shares))[which]

    init, update = heatmap_scores(apply, {"oracle": own.method(oracle)}, num_images=NUM_IMAGES)
    scores = summarize(fold_epoch(update, init(), found, batch_size=2, constants=ExplainedNetwork(weights)))
    np.testing.assert_allclose(scores["oracle"].values["part-effect correlation"], 1, rtol=1e-5)
    assert scores["true mask"].mean("part-effect correlation") < 0.9


def test_the_truth_may_be_what_the_network_uses():
    """Class 0 is the red of the upper row: of two parts in it, the redder one alone or both."""
    images = np.zeros((4, HEIGHT, WIDTH, 3), np.float32)
    masks = np.zeros((4, NUM_PARTS, HEIGHT, WIDTH), np.float32)
    masks[:, 0, 2:] = masks[:, 1, 0, :2] = masks[:, 2, 0, 3:5] = 1
    # Effects in the mean of the ways are half of the first part, three quarters of the second.
    for n, (first, second) in enumerate([(1.0, 0.3), (1.0, 0.4), (0.6, 0.9), (0.0, 0.0)]):
        images[n, 0, :2, 0], images[n, 0, 3:5, 0] = first, second
    given = masks[:, 1]
    source = ArraySource(images, np.zeros(4, int), given, class_names=("a", "b"))

    def interventions(indices):
        """In two ways: without the part, and with half of the second part and the first as it was."""
        shares = np.stack([masks, masks * np.array([0, 0, 0.5])[:, None, None]], 1)[indices]
        return Changed(images[indices, None, None] * (1 - shares[..., None]), masks[indices])

    options = {"truth_parts": [1, 2], "batch_size": 2}
    found = with_part_effects(apply, jnp.array([1.0, 0.5]), source, interventions, **options)
    expected = [masks[0, 1], masks[1, 1:].sum(0), masks[2, 2], given[3]]
    np.testing.assert_array_equal(found[np.arange(4)]["masks"], expected)
    with pytest.raises(ValueError, match=r"truth_parts is \[3\]: expected some of 0 to 2"):
        with_part_effects(apply, jnp.ones(2), source, interventions, truth_parts=[3], batch_size=2)


@pytest.mark.parametrize(
    ("changed", "masks", "message"),
    [
        (
            (5, 3, 8, 12, 3),
            (5, 3, 8, 12),
            r"images of shape \(5, 3, 8, 12, 3\) for images of .*\(5, parts, 4, 6",
        ),
        ((5, 4, 6, 3), (5, 4, 6), r"images of shape \(5, 4, 6, 3\)"),
        ((4, 3, 4, 6, 3), (4, 3, 4, 6), r"images of shape \(4, 3, 4, 6, 3\)"),
        ((5, 2, 3, 4, 6, 3), (5, 2, 4, 6), r"masks of shape \(5, 2, 4, 6\): .* \(5, 3, 4, 6\)"),
    ],
)
def test_what_does_not_fit_the_images_is_named(changed, masks, message):
    source = ArraySource(np.zeros((5, 4, 6, 3)), np.zeros(5, int), class_names=("a", "b"))
    interventions = lambda indices: Changed(np.zeros(changed), np.zeros(masks))  # noqa: E731
    with pytest.raises(ValueError, match=message):
        with_part_effects(apply, jnp.ones(2), source, interventions, batch_size=5)
