"""The best layer in hindsight, and effects of parts over several interventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transforms import networks
from vexplain.attribution import layer_cam
from vexplain.evaluation import (
    HINDSIGHT,
    Score,
    best_in_hindsight,
    hindsight_methods,
    part_effect_correlation,
)
from vexplain.evaluation.scores import _part_scores
from vexplain.transforms import layers


def test_of_each_kind_of_map_the_best_layer_is_kept():
    def score(area):
        return Score({"IoU area": np.array([area])}, np.zeros(101), "")

    areas = {"grad_cam": 0.2, "grad_cam @ relu_1": 0.4, "grad_cam @ relu_2": 0.3, "layer_cam @ relu_2": 0.1}
    found = best_in_hindsight({name: score(area) for name, area in areas.items()})
    assert {name: s.mean("IoU area") for name, s in found.items()} == {
        f"grad_cam{HINDSIGHT}": 0.4,
        "grad_cam": 0.2,
        f"layer_cam{HINDSIGHT}": 0.1,
    }


def test_in_hindsight_every_layer_with_positions_has_its_maps():
    apply, variables = networks.linen_network()
    images = np.random.default_rng(2).uniform(size=(3, 13, 11, 3)).astype(np.float32)
    table = layers(apply, variables, images)
    found = hindsight_methods(table)
    chosen = [
        layer.name for layer in table if layer.kind in ("relu", "pool") and None not in layer.spatial_axes
    ]
    assert len(chosen) == 4
    cams = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "upsampled_activation")
    assert list(found) == [f"{name} @ {layer}" for name in cams for layer in chosen]
    name = chosen[1]
    maps = [
        jax.jit(lambda x, method=method: method(apply, variables, x, 1, layer=name))(images)
        for method in (layer_cam, found[f"layer_cam @ {name}"])
    ]
    np.testing.assert_array_equal(*maps)
    with pytest.raises(ValueError, match="no activation function or pooling has spatial axes"):
        hindsight_methods(table.select("dense"))


def test_over_several_interventions_the_correlation_is_averaged():
    """A map that is right about the first way and wrong about the second scores 0."""
    parts = jnp.eye(3).reshape(1, 3, 1, 3)
    heatmaps = jnp.array([[[0.1, 0.2, 0.7]]])
    effects = jnp.array([[[0.0, 2.0, 5.0], [5.0, 2.0, 0.0], [2.0, 0.0, 5.0]]])
    each = [part_effect_correlation(heatmaps, parts, effects[:, n])[0] for n in range(3)]
    np.testing.assert_allclose(each, [1, -1, 0.5], atol=1e-6)
    np.testing.assert_allclose(_part_scores(heatmaps, parts, effects), np.mean(each), atol=1e-6)
    np.testing.assert_allclose(_part_scores(heatmaps, parts, effects[:, 0]), 1, atol=1e-6)
