"""Effects of parts on networks whose use of the pixels is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.datasets.an8flower import RenderedSource
from vexplain.evaluation import part_effect_correlation, part_effects

TOP = 3  # the score of class 0 is the mean red of so many upper rows, that of class 1 the mean blue below


def apply(weights, images):
    above, below = images[:, :TOP, :, 0].mean((1, 2)), images[:, TOP:, :, 2].mean((1, 2))
    return jnp.stack([above, below], axis=1) * weights


def test_effects_on_a_network_that_reads_known_pixels():
    """Batch 3, parts 4, 7 × 5 pixels, all different; the effects by hand, in float64."""
    rng = np.random.default_rng(0)
    images, colors = rng.random((3, 7, 5, 3)), rng.random((3, 4, 3))
    parts = rng.integers(0, 4, (3, 7, 5))
    changed = np.stack([images] * 4, axis=1)
    for i, p in np.ndindex(3, 4):
        changed[i, p][parts[i] == p] = colors[i, p]
    targets, weights = np.array([1, 0, 1]), np.array([2.0, 5.0])
    found = jax.jit(lambda x, c, t: part_effects(apply, jnp.asarray(weights), x, c, t))(
        images.astype(np.float32), changed.astype(np.float32), targets
    )
    for i, p in np.ndindex(3, 4):
        rows, channel = (slice(None, TOP), 0) if targets[i] == 0 else (slice(TOP, None), 2)
        before, after = images[i, rows, :, channel], changed[i, p, rows, :, channel]
        expected = weights[targets[i]] * (before - after).mean()
        np.testing.assert_allclose(found[i, p], expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(1) != 0, True)


def test_rendered_parts_have_the_effect_that_a_reader_of_the_cue_knows():
    """A network that reads the corner alone is moved by the cue and by nothing else."""
    source = RenderedSource("single_6c", 1, 24, 2, difficulty="shortcut", cue_probability=1.0)
    indices = np.arange(6)
    batch, changed = source[indices], source.interventions(indices, change="recolor")
    is_cue = (batch["cue_masks"] == 1)[..., None]

    def corner(_, images):
        return (images * is_cue).sum((1, 2)) / is_cue.sum((1, 2))

    def nearness(colors, targets):
        return -jnp.abs(colors - targets).sum(1)

    own_colors = (batch["images"] * is_cue).sum((1, 2)) / is_cue.sum((1, 2))
    effects = part_effects(corner, None, batch["images"], changed.images, own_colors, score=nearness)
    np.testing.assert_array_equal(effects[:, :-1], 0)
    assert (effects[:, -1] > 0.3).all()
    maps = is_cue[..., 0].astype(jnp.float32), jnp.asarray(batch["masks"])
    on_cue, on_part = (part_effect_correlation(heatmaps, changed.masks, effects) for heatmaps in maps)
    np.testing.assert_allclose(on_cue, 1, atol=1e-5)
    assert (on_part < 0.5).all()


def test_changed_images_of_other_images():
    with pytest.raises(ValueError, match="changed_images has shape"):
        part_effects(apply, jnp.ones(2), jnp.ones((2, 4, 4, 3)), jnp.ones((3, 2, 4, 4, 3)), None)
