import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.relevance import (
    feature_index,
    feature_layout,
    layer_and_channel,
    layout_size,
    split_features,
)

LAYOUT = (("conv_2", 3), ("conv_10", 7), ("dense_1", 1))


def test_layout_of_shapes_needs_no_arrays():
    shapes = {
        "conv_2": jax.ShapeDtypeStruct((2, 5, 4, 3), jnp.float32),
        "conv_10": jax.ShapeDtypeStruct((2, 2, 1, 7), jnp.float32),
        "dense_1": jax.ShapeDtypeStruct((2, 1), jnp.float32),
    }
    assert feature_layout(shapes) == LAYOUT
    assert feature_layout(shapes, layers=("dense_1", "conv_2")) == (("dense_1", 1), ("conv_2", 3))
    assert layout_size(LAYOUT) == 11


def test_index_and_channel_are_inverse():
    pairs = [layer_and_channel(LAYOUT, index) for index in range(11)]
    assert pairs[2:4] == [("conv_2", 2), ("conv_10", 0)]
    assert [feature_index(LAYOUT, *pair) for pair in pairs] == list(range(11))


def test_split_features_follows_the_layout():
    values = np.arange(22).reshape(2, 11)
    blocks = split_features(LAYOUT, jnp.asarray(values))
    assert list(blocks) == ["conv_2", "conv_10", "dense_1"]
    for index in range(11):
        layer, channel = layer_and_channel(LAYOUT, index)
        np.testing.assert_array_equal(blocks[layer][:, channel], values[:, index])


def test_bad_places_raise():
    for index in (-1, 11):
        with pytest.raises(ValueError, match=f"features go from 0 to 10, got {index}"):
            layer_and_channel(LAYOUT, index)
    with pytest.raises(ValueError, match="'conv_10' has channels 0 to 6, got 7"):
        feature_index(LAYOUT, "conv_10", 7)
    with pytest.raises(ValueError, match="'conv_3' is not in the layout"):
        feature_index(LAYOUT, "conv_3", 0)
    with pytest.raises(ValueError, match="expected 11 features"):
        split_features(LAYOUT, jnp.zeros((2, 10)))
